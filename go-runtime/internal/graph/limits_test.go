package graph

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestFanOutIsBounded(t *testing.T) {
	t.Parallel()
	const far = 1_000_000
	sends := make([]Send, far)
	for i := range sends {
		sends[i] = Send{Node: "work", Input: State{"i": 1.0}}
	}
	work := writes(nil)
	for name, g := range map[string]*Graph{
		"a branch": list().Node("work", work).Branch(Start, func(context.Context, State) ([]Send, error) { return sends, nil }),
		"a command": list().Node("work", work).Edge(Start, "a").
			Node("a", does(func(context.Context, *Call, State) (Command, error) { return Command{Goto: sends}, nil })),
		"many commands": list().Node("work", work).Edge(Start, "a").Edge(Start, "b").
			Node("a", does(func(context.Context, *Call, State) (Command, error) { return Command{Goto: sends[:6000]}, nil })).
			Node("b", does(func(context.Context, *Call, State) (Command, error) { return Command{Goto: sends[:6000]}, nil })),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := g.Run(t.Context(), Request{Input: State{}}, Options{})
			var wide *FanOutError
			if !errors.As(err, &wide) || wide.Limit != 10_000 {
				t.Error(err)
			}
		})
	}
	// At the limit it works.
	g := list().Node("work", work).Branch(Start, func(context.Context, State) ([]Send, error) { return sends[:50], nil })
	mustRun(t, g, Request{Input: State{}}, Options{MaxTasks: 50})
}

func TestStateIsBounded(t *testing.T) {
	t.Parallel()
	grows := does(func(context.Context, *Call, State) (Command, error) {
		return Command{Update: State{"seen": strings.Repeat("x", 1000), "n": strings.Repeat("y", 500)}, Goto: To("a")}, nil
	})
	g := list().Node("a", grows).Edge(Start, "a")
	o := Options{Saver: &Memory{}, MaxStateBytes: 50_000, RecursionLimit: 1000}
	state, err := g.Run(t.Context(), Request{Thread: "t", Input: State{}}, o)
	var large *SizeError
	if !errors.As(err, &large) || large.Channel != "seen" || large.Limit != 50_000 || large.Bytes <= large.Limit {
		t.Fatal(err)
	}
	if seen := state["seen"].([]any); len(seen) < 45 || len(seen) > 50 {
		t.Errorf("%d items were taken", len(seen))
	}
	// What replaces itself does not add up, and the thread goes on once there is room.
	if _, err := g.Update(t.Context(), o.Saver, "t", "a", State{"seen": Overwrite{[]any{}}}); err != nil {
		t.Fatal(err)
	}
	replaces := list().Node("a", does(func(_ context.Context, call *Call, _ State) (Command, error) {
		command := Command{Update: State{"n": strings.Repeat("y", 40_000)}}
		if call.Step < 200 {
			command.Goto = To("a")
		}
		return command, nil
	})).Edge(Start, "a")
	mustRun(t, replaces, Request{Thread: "other", Input: State{}}, o)
	if _, err := g.Run(t.Context(), Request{Input: State{"n": strings.Repeat("x", 2<<20)}}, Options{}); !errors.As(err, &large) {
		t.Errorf("an input of 2 MiB: %v", err)
	}
}

func TestNestingIsBounded(t *testing.T) {
	t.Parallel()
	var g *Graph
	g = list().Node("again", does(func(ctx context.Context, call *Call, _ State) (Command, error) {
		_, err := call.Run(ctx, g, State{})
		return Command{}, err
	})).Edge(Start, "again")
	for _, saver := range []Saver{nil, &Memory{}} {
		_, err := g.Run(t.Context(), Request{Thread: "t", Input: State{}}, Options{Saver: saver})
		var deep *NestingError
		if !errors.As(err, &deep) || deep.Limit != 25 {
			t.Error(err)
		}
	}
}

// TestGraphThatRunsItselfTwiceIsBounded would come to two to the 25th graphs.
func TestGraphThatRunsItselfTwiceIsBounded(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options Options
		want    TotalError
	}{
		"graphs":           {Options{}, TotalError{"graphs", 1000}},
		"graphs, as said":  {Options{MaxGraphs: 100}, TotalError{"graphs", 100}},
		"tasks":            {Options{MaxTotalTasks: 300}, TotalError{"tasks", 300}},
		"without a saver":  {Options{MaxGraphs: 30}, TotalError{"graphs", 30}},
		"two at a time":    {Options{MaxGraphs: 30, Parallel: 2}, TotalError{"graphs", 30}},
		"called again":     {Options{MaxGraphs: 30}, TotalError{"graphs", 30}},
		"errors swallowed": {Options{MaxGraphs: 30}, TotalError{"graphs", 30}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int64
			var g *Graph
			again := does(func(ctx context.Context, call *Call, _ State) (Command, error) {
				calls.Add(1)
				_, err := call.Run(ctx, g, State{})
				if name == "errors swallowed" {
					err = nil
				}
				return Command{}, err
			})
			if name == "called again" {
				again.Attempts = 100
			}
			// Its context is what ends it.
			waits := does(func(ctx context.Context, _ *Call, _ State) (Command, error) {
				<-ctx.Done()
				return Command{}, ctx.Err()
			})
			g = list().Node("again", again).Node("twice", again).Edge(Start, "again").Edge(Start, "twice")
			above := list().Node("again", again).Node("waits", waits).Edge(Start, "again").Edge(Start, "waits")
			if name != "without a saver" {
				test.options.Saver = &Memory{}
			}
			_, err := above.Run(t.Context(), Request{Thread: "t", Input: State{}}, test.options)
			var over *TotalError
			if !errors.As(err, &over) || *over != test.want || len(err.Error()) > 300 {
				t.Errorf("%.500v", err)
			}
			if calls.Load() > 2*1000+1 {
				t.Errorf("%d calls", calls.Load())
			}
			if test.options.Saver == nil {
				return
			}
			c, err := above.State(t.Context(), test.options.Saver, "t", 0)
			if err != nil || c.Status != Failed || c.Error != over.Error() {
				t.Errorf("the thread is %+v, %v", c, err)
			}
		})
	}
}

// TestNodeThatDoesNotReturnIsLeftAlone has a node ignore its context.
func TestNodeThatDoesNotReturnIsLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		released, gone := make(chan struct{}), make(chan struct{})
		stuck := Node{Timeout: time.Second, Run: func(_ context.Context, call *Call, _ State) (Command, error) {
			defer close(gone)
			<-released
			call.Emit("late", nil)
			_, err := call.Run(context.Background(), chain("a"), State{})
			return Command{}, err
		}}
		var late int
		begin := time.Now()
		_, err := list().Node("stuck", stuck).Edge(Start, "stuck").
			Run(t.Context(), Request{Input: State{}}, Options{Observe: func(e Event) {
				if e.Kind == Custom || e.Node == "stuck/a" {
					late++
				}
			}})
		var left *StuckError
		if !errors.As(err, &left) || time.Since(begin) != time.Second+left.After {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
		close(released)
		<-gone
		if late > 0 {
			t.Errorf("%d events of a node that was left alone", late)
		}
	})
}

func TestSlowNodeThatHeedsItsContextIsAwaited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := Node{Timeout: time.Second, Run: func(ctx context.Context, _ *Call, _ State) (Command, error) {
			<-ctx.Done()
			time.Sleep(time.Second) //nolint:forbidigo // it cleans up, and the clock is the test's
			return Command{Update: State{"n": 1}}, nil
		}}
		// It has returned a result, however late.
		wantState(t, mustRun(t, list().Node("slow", slow).Edge(Start, "slow"), Request{Input: State{}}, Options{}), `{"n": 1}`)
	})
}
