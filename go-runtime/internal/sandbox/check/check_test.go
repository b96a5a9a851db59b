package check

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/sandbox"
	"github.com/djangobridge/djangobridge/go-runtime/internal/workspace"
)

// memory is a folder in memory.
type memory map[string]string

func (m memory) List() (files []workspace.File) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		files = append(files, workspace.File{Path: name, Size: int64(len(m[name]))})
	}
	return files
}

func (m memory) Read(path string) ([]byte, error) { return []byte(m[path]), nil }

func (m memory) Send(to io.Writer) (func(io.Reader) ([]string, error), error) {
	archive := tar.NewWriter(to)
	for name, text := range m {
		if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(text)), Mode: 0o600}); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(archive, text); err != nil {
			return nil, err
		}
	}
	return func(io.Reader) ([]string, error) { return nil, errors.New("a check gave something back") }, archive.Close()
}

// start returns a sandbox, and the programs of the machine.
func start(t *testing.T) (*sandbox.Sandbox, *Programs) {
	t.Helper()
	programs := Find(t.Context(), Config{Path: os.Getenv("PATH"), Launcher: []string{launchArgument}})
	s, err := sandbox.New(sandbox.Config{Launcher: []string{launchArgument}, ReadOnly: programs.ReadOnly()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := s.Capabilities(); !c.Available {
		t.Skip("commands cannot be isolated here: ", c.Reason)
	}
	return s, programs
}

// results are those of all checks, by name.
func results(t *testing.T, programs *Programs, runner Runner, files Folder) map[string]Result {
	t.Helper()
	made, err := Run(t.Context(), programs, runner, files)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]Result{}
	for _, r := range made {
		byName[r.Name] = r
	}
	return byName
}

// want is what a check shall find: a status, and words of the output.
type want struct {
	status Status
	words  string
}

func TestChecks(t *testing.T) {
	t.Parallel()
	s, programs := start(t)
	for name, test := range map[string]struct {
		files memory
		want  map[string]want
	}{
		"good data":   {memory{"a.json": `{"a": [1]}`, "b.yml": "a: 1\n---\nb: 2\n", "c.toml": "a = 1\n"}, map[string]want{"json": {Passed, ""}, "yaml": {Passed, ""}, "toml": {Passed, ""}}},
		"bad json":    {memory{"a.json": `{"a": }`, "b.json": "{}{}", "tsconfig.json": "{/* why */}"}, map[string]want{"json": {Failed, "a.json: invalid character"}}},
		"bad yaml":    {memory{"a.yaml": "a: [1", "b.yaml": "a: b: c"}, map[string]want{"yaml": {Failed, "b.yaml: yaml: "}}},
		"alias bomb":  {memory{"a.yaml": "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n" + strings.Repeat("#\n", 10)}, map[string]want{"yaml": {Passed, ""}}},
		"bad toml":    {memory{"a.toml": "a = "}, map[string]want{"toml": {Failed, "a.toml: toml: line 1"}}},
		"good python": {memory{"a.py": "import os\n\nprint(os.name)\n"}, map[string]want{"python": {Passed, ""}, "ruff": {Passed, ""}}},
		"bad python":  {memory{"pkg/a.py": "def f(:\n"}, map[string]want{"python": {Failed, "./pkg/a.py:1: SyntaxError"}, "ruff": {Failed, "a.py:1"}}},
		"linted":      {memory{"a.py": "import os\n"}, map[string]want{"python": {Passed, ""}, "ruff": {Failed, "F401"}}},
		"an option":   {memory{"-x.py": "x = (\n"}, map[string]want{"python": {Failed, "./-x.py:1"}, "ruff": {Failed, "-x.py"}}},
		"NUL":         {memory{"a.py": "x\x00"}, map[string]want{"python": {Failed, "a.py"}, "ruff": {Failed, "a.py"}}},
		"tests pass": {
			memory{"calc.py": "def add(a, b):\n    return a + b\n", "test_calc.py": "import unittest\n\nimport calc\n\n\nclass T(unittest.TestCase):\n    def test_add(self):\n        assert calc.add(1, 2) == 3\n"},
			map[string]want{"python": {Passed, ""}, "ruff": {Passed, ""}, "pytest": {Passed, ""}},
		},
		"tests fail": {
			memory{"test_calc.py": "import unittest\n\n\nclass T(unittest.TestCase):\n    def test_add(self):\n        assert 1 + 2 == 4\n"},
			map[string]want{"python": {Passed, ""}, "ruff": {Passed, ""}, "pytest": {Failed, "test_add"}},
		},
		"no tests": {memory{"test_x.py": ""}, map[string]want{"python": {Passed, ""}, "ruff": {Passed, ""}, "pytest": {Skipped, "no test"}}},
		"good web": {
			memory{"a.js": "const a = 1;\n", "b.tsx": "export const B = () => <b>{1 as number}</b>\n", "c.css": "a { color: red }", "d.html": "<p>d"},
			map[string]want{"javascript": {Passed, ""}, "typescript": {Passed, ""}, "css": {Passed, ""}, "html": {Passed, ""}},
		},
		"bad web": {
			memory{"a.mjs": "let a;\nconst b = ;\n", "a.ts": "let a: = 1", "b.ts": "let b", "c.css": "a { color: red", "d.html": "<div>"},
			map[string]want{
				"javascript": {Failed, "./a.mjs:2:11: Unexpected \";\"\n    const b = ;\n              ^"}, "typescript": {Failed, "./a.ts:1:8: "},
				"css": {Failed, "./c.css:1:15: Expected \"}\""}, "html": {Failed, "./d.html:1:1: <div> is not closed"},
			},
		},
		"bad web, deep": {
			memory{"a.js": "let a = ;", "b.js": strings.Repeat("!", 300_000) + "1", "a.css": strings.Repeat("a{", 500_000), "a.html": strings.Repeat("<b>", 300_000)},
			map[string]want{
				"javascript": {Failed, "    let a = ;\n            ^\n\n./b.js: it cannot be parsed"}, "css": {Failed, "./a.css: it cannot"},
				"html": {Failed, "./a.html:1:1: <b> is not"},
			},
		},
		"web template": {memory{"a.html": "{% if a %}<b>{% endif %}", "b.html": "<b></b>"}, map[string]want{"html": {Skipped, "such as ./a.html"}}},
		"good shell":   {memory{"a.sh": "if true; then echo; fi\n", "b.sh": "#!/usr/bin/env bash\na=(1 2)\n"}, map[string]want{"sh": {Passed, ""}}},
		"bad shell":    {memory{"a.sh": "if true; then\n", "b.bash": "echo\n"}, map[string]want{"sh": {Failed, "a.sh"}}},
		"unformatted":  {memory{"a.go": "package  a\n"}, map[string]want{"gofmt": {Failed, "a.go"}}},
		"bad go":       {memory{"a.go": "package a\nfunc {\n"}, map[string]want{"gofmt": {Failed, "a.go:2"}}},
		"nothing":      {memory{"README.md": "# hello"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fast := *programs
			fast.goTool = "" // see TestGo
			got := results(t, &fast, s, test.files)
			delete(got, "go vet")
			if len(got) != len(test.want) {
				t.Errorf("checks made: %v", slices.Sorted(maps.Keys(got)))
			}
			for check, want := range test.want {
				r := got[check]
				if r.Status == Skipped && strings.Contains(r.Reason, "not on this machine") {
					continue
				}
				text := r.Output
				if want.status == Skipped {
					text = r.Reason
				}
				if r.Status != want.status || !strings.Contains(text, want.words) || want.status == Passed && text != "" {
					t.Errorf("%s: %+v, want %+v", check, r, want)
				}
			}
		})
	}
}

// What cannot be checked has not passed.
func TestMissingProgramsAreSkipped(t *testing.T) {
	t.Parallel()
	none := Find(t.Context(), Config{Path: "relative:" + t.TempDir()})
	files := memory{"a.go": "package a", "a_test.go": "package a", "test_a.py": "", "a.js": "", "a.sh": "", "a.ts": "", "a.css": "", "a.html": ""}
	runner := runnerFunc(func(context.Context, sandbox.Command) (sandbox.Outcome, error) {
		return sandbox.Outcome{}, errors.New("something was run")
	})
	got := results(t, none, runner, files)
	for _, name := range []string{"gofmt", "go vet", "go test", "python", "ruff", "pytest", "javascript", "typescript", "css", "html", "sh"} {
		if r := got[name]; r.Status != Skipped || r.Reason == "" || len(r.Files) == 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

type runnerFunc func(context.Context, sandbox.Command) (sandbox.Outcome, error)

func (f runnerFunc) Run(ctx context.Context, c sandbox.Command) (sandbox.Outcome, error) {
	return f(ctx, c)
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	programs := &Programs{python: python{Executable: "/p"}, goTool: "/go", goRoot: "/r", ruff: "/ruff"}
	files := memory{"a.py": "", "a.go": ""}
	for name, test := range map[string]struct {
		outcome     sandbox.Outcome
		python, vet Status
		words       string
	}{
		"not run":         {sandbox.Outcome{NotRun: "not run: because"}, Skipped, Skipped, "because"},
		"killed":          {sandbox.Outcome{ExitCode: -1, Signal: "SIGSEGV"}, Failed, Failed, ""},
		"timed out":       {sandbox.Outcome{ExitCode: -1, TimedOut: true, Duration: 3 * time.Second}, Failed, Skipped, "after 3s"},
		"out of memory":   {sandbox.Outcome{ExitCode: -1, OutOfMemory: true}, Failed, Skipped, "memory"},
		"no program":      {sandbox.Outcome{ExitCode: 127, Stderr: []byte("gone")}, Skipped, Skipped, "gone"},
		"missing modules": {sandbox.Outcome{ExitCode: 1, Stderr: []byte("x: module lookup disabled by GOPROXY=off")}, Failed, Skipped, "GOPROXY=off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := results(t, programs, runnerFunc(func(context.Context, sandbox.Command) (sandbox.Outcome, error) { return test.outcome, nil }), files)
			for check, status := range map[string]Status{"python": test.python, "go vet": test.vet} {
				if r := got[check]; r.Status != status || !strings.Contains(r.Reason+r.Output, test.words) {
					t.Errorf("%s: %+v", check, r)
				}
			}
		})
	}
	broken := errors.New("broken")
	_, err := Run(t.Context(), programs, runnerFunc(func(context.Context, sandbox.Command) (sandbox.Outcome, error) { return sandbox.Outcome{}, broken }), files)
	if !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestGoModulesAreCheckedEach(t *testing.T) {
	t.Parallel()
	programs := &Programs{goTool: "/go", goRoot: "/r"}
	var roots []string
	runner := runnerFunc(func(_ context.Context, c sandbox.Command) (sandbox.Outcome, error) {
		if len(c.Args) > 6 && c.Args[6] == "vet" {
			roots = append(roots, c.Args[4])
		}
		return sandbox.Outcome{}, nil
	})
	got := results(t, programs, runner, memory{"a/go.mod": "", "a/x.go": "", "a/b/go.mod": "", "a/b/y.go": "", "z.go": ""})
	if fmt.Sprint(roots) != "[./a/b ./a]" || got["go vet"].Files[0] != "a/x.go" {
		t.Error(roots, got["go vet"])
	}
}

// The standard library is compiled once; then commands that cannot write what
// they share with others find it.
func TestGo(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes long")
	}
	s, programs := start(t)
	if programs.goTool == "" {
		t.Skip(noGo)
	}
	programs.goCache = newGoCache(t.TempDir(), programs.goTool)
	module := "module a\n\ngo 1.26\n"
	good := memory{
		"go.mod": module, "a.go": "package a\n\nfunc Add(a, b int) int { return a + b }\n",
		"a_test.go": "package a\n\nimport (\n\t\"net/http\"\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestAdd(t *testing.T) {\n" +
			"\tif Add(1, 2) != 3 || http.StatusOK != 200 {\n\t\tt.Fatal()\n\t}\n" +
			"\tif err := os.WriteFile(\"/go-cache/00/planted\", nil, 0o600); err == nil {\n\t\tt.Fatal(\"planted\")\n\t}\n}\n",
	}
	got := results(t, programs, s, good)
	if got["go vet"].Status != Passed || got["go test"].Status != Passed {
		t.Fatalf("%+v", got)
	}
	before := countFiles(t, programs.goCache.dir)
	for name, test := range map[string]struct {
		files memory
		check string
		want  want
	}{
		"syntax":         {memory{"a.go": "package a\n\nfunc Add(a, b int) int { return a + b + }\n"}, "go vet", want{Failed, "a.go:3"}},
		"types":          {memory{"go.mod": module, "a.go": "package a\n\nvar a int = \"b\"\n"}, "go vet", want{Failed, "a.go:3"}},
		"vetted":         {memory{"a.go": "package a\n\nimport \"fmt\"\n\nfunc A() { fmt.Printf(\"%d\", \"a\") }\n"}, "go vet", want{Failed, "wrong type"}},
		"missing module": {memory{"go.mod": module, "a.go": "package a\n\nimport _ \"example.com/missing\"\n"}, "go vet", want{Skipped, "no network"}},
		"test fails":     {memory{"a_test.go": "package a\n\nimport \"testing\"\n\nfunc TestA(t *testing.T) { t.Fatal(\"no\") }\n"}, "go test", want{Failed, "a_test.go:5: no"}},
	} {
		r := results(t, programs, s, test.files)[test.check]
		if r.Status != test.want.status || !strings.Contains(r.Output+r.Reason, test.want.words) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if after := countFiles(t, programs.goCache.dir); after != before {
		t.Errorf("the cache had %d files, and has %d", before, after)
	}
}

func countFiles(t *testing.T, dir string) (count int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, _ os.DirEntry, err error) error {
		count++
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// A command in the sandbox works on a real workspace, and nothing that it
// plants gets into it.
func TestCommandInAWorkspace(t *testing.T) {
	t.Parallel()
	s, _ := start(t)
	w := openWorkspace(t)
	if err := w.Write("src/a.txt", []byte("one\n")); err != nil {
		t.Fatal(err)
	}
	o, err := s.Run(t.Context(), sandbox.Command{Folder: w, Args: []string{"sh", "-c", `
		echo two >> src/a.txt; echo new > b.txt; printf '#!/bin/sh\necho ran\n' > run.sh; chmod +x run.sh; ./run.sh
		ln -s ../../x link; ln -s /etc/passwd passwd; ln b.txt hard; mkfifo pipe; echo bad > "a:b"; echo x > ../x
		head -c 2000000 /dev/zero > large; mkdir -p A; echo 1 > A/file; echo 2 > a; (sleep 1000 &)`}})
	if err != nil {
		t.Fatal(err)
	}
	if string(o.Stdout) != "ran\n" {
		t.Errorf("%q %s", o.Stdout, o.Stderr)
	}
	var names []string
	for _, file := range w.List() {
		names = append(names, fmt.Sprint(file.Path, " ", file.Executable))
	}
	if want := []string{"A/file false", "b.txt false", "hard false", "run.sh true", "src/a.txt false"}; !slices.Equal(names, want) {
		t.Errorf("got %s, want %s", names, want)
	}
	for _, word := range []string{"link", "passwd", "pipe", "a:b", "large", `"a" is`} {
		if !strings.Contains(strings.Join(o.Refused, "\n"), word) {
			t.Errorf("%s is not named: %v", word, o.Refused)
		}
	}
	if data, err := w.Read("src/a.txt"); err != nil || string(data) != "one\ntwo\n" {
		t.Errorf("%q, %v", data, err)
	}
	err = filepath.WalkDir(filepath.Dir(w.Dir()), func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !entry.Type().IsRegular() {
			t.Error("planted:", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if refused, err := w.Check(); err != nil || len(refused) > 0 {
		t.Error(refused, err)
	}
	if err := w.Save(t.Context()); err != nil {
		t.Error(err)
	}
}
