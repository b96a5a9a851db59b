package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"go.opentelemetry.io/otel/propagation"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/tool"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const (
	// runScheme begins the URI of a run.
	runScheme = "run://"
	// runIDKey is where clients find the id of the run, in the metadata of a result.
	runIDKey = "agentruntime/run_id"
	// cancelTimeout bounds the cancellation of a run whose client has gone.
	cancelTimeout = 10 * time.Second
	// anyTask is the task type of an agent that takes any, where the client names none.
	anyTask = "agent.run"
	// maxProgressBytes is how much of an event is told in a notification.
	maxProgressBytes = 1 << 10
)

// anyTaskSchema is the input of an agent that takes any task.
const anyTaskSchema = `{
	"type": "object", "required": ["input"], "additionalProperties": false,
	"properties": {
		"task_type": {"type": "string", "description": "What the agent shall do; agent.run where it is left out."},
		"input": {
			"type": "object",
			"description": "The input of the task; of agent.run: {\"messages\": [{\"role\": \"user\", \"content\": \"…\"}]}."
		}
	}
}`

// calls answers one HTTP request.
type calls struct {
	*Handler

	caller Caller
	// request ends with the HTTP request. Of clients that keep to older protocols the
	// SDK does not pass that on: without sessions their answers could never be fetched.
	request context.Context //nolint:containedctx // that of this one request
}

// server is the runtime as the caller sees it.
func (c *calls) server() *sdk.Server {
	server := sdk.NewServer(&sdk.Implementation{Name: "agent-runtime", Title: "Agents of DjangoBridge", Version: c.cfg.Version},
		&sdk.ServerOptions{
			Instructions: "Each tool is an agent, and its call a run of it. The resource run://ID tells how a run stands.",
			Capabilities: &sdk.ServerCapabilities{Tools: &sdk.ToolCapabilities{}, Resources: &sdk.ResourceCapabilities{}},
		})
	taken := map[string]bool{}
	for _, agent := range c.cfg.Agents(c.caller.Namespace) {
		for _, offered := range offers(agent) {
			offered.described.Name = freeName(offered.described.Name, offered.agentID+"\x00"+offered.taskType, taken)
			server.AddTool(offered.described, func(ctx context.Context, request *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
				return c.call(ctx, request, offered)
			})
		}
	}
	server.AddResourceTemplate(&sdk.ResourceTemplate{
		Name: "run", URITemplate: runScheme + "{run_id}", MIMEType: "application/json",
		Description: "How a run stands: its state, and its output or its error once it has ended.",
	}, c.readRun)
	return server
}

// offer is a tool, and what its call runs.
type offer struct {
	described *sdk.Tool
	agentID   string
	// taskType is empty where the arguments name it.
	taskType string
}

// offers are the tools that an agent is: one for each task it takes.
func offers(agent Agent) []offer {
	if len(agent.TaskTypes) == 0 {
		described := &sdk.Tool{Name: agent.ID, Description: agent.Description, InputSchema: json.RawMessage(anyTaskSchema)}
		return []offer{{described: described, agentID: agent.ID}}
	}
	var all []offer
	for _, task := range agent.TaskTypes {
		name := agent.ID
		if len(agent.TaskTypes) > 1 {
			name += "__" + task.Name
		}
		all = append(all, offer{
			described: &sdk.Tool{
				Name: name, InputSchema: json.RawMessage(task.InputSchema),
				Description: strings.TrimSpace(task.Description + "\n\n" + agent.Description),
			},
			agentID: agent.ID, taskType: task.Name,
		})
	}
	return all
}

// freeName is a name that clients and models' providers take and that no other tool has.
func freeName(wanted, unique string, taken map[string]bool) string {
	name := unfitRune.ReplaceAllString(wanted, "_")
	if name == "" || len(name) > tool.MaxNameBytes || taken[name] {
		name = hashed(name, unique)
	}
	taken[name] = true
	return name
}

// call makes a run and waits for it.
func (c *calls) call(ctx context.Context, request *sdk.CallToolRequest, of offer) (*sdk.CallToolResult, error) {
	if c.caller.Refusal != "" {
		return failed("", c.caller.Refusal), nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.request, func() { cancel(context.Canceled) })()
	defer context.AfterFunc(c.running, func() { cancel(errDraining) })()
	ctx = c.cfg.Propagator.Extract(ctx, metaCarrier(request.Params.Meta))
	wanted, err := requestOf(request, of)
	if err != nil {
		return failed("", err.Error()), nil
	}
	run, _, err := c.cfg.Runs.CreateRun(ctx, c.caller.Namespace, wanted)
	switch {
	case err != nil && ctx.Err() == nil:
		return failed("", c.cfg.Explain(err)), nil
	case err != nil:
		return c.ended(ctx, wanted.RunID, err), nil
	}
	progress := c.progressOf(ctx, request)
	err = c.cfg.Runs.WatchRun(ctx, c.caller.Namespace, run.ID, 0, engine.Internal, func(events []engine.Event, _ uint64) error {
		for _, ev := range events {
			progress(ev)
			if ev.Run != nil && ev.Run.Wait != nil && ev.Run.Wait.InterruptID != "" {
				return errAsks
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, errAsks) {
		return c.ended(ctx, run.ID, err), nil
	}
	reached, err := c.cfg.Runs.GetRun(ctx, c.caller.Namespace, run.ID)
	if err != nil {
		return c.ended(ctx, run.ID, err), nil
	}
	return resultOfRun(reached), nil
}

// errAsks ends the wait for a run that waits itself, for an answer.
var errAsks = errors.New("the run waits for an answer")

// requestOf is the run that a call asks for. A client that repeats its idempotency
// key joins the run of the call before.
func requestOf(request *sdk.CallToolRequest, of offer) (engine.CreateRequest, error) {
	wanted := engine.CreateRequest{
		Target: engine.AgentTarget, AgentID: of.agentID, TaskType: of.taskType, Input: request.Params.Arguments,
	}
	if key, given := request.Params.Meta[idempotencyKey].(string); given && key != "" {
		wanted.IdempotencyKey = key
	} else {
		id, err := uuid.NewV7()
		if err != nil {
			return wanted, fmt.Errorf("name the run: %w", err)
		}
		wanted.RunID = id.String()
	}
	if of.taskType != "" {
		return wanted, nil
	}
	var arguments struct {
		TaskType string          `json:"task_type"`
		Input    json.RawMessage `json:"input"`
	}
	if err := json.Unmarshal(request.Params.Arguments, &arguments); err != nil {
		return wanted, violation.New("arguments", "must be an object with input, and task_type where it is not agent.run")
	}
	wanted.TaskType, wanted.Input = arguments.TaskType, arguments.Input
	if wanted.TaskType == "" {
		wanted.TaskType = anyTask
	}
	return wanted, nil
}

// ended is the result of a call whose run did not come to its end while the client
// waited. A run whose client gave up is cancelled; one that the runtime's own stop
// interrupts goes on.
func (c *calls) ended(ctx context.Context, runID string, err error) *sdk.CallToolResult {
	if ctx.Err() == nil {
		return failed(runID, c.cfg.Explain(err))
	}
	if errors.Is(context.Cause(ctx), errDraining) {
		return failed(runID, "the runtime is stopping; the run goes on when it runs again")
	}
	if runID != "" {
		cancelling, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
		defer stop()
		if _, err := c.cfg.Runs.CancelRun(cancelling, c.caller.Namespace, runID, "the MCP client cancelled the call"); err != nil {
			c.log.DebugContext(ctx, "run of a cancelled call not cancelled", "run_id", runID, "err", err)
		}
	}
	return failed(runID, "the call was cancelled")
}

// progressOf returns what tells the client how the run stands, and of the events that
// its agent meant for users, if the client asked for that.
func (c *calls) progressOf(ctx context.Context, request *sdk.CallToolRequest) func(engine.Event) {
	token := request.Params.GetProgressToken()
	if token == nil {
		return func(engine.Event) {}
	}
	told := 0.0
	return func(ev engine.Event) {
		if ev.Run == nil && ev.Visibility != engine.User {
			return
		}
		told++
		message := ev.Type
		if ev.Run == nil && len(ev.Payload) > 0 {
			message += " " + violation.Clip(string(ev.Payload), maxProgressBytes)
		}
		// A client that went away ends the request.
		_ = request.Session.NotifyProgress(ctx, &sdk.ProgressNotificationParams{ProgressToken: token, Progress: told, Message: message})
	}
}

// resultOfRun is what a client is told of a run that has ended, or that asks.
func resultOfRun(run engine.Run) *sdk.CallToolResult {
	switch {
	case run.State == engine.Succeeded:
		return &sdk.CallToolResult{
			Meta: sdk.Meta{runIDKey: run.ID}, Content: []sdk.Content{&sdk.TextContent{Text: string(run.Output)}},
			StructuredContent: json.RawMessage(run.Output),
		}
	case !run.State.Ended() && run.Wait != nil:
		return failed(run.ID, fmt.Sprintf("the run waits for an answer, which people give in the application, to: %s", run.Wait.Payload))
	case run.Error != nil:
		return failed(run.ID, fmt.Sprintf("the run %s: %s (%s)", run.State, run.Error.Message, run.Error.Reason))
	default:
		return failed(run.ID, fmt.Sprintf("the run %s", run.State))
	}
}

func failed(runID, why string) *sdk.CallToolResult {
	result := &sdk.CallToolResult{IsError: true}
	if runID != "" {
		why = fmt.Sprintf("%s [%s%s]", why, runScheme, runID)
		result.Meta = sdk.Meta{runIDKey: runID}
	}
	result.Content = []sdk.Content{&sdk.TextContent{Text: why}}
	return result
}

// runView is a run as the resource shows it.
type runView struct {
	RunID     string          `json:"run_id"`
	State     engine.State    `json:"state"`
	AgentID   string          `json:"agent_id"`
	TaskType  string          `json:"task_type"`
	Attempt   int             `json:"attempt"`
	CreatedAt time.Time       `json:"created_at"`
	EndedAt   time.Time       `json:"ended_at,omitzero"`
	Output    json.RawMessage `json:"output,omitempty"`
	Question  json.RawMessage `json:"question,omitempty"`
	Error     string          `json:"error,omitempty"`
	Reason    engine.Reason   `json:"reason,omitempty"`
}

func (c *calls) readRun(ctx context.Context, request *sdk.ReadResourceRequest) (*sdk.ReadResourceResult, error) {
	uri := request.Params.URI
	run, err := c.cfg.Runs.GetRun(ctx, c.caller.Namespace, strings.TrimPrefix(uri, runScheme))
	if _, unknown := errors.AsType[*engine.RunNotFoundError](err); unknown {
		return nil, sdk.ResourceNotFoundError(uri)
	}
	if err != nil {
		return nil, &jsonrpc.Error{Code: jsonrpc.CodeInternalError, Message: c.cfg.Explain(err)}
	}
	view := runView{
		RunID: run.ID, State: run.State, AgentID: run.AgentID, TaskType: run.TaskType, Attempt: run.Attempt,
		CreatedAt: run.CreatedAt, EndedAt: run.EndedAt, Output: run.Output,
	}
	if run.Error != nil {
		view.Error, view.Reason = run.Error.Message, run.Error.Reason
	}
	if run.Wait != nil {
		view.Question = run.Wait.Payload
	}
	text, err := json.Marshal(view)
	if err != nil {
		return nil, fmt.Errorf("write run %s: %w", run.ID, err)
	}
	return &sdk.ReadResourceResult{Contents: []*sdk.ResourceContents{{URI: uri, MIMEType: "application/json", Text: string(text)}}}, nil
}

// metaCarrier is the metadata of a call as a carrier of trace context.
func metaCarrier(meta sdk.Meta) propagation.MapCarrier {
	carrier := propagation.MapCarrier{}
	for name, value := range meta {
		if text, is := value.(string); is {
			carrier[name] = text
		}
	}
	return carrier
}

var unfitRune = regexp.MustCompile(`[^A-Za-z0-9_-]`)
