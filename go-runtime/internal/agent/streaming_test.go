package agent

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
)

const streamed = `
name: tested
state: {n: {reducer: add, initial: 0}, said: {reducer: append}, mood: {}}
nodes:
  count: {kind: transform, set: {n: "1"}}
  say: {kind: llm, with: {prompt: "{{ string(state.n) }}"}, set: {said: "[out.text]"}}
  below: {kind: graph, with: {graph: below}}
  ask: {kind: human, with: {ask: "How is it?"}, set: {mood: out}}
edges: [[START, count], [count, say], [count, below], [say, ask]]
`

// runStreamed runs the graph in some modes to its end, its question answered, and returns
// the types of the graph's own events, with what they say.
func runStreamed(t *testing.T, modes string) (types []string, told []map[string]any) {
	t.Helper()
	provider := &acting{act: func(r model.Request) model.Response {
		text, _ := last(r)
		return model.Response{Text: "said " + text}
	}}
	registry := defining(t, provider, streamed, `
name: below
state: {n: {reducer: add, initial: 0}}
nodes: {count: {kind: transform, set: {n: "1"}}}
edges: [[START, count]]
`)
	b := openWith(t, t.TempDir(), registry)
	run, _, err := b.CreateRun(t.Context(), "default", engine.CreateRequest{
		TaskType: "langgraph_task", Input: []byte(`{"graph_id": "tested"}`), Metadata: []byte(modes),
	})
	if err != nil {
		t.Fatal(err)
	}
	interruptID, _ := b.question(run.ID, "")
	b.resume(run.ID, interruptID, `"fine"`)
	b.wantOutput(b.wantEnd(run.ID, engine.Succeeded, 1), `{"n": 1, "said": ["said 1"], "mood": "fine"}`)
	for _, event := range b.events(run.ID) {
		kind, text, _ := strings.Cut(event, " ")
		if !strings.HasPrefix(kind, "graph.") {
			continue
		}
		var payload map[string]any
		if err := json.Unmarshal([]byte(text), &payload); err != nil {
			t.Fatal(err)
		}
		types, told = append(types, kind), append(told, payload)
	}
	return types, told
}

func TestRunsTellMoreWhereTheyAreAskedTo(t *testing.T) {
	t.Parallel()
	more := []string{"graph.begin", "graph.step", "graph.message", "graph.checkpoint"}
	for modes, want := range map[string][]string{
		``:                                       nil,
		`{}`:                                     nil,
		`{"stream_mode": []}`:                    nil,
		`{"stream_mode": ["updates", "custom"]}`: nil,
		`{"stream_mode": ["values"]}`:            more[:2],
		`{"stream_mode": ["messages"]}`:          more[2:3],
		`{"stream_mode": ["debug"]}`:             {more[0], more[1], more[3]},
		`{"stream_mode": ["debug", "messages"], "x": 1}`: more,
	} {
		t.Run(modes, func(t *testing.T) {
			t.Parallel()
			types, told := runStreamed(t, modes)
			all := strings.Join(types, " ")
			for _, kind := range more {
				if got, wanted := strings.Contains(all, kind), strings.Contains(strings.Join(want, " "), kind); got != wanted {
					t.Errorf("%s told: %t", kind, got)
				}
			}
			for i, kind := range types {
				if kind != "graph.message" {
					continue
				}
				if told[i]["node"] != "say" || !reflect.DeepEqual(told[i]["data"], map[string]any{"content": "said 1"}) {
					t.Errorf("message %v", told[i])
				}
			}
		})
	}
}

func TestStatesAreToldAsTheyChange(t *testing.T) {
	t.Parallel()
	types, told := runStreamed(t, `{"stream_mode": ["values"]}`)
	var states []string
	for i, kind := range types {
		if kind == "graph.begin" || kind == "graph.step" {
			states = append(states, fmt.Sprint(kind, " ", told[i]["data"]))
		}
	}
	want := []string{
		"graph.begin map[n:0]",
		"graph.step [map[op:replace path:/n value:1]]",
		"graph.step [map[op:add path:/said value:[said 1]]]",
		"graph.begin map[n:1 said:[said 1]]",
		"graph.step [map[op:add path:/mood value:fine]]",
	}
	if !reflect.DeepEqual(states, want) {
		t.Errorf("told of\n%s", strings.Join(states, "\n"))
	}
}

func TestUnknownStreamModeFailsTheRun(t *testing.T) {
	t.Parallel()
	b := openWith(t, t.TempDir(), defining(t, &acting{}, streamed))
	for _, metadata := range []string{`{"stream_mode": ["values", "everything"]}`, `{"stream_mode": "values"}`} {
		run, _, err := b.CreateRun(t.Context(), "default", engine.CreateRequest{
			TaskType: "langgraph_task", Input: []byte(`{"graph_id": "tested"}`), Metadata: []byte(metadata),
		})
		if err != nil {
			t.Fatal(err)
		}
		run = b.wantEnd(run.ID, engine.Failed, 1)
		if !strings.Contains(run.Error.Message, "metadata.stream_mode") || !strings.Contains(run.Error.Message, "updates") {
			t.Errorf("failed with %+v", run.Error)
		}
	}
}
