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

// traceLink is where the trace of a run is found.
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
	ctx, spending, stop, err := begin(ctx, call, Budget{})
	if err != nil {
		return nil, err
	}
	defer stop()
	response, err := ask(ctx, t.provider, model.Request{
		Instructions: "Answer the question. Be clear and correct, and no longer than it takes.",
		Messages:     []model.Message{{Role: model.User, Text: input.Query}},
		Sample: func(notice string) (string, error) {
			return "A sample stands in for an answer to: " + input.Query + "\n\n" + notice, nil
		},
	})
	if err != nil {
		return nil, loopFailure(err)
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
	output := map[string]any{
		"answer": response.Text, "task_type": call.TaskType, "trace": traceLink{link.TraceID, link.Project, link.URL},
	}
	spending.describe(output)
	if len(notices) > 0 {
		output["notice"] = strings.Join(notices, " ")
	}
	return encode(output)
}
