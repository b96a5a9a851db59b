package engine

import (
	"context"
	"strings"
	"time"
)

// Call is what a task is given: which run it is, and what to work on.
type Call struct {
	Namespace string
	RunID     string
	Attempt   int
	AgentID   string
	TaskType  string
	// Input is a JSON object that fits the task type's schema.
	Input []byte
	// Metadata is a JSON object, or empty.
	Metadata []byte
	// Emit adds events to the run's log, behind those of earlier calls, and does not
	// wait until they are durable. One without a visibility has that which the run's
	// creator asked for its type, else User. Once the attempt is over nothing is
	// added: the error is then the cause with which ctx ended, or ErrLeaseLost. An
	// event that cannot be kept is a *violation.Error or *violation.TooLargeError.
	Emit func(ctx context.Context, events ...NewEvent) error
	// Record keeps what a step of the task came to, a JSON text, under a key: a later
	// call with this run has it among its Steps. It is added as an event is.
	Record func(ctx context.Context, key string, result []byte) error
	// Commit waits until what was emitted and recorded is durable.
	Commit func(ctx context.Context) error
	// StartRun creates a sub-run of this run, or returns the one that was started under
	// the key before, as it is now. A *ParkedError waits for its end.
	StartRun func(ctx context.Context, key string, request CreateRequest) (Run, error)
	// StepsOf returns what another run of the namespace has recorded, in order. Errors: those
	// of Engine.RunSteps.
	StepsOf func(ctx context.Context, runID string) ([]Step, error)
	// Ended reports whether another run of the namespace has ended; one that is not kept
	// any more has.
	Ended func(runID string) bool
	// Steps are what earlier calls with this run recorded, in order, and Answers those to
	// the interrupts at which they parked it.
	Steps   []Step
	Answers []Answer
}

// ParkedError is the error of a task whose run waits for an answer, or for the ends of
// sub-runs. It holds no place meanwhile; with the answer, which ResumeRun brings, or once
// all of the sub-runs have ended, the task is called again, as a part of the same attempt.
type ParkedError struct {
	InterruptID string
	// Payload is the question, a JSON text.
	Payload []byte
	// Runs are the ids of sub-runs, where no answer is waited for.
	Runs []string
}

func (e *ParkedError) Error() string {
	if e.InterruptID == "" {
		return "the run waits for " + strings.Join(e.Runs, ", ")
	}
	return "the run waits for an answer to " + e.InterruptID
}

// Task does the work of one run and returns a JSON object. It stops soon after
// ctx ends, and tolerates being run again with the same Call: after a crash it is.
// An error fails the run; a *TaskError says how.
type Task func(ctx context.Context, call Call) (output []byte, err error)

// TaskError is an error of a task that says more than its text.
type TaskError struct {
	Reason  Reason
	Message string
	// Retryable is true when another attempt could succeed: it is made, RetryAfter
	// this one or, when that is 0, as the run's retry policy says.
	Retryable  bool
	RetryAfter time.Duration
	// Type is the agent's own name for the failure, or empty.
	Type  string
	Cause error
}

// Permanent reports whether nothing is to be tried again of the run: its budget is used up.
func (e *TaskError) Permanent() bool { return e.Reason == ReasonBudgetExceeded }

func (e *TaskError) Error() string {
	if e.Cause == nil {
		return e.Message
	}
	return e.Message + ": " + e.Cause.Error()
}

// Unwrap returns the cause, which is for the log: only Message reaches the caller.
func (e *TaskError) Unwrap() error { return e.Cause }

// Registry knows what can be run.
type Registry interface {
	// Resolve returns the task for a run of a namespace and checks the input against
	// its schema. Its errors are the registry's own (no such agent, no such task
	// type, input that does not fit) and pass through CreateRun unchanged. A nil input is
	// that of a run that was accepted, and so was checked by what held then.
	Resolve(namespace string, target Target, agentID, taskType string, input []byte) (Task, error)
	// CheckMetadata returns a *violation.Error for metadata, a JSON object, which what Resolve
	// returns for the run reads and cannot follow.
	CheckMetadata(target Target, agentID, taskType string, metadata []byte) error
	// ConcurrencyKey returns what a run has in common with others of which one is to be
	// under way at a time; empty: nothing, and its creator may say. Else another key is refused.
	ConcurrencyKey(target Target, taskType string, input []byte) string
	// Defaults returns what holds for the runs of an agent that do not say.
	Defaults(namespace string, target Target, agentID string) RunDefaults
}
