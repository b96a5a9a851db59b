package engine

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrRunNotFound is returned when the namespace has no such run.
	ErrRunNotFound = errors.New("run not found")
	// ErrStopped is returned when the engine is stopping and takes no more work.
	ErrStopped = errors.New("engine is stopping")
)

// EndedError is returned by CancelRun for a run that has ended otherwise.
type EndedError struct {
	RunID string
	State State
}

func (e *EndedError) Error() string {
	return fmt.Sprintf("run %s has already ended as %s", e.RunID, e.State)
}

// ConflictError is returned by CreateRun when the run's id was used before with another payload.
type ConflictError struct {
	RunID string
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("run %s exists with another payload", e.RunID)
}

// QueueFullError is returned by CreateRun when as many runs wait as the queue holds.
type QueueFullError struct {
	Limit      int
	RetryAfter time.Duration
}

func (e *QueueFullError) Error() string {
	return fmt.Sprintf("%d runs are queued already", e.Limit)
}
