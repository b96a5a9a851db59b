package check

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/sandbox"
	"github.com/djangobridge/djangobridge/go-runtime/internal/workspace"
)

// Status is how a check ended.
type Status string

// The statuses.
const (
	Passed  Status = "passed"
	Failed  Status = "failed"
	Skipped Status = "skipped" // it could not be made, or not finished
)

// Result is what one check found.
type Result struct {
	// Name is the check's, such as "gofmt".
	Name string `json:"name"`
	// Files are those it is about.
	Files  []string `json:"files,omitempty"`
	Status Status   `json:"status"`
	// Output is what was found, for whoever is to repair it; of a failed check only.
	Output string `json:"output,omitempty"`
	// Reason is why a check was skipped.
	Reason string `json:"reason,omitempty"`
}

// Folder is the files of a workspace.
type Folder interface {
	sandbox.Folder
	List() []workspace.File
	Read(path string) ([]byte, error)
}

// Runner runs commands, as *sandbox.Sandbox does.
type Runner interface {
	Run(ctx context.Context, c sandbox.Command) (sandbox.Outcome, error)
}

// check is one check of a kind of files.
type check struct {
	name  string
	wants func(path string) bool
	// parse looks at one file, without a program; nil for other checks.
	parse func(data []byte) error
	// command is what is to be run for files of one root; skip says why it cannot be.
	command func(programs *Programs, root string, files []string) (c sandbox.Command, skip string)
	// verdict reads the outcome; nil: exit code 0 has passed.
	verdict func(o sandbox.Outcome) (Status, string)
	// roots says in which folders it is made, each with the files below; nil: in one for all.
	roots func(all []string) []string
	// compiles says that it needs the standard library of Go compiled, and so may
	// take long whatever the files are.
	compiles bool
	// quiet says that standard error is for the verdict alone.
	quiet bool
}

// maxOutput is how much of what a check found is kept.
const maxOutput = 16 << 10

// Run makes every check that there is for the files. Errors: the sandbox's, the
// context's, the disk's.
func Run(ctx context.Context, programs *Programs, runner Runner, files Folder) ([]Result, error) {
	var all []string
	for _, file := range files.List() {
		all = append(all, file.Path)
	}
	var results []Result
	for _, one := range checks() {
		wanted := filter(all, one.wants)
		if len(wanted) == 0 {
			continue
		}
		made, err := one.run(ctx, programs, runner, files, all, wanted)
		if err != nil {
			return nil, fmt.Errorf("check %s: %w", one.name, err)
		}
		results = append(results, made...)
	}
	return results, nil
}

func filter(paths []string, wants func(string) bool) (wanted []string) {
	for _, p := range paths {
		if wants(p) {
			wanted = append(wanted, p)
		}
	}
	return wanted
}

func (c *check) run(ctx context.Context, programs *Programs, runner Runner, files Folder, all, wanted []string) ([]Result, error) {
	if c.parse != nil {
		result, err := c.parseAll(files, wanted)
		return []Result{result}, err
	}
	roots := []string{"."}
	if c.roots != nil {
		roots = c.roots(all)
	}
	var results []Result
	for _, root := range roots {
		below := filter(wanted, func(p string) bool { return rootOf(p, roots) == root })
		if len(below) == 0 {
			continue
		}
		result, err := c.runIn(ctx, programs, runner, files, root, below)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}

// rootOf returns the innermost of the roots that a file is below, or "".
func rootOf(file string, roots []string) string {
	for folder := path.Dir(file); ; folder = path.Dir(folder) {
		if slices.Contains(roots, folder) {
			return folder
		}
		if folder == "." {
			return ""
		}
	}
}

// parseAll looks at files one by one.
func (c *check) parseAll(files Folder, wanted []string) (Result, error) {
	result := Result{Name: c.name, Files: wanted, Status: Passed}
	var found strings.Builder
	for _, p := range wanted {
		data, err := files.Read(p)
		if err != nil {
			return Result{}, err
		}
		if err := c.parse(data); err != nil {
			result.Status = Failed
			fmt.Fprintf(&found, "%s: %v\n", p, err)
		}
	}
	result.Output = clip(found.String())
	return result, nil
}

// runIn runs the check's program on the files of one root.
func (c *check) runIn(
	ctx context.Context, programs *Programs, runner Runner, files Folder, root string, wanted []string,
) (Result, error) {
	result := Result{Name: c.name, Files: wanted, Status: Skipped}
	command, skip := c.command(programs, root, relative(root, wanted))
	if skip != "" {
		result.Reason = skip
		return result, nil
	}
	if c.compiles && programs.goCache != nil {
		mount, err := programs.goCache.mount(ctx)
		if err != nil {
			result.Reason = err.Error()
			return result, context.Cause(ctx)
		}
		command.ReadOnly = []sandbox.Mount{mount}
	}
	command.Folder = copied{files}
	command.Limits.Output = cmp.Or(command.Limits.Output, maxOutput)
	o, err := runner.Run(ctx, command)
	if err != nil {
		return Result{}, err
	}
	result.Status, result.Reason = c.judge(o)
	if result.Status == Failed {
		said := string(o.Stdout)
		if !c.quiet {
			said += "\n" + string(o.Stderr)
		}
		result.Output = clip(strings.TrimSpace(said + "\n" + result.Reason))
		result.Reason = ""
	}
	return result, nil
}

// judge says what the outcome of the command means, and why.
func (c *check) judge(o sandbox.Outcome) (Status, string) {
	unfinished := Failed
	if c.compiles {
		unfinished = Skipped
	}
	switch {
	case o.NotRun != "":
		return Skipped, o.NotRun
	case o.TimedOut:
		return unfinished, fmt.Sprintf("it was not finished after %s", o.Duration.Round(time.Second))
	case o.OutOfMemory:
		return unfinished, "it took more memory than it may"
	case o.ExitCode == 127:
		return Skipped, "its program could not be run: " + strings.TrimSpace(string(o.Stderr))
	case c.verdict != nil:
		return c.verdict(o)
	case o.ExitCode == 0:
		return Passed, ""
	default:
		return Failed, ""
	}
}

// relative makes paths of a root's files such that no program takes one for an option.
func relative(root string, files []string) []string {
	made := make([]string, len(files))
	for i, p := range files {
		if root != "." {
			p = strings.TrimPrefix(p, root+"/")
		}
		made[i] = "./" + p
	}
	return made
}

func clip(text string) string {
	if len(text) <= maxOutput {
		return text
	}
	return strings.ToValidUTF8(text[:maxOutput], "") + "\n[cut here]"
}

// copied is a folder that takes nothing back.
type copied struct{ from sandbox.Folder }

// Send implements sandbox.Folder.
func (c copied) Send(to io.Writer) (func(io.Reader) ([]string, error), error) {
	if _, err := c.from.Send(to); err != nil {
		return nil, err
	}
	return func(from io.Reader) ([]string, error) {
		_, err := io.Copy(io.Discard, from)
		return nil, err
	}, nil
}
