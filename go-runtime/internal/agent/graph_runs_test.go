package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/definition"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/document"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
)

// registryOf is one that has a document as the graph "tested", with kinds of nodes besides.
func registryOf(t *testing.T, text string, kinds map[string]document.Kind) *Registry {
	t.Helper()
	return registryWith(t, builtIns{{
		Kind: definition.Graph, Name: "tested", Version: definition.VersionOf([]byte(text)), Text: []byte(text),
	}}, kinds)
}

// registryWith is one whose graphs are those among definitions, with kinds of nodes besides.
func registryWith(t *testing.T, definitions Definitions, kinds map[string]document.Kind) *Registry {
	t.Helper()
	provider, err := model.New(model.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(Config{Provider: provider, Definitions: definitions})
	if err != nil {
		t.Fatal(err)
	}
	all := r.kinds()
	maps.Copy(all, kinds)
	r.graphs.compile = func(text []byte) (*document.Compiled, error) {
		parsed, err := document.Parse(text)
		if err != nil {
			return nil, err
		}
		return parsed.Compile(all)
	}
	return r
}

func (b *bench) runGraph(input string) string {
	b.t.Helper()
	run, _, err := b.CreateRun(b.t.Context(), "default", engine.CreateRequest{TaskType: "langgraph_task", Input: []byte(input)})
	if err != nil {
		b.t.Fatal(err)
	}
	return run.ID
}

func (b *bench) wantOutput(run engine.Run, want string) {
	b.t.Helper()
	var output struct {
		Output any `json:"output"`
	}
	var wanted any
	if err := errors.Join(json.Unmarshal(run.Output, &output), json.Unmarshal([]byte(want), &wanted)); err != nil {
		b.t.Fatal(err)
	}
	if !reflect.DeepEqual(output.Output, wanted) {
		b.t.Errorf("output %v, want %s", output.Output, want)
	}
}

const counting = `
name: tested
durability: %s
state: {n: {reducer: add, initial: 0}}
nodes:
  count: {kind: count, set: {n: "1"}}
edges: [[START, count]]
branches: {count: [{when: state.n < 20, to: count}, {to: END}]}
`

// TestGraphGoesOnWithItsStepAfterACrash has the runtime die in each of some steps.
func TestGraphGoesOnWithItsStepAfterACrash(t *testing.T) {
	t.Parallel()
	for _, durability := range []document.Durability{document.Async, document.Sync, document.Exit} {
		for dies := 0; dies < 20; dies += 5 {
			t.Run(fmt.Sprintf("%s in step %d", durability, dies), func(t *testing.T) {
				t.Parallel()
				var mu sync.Mutex
				calls := make([]int, 20)
				reached := make(chan struct{})
				kind := func(with document.With) (document.Work, error) {
					work := func(ctx context.Context, call *graph.Call, _ graph.State) (any, error) {
						mu.Lock()
						calls[call.Step]++
						first := calls[call.Step] == 1
						mu.Unlock()
						if call.Step == dies && first {
							close(reached)
							<-ctx.Done()
						}
						return nil, nil
					}
					return work, with.Check()
				}
				dir := t.TempDir()
				registry := registryOf(t, fmt.Sprintf(counting, durability), map[string]document.Kind{"count": kind})
				b := openWith(t, dir, registry)
				id := b.runGraph(`{"graph_id": "tested"}`)
				within(t, reached)
				b.crash()
				b = openWith(t, dir, registry)
				b.wantOutput(b.wantEnd(id, engine.Succeeded, 2), `{"n": 20}`)
				for step, n := range calls {
					most := 1
					if step == dies || durability == document.Exit && step < dies {
						most = 2
					}
					if n < 1 || n > most {
						t.Errorf("step %d was done %d times, want %d at most", step, n, most)
					}
				}
			})
		}
	}
}

const asking = `
name: tested
state: {title: {}, approved: {}, two: {}, n: {reducer: add}}
nodes:
  begin: {kind: transform, set: {n: "1"}}
  approve: {kind: human, with: {ask: "Publish {{ state.title }}?", choices: [yes, no]}, set: {approved: out}}
  two: {kind: human, with: {ask: "Two?"}, set: {two: out.said}}
edges: [[START, begin], [begin, approve], [begin, two]]
`

// question returns what a run asks, once it does, and not what it asked before.
func (b *bench) question(runID, before string) (interruptID string, payload map[string]any) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	found := errors.New("found")
	err := b.WatchRun(ctx, "default", runID, 0, engine.Internal, func(events []engine.Event, _ uint64) error {
		for _, e := range events {
			var about struct {
				InterruptID string         `json:"interrupt_id"`
				Payload     map[string]any `json:"payload"`
			}
			if e.Type != "run.interrupted" || json.Unmarshal(e.Payload, &about) != nil || about.InterruptID == before {
				continue
			}
			interruptID, payload = about.InterruptID, about.Payload
			return found
		}
		return nil
	})
	if !errors.Is(err, found) {
		b.t.Fatal(err)
	}
	return interruptID, payload
}

func TestGraphAsksPeopleAndGoesOn(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(ids []string) (first, second string){
		"all at once": func(ids []string) (string, string) {
			return fmt.Sprintf(`{%q: "yes", %q: {"said": "2"}}`, ids[0], ids[1]), ""
		},
		"one by one":                func(ids []string) (string, string) { return fmt.Sprintf(`{%q: "yes"}`, ids[0]), `{"said": "2"}` },
		"the first, without its id": func([]string) (string, string) { return `"yes"`, `{"said": "2"}` },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			registry := registryOf(t, asking, nil)
			b := openWith(t, dir, registry)
			id := b.runGraph(`{"graph_id": "tested", "title": "it"}`)
			interruptID, payload := b.question(id, "")
			questions, _ := payload["questions"].([]any)
			if len(questions) != 2 {
				t.Fatalf("asks %v", payload)
			}
			var ids []string
			for _, question := range questions {
				ids = append(ids, question.(map[string]any)["id"].(string))
			}
			value := questions[0].(map[string]any)["value"]
			if want := (map[string]any{"question": "Publish it?", "choices": []any{"yes", "no"}}); !reflect.DeepEqual(value, want) {
				t.Errorf("asks %v", value)
			}
			// Nobody waits while the runtime is away.
			b.crash()
			b = openWith(t, dir, registry)
			first, second := answer(ids)
			if _, err := b.ResumeRun(t.Context(), "default", id, interruptID, []byte(first)); err != nil {
				t.Fatal(err)
			}
			if second != "" {
				interruptID, payload = b.question(id, interruptID)
				if payload["question"] != "Two?" {
					t.Errorf("asks %v", payload)
				}
				if _, err := b.ResumeRun(t.Context(), "default", id, interruptID, []byte(second)); err != nil {
					t.Fatal(err)
				}
			}
			b.wantOutput(b.wantEnd(id, engine.Succeeded, 1), `{"title": "it", "approved": "yes", "two": "2", "n": 1}`)
		})
	}
}

// TestCheckpointsAreDeltas has a conversation of 400 messages of a kilobyte.
func TestCheckpointsAreDeltas(t *testing.T) {
	t.Parallel()
	const messages = 400
	text := strings.Repeat("x", 1000)
	say := func(_ context.Context, call *graph.Call, _ graph.State) (graph.Command, error) {
		command := graph.Command{Update: graph.State{"messages": []any{map[string]any{"id": strconv.Itoa(call.Step), "content": text}}}}
		if call.Step < messages-1 {
			command.Goto = graph.To("say")
		}
		return command, nil
	}
	g := graph.New("g", map[string]graph.Channel{"messages": {Reduce: graph.Messages}}).
		Node("say", graph.Node{Run: say}).Edge(graph.Start, "say")
	written := 0
	var steps []engine.Step
	saver := newRunSaver(engine.Call{Record: func(_ context.Context, key string, result []byte) error {
		written += len(result)
		steps = append(steps, engine.Step{Key: key, Result: result})
		return nil
	}})
	options := graph.Options{Saver: saver, RecursionLimit: messages}
	state, err := g.Run(t.Context(), graph.Request{Thread: "t", Input: graph.State{}}, options)
	if err != nil {
		t.Fatal(err)
	}
	if most := 3 * messages * len(text); written > most {
		t.Errorf("%d bytes were written, want %d at most", written, most)
	}
	// At each place, what was recorded by then makes the state of then.
	for _, n := range []int{1, 2, 100, messages, len(steps)} {
		saved, err := newRunSaver(engine.Call{Steps: steps[:n]}).Load(t.Context(), g, "t")
		if err != nil {
			t.Fatal(err)
		}
		list, _ := saved.State["messages"].([]any)
		if want := min(n-1, messages); len(list) != want {
			t.Errorf("after %d records there are %d messages, want %d", n, len(list), want)
		}
	}
	saved, err := newRunSaver(engine.Call{Steps: steps}).Load(t.Context(), g, "t")
	if err != nil || !reflect.DeepEqual(saved.State, state) || saved.Status != graph.Done {
		t.Errorf("%v, %v", saved, err)
	}
}

func TestRunThatWaitedSaysThatItIsOffline(t *testing.T) {
	t.Parallel()
	b := openWith(t, t.TempDir(), registryOf(t, `
name: tested
state: {said: {}}
nodes:
  say: {kind: llm, with: {prompt: Hello}, set: {said: out.text}}
  ask: {kind: human, with: {ask: "Go on?"}}
edges: [[START, say], [say, ask]]
`, nil))
	id := b.runGraph(`{"graph_id": "tested"}`)
	b.answer(id)
	run := b.wantEnd(id, engine.Succeeded, 1)
	for _, part := range []string{`"offline":true`, `"notice":`, `"model":"offline"`} {
		if !strings.Contains(string(run.Output), part) {
			t.Errorf("output lacks %s: %s", part, run.Output)
		}
	}
}
