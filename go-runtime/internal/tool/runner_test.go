package tool

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
)

func newRunner(t *testing.T, cfg Config) *Runner {
	t.Helper()
	return NewRunner(cfg, slog.New(slog.DiscardHandler))
}

func TestDoPassesTheCallAndItsResult(t *testing.T) {
	t.Parallel()
	var got Call
	result, err := newRunner(t, Config{}).Do(t.Context(), Tool{Name: "a", Call: func(_ context.Context, c Call) (Result, error) {
		got = c
		return Result{Text: "no", Failed: true, Structured: []byte(`{}`)}, nil
	}}, Call{Namespace: "n", RunID: "r", ID: "c", Arguments: []byte(`{}`)})
	if err != nil || result.Text != "no" || !result.Failed || string(result.Structured) != "{}" {
		t.Errorf("result = %+v, %v", result, err)
	}
	if got.Namespace != "n" || got.RunID != "r" || got.ID != "c" || string(got.Arguments) != "{}" {
		t.Errorf("called with %+v", got)
	}
}

func TestAToolThatEndsLateCountsAsTimedOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		runner := newRunner(t, Config{MaxLate: 2})
		release := make(chan struct{})
		deaf := Tool{Name: "deaf", Timeout: time.Second, Call: func(context.Context, Call) (Result, error) {
			<-release
			return Result{Text: "late"}, nil
		}}
		for range 2 {
			begun := time.Now()
			_, err := runner.Do(t.Context(), deaf, Call{})
			var failure *Error
			if !errors.As(err, &failure) || failure.Reason != TimedOut || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("Do failed with %v", err)
			}
			if took := time.Since(begun); took != time.Second+grace {
				t.Errorf("Do took %s", took)
			}
		}
		if late := runner.Late(); late != 2 {
			t.Errorf("%d calls are late", late)
		}
		var failure *Error
		if _, err := runner.Do(t.Context(), deaf, Call{}); !errors.As(err, &failure) || failure.Reason != Overrun {
			t.Errorf("a further call fails with %v", err)
		}
		if _, err := runner.Do(t.Context(), Tool{Name: "other", Call: does}, Call{}); err != nil {
			t.Errorf("another tool fails: %v", err)
		}
		stopping, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := runner.Stop(stopping); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Stop returned %v while calls went on", err)
		}
		close(release)
		if err := runner.Stop(t.Context()); err != nil || runner.Late() != 0 {
			t.Errorf("Stop returned %v, with %d late", err, runner.Late())
		}
	})
}

func TestAToolThatReturnsAtItsEndIsNotLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		runner := newRunner(t, Config{})
		polite := Tool{Name: "polite", Call: func(ctx context.Context, _ Call) (Result, error) {
			<-ctx.Done()
			return Result{}, ctx.Err()
		}}
		begun := time.Now()
		_, err := runner.Do(t.Context(), polite, Call{})
		var failure *Error
		if !errors.As(err, &failure) || failure.Reason != TimedOut || time.Since(begun) != DefaultTimeout || runner.Late() != 0 {
			t.Errorf("Do failed with %v after %s, %d late", err, time.Since(begun), runner.Late())
		}

		gone := errors.New("the caller is gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(gone) })
		if _, err := runner.Do(ctx, polite, Call{}); !errors.Is(err, gone) || errors.As(err, &failure) && failure.Reason != TimedOut {
			t.Errorf("Do failed with %v", err)
		}
	})
}

func TestAToolsFailureIsItsOwn(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	runner := NewRunner(Config{}, slog.New(slog.NewTextHandler(&log, nil)))
	down := errors.New("down")
	tests := map[string]struct {
		call func(context.Context, Call) (Result, error)
		want string
	}{
		"error": {func(context.Context, Call) (Result, error) { return Result{Text: "x"}, down }, "tool a: down"},
		"panic": {func(context.Context, Call) (Result, error) { panic("the secret") }, "tool a: it panicked"},
	}
	for name, test := range tests {
		result, err := runner.Do(t.Context(), Tool{Name: "a", Call: test.call}, Call{})
		var failure *Error
		if !errors.As(err, &failure) || failure.Reason != Broken || err.Error() != test.want || result.Text != "" {
			t.Errorf("%s: Do gave %+v, %v", name, result, err)
		}
	}
	if !strings.Contains(log.String(), "the secret") || !strings.Contains(log.String(), "runner_test.go") {
		t.Errorf("the log does not tell of the panic: %s", log.String())
	}
}

func TestResultsAreBounded(t *testing.T) {
	t.Parallel()
	runner := newRunner(t, Config{MaxTextBytes: 10, MaxImageBytes: 5})
	tests := map[string]struct{ made, want Result }{
		"fits":       {Result{Text: "0123456789"}, Result{Text: "0123456789"}},
		"long":       {Result{Text: "0123456789x"}, Result{Text: "0123456789…\n[cut: the first 10 bytes]"}},
		"mid letter": {Result{Text: "012345678é"}, Result{Text: "012345678…\n[cut: the first 10 bytes]"}},
		"no UTF-8":   {Result{Text: "a\xffb"}, Result{Text: "a\uFFFDb"}},
		"structured": {Result{Structured: []byte(`{"a":1}`)}, Result{Text: `{"a":1}`, Structured: []byte(`{"a":1}`)}},
		"much":       {Result{Structured: []byte(`{"a":12345}`)}, Result{Text: "{\"a\":12345…\n[cut: the first 10 bytes]"}},
		"images": {
			Result{Images: []model.Image{{Data: []byte("123")}, {Data: []byte("456")}, {URL: "12"}}},
			Result{Text: "\n[left out: 2 images, larger than 5 bytes together]", Images: []model.Image{{Data: []byte("123")}}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := runner.Do(t.Context(), Tool{Name: "a", Call: func(context.Context, Call) (Result, error) { return test.made, nil }}, Call{})
			if err != nil || got.Text != test.want.Text || !bytes.Equal(got.Structured, test.want.Structured) || len(got.Images) != len(test.want.Images) {
				t.Errorf("result = %+v, %v, want %+v", got, err, test.want)
			}
		})
	}
}
