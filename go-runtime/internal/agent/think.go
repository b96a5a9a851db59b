package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
)

// thinker does tasks of an agent: its model is given the task as data, and answers with an
// object or, where no schema asks for one, in words.
type thinker struct {
	loop

	// sample stands in for the answer to an input where there is no model.
	sample func(input []byte, notice string) (string, error)
}

// question is the user message: the task as data, apart from the instructions.
type question struct {
	TaskType string          `json:"task_type"`
	Input    json.RawMessage `json:"input"`
}

// run implements engine.Task.
func (t *thinker) run(ctx context.Context, call engine.Call) ([]byte, error) {
	asked, err := encode(question{TaskType: call.TaskType, Input: call.Input})
	if err != nil {
		return nil, fmt.Errorf("write question: %w", err)
	}
	var given struct {
		Files []madeFile `json:"files"`
	}
	if err := json.Unmarshal(call.Input, &given); err != nil {
		// The task has other files than those of a project.
		given.Files = nil
	}
	made, err := t.loop.run(ctx, call, assignment{
		files:    given.Files,
		messages: []model.Message{{Role: model.User, Text: string(asked)}},
		sample:   func(notice string) (string, error) { return t.sample(call.Input, notice) },
	})
	if err != nil {
		return nil, err
	}
	output := map[string]any{"answer": made.text}
	if t.answer != nil {
		if output, err = made.object(); err != nil {
			return nil, err
		}
	}
	output["agent_id"], output["task_type"] = call.AgentID, call.TaskType
	made.ledger.describe(output)
	return encode(output)
}

// object is an answer that is one, with what was planned and checked.
func (r result) object() (map[string]any, error) {
	// Decoded rather than copied: a name given twice is then given once.
	var output map[string]any
	if err := jsonvalue.Decode([]byte(r.text), &output); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if r.plan != "" {
		output["plan"] = r.plan
	}
	if r.files != nil {
		output["files"], output["checks"] = r.files, r.checks
	}
	return output, nil
}

// modelFailure passes the end of the context on, and makes every other failure
// MODEL_FAILED, to be tried again when the provider asks for it.
func modelFailure(err error) error {
	var failure *model.Error
	if !errors.As(err, &failure) {
		return err
	}
	return &engine.TaskError{
		Reason:     engine.ReasonModelFailed,
		Message:    failure.Error(),
		Retryable:  failure.Retryable(),
		RetryAfter: min(failure.RetryAfter, longestRetryAfter),
		Cause:      failure.Cause,
	}
}
