package graph

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

func TestReducers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		reducer          string
		old, write, want string
	}{
		"append a value":        {"append", `[1]`, `2`, `[1, 2]`},
		"append a list":         {"append", `[1]`, `[2, 3]`, `[1, 2, 3]`},
		"append to nothing":     {"append", `null`, `"a"`, `["a"]`},
		"append to an object":   {"append", `{}`, `1`, ``},
		"add":                   {"add", `1`, `2.5`, `3.5`},
		"add to nothing":        {"add", `null`, `2`, `2`},
		"add a text":            {"add", `1`, `"2"`, ``},
		"merge":                 {"merge", `{"a": 1, "b": 2}`, `{"b": 3, "a": null, "c": {}}`, `{"b": 3, "c": {}}`},
		"merge a list":          {"merge", `{}`, `[]`, ``},
		"a message":             {"messages", `[{"id": "1"}]`, `{"id": "2"}`, `[{"id": "1"}, {"id": "2"}]`},
		"messages without ids":  {"messages", `[{"a": 1}]`, `[{"a": 1}, {"a": 1}]`, `[{"a": 1}, {"a": 1}, {"a": 1}]`},
		"a message again":       {"messages", `[{"id": "1"}, {"id": "2"}]`, `[{"id": "1", "a": 1}]`, `[{"id": "1", "a": 1}, {"id": "2"}]`},
		"one twice in a write":  {"messages", `[]`, `[{"id": "1"}, {"id": "1", "a": 1}]`, `[{"id": "1", "a": 1}]`},
		"a message removed":     {"messages", `[{"id": "1"}, {"id": "2"}]`, `{"id": "1", "role": "remove"}`, `[{"id": "2"}]`},
		"all removed":           {"messages", `[{"id": "1"}]`, `[{"id": "__remove_all__", "role": "remove"}, {"id": "3"}]`, `[{"id": "3"}]`},
		"none there to remove":  {"messages", `[]`, `{"id": "1", "role": "remove"}`, ``},
		"a message of no shape": {"messages", `[]`, `"hi"`, ``},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			read := func(text string) (value any) {
				if err := json.Unmarshal([]byte(text), &value); err != nil {
					t.Fatal(err)
				}
				return value
			}
			old := read(test.old)
			got, err := Reducers()[test.reducer](old, read(test.write))
			switch {
			case test.want == "" && err == nil:
				t.Errorf("gives %v, want an error", got)
			case test.want != "" && (err != nil || !reflect.DeepEqual(got, read(test.want))):
				t.Errorf("gives %v, %v, want %s", got, err, test.want)
			}
			if !reflect.DeepEqual(old, read(test.old)) {
				t.Errorf("the old value is %v by now", old)
			}
		})
	}
}

func TestMistakesOfAGraphAreNamed(t *testing.T) {
	t.Parallel()
	g := New("g", nil).Node("a", Node{}).Node(End, writes(nil)).Edge("a", "b").Edge("c", Start).
		Join([]string{"a", "a"}, "a").Join(nil, "d")
	err := g.Check()
	if err == nil {
		t.Fatal("no mistake is named")
	}
	for _, want := range []string{
		`nodes.a: does nothing`, `nodes: must not be called "__end__"`, `there is no node "b"`, `there is no node "c"`,
		`nothing leads to`, `there is no node "d"`, `waits for nothing`, `waits for "a" twice`, `nothing follows`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

// TestWritesOfAStepAreAddedAtOnce holds a step's writes against the reducer, one by one.
func TestWritesOfAStepAreAddedAtOnce(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	message := func() map[string]any {
		switch id := strconv.Itoa(random.IntN(4)); random.IntN(6) {
		case 0:
			return map[string]any{"id": id, "role": RemoveRole}
		case 1:
			return map[string]any{"id": RemoveAll, "role": RemoveRole}
		case 2:
			return map[string]any{"text": id}
		default:
			return map[string]any{"id": id, "text": strconv.Itoa(random.IntN(9))}
		}
	}
	for name, reduce := range map[string]Reducer{"messages": Messages, "append": Append} {
		g := New("g", map[string]Channel{"c": {Reduce: reduce}})
		refused := 0
		for range 500 {
			state := State{"c": []any{map[string]any{"id": "0"}, map[string]any{"id": "1"}}}
			want, wantErr := state["c"], error(nil)
			step := make([]Update, 1+random.IntN(5))
			for i := range step {
				var write any = message()
				if random.IntN(2) == 0 {
					write = []any{message(), message()}
				}
				step[i] = Update{Node: "n", Writes: State{"c": write}}
				if wantErr == nil {
					want, wantErr = reduce(want, write)
				}
			}
			got, err := g.fold(state, step)
			if (err == nil) != (wantErr == nil) || err == nil && !reflect.DeepEqual(got["c"], want) {
				t.Fatalf("%s: %v gives %v, %v, want %v, %v", name, step, got, err, want, wantErr)
			}
			if err != nil {
				refused++
			}
		}
		if name == "messages" && (refused == 0 || refused > 400) {
			t.Errorf("%d of 500 steps were refused", refused)
		}
	}
}
