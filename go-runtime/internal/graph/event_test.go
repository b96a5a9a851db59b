package graph

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"
)

func TestModesAreFiltersOfOneStream(t *testing.T) {
	t.Parallel()
	g := list().Node("a", does(func(_ context.Context, call *Call, _ State) (Command, error) {
		call.EmitMessage("to")
		call.EmitMessage("ken")
		call.Emit("progress", 0.5)
		return Command{Update: State{"seen": "a"}}, nil
	})).Edge(Start, "a").Node("ask", does(func(_ context.Context, call *Call, _ State) (Command, error) {
		_, err := call.Interrupt("?")
		return Command{}, err
	})).Edge("a", "ask")
	var events []Event
	_, err := g.Run(t.Context(), Request{Thread: "t", Input: State{}}, Options{
		Saver: &Memory{}, Observe: func(e Event) { events = append(events, e) },
	})
	if !Waits(err) {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		modes []Mode
		want  []string
	}{
		"none":        {nil, nil},
		"unknown":     {[]Mode{"x"}, nil},
		"values":      {[]Mode{ModeValues}, []string{"step ", "interrupt ask"}},
		"updates":     {[]Mode{ModeUpdates}, []string{"node.finished a", "interrupt ask"}},
		"messages":    {[]Mode{ModeMessages}, []string{"message a", "message a"}},
		"custom":      {[]Mode{ModeCustom}, []string{"custom a"}},
		"checkpoints": {[]Mode{ModeCheckpoints}, []string{"checkpoint ", "checkpoint ", "checkpoint "}},
		"tasks":       {[]Mode{ModeTasks}, []string{"node.started a", "node.finished a", "node.started ask", "interrupt ask"}},
		"several":     {[]Mode{ModeCustom, ModeMessages}, []string{"message a", "message a", "custom a"}},
		"debug": {[]Mode{ModeDebug}, []string{
			"checkpoint ", "node.started a", "message a", "message a", "custom a", "node.finished a", "step ", "checkpoint ",
			"node.started ask", "interrupt ask", "checkpoint ",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			passes := Filter(test.modes...)
			for _, e := range events {
				if passes(e) {
					got = append(got, fmt.Sprint(e.Kind, " ", e.Node))
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("events %q", got)
			}
		})
	}
}

// TestValuesAreMadeOfUpdates reads the states behind steps from events as a log has them.
func TestValuesAreMadeOfUpdates(t *testing.T) {
	t.Parallel()
	child := list().Node("in", writes(State{"seen": "below"})).Edge(Start, "in")
	g := list().Node("work", does(func(ctx context.Context, call *Call, s State) (Command, error) {
		if _, err := call.Run(ctx, child, State{}); err != nil {
			return Command{}, err
		}
		return Command{Update: State{"seen": s["i"]}}, nil
	})).Branch(Start, func(context.Context, State) ([]Send, error) {
		sends := make([]Send, 20)
		for i := range sends {
			sends[i] = Send{"work", State{"i": float64(i)}}
		}
		return sends, nil
	}).Node("clear", writes(State{"seen": Overwrite{[]any{"cleared"}}, "n": 1})).Edge("work", "clear").
		Node("last", writes(State{"seen": "last"})).Edge("clear", "last")
	var log [][]byte
	var want []State
	mustRun(t, g, Request{Input: State{"seen": "input"}}, Options{Observe: func(e Event) {
		text, err := json.Marshal(e)
		if err != nil {
			t.Error(err)
		}
		log = append(log, text)
		if e.Kind == StepDone && e.Node == "" {
			want = append(want, e.State)
		}
	}})
	values := g.Values(State{"seen": []any{"input"}})
	var got []State
	for _, text := range log {
		var e Event
		if err := json.Unmarshal(text, &e); err != nil {
			t.Fatal(err)
		}
		state, err := values.Take(e)
		if err != nil {
			t.Fatal(err)
		}
		if state != nil {
			got = append(got, state)
		}
	}
	if len(want) != 3 || !reflect.DeepEqual(got, want) {
		t.Errorf("states %v, want %v", got, want)
	}
}
