package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/thread"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const talking = `
name: talk
state: {said: {reducer: append}, turns: {reducer: add, initial: 0}}
nodes:
  listen: {kind: transform, set: {turns: "1"}}
  ask: {kind: human, with: {ask: "More?"}, set: {said: "[out]"}}
  end: {kind: transform}
edges: [[START, listen], [ask, end]]
branches: {listen: [{when: 'state.said[size(state.said) - 1] == "ask me"', to: ask}, {to: end}]}
`

// openThreads is a bench whose graphs have threads.
func openThreads(t *testing.T, dir string) (*bench, *Registry) {
	t.Helper()
	registry := defining(t, &acting{}, talking)
	return openOn(t, dir, func(j *journal.Journal) (*Registry, store) {
		threads, err := thread.New(thread.Config{}, j, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		registry.threads = threads
		return registry, threads
	}), registry
}

func stateOf(ctx context.Context, registry *Registry, namespace, id string) (Snapshot, error) {
	reader, err := registry.Thread(ctx, namespace, id)
	if err != nil {
		return Snapshot{}, err
	}
	return reader.State(ctx, 0)
}

func historyOf(ctx context.Context, registry *Registry, id string) ([]Snapshot, error) {
	reader, err := registry.Thread(ctx, "default", id)
	if err != nil {
		return nil, err
	}
	return reader.History(ctx, 0, 0)
}

func (b *bench) say(text string) engine.Run {
	b.t.Helper()
	run, err := b.WaitRun(b.t.Context(), "default", b.runGraph(fmt.Sprintf(`{"graph_id": "talk", "thread_id": "ada", "said": [%q]}`, text)), patience)
	if err != nil {
		b.t.Fatal(err)
	}
	return run
}

// TestThreadGoesOnOverRunsAndRestarts has turns of one thread, one of which asks.
func TestThreadGoesOnOverRunsAndRestarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, _ := openThreads(t, dir)
	b.wantOutput(b.say("one"), `{"said": ["one"], "turns": 1}`)
	b.crash()
	b, registry := openThreads(t, dir)
	b.wantOutput(b.say("two"), `{"said": ["one", "two"], "turns": 2}`)
	waits := b.runGraph(`{"graph_id": "talk", "thread_id": "ada", "said": ["ask me"]}`)
	interruptID, _ := b.question(waits, "")
	if run := b.say("three"); run.State != engine.Failed || !strings.Contains(run.Error.Message, "waits for an answer") {
		t.Errorf("a turn beside one that waits: %s, %+v", run.State, run.Error)
	}
	state, err := stateOf(t.Context(), registry, "default", "ada")
	if err != nil || state.Status != graph.Waiting || !reflect.DeepEqual(state.Next, []string{"ask"}) || len(state.Interrupts) != 1 {
		t.Errorf("state %+v, %v", state, err)
	}
	b.crash()
	b, _ = openThreads(t, dir)
	b.resume(waits, interruptID, `"no"`)
	b.wantOutput(b.wantEnd(waits, engine.Succeeded, 1), `{"said": ["one", "two", "ask me", "no"], "turns": 3}`)
	b.wantOutput(b.say("four"), `{"said": ["one", "two", "ask me", "no", "four"], "turns": 4}`)
}

// TestThreadGoesOnOnceWhoAsksHasEnded has runs that ask be cancelled, and turns with and
// without something to say behind them.
func TestThreadGoesOnOnceWhoAsksHasEnded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, _ := openThreads(t, dir)
	b.wantOutput(b.say("one"), `{"said": ["one"], "turns": 1}`)
	waits := b.runGraph(`{"graph_id": "talk", "thread_id": "ada", "said": ["ask me"]}`)
	b.question(waits, "")
	b.cancel(waits)
	b.wantOutput(b.say("two"), `{"said": ["one", "ask me", "two"], "turns": 3}`)
	waits = b.runGraph(`{"graph_id": "talk", "thread_id": "ada", "said": ["ask me"]}`)
	b.question(waits, "")
	b.cancel(waits)
	b.crash()
	b, _ = openThreads(t, dir)
	again := b.runGraph(`{"graph_id": "talk", "thread_id": "ada"}`)
	interruptID, _ := b.question(again, "")
	if run := b.say("three"); run.State != engine.Failed || !strings.Contains(run.Error.Message, "waits for an answer") {
		t.Errorf("a turn beside the one that asks now: %s, %+v", run.State, run.Error)
	}
	b.resume(again, interruptID, `"no"`)
	b.wantOutput(b.wantEnd(again, engine.Succeeded, 1), `{"said": ["one", "ask me", "two", "ask me", "no"], "turns": 4}`)
}

func (b *bench) cancel(runID string) {
	b.t.Helper()
	if _, err := b.CancelRun(b.t.Context(), "default", runID, "enough"); err != nil {
		b.t.Fatal(err)
	}
}

// TestTurnsOfAThreadComeOneAfterAnother has many at once, none of which is lost.
func TestTurnsOfAThreadComeOneAfterAnother(t *testing.T) {
	t.Parallel()
	b, _ := openThreads(t, t.TempDir())
	const turns = 20
	var going sync.WaitGroup
	for n := range turns {
		going.Go(func() {
			if run := b.say(strconv.Itoa(n)); run.State != engine.Succeeded {
				t.Errorf("%s, %+v", run.State, run.Error)
			}
		})
	}
	going.Wait()
	run := b.say("last")
	if !strings.Contains(string(run.Output), fmt.Sprintf(`"turns":%d`, turns+1)) {
		t.Errorf("%s", run.Output)
	}
}

func TestThreadsAreLookedAtChangedAndForked(t *testing.T) {
	t.Parallel()
	b, registry := openThreads(t, t.TempDir())
	ctx := t.Context()
	b.say("one")
	b.say("two")
	history, err := historyOf(ctx, registry, "ada")
	if err != nil || len(history) < 4 || history[0].Status != graph.Done || history[0].GraphID != "talk" {
		t.Fatalf("%+v, %v", history, err)
	}
	var first Snapshot
	for _, s := range history {
		if s.Status == graph.Done && reflect.DeepEqual(s.Values["said"], []any{"one"}) {
			first = s
		}
	}
	forked, err := registry.ForkThread(ctx, "default", "ada", first.Revision, "other", "")
	if err != nil || forked.ThreadID != "other" || forked.Parent != first.Revision {
		t.Fatalf("%+v, %v", forked, err)
	}
	run := b.wantEnd(b.runGraph(`{"graph_id": "talk", "thread_id": "other", "said": ["else"]}`), engine.Succeeded, 1)
	b.wantOutput(run, `{"said": ["one", "else"], "turns": 2}`)
	updated, err := registry.UpdateThread(ctx, "default", "ada", "", "START", graph.State{"said": []any{"ask me"}}, "")
	if err != nil || !reflect.DeepEqual(updated.Next, []string{"listen"}) {
		t.Fatalf("%+v, %v", updated, err)
	}
	// A turn without an input goes on with what is left to do.
	id := b.runGraph(`{"graph_id": "talk", "thread_id": "ada"}`)
	interruptID, _ := b.question(id, "")
	b.resume(id, interruptID, `"fine"`)
	b.wantOutput(b.wantEnd(id, engine.Succeeded, 1), `{"said": ["one", "two", "ask me", "fine"], "turns": 3}`)
	threads, err := registry.Threads(ctx, "default", 0, 0)
	if err != nil || len(threads) != 2 || threads[1].ID != "ada" {
		t.Errorf("%+v, %v", threads, err)
	}
	if err := registry.DeleteThread(ctx, "default", "ada"); err != nil {
		t.Error(err)
	}
	if _, err := stateOf(ctx, registry, "default", "ada"); !errors.As(err, new(*UnknownThreadError)) {
		t.Errorf("%v", err)
	}
	if _, err := stateOf(ctx, registry, "elsewhere", "other"); !errors.As(err, new(*UnknownThreadError)) {
		t.Errorf("%v", err)
	}
}

func TestThreadsThatDoNotFitAreRefused(t *testing.T) {
	t.Parallel()
	b, registry := openThreads(t, t.TempDir())
	ctx := context.WithoutCancel(t.Context())
	_, _, err := b.CreateRun(ctx, "default", engine.CreateRequest{
		TaskType: "langgraph_task", Input: []byte(`{"graph_id": "talk", "thread_id": "a b"}`),
	})
	if err == nil || !strings.Contains(err.Error(), "input.thread_id") {
		t.Errorf("%v", err)
	}
	for name, err := range map[string]error{
		"thread_id": second(stateOf(ctx, registry, "default", "a b")),
		"values.x":  second(registry.UpdateThread(ctx, "default", "new", "talk", "", graph.State{"x": 1}, "")),
		"as_node":   second(registry.UpdateThread(ctx, "default", "new", "talk", "nobody", graph.State{}, "")),
	} {
		if wrong, named := errors.AsType[*violation.Error](err); !named || wrong.Violations[0].Field != name {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := registry.UpdateThread(ctx, "default", "new", "nothing", "", nil, ""); !errors.As(err, new(*UnknownGraphError)) {
		t.Errorf("%v", err)
	}
}

func TestRepeatsOfAChangeHaveNoSecondEffect(t *testing.T) {
	t.Parallel()
	b, registry := openThreads(t, t.TempDir())
	ctx := t.Context()
	b.say("one")
	update := func() (Snapshot, error) {
		return registry.UpdateThread(ctx, "default", "ada", "", "END", graph.State{"said": []any{"two"}}, "r1")
	}
	fork := func() (Snapshot, error) { return registry.ForkThread(ctx, "default", "ada", 0, "other", "r2") }
	for _, change := range []func() (Snapshot, error){update, fork} {
		first, err := change()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := change(); err != nil || !reflect.DeepEqual(again, first) {
			t.Errorf("%+v, %v, want %+v", again, err, first)
		}
	}
	b.say("three")
	again, err := update()
	if err != nil || !reflect.DeepEqual(again.Values["said"], []any{"one", "two"}) {
		t.Errorf("after a turn: %+v, %v", again, err)
	}
	latest, err := stateOf(ctx, registry, "default", "ada")
	if err != nil || latest.Parent != 0 || !reflect.DeepEqual(latest.Values["said"], []any{"one", "two", "three"}) {
		t.Errorf("%+v, %v", latest, err)
	}
	if _, err := registry.ForkThread(ctx, "default", "ada", 0, "other", "r3"); !errors.As(err, new(*ThreadBusyError)) {
		t.Errorf("fork to a thread that exists: %v", err)
	}
	if _, err := registry.UpdateThread(ctx, "default", "ada", "reasoning_graph", "END", nil, ""); !errors.As(err, new(*violation.Error)) {
		t.Errorf("update with another graph: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestTurnsTakeNoOtherKey(t *testing.T) {
	t.Parallel()
	b, _ := openThreads(t, t.TempDir())
	request := engine.CreateRequest{
		TaskType: "langgraph_task", Input: []byte(`{"graph_id": "talk", "thread_id": "ada", "said": ["one"]}`),
		Options: engine.Options{Concurrency: &engine.Concurrency{Key: "k1"}},
	}
	_, _, err := b.CreateRun(t.Context(), "default", request)
	_, errBatch := b.CreateRuns(t.Context(), "default", []engine.CreateRequest{request})
	for field, err := range map[string]error{
		"concurrency": err, "requests[0].concurrency": errBatch,
	} {
		wrong, named := errors.AsType[*violation.Error](err)
		if !named || wrong.Violations[0].Field != field || !strings.Contains(err.Error(), "thread_id") {
			t.Errorf("%s: %v", field, err)
		}
	}
	request.Input, request.Wait = []byte(`{"graph_id": "talk", "said": ["one"]}`), true
	if run, _, err := b.CreateRun(t.Context(), "default", request); err != nil || run.State != engine.Succeeded {
		t.Errorf("without a thread: %s, %v", run.State, err)
	}
}

// TestRunsOfAThreadHaveOneKey has every task type that runs graphs, by either spelling.
func TestRunsOfAThreadHaveOneKey(t *testing.T) {
	t.Parallel()
	_, registry := openThreads(t, t.TempDir())
	for taskType := range graphTasks() {
		if key := registry.ConcurrencyKey(engine.TaskTarget, taskType, []byte(`{"thread_id": "ada"}`)); key != "thread:ada" {
			t.Errorf("%s has the key %q", taskType, key)
		}
	}
	if _, spelled := graphTasks()[spelledTask]; !spelled {
		t.Errorf("%s runs no graphs", spelledTask)
	}
	for _, other := range []struct {
		target          engine.Target
		taskType, input string
	}{
		{engine.TaskTarget, "echo", `{"thread_id": "ada"}`},
		{engine.AgentTarget, "langgraph_task", `{"thread_id": "ada"}`},
		{engine.TaskTarget, "langgraph_task", `{"thread_id": 7}`},
		{engine.TaskTarget, "langgraph_task", `{}`},
	} {
		if key := registry.ConcurrencyKey(other.target, other.taskType, []byte(other.input)); key != "" {
			t.Errorf("%+v has the key %q", other, key)
		}
	}
}
