package engine

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrStopped is returned when the engine is stopping and takes no more work.
var ErrStopped = errors.New("engine is stopping")

var (
	// ErrLeaseLost is returned for what comes under a lease that is over.
	ErrLeaseLost = errors.New("the lease of the run is over")
	// ErrReplaced ends the connection of a worker that has connected again.
	ErrReplaced = errors.New("the worker has connected again")
)

// RunNotFoundError is returned when the namespace has no such run.
type RunNotFoundError struct {
	RunID string
}

func (e *RunNotFoundError) Error() string { return fmt.Sprintf("there is no run %q", e.RunID) }

// RequestError says which request of CreateRuns an error is about.
type RequestError struct {
	// Place is the request's, from 0 on.
	Place int
	Err   error
}

func (e *RequestError) Error() string { return fmt.Sprintf("requests[%d]: %v", e.Place, e.Err) }

// Unwrap returns the error that CreateRun would have returned.
func (e *RequestError) Unwrap() error { return e.Err }

// EndedError is returned by CancelRun for a run that has ended otherwise.
type EndedError struct {
	RunID string
	State State
}

func (e *EndedError) Error() string {
	return fmt.Sprintf("run %s has already ended as %s", e.RunID, e.State)
}

// ConflictError is returned by CreateRun and CreateRuns when the run's id was used before with another payload.
type ConflictError struct {
	RunID string
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("run %s exists with another payload", e.RunID)
}

// QueueFullError is returned by CreateRun and CreateRuns when the queue has no room for all of their runs.
type QueueFullError struct {
	// Limit is how many runs the queue holds, Wanted how many were to be accepted.
	Limit, Wanted int
	RetryAfter    time.Duration
}

func (e *QueueFullError) Error() string {
	return fmt.Sprintf("the queue of %d runs has no room for %d more", e.Limit, e.Wanted)
}

// ConcurrencyLimitError is returned by CreateRun and CreateRuns when a run's
// concurrency key is taken and its strategy is to be refused.
type ConcurrencyLimitError struct {
	Key   string
	Limit int
}

func (e *ConcurrencyLimitError) Error() string {
	return fmt.Sprintf("the concurrency key %q is taken by %d of %d runs", e.Key, e.Limit, e.Limit)
}

// NotWaitingError is returned by ResumeRun for a run that does not wait for the answer.
type NotWaitingError struct {
	RunID       string
	State       State
	InterruptID string
	// Answered says that it got another answer before.
	Answered bool
	// Asking are the sub-runs that the run waits for and that ask something themselves.
	Asking []string
}

func (e *NotWaitingError) Error() string {
	if e.Answered {
		return fmt.Sprintf("interrupt %q of run %s was answered before, with another value", e.InterruptID, e.RunID)
	}
	if len(e.Asking) > 0 {
		return fmt.Sprintf("run %s waits for sub-runs: it is %s that ask, and are to be answered", e.RunID, strings.Join(e.Asking, ", "))
	}
	if e.State == Waiting && e.InterruptID != "" {
		return fmt.Sprintf("run %s does not wait for an answer to interrupt %q", e.RunID, e.InterruptID)
	}
	return fmt.Sprintf("run %s is %s and waits for no answer", e.RunID, e.State)
}

// NotEndedError is returned by RetryRun for a run that cannot be done again.
type NotEndedError struct {
	RunID string
	State State
}

func (e *NotEndedError) Error() string {
	return fmt.Sprintf("run %s is %s: only runs that failed, timed out or were cancelled are done again", e.RunID, e.State)
}
