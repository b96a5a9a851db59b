package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/definition"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	longterm "github.com/djangobridge/djangobridge/go-runtime/internal/graph/store"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/state"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// openKeeping is a bench whose agents and graphs have a long-term store in the state.
func openKeeping(t *testing.T, provider model.Provider, documents ...string) (*bench, func(namespace string) graph.Store) {
	t.Helper()
	var s *state.Store
	keeps := func(namespace string) graph.Store { return longterm.New(s, namespace) }
	b := openOn(t, t.TempDir(), func(j *journal.Journal) (*Registry, store) {
		var err error
		if s, err = state.New(state.Config{}, j, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		return definingWith(t, provider, keeps, documents...), s
	})
	return b, keeps
}

// obeying is a model that calls the tools which its prompt lists, a line each, and then says
// what came of them.
func obeying() *acting {
	return &acting{act: func(r model.Request) model.Response {
		text, isResult := last(r)
		if isResult {
			return model.Response{Text: strings.Join(results(r), "\n")}
		}
		var of []string
		for line := range strings.Lines(text) {
			name, arguments, _ := strings.Cut(strings.TrimSpace(line), " ")
			of = append(of, name, arguments)
		}
		return calls(of...)
	}}
}

// says has an agent obey in a namespace, and returns what came of it.
func (b *bench) says(namespace, agentID, orders string) string {
	b.t.Helper()
	input, err := encode(map[string]any{"messages": []any{map[string]any{"role": "user", "content": orders}}})
	if err != nil {
		b.t.Fatal(err)
	}
	created, _, err := b.CreateRun(b.t.Context(), namespace, engine.CreateRequest{
		Target: engine.AgentTarget, AgentID: agentID, TaskType: conversationTask, Input: input,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	run, err := b.WaitRun(b.t.Context(), namespace, created.ID, patience)
	if err != nil || run.State != engine.Succeeded {
		b.t.Fatalf("%s: %s with %+v, %v", orders, run.State, run.Error, err)
	}
	output, err := outputOf(run)
	if err != nil {
		b.t.Fatal(err)
	}
	said, _ := output["response"].(string)
	return said
}

func TestAgentsKeepItemsOverRuns(t *testing.T) {
	t.Parallel()
	b, keeps := openKeeping(t, obeying(),
		"name: one\ninstructions: Obey.\ntools: [{store: {namespace: [one, notes]}}]\n",
		"name: two\ninstructions: Obey.\ntools: [{store: {namespace: [one, notes, below], tools: [get_item, search_items]}}]\n",
		"name: three\ninstructions: Obey.\ntools: [{store: {namespace: [one, note]}}]\n",
	)
	put := func(namespace []string, key string, value map[string]any) {
		t.Helper()
		if err := keeps("default").Put(t.Context(), namespace, key, value, 0); err != nil {
			t.Fatal(err)
		}
	}
	put([]string{"one", "notes", "below"}, "deep", map[string]any{"n": 1})
	put([]string{"one"}, "above", map[string]any{"n": 2})
	put([]string{"one", "notes", "large"}, "large", map[string]any{"text": strings.Repeat("x", maxItemBytes)})
	const all = `{"items":[{"namespace":["below"],"key":"deep","value":{"n":1}},{"namespace":["large"],"key":"large",` +
		`"note":"Its value is left out: it is 32779 bytes long."}],"more":false}`
	for _, step := range []struct{ namespace, agent, orders, want string }{
		{"default", "one", `put_item {"key": "a/b", "value": {"likes": "tea"}}`, "put a/b"},
		{"default", "one", `get_item {"key": "a/b"}`, `{"found":true,"value":{"likes":"tea"}}`},
		{"default", "one", `delete_item {"key": "a/b"}`, "deleted a/b"},
		{"default", "one", `get_item {"key": "a/b"}`, `{"found":false}`},
		{"default", "one", `search_items {}`, all},
		{"default", "one", `search_items {"limit": 1}`, `{"items":[{"namespace":["below"],"key":"deep","value":{"n":1}}],"more":true}`},
		{"default", "one", `search_items {"namespace": ["below"]}`, `{"items":[{"namespace":["below"],"key":"deep","value":{"n":1}}],"more":false}`},
		// What is beside the agent's namespace, above it, or another namespace's, it cannot name.
		{"default", "one", `get_item {"key": "above"}`, `{"found":false}`},
		{"default", "one", `get_item {"namespace": [".."], "key": "above"}`, `{"found":false}`},
		{"default", "one", `get_item {"key": "../above"}`, `{"found":false}`},
		{"default", "two", `search_items {}`, `{"items":[{"namespace":[],"key":"deep","value":{"n":1}}],"more":false}`},
		{"default", "three", `search_items {}`, `{"items":[],"more":false}`},
		{"other", "one", `search_items {}`, `{"items":[],"more":false}`},
		{"other", "one", `put_item {"namespace": ["below"], "key": "deep", "value": {}, "ttl_seconds": 60}`, "put deep"},
		{"other", "one", `get_item {"namespace": ["below"], "key": "deep"}`, `{"found":true,"value":{}}`},
		{"default", "one", `get_item {"namespace": ["below"], "key": "deep"}`, `{"found":true,"value":{"n":1}}`},
		// What does not fit is said in words.
		{"default", "two", `put_item {"key": "a", "value": {}}`, `failed: no tool is called "put_item"; there are get_item, search_items`},
		{"default", "one", `put_item {"key": "", "value": 7}`, "failed: arguments.key: must not be empty; arguments.value: must be an object, is a number"},
		{"default", "one", `get_item {"key": "a", "namespace": ["` + strings.Repeat("ä", 90) + `"]}`, "failed: key: is 558 bytes long, at most 512 are allowed"},
		{"default", "one", `put_item {"key": "a", "value": {"x": "` + strings.Repeat("x", maxItemBytes) + `"}}`, "failed: value: is 32776 bytes long, the limit is 32768"},
	} {
		if said := b.says(step.namespace, step.agent, step.orders); said != step.want {
			t.Errorf("%s in %s: %s\nsaid %s\nwant %s", step.agent, step.namespace, step.orders[:min(len(step.orders), 200)], said, step.want)
		}
	}
}

// TestSearchIsBounded has more items than a search gives, and more bytes than a result holds.
func TestSearchIsBounded(t *testing.T) {
	t.Parallel()
	b, keeps := openKeeping(t, obeying(), "name: one\ninstructions: Obey.\ntools: [{store: {namespace: [n]}}]\n")
	for i := range 60 {
		err := keeps("default").Put(t.Context(), []string{"n"}, fmt.Sprintf("%02d", i), map[string]any{"text": strings.Repeat("x", 6000)}, 0)
		if err != nil {
			t.Fatal(err)
		}
	}
	said := b.says("default", "one", `search_items {"limit": 50}`)
	if n := strings.Count(said, `"key"`); n != 8 || !strings.HasSuffix(said, `"more":true}`) {
		t.Errorf("%d items, and %s", n, said[max(0, len(said)-100):])
	}
}

func TestPersonAgreesToDeletion(t *testing.T) {
	t.Parallel()
	b, keeps := openKeeping(t, obeying(), "name: one\ninstructions: Obey.\ntools: [{store: {namespace: [n], approval: [delete_item]}}]\n")
	if err := keeps("default").Put(t.Context(), []string{"n"}, "a", map[string]any{}, 0); err != nil {
		t.Fatal(err)
	}
	id := b.do("one", conversationTask, `{"messages": [{"role": "user", "content": "delete_item {\"key\": \"a\"}"}]}`, "")
	interruptID, _ := b.question(id, "")
	b.resume(id, interruptID, `false`)
	b.wantEnd(id, engine.Succeeded, 1)
	if item, err := keeps("default").Get(t.Context(), []string{"n"}, "a"); item == nil || err != nil {
		t.Errorf("%v, %v", item, err)
	}
}

func TestNodesKeepItems(t *testing.T) {
	t.Parallel()
	b, _ := openKeeping(t, &acting{}, `
name: tested
state: {user: {}, before: {}, seen: {}}
nodes:
  read: {kind: tool, with: {tool: get_item, arguments: {namespace: '["users", state.user]', key: '"visits"'}}, set: {before: 'out.json.?value.n.orValue(0.0)'}}
  write: {kind: tool, with: {tool: put_item, arguments: {namespace: '["users", state.user]', key: '"visits"', value: '{"n": state.before + 1.0}'}}}
  list: {kind: tool, with: {tool: search_items, arguments: {namespace: '["users"]'}}, set: {seen: 'out.json.items.map(i, i.namespace[1])'}}
edges: [[START, read], [read, write], [write, list]]
output: {before: state.before, seen: state.seen}
`, `
name: wrong
state: {}
nodes: {read: {kind: tool, with: {tool: get_item, arguments: {key: '"visits"'}}}}
edges: [[START, read]]
`)
	for _, step := range []struct{ user, want string }{
		{"ada", `{"before": 0, "seen": ["ada"]}`}, {"bob", `{"before": 0, "seen": ["ada", "bob"]}`}, {"ada", `{"before": 1, "seen": ["ada", "bob"]}`},
	} {
		run := b.wantEnd(b.runGraph(`{"graph_id": "tested", "user": "`+step.user+`"}`), engine.Succeeded, 1)
		b.wantOutput(run, step.want)
	}
	for input, want := range map[string]string{
		`{"graph_id": "tested", "user": 7}`:  "node read in step 0: tool get_item: arguments.namespace[1]: must be a string",
		`{"graph_id": "tested", "user": ""}`: "arguments.namespace[1]: must not be empty",
		`{"graph_id": "wrong"}`:              "tool get_item: namespace: must have a part",
	} {
		run, err := b.WaitRun(t.Context(), "default", b.runGraph(input), patience)
		if err != nil || run.State != engine.Failed || !strings.Contains(run.Error.Message, want) {
			t.Errorf("%s: %s with %+v, %v", input, run.State, run.Error, err)
		}
	}
}

func TestStoreToolsNameTheirMistakes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		keeps func(string) graph.Store
		kind  definition.Kind
		text  string
		want  []string
	}{
		"an agent": {
			func(string) graph.Store { return nil }, definition.Agent,
			"name: a\ninstructions: b\ntools:\n  - store: {namespace: [], tools: [get_items], approval: [x]}\n  - store: {namespace: [a, '']}\n",
			[]string{"tools[0].store.namespace", "tools[0].store.tools[0]", "tools[0].store.approval[0]", "tools[1].store.namespace[1]"},
		},
		"an agent without a store": {
			nil, definition.Agent, "name: a\ninstructions: b\ntools: [{store: {namespace: [a]}}]\n", []string{"tools[0].store"},
		},
		"twice": {
			func(string) graph.Store { return nil }, definition.Agent,
			"name: a\ninstructions: b\ntools: [{store: {namespace: [a], tools: [get_item]}}, {store: {namespace: [b], tools: [get_item]}}]\n",
			[]string{"tools[1].name"},
		},
		"a node": {
			func(string) graph.Store { return nil }, definition.Graph,
			"name: a\nnodes: {n: {kind: tool, with: {tool: get_items}}}\nedges: [[START, n]]\n",
			[]string{"nodes.n.with.server"},
		},
		"a node without a store": {
			nil, definition.Graph, "name: a\nnodes: {n: {kind: tool, with: {tool: get_item}}}\nedges: [[START, n]]\n", []string{"nodes.n.with.tool"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := definingWith(t, &acting{}, test.keeps).Check("default", test.kind, []byte(test.text))
			wrong, named := errors.AsType[*violation.Error](err)
			if !named {
				t.Fatal(err)
			}
			var places []string
			for _, v := range wrong.Violations {
				places = append(places, v.Field)
			}
			if !slices.Equal(places, test.want) {
				t.Errorf("%v, want %v: %v", places, test.want, err)
			}
		})
	}
}
