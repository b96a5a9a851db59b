package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// writes is a node that writes the same each time.
func writes(update State) Node {
	return Node{Run: func(context.Context, *Call, State) (Command, error) { return Command{Update: update}, nil }}
}

func does(run Func) Node { return Node{Run: run} }

// list is a graph whose state is one list, to which nodes append.
func list() *Graph { return New("list", map[string]Channel{"seen": {Reduce: Append}, "n": {}}) }

func mustRun(t *testing.T, g *Graph, r Request, o Options) State {
	t.Helper()
	if err := g.Check(); err != nil {
		t.Fatal(err)
	}
	state, err := g.Run(t.Context(), r, o)
	if err != nil {
		t.Fatalf("%v, state %v", err, state)
	}
	return state
}

func wantState(t *testing.T, got State, want string) {
	t.Helper()
	var wanted State
	if err := json.Unmarshal([]byte(want), &wanted); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, wanted) {
		t.Errorf("state %v, want %s", got, want)
	}
}

func TestNodesOfAStepReadWhatTheStepBeforeLeft(t *testing.T) {
	t.Parallel()
	look := func(name string) Node {
		return does(func(_ context.Context, _ *Call, s State) (Command, error) {
			seen, _ := s["seen"].([]any)
			return Command{Update: State{"seen": fmt.Sprintf("%s sees %d", name, len(seen))}}, nil
		})
	}
	g := list().Node("a", look("a")).Node("b", look("b")).Node("c", look("c")).
		Edge(Start, "b").Edge(Start, "a").Edge("a", "c").Edge("b", "c")
	state := mustRun(t, g, Request{Thread: "t", Input: State{"seen": "start"}}, Options{})
	// In the order of the edges, and c once.
	wantState(t, state, `{"seen": ["start", "b sees 1", "a sees 1", "c sees 3"]}`)
}

func TestWritesAreFoldedInTheOrderOfTheTasks(t *testing.T) {
	t.Parallel()
	gates := []chan struct{}{make(chan struct{}), make(chan struct{}), make(chan struct{})}
	close(gates[2])
	item := does(func(_ context.Context, _ *Call, s State) (Command, error) {
		i := int(s["i"].(float64))
		<-gates[i]
		if i > 0 {
			close(gates[i-1])
		}
		return Command{Update: State{"seen": i}}, nil
	})
	g := list().Node("item", item).Branch(Start, func(context.Context, State) ([]Send, error) {
		return []Send{
			{Node: "item", Input: State{"i": 0.0}}, {Node: "item", Input: State{"i": 1.0}}, {Node: "item", Input: State{"i": 2.0}},
		}, nil
	})
	wantState(t, mustRun(t, g, Request{Input: State{}}, Options{}), `{"seen": [0, 1, 2]}`)
}

func TestTwoWritersNeedAReducer(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		a, b any
		want string
	}{
		"values":      {1, 2, "it takes one value in a step: give it a reducer"},
		"overwrites":  {Overwrite{1}, Overwrite{2}, "it takes one Overwrite in a step"},
		"one of both": {Overwrite{1}, 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := list().Node("a", writes(State{"n": test.a})).Node("b", writes(State{"n": test.b})).
				Edge(Start, "a").Edge(Start, "b")
			state, err := g.Run(t.Context(), Request{Input: State{}}, Options{})
			var wrong *UpdateError
			switch {
			case test.want == "" && err == nil:
				wantState(t, state, `{"n": 1}`)
			case !errors.As(err, &wrong) || wrong.Reason != test.want || !slices.Equal(wrong.Nodes, []string{"a", "b"}):
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

func TestJoinWaitsForAllAcrossSteps(t *testing.T) {
	t.Parallel()
	g := list()
	for _, name := range []string{"short", "long", "longer", "both"} {
		g.Node(name, writes(State{"seen": name}))
	}
	g.Edge(Start, "short").Edge(Start, "long").Edge("long", "longer").Join([]string{"short", "longer"}, "both")
	wantState(t, mustRun(t, g, Request{Input: State{}}, Options{}), `{"seen": ["short", "long", "longer", "both"]}`)
}

func TestCommandGoesBesideTheEdges(t *testing.T) {
	t.Parallel()
	g := list().Node("a", does(func(context.Context, *Call, State) (Command, error) {
		return Command{Update: State{"seen": "a"}, Goto: To("c", End)}, nil
	})).Node("b", writes(State{"seen": "b"})).Node("c", writes(State{"seen": "c"})).Edge(Start, "a").Edge("a", "b")
	wantState(t, mustRun(t, g, Request{Input: State{}}, Options{}), `{"seen": ["a", "b", "c"]}`)
	lost := list().Node("a", does(func(context.Context, *Call, State) (Command, error) {
		return Command{Goto: To("nowhere")}, nil
	})).Edge(Start, "a")
	if _, err := lost.Run(t.Context(), Request{Input: State{}}, Options{}); !errors.As(err, new(*NodeError)) {
		t.Errorf("%v, want a *NodeError", err)
	}
}

func TestLoopEndsAtItsLimit(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	g := list().Node("a", does(func(context.Context, *Call, State) (Command, error) {
		calls.Add(1)
		return Command{}, nil
	})).Edge(Start, "a").Edge("a", "a")
	_, err := g.Run(t.Context(), Request{Input: State{}}, Options{})
	if limit := (*RecursionError)(nil); !errors.As(err, &limit) || limit.Limit != 25 || calls.Load() != 25 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
}

func TestEphemeralChannelIsReadOnce(t *testing.T) {
	t.Parallel()
	g := New("g", map[string]Channel{"note": {Ephemeral: true}, "seen": {Reduce: Append}})
	look := does(func(_ context.Context, call *Call, s State) (Command, error) {
		return Command{Update: State{"seen": []any{[]any{call.Task.Node, s["note"]}}}}, nil
	})
	g.Node("a", look).Node("b", look).Edge(Start, "a").Edge("a", "b")
	wantState(t, mustRun(t, g, Request{Input: State{"note": "hi"}}, Options{}), `{"seen": [["a", "hi"], ["b", null]]}`)
}

func TestNodeIsCalledAgainWhereItFails(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	flaky := Node{Attempts: 3, Backoff: time.Millisecond, Run: func(context.Context, *Call, State) (Command, error) {
		if calls.Add(1) < 3 {
			panic("not yet")
		}
		return Command{Update: State{"n": 1}}, nil
	}}
	wantState(t, mustRun(t, list().Node("a", flaky).Edge(Start, "a"), Request{Input: State{}}, Options{}), `{"n": 1}`)
	calls.Store(-10)
	_, err := list().Node("a", flaky).Edge(Start, "a").Run(t.Context(), Request{Input: State{}}, Options{})
	if !errors.As(err, new(*PanicError)) || calls.Load() != -7 {
		t.Errorf("%v after %d calls", err, calls.Load()+10)
	}
}

func TestNodeHasATimeout(t *testing.T) {
	t.Parallel()
	slow := Node{Timeout: time.Millisecond, Run: func(ctx context.Context, _ *Call, _ State) (Command, error) {
		<-ctx.Done()
		return Command{}, ctx.Err()
	}}
	_, err := list().Node("slow", slow).Edge(Start, "slow").Run(t.Context(), Request{Input: State{}}, Options{})
	if err == nil || err.Error() != "node slow in step 0: it took longer than 1ms" {
		t.Error(err)
	}
}

func TestFailedTaskIsRepeatedAlone(t *testing.T) {
	t.Parallel()
	var fine, bad atomic.Int64
	g := list().Node("fine", does(func(context.Context, *Call, State) (Command, error) {
		fine.Add(1)
		return Command{Update: State{"seen": "fine"}}, nil
	})).Node("bad", does(func(context.Context, *Call, State) (Command, error) {
		if bad.Add(1) == 1 {
			return Command{}, errors.New("no")
		}
		return Command{Update: State{"seen": "bad"}}, nil
	})).Edge(Start, "bad").Edge(Start, "fine")
	o := Options{Saver: &Memory{}}
	if _, err := g.Run(t.Context(), Request{Thread: "t", Input: State{}}, o); !errors.As(err, new(*NodeError)) {
		t.Fatal(err)
	}
	wantState(t, mustRun(t, g, Request{Thread: "t"}, o), `{"seen": ["bad", "fine"]}`)
	if fine.Load() != 1 || bad.Load() != 2 {
		t.Errorf("called %d and %d times", fine.Load(), bad.Load())
	}
	// What is done is not done again.
	mustRun(t, g, Request{Thread: "t"}, o)
	if bad.Load() != 2 {
		t.Error("a thread that is done was run")
	}
}

func TestTurnsOfAThreadShareItsState(t *testing.T) {
	t.Parallel()
	g := New("g", map[string]Channel{"seen": {Reduce: Append, Initial: []string{"first"}}}).
		Node("a", writes(State{"seen": "a"})).Edge(Start, "a")
	o := Options{Saver: &Memory{}}
	mustRun(t, g, Request{Thread: "t", Input: State{"seen": 1}}, o)
	wantState(t, mustRun(t, g, Request{Thread: "t", Input: State{"seen": 2}}, o), `{"seen": ["first", 1, "a", 2, "a"]}`)
	wantState(t, mustRun(t, g, Request{Thread: "other", Input: State{}}, o), `{"seen": ["first", "a"]}`)
	if _, err := g.Run(t.Context(), Request{Thread: "none"}, o); !errors.Is(err, ErrUnknownThread) {
		t.Error(err)
	}
}

// TestRunThatDiedGoesOnWithItsStep has the runner die between two appends, at each place.
func TestRunThatDiedGoesOnWithItsStep(t *testing.T) {
	t.Parallel()
	const steps = 20
	for dies := 1; dies <= steps; dies++ {
		calls := make([]int, steps)
		g := New("g", map[string]Channel{"n": {Reduce: Add, Initial: 0}})
		g.Node("count", does(func(_ context.Context, call *Call, s State) (Command, error) {
			calls[call.Step]++
			command := Command{Update: State{"n": 1}}
			if s["n"].(float64) < steps-1 {
				command.Goto = To("count")
			}
			return command, nil
		})).Edge(Start, "count")
		memory := &Memory{}
		died := errors.New("died")
		o := Options{Saver: &mortal{Memory: memory, left: dies, cause: died}, RecursionLimit: steps}
		if _, err := g.Run(t.Context(), Request{Thread: "t", Input: State{}}, o); !errors.Is(err, died) {
			t.Fatal(err)
		}
		o.Saver = memory
		state, err := g.Run(t.Context(), Request{Thread: "t"}, o)
		if err != nil || state["n"] != float64(steps) {
			t.Fatalf("died at save %d: %v, %v", dies, state, err)
		}
		for step, n := range calls {
			// The step whose end was not saved is done again.
			want := 1
			if step == dies-1 {
				want = 2
			}
			if n != want {
				t.Errorf("died at save %d: step %d was done %d times, want %d", dies, step, n, want)
			}
		}
	}
}

// mortal is a Memory that fails once some saves were made.
type mortal struct {
	*Memory

	left  int
	cause error
}

func (m *mortal) Save(ctx context.Context, thread string, c *Checkpoint) error {
	if m.left == 0 {
		return m.cause
	}
	m.left--
	return m.Memory.Save(ctx, thread, c)
}

func TestOneOfTwoRunnersOfAThreadIsRefused(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	g := list().Node("ask", does(func(_ context.Context, call *Call, _ State) (Command, error) {
		answer, err := call.Interrupt("go on?")
		if err != nil {
			return Command{}, err
		}
		calls.Add(1)
		return Command{Update: State{"n": answer}}, nil
	})).Edge(Start, "ask")
	for round := range 50 {
		o := Options{Saver: &Memory{}}
		_, err := g.Run(t.Context(), Request{Thread: "t", Input: State{}}, o)
		var waits *InterruptedError
		if !errors.As(err, &waits) {
			t.Fatal(err)
		}
		calls.Store(0)
		var wins atomic.Int64
		var racing sync.WaitGroup
		for i := range 8 {
			racing.Go(func() {
				answers := map[string]any{waits.Interrupts[0].ID: i}
				_, err := g.Run(t.Context(), Request{Thread: "t", Answers: answers}, o)
				switch {
				case err == nil:
					wins.Add(1)
				case !errors.Is(err, ErrConflict) && !errors.As(err, new(*UnknownInterruptError)):
					t.Errorf("%v", err)
				}
			})
		}
		racing.Wait()
		if wins.Load() != 1 || calls.Load() != 1 {
			t.Fatalf("round %d: %d of 8 won, the node went on %d times", round, wins.Load(), calls.Load())
		}
	}
}

// TestParallelAgentsThatAskAreAnsweredOneByOne is a supervisor whose tools are graphs,
// each of which asks twice, in parallel.
func TestParallelAgentsThatAskAreAnsweredOneByOne(t *testing.T) {
	t.Parallel()
	var began sync.Map
	agent := New("agent", map[string]Channel{"name": {}, "said": {Reduce: Append}}).
		Node("plan", does(func(_ context.Context, call *Call, s State) (Command, error) {
			count, _ := began.LoadOrStore(call.Thread, new(atomic.Int64))
			count.(*atomic.Int64).Add(1)
			return Command{Update: State{"said": fmt.Sprintf("plan of %v", s["name"])}}, nil
		})).
		Node("ask", does(func(_ context.Context, call *Call, s State) (Command, error) {
			said := []any{}
			for _, what := range []string{"sure", "really"} {
				answer, err := call.Interrupt(map[string]any{"of": s["name"], "what": what})
				if err != nil {
					return Command{}, err
				}
				said = append(said, answer)
			}
			return Command{Update: State{"said": said}}, nil
		})).
		Edge(Start, "plan").Edge("plan", "ask")
	supervisor := New("supervisor", map[string]Channel{"said": {Reduce: Append}, "n": {}}).
		Node("tool", does(func(ctx context.Context, call *Call, s State) (Command, error) {
			state, err := call.Run(ctx, agent, State{"name": s["name"]})
			if err != nil {
				return Command{}, err
			}
			return Command{Update: State{"said": []any{state["said"]}}}, nil
		})).
		Branch(Start, func(_ context.Context, s State) ([]Send, error) {
			var sends []Send
			for i := range int(s["n"].(float64)) {
				sends = append(sends, Send{Node: "tool", Input: State{"name": fmt.Sprint("agent", i)}})
			}
			return sends, nil
		})
	rounds := 250
	switch {
	case testing.Short():
		rounds = 40
	case os.Getenv("SOAK") != "":
		rounds = 4000
	}
	for round := range rounds {
		n := round%4 + 1
		began.Clear()
		o := Options{Saver: &Memory{}}
		state, err := supervisor.Run(t.Context(), Request{Thread: "t", Input: State{"n": n}}, o)
		var want []any
		for i := range n {
			name := fmt.Sprint("agent", i)
			want = append(want, []any{"plan of " + name, "yes, " + name + " sure", "yes, " + name + " really"})
		}
		for waits := (*InterruptedError)(nil); errors.As(err, &waits); {
			// Those in the middle first, as many as there are in the even rounds.
			open := waits.Interrupts[len(waits.Interrupts)/2:]
			if round%2 == 1 {
				open = open[:1]
			}
			answers := map[string]any{}
			for _, question := range open {
				value := question.Value.(map[string]any)
				answers[question.ID] = fmt.Sprintf("yes, %v %v", value["of"], value["what"])
			}
			state, err = supervisor.Run(t.Context(), Request{Thread: "t", Answers: answers}, o)
		}
		if err != nil || !reflect.DeepEqual(state["said"], want) {
			t.Fatalf("round %d: %v, %v", round, state["said"], err)
		}
		began.Range(func(thread, count any) bool {
			if count.(*atomic.Int64).Load() != 1 {
				t.Errorf("round %d: the first node of %s was called %d times", round, thread, count.(*atomic.Int64).Load())
			}
			return true
		})
	}
}

func TestAnswersAreForOpenQuestions(t *testing.T) {
	t.Parallel()
	g := list().Node("ask", does(func(_ context.Context, call *Call, _ State) (Command, error) {
		answer, err := call.Interrupt(struct{ A int }{1})
		return Command{Update: State{"n": answer}}, err
	})).Edge(Start, "ask")
	o := Options{Saver: &Memory{}}
	_, err := g.Run(t.Context(), Request{Thread: "t", Input: State{}}, o)
	var waits *InterruptedError
	if !errors.As(err, &waits) || !reflect.DeepEqual(waits.Interrupts[0].Value, map[string]any{"A": 1.0}) {
		t.Fatal(err)
	}
	if _, err = g.Run(t.Context(), Request{Thread: "t", Answers: map[string]any{"x": 1}}, o); !errors.As(err, new(*UnknownInterruptError)) {
		t.Error(err)
	}
	// Asked again, it says the same.
	if _, err = g.Run(t.Context(), Request{Thread: "t"}, o); !errors.As(err, &waits) || len(waits.Interrupts) != 1 {
		t.Error(err)
	}
	if _, err = g.Run(t.Context(), Request{Thread: "t", Input: State{}}, o); !errors.As(err, new(*InterruptedError)) {
		t.Error(err)
	}
}

func TestRunThatIsCancelledGoesOn(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	g := list().Node("a", writes(State{"seen": "a"})).Node("b", does(func(ctx context.Context, _ *Call, _ State) (Command, error) {
		cancel(stopped)
		return Command{Update: State{"seen": "b"}}, ctx.Err()
	})).Edge(Start, "a").Edge("a", "b")
	o := Options{Saver: &Memory{}}
	if _, err := g.Run(ctx, Request{Thread: "t", Input: State{}}, o); !errors.Is(err, stopped) {
		t.Fatal(err)
	}
	if _, err := g.Run(t.Context(), Request{Thread: "t"}, o); err != nil {
		t.Fatal(err)
	}
}

func TestEventsAreInOrder(t *testing.T) {
	t.Parallel()
	child := list().Node("say", does(func(_ context.Context, call *Call, _ State) (Command, error) {
		call.Emit("progress", 1)
		return Command{}, nil
	})).Edge(Start, "say")
	g := list().Node("sub", does(func(ctx context.Context, call *Call, _ State) (Command, error) {
		_, err := call.Run(ctx, child, State{})
		return Command{}, err
	})).Branch(Start, func(context.Context, State) ([]Send, error) {
		sends := make([]Send, 20)
		for i := range sends {
			sends[i] = Send{Node: "sub", Input: State{"i": i}}
		}
		return sends, nil
	})
	var seen []Event
	mustRun(t, g, Request{Input: State{}}, Options{Observe: func(e Event) { seen = append(seen, e) }})
	progress := 0
	for i, e := range seen {
		if e.Sequence != i+1 {
			t.Fatalf("event %d has the number %d", i+1, e.Sequence)
		}
		if e.Kind == Custom && e.Name == "progress" && e.Node == "sub/say" {
			progress++
		}
	}
	if progress != 20 {
		t.Errorf("%d events of the subgraphs' own, want 20", progress)
	}
}

// TestNodesAwaitRunsElsewhere has two nodes wait for runs, one of them in a subgraph,
// beside one that asks; a runner that looks too early waits again.
func TestNodesAwaitRunsElsewhere(t *testing.T) {
	t.Parallel()
	ended := map[string]bool{}
	waits := func(run string) Node {
		return does(func(_ context.Context, call *Call, _ State) (Command, error) {
			if !ended[run] {
				return Command{}, call.Await(run)
			}
			asked, err := call.Interrupt(run)
			return Command{Update: State{"seen": asked}}, err
		})
	}
	below := list().Node("w", waits("below")).Edge(Start, "w")
	g := list().Node("own", waits("beside")).Edge(Start, "own").
		Node("sub", does(func(ctx context.Context, call *Call, _ State) (Command, error) {
			state, err := call.Run(ctx, below, State{})
			return Command{Update: State{"seen": state["seen"]}}, err
		})).Edge(Start, "sub")
	saver := &Memory{}
	run := func(r Request) (map[string]string, State) {
		t.Helper()
		r.Thread = "t"
		state, err := g.Run(t.Context(), r, Options{Saver: saver, Parallel: 1})
		open := map[string]string{}
		if waiting, isWaiting := errors.AsType[*InterruptedError](err); isWaiting {
			for _, i := range waiting.Interrupts {
				open[i.Node+" "+i.Run] = i.ID
			}
		} else if err != nil {
			t.Fatal(err)
		}
		return open, state
	}
	open, _ := run(Request{Input: State{}})
	both := map[string]any{open["own beside"]: nil, open["sub/w below"]: nil}
	if len(open) != 2 || len(both) != 2 {
		t.Fatalf("open are %v", open)
	}
	if open, _ = run(Request{Answers: both}); len(open) != 2 {
		t.Fatalf("neither has ended, and open are %v", open)
	}
	ended["beside"], ended["below"] = true, true
	open, _ = run(Request{Answers: both})
	if open["own "] == "" || open["sub/w "] == "" {
		t.Fatalf("both ask, and open are %v", open)
	}
	_, state := run(Request{Answers: map[string]any{open["own "]: "a", open["sub/w "]: "b"}})
	wantState(t, state, `{"seen": ["a", "b"]}`)
}
