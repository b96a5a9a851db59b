package agent

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
)

const cachedGraph = `
name: tested
state: {who: {}, other: {}, said: {}, done: {}}
nodes:
  say: {kind: llm, with: {prompt: "{{ state.who }}"}, set: {said: out.text}, cache: {key: state.who, ttl: 1h}}
  do: {kind: agent, with: {agent: helper, prompt: "{{ state.who }}"}, set: {done: out.response}, cache: {key: state.who}}
edges: [[START, say], [START, do]]
output: {said: state.said, done: state.done}
`

// TestNodesAreNotCalledForWhatIsKnown has a model and an agent asked once, as long as what
// they are asked and the namespace stay the same.
func TestNodesAreNotCalledForWhatIsKnown(t *testing.T) {
	t.Parallel()
	provider := &acting{act: func(r model.Request) model.Response {
		text, _ := last(r)
		return model.Response{Text: strings.TrimSpace(r.Instructions + " " + text)}
	}}
	b := openWith(t, t.TempDir(), defining(t, provider, "name: helper\ninstructions: Help.\n", cachedGraph))
	for _, step := range []struct {
		namespace, input, want string
		asked                  int
	}{
		{"default", `"who": "Ada"`, `{"said": "Ada", "done": "Help. Ada"}`, 2},
		{"default", `"who": "Ada", "other": 1`, `{"said": "Ada", "done": "Help. Ada"}`, 2},
		{"default", `"who": "Bob"`, `{"said": "Bob", "done": "Help. Bob"}`, 4},
		{"other", `"who": "Ada"`, `{"said": "Ada", "done": "Help. Ada"}`, 6},
	} {
		created, _, err := b.CreateRun(t.Context(), step.namespace, engine.CreateRequest{
			TaskType: "langgraph_task", Input: []byte(`{"graph_id": "tested", ` + step.input + `}`),
		})
		if err != nil {
			t.Fatal(err)
		}
		run, err := b.WaitRun(t.Context(), step.namespace, created.ID, patience)
		if err != nil || run.State != engine.Succeeded {
			t.Fatalf("%s: %s with %+v, %v", step.input, run.State, run.Error, err)
		}
		b.wantOutput(run, step.want)
		if n := len(provider.asked); n != step.asked {
			t.Errorf("%s in %s: the model was asked %d times by now, want %d", step.input, step.namespace, n, step.asked)
		}
	}
}

func TestWhatAStandInAnsweredIsNotKept(t *testing.T) {
	t.Parallel()
	offline, err := model.New(model.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b := openWith(t, t.TempDir(), defining(t, offline, "name: helper\ninstructions: Help.\n", cachedGraph))
	for range 2 {
		run := b.wantEnd(b.runGraph(`{"graph_id": "tested", "who": "Ada"}`), engine.Succeeded, 1)
		if !strings.Contains(string(run.Output), `"notice"`) {
			t.Errorf("it does not say that it is offline: %s", run.Output)
		}
	}
}
