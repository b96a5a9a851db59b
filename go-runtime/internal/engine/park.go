package engine

import (
	"context"
	"errors"
	"slices"

	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// ResumeRun answers the interrupt at which a run waits: the run is queued again,
// and its code gets the value, a JSON text (empty: null). interruptID may be
// empty: the one the run waits at. A repeat returns the run as it is.
//
// Errors: *RunNotFoundError, *EndedError, *NotWaitingError, *violation.Error,
// *violation.TooLargeError, the journal's.
func (e *Engine) ResumeRun(ctx context.Context, namespace, runID, interruptID string, value []byte) (Run, error) {
	value = orNull(value)
	if len(value) > e.cfg.MaxInputBytes {
		return Run{}, &violation.TooLargeError{Field: "value", Size: len(value), Limit: e.cfg.MaxInputBytes}
	}
	if err := jsonvalue.Validate("value", value); err != nil {
		return Run{}, err
	}
	ent, err := e.find(namespace, runID)
	if err != nil {
		return Run{}, err
	}
	run, err := e.change(ctx, ent, value, func(run *Run) error {
		switch {
		case run.State.Ended():
			return &EndedError{RunID: runID, State: run.State}
		case run.State != Waiting || run.Wait.InterruptID == "" || (interruptID != "" && interruptID != run.Wait.InterruptID):
			return &NotWaitingError{RunID: runID, State: run.State, InterruptID: interruptID}
		}
		answered := run.Wait.InterruptID
		run.queue(causeAnswer)
		run.continues = true
		run.answered = answered
		return nil
	})
	if err != nil {
		if interruptID != "" && e.wasAnswered(ctx, ent, interruptID) {
			return e.read(ctx, ent)
		}
		return Run{}, err
	}
	e.requeue(ent, &run)
	e.log.Info("run resumed", "run_id", run.ID, "agent", run.AgentID)
	return e.read(ctx, ent)
}

// wasAnswered reports whether an interrupt of a run has its answer.
func (e *Engine) wasAnswered(ctx context.Context, ent *entry, interruptID string) bool {
	p, err := e.readPast(ctx, ent)
	return err == nil && slices.ContainsFunc(p.Answers, func(a Answer) bool { return a.InterruptID == interruptID })
}

// requeue puts a run that is queued again in the scheduler.
func (e *Engine) requeue(ent *entry, run *Run) {
	if run.cause == causeRetry {
		e.retried.Add(1)
	}
	ent.delay(run.NotBefore.Sub(e.cfg.Now()))
	e.sched.restore(ent)
}

// endWait queues a run that waits for sub-runs once all of them have ended.
func (e *Engine) endWait(ctx context.Context, ent *entry) {
	run, err := e.change(ctx, ent, nil, func(run *Run) error {
		if run.State != Waiting || len(run.Wait.Runs) == 0 || !e.allEnded(run.Namespace, run.Wait.Runs) {
			return errUnchanged
		}
		run.queue(causeSubRuns)
		run.continues = true
		return nil
	})
	switch {
	case errors.Is(err, errUnchanged):
	case err != nil:
		e.log.Error("run not recorded", "run_id", run.ID, "state", run.State, "err", err)
	default:
		e.requeue(ent, &run)
	}
}

// allEnded reports whether runs have ended; one that is not kept any more has.
func (e *Engine) allEnded(namespace string, runIDs []string) bool {
	for _, id := range runIDs {
		if ent := e.index.get(namespace, id); ent != nil && !ent.snapshot().State.Ended() {
			return false
		}
	}
	return true
}

// ended does what the end of a run means for others: its parent may go on, and
// unless it succeeded its own sub-runs are cancelled.
func (e *Engine) ended(ctx context.Context, run *Run) {
	if run.State != Succeeded {
		for _, child := range e.index.childrenOf(run.Namespace, run.ID) {
			_, err := e.cancel(ctx, child, RunError{
				Reason: ReasonCancelled, Message: "the run that it was a part of ended as " + string(run.State),
			})
			if err != nil && !errors.Is(err, errUnchanged) {
				e.log.Error("sub-run not cancelled", "run_id", child.id, "parent_run_id", run.ID, "err", err)
			}
		}
	}
	if parent := run.options().ParentID; parent != "" {
		if ent := e.index.get(run.Namespace, parent); ent != nil {
			e.endWait(ctx, ent)
		}
	}
}
