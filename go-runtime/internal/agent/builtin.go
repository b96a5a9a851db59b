package agent

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
)

//go:embed builtin/*.schema.json
var builtinFiles embed.FS

// builtinTasks are the task types that need no agent.
func (r *Registry) builtinTasks() (map[string]*taskType, error) {
	tasks := map[string]*taskType{
		"echo":         {task: echo},
		"example_task": {task: exampleTask},
		"sleep":        {task: sleep},
		"traced_task":  {task: (&tracedTask{r.provider}).run, spends: true},
	}
	for name, member := range graphTasks() {
		work := &graphTask{registry: r, member: member}
		tasks[name] = &taskType{check: work.check, task: work.run, spends: true}
	}
	for name, task := range tasks {
		file := "builtin/" + name + ".schema.json"
		if name == spelledTask {
			file = "builtin/langgraph_task.schema.json"
		}
		raw, err := builtinFiles.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		input, err := newSchema(file, raw)
		if err != nil {
			return nil, err
		}
		task.name, task.input = name, input
	}
	return tasks, nil
}

// echo returns its input byte for byte.
func echo(_ context.Context, call engine.Call) ([]byte, error) {
	return call.Input, nil
}

// exampleOutput is what example_task returns.
type exampleOutput struct {
	TaskType string `json:"task_type"`
	Status   string `json:"status"`
	// Input is the input as it came.
	Input json.RawMessage `json:"input"`
	// Result is the input with every string value in upper case.
	Result json.RawMessage `json:"result"`
	// Summary says what was done, for people.
	Summary     string `json:"summary"`
	ProcessedBy string `json:"processed_by"`
	RunID       string `json:"run_id"`
	Attempt     int    `json:"attempt"`
}

// exampleTask shows a first-time user that the input arrived and was worked on.
func exampleTask(_ context.Context, call engine.Call) ([]byte, error) {
	result, changed, err := upperCaseStrings(call.Input)
	if err != nil {
		return nil, fmt.Errorf("transform input: %w", err)
	}
	return encode(exampleOutput{
		TaskType:    call.TaskType,
		Status:      "completed",
		Input:       call.Input,
		Result:      result,
		Summary:     fmt.Sprintf("String values put into upper case: %d. Everything else is as it came.", changed),
		ProcessedBy: "agent-runtime",
		RunID:       call.RunID,
		Attempt:     call.Attempt,
	})
}

// upperCaseStrings puts the string values of a JSON text, not its keys, into
// upper case. Numbers stay exactly as they were written.
func upperCaseStrings(text []byte) (result json.RawMessage, changed int, err error) {
	var value any
	if err := jsonvalue.Decode(text, &value); err != nil {
		return nil, 0, err
	}
	value = mapStrings(value, func(s string) string {
		changed++
		return strings.ToUpper(s)
	})
	result, err = encode(value)
	return result, changed, err
}

func mapStrings(value any, change func(string) string) any {
	switch v := value.(type) {
	case string:
		return change(v)
	case []any:
		for i, item := range v {
			v[i] = mapStrings(item, change)
		}
	case map[string]any:
		for key, member := range v {
			v[key] = mapStrings(member, change)
		}
	}
	return value
}

// sleep lasts as long as asked, or until it is cancelled or times out.
func sleep(ctx context.Context, call engine.Call) ([]byte, error) {
	var input struct {
		Seconds float64 `json:"seconds"`
	}
	if err := json.Unmarshal(call.Input, &input); err != nil {
		return nil, fmt.Errorf("read input: %w", err)
	}
	timer := time.NewTimer(time.Duration(input.Seconds * float64(time.Second)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return encode(map[string]float64{"slept_seconds": input.Seconds})
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// encode writes JSON without the escapes that only HTML needs.
func encode(value any) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimRight(text.Bytes(), "\n"), nil
}
