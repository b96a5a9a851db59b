package engine

import (
	"context"
	"errors"
)

// CancelRun ends a run that has not ended, and its sub-runs, for good, and returns
// it; one that was cancelled before is returned as it is. Its task is told through
// its context, its worker by a Cancellation.
// reason is for people and may be empty.
//
// Errors: *RunNotFoundError, *EndedError, *violation.Error, the journal's.
func (e *Engine) CancelRun(ctx context.Context, namespace, runID, reason string) (Run, error) {
	if err := checkText("reason", reason, maxTextBytes); err != nil {
		return Run{}, err
	}
	ent, err := e.find(namespace, runID)
	if err != nil {
		return Run{}, err
	}
	message := "cancelled on request"
	if reason != "" {
		message += ": " + reason
	}
	run, err := outlive(ctx, func() (Run, error) {
		run, err := e.cancel(e.work, ent, RunError{Reason: ReasonCancelled, Message: message})
		if errors.Is(err, errUnchanged) && run.State == Cancelled {
			// The runtime may have died before its sub-runs were.
			e.ended(e.work, &run)
		}
		return run, err
	})
	switch {
	case errors.Is(err, errUnchanged) && run.State != Cancelled:
		return Run{}, &EndedError{RunID: run.ID, State: run.State}
	case err != nil && !errors.Is(err, errUnchanged):
		return Run{}, err
	}
	return e.read(ctx, ent)
}

// cancel ends a run as cancelled and stops its attempt; errUnchanged when it had ended.
func (e *Engine) cancel(ctx context.Context, ent *entry, why RunError) (Run, error) {
	run, err := e.change(ctx, ent, nil, func(run *Run) error {
		if run.State.Ended() {
			return errUnchanged
		}
		run.end(Cancelled, &why, e.cfg.Now().UTC())
		return nil
	})
	if err != nil {
		return run, err
	}
	ent.mu.Lock()
	if ent.cancel != nil {
		ent.cancel(errRunEnded)
	}
	ent.mu.Unlock()
	e.log.Info("run cancelled", "run_id", run.ID, "task_type", run.TaskType, "reason", why.Reason)
	return run, nil
}
