package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/definition"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// openDefined is a bench whose graphs are those that are registered.
func openDefined(t *testing.T, dir string, builtIn ...definition.Definition) (*bench, *definition.Store) {
	t.Helper()
	var definitions *definition.Store
	b := openOn(t, dir, func(j *journal.Journal) (*Registry, store) {
		definitions = definition.New(j, nil, slog.New(slog.DiscardHandler))
		for _, d := range builtIn {
			definitions.AddBuiltIn(d)
		}
		return registryWith(t, definitions, nil), definitions
	})
	return b, definitions
}

// greeting is a graph that asks, and then says how it greets.
func greeting(greets string) definition.Definition {
	text := `
name: greet
state: {who: {}, said: {}}
nodes:
  ask: {kind: human, with: {ask: "Who?"}, set: {who: out}}
  greet: {kind: transform, set: {said: '"` + greets + ` " + state.who'}}
edges: [[START, ask], [ask, greet]]
output: {said: state.said}
`
	return definition.Definition{Kind: definition.Graph, Name: "greet", Text: []byte(text)}
}

func (b *bench) answer(runID string) {
	b.t.Helper()
	interruptID, _ := b.question(runID, "")
	if _, err := b.ResumeRun(b.t.Context(), "default", runID, interruptID, []byte(`"Ada"`)); err != nil {
		b.t.Fatal(err)
	}
}

func register(t *testing.T, s *definition.Store, d definition.Definition) {
	t.Helper()
	if _, _, err := s.Register(t.Context(), "default", d, ""); err != nil {
		t.Fatal(err)
	}
}

func TestRunsGoOnWithTheVersionTheyBeganWith(t *testing.T) {
	t.Parallel()
	for name, replace := range map[string]func(t *testing.T, s *definition.Store){
		"replaced": func(t *testing.T, s *definition.Store) { t.Helper(); register(t, s, greeting("Bye")) },
		"deleted": func(t *testing.T, s *definition.Store) {
			t.Helper()
			if err := s.Delete(t.Context(), "default", definition.Graph, "greet", ""); err != nil {
				t.Fatal(err)
			}
		},
		"another graph": func(t *testing.T, s *definition.Store) {
			t.Helper()
			text := "name: greet\nstate: {other: {}}\nnodes: {n: {kind: transform}}\nedges: [[START, n]]\n"
			register(t, s, definition.Definition{Kind: definition.Graph, Name: "greet", Text: []byte(text)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			b, definitions := openDefined(t, dir)
			register(t, definitions, greeting("Hello"))
			before, after := b.runGraph(`{"graph_id": "greet", "who": "nobody"}`), b.runGraph(`{"graph_id": "greet"}`)
			b.question(before, "")
			b.question(after, "")
			replace(t, definitions)
			b.answer(before)
			b.wantOutput(b.wantEnd(before, engine.Succeeded, 1), `{"said": "Hello Ada"}`)
			b.crash()
			b, _ = openDefined(t, dir)
			b.answer(after)
			b.wantOutput(b.wantEnd(after, engine.Succeeded, 1), `{"said": "Hello Ada"}`)
		})
	}
}

func TestRunsGoOnWithTheirBuiltInGraphAfterAnUpgrade(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, _ := openDefined(t, dir, greeting("Hello"))
	old := b.runGraph(`{"graph_id": "greet"}`)
	b.question(old, "")
	b.crash()
	b, _ = openDefined(t, dir, greeting("Bye"))
	fresh := b.runGraph(`{"graph_id": "greet"}`)
	b.answer(old)
	b.answer(fresh)
	b.wantOutput(b.wantEnd(old, engine.Succeeded, 1), `{"said": "Hello Ada"}`)
	b.wantOutput(b.wantEnd(fresh, engine.Succeeded, 1), `{"said": "Bye Ada"}`)
}

func TestGraphsAreSeenInTheirNamespaceOnly(t *testing.T) {
	t.Parallel()
	b, definitions := openDefined(t, t.TempDir())
	if _, _, err := definitions.Register(t.Context(), "other", greeting("Hello"), ""); err != nil {
		t.Fatal(err)
	}
	_, _, err := b.CreateRun(t.Context(), "default", engine.CreateRequest{TaskType: "langgraph_task", Input: []byte(`{"graph_id": "greet"}`)})
	if unknown := new(UnknownGraphError); !errors.As(err, &unknown) || len(unknown.Known) != 0 {
		t.Errorf("%v", err)
	}
	register(t, definitions, greeting("Hello"))
	_, _, err = b.CreateRun(t.Context(), "default", engine.CreateRequest{
		TaskType: "langgraph_task", Input: []byte(`{"graph_id": "greet", "whom": 1}`),
	})
	if err == nil || !strings.Contains(err.Error(), "input.whom: is no channel of greet") {
		t.Errorf("%v", err)
	}
}

func TestCheckNamesEveryMistakeWithItsPlace(t *testing.T) {
	t.Parallel()
	registry, err := New(Config{Provider: &responder{}})
	if err != nil {
		t.Fatal(err)
	}
	text := string(greeting("Hello").Text) + "description: Greets.\n"
	said, err := registry.Check("default", definition.Graph, []byte(text))
	if said.Name != "greet" || said.Description != "Greets." || len(said.Missing) > 0 || err != nil {
		t.Errorf("%+v, %v", said, err)
	}
	text = strings.NewReplacer("{ask: ", "{asks: ", "state.who'", "state.'", "[START, ask]", "[START, who]").Replace(text)
	_, err = registry.Check("default", definition.Graph, []byte(text))
	var wrong *violation.Error
	if !errors.As(err, &wrong) {
		t.Fatal(err)
	}
	var places []string
	for _, v := range wrong.Violations {
		places = append(places, v.Field)
	}
	want := "nodes.ask.with.ask nodes.ask.with.asks nodes.greet.set.said edges[0] nodes.ask nodes.greet"
	if got := strings.Join(places, " "); got != want {
		t.Errorf("places are %s, want %s", got, want)
	}
	if _, err := registry.Check("default", definition.Agent, []byte(text)); !errors.As(err, &wrong) {
		t.Error(err)
	}
}

func TestRunsGoOnWithAnAgentThatWasDeleted(t *testing.T) {
	t.Parallel()
	_, definitions := openDefined(t, t.TempDir())
	registry := newRegistry(t)
	registry.defined.definitions = definitions
	text := []byte("name: helper\ninstructions: Help.\n")
	helper := definition.Definition{Kind: definition.Agent, Name: "helper", Text: text}
	register(t, definitions, helper)
	if err := definitions.Delete(t.Context(), "default", definition.Agent, "helper", ""); err != nil {
		t.Fatal(err)
	}
	_, err := registry.Resolve("default", engine.AgentTarget, "helper", "help", []byte(`{}`))
	if unknown := new(UnknownAgentError); !errors.As(err, &unknown) {
		t.Errorf("a new run: %v", err)
	}
	work, err := registry.Resolve("default", engine.AgentTarget, "helper", "help", nil)
	if err != nil {
		t.Fatal(err)
	}
	call := quietly(engine.Call{Namespace: "default", RunID: "run", AgentID: "helper", TaskType: "help", Input: []byte(`{}`)})
	if _, err := work(t.Context(), call); err == nil {
		t.Error("a run that did not begin went on")
	}
	call.Steps = []engine.Step{{Key: "agent: helper", Result: []byte(`{"version": "` + definition.VersionOf(text) + `"}`)}}
	if output, err := work(t.Context(), call); err != nil || !strings.Contains(string(output), `"agent_id":"helper"`) {
		t.Errorf("%s, %v", output, err)
	}
}

// turning are Definitions in which another version of a graph is current at each look.
type turning struct {
	builtIns

	name string
	mu   sync.Mutex
	made builtIns
}

func (d *turning) Get(
	ctx context.Context, namespace string, kind definition.Kind, name, version string,
) (definition.Definition, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if name != d.name || version != "" {
		return append(d.made, d.builtIns...).Get(ctx, namespace, kind, name, version)
	}
	text := fmt.Sprintf("name: %s\nstate: {n: {}}\nnodes: {n: {kind: transform, set: {n: '%d'}}}\nedges: [[START, n]]\n", name, len(d.made)+1)
	made := definition.Definition{Kind: kind, Name: name, Version: definition.VersionOf([]byte(text)), Text: []byte(text)}
	d.made = append(d.made, made)
	return made, nil
}

// TestNodesOfARunUseOneVersion has nodes at the same time, and one behind them, run a graph
// that is replaced meanwhile, and the runtime die before the last.
func TestNodesOfARunUseOneVersion(t *testing.T) {
	t.Parallel()
	const text = `
name: tested
state: {all: {reducer: append}}
nodes:
  a: {kind: graph, with: {graph: below}, set: {all: out.n}}
  b: {kind: graph, with: {graph: below}, set: {all: out.n}}
  c: {kind: graph, with: {graph: below}, set: {all: out.n}}
  ask: {kind: human, with: {ask: "Go on?"}}
  d: {kind: graph, with: {graph: below}, set: {all: out.n}}
edges: [[START, a], [START, b], [a, c], [c, ask], [ask, d]]
`
	definitions := &turning{name: "below", builtIns: builtIns{{
		Kind: definition.Graph, Name: "tested", Version: definition.VersionOf([]byte(text)), Text: []byte(text),
	}}}
	dir := t.TempDir()
	b := openWith(t, dir, registryWith(t, definitions, nil))
	id := b.runGraph(`{"graph_id": "tested"}`)
	b.question(id, "")
	b.crash()
	b = openWith(t, dir, registryWith(t, definitions, nil))
	b.answer(id)
	b.wantOutput(b.wantEnd(id, engine.Succeeded, 1), `{"all": [1, 1, 1, 1]}`)
	other := b.runGraph(`{"graph_id": "tested"}`)
	b.answer(other)
	b.wantOutput(b.wantEnd(other, engine.Succeeded, 1), `{"all": [2, 2, 2, 2]}`)
}

// TestCheckSaysWhatIsMissing has documents that name others, which may come later.
func TestCheckSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	registry := defining(t, &acting{}, "name: there\ninstructions: Help.\n", "name: below\nnodes: {n: {kind: transform}}\nedges: [[START, n]]\n")
	for name, test := range map[string]struct {
		kind definition.Kind
		text string
		want []definition.Reference
	}{
		"a graph": {definition.Graph, `
name: above
nodes:
  a: {kind: graph, with: {graph: below}}
  b: {kind: graph, with: {graph: later}}
  c: {kind: graph, with: {graph: above}}
  d: {kind: agent, with: {agent: there, prompt: x}}
  e: {kind: agent, with: {agent: below, prompt: x}}
  f: {kind: agent, with: {agent: codegen_agent, prompt: x}}
edges: [[START, a], [START, b], [START, c], [START, d], [START, e], [START, f]]
`, []definition.Reference{
			{Place: "nodes.b.with.graph", Kind: definition.Graph, Name: "later"},
			{Place: "nodes.e.with.agent", Kind: definition.Agent, Name: "below"},
		}},
		"an agent": {
			definition.Agent, "name: lead\ninstructions: Lead.\nagents: [there, later, codegen_agent, lead]\n",
			[]definition.Reference{{Place: "agents[1]", Kind: definition.Agent, Name: "later"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			said, err := registry.Check("default", test.kind, []byte(test.text))
			if err != nil || !slices.Equal(said.Missing, test.want) {
				t.Errorf("%v, want %v; %v", said.Missing, test.want, err)
			}
		})
	}
}
