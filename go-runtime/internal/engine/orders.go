package engine

import (
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
)

// Orders is what the engine has to say to a worker.
type Orders struct {
	Assignments   []Assignment
	Acks          []HeldLease
	Cancellations []Cancellation
	Refusals      []Refusal
	Children      []ChildRun
}

func (o *Orders) empty() bool {
	return len(o.Assignments)+len(o.Acks)+len(o.Cancellations)+len(o.Refusals)+len(o.Children) == 0
}

// Assignment leases a run to a worker.
type Assignment struct {
	// Run is with its input.
	Run         Run
	Lease       uint64
	StepTimeout time.Duration
	Steps       []Step
	Answers     []Answer
	Checkpoint  []byte
	Trace       span.Origin
}

// Cancellation says that a run is no longer the worker's.
type Cancellation struct {
	RunID  string
	Lease  uint64
	Reason Reason
}

// Refusal says that a report was not kept.
type Refusal struct {
	HeldLease

	// Err is ErrLeaseLost, or an error of CreateRun, such as a *violation.Error or a
	// *violation.TooLargeError.
	Err error
}

// ChildRun answers a report that started a sub-run.
type ChildRun struct {
	ParentID string
	Lease    uint64
	Report   uint64
	// Run is with its output if it succeeded.
	Run Run
}

// order adds to what is said to the worker.
func (s *Session) order(add func(*Orders)) {
	s.mu.Lock()
	if s.connected {
		add(&s.orders)
	}
	s.mu.Unlock()
	signal(s.some)
}

func signal(some chan struct{}) {
	select {
	case some <- struct{}{}:
	default:
	}
}
