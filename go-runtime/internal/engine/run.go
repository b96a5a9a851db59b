package engine

import (
	"time"
)

// State is where a run stands: queued → running → (waiting ⇄ running) → one of
// the four ends. A retry is running → queued.
type State string

// The states of a run. The last four are ends: a run enters one of them once.
const (
	Queued    State = "queued"
	Running   State = "running"
	Waiting   State = "waiting"
	Succeeded State = "succeeded"
	Failed    State = "failed"
	Cancelled State = "cancelled"
	TimedOut  State = "timed_out"
)

// Ended reports whether a run in this state has ended.
func (s State) Ended() bool {
	switch s {
	case Succeeded, Failed, Cancelled, TimedOut:
		return true
	case Queued, Running, Waiting:
		return false
	}
	return false
}

// Target says what executes a run.
type Target string

const (
	// TaskTarget runs the task type itself; the agent id is the caller's label.
	TaskTarget Target = "task"
	// AgentTarget runs the registered agent.
	AgentTarget Target = "agent"
)

// Run is one task given to the runtime, as its log stands at Sequence.
type Run struct {
	ID        string
	Namespace string
	Target    Target
	// AgentID is the agent that executes the run, or a label; see Target.
	AgentID     string
	TaskType    string
	Description string
	State       State
	// Attempt is 1 for the first attempt and 0 while none has begun.
	Attempt     int
	MaxAttempts int
	// Input, Output and Metadata are JSON objects; Output and Metadata may be
	// empty, and lists leave Input and Output out.
	Input    []byte
	Output   []byte
	Metadata []byte
	// Error is set when the run ended in another way than success.
	Error *RunError
	// CreatedAt, StartedAt (of the latest attempt) and EndedAt are zero until it happened.
	CreatedAt time.Time
	StartedAt time.Time
	EndedAt   time.Time
	// Deadline is when the run is cancelled if it has not ended; zero: never.
	Deadline time.Time
	// RunTimeout is the longest one attempt may take.
	RunTimeout time.Duration
	// Sequence is that of the run's latest record in the journal.
	Sequence uint64
}

// begin makes the run's next attempt the one under way.
func (r *Run) begin(now time.Time) {
	r.State = Running
	r.Attempt++
	r.StartedAt = now
}

// RunError says why a run did not succeed.
type RunError struct {
	Reason  Reason `json:"reason"`
	Message string `json:"message"`
	// Retryable is true when another attempt could succeed.
	Retryable bool `json:"retryable,omitempty"`
}

// Reason is a RunError's cause for programs: the name of a value of
// agentruntime.v1.ErrorReason without its prefix.
type Reason string

// The reasons for which runs end badly.
const (
	ReasonAgentFailed       Reason = "AGENT_FAILED"
	ReasonAgentPanicked     Reason = "AGENT_PANICKED"
	ReasonModelFailed       Reason = "MODEL_FAILED"
	ReasonTimedOut          Reason = "RUN_TIMED_OUT"
	ReasonDeadlineExceeded  Reason = "RUN_DEADLINE_EXCEEDED"
	ReasonCancelled         Reason = "RUN_CANCELLED"
	ReasonAttemptsExhausted Reason = "ATTEMPTS_EXHAUSTED"
)
