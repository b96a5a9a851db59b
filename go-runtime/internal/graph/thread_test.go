package graph

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// chain is a graph of nodes that follow each other and append their names.
func chain(names ...string) *Graph {
	g := list()
	before := Start
	for _, name := range names {
		g.Node(name, writes(State{"seen": name})).Edge(before, name)
		before = name
	}
	return g
}

func nodesOf(tasks []Task) []string {
	var nodes []string
	for _, task := range tasks {
		nodes = append(nodes, task.Node)
	}
	return nodes
}

func TestHistoryIsNewestFirstAndInPages(t *testing.T) {
	t.Parallel()
	g, saver := chain("a", "b", "c"), &Memory{}
	mustRun(t, g, Request{Thread: "t", Input: State{"seen": "one"}}, Options{Saver: saver})
	mustRun(t, g, Request{Thread: "t", Input: State{"seen": "two"}}, Options{Saver: saver})
	var seen []string
	var before uint64
	for {
		page, err := g.History(t.Context(), saver, "t", before, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, c := range page {
			if c.Time.IsZero() {
				t.Errorf("revision %d has no time", c.Revision)
			}
			at, err := g.State(t.Context(), saver, "t", c.Revision)
			if err != nil || !reflect.DeepEqual(at, c) {
				t.Errorf("revision %d is %+v, %v, in the history %+v", c.Revision, at, err, c)
			}
			seen = append(seen, fmt.Sprintf("%d %s %d %s %v %v %v",
				c.Revision, c.Source, c.Step, c.Status, c.State["seen"], c.Returned, nodesOf(c.Tasks)))
		}
		before = page[len(page)-1].Revision
	}
	want := []string{
		"8 step 7 done [one a b c two a b c] [c] []",
		"7 step 6 running [one a b c two a b] [b] [c]",
		"6 step 5 running [one a b c two a] [a] [b]",
		"5 input 4 running [one a b c two] [__start__] [a]",
		"4 step 3 done [one a b c] [c] []",
		"3 step 2 running [one a b] [b] [c]",
		"2 step 1 running [one a] [a] [b]",
		"1 input 0 running [one] [__start__] [a]",
	}
	if !slices.Equal(seen, want) {
		t.Errorf("history %q", seen)
	}
	if _, err := g.State(t.Context(), saver, "t", 9); !errors.Is(err, ErrUnknownRevision) {
		t.Error(err)
	}
	if _, err := g.State(t.Context(), saver, "none", 0); !errors.Is(err, ErrUnknownThread) {
		t.Error(err)
	}
}

func TestUpdateFoldsAndPlansAsANode(t *testing.T) {
	t.Parallel()
	asks := does(func(_ context.Context, call *Call, _ State) (Command, error) {
		answer, err := call.Interrupt("?")
		return Command{Update: State{"seen": answer}}, err
	})
	// Beside "ask", which waits, "beside" has returned; "both" is behind the two.
	g := list().Node("ask", asks).Edge(Start, "ask").Node("beside", writes(State{"seen": "beside"})).Edge(Start, "beside").
		Node("both", writes(State{"seen": "both"})).Join([]string{"ask", "beside"}, "both").
		Node("then", writes(State{"seen": "then"})).Edge("both", "then")
	for name, test := range map[string]struct {
		asNode string
		next   []string
		want   string
	}{
		"the one that waits":  {"ask", []string{"both"}, `{"seen": ["beside", "told", "both", "then"]}`},
		"one that comes last": {"then", nil, `{"seen": ["beside", "told"]}`},
		"one in between":      {"both", []string{"then"}, `{"seen": ["beside", "told", "then"]}`},
		"an input":            {Start, []string{"ask", "beside"}, ``},
		"the end":             {End, nil, `{"seen": ["beside", "told"]}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			saver := &Memory{}
			o := Options{Saver: saver}
			if _, err := g.Run(t.Context(), Request{Thread: "t", Input: State{}}, o); !errors.As(err, new(*InterruptedError)) {
				t.Fatal(err)
			}
			c, err := g.Update(t.Context(), saver, "t", test.asNode, State{"seen": "told"})
			if err != nil || !slices.Equal(nodesOf(c.Tasks), test.next) || c.Source != Updated || len(c.Interrupts) > 0 {
				t.Fatalf("%+v, %v", c, err)
			}
			if test.want == "" {
				return
			}
			wantState(t, mustRun(t, g, Request{Thread: "t"}, o), test.want)
		})
	}
}

func TestUpdateKnowsWhoseItIs(t *testing.T) {
	t.Parallel()
	g, saver := chain("a", "b"), &Memory{}
	// A thread that there is not begins; without a node, nobody knows as what.
	if _, err := g.Update(t.Context(), saver, "t", "", State{}); !errors.As(err, new(*violation.Error)) {
		t.Error(err)
	}
	if _, err := g.Update(t.Context(), saver, "t", "x", State{}); !errors.As(err, new(*violation.Error)) {
		t.Error(err)
	}
	if _, err := g.Update(t.Context(), saver, "t", "a", State{"x": 1}); !errors.As(err, new(*UpdateError)) {
		t.Error(err)
	}
	c, err := g.Update(t.Context(), saver, "t", "a", State{"seen": "as a"})
	if err != nil || !slices.Equal(nodesOf(c.Tasks), []string{"b"}) {
		t.Fatalf("%+v, %v", c, err)
	}
	// Again as the one that wrote last.
	if c, err = g.Update(t.Context(), saver, "t", "", State{"seen": "again"}); err != nil || c.Returned[0] != "a" {
		t.Fatalf("%+v, %v", c, err)
	}
	wantState(t, mustRun(t, g, Request{Thread: "t"}, Options{Saver: saver}), `{"seen": ["as a", "again", "b"]}`)
}

func TestUpdateStopsARunThatIsUnderWay(t *testing.T) {
	t.Parallel()
	saver := &Memory{}
	var g *Graph
	g = list().Node("a", does(func(ctx context.Context, _ *Call, _ State) (Command, error) {
		_, err := g.Update(ctx, saver, "t", Start, State{"seen": "meanwhile"})
		return Command{}, err
	})).Edge(Start, "a")
	if _, err := g.Run(t.Context(), Request{Thread: "t", Input: State{}}, Options{Saver: saver}); !errors.Is(err, ErrConflict) {
		t.Error(err)
	}
}

// TestForkGoesOnFromACheckpoint forks a thread at each of its checkpoints, into another
// thread and into itself.
func TestForkGoesOnFromACheckpoint(t *testing.T) {
	t.Parallel()
	for _, to := range []string{"t", "other"} {
		for revision := uint64(1); revision <= 4; revision++ {
			g, saver := chain("a", "b", "c"), &Memory{}
			o := Options{Saver: saver}
			mustRun(t, g, Request{Thread: "t", Input: State{}}, o)
			c, err := g.Fork(t.Context(), saver, "t", revision, to)
			if err != nil || c.Source != Forked || c.Parent != revision {
				t.Fatalf("%+v, %v", c, err)
			}
			wantState(t, mustRun(t, g, Request{Thread: to}, o), `{"seen": ["a", "b", "c"]}`)
			before, err := g.State(t.Context(), saver, "t", 4)
			if err != nil || before.Status != Done {
				t.Errorf("what was there before is %+v, %v", before, err)
			}
		}
	}
	g, saver := chain("a"), &Memory{}
	mustRun(t, g, Request{Thread: "t", Input: State{}}, Options{Saver: saver})
	mustRun(t, g, Request{Thread: "u", Input: State{}}, Options{Saver: saver})
	if _, err := g.Fork(t.Context(), saver, "t", 1, "u"); !errors.Is(err, ErrConflict) {
		t.Errorf("forked onto another thread: %v", err)
	}
}

// TestForkAsksAgain has a graph ask, also in a subgraph, beside a node that has returned.
func TestForkAsksAgain(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	ask := does(func(_ context.Context, call *Call, _ State) (Command, error) {
		answer, err := call.Interrupt("?")
		return Command{Update: State{"seen": answer}}, err
	})
	child := list().Node("ask", ask).Edge(Start, "ask")
	g := list().Node("ask", ask).Edge(Start, "ask").
		Node("sub", does(func(ctx context.Context, call *Call, _ State) (Command, error) {
			state, err := call.Run(ctx, child, State{})
			return Command{Update: State{"seen": state["seen"]}}, err
		})).Edge(Start, "sub").
		Node("beside", does(func(context.Context, *Call, State) (Command, error) {
			calls.Add(1)
			return Command{Update: State{"seen": "beside"}}, nil
		})).Edge(Start, "beside")
	for _, to := range []string{"t", "other"} {
		calls.Store(0)
		o := Options{Saver: &Memory{}}
		answered := func(thread, with string, err error) State {
			t.Helper()
			var waits *InterruptedError
			if !errors.As(err, &waits) || len(waits.Interrupts) != 2 {
				t.Fatal(err)
			}
			answers := map[string]any{}
			for _, question := range waits.Interrupts {
				answers[question.ID] = with + " " + question.Node
			}
			return mustRun(t, g, Request{Thread: thread, Answers: answers}, o)
		}
		_, err := g.Run(t.Context(), Request{Thread: "t", Input: State{}}, o)
		wantState(t, answered("t", "first", err), `{"seen": ["first ask", "first sub/ask", "beside"]}`)
		if _, err := g.Fork(t.Context(), o.Saver, "t", 2, to); err != nil {
			t.Fatal(err)
		}
		_, err = g.Run(t.Context(), Request{Thread: to}, o)
		wantState(t, answered(to, "second", err), `{"seen": ["second ask", "second sub/ask", "beside"]}`)
		if calls.Load() != 1 {
			t.Errorf("what had returned was done %d times", calls.Load())
		}
	}
}

// TestNewTurnBeginsItsSubgraphsAnew has a turn fail in a subgraph whose first node has
// returned.
func TestNewTurnBeginsItsSubgraphsAnew(t *testing.T) {
	t.Parallel()
	fails := true
	child := New("child", map[string]Channel{"said": {}}).
		Node("a", writes(nil)).
		Node("b", does(func(context.Context, *Call, State) (Command, error) {
			if fails {
				return Command{}, errors.New("no")
			}
			return Command{}, nil
		})).Edge(Start, "a").Edge("a", "b")
	g := list().Node("sub", does(func(ctx context.Context, call *Call, s State) (Command, error) {
		state, err := call.Run(ctx, child, State{"said": s["n"]})
		return Command{Update: State{"seen": state["said"]}}, err
	})).Edge(Start, "sub")
	o := Options{Saver: &Memory{}}
	if _, err := g.Run(t.Context(), Request{Thread: "t", Input: State{"n": 1}}, o); !errors.As(err, new(*NodeError)) {
		t.Fatal(err)
	}
	fails = false
	wantState(t, mustRun(t, g, Request{Thread: "t", Input: State{"n": 2}}, o), `{"n": 2, "seen": [2]}`)
}

func TestStepWhoseBranchFailsIsDoneAgain(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	g := chain("a").Join([]string{Start, "a"}, End).Branch("a", func(context.Context, State) ([]Send, error) {
		if calls.Add(1) == 1 {
			return nil, errors.New("not yet")
		}
		return nil, nil
	})
	o := Options{Saver: &Memory{}}
	state, err := g.Run(t.Context(), Request{Thread: "t", Input: State{}}, o)
	if !errors.As(err, new(*NodeError)) || len(state) != 0 {
		t.Fatalf("%v, %v", state, err)
	}
	wantState(t, mustRun(t, g, Request{Thread: "t"}, o), `{"seen": ["a"]}`)
}
