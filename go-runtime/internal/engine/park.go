package engine

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// ResumeRun answers the interrupt at which a run waits: the run is queued again,
// and its code gets the value, a JSON text (empty: null). interruptID may be
// empty: the one the run waits at. A repeat, with the same value, returns the run as it is.
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
	_, err = outlive(ctx, func() (Run, error) { return e.answer(ent, interruptID, value) })
	if err == nil {
		return e.read(ctx, ent)
	}
	before, answered := e.answerOf(ctx, ent, interruptID)
	switch {
	case !answered:
		return Run{}, err
	case !bytes.Equal(before.Value, value):
		run := ent.snapshot()
		return Run{}, &NotWaitingError{RunID: run.ID, State: run.State, InterruptID: interruptID, Answered: true}
	}
	return e.read(ctx, ent)
}

// answer queues a run again that waits at an interrupt.
func (e *Engine) answer(ent *entry, interruptID string, value []byte) (Run, error) {
	run, err := e.change(e.work, ent, value, func(run *Run) error {
		switch {
		case run.State.Ended():
			return &EndedError{RunID: run.ID, State: run.State}
		case !run.asks() || (interruptID != "" && interruptID != run.Wait.InterruptID):
			return &NotWaitingError{RunID: run.ID, State: run.State, InterruptID: interruptID, Asking: e.askingFor(run)}
		}
		answered := run.Wait.InterruptID
		run.queue(causeAnswer)
		run.continues = true
		run.answered = answered
		return nil
	})
	if err == nil {
		e.requeue(ent, &run)
		e.log.Info("run resumed", "run_id", run.ID, "agent", run.AgentID)
	}
	return run, err
}

// askingFor returns the sub-runs that ask something while a run waits for them.
func (e *Engine) askingFor(run *Run) (asking []string) {
	if run.State != Waiting {
		return nil
	}
	for _, id := range run.Wait.Runs {
		if ent := e.index.get(run.Namespace, id); ent != nil {
			if child := ent.snapshot(); child.asks() {
				asking = append(asking, id)
			}
		}
	}
	return asking
}

// answerOf returns the latest answer that an interrupt of a run has got, if it has.
func (e *Engine) answerOf(ctx context.Context, ent *entry, interruptID string) (Answer, bool) {
	if interruptID == "" {
		return Answer{}, false
	}
	p, err := e.readPast(ctx, ent)
	if err != nil {
		return Answer{}, false
	}
	// The same may have been asked again.
	for _, a := range slices.Backward(p.Answers) {
		if a.InterruptID == interruptID {
			return a, true
		}
	}
	return Answer{}, false
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
	for _, child := range e.index.childrenOf(run.Namespace, run.ID) {
		e.cancelWithParent(ctx, child)
	}
	if parent := run.options().ParentID; parent != "" {
		if ent := e.index.get(run.Namespace, parent); ent != nil {
			e.endWait(ctx, ent)
		}
	}
}

// cancelWithParent cancels a sub-run whose parent ended in another way than success.
func (e *Engine) cancelWithParent(ctx context.Context, child *entry) {
	run := child.snapshot()
	ent := e.index.get(run.Namespace, run.options().ParentID)
	if ent == nil {
		return
	}
	parent := ent.snapshot()
	if !parent.State.Ended() || parent.State == Succeeded {
		return
	}
	_, err := e.cancel(ctx, child, RunError{
		Reason: ReasonCancelled, Message: "the run that it was a part of ended as " + string(parent.State),
	})
	if err != nil && !errors.Is(err, errUnchanged) {
		e.log.Error("sub-run not cancelled", "run_id", child.id, "parent_run_id", parent.ID, "err", err)
	}
}
