package graph

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestCachedNodeIsNotCalled(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		policy CachePolicy
		inputs []State
		want   int64
	}{
		"the same again":       {CachePolicy{}, []State{{"n": 1}, {"n": 1}, {"n": 1}}, 1},
		"another state":        {CachePolicy{}, []State{{"n": 1}, {"n": 2}, {"n": 1}}, 2},
		"what it depends on":   {CachePolicy{Key: func(_ context.Context, s State) (string, error) { return fmt.Sprint(s["n"]), nil }}, []State{{"n": 1, "x": 1}, {"n": 1, "x": 2}}, 1},
		"nothing it can name":  {CachePolicy{Key: func(context.Context, State) (string, error) { return "", errors.New("no") }}, []State{{}}, 0},
		"an end of its TTL":    {CachePolicy{TTL: time.Minute}, []State{{"n": 1}, {"n": 1, "wait": true}, {"n": 1}}, 2},
		"too large for memory": {CachePolicy{}, []State{{"n": strings.Repeat("x", 4000)}, {"n": strings.Repeat("x", 4000)}}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int64
				node := does(func(_ context.Context, _ *Call, s State) (Command, error) {
					calls.Add(1)
					return Command{Update: State{"seen": s["n"]}, Goto: To("b")}, nil
				})
				node.Cache = &test.policy
				g := New("g", map[string]Channel{"n": {}, "x": {}, "seen": {Reduce: Append}}).
					Node("a", node).Edge(Start, "a").Node("b", writes(State{"seen": "b"}))
				cache := NewMemoryCache(16 << 10)
				for _, input := range test.inputs {
					if input["wait"] != nil {
						delete(input, "wait")
						time.Sleep(time.Minute) //nolint:forbidigo // the clock is the test's
					}
					state, err := g.Run(t.Context(), Request{Input: input}, Options{Cache: cache})
					if test.want == 0 {
						if err == nil {
							t.Error("it ran")
						}
						continue
					}
					if seen, _ := state["seen"].([]any); err != nil || len(seen) != 2 || seen[1] != "b" {
						t.Fatalf("%v, %v", state, err)
					}
				}
				if calls.Load() != test.want {
					t.Errorf("it was called %d times, want %d", calls.Load(), test.want)
				}
			})
		})
	}
}

func TestAnsweredNodeIsNotCached(t *testing.T) {
	t.Parallel()
	node := does(func(_ context.Context, call *Call, _ State) (Command, error) {
		answer, err := call.Interrupt("?")
		return Command{Update: State{"n": answer}}, err
	})
	node.Cache = &CachePolicy{}
	g := list().Node("ask", node).Edge(Start, "ask")
	o := Options{Saver: &Memory{}, Cache: NewMemoryCache(1 << 20)}
	for _, thread := range []string{"first", "second"} {
		_, err := g.Run(t.Context(), Request{Thread: thread, Input: State{}}, o)
		var waits *InterruptedError
		if !errors.As(err, &waits) {
			t.Fatalf("thread %s asks nothing: %v", thread, err)
		}
		answers := map[string]any{waits.Interrupts[0].ID: thread}
		wantState(t, mustRun(t, g, Request{Thread: thread, Answers: answers}, o), fmt.Sprintf(`{"n": %q}`, thread))
	}
}

func TestNodeThatAwaitedARunIsCached(t *testing.T) {
	t.Parallel()
	var awaited atomic.Int64
	node := does(func(_ context.Context, call *Call, _ State) (Command, error) {
		if awaited.Add(1) == 1 {
			return Command{}, call.Await("elsewhere")
		}
		return Command{Update: State{"n": awaited.Load()}}, nil
	})
	node.Cache = &CachePolicy{}
	g := list().Node("await", node).Edge(Start, "await")
	o := Options{Saver: &Memory{}, Cache: NewMemoryCache(1 << 20)}
	_, err := g.Run(t.Context(), Request{Thread: "first", Input: State{}}, o)
	var waits *InterruptedError
	if !errors.As(err, &waits) {
		t.Fatal(err)
	}
	ended := map[string]any{waits.Interrupts[0].ID: nil}
	wantState(t, mustRun(t, g, Request{Thread: "first", Answers: ended}, o), `{"n": 2}`)
	wantState(t, mustRun(t, g, Request{Thread: "second", Input: State{}}, o), `{"n": 2}`)
}

func TestDeferredNodeWaitsForAllOthers(t *testing.T) {
	t.Parallel()
	late := writes(State{"seen": "late"})
	late.Defer = true
	g := chain("a", "b", "c").Node("late", late).Edge("a", "late").Edge("b", "late").
		Node("after", writes(State{"seen": "after"})).Edge("late", "after")
	o := Options{Saver: &Memory{}}
	wantState(t, mustRun(t, g, Request{Thread: "t", Input: State{}}, o), `{"seen": ["a", "b", "c", "late", "after"]}`)
	// A runner that takes over knows what is deferred.
	for revision := uint64(1); revision <= 6; revision++ {
		to := fmt.Sprint("t", revision)
		if _, err := g.Fork(t.Context(), o.Saver, "t", revision, to); err != nil {
			t.Fatal(err)
		}
		wantState(t, mustRun(t, g, Request{Thread: to}, o), `{"seen": ["a", "b", "c", "late", "after"]}`)
	}
}

func TestDeferredJoinAndSend(t *testing.T) {
	t.Parallel()
	late := does(func(_ context.Context, _ *Call, s State) (Command, error) {
		return Command{Update: State{"seen": fmt.Sprint("late ", s["item"])}}, nil
	})
	late.Defer = true
	// The join is complete in the first step, and the Send is for the second one.
	g := chain("a", "b", "c").Node("late", late).Join([]string{"a"}, "late").
		Branch("a", func(context.Context, State) ([]Send, error) {
			return []Send{{Node: "late", Input: State{"item": 1}}}, nil
		})
	wantState(t, mustRun(t, g, Request{Input: State{}}, Options{}), `{"seen": ["a", "b", "late 1", "c", "late <nil>"]}`)
}

func TestPausesBetweenCalls(t *testing.T) {
	t.Parallel()
	fatal := errors.New("fatal")
	for name, test := range map[string]struct {
		node     Node
		fails    error
		calls    int64
		from, to time.Duration
	}{
		"doubled":               {Node{Attempts: 4, Backoff: time.Second}, errors.New("x"), 4, 7 * time.Second, 7 * time.Second},
		"up to a limit":         {Node{Attempts: 5, Backoff: time.Second, MaxBackoff: 3 * time.Second}, errors.New("x"), 5, 9 * time.Second, 9 * time.Second},
		"a limit below it":      {Node{Attempts: 3, Backoff: time.Hour, MaxBackoff: time.Second}, errors.New("x"), 3, 2 * time.Second, 2 * time.Second},
		"random":                {Node{Attempts: 4, Backoff: time.Second, Jitter: true}, errors.New("x"), 4, 3500 * time.Millisecond, 7 * time.Second},
		"none":                  {Node{Attempts: 100}, errors.New("x"), 100, 0, 0},
		"never too long":        {Node{Attempts: 60, Backoff: time.Nanosecond, MaxBackoff: time.Nanosecond}, errors.New("x"), 60, 0, time.Second},
		"not after every error": {Node{Attempts: 4, Backoff: time.Second, Retries: func(err error) bool { return !errors.Is(err, fatal) }}, fatal, 1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int64
				test.node.Run = func(context.Context, *Call, State) (Command, error) {
					calls.Add(1)
					return Command{}, test.fails
				}
				begin := time.Now()
				_, err := list().Node("a", test.node).Edge(Start, "a").Run(t.Context(), Request{Input: State{}}, Options{})
				if took := time.Since(begin); !errors.Is(err, test.fails) || calls.Load() != test.calls || took < test.from || took > test.to {
					t.Errorf("%d calls in %s: %v", calls.Load(), took, err)
				}
			})
		})
	}
	// However often, a pause does not turn negative.
	node := Node{Backoff: time.Hour}
	if pause := node.pause(1000); pause <= 0 {
		t.Errorf("the pause is %s", pause)
	}
}

// TestCommandToTheGraphAbove has graphs in graphs, of which the innermost commands.
func TestCommandToTheGraphAbove(t *testing.T) {
	t.Parallel()
	commands := does(func(context.Context, *Call, State) (Command, error) {
		return Command{Update: State{"seen": "told from below"}, Goto: To("chosen"), Parent: true}, nil
	})
	below := list().Node("a", writes(State{"seen": "lost"})).Edge(Start, "a").Node("b", commands).Edge("a", "b").
		Node("beside", writes(State{"seen": "lost as well"})).Edge("a", "beside").
		Node("never", writes(nil)).Edge("b", "never")
	runs := func(g *Graph) Node {
		return does(func(ctx context.Context, call *Call, _ State) (Command, error) {
			state, err := call.Run(ctx, g, State{})
			if err != nil {
				return Command{}, fmt.Errorf("run below: %w", err)
			}
			return Command{Update: State{"seen": state["seen"]}}, nil
		})
	}
	middle := list().Node("sub", runs(below)).Edge(Start, "sub").Node("chosen", writes(State{"seen": "chosen"}))
	top := list().Node("sub", runs(middle)).Edge(Start, "sub").Node("other", writes(State{"seen": "other"})).Edge(Start, "other")
	var events []Event
	o := Options{Saver: &Memory{}, Observe: func(e Event) { events = append(events, e) }}
	want := `{"seen": ["told from below", "chosen", "other"]}`
	wantState(t, mustRun(t, top, Request{Thread: "t", Input: State{}}, o), want)
	if slices.ContainsFunc(events, func(e Event) bool { return e.Kind == NodeFailed || e.Node == "sub/sub/never" }) {
		t.Errorf("events %+v", events)
	}
	_, err := below.Run(t.Context(), Request{Input: State{}}, Options{})
	if !errors.Is(err, errNoParent) {
		t.Errorf("without a graph above: %v", err)
	}
}

type memories struct{ Store }

func (memories) Get(_ context.Context, namespace []string, key string) (*Item, error) {
	return &Item{Namespace: namespace, Key: key, Value: map[string]any{"likes": "tea"}}, nil
}

func TestNodesReachTheStore(t *testing.T) {
	t.Parallel()
	g := list().Node("a", does(func(ctx context.Context, call *Call, _ State) (Command, error) {
		item, err := call.Store().Get(ctx, []string{"users", "42"}, "preferences")
		if err != nil {
			return Command{}, err
		}
		return Command{Update: State{"n": item}}, nil
	})).Edge(Start, "a")
	wantState(t, mustRun(t, g, Request{Input: State{}}, Options{Store: memories{}}),
		`{"n": {"namespace": ["users", "42"], "key": "preferences", "value": {"likes": "tea"}}}`)
}
