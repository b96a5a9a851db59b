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
	// AgentTarget runs the registered agent, or that of a worker.
	AgentTarget Target = "agent"
	// WorkerTarget runs the agent of a worker, which need not be known yet.
	WorkerTarget Target = "worker"
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
	// Error says why the run did not succeed, or, while it waits for its next attempt,
	// why its latest one did not; else it is nil.
	Error *RunError
	// CreatedAt, StartedAt (of the latest attempt) and EndedAt are zero until it happened.
	CreatedAt time.Time
	StartedAt time.Time
	EndedAt   time.Time
	// Deadline is when the run is cancelled if it has not ended; zero: never.
	Deadline time.Time
	// RunTimeout is the longest one attempt may take; 0 until a worker's agent says.
	RunTimeout time.Duration
	// Options are what was asked for beside the work; nil when nothing was. They do not change.
	Options *Options
	// NotBefore is when a queued run may begin; zero: it may.
	NotBefore time.Time
	// Wait is what a waiting run waits for, else nil.
	Wait *Wait
	// Lease is the sequence of the record with which the attempt under way, or the
	// latest, began; 0 before. It is the token of whoever executes the attempt.
	Lease uint64
	// Worker is who has the lease; nil when the runtime itself executes, or nobody.
	Worker *Worker
	// Sequence is that of the run's latest record in the journal.
	Sequence uint64
	// TraceID is that of the run's trace, empty when it is in none; TraceURL is where the
	// trace is shown, or empty.
	TraceID, TraceURL string

	// begun counts how often the run began, as the same attempt or the next one.
	begun int
	// continues says that the run goes on with the attempt it is at.
	continues bool
	// cause says why a queued run is queued.
	cause cause
	// answered is the interrupt whose answer queued the run again.
	answered string
	// named is what isNamed says of the request.
	named bool
}

// Options are what a run's creator asks for beside the work.
type Options struct {
	Priority     int           `json:"priority,omitempty"`
	Concurrency  *Concurrency  `json:"concurrency,omitempty"`
	QueueTimeout time.Duration `json:"queue_timeout_ns,omitempty"`
	StepTimeout  time.Duration `json:"step_timeout_ns,omitempty"`
	// Retry is how the run is retried; nil: as its agent says, else by RetryPolicy's defaults.
	Retry *RetryPolicy `json:"retry,omitempty"`
	// Visibility is that of the run's own events, and of those that a task of the
	// runtime emits, where it is not the type's default.
	Visibility map[string]Visibility `json:"visibility,omitempty"`
	// ParentID is the run that created this one as its sub-run.
	ParentID string `json:"parent_id,omitempty"`
	// RetryOf is the run that this one does again.
	RetryOf string `json:"retry_of,omitempty"`
	// ScheduleID is the schedule that created the run.
	ScheduleID string `json:"schedule_id,omitempty"`
}

// options returns the run's options, empty ones if it has none.
func (r *Run) options() Options {
	if r.Options == nil {
		return Options{}
	}
	return *r.Options
}

// Wait is what a waiting run waits for: an answer to its interrupt, or the ends of its sub-runs.
type Wait struct {
	InterruptID string `json:"interrupt_id,omitempty"`
	// Payload is the question, a JSON text; it stands in the record with which the run began to wait.
	Payload []byte `json:"-"`
	// Runs are the ids of the sub-runs.
	Runs []string `json:"runs,omitempty"`
}

// Worker is who executes a run.
type Worker struct {
	ID string `json:"id"`
	// Name is for people.
	Name string        `json:"name"`
	TTL  time.Duration `json:"ttl_ns"`
}

// cause says why a run is queued.
type cause string

const (
	causeCreated   cause = ""
	causeRetry     cause = "retry"
	causeAnswer    cause = "answer"
	causeSubRuns   cause = "sub_runs"
	causeGivenBack cause = "given_back"
	causeLost      cause = "lost"
)

// begin makes the run's next attempt, or what is left of this one, the one under way.
func (r *Run) begin(now time.Time, worker *Worker) {
	r.State = Running
	if !r.continues {
		r.Attempt++
	}
	r.begun++
	r.continues = false
	r.StartedAt = now
	r.NotBefore = time.Time{}
	r.Error = nil
	r.Worker = worker
	r.Lease = 0 // the sequence of the record that says so
	r.cause, r.answered = "", ""
}

// asks reports whether the run waits for an answer, and so not for its sub-runs.
func (r *Run) asks() bool { return r.State == Waiting && r.Wait.InterruptID != "" }

// isUnderWay reports whether somebody executes the run, or its sub-runs.
func (r *Run) isUnderWay() bool { return r.State == Running || r.State == Waiting && !r.asks() }

// queue makes the run wait for its next attempt.
func (r *Run) queue(why cause) {
	r.State = Queued
	r.Wait = nil
	r.Worker = nil
	r.cause = why
}

// suspect reports whether the run may be what its workers died of: the last of
// several attempts is left to it, and the one before was lost. It is begun where
// no other such run is, so that a run which ends its process takes none along
// that merely was in the same ones.
func (r *Run) suspect() bool {
	return r.cause == causeLost && r.Attempt > 0 && r.Attempt+1 >= r.MaxAttempts
}

// giveBack queues the run to go on with the attempt under way.
func (r *Run) giveBack() {
	r.queue(causeGivenBack)
	r.continues = true
}

// end makes the run one that has ended.
func (r *Run) end(state State, why *RunError, now time.Time) {
	r.State = state
	r.Error = why
	r.EndedAt = now
	r.Wait = nil
	r.NotBefore = time.Time{}
}

// RunError says why a run did not succeed, or why its latest attempt did not.
type RunError struct {
	Reason  Reason `json:"reason"`
	Message string `json:"message"`
	// Retryable is true when another attempt could succeed.
	Retryable bool `json:"retryable,omitempty"`
	// Type is the agent's own name for the failure, or empty.
	Type string `json:"type,omitempty"`
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
	ReasonQueueTimedOut     Reason = "QUEUE_TIMED_OUT"
	// ReasonLeaseLost is why an attempt ended whose worker was not heard of any more.
	ReasonLeaseLost Reason = "LEASE_LOST"
	// ReasonBudgetExceeded is why a run ended that took what its budget allows.
	ReasonBudgetExceeded Reason = "BUDGET_EXCEEDED"
)
