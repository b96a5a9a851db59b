package engine

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// WaitRun returns a run when it has ended, or as it is when maxWait has passed
// (0: as long as ctx allows). Errors: *RunNotFoundError, ErrStopped, ctx's, the journal's.
func (e *Engine) WaitRun(ctx context.Context, namespace, runID string, maxWait time.Duration) (Run, error) {
	ent, err := e.find(namespace, runID)
	if err != nil {
		return Run{}, err
	}
	run, err := e.await(ctx, ent, maxWait)
	if err != nil {
		return Run{}, err
	}
	return e.withPayloads(ctx, ent, run)
}

// WaitRuns hands each run to send once, as soon as it has ended, or as it is when
// maxWait has passed. It is durable, and without its input; more says that
// another one follows at once. WaitRuns returns when all have been sent.
//
// Errors: *RunNotFoundError (before anything is sent, unless a run is forgotten
// meanwhile), ErrStopped when the engine stops first, ctx's, send's, the journal's.
func (e *Engine) WaitRuns(
	ctx context.Context, namespace string, runIDs []string, maxWait time.Duration, send func(run Run, more bool) error,
) error {
	entries := make([]*entry, 0, len(runIDs))
	waiting := make(map[*entry]bool, len(runIDs))
	for _, id := range runIDs {
		ent, err := e.find(namespace, id)
		if err != nil {
			return err
		}
		if !waiting[ent] {
			waiting[ent] = true
			entries = append(entries, ent)
		}
	}
	w := &watcher{some: make(chan struct{}, 1)}
	for _, ent := range entries {
		ent.watch(w)
	}
	defer func() {
		for _, ent := range entries {
			ent.unwatch(w)
		}
	}()
	patience := time.NewTimer(maxWait)
	defer patience.Stop()
	for len(waiting) > 0 {
		var due []*entry
		select {
		case <-w.some:
			due = w.take()
		case <-patience.C:
			due = slices.Collect(maps.Keys(waiting))
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-e.stopping:
			if due = w.take(); len(due) == 0 {
				return ErrStopped
			}
		}
		if err := e.sendAll(ctx, due, send); err != nil {
			return err
		}
		for _, ent := range due {
			delete(waiting, ent)
		}
	}
	return nil
}

// sendAll hands runs to send as they are, once that is durable.
func (e *Engine) sendAll(ctx context.Context, entries []*entry, send func(run Run, more bool) error) error {
	runs, err := e.commitAll(ctx, entries)
	if err != nil {
		return err
	}
	for i, run := range runs {
		if run, err = e.withOutput(ctx, run); err != nil {
			return err
		}
		if err := send(run, i < len(runs)-1); err != nil {
			return err
		}
	}
	return nil
}

// watcher collects runs as they end.
type watcher struct {
	// some carries one token while there may be something to take.
	some chan struct{}

	mu    sync.Mutex
	ended []*entry
}

func (w *watcher) add(ent *entry) {
	w.mu.Lock()
	w.ended = append(w.ended, ent)
	w.mu.Unlock()
	select {
	case w.some <- struct{}{}:
	default:
	}
}

// take returns the runs that have ended since it was called before.
func (w *watcher) take() []*entry {
	w.mu.Lock()
	defer w.mu.Unlock()
	ended := w.ended
	w.ended = nil
	return ended
}

// watch adds the run to the watcher once it has ended.
func (ent *entry) watch(w *watcher) {
	ent.mu.Lock()
	defer ent.mu.Unlock()
	if ent.run.State.Ended() {
		w.add(ent)
		return
	}
	ent.watchers = append(ent.watchers, w)
}

func (ent *entry) unwatch(w *watcher) {
	ent.mu.Lock()
	defer ent.mu.Unlock()
	ent.watchers = slices.DeleteFunc(ent.watchers, func(other *watcher) bool { return other == w })
}

// await returns a run once it has ended or maxWait has passed, and that is durable.
func (e *Engine) await(ctx context.Context, ent *entry, maxWait time.Duration) (Run, error) {
	if err := e.awaitEnd(ctx, ent, maxWait); err != nil {
		return Run{}, err
	}
	return e.commit(ctx, ent)
}

// awaitEnd returns nil when the run has ended or maxWait (0: none) has passed.
func (e *Engine) awaitEnd(ctx context.Context, ent *entry, maxWait time.Duration) error {
	var patience <-chan time.Time
	if maxWait > 0 {
		timer := time.NewTimer(maxWait)
		defer timer.Stop()
		patience = timer.C
	}
	stopping, end := e.stopping, ent.end()
	for {
		select {
		case <-end:
			return nil
		case <-patience:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-stopping:
			if run := ent.snapshot(); !run.State.Ended() && (run.State != Running || run.Worker != nil) {
				return ErrStopped
			}
			stopping = nil
		case <-e.work.Done():
			if !ent.snapshot().State.Ended() {
				return ErrStopped
			}
			return nil
		}
	}
}
