package engine

import (
	"time"
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
	// Input and Metadata are JSON objects, checked by CreateRun; empty counts as {} and as none.
	Input    []byte
	Metadata []byte
	// Deadline, from acceptance, is when the run is cancelled if it has not ended; 0: never.
	Deadline time.Duration
	// RunTimeout is the longest one attempt may take; 0: Config.RunTimeout.
	RunTimeout time.Duration
	// Wait makes CreateRun return when the run has ended.
	Wait bool
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
