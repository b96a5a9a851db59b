package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonschema"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// thinker does one task type of one agent: it asks the model, checks the answer,
// and lets the model repair it once.
type thinker struct {
	provider     model.Provider
	instructions string
	answer       *jsonschema.Schema
	sample       *sample
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
	request := model.Request{
		Instructions: t.instructions,
		Messages:     []model.Message{{Role: model.User, Text: string(asked)}},
		Schema:       &model.Schema{Name: call.TaskType, JSON: t.answer.Raw()},
		Sample: func(notice string) (string, error) {
			return t.sample.render(call.Input, notice)
		},
	}
	response, err := t.provider.Complete(ctx, request)
	if err != nil {
		return nil, modelFailure(err)
	}
	unfit := t.checkAnswer(response.Text)
	if unfit == nil {
		return result(call, response)
	}

	spent := response.Usage
	request.Messages = append(request.Messages,
		model.Message{Role: model.Assistant, Text: response.Text},
		model.Message{Role: model.User, Text: "Your answer does not fit: " + unfit.Error() +
			". Send the whole answer again, as one JSON object that fits."})
	response, err = t.provider.Complete(ctx, request)
	if err != nil {
		return nil, modelFailure(err)
	}
	if unfit := t.checkAnswer(response.Text); unfit != nil {
		return nil, &engine.TaskError{
			Reason: engine.ReasonModelFailed,
			Message: fmt.Sprintf("the answer of model %s does not fit its schema, nor does its repair (%d mistakes)",
				response.Model, len(unfit.Violations)),
			Retryable: true,
		}
	}
	response.Usage = response.Usage.Add(spent)
	return result(call, response)
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

// checkAnswer returns what does not fit in a model's answer, or nil.
func (t *thinker) checkAnswer(text string) *violation.Error {
	var unfit *violation.Error
	if err := t.answer.Check("answer", []byte(text)); err != nil {
		if !errors.As(err, &unfit) {
			return violation.New("answer", "cannot be checked")
		}
		return unfit
	}
	return checkFiles([]byte(text))
}

// result adds to a fitting answer who gave it, and what it took.
func result(call engine.Call, response model.Response) ([]byte, error) {
	// Decoded rather than copied: a name given twice is then given once.
	var output map[string]any
	decoder := json.NewDecoder(strings.NewReader(response.Text))
	decoder.UseNumber()
	if err := decoder.Decode(&output); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	output["agent_id"] = call.AgentID
	output["task_type"] = call.TaskType
	output["model"] = response.Model
	output["offline"] = response.Offline
	output["usage"] = response.Usage
	return encode(output)
}
