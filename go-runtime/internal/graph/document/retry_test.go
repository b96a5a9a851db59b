package document

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// usedUpError is permanent by its method alone.
type usedUpError struct{ permanent bool }

func (usedUpError) Error() string { return "used up" }

func (u usedUpError) Permanent() bool { return u.permanent }

func TestPermanentErrorsAreNotRetried(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		with  string
		set   string
		fails error
		calls int
	}{
		"set":                   {"", `{n: "1 / int(state.zero)"}`, nil, 1},
		"set of a lost member":  {"", `{n: out.lost}`, nil, 1},
		"a text":                {`text: "{{ state.lost }}"`, "{}", nil, 1},
		"a violation":           {"", "{}", fmt.Errorf("call: %w", violation.New("city", "is unknown")), 1},
		"used up":               {"", "{}", fmt.Errorf("call: %w", usedUpError{true}), 1},
		"used up for now":       {"", "{}", usedUpError{false}, 3},
		"any other":             {"", "{}", errors.New("not now"), 3},
		"one of several errors": {"", "{}", errors.Join(errors.New("not now"), usedUpError{true}), 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				all := kinds()
				all["work"] = func(with With) (Work, error) {
					render := func(context.Context, graph.State) (string, error) { return "", nil }
					if with.Has("text") {
						render = with.Text("text")
					}
					return func(ctx context.Context, _ *graph.Call, state graph.State) (any, error) {
						calls++
						_, err := render(ctx, state)
						return map[string]any{}, errors.Join(err, test.fails)
					}, with.Check()
				}
				parsed, err := Parse(fmt.Appendf(nil, `
name: retries
state: {n: {}, zero: {initial: 0}}
nodes: {a: {kind: work, with: {%s}, set: %s, retry: {attempts: 3, backoff: 1s}}}
edges: [[START, a]]
`, test.with, test.set))
				if err != nil {
					t.Fatal(err)
				}
				compiled, err := parsed.Compile(all)
				if err != nil {
					t.Fatal(err)
				}
				if _, err = compiled.Run(t.Context(), graph.Request{Input: graph.State{}}, graph.Options{}); err == nil {
					t.Error("it did not fail")
				}
				if calls != test.calls {
					t.Errorf("%d calls, want %d: %v", calls, test.calls, err)
				}
			})
		})
	}
}

// TestExpressionOfANodeThatTimedOutIsRetried has the time end within an expression.
func TestExpressionOfANodeThatTimedOutIsRetried(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	late := errors.New("late")
	cancel(late)
	e, err := newExpression("[1, 2, 3].map(a, [1, 2, 3].map(b, lists.range(1000).map(c, a * b * c)))", anyType)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.eval(ctx, graph.State{}, nil); !errors.Is(err, late) || graph.IsPermanent(err) {
		t.Error(err)
	}
}

// TestPausesEndAtAnHour has no max_backoff.
func TestPausesEndAtAnHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		all := kinds()
		all["fails"] = func(with With) (Work, error) {
			return func(context.Context, *graph.Call, graph.State) (any, error) { return nil, errors.New("no") }, with.Check()
		}
		parsed, err := Parse([]byte("name: a\nnodes: {a: {kind: fails, retry: {attempts: 100, backoff: 1h}}}\nedges: [[START, a]]"))
		if err != nil {
			t.Fatal(err)
		}
		compiled, err := parsed.Compile(all)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err = compiled.Run(t.Context(), graph.Request{Input: graph.State{}}, graph.Options{})
		if took := time.Since(began); err == nil || took != 99*time.Hour {
			t.Errorf("after %s: %v", took, err)
		}
	})
}
