package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonschema"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// FuzzResolve gives every task type any bytes: they are refused with a
// violation, or resolve to a task that makes a JSON object of them offline.
func FuzzResolve(f *testing.F) {
	registry := newRegistry(f)
	for _, test := range offlineCases(f, registry) {
		f.Add([]byte(test.input))
	}
	f.Add([]byte(`{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "tool", "content": null}]}`))
	f.Add([]byte(`{"messages": [{"role": "user", "content": "a"}], "params": {"task_type": "explain_code", "input": {"code": "b"}}}`))
	f.Add([]byte(`{"messages": [{"role": "user"}], "messages": "x", "params": {"task_type": 1e999}}`))
	f.Add([]byte(`{"seconds": 1e999999999}`))
	f.Add([]byte(`{"seconds": 0.` + "\xff" + `}`))
	f.Add([]byte(`{"component_type": "1 . *", "props": {"label": null, "__proto__": {}}}`))
	f.Add([]byte(`[[[[[[{"a":1e-9999999}]]]]]]`))

	f.Fuzz(func(t *testing.T, input []byte) {
		for _, task := range registry.TaskTypes() {
			if task.Name == "sleep" {
				continue
			}
			checkResolved(t, registry, engine.TaskTarget, "", task.Name, input)
		}
		if _, err := registry.Resolve("default", engine.TaskTarget, "", "sleep", input); err != nil {
			checkViolation(t, err)
		}
		for _, a := range registry.Agents("default") {
			for _, task := range a.TaskTypes {
				checkResolved(t, registry, engine.AgentTarget, a.ID, task.Name, input)
			}
		}
	})
}

func checkResolved(t *testing.T, registry *Registry, target engine.Target, agentID, taskType string, input []byte) {
	t.Helper()
	task, err := registry.Resolve("default", target, agentID, taskType, input)
	if err != nil {
		checkViolation(t, err)
		return
	}
	output, err := task(t.Context(), quietly(engine.Call{AgentID: agentID, TaskType: taskType, Input: input, Emit: discard}))
	if err != nil {
		t.Fatalf("%s/%s took %q and failed: %v", agentID, taskType, input, err)
	}
	var object map[string]any
	decoder := json.NewDecoder(bytes.NewReader(output))
	decoder.UseNumber()
	if err := decoder.Decode(&object); err != nil {
		t.Fatalf("%s/%s made no object of %q: %s", agentID, taskType, input, output)
	}
}

func discard(context.Context, ...engine.NewEvent) error { return nil }

func checkViolation(t *testing.T, err error) {
	t.Helper()
	var unfit *violation.Error
	if !errors.As(err, &unfit) || len(unfit.Violations) == 0 || len(unfit.Violations) > jsonschema.MaxViolations+1 {
		t.Fatalf("refused with %#v, want a *violation.Error", err)
	}
}
