package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// newRegistry returns a registry that thinks offline.
func newRegistry(tb testing.TB) *Registry {
	tb.Helper()
	provider, err := model.New(model.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatalf("model.New: %v", err)
	}
	registry, err := New(Config{Provider: provider})
	if err != nil {
		tb.Fatalf("New: %v", err)
	}
	return registry
}

// quietly fills in what an engine gives a call, where the test does not.
func quietly(call engine.Call) engine.Call {
	if call.Emit == nil {
		call.Emit = func(context.Context, ...engine.NewEvent) error { return nil }
	}
	if call.Record == nil {
		call.Record = func(context.Context, string, []byte) error { return nil }
	}
	return call
}

// run resolves a call, executes it, and decodes the output.
func run(tb testing.TB, registry *Registry, target engine.Target, call engine.Call) map[string]any {
	tb.Helper()
	task, err := registry.Resolve("default", target, call.AgentID, call.TaskType, call.Input)
	if err != nil {
		tb.Fatalf("Resolve(%s, %s): %v", call.AgentID, call.TaskType, err)
	}
	output, err := task(tb.Context(), quietly(call))
	if err != nil {
		tb.Fatalf("run %s of %s: %v", call.TaskType, call.AgentID, err)
	}
	var decoded map[string]any
	if err := json.Unmarshal(output, &decoded); err != nil {
		tb.Fatalf("output of %s is not an object: %v\n%s", call.TaskType, err, output)
	}
	return decoded
}

func TestResolveTakesTheGuidesInputs(t *testing.T) {
	t.Parallel()
	registry := newRegistry(t)
	tests := map[string]struct {
		target            engine.Target
		agentID, taskType string
		input             string
	}{
		"task under a label": {
			engine.TaskTarget, "agent1", "example_task",
			`{"param1": "value1", "param2": "value2"}`,
		},
		"generate_component": {
			engine.AgentTarget, "frontend_agent", "generate_component",
			`{"component_type": "button", "props": {"label": "Click me"}}`,
		},
		"design_component": {
			engine.AgentTarget, "frontend_agent", "design_component",
			`{"component_type": "form", "fields": ["name", "email", "message"]}`,
		},
		"generate_code": {
			engine.AgentTarget, "codegen_agent", "generate_code",
			`{"language": "python", "task": "Implement a function to calculate Fibonacci numbers"}`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task, err := registry.Resolve("default", test.target, test.agentID, test.taskType, []byte(test.input))
			if err != nil || task == nil {
				t.Fatalf("Resolve = %v, %v; want a task", task != nil, err)
			}
		})
	}
}

func TestResolveRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	registry := newRegistry(t)
	tests := map[string]struct {
		target            engine.Target
		agentID, taskType string
		want              string
	}{
		"a mistyped agent": {
			engine.AgentTarget, "frontend_agnt", "generate_component",
			`no agent is called "frontend_agnt" (did you mean "frontend_agent"?); ` +
				`known are app_builder_agent, codegen_agent, frontend_agent, software_engineering_agent`,
		},
		"a label is no agent": {
			engine.AgentTarget, "agent1", "example_task",
			`no agent is called "agent1"; known are app_builder_agent, codegen_agent, frontend_agent, software_engineering_agent`,
		},
		"a mistyped built-in task": {
			engine.TaskTarget, "", "example_tsk",
			`no built-in task is called "example_tsk" (did you mean "example_task"?); known are echo, example_task, langchain_task, langgraph_task, langraph_task, sleep, traced_task`,
		},
		"a task type of an agent": {
			engine.TaskTarget, "anyone", "generate_code",
			`no built-in task is called "generate_code"; known are echo, example_task, langchain_task, langgraph_task, langraph_task, sleep, traced_task; ` +
				`"generate_code" is a task type of agent codegen_agent`,
		},
		"a task type of another agent": {
			engine.AgentTarget, "codegen_agent", "generate_component",
			`no task type of agent codegen_agent is called "generate_component"; known are agent.run, explain_code, generate_code, write_tests; ` +
				`"generate_component" is a task type of agent frontend_agent`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task, err := registry.Resolve("default", test.target, test.agentID, test.taskType, []byte(`{}`))
			if task != nil || err == nil || err.Error() != test.want {
				t.Errorf("Resolve error\n got: %v\nwant: %s", err, test.want)
			}
		})
	}
}

func TestUnknownErrorsCarryTheirFacts(t *testing.T) {
	t.Parallel()
	registry := newRegistry(t)

	_, err := registry.Resolve("default", engine.AgentTarget, "nobody", "echo", []byte(`{}`))
	var noAgent *UnknownAgentError
	if !errors.As(err, &noAgent) || noAgent.AgentID != "nobody" || len(noAgent.Known) != 4 {
		t.Errorf("unknown agent: %#v", err)
	}
	_, err = registry.Resolve("default", engine.AgentTarget, "codegen_agent", "echo", []byte(`{}`))
	var noTask *UnknownTaskTypeError
	if !errors.As(err, &noTask) || noTask.TaskType != "echo" || noTask.AgentID != "codegen_agent" {
		t.Errorf("unknown task type: %#v", err)
	}
}

func TestResolveNamesEveryFieldThatDoesNotFit(t *testing.T) {
	t.Parallel()
	registry := newRegistry(t)
	tests := map[string]struct {
		agentID, taskType string
		input             string
		want              []string
	}{
		"missing":        {"codegen_agent", "generate_code", `{}`, []string{"input.language: is required", "input.task: is required"}},
		"wrong type":     {"frontend_agent", "generate_component", `{"component_type": "button", "props": {"label": 7}}`, []string{"input.props.label: must be a string, is a number"}},
		"unknown choice": {"frontend_agent", "generate_component", `{"component_type": "button", "framework": "cobol"}`, []string{`input.framework: must be one of "react", "vue", "svelte"`}},
		"unknown field":  {"frontend_agent", "generate_component", `{"component_typ": "button"}`, []string{"input.component_typ: is not a field of this input", "input.component_type: is required"}},
		"odd field name": {"frontend_agent", "generate_component", `{"component_type": "button", "a b\n": 1}`, []string{`input["a b\n"]: is not a field of this input`}},
		"empty":          {"frontend_agent", "generate_component", `{"component_type": ""}`, []string{"input.component_type: must not be empty"}},
		"item in a list": {"frontend_agent", "generate_component", `{"component_type": "button", "requirements": ["fast", null]}`, []string{"input.requirements[1]: must be a string, is null"}},
		"neither form":   {"frontend_agent", "design_component", `{"component_type": "form", "fields": ["name", 7]}`, []string{"input.fields[1]: must be a string or an object, is a number"}},
		"inside a form":  {"frontend_agent", "design_component", `{"component_type": "form", "fields": [{"required": "yes"}]}`, []string{"input.fields[0].name: is required", "input.fields[0].required: must be a boolean, is a string"}},
		"no object":      {"frontend_agent", "generate_component", `[]`, []string{"input: must be an object, is an array"}},
		"no JSON":        {"frontend_agent", "generate_component", `{"component_type": `, []string{"input: is not valid JSON"}},
		"too much":       {"", "sleep", `{"seconds": 3600.5}`, []string{"input.seconds: must be at most 3600"}},
		"far too much":   {"", "sleep", `{"seconds": 1e99999999}`, []string{"input.seconds: must be at most 3600"}},
		"far too little": {"", "sleep", `{"seconds": -1e99999999}`, []string{"input.seconds: must be at least 0"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := engine.AgentTarget
			if test.agentID == "" {
				target = engine.TaskTarget
			}
			task, err := registry.Resolve("default", target, test.agentID, test.taskType, []byte(test.input))
			var unfit *violation.Error
			if task != nil || !errors.As(err, &unfit) {
				t.Fatalf("Resolve = %v, %v; want a *violation.Error", task != nil, err)
			}
			var got []string
			for _, v := range unfit.Violations {
				got = append(got, v.Field+": "+v.Description)
			}
			if len(got) != len(test.want) {
				t.Fatalf("violations\n got: %q\nwant: %q", got, test.want)
			}
			for i := range got {
				if got[i] != test.want[i] {
					t.Errorf("violation %d\n got: %s\nwant: %s", i, got[i], test.want[i])
				}
			}
		})
	}
}
