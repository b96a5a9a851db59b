package agent

import (
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/document"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonschema"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/tool"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Document is an agent as data, YAML or JSON:
//
//	name: support_agent
//	description: Answers customers of the shop.
//	instructions: You answer customers. Look orders up before you say anything of them.
//	model: anthropic/claude-sonnet-4-5
//	tools:
//	  - http: {name: find_order, description: Finds an order., url: "https://shop.example/orders", method: GET}
//	  - function: {name: shop.refund, description: Pays back., approval: true}
//	  - mcp: {server: files, tools: [read_file]}
//	  - store: {namespace: [support, notes], tools: [get_item, search_items]}
//	agents: [codegen_agent]
//	parameters: {type: object, properties: {order: {type: string}}, required: [order]}
//	output: {type: object, properties: {reply: {type: string}}, required: [reply]}
//	budget: {tokens: 50000, cost_usd: 0.25, tool_calls: 20, seconds: 120}
type Document struct {
	engine.RunDefaults `yaml:",inline"`

	// Name is the agent's id: letters, digits, dashes and underscores.
	Name         string `yaml:"name"`
	Description  string `yaml:"description"`
	Instructions string `yaml:"instructions"`
	// Model is asked, or a chain of models with commas between; empty: the runtime's.
	Model string       `yaml:"model"`
	Tools []ToolSource `yaml:"tools"`
	// Agents may be given tasks, as tools.
	Agents []string `yaml:"agents"`
	// Parameters is the JSON Schema of the input of tasks; nil: any object.
	Parameters map[string]any `yaml:"parameters"`
	// Output is the JSON Schema of what it answers; nil: words.
	Output map[string]any `yaml:"output"`
	// Rounds is how often tools may be called; 0: 20.
	Rounds int    `yaml:"rounds"`
	Budget Budget `yaml:"budget"`
}

// ToolSource is where an agent has tools from. One of its fields is set.
type ToolSource struct {
	HTTP     *tool.HTTP  `yaml:"http"`
	Function *Function   `yaml:"function"`
	MCP      *MCPTools   `yaml:"mcp"`
	Store    *StoreTools `yaml:"store"`
}

// Function is a Python function that workers serve, as a tool.
type Function struct {
	// Name is the one under which it was registered; the model is offered it with
	// underscores for dots.
	Name        string         `yaml:"name"`
	Description string         `yaml:"description"`
	Parameters  map[string]any `yaml:"parameters"`
	Approval    bool           `yaml:"approval"`
}

// MCPTools are tools of an MCP server that the operator has configured.
type MCPTools struct {
	Server string `yaml:"server"`
	// Tools are those that are offered; none: all that the operator allows.
	Tools []string `yaml:"tools"`
	// Approval are those that a person must agree to, beside the operator's.
	Approval []string `yaml:"approval"`
}

const maxDocumentBytes = 256 << 10

// ParseDocument reads an agent. Its error is a *violation.Error or a *violation.TooLargeError.
func ParseDocument(text []byte) (*Document, error) {
	if len(text) > maxDocumentBytes {
		return nil, &violation.TooLargeError{Field: "agent", Size: len(text), Limit: maxDocumentBytes}
	}
	d := &Document{}
	if err := document.Decode("agent", text, d); err != nil {
		return nil, err
	}
	return d, nil
}

// compile makes the agent, and names all that is wrong with it.
func (r *Registry) compile(d *Document) (*agent, error) {
	var wrong []error
	add := func(field, format string, args ...any) { wrong = append(wrong, violation.New(field, format, args...)) }
	if !violation.IsName(d.Name) {
		add("name", "must be 1 to 100 letters, digits, dashes and underscores, is %q", clip(d.Name))
	}
	if strings.TrimSpace(d.Instructions) == "" {
		add("instructions", "is required")
	}
	if d.Rounds < 0 {
		add("rounds", "must not be negative")
	}
	if err := checkModel(r.provider, d.Model); err != nil {
		add("model", "%s", err)
	}
	wrong = append(wrong, d.Budget.check("budget"), d.Check("run"))
	input, err := jsonschema.Of("parameters", d.Parameters)
	wrong = append(wrong, err)
	output, err := jsonschema.Of("output", d.Output)
	wrong = append(wrong, err)
	tools, err := r.toolkitOf(d)
	wrong = append(wrong, err)
	if err := violation.Join(wrong...); err != nil {
		return nil, err
	}
	l := loop{
		provider: r.provider, model: d.Model, instructions: d.Instructions, tools: tools,
		answer: output, answerName: "answer", rounds: d.Rounds, budget: d.Budget,
	}
	talking := &conversation{loop: l, agentID: d.Name}
	worker := &thinker{loop: l, sample: func(input []byte, notice string) (string, error) {
		return sampleOf(output, notice+"\n\nYou asked "+d.Name+": "+string(input))
	}}
	return &agent{
		id: d.Name, description: d.Description, model: d.Model, defaults: d.RunDefaults,
		tasks: map[string]*taskType{
			conversationTask: {name: conversationTask, input: r.conversationInput, check: talking.check, task: talking.run},
		},
		other: &taskType{input: input, task: worker.run},
	}, nil
}

// checkModel refuses names of models that no provider has, where that can be told.
func checkModel(provider model.Provider, names string) error {
	if checker, can := provider.(interface{ Check(models string) error }); can {
		return checker.Check(names)
	}
	return nil
}
