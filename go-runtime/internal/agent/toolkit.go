package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonschema"
	"github.com/djangobridge/djangobridge/go-runtime/internal/tool"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Tooling is what the tools of agents and graphs are made with.
type Tooling struct {
	Runner *tool.Runner
	Web    *tool.Web
	MCP    MCPServers
	// Workshop is where agents build; nil: they answer with what they would build.
	Workshop Workshop
	// Store is the long-term store of a namespace; nil: there is none.
	Store func(namespace string) graph.Store
}

// MCPServers are those that the operator has configured.
type MCPServers interface {
	// Names are sorted.
	Names() []string
	// Tools are those that a server offers now and the operator allows.
	Tools(ctx context.Context, server string) ([]tool.Tool, error)
}

var unfitting = regexp.MustCompile(`[^A-Za-z0-9_-]`)

// toolkit is what an agent's tools come from. What MCP servers and other agents offer may
// change, and is asked for when a run begins.
type toolkit struct {
	registry *Registry
	// own are the tools that do not change, and set is of them alone.
	own       []tool.Tool
	set       *tool.Set
	delegates map[string]delegated
	mcp       []MCPTools
	agents    []string
}

// toolkitOf checks the tools of a definition; nil: it has none.
func (r *Registry) toolkitOf(d *Document) (*toolkit, error) {
	if len(d.Tools)+len(d.Agents) == 0 {
		return nil, nil
	}
	k := &toolkit{registry: r, delegates: map[string]delegated{}, agents: d.Agents}
	var wrong []error
	for i, source := range d.Tools {
		wrong = append(wrong, k.add(fmt.Sprintf("tools[%d]", i), source))
	}
	for i, id := range d.Agents {
		if !violation.IsName(id) {
			wrong = append(wrong, violation.New(fmt.Sprintf("agents[%d]", i), "%q is no agent's name", clip(id)))
		}
	}
	if err := violation.Join(wrong...); err != nil {
		return nil, err
	}
	var err error
	k.set, err = tool.NewSet(k.own...)
	return k, err
}

// add takes a source of tools.
func (k *toolkit) add(field string, source ToolSource) error {
	given := 0
	for _, there := range []bool{source.HTTP != nil, source.Function != nil, source.MCP != nil, source.Store != nil} {
		if there {
			given++
		}
	}
	if given != 1 {
		return violation.New(field, "must have one of http, function, mcp and store")
	}
	switch {
	case source.HTTP != nil:
		made, err := k.registry.tooling.Web.Tool(field+".http", *source.HTTP)
		k.own = append(k.own, made)
		return err
	case source.Function != nil:
		return k.addFunction(field+".function", source.Function)
	case source.Store != nil:
		return k.addStore(field+".store", source.Store)
	}
	if known := k.registry.tooling.MCP.Names(); !slices.Contains(known, source.MCP.Server) {
		return violation.New(field+".mcp.server", "there is no MCP server %q; there are: %s",
			clip(source.MCP.Server), strings.Join(known, ", "))
	}
	k.mcp = append(k.mcp, *source.MCP)
	return nil
}

func (k *toolkit) addFunction(field string, f *Function) error {
	if f.Name == "" {
		return violation.New(field+".name", "is required")
	}
	schema, err := jsonschema.Of(field+".parameters", f.Parameters)
	if err != nil {
		return err
	}
	t := tool.Tool{
		Name: toolName(f.Name), Description: f.Description, Approval: f.Approval, Call: isDelegated,
	}
	if schema != nil {
		t.Schema = schema.Raw()
	}
	k.own = append(k.own, t)
	k.delegates[t.Name] = delegated{
		request: func(arguments []byte) (engine.CreateRequest, error) { return functionRequest(f.Name, arguments) },
		result:  func(output map[string]any) (tool.Result, error) { return resultOf(output[functionResult]) },
	}
	return nil
}

func (k *toolkit) addStore(field string, s *StoreTools) error {
	store := k.registry.tooling.Store
	if store == nil {
		return violation.New(field, "cannot be used: this runtime has no store")
	}
	k.own = append(k.own, s.choose(store)...)
	return s.check(field)
}

// isDelegated is the Call of tools that sub-runs do.
func isDelegated(context.Context, tool.Call) (tool.Result, error) {
	return tool.Result{}, violation.New("tool", "is done by a sub-run")
}

// resultOf makes a value the result of a tool.
func resultOf(value any) (tool.Result, error) {
	text, err := encode(value)
	if err != nil {
		return tool.Result{}, err
	}
	if said, isText := value.(string); isText {
		return tool.Result{Text: said}, nil
	}
	return tool.Result{Text: string(text), Structured: text}, nil
}

// open returns the tools as they are now, for a run of a namespace.
func (k *toolkit) open(ctx context.Context, namespace string) (*toolbox, error) {
	tools := slices.Clone(k.own)
	box := &toolbox{runner: k.registry.tooling.Runner, delegates: map[string]delegated{}}
	maps.Copy(box.delegates, k.delegates)
	if len(k.mcp)+len(k.agents) == 0 {
		box.set = k.set
		return box, nil
	}
	for _, source := range k.mcp {
		offered, err := k.registry.tooling.MCP.Tools(ctx, source.Server)
		if err != nil {
			return nil, fmt.Errorf("tools of MCP server %s: %w", source.Server, err)
		}
		tools = append(tools, source.choose(offered)...)
	}
	for _, id := range k.agents {
		for _, t := range k.registry.agentTools(namespace, id) {
			tools = append(tools, t.Tool)
			box.delegates[t.Name] = t.delegated
		}
	}
	var err error
	box.set, err = tool.NewSet(tools...)
	return box, err
}

// choose returns those of a server's tools that an agent has.
func (m MCPTools) choose(offered []tool.Tool) []tool.Tool {
	var chosen []tool.Tool
	is := func(t tool.Tool, names []string) bool {
		return slices.Contains(names, t.Name) || slices.Contains(names, strings.TrimPrefix(t.Name, m.Server+"__"))
	}
	for _, t := range offered {
		if len(m.Tools) > 0 && !is(t, m.Tools) {
			continue
		}
		t.Approval = t.Approval || is(t, m.Approval)
		chosen = append(chosen, t)
	}
	return chosen
}

// agentTool is an agent, or one of its task types, as a tool.
type agentTool struct {
	tool.Tool
	delegated
}

// messageSchema is that of a tool which gives an agent a message.
const messageSchema = `{"type": "object", "properties": {"message": {"type": "string", "minLength": 1,
"description": "What is wanted, with all that the agent has to know: it sees nothing else."}}, "required": ["message"],
"additionalProperties": false}`

// agentTools are the tools that an agent is to others: one for each of its task types, and
// for one without those one that takes a message. An agent that is not known here may be
// one of a worker.
func (r *Registry) agentTools(namespace, id string) []agentTool {
	known := r.agentOf(namespace, id)
	if known != nil && known.other != nil && known.other.input != nil {
		return []agentTool{r.taskTool(id, id, id, known.description, known.other.input.Raw())}
	}
	var tools []agentTool
	if known != nil {
		for _, name := range sortedKeys(known.tasks) {
			if name != conversationTask {
				t := known.tasks[name]
				tools = append(tools, r.taskTool(id+"__"+name, id, name, t.input.Description(), t.input.Raw()))
			}
		}
	}
	if len(tools) > 0 {
		return tools
	}
	description := "An agent that takes a message."
	if known != nil && known.description != "" {
		description = known.description
	}
	return []agentTool{{
		Tool: tool.Tool{Name: toolName(id), Description: description, Schema: []byte(messageSchema), Call: isDelegated},
		delegated: delegated{
			request: func(arguments []byte) (engine.CreateRequest, error) {
				var given struct {
					Message string `json:"message"`
				}
				if err := json.Unmarshal(arguments, &given); err != nil {
					return engine.CreateRequest{}, err
				}
				return messageRequest(id, given.Message)
			},
			result: agentResult,
		},
	}}
}

func (*Registry) taskTool(name, agentID, taskType, description string, schema []byte) agentTool {
	return agentTool{
		Tool: tool.Tool{Name: toolName(name), Description: description, Schema: schema, Call: isDelegated},
		delegated: delegated{
			request: func(arguments []byte) (engine.CreateRequest, error) {
				return engine.CreateRequest{Target: engine.AgentTarget, AgentID: agentID, TaskType: taskType, Input: arguments}, nil
			},
			result: agentResult,
		},
	}
}

// toolName fits the name of a tool to what providers take.
func toolName(name string) string {
	fitting := unfitting.ReplaceAllString(name, "_")
	return fitting[:min(len(fitting), tool.MaxNameBytes)]
}

// agentResult is what an agent came to, without what it took.
func agentResult(output map[string]any) (tool.Result, error) {
	if text, isWords := output["response"].(string); isWords {
		return tool.Result{Text: text}, nil
	}
	for _, name := range []string{"agent_id", "task_type", "model", "offline", "usage", "cost_usd"} {
		delete(output, name)
	}
	return resultOf(output)
}
