package graph

import (
	"context"
	"errors"
	"reflect"
	"testing"
)

// TestThreadsKeepTheirValuesWhenTheGraphIsAnother has turns of a thread with one graph, and
// then with another of its name.
func TestThreadsKeepTheirValuesWhenTheGraphIsAnother(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		channels map[string]Channel
		want     State
	}{
		"the same":        {map[string]Channel{"l": {Reduce: Append}, "t": {Reduce: Add}}, State{"l": []any{"x", "x", "x", "y"}, "t": 16.0}},
		"no reducers":     {map[string]Channel{"l": {}, "t": {}}, State{"l": []any{"y"}, "t": 1.0}},
		"another reducer": {map[string]Channel{"l": {Reduce: Append}, "t": {Reduce: Append}}, nil},
		"one more":        {map[string]Channel{"l": {Reduce: Append}, "t": {Reduce: Add}, "n": {Initial: 1.0}}, State{"l": []any{"x", "x", "x", "y"}, "t": 16.0}},
		"ephemeral":       {map[string]Channel{"l": {Reduce: Append, Ephemeral: true}, "t": {Reduce: Add}}, State{"t": 16.0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			saver := &Memory{}
			first := idle(map[string]Channel{"l": {Reduce: Append}, "t": {Reduce: Add}})
			for range 3 {
				turn(t, first, saver, State{"l": []any{"x"}, "t": 5.0})
			}
			was := State{"l": []any{"x", "x", "x"}, "t": 15.0}
			second := idle(test.channels)
			before, err := second.State(t.Context(), saver, "t", 0)
			if err != nil || !reflect.DeepEqual(before.State, was) {
				t.Fatalf("%v, %v", before, err)
			}
			_, err = second.Run(t.Context(), Request{Thread: "t", Input: State{"l": []any{"y"}, "t": 1.0}}, Options{Saver: saver})
			if (err == nil) != (test.want != nil) {
				t.Fatal(err)
			}
			for _, reader := range []*Graph{first, second} {
				history, err := reader.History(t.Context(), saver, "t", 0, 0)
				if err != nil {
					t.Fatal(err)
				}
				if latest := history[0]; test.want != nil && !reflect.DeepEqual(latest.State, test.want) {
					t.Errorf("%v, want %v", latest.State, test.want)
				}
				past, err := reader.State(t.Context(), saver, "t", before.Revision)
				if err != nil || !reflect.DeepEqual(past.State, was) {
					t.Errorf("%v, %v", past, err)
				}
			}
		})
	}
}

func TestThreadsKeepChannelsThatTheGraphHasNoMore(t *testing.T) {
	t.Parallel()
	saver := &Memory{}
	both := idle(map[string]Channel{"l": {Reduce: Append}, "t": {Reduce: Add}})
	for range 3 {
		turn(t, both, saver, State{"l": []any{"x"}, "t": 5.0})
	}
	one := idle(map[string]Channel{"t": {Reduce: Add}})
	turn(t, one, saver, State{"t": 1.0})
	turn(t, one, saver, State{"t": 1.0})
	c, err := one.State(t.Context(), saver, "t", 0)
	if want := (State{"l": []any{"x", "x", "x"}, "t": 17.0}); err != nil || !reflect.DeepEqual(c.State, want) {
		t.Errorf("%v, %v", c, err)
	}
}

// TestDataIsNoOverwrite writes what looks like one: before the thread is read again, and behind.
func TestDataIsNoOverwrite(t *testing.T) {
	t.Parallel()
	data := []any{
		map[string]any{"__overwrite__": []any{}}, map[string]any{"__overwrite__!": 1.0}, map[string]any{"__overwrite__": 1.0, "x": 2.0},
	}
	saver := &Memory{}
	channels := map[string]Channel{"l": {Reduce: Append}, "x": {}}
	g := New("same", channels).
		Node("ask", Node{Run: func(_ context.Context, c *Call, _ State) (Command, error) {
			_, err := c.Interrupt("?")
			return Command{}, err
		}}).
		Node("beside", Node{Run: func(context.Context, *Call, State) (Command, error) {
			return Command{Update: State{"x": data[0]}}, nil
		}}).
		Edge(Start, "ask").Edge(Start, "beside")
	turn(t, idle(channels), saver, State{"l": []any{"first"}})
	for _, one := range data {
		turn(t, idle(channels), saver, State{"l": one})
	}
	_, err := g.Run(t.Context(), Request{Thread: "t", Input: State{"l": "last"}}, Options{Saver: saver})
	var asks *InterruptedError
	if !errors.As(err, &asks) {
		t.Fatal(err)
	}
	answers := map[string]any{asks.Interrupts[0].ID: "!"}
	state, err := g.Run(t.Context(), Request{Thread: "t", Answers: answers}, Options{Saver: saver})
	want := State{"l": append(append([]any{"first"}, data...), "last"), "x": data[0]}
	if err != nil || !reflect.DeepEqual(state, want) {
		t.Errorf("%v, %v, want %v", state, err, want)
	}
}

// idle is a graph whose one node does nothing.
func idle(channels map[string]Channel) *Graph {
	return New("same", channels).Node("a", Node{Run: func(context.Context, *Call, State) (Command, error) {
		return Command{}, nil
	}}).Edge(Start, "a")
}

func turn(t *testing.T, g *Graph, saver Saver, input State) {
	t.Helper()
	if _, err := g.Run(t.Context(), Request{Thread: "t", Input: input}, Options{Saver: saver}); err != nil {
		t.Fatal(err)
	}
}
