package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/tool"
	"github.com/djangobridge/djangobridge/go-runtime/internal/workspace"
)

// The types of events that tell of tools, as those of agents in Python.
const (
	eventToolCall   = "tool.call"
	eventToolResult = "tool.result"
)

// toolbox is the tools of an agent.
type toolbox struct {
	set    *tool.Set
	runner *tool.Runner
	// build and workspace are set where the agent builds: what sub-runs make is put there.
	build     *builder
	workspace *workspace.Workspace
	// delegates are those tools that a sub-run does, by their names.
	delegates map[string]delegated
}

// delegated is a tool whose calls are sub-runs: an agent, or a Python function.
type delegated struct {
	request func(arguments []byte) (engine.CreateRequest, error)
	// result reads what a sub-run that succeeded came to.
	result func(output map[string]any) (tool.Result, error)
}

// use does what a model wants done, and tells of it. What the model can mend is a result
// that Failed.
func (b *toolbox) use(ctx context.Context, node *graph.Call, wanted model.ToolCall) (tool.Result, error) {
	done, err := spanTool(ctx, wanted.Name, wanted.ID, wanted.Arguments, func(ctx context.Context) (tool.Result, error) {
		return b.attempt(ctx, node, wanted)
	})
	if err != nil {
		return tool.Result{}, err
	}
	return done, tellResult(ctx, wanted, done)
}

func (b *toolbox) attempt(ctx context.Context, node *graph.Call, wanted model.ToolCall) (tool.Result, error) {
	t, arguments, refused, err := permit(b.set, node, wanted)
	switch {
	case err != nil:
		return tool.Result{}, err
	case refused != "":
		return refusal(refused), nil
	}
	return b.do(ctx, node, t, arguments)
}

// do does a call. A failure of the tool is told to the model, who may find another way;
// the end of the run, and what a node waits for, are errors.
func (b *toolbox) do(ctx context.Context, node *graph.Call, t tool.Tool, arguments []byte) (tool.Result, error) {
	if d, isDelegated := b.delegates[t.Name]; isDelegated {
		return b.delegate(ctx, node, d, arguments)
	}
	call := callOf(ctx)
	done, err := b.runner.Do(ctx, t, tool.Call{
		Namespace: call.Namespace, RunID: call.RunID, ID: call.RunID + "." + node.Task.ID, Arguments: arguments,
	})
	if failed, isTool := errors.AsType[*tool.Error](err); isTool {
		return refusal(failed.Error()), nil
	}
	return done, err
}

func (b *toolbox) delegate(ctx context.Context, node *graph.Call, d delegated, arguments []byte) (tool.Result, error) {
	request, err := d.request(arguments)
	if err != nil {
		return tool.Result{}, err
	}
	run, err := delegate(ctx, node, 0, request)
	if err != nil {
		return tool.Result{}, err
	}
	output, err := outputOf(run)
	if failure, failed := errors.AsType[*engine.TaskError](err); failed {
		return refusal(failure.Message), nil
	}
	if err != nil {
		return tool.Result{}, err
	}
	if b.build != nil {
		if err := b.adopt(ctx, run, output); err != nil {
			if refused, isRefusal := errors.AsType[refusalError](err); isRefusal {
				return refusal(string(refused)), nil
			}
			return tool.Result{}, err
		}
	}
	return d.result(output)
}

// adopt puts what a sub-run has made into the workspace, and says so in its output, which
// then has no contents of files.
func (b *toolbox) adopt(ctx context.Context, run engine.Run, output map[string]any) error {
	paths, err := b.build.adopt(ctx, b.workspace, run.Namespace, run.ID)
	if err == nil && len(paths) > 0 {
		output["files"] = paths
		output["files_note"] = "These files are in your project now: read_file shows them."
	}
	return err
}

// refusalError is what a model can mend.
type refusalError string

func (e refusalError) Error() string { return string(e) }

func refusal(text string) tool.Result { return tool.Result{Text: text, Failed: true} }

// tellCall emits that a model calls a tool.
func tellCall(ctx context.Context, wanted model.ToolCall) error {
	var arguments any = wanted.Arguments
	if json.Valid([]byte(wanted.Arguments)) {
		arguments = json.RawMessage(wanted.Arguments)
	}
	return emitJSON(ctx, eventToolCall, map[string]any{"id": wanted.ID, "name": wanted.Name, "arguments": arguments})
}

// tellResult emits what came of a call.
func tellResult(ctx context.Context, wanted model.ToolCall, done tool.Result) error {
	var result any = done.Text
	if len(done.Structured) > 0 {
		result = json.RawMessage(done.Structured)
	}
	return emitJSON(ctx, eventToolResult, map[string]any{
		"id": wanted.ID, "name": wanted.Name, "result": result, "failed": done.Failed,
	})
}

// emitJSON emits an event of the run that ctx is of.
func emitJSON(ctx context.Context, eventType string, about any) error {
	payload, err := encode(about)
	if err != nil {
		return fmt.Errorf("write %s: %w", eventType, err)
	}
	return callOf(ctx).Emit(ctx, engine.NewEvent{Type: eventType, Payload: payload})
}

// permit finds the tool of a call, and asks a person where it needs one's consent. refused says
// why the call cannot be done: it does not fit, or nobody allows it.
func permit(set *tool.Set, node *graph.Call, wanted model.ToolCall) (t tool.Tool, arguments []byte, refused string, err error) {
	if t, arguments, err = set.Prepare(wanted); err != nil {
		return t, nil, fmt.Sprint(err), nil
	}
	if !t.Approval {
		return t, arguments, "", nil
	}
	agreed, refused, err := approval(node, wanted, arguments)
	if err != nil || refused != "" || len(agreed) == 0 {
		return t, arguments, refused, err
	}
	wanted.Arguments = string(agreed)
	if t, arguments, err = set.Prepare(wanted); err != nil {
		return t, nil, fmt.Sprint(err), nil
	}
	return t, arguments, "", nil
}

// approval asks a person whether a call may be done. The answer is yes or no, or an object
// with `approved`, and `arguments` to use in the place of the model's, or a `reason` for the
// model. refused is what the model is told; agreed are other arguments, or empty.
func approval(node *graph.Call, wanted model.ToolCall, arguments []byte) (agreed []byte, refused string, err error) {
	answer, err := node.Interrupt(map[string]any{
		"type": "tool_approval", "tool": wanted.Name, "arguments": json.RawMessage(arguments),
		"question": "May the tool " + wanted.Name + " be called with these arguments?", "choices": []string{"yes", "no"},
	})
	if err != nil {
		return nil, "", err
	}
	const no = "A person did not allow this call."
	switch said := answer.(type) {
	case bool:
		if said {
			return nil, "", nil
		}
	case string:
		switch strings.ToLower(strings.TrimSpace(said)) {
		case "yes", "y", "approve", "approved", "ok", "true":
			return nil, "", nil
		}
	case map[string]any:
		if approved, _ := said["approved"].(bool); approved {
			if changed, given := said["arguments"].(map[string]any); given {
				agreed, err = encode(changed)
			}
			return agreed, "", err
		}
		if reason, _ := said["reason"].(string); reason != "" {
			return nil, no + " The reason: " + reason, nil
		}
	}
	return nil, no, nil
}
