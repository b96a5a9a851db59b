package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Programs are the programs of the machine that checks can run.
type Programs struct {
	python                            python
	ruff, shell, bash, goTool, goRoot string

	// goCache is nil without a folder for it.
	goCache *goCache
	// launcher makes this binary the launcher; see Launch.
	launcher []string
	// shown are the folders and files that they need beside the usual ones.
	shown []string
}

// python is an interpreter and what it has.
type python struct {
	Executable string `json:"executable"`
	Prefix     string `json:"prefix"`
	BasePrefix string `json:"base_prefix"`
	Pytest     bool   `json:"pytest"`
}

// askTime is how long a program has to say what it is.
const askTime = 10 * time.Second

// Config says where Find looks, and what checks have of the runtime.
type Config struct {
	// Path are the folders of programs, as PATH has them.
	Path string
	// Launcher is the command of this binary that calls Launch; without it, files
	// of web pages are not checked.
	Launcher []string
	// CacheDir is a folder for what the go command compiles of the standard
	// library, some 200 MB once Go is checked; without it, Go is compiled anew each time.
	CacheDir string
}

// Find looks for programs.
func Find(ctx context.Context, cfg Config) *Programs {
	pathList := cfg.Path
	p := Programs{launcher: slices.Clone(cfg.Launcher)}
	p.shell, p.bash = lookUp("sh", pathList), lookUp("bash", pathList)
	if p.ruff = lookUp("ruff", pathList); p.ruff != "" {
		p.show(p.ruff)
	}
	if interpreter := lookUp("python3", pathList); interpreter != "" {
		p.findPython(ctx, pathList, interpreter)
	}
	if tool := lookUp("go", pathList); tool != "" {
		if root, err := ask(ctx, pathList, tool, "env", "GOROOT"); err == nil {
			p.goRoot = strings.TrimSpace(root)
			p.goTool = filepath.Join(p.goRoot, "bin", "go")
			p.show(p.goRoot)
			if cfg.CacheDir != "" {
				p.goCache = newGoCache(cfg.CacheDir, p.goTool)
			}
		}
	}
	return &p
}

// pythonFacts asks an interpreter where it is and what it has: what is in PATH
// may be a script that looks for the interpreter.
const pythonFacts = `import importlib.util, json, sys
print(json.dumps({"executable": sys.executable, "prefix": sys.prefix, "base_prefix": sys.base_prefix,
"pytest": importlib.util.find_spec("pytest") is not None}))`

func (p *Programs) findPython(ctx context.Context, pathList, interpreter string) {
	text, err := ask(ctx, pathList, interpreter, "-c", pythonFacts)
	if err != nil || json.Unmarshal([]byte(text), &p.python) != nil {
		p.python = python{}
		return
	}
	for _, folder := range []string{p.python.Prefix, p.python.BasePrefix, filepath.Dir(filepath.Dir(resolve(p.python.Executable)))} {
		p.show(folder)
	}
}

// ReadOnly are the folders and files that a sandbox must show for the programs
// to run: for its configuration.
func (p *Programs) ReadOnly() []string { return slices.Clone(p.shown) }

// show notes a folder or file that a program needs, and what it is a link to.
func (p *Programs) show(path string) {
	for _, path := range []string{path, resolve(path)} {
		if filepath.IsAbs(path) && path != "/" && !usual(path) && !slices.Contains(p.shown, path) {
			p.shown = append(p.shown, filepath.Clean(path))
		}
	}
}

// usual reports whether a sandbox shows a path anyway.
func usual(path string) bool {
	for _, folder := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib64"} {
		if path == folder || strings.HasPrefix(path, folder+"/") {
			return true
		}
	}
	return false
}

func resolve(path string) string {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved
	}
	return path
}

// lookUp returns the absolute path of a program, or "".
func lookUp(name, pathList string) string {
	for _, folder := range filepath.SplitList(pathList) {
		if !filepath.IsAbs(folder) {
			continue // what is there depends on where one is
		}
		path := filepath.Join(folder, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// ask runs a program of the machine, which is trusted, and returns what it says.
func ask(ctx context.Context, pathList, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askTime, errors.New("it does not answer"))
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // what the operator has in PATH is trusted
	cmd.Env = []string{"PATH=" + pathList, "HOME=/nonexistent", "LANG=C.UTF-8"}
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", program, err)
	}
	return string(text), nil
}
