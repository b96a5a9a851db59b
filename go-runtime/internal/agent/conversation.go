package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/template"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// conversationTask is the task type of what Django's AgentRun rows hold.
const conversationTask = "agent.run"

// The types of events that an agent of the runtime emits, with a payload {"content": text}.
const (
	eventDelta   = "assistant.delta"
	eventMessage = "assistant.message"
)

// conversation has an agent answer messages, in words or by doing one of its other
// task types. Its output is that of an agent in Python.
type conversation struct {
	loop

	agentID string
	tasks   map[string]*taskType
	// message writes what another task type made as a message; nil where there are none.
	message *template.Template
}

// turn is what an agent is asked for.
type turn struct {
	// instructions are what the conversation adds to the agent's own.
	instructions []string
	messages     []model.Message
	// task is nil where words are asked for, else it gets input.
	task  *taskType
	input []byte
}

// runOutput is what an agent in Python leaves of a run.
type runOutput struct {
	FinalOutput   map[string]any `json:"final_output"`
	FinalMessages []wireMessage  `json:"final_messages"`
	Usage         any            `json:"usage"`
	Metadata      map[string]any `json:"metadata"`
}

// wireMessage is a message in the framework-neutral format.
type wireMessage struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// check refuses, by name, what fits the schema and still cannot be answered.
func (c *conversation) check(_ string, input []byte) error {
	_, err := c.read(input)
	return err
}

// read finds out what an input asks for. It fits the schema.
func (c *conversation) read(input []byte) (turn, error) {
	var asked struct {
		Messages []map[string]any           `json:"messages"`
		Params   map[string]json.RawMessage `json:"params"`
	}
	if err := json.Unmarshal(input, &asked); err != nil {
		return turn{}, violation.New("input", "is not valid JSON")
	}
	var t turn
	for _, message := range asked.Messages {
		text := textOf(message["content"])
		if strings.TrimSpace(text) == "" {
			continue
		}
		switch message["role"] {
		case "system", "developer":
			t.instructions = append(t.instructions, text)
		case "user":
			t.messages = append(t.messages, model.Message{Role: model.User, Text: text})
		case "assistant":
			t.messages = append(t.messages, model.Message{Role: model.Assistant, Text: text})
		}
	}
	name, given := asked.Params["task_type"]
	if !given {
		if t.lastOfUser() == "" {
			return turn{}, violation.New("input.messages", "must have a message of the user with text")
		}
		return t, nil
	}
	return t, c.readTask(&t, name, asked.Params["input"])
}

// readTask finds the task that the parameters name, and its input: what they give,
// and the user's last message for the one text that is required besides.
func (c *conversation) readTask(t *turn, quotedName, given json.RawMessage) error {
	var name string
	var input map[string]json.RawMessage
	if len(given) == 0 {
		given = json.RawMessage("{}")
	}
	if json.Unmarshal(quotedName, &name) != nil || json.Unmarshal(given, &input) != nil {
		return violation.New("input.params", "does not fit its schema")
	}
	if t.task = c.tasks[name]; t.task == nil {
		known := sortedKeys(c.tasks)
		return violation.New("input.params.task_type", "is no task type of agent %s%s; known are %s",
			c.agentID, suggestion(name, known), strings.Join(known, ", "))
	}
	t.input = given
	if field, text := t.task.input.MissingText(input), t.lastOfUser(); field != "" && text != "" {
		written, err := encode(text)
		if err != nil {
			return fmt.Errorf("write %s: %w", field, err)
		}
		input[field] = written
		if t.input, err = encode(input); err != nil {
			return fmt.Errorf("write input: %w", err)
		}
	}
	return t.task.input.Check("input.params.input", t.input)
}

// lastOfUser is the text of the user's last message, or empty.
func (t *turn) lastOfUser() string {
	for _, message := range slices.Backward(t.messages) {
		if message.Role == model.User {
			return message.Text
		}
	}
	return ""
}

// textOf is the text of a message's content, a string or a list of parts.
func textOf(content any) string {
	if text, plain := content.(string); plain {
		return text
	}
	var texts []string
	parts, _ := content.([]any)
	for _, part := range parts {
		members, _ := part.(map[string]any)
		if text, there := members["text"].(string); there {
			texts = append(texts, text)
		}
	}
	return strings.Join(texts, "\n")
}

// run implements engine.Task.
func (c *conversation) run(ctx context.Context, call engine.Call) ([]byte, error) {
	asked, err := c.read(call.Input)
	if err != nil {
		return nil, err
	}
	var output runOutput
	if asked.task == nil {
		output, err = c.talk(ctx, call, asked)
	} else {
		output, err = c.doTask(ctx, call, asked)
	}
	if err != nil {
		return nil, err
	}
	text := output.FinalMessages[0].Content
	if err := emitContent(ctx, call, eventMessage, text); err != nil {
		return nil, err
	}
	return encode(output)
}

// talk has the model answer, and emits the answer while it comes.
func (c *conversation) talk(ctx context.Context, call engine.Call, asked turn) (runOutput, error) {
	said := newDeltas(func(text string) error { return emitContent(ctx, call, eventDelta, text) })
	made, err := c.loop.run(ctx, call, assignment{
		instructions: asked.instructions,
		messages:     asked.messages,
		sample: func(notice string) (string, error) {
			return notice + "\n\nYou said to " + c.agentID + ": " + asked.lastOfUser(), nil
		},
		pieces: said.add,
	})
	if failed := said.close(); err == nil {
		err = failed
	}
	if err != nil {
		return runOutput{}, err
	}
	output := map[string]any{}
	if c.answer != nil {
		if output, err = made.object(); err != nil {
			return runOutput{}, err
		}
	}
	about := map[string]any{}
	made.ledger.describe(about)
	return newRunOutput(output, made.text, about), nil
}

// doTask does another of the agent's task types.
func (c *conversation) doTask(ctx context.Context, call engine.Call, asked turn) (runOutput, error) {
	call.TaskType, call.Input = asked.task.name, asked.input
	made, err := asked.task.task(ctx, call)
	if err != nil {
		return runOutput{}, err
	}
	var output map[string]any
	if err := jsonvalue.Decode(made, &output); err != nil {
		return runOutput{}, fmt.Errorf("read output of %s: %w", call.TaskType, err)
	}
	var text strings.Builder
	if err := c.message.Execute(&text, output); err != nil {
		return runOutput{}, fmt.Errorf("write output of %s as a message: %w", call.TaskType, err)
	}
	return newRunOutput(output, strings.TrimSpace(text.String()), output), nil
}

// newRunOutput has who answered, and what it took, from about.
func newRunOutput(output map[string]any, text string, about map[string]any) runOutput {
	output["response"] = text
	return runOutput{
		FinalOutput:   output,
		FinalMessages: []wireMessage{{Role: string(model.Assistant), Content: text}},
		Usage:         about["usage"],
		Metadata: map[string]any{
			"model": about["model"], "offline": about["offline"],
			"cost_usd": about["cost_usd"], "price_version": about["price_version"],
		},
	}
}

func emitContent(ctx context.Context, call engine.Call, eventType, text string) error {
	payload, err := encode(map[string]string{"content": text})
	if err != nil {
		return fmt.Errorf("write %s: %w", eventType, err)
	}
	return call.Emit(ctx, engine.NewEvent{Type: eventType, Payload: payload})
}

// parseAnswer reads the template that writes an output as Markdown.
func parseAnswer(name, text string) (*template.Template, error) {
	return template.New(name).Funcs(template.FuncMap{"code": codeBlock}).Parse(text)
}

// codeBlock fences a file so that no fence in it ends the block.
func codeBlock(language, content string) string {
	fence := "```"
	for strings.Contains(content, fence) {
		fence += "`"
	}
	return fence + language + "\n" + strings.TrimRight(content, "\n") + "\n" + fence
}
