package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/definition"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// ThreadReader reads how a thread stands, and stood.
type ThreadReader struct {
	id    string
	graph *graph.Graph
	saver graph.Saver
}

// State returns how the thread stands, or stood at a revision; 0: the latest. Errors:
// *UnknownThreadError, the journal's.
func (t *ThreadReader) State(ctx context.Context, revision uint64) (Snapshot, error) {
	c, err := t.graph.State(ctx, t.saver, t.id, revision)
	if err != nil {
		return Snapshot{}, unknownThread(t.id, err)
	}
	return snapshotOf(t.id, c), nil
}

// History returns checkpoints of the thread, newest first: see graph.Graph.History.
func (t *ThreadReader) History(ctx context.Context, before uint64, limit int) ([]Snapshot, error) {
	checkpoints, err := t.graph.History(ctx, t.saver, t.id, before, limit)
	if err != nil {
		return nil, err
	}
	snapshots := make([]Snapshot, len(checkpoints))
	for i, c := range checkpoints {
		snapshots[i] = snapshotOf(t.id, c)
	}
	return snapshots, nil
}

// Thread returns a thread that outlives runs. Errors: *UnknownThreadError,
// *UnknownGraphError, *violation.Error, the journal's.
func (r *Registry) Thread(ctx context.Context, namespace, id string) (*ThreadReader, error) {
	o, err := r.openThread(ctx, namespace, id, "")
	if err != nil {
		return nil, err
	}
	return &ThreadReader{id: id, graph: o.graph.Graph, saver: o.saver}, nil
}

// ThreadOfRun returns the thread that a run of a graph is a turn of, or its own one, which
// has the run's id and is among the steps that the run has recorded. Errors: those of
// Thread.
func (r *Registry) ThreadOfRun(ctx context.Context, run engine.Run, steps []engine.Step) (*ThreadReader, error) {
	if _, isGraph := graphTasks()[run.TaskType]; run.Target != engine.TaskTarget || !isGraph {
		return nil, violation.New("run_id", "run %s is none of a graph", run.ID)
	}
	var name string
	var own pinned
	for _, step := range steps {
		if id, isTurn := strings.CutPrefix(step.Key, threadKey); isTurn {
			return r.Thread(ctx, run.Namespace, id)
		}
		// The first graph is the run's own; those that it runs are noted behind it.
		of, isGraph := strings.CutPrefix(step.Key, r.graphs.pinKey(""))
		if !isGraph || name != "" {
			continue
		}
		if err := json.Unmarshal(step.Result, &own); err != nil {
			return nil, fmt.Errorf("read version of graph %s: %w", of, err)
		}
		name = of
	}
	if name == "" {
		return nil, &UnknownThreadError{run.ID}
	}
	found, err := r.graphs.get(ctx, run.Namespace, name, own.Version)
	if errors.As(err, new(*definition.NotFoundError)) {
		return nil, &UnknownGraphError{GraphID: name, Known: r.graphs.names(run.Namespace)}
	}
	if err != nil {
		return nil, err
	}
	return &ThreadReader{id: run.ID, graph: found.is.Graph, saver: newRunSaver(engine.Call{Steps: steps})}, nil
}
