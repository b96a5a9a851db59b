package engine

import (
	"fmt"
	"time"
)

// later has the engine do something that a timer calls for, one thing after
// another, unless it stops first.
func (e *Engine) later(do func()) {
	select {
	case e.due <- do:
	case <-e.stopping:
	}
}

// doDue does what timers call for until the engine stops.
func (e *Engine) doDue() {
	for {
		select {
		case do := <-e.due:
			do()
		case <-e.stopping:
			return
		}
	}
}

// setDeadline has a run cancelled once the time has passed, unless it ends
// before. The timer is monotonic: a step of the wall clock does not move it.
func (e *Engine) setDeadline(ent *entry, after time.Duration) {
	ent.mu.Lock()
	defer ent.mu.Unlock()
	ent.deadline = time.AfterFunc(after, func() { e.later(func() { e.expire(ent) }) })
}

// expire cancels a run whose deadline has passed.
func (e *Engine) expire(ent *entry) {
	run := ent.snapshot()
	_, err := e.cancel(e.work, ent, RunError{
		Reason: ReasonDeadlineExceeded,
		Message: fmt.Sprintf("the deadline passed, %s after the run was accepted",
			run.Deadline.Sub(run.CreatedAt).Round(time.Millisecond)),
	})
	if err != nil {
		e.logUnlessUnchanged(run, err)
	}
}

// leaveQueue ends a run that could have begun for longer than its queue timeout.
func (e *Engine) leaveQueue(ent *entry) {
	now := e.cfg.Now().UTC()
	run, err := e.change(e.work, ent, nil, func(run *Run) error {
		if run.State != Queued {
			return errUnchanged
		}
		run.end(TimedOut, &RunError{
			Reason:    ReasonQueueTimedOut,
			Message:   fmt.Sprintf("the run could not begin for its queue timeout of %s", run.options().QueueTimeout),
			Retryable: true,
		}, now)
		return nil
	})
	if err != nil {
		e.logUnlessUnchanged(run, err)
		return
	}
	e.log.Warn("run did not begin in time", "run_id", run.ID, "agent", run.AgentID)
}
