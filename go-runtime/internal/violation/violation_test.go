package violation_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

func TestErrorListsEveryViolation(t *testing.T) {
	t.Parallel()

	err := violation.Error{Violations: []violation.Violation{
		{Field: "key", Description: "is required"},
		{Field: "ttl", Description: "must be at least one second"},
	}}

	if got, want := err.Error(), "key: is required; ttl: must be at least one second"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
}

func TestNewFormatsItsDescription(t *testing.T) {
	t.Parallel()

	if got, want := violation.New("events", "has %d, at most %d are allowed", 3, 2).Error(), "events: has 3, at most 2 are allowed"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
}

func TestTooLargeErrorSaysSizeAndLimit(t *testing.T) {
	t.Parallel()

	err := violation.TooLargeError{Field: "value", Size: 12, Limit: 10}
	if got, want := err.Error(), "value: is 12 bytes long, the limit is 10"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
}

func TestJoin(t *testing.T) {
	t.Parallel()

	var (
		key      = violation.New("key", "is required")
		ttl      = violation.New("ttl", "is negative")
		tooLarge = &violation.TooLargeError{Field: "value", Size: 2, Limit: 1}
	)

	tests := map[string]struct {
		errs []error
		want string
	}{
		"nothing":               {nil, "<nil>"},
		"only nil":              {[]error{nil, nil}, "<nil>"},
		"violations in order":   {[]error{ttl, nil, key}, "ttl: is negative; key: is required"},
		"wrapped violation":     {[]error{fmt.Errorf("check: %w", key)}, "key: is required"},
		"another error is kept": {[]error{key, tooLarge, errors.New("later")}, tooLarge.Error()},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			if got := fmt.Sprint(violation.Join(test.errs...)); got != test.want {
				t.Errorf("Join() = %q, want %q", got, test.want)
			}
		})
	}
}

func TestIn(t *testing.T) {
	t.Parallel()

	tests := map[string]struct {
		err  error
		want string
	}{
		"every field": {
			violation.Join(violation.New("key", "is required"), violation.New("ttl", "is negative")),
			"requests[1].key: is required; requests[1].ttl: is negative",
		},
		"a size":        {&violation.TooLargeError{Field: "value", Size: 2, Limit: 1}, "requests[1].value: is 2 bytes long, the limit is 1"},
		"another error": {errors.New("later"), "<nil>"},
		"nothing":       {nil, "<nil>"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			names, moved := violation.In("requests[1]", test.err)
			if got := fmt.Sprint(moved); got != test.want || names != (moved != nil) {
				t.Errorf("In() = %q, %t, want %q", got, names, test.want)
			}
		})
	}
}
