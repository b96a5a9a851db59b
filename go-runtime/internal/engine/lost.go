package engine

import (
	"context"
	"errors"
	"fmt"
)

// lose queues a run again whose attempt nobody executes any more, or fails it
// when its attempts are used up. It returns the run as it then is; one that has
// moved on since is left alone.
func (e *Engine) lose(ctx context.Context, ent *entry, lease uint64, why string) (Run, error) {
	now := e.cfg.Now().UTC()
	run, err := e.change(ctx, ent, nil, func(run *Run) error {
		if run.State != Running || run.Lease != lease {
			return errUnchanged
		}
		if run.Attempt >= run.MaxAttempts {
			run.end(Failed, &RunError{
				Reason:  ReasonAttemptsExhausted,
				Message: fmt.Sprintf("%s during each of %d attempts", why, run.Attempt),
			}, now)
			return nil
		}
		run.queue(causeLost)
		run.Error = &RunError{Reason: ReasonLeaseLost, Message: why, Retryable: true}
		return nil
	})
	switch {
	case errors.Is(err, errUnchanged):
		return run, nil
	case err == nil:
		e.lost.Add(1)
	}
	return run, err
}
