package engine

import (
	"slices"
	"time"
	"unicode/utf8"

	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const (
	maxKeyBytes       = 255
	maxRequestIDBytes = 64
	maxLabelBytes     = 200
	maxTextBytes      = 1000
	maxMetadataBytes  = 64 << 10
)

// CreateRequest describes a run to accept.
type CreateRequest struct {
	// RunID is the caller's own UUID for the run, or empty: then the id is made
	// from IdempotencyKey, else from RequestID, else anew.
	RunID          string `json:"run_id,omitempty"`
	IdempotencyKey string `json:"idempotency_key,omitempty"`
	RequestID      string `json:"request_id,omitempty"`
	Target         Target `json:"target"`
	AgentID        string `json:"agent_id,omitempty"`
	TaskType       string `json:"task_type"`
	Description    string `json:"description,omitempty"`
	// Input and Metadata are JSON objects, checked when they are accepted; empty counts as {} and as none.
	Input    []byte `json:"input,omitempty"`
	Metadata []byte `json:"metadata,omitempty"`
	// Deadline, from acceptance, is when the run is cancelled if it has not ended; 0: never.
	Deadline time.Duration `json:"deadline_ns,omitempty"`
	// RunTimeout is the longest one attempt may take; 0: Config.RunTimeout.
	RunTimeout time.Duration `json:"run_timeout_ns,omitempty"`
	// Delay, from acceptance, is when the run may begin; 0: at once. RunAt is the
	// same as a time; only one of them may be set.
	Delay time.Duration `json:"delay_ns,omitempty"`
	RunAt time.Time     `json:"run_at,omitzero"`
	// Options are what is asked for beside the work; ParentID and RetryOf are the engine's to set.
	Options Options `json:"options"`
	// Wait makes CreateRun return when the run has ended.
	Wait bool `json:"wait,omitempty"`
}

// complete fills in what the request leaves out and checks the rest.
func (e *Engine) complete(r CreateRequest) (CreateRequest, error) {
	if len(r.Input) == 0 {
		r.Input = []byte("{}")
	}
	if len(r.Input) > e.cfg.MaxInputBytes {
		return r, &violation.TooLargeError{Field: "input", Size: len(r.Input), Limit: e.cfg.MaxInputBytes}
	}
	if len(r.Metadata) > maxMetadataBytes {
		return r, &violation.TooLargeError{Field: "metadata", Size: len(r.Metadata), Limit: maxMetadataBytes}
	}
	checks := []error{jsonvalue.ValidateObject("input", r.Input)}
	if len(r.Metadata) > 0 {
		checks = append(checks, jsonvalue.ValidateObject("metadata", r.Metadata))
	}
	if r.TaskType == "" {
		checks = append(checks, violation.New("task_type", "is required"))
	}
	if r.Target != TaskTarget && r.AgentID == "" {
		checks = append(checks, violation.New("agent_id", "is required"))
	}
	if r.Deadline < 0 {
		checks = append(checks, violation.New("deadline", "must be positive"))
	}
	if r.RunTimeout < 0 {
		checks = append(checks, violation.New("run_timeout", "must be positive"))
	}
	checks = append(checks, r.checkTimes(), r.Options.check())
	for _, text := range []struct {
		field, value string
		limit        int
	}{
		{"idempotency_key", r.IdempotencyKey, maxKeyBytes},
		{"request_id", r.RequestID, maxRequestIDBytes},
		{"agent_id", r.AgentID, maxLabelBytes},
		{"task_type", r.TaskType, maxLabelBytes},
		{"description", r.Description, maxTextBytes},
	} {
		checks = append(checks, checkText(text.field, text.value, text.limit))
	}
	return r, violation.Join(checks...)
}

// checkTimes checks when the run may begin.
func (r *CreateRequest) checkTimes() error {
	switch {
	case r.Delay < 0:
		return violation.New("delay", "must be positive")
	case r.Delay > 0 && !r.RunAt.IsZero():
		return violation.New("run_at", "must not be set together with delay")
	}
	return nil
}

// delay is how long after now the run may begin.
func (r *CreateRequest) delay(now time.Time) time.Duration {
	if !r.RunAt.IsZero() {
		return max(0, r.RunAt.Sub(now))
	}
	return r.Delay
}

// maxPriority bounds Options.Priority both ways, maxVisibilities Options.Visibility.
const (
	maxPriority     = 1000
	maxVisibilities = 100
)

func (o *Options) check() error {
	checks := []error{o.Concurrency.check(), o.Retry.check("retry")}
	if o.Priority < -maxPriority || o.Priority > maxPriority {
		checks = append(checks, violation.New("priority", "must be -%d to %d", maxPriority, maxPriority))
	}
	if o.QueueTimeout < 0 {
		checks = append(checks, violation.New("queue_timeout", "must be positive"))
	}
	if o.StepTimeout < 0 {
		checks = append(checks, violation.New("step_timeout", "must be positive"))
	}
	if len(o.Visibility) > maxVisibilities {
		checks = append(checks, violation.New("event_visibility", "must name at most %d types", maxVisibilities))
	}
	for eventType, v := range o.Visibility {
		if eventType == "" {
			checks = append(checks, violation.New("event_visibility", "must name a type"))
		}
		checks = append(checks, checkText("event_visibility", eventType, maxEventTypeBytes))
		if v != Internal && v != Debug && v != User {
			checks = append(checks, violation.New("event_visibility", "of %q must be internal, debug or user", eventType))
		}
	}
	return violation.Join(checks...)
}

func (o *Options) isZero() bool {
	return o.Priority == 0 && o.Concurrency == nil && o.QueueTimeout == 0 && o.StepTimeout == 0 && o.Retry == nil &&
		len(o.Visibility) == 0 && o.ParentID == "" && o.RetryOf == "" && o.ScheduleID == ""
}

func checkText(field, value string, limit int) error {
	if len(value) > limit {
		return violation.New(field, "must be at most %d bytes, is %d", limit, len(value))
	}
	if !utf8.ValidString(value) {
		return violation.New(field, "must be UTF-8")
	}
	return nil
}

// selects reports whether the request wants a run; retried says that RetryRun did it again.
func (r *ListRequest) selects(run *Run, retried bool) bool {
	options := run.options()
	key := ""
	if options.Concurrency != nil {
		key = options.Concurrency.Key
	}
	return (len(r.States) == 0 || slices.Contains(r.States, run.State)) &&
		(r.AgentID == "" || run.AgentID == r.AgentID) &&
		(r.TaskType == "" || run.TaskType == r.TaskType) &&
		(r.ParentID == "" || options.ParentID == r.ParentID) &&
		(r.ScheduleID == "" || options.ScheduleID == r.ScheduleID) &&
		(r.ConcurrencyKey == "" || key == r.ConcurrencyKey) &&
		(!r.DeadLetters || (!retried && (run.State == Failed || run.State == TimedOut)))
}

// ListRequest selects runs of a namespace. Empty fields select all.
type ListRequest struct {
	States         []State
	AgentID        string
	TaskType       string
	ParentID       string
	ScheduleID     string
	ConcurrencyKey string
	// DeadLetters selects runs that ended as failed or timed out and were not retried by RetryRun.
	DeadLetters bool
	// PageSize is the most runs to return; at least 1.
	PageSize int
	// PageToken is what the page before returned, or empty.
	PageToken string
}
