package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/document"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

func (b *bench) threadOf(registry *Registry, runID string) (*ThreadReader, error) {
	b.t.Helper()
	run, err := b.PeekRun(b.t.Context(), "default", runID)
	if err != nil {
		b.t.Fatal(err)
	}
	steps, err := b.RunSteps(b.t.Context(), "default", runID)
	if err != nil {
		b.t.Fatal(err)
	}
	return registry.ThreadOfRun(b.t.Context(), run, steps)
}

// TestOwnThreadOfARunIsRead looks at a run in a step, after a crash in it, and at its end.
func TestOwnThreadOfARunIsRead(t *testing.T) {
	t.Parallel()
	const stops = 3
	for _, durability := range []document.Durability{document.Async, document.Sync, document.Exit} {
		t.Run(string(durability), func(t *testing.T) {
			t.Parallel()
			reached, goOn := make(chan struct{}, 2), make(chan struct{})
			kind := func(with document.With) (document.Work, error) {
				work := func(ctx context.Context, call *graph.Call, _ graph.State) (any, error) {
					if call.Step == stops {
						reached <- struct{}{}
						select {
						case <-goOn:
						case <-ctx.Done():
						}
					}
					return nil, nil
				}
				return work, with.Check()
			}
			dir := t.TempDir()
			registry := registryOf(t, fmt.Sprintf(counting, durability), map[string]document.Kind{"count": kind})
			b := openWith(t, dir, registry)
			id := b.runGraph(`{"graph_id": "tested"}`)
			for attempt := 1; ; attempt++ {
				within(t, reached)
				reader, err := b.threadOf(registry, id)
				if err != nil {
					t.Fatal(err)
				}
				state, err := reader.State(t.Context(), 0)
				if durability == document.Exit {
					if !errors.As(err, new(*UnknownThreadError)) {
						t.Errorf("%+v, %v", state, err)
					}
				} else if err != nil || state.Values["n"] != float64(stops) || state.Status != graph.Running || state.ThreadID != id {
					t.Errorf("%+v, %v", state, err)
				}
				if attempt == 2 {
					break
				}
				b.crash()
				b = openWith(t, dir, registry)
			}
			close(goOn)
			b.wantEnd(id, engine.Succeeded, 2)
			reader, err := b.threadOf(registry, id)
			if err != nil {
				t.Fatal(err)
			}
			state, err := reader.State(t.Context(), 0)
			if err != nil || state.Values["n"] != 20.0 || state.Status != graph.Done {
				t.Errorf("%+v, %v", state, err)
			}
			history, err := reader.History(t.Context(), 0, 0)
			if err != nil || uint64(len(history)) != state.Revision || durability != document.Exit && len(history) < 20 {
				t.Errorf("%d checkpoints, the last is %d: %v", len(history), state.Revision, err)
			}
		})
	}
}

func TestOnlyRunsOfGraphsHaveThreads(t *testing.T) {
	t.Parallel()
	registry := registryOf(t, asking, nil)
	ctx := t.Context()
	run := engine.Run{ID: "r", Namespace: "default", Target: engine.TaskTarget, TaskType: "langgraph_task"}
	if _, err := registry.ThreadOfRun(ctx, run, nil); !errors.As(err, new(*UnknownThreadError)) {
		t.Errorf("a run that has not begun: %v", err)
	}
	steps := []engine.Step{{Key: "graph: gone", Result: []byte(`{"version": "0123456789abcdef"}`)}}
	if _, err := registry.ThreadOfRun(ctx, run, steps); !errors.As(err, new(*UnknownGraphError)) {
		t.Errorf("a run of a graph that is gone: %v", err)
	}
	steps[0].Result = []byte(`[]`)
	if _, err := registry.ThreadOfRun(ctx, run, steps); err == nil {
		t.Error("a record that is none is read")
	}
	for _, other := range []engine.Run{
		{ID: "r", Target: engine.TaskTarget, TaskType: "echo"}, {ID: "r", Target: engine.AgentTarget, TaskType: "langgraph_task"},
	} {
		if _, err := registry.ThreadOfRun(ctx, other, nil); !errors.As(err, new(*violation.Error)) {
			t.Errorf("%+v: %v", other, err)
		}
	}
}
