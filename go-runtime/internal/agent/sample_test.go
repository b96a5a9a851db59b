package agent

import (
	"encoding/json"
	"flag"
	"fmt"
	"go/format"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
)

var update = flag.Bool("update", false, "write the golden files of this package anew")

// offlineCase is one input to an agent that has no model.
type offlineCase struct {
	agentID, taskType string
	input             string
}

// offlineCases are the examples in the schema of every task type that has a sample,
// by agent and task type, and variants of the samples that branch.
func offlineCases(tb testing.TB, registry *Registry) map[string]offlineCase {
	tb.Helper()
	cases := map[string]offlineCase{
		"frontend_agent/generate_component.bare":   {"frontend_agent", "generate_component", `{"component_type": "date picker"}`},
		"frontend_agent/generate_component.vue":    {"frontend_agent", "generate_component", `{"component_type": "button", "framework": "vue", "props": {"label": "</script>"}}`},
		"frontend_agent/generate_component.card":   {"frontend_agent", "generate_component", `{"component_type": "card", "framework": "vue", "props": {"title": "Hi", "n": 12345678901234567890}}`},
		"frontend_agent/generate_component.svelte": {"frontend_agent", "generate_component", `{"component_type": "card", "framework": "svelte", "props": {"title": "Hi"}}`},
		"frontend_agent/design_component.objects":  {"frontend_agent", "design_component", `{"component_type": "form", "fields": [{"name": "a|b", "required": false}, {"name": "mail", "type": "email", "label": "E-mail"}], "requirements": ["Fits\na phone"]}`},
		"codegen_agent/generate_code.go":           {"codegen_agent", "generate_code", `{"language": "Go", "task": "Return"}`},
		"codegen_agent/generate_code.typescript":   {"codegen_agent", "generate_code", `{"language": "typescript", "task": "Parse */ dates"}`},
		"codegen_agent/generate_code.javascript":   {"codegen_agent", "generate_code", `{"language": "javascript", "task": "\u89e3\u6790\u65e5\u671f"}`},
		"codegen_agent/generate_code.cobol":        {"codegen_agent", "generate_code", `{"language": "cobol", "task": "Add two numbers"}`},
		"codegen_agent/generate_code.quotes":       {"codegen_agent", "generate_code", `{"language": "python", "task": "Quote \"\"\" and \\\" safely"}`},
		"codegen_agent/write_tests.go":             {"codegen_agent", "write_tests", `{"language": "go", "code": "package main"}`},
		"codegen_agent/write_tests.cobol":          {"codegen_agent", "write_tests", `{"language": "cobol", "code": "ADD 1 TO X."}`},
	}
	for _, a := range registry.Agents("default") {
		for _, task := range a.TaskTypes {
			if task.Name == conversationTask {
				continue
			}
			cases[a.ID+"/"+task.Name] = offlineCase{a.ID, task.Name, example(tb, task)}
		}
	}
	return cases
}

// example returns the first of a schema's own examples.
func example(tb testing.TB, task TaskType) string {
	tb.Helper()
	var schema struct {
		Examples []json.RawMessage `json:"examples"`
	}
	if err := json.Unmarshal(task.InputSchema, &schema); err != nil || len(schema.Examples) == 0 {
		tb.Fatalf("input schema of %s has no example (%v)", task.Name, err)
	}
	return string(schema.Examples[0])
}

func TestOfflineAnswers(t *testing.T) {
	t.Parallel()
	registry := newRegistry(t)
	for name, test := range offlineCases(t, registry) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			output := run(t, registry, engine.AgentTarget, engine.Call{
				AgentID: test.agentID, TaskType: test.taskType, Input: []byte(test.input),
			})
			compareGolden(t, filepath.Join("testdata", "offline", name+".txt"), readable(t, output))
		})
	}
}

func TestEveryOfflineAnswerSaysSo(t *testing.T) {
	t.Parallel()
	registry := newRegistry(t)
	for name, test := range offlineCases(t, registry) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			output := run(t, registry, engine.AgentTarget, engine.Call{
				AgentID: test.agentID, TaskType: test.taskType, Input: []byte(test.input),
			})
			if output["offline"] != true || output["model"] != "offline" {
				t.Errorf("offline = %v, model = %v", output["offline"], output["model"])
			}
			if !strings.Contains(output["explanation"].(string), model.OfflineNotice) {
				t.Errorf("explanation lacks the notice: %s", output["explanation"])
			}
			for _, file := range outputFiles(output) {
				if !strings.Contains(strings.ToLower(file.content), "offline") {
					t.Errorf("%s does not say that it was made offline:\n%s", file.path, file.content)
				}
			}
		})
	}
}

func TestOfflineGoIsFormatted(t *testing.T) {
	t.Parallel()
	registry := newRegistry(t)
	for _, name := range []string{"codegen_agent/generate_code.go", "codegen_agent/write_tests.go"} {
		test := offlineCases(t, registry)[name]
		output := run(t, registry, engine.AgentTarget, engine.Call{
			AgentID: test.agentID, TaskType: test.taskType, Input: []byte(test.input),
		})
		for _, file := range outputFiles(output) {
			formatted, err := format.Source([]byte(file.content))
			if err != nil || string(formatted) != file.content {
				t.Errorf("%s is not formatted Go (%v):\n%s", file.path, err, file.content)
			}
		}
	}
}

type outputFile struct{ path, language, content string }

func outputFiles(output map[string]any) []outputFile {
	var files []outputFile
	for _, f := range output["files"].([]any) {
		file := f.(map[string]any)
		files = append(files, outputFile{
			path: file["path"].(string), language: file["language"].(string), content: file["content"].(string),
		})
	}
	return files
}

// readable writes an output for a reader's eye: the files' contents as they are, the rest as JSON.
func readable(tb testing.TB, output map[string]any) string {
	tb.Helper()
	files := outputFiles(output)
	delete(output, "files")
	head, err := json.MarshalIndent(output, "", "  ")
	if err != nil {
		tb.Fatalf("encode output: %v", err)
	}
	var text strings.Builder
	text.WriteString(string(head) + "\n")
	for _, file := range files {
		fmt.Fprintf(&text, "\n=== %s (%s)\n%s", file.path, file.language, file.content)
	}
	return text.String()
}

func compareGolden(tb testing.TB, file, got string) {
	tb.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		tb.Fatalf("%v; run with -update to write it", err)
	}
	if got != string(want) {
		tb.Errorf("differs from %s\n got: %s\nwant: %s", file, got, want)
	}
}
