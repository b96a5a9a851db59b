package agent

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/definition"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
)

// TestNodesOfEveryKindWorkTogether has an agent and a graph below that both ask, each on its
// own, over a restart; a server that is called; a model that streams, and one that gives an object.
func TestNodesOfEveryKindWorkTogether(t *testing.T) {
	t.Parallel()
	url, called := shop(t)
	provider := &acting{act: func(r model.Request) model.Response {
		text, isResult := last(r)
		switch {
		case r.Schema != nil:
			return model.Response{Text: `{"score": 7}`}
		case strings.HasPrefix(r.Instructions, "Say"):
			return model.Response{Text: "said " + text}
		case !isResult:
			return calls("pay", `{"for": "it"}`)
		}
		return model.Response{Text: "paid"}
	}}
	registry := defining(t, provider,
		"name: payer\ninstructions: You are an agent.\ntools: [{http: {name: pay, url: "+url+"/pay, approval: true}}]\n", `
name: below
state: {who: {}, mood: {}}
nodes: {ask: {kind: human, with: {ask: "How is {{ state.who }}?"}, set: {mood: out}}}
edges: [[START, ask]]
output: {mood: state.mood}
`, `
name: tested
state: {who: {}, paid: {}, mood: {}, found: {}, said: {}, score: {}}
nodes:
  pay: {kind: agent, with: {agent: payer, prompt: "Pay for {{ state.who }}."}, set: {paid: out.response}}
  mood: {kind: graph, with: {graph: below, input: {who: state.who}}, set: {mood: out.mood}}
  find: {kind: http, with: {url: "`+url+`/find", arguments: {name: state.who, n: 1 + 1}}, set: {found: out.json.of}, retry: {attempts: 2}, timeout: 5s}
  say: {kind: llm, with: {instructions: Say it., prompt: "{{ state.who }}", stream: true}, set: {said: out.text}}
  rate: {kind: llm, with: {instructions: Rate it., prompt: x, schema: {type: object, properties: {score: {type: integer}}, required: [score]}}, set: {score: out.object.score}}
edges: [[START, pay], [START, mood], [START, find], [START, say], [START, rate]]
`)
	dir := t.TempDir()
	b := openWith(t, dir, registry)
	id := b.runGraph(`{"graph_id": "tested", "who": "Ada"}`)
	interruptID, payload := b.question(id, "")
	if payload["question"] != "How is Ada?" {
		t.Fatalf("asks %v", payload)
	}
	b.crash()
	b = openWith(t, dir, registry)
	b.resume(id, interruptID, `"well"`)
	child := b.subRuns(id, 1)[0]
	interruptID, _ = b.question(child, "")
	b.resume(child, interruptID, `true`)
	run := b.wantEnd(id, engine.Succeeded, 1)
	b.wantOutput(run, `{"who": "Ada", "paid": "paid", "mood": "well", "found": {"name": "Ada", "n": 2}, "said": "said Ada", "score": 7}`)
	if got := fmt.Sprint(called()); got != `[/find {"n":2,"name":"Ada"} /pay {"for": "it"}]` {
		t.Errorf("called %s", got)
	}
	var output struct {
		Usage model.Usage `json:"usage"`
	}
	if err := json.Unmarshal(run.Output, &output); err != nil || output.Usage.TotalTokens != 44 {
		t.Errorf("output %s, want what four answers took", run.Output)
	}
	if events := strings.Join(b.events(id), "\n"); !strings.Contains(events, `assistant.delta {"content":"said Ada"}`) {
		t.Errorf("events\n%s", events)
	}
}

func TestSubRunThatFailsFailsItsNode(t *testing.T) {
	t.Parallel()
	provider := &acting{act: func(model.Request) model.Response { return calls("nothing", "{}") }}
	registry := defining(t, provider, "name: worse\ninstructions: You are an agent.\n", `
name: tested
state: {x: {}}
nodes: {do: {kind: agent, with: {agent: worse, prompt: Go.}, set: {x: out.response}}}
edges: [[START, do]]
`, `
name: nobody
state: {x: {}}
nodes: {do: {kind: agent, with: {agent: nobody, task_type: any, input: {x: "1"}}, set: {x: out.x}}}
edges: [[START, do]]
`)
	b := openWith(t, t.TempDir(), registry)
	for graph, want := range map[string]string{
		"tested": "node do of graph tested: agent worse: model scripted-1 calls tools where it was offered none",
		"nobody": `no agent is called "nobody"`,
	} {
		run, err := b.WaitRun(t.Context(), "default", b.runGraph(`{"graph_id": "`+graph+`"}`), patience)
		if err != nil || run.State != engine.Failed || !strings.Contains(run.Error.Message, want) {
			t.Errorf("%s: %s with %+v, %v", graph, run.State, run.Error, err)
		}
	}
}

func TestKindsNameTheirMistakes(t *testing.T) {
	t.Parallel()
	registry := defining(t, &acting{})
	_, err := registry.Check("default", definition.Graph, []byte(`
name: wrong
state: {x: {}}
nodes:
  a: {kind: agent, with: {task_type: x, prompt: y}}
  b: {kind: graph, with: {input: 7}}
  c: {kind: python, with: {function: f, arguments: {x: "1 +"}}}
  d: {kind: http, with: {url: "ftp://x"}}
  e: {kind: tool, with: {server: nowhere}}
  f: {kind: llm, with: {prompt: x, stream: maybe, schema: {type: nothing}}}
  g: {kind: transform, retry: {attempts: -1}, timeout: -1s}
  h: {kind: agent, with: {agent: a, prompt: x}, retry: {attempts: 3}, timeout: 1s}
  i: {kind: python, with: {function: f}, retry: {jitter: true}, timeout: 1s}
edges: [[START, a], [START, b], [START, c], [START, d], [START, e], [START, f], [START, g], [START, h], [START, i]]
`))
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	for _, place := range []string{
		"nodes.a.with.agent: is required", "nodes.a.with.prompt: stands beside task_type", "nodes.b.with.graph: is required",
		"nodes.b.with.input: must be an object of expressions", "nodes.c.with.arguments.x: ", "nodes.d.with.url: ",
		"nodes.e.with.server: there is no MCP server", "nodes.e.with.tool: is required", "nodes.f.with.stream: must be true or false",
		"nodes.f.with.schema.type: ", "nodes.g.retry.attempts: must be 1 to 100", "nodes.g.timeout: must not be negative",
		"nodes.h.retry: is not for nodes that wait for an agent", "nodes.h.timeout: is not for nodes that wait for an agent",
		"nodes.i.retry: is not for nodes that wait for a function", "nodes.i.timeout: is not for nodes that wait for a function",
	} {
		if !strings.Contains(err.Error(), place) {
			t.Errorf("lacks %q", place)
		}
	}
	if t.Failed() {
		t.Log(err)
	}
}
