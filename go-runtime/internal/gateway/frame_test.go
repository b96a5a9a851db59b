package gateway

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestFrames(t *testing.T) {
	t.Parallel()
	at := time.Date(2030, 1, 2, 3, 4, 5, 678_901_234, time.FixedZone("", 3600))
	const envelope = `"seq":7,"run_id":"r","ts":"2030-01-02T02:04:05.678901Z","visibility":"user"`
	tests := map[string]struct {
		event   Event
		unnamed bool
		want    string
	}{
		"members beside the envelope": {
			event: Event{Type: "custom", Payload: []byte(` {"a": 1.50, "b":{"c":[]} } `)},
			want:  "event: custom\ndata: {\"type\":\"custom\"," + envelope + `,"a": 1.50, "b":{"c":[]},"payload":{"a": 1.50, "b":{"c":[]} }}`,
		},
		"unnamed": {
			event: Event{Type: "custom", Payload: []byte(`{}`)}, unnamed: true,
			want: `data: {"type":"custom",` + envelope + `,"payload":{}}`,
		},
		"no payload": {
			event: Event{Type: "custom"}, unnamed: true,
			want: `data: {"type":"custom",` + envelope + `,"payload":{}}`,
		},
		"collisions": {
			event:   Event{Type: "custom", Payload: []byte(`{"seq":1,"x":2,"payload":{"y":3},"type":"mine","run_id":null,"ts":0,"visibility":[]}`)},
			unnamed: true,
			want:    `data: {"type":"custom",` + envelope + `,"x":2,"payload":{"seq":1,"x":2,"payload":{"y":3},"type":"mine","run_id":null,"ts":0,"visibility":[]}}`,
		},
		"a collision in disguise": {
			event: Event{Type: "custom", Payload: []byte(`{"\u0074ype":1,"a\u00e9":"\u003c"}`)}, unnamed: true,
			want: `data: {"type":"custom",` + envelope + `,"aé":"\u003c","payload":{"\u0074ype":1,"a\u00e9":"\u003c"}}`,
		},
		"a word within": {
			event: Event{Type: "custom", Payload: []byte(`{"a":{"type":1}}`)}, unnamed: true,
			want: `data: {"type":"custom",` + envelope + `,"a":{"type":1},"payload":{"a":{"type":1}}}`,
		},
		"line ends": {
			event: Event{Type: "a\r\nid: 9", Payload: []byte("{\n\"a\":\r\"b\\n\"}")},
			want:  "event: a  id: 9\ndata: {\"type\":\"a\\r\\nid: 9\"," + envelope + `,"a": "b\n","payload":{ "a": "b\n"}}`,
		},
		"a type of signs": {
			event: Event{Type: `"é\`, Payload: []byte(`{}`)}, unnamed: true,
			want: `data: {"type":"\"é\\",` + envelope + `,"payload":{}}`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.event.RunID, test.event.Sequence, test.event.Visibility, test.event.Time = "r", 7, "user", at
			got := string(appendFrame([]byte("before"), &test.event, !test.unnamed))
			if want := "beforeid: 7\n" + test.want + "\n\n"; got != want {
				t.Errorf("frame =\n%s\nwant\n%s", got, want)
			}
		})
	}
	whole := string(appendFrame(nil, &Event{Time: at.Truncate(time.Second)}, false))
	if !strings.Contains(whole, `"ts":"2030-01-02T02:04:05Z"`) {
		t.Errorf("a whole second: %s", whole)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add("custom", `{"a":1}`)
	f.Add("run.failed", `{"type":1,"a":{"payload":"\u0041"}}`)
	f.Add("x\n", "{\n}")
	f.Fuzz(func(t *testing.T, eventType, payload string) {
		var object map[string]any
		if json.Unmarshal([]byte(payload), &object) != nil || object == nil {
			return
		}
		frame := string(appendFrame(nil, &Event{Sequence: 3, Type: eventType, Payload: []byte(payload)}, true))
		lines := strings.Split(strings.TrimSuffix(frame, "\n\n"), "\n")
		if len(lines) != 3 || strings.Contains(frame, "\r") {
			t.Fatalf("%d lines: %q", len(lines), frame)
		}
		var got map[string]any
		if err := json.Unmarshal([]byte(strings.TrimPrefix(lines[2], "data: ")), &got); err != nil {
			t.Fatalf("data of %q: %v", frame, err)
		}
		for name := range object {
			if _, there := got[name]; !there {
				t.Errorf("%q lacks %q", frame, name)
			}
		}
		if got["seq"] != 3.0 || len(got) < 6 {
			t.Errorf("envelope of %q", frame)
		}
	})
}
