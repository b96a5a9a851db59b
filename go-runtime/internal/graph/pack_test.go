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
