package graph

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// patched applies what Changes returns, as a reader does who has it as JSON.
func patched(t *testing.T, before State, changes []Change) State {
	t.Helper()
	var state State
	if text, err := json.Marshal(before); err != nil || json.Unmarshal(text, &state) != nil {
		t.Fatal(err)
	}
	for _, change := range changes {
		tokens := strings.Split(change.Path, "/")[1:]
		for i := range tokens {
			tokens[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(tokens[i])
		}
		set := func(any) {}
		var at any = state
		for _, token := range tokens[:len(tokens)-1] {
			parent := at.(map[string]any)
			set = func(value any) { parent[token] = value }
			at = parent[token]
		}
		last := tokens[len(tokens)-1]
		if list, isList := at.([]any); isList && last == "-" && change.Op == "add" {
			set(append(list, change.Value))
			continue
		}
		object := at.(map[string]any)
		if _, there := object[last]; there == (change.Op == "add") {
			t.Errorf("%s %s does not fit", change.Op, change.Path)
		}
		if object[last] = change.Value; change.Op == "remove" {
			delete(object, last)
		}
	}
	return state
}

func TestChangesMakeTheNextState(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ before, after, want string }{
		"nothing":          {`{"a": [1, {"b": null}]}`, `{"a": [1, {"b": null}]}`, `null`},
		"a value":          {`{"a": 1, "b": 2}`, `{"a": 1, "b": null}`, `[{"op": "replace", "path": "/b", "value": null}]`},
		"a new channel":    {`{}`, `{"a/b~c": 1}`, `[{"op": "add", "path": "/a~1b~0c", "value": 1}]`},
		"an empty channel": {`{"a": 1}`, `{}`, `[{"op": "remove", "path": "/a", "value": null}]`},
		"a list that grew": {
			`{"a": [1]}`, `{"a": [1, [2], 3]}`,
			`[{"op": "add", "path": "/a/-", "value": [2]}, {"op": "add", "path": "/a/-", "value": 3}]`,
		},
		"a list that changed": {`{"a": [1, 2]}`, `{"a": [2, 2, 3]}`, `[{"op": "replace", "path": "/a", "value": [2, 2, 3]}]`},
		"a list that shrank":  {`{"a": [1, 2]}`, `{"a": [1]}`, `[{"op": "replace", "path": "/a", "value": [1]}]`},
		"an object": {
			`{"a": {"b": {"c": 1, "d": [1]}}}`, `{"a": {"b": {"d": [1, 2]}, "e": 2}}`,
			`[{"op": "remove", "path": "/a/b/c", "value": null}, {"op": "add", "path": "/a/b/d/-", "value": 2}, ` +
				`{"op": "add", "path": "/a/e", "value": 2}]`,
		},
		"another type": {`{"a": {}}`, `{"a": []}`, `[{"op": "replace", "path": "/a", "value": []}]`},
		"no name":      {`{"": 1}`, `{"": 2}`, `[{"op": "replace", "path": "/", "value": 2}]`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var before, after State
			var want []Change
			if err := errors.Join(
				json.Unmarshal([]byte(test.before), &before), json.Unmarshal([]byte(test.after), &after),
				json.Unmarshal([]byte(test.want), &want),
			); err != nil {
				t.Fatal(err)
			}
			changes := Changes(before, after)
			if !reflect.DeepEqual(changes, want) {
				t.Errorf("changes %v", changes)
			}
			if got := patched(t, before, changes); !reflect.DeepEqual(got, after) {
				t.Errorf("state %v, want %v", got, after)
			}
		})
	}
}

func FuzzChangesMakeTheNextState(f *testing.F) {
	f.Add(`{"a": [1, {"b": 2}], "c": {"d": [1]}}`, `{"a": [1, {"b": 2}, 3], "c": {"d": [0], "~/": null}}`)
	f.Fuzz(func(t *testing.T, first, second string) {
		var before, after State
		if json.Unmarshal([]byte(first), &before) != nil || json.Unmarshal([]byte(second), &after) != nil ||
			before == nil || after == nil {
			return
		}
		if got := patched(t, before, Changes(before, after)); !reflect.DeepEqual(got, after) {
			t.Errorf("state %v, want %v", got, after)
		}
	})
}

// TestALogOfStatesTakesTheBytesOfWhatWasWritten has a conversation of 400 messages of a
// kilobyte, and a step of many tasks.
func TestALogOfStatesTakesTheBytesOfWhatWasWritten(t *testing.T) {
	t.Parallel()
	const messages = 400
	text := strings.Repeat("x", 1000)
	say := does(func(_ context.Context, call *Call, _ State) (Command, error) {
		command := Command{Update: State{"messages": []any{map[string]any{"id": strconv.Itoa(call.Step), "content": text}}, "n": call.Step}}
		if call.Step < messages-1 {
			command.Goto = To("say")
		}
		return command, nil
	})
	below := list().Node("in", writes(State{"seen": "below"})).Edge(Start, "in")
	g := New("g", map[string]Channel{"messages": {Reduce: Messages}, "n": {}, "seen": {Reduce: Append}, "i": {Ephemeral: true}}).
		Node("say", say).Branch(Start, func(context.Context, State) ([]Send, error) {
		sends := To("say")
		for i := range 20 {
			sends = append(sends, Send{Node: "work", Input: State{"i": float64(i)}})
		}
		return sends, nil
	}).Node("work", does(func(ctx context.Context, call *Call, s State) (Command, error) {
		_, err := call.Run(ctx, below, State{})
		return Command{Update: State{"seen": s["i"]}}, err
	})).Node("clear", writes(State{"seen": Overwrite{[]any{"cleared"}}})).Edge("work", "clear")
	var told, state State
	written, steps := 0, 0
	last := mustRun(t, g, Request{Input: State{"seen": "input"}}, Options{RecursionLimit: messages, Observe: func(e Event) {
		switch {
		case e.Node != "":
			return
		case e.Kind == Begins:
			told, state = e.State, e.State
		case e.Kind == StepDone:
			changes := Changes(told, e.State)
			text, err := json.Marshal(changes)
			if err != nil {
				t.Error(err)
			}
			if written += len(text); steps < 5 {
				state = patched(t, state, changes)
				if !reflect.DeepEqual(state, e.State) {
					t.Errorf("state %v, want %v", state, e.State)
				}
			}
			told = e.State
			steps++
		}
	}})
	if steps != messages || !reflect.DeepEqual(told, last) {
		t.Errorf("%d steps, the last state told of is %v", steps, told)
	}
	if most := messages * len(text) * 3 / 2; written > most {
		t.Errorf("%d bytes, want %d at most", written, most)
	}
}
