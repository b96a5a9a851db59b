package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
)

// tracedTask answers a question, and says where the trace of that is found.
type tracedTask struct{ provider model.Provider }

// tracedOutput is what traced_task returns.
type tracedOutput struct {
	Answer   string      `json:"answer"`
	TaskType string      `json:"task_type"`
	Model    string      `json:"model"`
	Offline  bool        `json:"offline"`
	Usage    model.Usage `json:"usage"`
	Trace    traceLink   `json:"trace"`
	// Notice says what was not done, for people.
	Notice string `json:"notice,omitempty"`
}

type traceLink struct {
	TraceID string `json:"trace_id"`
	Project string `json:"project"`
	URL     string `json:"url,omitempty"`
}

const (
	notSentNotice = "No trace collector is configured, so the runtime sent no trace. Set LANGSMITH_ENDPOINT and " +
		"LANGSMITH_API_KEY for LangSmith, or OTEL_EXPORTER_OTLP_ENDPOINT for another collector, and start the runtime again."
	notSampledNotice = `This run was not traced. With metadata {"trace": true} a run is, whatever the sampler says.`
)

// run implements engine.Task.
func (t *tracedTask) run(ctx context.Context, call engine.Call) ([]byte, error) {
	var input struct {
		Query string `json:"query"`
	}
	if err := json.Unmarshal(call.Input, &input); err != nil {
		return nil, fmt.Errorf("read input: %w", err)
	}
	response, err := t.provider.Complete(ctx, model.Request{
		Instructions: "Answer the question. Be clear and correct, and no longer than it takes.",
		Messages:     []model.Message{{Role: model.User, Text: input.Query}},
		Sample: func(notice string) (string, error) {
			return "A sample stands in for an answer to: " + input.Query + "\n\n" + notice, nil
		},
	})
	if err != nil {
		return nil, modelFailure(err)
	}
	link := span.LinkOf(ctx)
	var notices []string
	if response.Offline {
		notices = append(notices, model.OfflineNotice)
	}
	switch {
	case !link.Exports:
		notices = append(notices, notSentNotice)
	case link.TraceID == "":
		notices = append(notices, notSampledNotice)
	}
	return encode(tracedOutput{
		Answer: response.Text, TaskType: call.TaskType, Model: response.Model, Offline: response.Offline,
		Usage: response.Usage, Trace: traceLink{link.TraceID, link.Project, link.URL}, Notice: strings.Join(notices, " "),
	})
}
