package engine

import (
	"context"

	"github.com/google/uuid"
)

// RetryRun does again what a run did that failed, timed out or was cancelled, as
// a new run with its payload and options. newID is the new run's id, or empty;
// with a requestID a repeat joins the same new run.
//
// Errors: *RunNotFoundError, *NotEndedError, those of CreateRun.
func (e *Engine) RetryRun(ctx context.Context, namespace, runID, newID, requestID string) (Run, error) {
	ent, err := e.find(namespace, runID)
	if err != nil {
		return Run{}, err
	}
	old, err := e.read(ctx, ent)
	if err != nil {
		return Run{}, err
	}
	if !old.State.Ended() || old.State == Succeeded {
		return Run{}, &NotEndedError{RunID: runID, State: old.State}
	}
	r := CreateRequest{
		RunID: newID, Target: old.Target, AgentID: old.AgentID, TaskType: old.TaskType,
		Description: old.Description, Input: old.Input, Metadata: old.Metadata,
		RunTimeout: old.RunTimeout, Options: old.options(),
	}
	if !old.Deadline.IsZero() {
		r.Deadline = old.Deadline.Sub(old.CreatedAt)
	}
	r.Options.ParentID, r.Options.RetryOf = "", old.ID
	if newID == "" && requestID != "" {
		r.RunID = uuid.NewSHA1(runIDSpace, []byte(namespace+"\x00retry\x00"+old.ID+"\x00"+requestID)).String()
	}
	run, _, err := e.CreateRun(ctx, namespace, r)
	return run, err
}
