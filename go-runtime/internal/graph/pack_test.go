package graph

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// TestPackedIsWhatJSONIs holds what is packed against package json.
func TestPackedIsWhatJSONIs(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	state := State{"n": 1.0, "x": -1.5e300, "zero": 0.0, "text": "a \"quoted\" \n <b> ü \u2028", "list": []any{nil, true, map[string]any{}}}
	for name, c := range map[string]Checkpoint{
		"little": {Graph: "g", Source: Begun, Time: at, Status: Running},
		"all": {
			Graph: "g", Source: Forked, Time: at, Parent: 7, Status: Failed, Step: 12, State: state,
			Folded:     [][]Update{{{Node: "a", Writes: State{"list": Overwrite{[]any{1.0}}}}, {Node: "b"}}, {}},
			Returned:   []string{"a", "b\\"},
			Tasks:      []Task{{ID: "1", Node: "a"}, {ID: "2", Node: "b", Input: map[string]any{"i": 1.0}}},
			Written:    map[string]Command{"1": {Update: State{"n": 1.0}, Goto: []Send{{Node: "c"}}}},
			Interrupts: []Interrupt{{ID: "2.0", Node: "b", Value: "?"}},
			Answers:    map[string][]any{"2": {"yes"}}, Below: map[string]map[string]any{"2": {"x": 1.0}},
			Arrived: map[int][]string{3: {"a"}}, Deferred: []string{"d"}, Error: "it failed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, whole := range []bool{true, false} {
				c := c
				want := packed{Checkpoint: c, Whole: whole}
				if whole {
					want.Folded = nil
				} else {
					want.State = nil
					c.whole, c.deltas = 1, 0
				}
				text, err := c.Pack()
				if err != nil || IsWhole(text) != whole {
					t.Fatalf("%s, %v", text, err)
				}
				wanted, err := json.Marshal(&want)
				if err != nil {
					t.Fatal(err)
				}
				var a, b any
				if err := json.Unmarshal(text, &a); err != nil {
					t.Fatalf("%v: %s", err, text)
				}
				if err := json.Unmarshal(wanted, &b); err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(a, b) {
					t.Errorf("packed is %s, want %s", text, wanted)
				}
			}
		})
	}
}

func FuzzEncoder(f *testing.F) {
	for _, seed := range []string{
		`{}`, `[1, -0, 0.1, 1e21, 9007199254740993, -9223372036854775808]`, `"\ud800 \u0000 \u007f"`, `{"a": {"b": [null, "ü"]}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var value any
		if json.Unmarshal(text, &value) != nil {
			return
		}
		var e encoder
		e.value(value)
		var again any
		if err := json.Unmarshal(e.text, &again); err != nil || e.err != nil || !reflect.DeepEqual(again, value) {
			t.Errorf("%v is encoded as %s: %v, %v", value, e.text, err, e.err)
		}
	})
}

func TestWhatIsNoCheckpointIsRefused(t *testing.T) {
	t.Parallel()
	g := list()
	for name, texts := range map[string][]string{
		"nothing":              {},
		"a delta alone":        {`{"status":"running"}`},
		"no JSON":              {`{"whole":true,`},
		"a delta of no JSON":   {`{"whole":true,"step":1}`, `{`},
		"an unknown channel":   {`{"whole":true,"step":1}`, `{"folded":[[{"node":"a","writes":{"x":1}}]]}`},
		"a list that is none":  {`{"whole":true,"state":{"seen":1}}`, `{"folded":[[{"node":"a","writes":{"seen":1}}]]}`},
		"two values in a step": {`{"whole":true}`, `{"folded":[[{"node":"a","writes":{"n":1}},{"node":"b","writes":{"n":1}}]]}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var packed [][]byte
			for _, text := range texts {
				packed = append(packed, []byte(text))
			}
			if list, err := g.Unpack(packed, 7, 10); err == nil {
				t.Errorf("read as %+v", list)
			}
		})
	}
}

// TestPackedCheckpointsHaveAllThatCheckpointsHave has a value in every member.
func TestPackedCheckpointsHaveAllThatCheckpointsHave(t *testing.T) {
	t.Parallel()
	full := &Checkpoint{
		Graph: "g", Source: Forked, Time: time.Now().UTC(), Parent: 3, Request: "r", Run: "u", Status: Waiting, Step: 7,
		State: State{"n": 1.0}, Folded: [][]Update{{{Node: "a", Writes: State{"n": 1.0}}}}, Returned: []string{"a"},
		Tasks: []Task{{ID: "t", Node: "b", Input: 1.0}}, Written: map[string]Command{"t": {Update: State{"n": 2.0}}},
		Interrupts: []Interrupt{{ID: "i", Node: "b", Value: "?", Run: "r"}}, Answers: map[string][]any{"t": {1.0}},
		Below: map[string]map[string]any{"t": {"i": 1.0}}, Arrived: map[int][]string{0: {"a"}}, Deferred: []string{"d"}, Error: "e",
	}
	value := reflect.ValueOf(*full)
	for i := range value.NumField() {
		if field := value.Type().Field(i); field.IsExported() && field.Name != "Revision" && value.Field(i).IsZero() {
			t.Fatalf("%s is not filled in", field.Name)
		}
	}
	want := members(t, must(json.Marshal(full)))
	whole := members(t, must(full.Pack()))
	delta := members(t, must(full.Pack()))
	for name, text := range want {
		inWhole, inDelta := name != "folded", name != "state"
		if got := whole[name]; inWhole && !sameJSON(got, text) {
			t.Errorf("a whole one has %s for %s, want %s", got, name, text)
		}
		if got := delta[name]; inDelta && !sameJSON(got, text) {
			t.Errorf("a delta has %s for %s, want %s", got, name, text)
		}
	}
}

func must(text []byte, err error) []byte {
	if err != nil {
		return []byte(err.Error())
	}
	return text
}

func members(t *testing.T, text []byte) (of map[string]json.RawMessage) {
	t.Helper()
	if err := json.Unmarshal(text, &of); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return of
}

func sameJSON(a, b []byte) bool {
	var left, right any
	return json.Unmarshal(a, &left) == nil && json.Unmarshal(b, &right) == nil && reflect.DeepEqual(left, right)
}
