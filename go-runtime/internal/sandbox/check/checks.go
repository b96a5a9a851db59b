package check

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"go.yaml.in/yaml/v3"

	"github.com/djangobridge/djangobridge/go-runtime/internal/sandbox"
)

// checks are all that there are, in the order in which they are made.
func checks() []check {
	return []check{
		{name: "json", wants: isStrictJSON, parse: parseJSON},
		{name: "yaml", wants: ending(".yaml", ".yml"), parse: parseYAML},
		{name: "toml", wants: ending(".toml"), parse: parseTOML},
		{name: "gofmt", wants: ending(".go"), command: gofmt, verdict: silent},
		{name: "go vet", wants: ending(".go"), command: goCommand("vet"), verdict: modulesMissing, roots: goRoots, compiles: true},
		{
			name: "go test", wants: ending("_test.go"), command: goCommand("test", "-timeout=1m", "-vet=off"),
			verdict: modulesMissing, roots: goRoots, compiles: true,
		},
		{name: "python", wants: ending(".py", ".pyi"), command: pythonSyntax},
		{name: "ruff", wants: ending(".py", ".pyi"), command: ruff},
		{name: "pytest", wants: isPythonTest, command: pythonTests, verdict: testsFound},
		{name: "javascript", wants: ending(".js", ".mjs", ".cjs", ".jsx"), command: webFiles, verdict: parsed, quiet: true},
		{name: "typescript", wants: ending(".ts", ".tsx", ".mts", ".cts"), command: webFiles, verdict: parsed, quiet: true},
		{name: "css", wants: ending(".css"), command: webFiles, verdict: parsed, quiet: true},
		{name: "html", wants: isHTML, command: webFiles, verdict: parsed, quiet: true},
		{name: "sh", wants: ending(".sh", ".bash"), command: shellSyntax},
	}
}

func ending(suffixes ...string) func(string) bool {
	return func(p string) bool {
		return slices.ContainsFunc(suffixes, func(suffix string) bool { return strings.HasSuffix(p, suffix) })
	}
}

// isStrictJSON leaves out the files that may have comments by custom.
func isStrictJSON(p string) bool {
	name := path.Base(p)
	return strings.HasSuffix(name, ".json") && !strings.HasPrefix(name, "tsconfig") && !strings.HasPrefix(name, "jsconfig") &&
		!strings.HasPrefix(p, ".vscode/")
}

func isPythonTest(p string) bool {
	name := path.Base(p)
	return strings.HasSuffix(name, ".py") && strings.HasPrefix(name, "test_") || strings.HasSuffix(name, "_test.py")
}

func parseJSON(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	var value json.RawMessage
	err := decoder.Decode(&value)
	if err == nil {
		if _, more := decoder.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("there is something behind the value")
		}
	}
	return err
}

func parseYAML(data []byte) error {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var node yaml.Node
		if err := decoder.Decode(&node); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func parseTOML(data []byte) error {
	var value map[string]any
	if _, err := toml.Decode(string(data), &value); err != nil {
		return err
	}
	return nil
}

// silent is the verdict of programs that list what is wrong, and exit with 0.
func silent(o sandbox.Outcome) (Status, string) {
	if o.ExitCode == 0 && len(o.Stdout) == 0 {
		return Passed, ""
	}
	return Failed, ""
}

const noGo = "go is not on this machine"

func gofmt(p *Programs, _ string, files []string) (sandbox.Command, string) {
	if p.goRoot == "" {
		return sandbox.Command{}, noGo
	}
	return sandbox.Command{Args: append([]string{path.Join(p.goRoot, "bin", "gofmt"), "-l", "-e"}, files...)}, ""
}

// goRoots are the folders of modules; one without is made a module.
func goRoots(all []string) []string {
	var roots []string
	for _, p := range all {
		if path.Base(p) == "go.mod" {
			roots = append(roots, path.Dir(p))
		}
	}
	if len(roots) == 0 {
		return []string{"."}
	}
	return roots
}

// goScript begins with a cache of links to what there is of the standard
// library; what it adds to it goes with the command. It must look new, or the go
// command removes what is older than some days.
const goScript = `cd "$1" && { test -f go.mod || "$2" mod init workspace >/dev/null 2>&1; } && shift
mkdir -p "$GOCACHE"
if test -d ` + goCachePlace + `; then
	cp -rs ` + goCachePlace + `/. "$GOCACHE"
	rm -f "$GOCACHE"/trim.txt && date +%s >"$GOCACHE"/trim.txt
fi
exec "$@" ./...`

// goCommand looks at all packages of a module.
func goCommand(verb string, options ...string) func(*Programs, string, []string) (sandbox.Command, string) {
	return func(p *Programs, root string, _ []string) (sandbox.Command, string) {
		if p.goTool == "" {
			return sandbox.Command{}, noGo
		}
		return sandbox.Command{
			Args: append([]string{"sh", "-c", goScript, "sh", "./" + root, p.goTool, verb}, options...),
			Env:  append(goEnvironment(), "GOCACHE=/tmp/cache", "GOPATH=/tmp/go", "GOTMPDIR=/tmp"),
			Limits: sandbox.Limits{
				Wall: 3 * time.Minute, CPU: 3 * time.Minute, Memory: 1 << 30, Processes: 256, OpenFiles: 1024,
				FileBytes: 256 << 20, DiskBytes: 512 << 20, Files: 50_000,
			},
		}, ""
	}
}

// modulesMissing tells mistakes from modules that cannot be fetched here.
func modulesMissing(o sandbox.Outcome) (Status, string) {
	for _, sign := range []string{"GOPROXY=off", "no required module provides package", "missing go.sum entry"} {
		if o.ExitCode != 0 && bytes.Contains(o.Stderr, []byte(sign)) {
			return Skipped, "it needs modules that are not there, and there is no network: " + firstLine(o.Stderr)
		}
	}
	if o.ExitCode == 0 {
		return Passed, ""
	}
	return Failed, ""
}

func firstLine(text []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(text), []byte("\n"))
	return clip(string(line))
}

const noPython = "python3 is not on this machine"

// pythonScript compiles files without writing anything.
const pythonScript = `import sys
bad = 0
for name in sys.argv[1:]:
    try:
        with open(name, "rb") as source:
            compile(source.read(), name, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as mistake:
        bad = 1
        place = getattr(mistake, "lineno", None) or 1
        print(f"{name}:{place}: {type(mistake).__name__}: {getattr(mistake, 'msg', mistake)}")
sys.exit(bad)`

func pythonSyntax(p *Programs, _ string, files []string) (sandbox.Command, string) {
	if p.python.Executable == "" {
		return sandbox.Command{}, noPython
	}
	return sandbox.Command{Args: append([]string{p.python.Executable, "-I", "-c", pythonScript}, files...)}, ""
}

func ruff(p *Programs, _ string, files []string) (sandbox.Command, string) {
	if p.ruff == "" {
		return sandbox.Command{}, "ruff is not on this machine"
	}
	return sandbox.Command{Args: append([]string{p.ruff, "check", "--no-cache", "--output-format=concise"}, files...)}, ""
}

func pythonTests(p *Programs, _ string, _ []string) (sandbox.Command, string) {
	if p.python.Executable == "" {
		return sandbox.Command{}, noPython
	}
	args := []string{"-m", "unittest", "discover", "-p", "*test*.py"}
	if p.python.Pytest {
		args = []string{"-m", "pytest", "-q", "-p", "no:cacheprovider"}
	}
	return sandbox.Command{
		Args: append([]string{p.python.Executable, "-B"}, args...),
		// The machine's plugins are not those of the files.
		Env:    []string{"PYTHONPATH=.", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1"},
		Limits: sandbox.Limits{Wall: time.Minute, CPU: time.Minute},
	}, ""
}

// testsFound knows the exit code of pytest and unittest for no test at all.
func testsFound(o sandbox.Outcome) (Status, string) {
	switch o.ExitCode {
	case 0:
		return Passed, ""
	case 5:
		return Skipped, "there is no test in the files of tests"
	default:
		return Failed, ""
	}
}

// shellScript looks at every file with the shell that its first line names.
const shellScript = `sh=$1 bash=$2; shift 2; bad=0
for file; do
	shell=$sh
	case "$file$(head -n 1 "$file")" in *.bash*|*'#!'*bash*) shell=$bash ;; esac
	"$shell" -n "$file" || bad=1
done
exit $bad`

func shellSyntax(p *Programs, _ string, files []string) (sandbox.Command, string) {
	if p.shell == "" {
		return sandbox.Command{}, "sh is not on this machine"
	}
	return sandbox.Command{Args: append([]string{"sh", "-c", shellScript, "sh", p.shell, cmp.Or(p.bash, p.shell)}, files...)}, ""
}
