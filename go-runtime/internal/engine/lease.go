package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// lease is a run that a worker executes, or one that the runtime itself does, which
// has neither session nor timeout.
type lease struct {
	session *Session
	ent     *entry
	token   uint64
	// timeout ends the attempt, which began at begun, on the monotonic clock.
	timeout *time.Timer
	begun   time.Time

	// mu is held while a report of the lease is handled. report is the number of
	// the last one that was, place that of its last event which was kept.
	mu     sync.Mutex
	report uint64
	place  int

	// over says that the run has moved on; the worker's place is still taken.
	// revoked is since when the worker is to stop, refused why an event of the
	// attempt was not kept, nil if all were. Guarded by the session's lock.
	over    bool
	revoked time.Time
	refused error
}

// lease notes that a worker has a run. The run's turn must be held, or the run
// be unknown to others yet.
func (e *Engine) lease(s *Session, ent *entry, run *Run) {
	l := &lease{session: s, ent: ent, token: run.Lease, place: -1}
	// The runtime may have been started since.
	l.begun = time.Now().Add(-max(0, e.cfg.Now().Sub(run.StartedAt)))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		left, ttl := s.left, s.worker.TTL
		e.running.Go(func() { e.reclaim(l, left, ttl) })
		return
	}
	l.timeout = time.AfterFunc(run.RunTimeout, func() { e.later(func() { e.timeOut(ent, l.token) }) })
	s.leases[l.token] = l
	ent.mu.Lock()
	ent.lease = l
	ent.mu.Unlock()
}

// timeOut ends a run whose attempt has taken too long.
func (e *Engine) timeOut(ent *entry, token uint64) {
	now := e.cfg.Now().UTC()
	run, err := e.change(e.work, ent, nil, func(run *Run) error {
		if run.State != Running || run.Lease != token {
			return errUnchanged
		}
		state, why := outcome(run, errRunTimeout)
		run.end(state, why, now)
		return nil
	})
	if err != nil {
		e.logUnlessUnchanged(run, err)
		return
	}
	e.logEnd(run, errRunTimeout)
}

// reclaim takes a run from a worker that has it no more. An attempt that nobody has
// executed, or that its worker has left on purpose, is not counted.
func (e *Engine) reclaim(l *lease, uncounted bool, ttl time.Duration) {
	if !uncounted {
		e.loseLease(l, ttl)
		return
	}
	l.stopTimeout()
	e.giveBack(l.ent, l.token)
}

// stopTimeout has the attempt not be ended for taking too long.
func (l *lease) stopTimeout() {
	if l.timeout != nil {
		l.timeout.Stop()
	}
}

// loseLease takes a run from a worker that was not heard of.
func (e *Engine) loseLease(l *lease, ttl time.Duration) {
	l.stopTimeout()
	run, err := e.lose(e.work, l.ent, l.token, "the worker was not heard of for "+ttl.String())
	if err != nil {
		e.logUnlessUnchanged(run, err)
		return
	}
	if run.State == Queued {
		e.sched.restore(l.ent)
	}
}

// revoke tells the worker that a run has moved on. The worker keeps its place
// until it says that the run's code is gone.
func (l *lease) revoke(reason Reason) {
	l.timeout.Stop()
	s := l.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases[l.token] != l || l.over {
		return
	}
	l.over, l.revoked = true, time.Now()
	if s.connected {
		s.orders.Cancellations = append(s.orders.Cancellations, Cancellation{RunID: l.ent.id, Lease: l.token, Reason: reason})
		signal(s.some)
	}
}

// takeBack takes a run from a worker that has connected again without it. Either
// its Assignment was lost with the stream; or the worker has given it up, having
// not heard of the runtime for the lease time: then its code has begun, and that
// is an attempt. A worker that gives a run up has had it for nearly the lease time.
func (e *Engine) takeBack(l *lease, ttl time.Duration) {
	e.reclaim(l, time.Since(l.begun) <= ttl/2, ttl)
}

// giveBack queues a run again to go on with the attempt that nobody executes.
func (e *Engine) giveBack(ent *entry, token uint64) {
	run, err := e.change(e.work, ent, nil, func(run *Run) error {
		if run.State != Running || run.Lease != token {
			return errUnchanged
		}
		run.giveBack()
		return nil
	})
	if err != nil {
		e.logUnlessUnchanged(run, err)
		return
	}
	e.requeue(ent, &run)
}

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
