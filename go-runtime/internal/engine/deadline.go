package engine

import (
	"fmt"
	"time"
)

// setDeadline has a run cancelled once the time has passed, unless it ends
// before. The timer is monotonic: a step of the wall clock does not move it.
func (e *Engine) setDeadline(ent *entry, after time.Duration) {
	ent.mu.Lock()
	defer ent.mu.Unlock()
	ent.deadline = time.AfterFunc(after, func() {
		select {
		case e.expired <- ent:
		case <-e.stopping:
		}
	})
}

// expire cancels runs whose deadline has passed, until the engine stops.
func (e *Engine) expire() {
	for {
		select {
		case ent := <-e.expired:
			run := ent.snapshot()
			_, err := e.cancel(e.work, ent, RunError{
				Reason: ReasonDeadlineExceeded,
				Message: fmt.Sprintf("the deadline passed, %s after the run was accepted",
					run.Deadline.Sub(run.CreatedAt).Round(time.Millisecond)),
			})
			if err != nil {
				e.logUnlessUnchanged(run, err)
			}
		case <-e.stopping:
			return
		}
	}
}
