package agent

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/tool"
)

// notes is an MCP server whose one tool an operator wants people to be asked for.
type notes struct {
	mu     sync.Mutex
	called []string
}

func (*notes) Names() []string { return []string{"notes"} }

func (n *notes) Tools(context.Context, string) ([]tool.Tool, error) {
	return []tool.Tool{{
		Name: "notes__delete_note", Approval: true,
		Schema: []byte(`{"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}`),
		Call: func(_ context.Context, c tool.Call) (tool.Result, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.called = append(n.called, string(c.Arguments))
			return tool.Result{Text: "deleted"}, nil
		},
	}}, nil
}

const deleting = `
name: tested
state: {id: {}, said: {}}
nodes:
  delete: {kind: tool, with: {server: notes, tool: delete_note, arguments: {id: state.id}}, set: {said: out.text}}
edges: [[START, delete]]
`

func TestNodesAskForToolsThatNeedConsent(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer string
		called []string
		fails  string
	}{
		"yes":               {`true`, []string{`{"id":7}`}, ""},
		"other arguments":   {`{"approved": true, "arguments": {"id": 8}}`, []string{`{"id":8}`}, ""},
		"unfit arguments":   {`{"approved": true, "arguments": {"id": "x"}}`, nil, "notes__delete_note: arguments.id: must be an integer"},
		"no, with a reason": {`{"approved": false, "reason": "Keep it."}`, nil, "did not allow this call. The reason: Keep it."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := &notes{}
			b := openWith(t, t.TempDir(), definingTools(t, &acting{}, Tooling{MCP: server}, deleting))
			id := b.runGraph(`{"graph_id": "tested", "id": 7}`)
			interruptID, payload := b.question(id, "")
			if payload["type"] != "tool_approval" || payload["tool"] != "notes__delete_note" {
				t.Errorf("asks %v", payload)
			}
			b.resume(id, interruptID, test.answer)
			run, err := b.WaitRun(t.Context(), "default", id, patience)
			switch {
			case err != nil:
				t.Fatal(err)
			case test.fails == "":
				b.wantOutput(run, `{"id": 7, "said": "deleted"}`)
			case run.State != engine.Failed || !strings.Contains(run.Error.Message, test.fails):
				t.Errorf("%s, %+v", run.State, run.Error)
			}
			if !slices.Equal(server.called, test.called) {
				t.Errorf("called %v", server.called)
			}
		})
	}
}

// TestCallsOfNodesCount has three nodes call at once where two may.
func TestCallsOfNodesCount(t *testing.T) {
	t.Parallel()
	url, called := shop(t)
	b := openWith(t, t.TempDir(), defining(t, &acting{}, `
name: tested
state: {}
nodes:
  a: {kind: http, with: {url: "`+url+`/a"}}
  b: {kind: http, with: {url: "`+url+`/b"}}
  c: {kind: http, with: {url: "`+url+`/c"}}
edges: [[START, a], [START, b], [START, c]]
`))
	run, _, err := b.CreateRun(t.Context(), "default", engine.CreateRequest{
		TaskType: "langgraph_task", Input: []byte(`{"graph_id": "tested"}`),
		Metadata: []byte(`{"budget": {"tool_calls": 2}}`), Wait: true,
	})
	if err != nil || run.State != engine.Failed || run.Error.Reason != engine.ReasonBudgetExceeded {
		t.Fatalf("%s, %+v, %v", run.State, run.Error, err)
	}
	if len(called()) != 2 {
		t.Errorf("called %v", called())
	}
}
