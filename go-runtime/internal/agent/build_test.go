package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/sandbox"
	"github.com/djangobridge/djangobridge/go-runtime/internal/sandbox/check"
	"github.com/djangobridge/djangobridge/go-runtime/internal/tool"
	"github.com/djangobridge/djangobridge/go-runtime/internal/workspace"
)

// bay is a workshop whose check is whether JSON files are JSON, or that of a sandbox.
type bay struct {
	*workspace.Store

	sandbox *sandbox.Sandbox
}

func (b bay) Check(ctx context.Context, w *workspace.Workspace) ([]check.Result, error) {
	if b.sandbox != nil {
		programs := check.Find(ctx, check.Config{Launcher: []string{launchArgument}})
		return check.Run(ctx, programs, b.sandbox, w)
	}
	var checks []check.Result
	for _, file := range w.List() {
		if !strings.HasSuffix(file.Path, ".json") {
			continue
		}
		text, err := w.Read(file.Path)
		if err != nil {
			return nil, err
		}
		result := check.Result{Name: "parse JSON", Status: check.Passed, Files: []string{file.Path}}
		if !json.Valid(text) {
			result.Status, result.Output = check.Failed, file.Path+" is no JSON"
		}
		checks = append(checks, result)
	}
	return checks, nil
}

// openBuilding is a bench whose agents build, in a workshop of its journal.
func openBuilding(t *testing.T, dir string, provider model.Provider) (*bench, bay) {
	t.Helper()
	return openSandboxed(t, dir, provider, nil)
}

func openSandboxed(t *testing.T, dir string, provider model.Provider, box *sandbox.Sandbox) (*bench, bay) {
	t.Helper()
	var shop bay
	b := openOn(t, dir, func(j *journal.Journal) (*Registry, store) {
		log := slog.New(slog.DiscardHandler)
		known := func(context.Context, string, string) (workspace.RunStatus, error) {
			return workspace.RunStatus{Known: true}, nil
		}
		files, err := workspace.New(workspace.Config{Dir: filepath.Join(dir, "workspaces")}, j, known, log)
		if err != nil {
			t.Fatal(err)
		}
		shop = bay{files, box}
		registry, err := New(Config{Provider: provider, Tooling: Tooling{
			Runner: tool.NewRunner(tool.Config{}, log), MCP: noServers{}, Workshop: shop,
		}})
		if err != nil {
			t.Fatal(err)
		}
		return registry, files
	})
	return b, shop
}

// answerOf is an answer to a task, with files: path and content by turns.
func answerOf(summary string, files ...string) model.Response {
	made := []map[string]string{}
	for file := range slices.Chunk(files, 2) {
		made = append(made, map[string]string{"path": file[0], "language": "json", "content": file[1]})
	}
	text, _ := encode(map[string]any{"summary": summary, "explanation": "", "files": made, "notes": []string{}})
	return model.Response{Text: string(text)}
}

type built struct {
	Summary string         `json:"summary"`
	Plan    string         `json:"plan"`
	Files   []madeFile     `json:"files"`
	Checks  []check.Result `json:"checks"`
}

func read(t *testing.T, run engine.Run) (output built) {
	t.Helper()
	if err := json.Unmarshal(run.Output, &output); err != nil {
		t.Fatal(err)
	}
	return output
}

func (o built) contents() (files []string) {
	for _, f := range o.Files {
		files = append(files, f.Path+" "+*f.Content)
	}
	return files
}

// TestAgentBuildsChecksAndRepairs has a model plan, write a file by a tool and one in its
// answer, which does not pass, and mend it; the runtime dies before it does.
func TestAgentBuildsChecksAndRepairs(t *testing.T) {
	t.Parallel()
	mends, reached := make(chan struct{}), make(chan struct{}, 2)
	provider := &acting{act: func(r model.Request) model.Response {
		text, isResult := last(r)
		switch {
		case strings.Contains(r.Instructions, "Before you write, plan"):
			return model.Response{Text: "1. a.json 2. b.json"}
		case strings.Contains(text, "b.json is no JSON"):
			reached <- struct{}{}
			<-mends
			return answerOf("mended", "b.json", `{"b": 1}`)
		case isResult:
			return answerOf("made", "b.json", `{"b": `, "../c.json", "{}")
		case strings.Contains(text, "does not fit: answer.files[1].path"):
			return answerOf("made", "b.json", `{"b": `)
		}
		return calls("write_file", `{"path": "a.json", "content": "{}"}`, "write_file", `{"path": "/etc/x", "content": ""}`)
	}}
	dir := t.TempDir()
	b, _ := openBuilding(t, dir, provider)
	id := b.do("codegen_agent", "generate_code", `{"language": "json", "task": "Two files"}`, "")
	within(t, reached)
	close(mends)
	b.crash()
	b, shop := openBuilding(t, dir, provider)
	run := b.wantEnd(id, engine.Succeeded, 2)
	output := read(t, run)
	if output.Summary != "mended" || output.Plan != "1. a.json 2. b.json" {
		t.Errorf("output %s", run.Output)
	}
	if got := output.contents(); !slices.Equal(got, []string{"a.json {}", `b.json {"b": 1}`}) {
		t.Errorf("files %v", got)
	}
	if len(output.Checks) != 2 || output.Checks[0].Status != check.Passed || output.Checks[1].Status != check.Passed {
		t.Errorf("checks %v", output.Checks)
	}
	if refused := results(provider.asked[2]); len(refused) != 2 || !strings.HasPrefix(refused[1], "failed: ") {
		t.Errorf("tools gave %v", refused)
	}
	// They stay when the run has ended.
	files, err := shop.Files(t.Context(), "default", id)
	if err != nil || len(files) != 2 || files[1].Path != "b.json" {
		t.Errorf("kept %v, %v", files, err)
	}
}

// TestFrontendAgentMendsWhatDoesNotParse has a model told where its component, its page and
// its styles are wrong, by the checks that there are.
func TestFrontendAgentMendsWhatDoesNotParse(t *testing.T) {
	t.Parallel()
	box, err := sandbox.New(sandbox.Config{Launcher: []string{launchArgument}})
	if err == nil {
		err = box.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if c := box.Capabilities(); !c.Available {
		t.Skip("commands cannot be isolated here: ", c.Reason)
	}
	provider := &acting{act: func(r model.Request) model.Response {
		text, _ := last(r)
		if strings.Contains(text, "does not pass") {
			for _, place := range []string{"./b.tsx:2:14: ", "./b.css:1:10: ", "./b.html:1:1: <div> is not closed"} {
				if !strings.Contains(text, place) {
					t.Errorf("it does not say %s: %s", place, text)
				}
			}
			return answerOf("mended", "b.tsx", "export const B = () => <b />;\n", "b.css", "b { color: red }\n", "b.html", "<b></b>\n")
		}
		return answerOf("made", "b.tsx", "let a = 1;\nlet b = <b></i>;\n", "b.css", "b { color red }\n", "b.html", "<div>\n")
	}}
	b, _ := openSandboxed(t, t.TempDir(), provider, box)
	run := b.wantEnd(b.do("frontend_agent", "generate_component", `{"component_type": "button"}`, ""), engine.Succeeded, 1)
	output := read(t, run)
	if output.Summary != "mended" || len(output.Checks) != 3 {
		t.Fatalf("output %s", run.Output)
	}
	for _, c := range output.Checks {
		if c.Status != check.Passed {
			t.Errorf("%+v", c)
		}
	}
}

// TestAgentGivesUpMendingAtLast has one that never gets it right: what it made is returned
// with what is wrong.
func TestAgentGivesUpMendingAtLast(t *testing.T) {
	t.Parallel()
	provider := &acting{act: func(model.Request) model.Response { return answerOf("made", "b.json", `{`) }}
	b, _ := openBuilding(t, t.TempDir(), provider)
	run := b.wantEnd(b.do("codegen_agent", "generate_code", `{"language": "json", "task": "A file"}`, ""), engine.Succeeded, 1)
	output := read(t, run)
	if len(output.Checks) != 1 || output.Checks[0].Status != check.Failed || len(provider.asked) != 2+maxRepairs {
		t.Errorf("asked %d times, output %s", len(provider.asked), run.Output)
	}
}

// TestEngineerPutsTogetherWhatOthersMake has the software engineering agent give two parts
// away at once, and change a file that it was given; what nobody changed is not shown.
func TestEngineerPutsTogetherWhatOthersMake(t *testing.T) {
	t.Parallel()
	provider := &acting{act: func(r model.Request) model.Response {
		text, isResult := last(r)
		switch {
		case strings.Contains(r.Instructions, "plan: in a few"):
			return model.Response{Text: "a plan"}
		case strings.Contains(r.Instructions, "code generation agent"):
			return answerOf("part", "api/part.json", `{"by": "codegen"}`)
		case strings.Contains(r.Instructions, "frontend agent"):
			return answerOf("page", "web/page.json", `{"by": "frontend"}`)
		case isResult && strings.Contains(text, "api/part.json"):
			return answerOf("all", "old.json", `{"new": true}`)
		case isResult:
			return model.Response{Text: text}
		}
		return calls(
			"frontend_agent__generate_component", `{"component_type": "page"}`,
			"codegen_agent__generate_code", `{"language": "json", "task": "A part"}`,
		)
	}}
	b, _ := openBuilding(t, t.TempDir(), provider)
	id := b.do("software_engineering_agent", "implement_feature", `{"description": "A page with its part",
		"files": [{"path": "old.json", "content": "{}"}, {"path": "kept.json", "content": "[]"}]}`, "")
	b.subRuns(id, 2)
	run := b.wantEnd(id, engine.Succeeded, 1)
	output := read(t, run)
	want := []string{`api/part.json {"by": "codegen"}`, `old.json {"new": true}`, `web/page.json {"by": "frontend"}`}
	if got := output.contents(); !slices.Equal(got, want) || len(output.Checks) != 4 {
		t.Errorf("files %v, checks %v", got, output.Checks)
	}
}

func TestGivenFilesThatDoNotFitAreRefused(t *testing.T) {
	t.Parallel()
	b, _ := openBuilding(t, t.TempDir(), &acting{})
	id := b.do("software_engineering_agent", "implement_feature",
		`{"description": "x", "files": [{"path": "../old.json", "content": "{}"}]}`, "")
	if run := b.wantEnd(id, engine.Failed, 1); !strings.Contains(run.Error.Message, "input.files") {
		t.Errorf("%+v", run.Error)
	}
}

// TestOfflineAgentsBuild has what they make offline, which nobody mends.
func TestOfflineAgentsBuild(t *testing.T) {
	t.Parallel()
	provider, err := model.New(model.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b, shop := openBuilding(t, t.TempDir(), provider)
	id := b.do("codegen_agent", "generate_code", `{"language": "python", "task": "Add numbers"}`, "")
	output := read(t, b.wantEnd(id, engine.Succeeded, 1))
	files, err := shop.Files(t.Context(), "default", id)
	if err != nil || len(files) != len(output.Files) || len(files) == 0 || output.Plan != "" {
		t.Errorf("%d of %d files, %v", len(files), len(output.Files), err)
	}
}
