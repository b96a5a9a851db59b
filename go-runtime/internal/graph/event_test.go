package graph

import (
	"context"
	"fmt"
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
		"values":      {[]Mode{ModeValues}, []string{"begin ", "step ", "interrupt ask"}},
		"updates":     {[]Mode{ModeUpdates}, []string{"node.finished a", "interrupt ask"}},
		"messages":    {[]Mode{ModeMessages}, []string{"message a", "message a"}},
		"custom":      {[]Mode{ModeCustom}, []string{"custom a"}},
		"checkpoints": {[]Mode{ModeCheckpoints}, []string{"checkpoint ", "checkpoint ", "checkpoint "}},
		"tasks":       {[]Mode{ModeTasks}, []string{"node.started a", "node.finished a", "node.started ask", "interrupt ask"}},
		"several":     {[]Mode{ModeCustom, ModeMessages}, []string{"message a", "message a", "custom a"}},
		"debug": {[]Mode{ModeDebug}, []string{
			"begin ", "checkpoint ", "node.started a", "message a", "message a", "custom a", "node.finished a", "step ", "checkpoint ",
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
