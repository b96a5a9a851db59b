package engine

import (
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
	RunID          string
	IdempotencyKey string
	RequestID      string
	Target         Target
	AgentID        string
	TaskType       string
	Description    string
	// Input and Metadata are JSON objects, checked when they are accepted; empty counts as {} and as none.
	Input    []byte
	Metadata []byte
	// Deadline, from acceptance, is when the run is cancelled if it has not ended; 0: never.
	Deadline time.Duration
	// RunTimeout is the longest one attempt may take; 0: Config.RunTimeout.
	RunTimeout time.Duration
	// Wait makes CreateRun return when the run has ended.
	Wait bool
}

// complete fills in what the request leaves out and checks the rest.
func (e *Engine) complete(r CreateRequest) (CreateRequest, error) {
	if r.Target == "" {
		r.Target = TaskTarget
	}
	if len(r.Input) == 0 {
		r.Input = []byte("{}")
	}
	if r.RunTimeout == 0 {
		r.RunTimeout = e.cfg.RunTimeout
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
	if r.Target == AgentTarget && r.AgentID == "" {
		checks = append(checks, violation.New("agent_id", "is required"))
	}
	if r.Deadline < 0 {
		checks = append(checks, violation.New("deadline", "must be positive"))
	}
	if r.RunTimeout < 0 {
		checks = append(checks, violation.New("run_timeout", "must be positive"))
	}
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

func checkText(field, value string, limit int) error {
	if len(value) > limit {
		return violation.New(field, "must be at most %d bytes, is %d", limit, len(value))
	}
	if !utf8.ValidString(value) {
		return violation.New(field, "must be UTF-8")
	}
	return nil
}

// ListRequest selects runs of a namespace. Empty fields select all.
type ListRequest struct {
	States   []State
	AgentID  string
	TaskType string
	// PageSize is the most runs to return; at least 1.
	PageSize int
	// PageToken is what the page before returned, or empty.
	PageToken string
}
