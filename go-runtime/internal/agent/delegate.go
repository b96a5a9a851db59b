package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
)

// functionPrefix begins the agent ids under which workers serve Python functions.
const functionPrefix = "function:"

// IsFunction reports whether what a worker serves under an agent's id is a function.
func IsFunction(agentID string) bool { return strings.HasPrefix(agentID, functionPrefix) }

// functionRequest is the sub-run that calls a Python function of a worker.
func functionRequest(name string, arguments []byte) (engine.CreateRequest, error) {
	input, err := encode(map[string]json.RawMessage{"params": arguments})
	return engine.CreateRequest{
		Target: engine.WorkerTarget, AgentID: functionPrefix + name, TaskType: conversationTask, Input: input,
	}, err
}

// messageRequest is the sub-run in which an agent answers one message.
func messageRequest(agentID, text string) (engine.CreateRequest, error) {
	input, err := encode(map[string]any{"messages": []wireMessage{{Role: "user", Content: text}}})
	return engine.CreateRequest{Target: engine.AgentTarget, AgentID: agentID, TaskType: conversationTask, Input: input}, err
}

// callOf is the call with the run that ctx is of, see begin.
func callOf(ctx context.Context) engine.Call { return ledgerOf(ctx).call }

// delegate has a sub-run do a part of a node's work, and returns it once it has ended;
// until then the error is that of graph.Call.Await. number tells the sub-runs of a task apart.
func delegate(ctx context.Context, node *graph.Call, number int, request engine.CreateRequest) (engine.Run, error) {
	spending := ledgerOf(ctx)
	call := spending.call
	if err := spending.left(); err != nil {
		return engine.Run{}, err
	}
	metadata, err := metadataBelow(call.Metadata, spending.remaining())
	if err != nil {
		return engine.Run{}, err
	}
	request.Metadata = metadata
	run, err := call.StartRun(ctx, fmt.Sprintf("%s.%d", node.Task.ID, number), request)
	if err != nil {
		return run, fmt.Errorf("run %s: %w", request.AgentID, err)
	}
	if !run.State.Ended() {
		return run, node.Await(run.ID)
	}
	return run, spending.ran(ctx, run)
}

// metadataBelow is the metadata of a sub-run: what the run's own says of tracing, and
// what is left of the budget.
func metadataBelow(above []byte, left Budget) ([]byte, error) {
	var members map[string]any
	if len(above) > 0 {
		if err := json.Unmarshal(above, &members); err != nil {
			return nil, fmt.Errorf("read metadata: %w", err)
		}
	}
	below := map[string]any{}
	for _, name := range []string{"trace", "project"} {
		if value, given := members[name]; given {
			below[name] = value
		}
	}
	if left != (Budget{}) {
		below["budget"] = left
	}
	if len(below) == 0 {
		return nil, nil
	}
	return encode(below)
}

// outputOf is what a sub-run came to, with its numbers as they are: of a conversation the
// final output, else all of its output. One that did not succeed is an error.
func outputOf(run engine.Run) (map[string]any, error) {
	if run.State != engine.Succeeded {
		return nil, subRunFailure(run)
	}
	var output map[string]any
	if err := jsonvalue.Decode(run.Output, &output); err != nil {
		return nil, fmt.Errorf("read output of run %s: %w", run.ID, err)
	}
	if final, isConversation := output["final_output"].(map[string]any); isConversation {
		return final, nil
	}
	return output, nil
}

// subRunFailure says why a sub-run did not succeed. It is not tried again: its own
// retries are over.
func subRunFailure(run engine.Run) error {
	message := "ended as " + string(run.State)
	reason := engine.ReasonAgentFailed
	if run.Error != nil {
		message, reason = run.Error.Message, run.Error.Reason
	}
	return &engine.TaskError{Reason: reason, Message: fmt.Sprintf("agent %s: %s", run.AgentID, message), Type: "SubRunFailed"}
}

// functionResult is the member of a function's output that has what it returned.
const functionResult = "result"

// agentRequest is the sub-run in which an agent answers a prompt, or does a task.
func agentRequest(
	ctx context.Context, state graph.State, agentID, taskType string,
	prompt func(context.Context, graph.State) (string, error),
	input func(context.Context, graph.State) (map[string]any, error),
) (engine.CreateRequest, error) {
	if taskType == "" {
		text, err := prompt(ctx, state)
		if err != nil {
			return engine.CreateRequest{}, fmt.Errorf("prompt: %w", err)
		}
		return messageRequest(agentID, text)
	}
	text, err := argumentsOf(ctx, state, input)
	return engine.CreateRequest{Target: engine.AgentTarget, AgentID: agentID, TaskType: taskType, Input: text}, err
}
