package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Mode says what happens where commands cannot be isolated.
type Mode string

// The modes.
const (
	Auto    Mode = "auto"    // commands are run only if they can be isolated
	Require Mode = "require" // and if they cannot, Start fails
	Off     Mode = "off"     // no command is run
)

// Limits bound one command. A zero value means the default.
type Limits struct {
	// Wall is how long it may take, CPU how long each of its processes may compute.
	Wall, CPU time.Duration
	// Memory bounds what its processes hold together, but for files.
	Memory int64
	// Processes bounds its processes and threads.
	Processes int
	// Output bounds standard output and standard error, each; what is beyond is
	// read and thrown away.
	Output int
	// FileBytes is the largest file it may write, DiskBytes what all files of
	// /workspace and those of /tmp may take, each.
	FileBytes, DiskBytes int64
	// Files bounds the files and folders of /workspace and of /tmp, each.
	Files int
	// OpenFiles bounds the open files of each process.
	OpenFiles int
}

// DefaultLimits are those of a tool that looks a small project through.
func DefaultLimits() Limits {
	return Limits{
		Wall: 30 * time.Second, CPU: 30 * time.Second, Memory: 512 << 20, Processes: 64, Output: 64 << 10,
		FileBytes: 64 << 20, DiskBytes: 128 << 20, Files: 10_000, OpenFiles: 256,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	return Limits{
		Wall: cmp.Or(l.Wall, d.Wall), CPU: cmp.Or(l.CPU, d.CPU), Memory: cmp.Or(l.Memory, d.Memory),
		Processes: cmp.Or(l.Processes, d.Processes), Output: cmp.Or(l.Output, d.Output),
		FileBytes: cmp.Or(l.FileBytes, d.FileBytes), DiskBytes: cmp.Or(l.DiskBytes, d.DiskBytes),
		Files: cmp.Or(l.Files, d.Files), OpenFiles: cmp.Or(l.OpenFiles, d.OpenFiles),
	}
}

func (l Limits) validate() error {
	if l.Wall < 0 || l.CPU < 0 || l.Memory < 0 || l.Processes < 0 || l.Output < 0 || l.FileBytes < 0 || l.DiskBytes < 0 ||
		l.Files < 0 || l.OpenFiles < 0 {
		return errors.New("limits must not be negative")
	}
	if l.Memory > 0 && l.Memory < minMemory {
		return fmt.Errorf("a command needs %d bytes of memory at least, not %d", int64(minMemory), l.Memory)
	}
	return nil
}

// minMemory lets the launcher start a command.
const minMemory = 32 << 20

// Config says how commands are run.
type Config struct {
	// Mode is Auto when empty.
	Mode Mode
	// Launcher is the command that calls Launch, in this binary: what goes
	// behind the program's name. Without it no command is run.
	Launcher []string
	// ReadOnly are more folders and files of the machine that commands may read,
	// absolute, beside those that programs usually are in.
	ReadOnly []string
	// Hidden are folders and files that commands must not see even where
	// ReadOnly or a usual folder has them, absolute.
	Hidden []string
	// MaxConcurrent is how many commands run at a time; 0: 4.
	MaxConcurrent int
}

func (c Config) validate() error {
	var errs []error
	if c.Mode != Auto && c.Mode != Require && c.Mode != Off {
		errs = append(errs, fmt.Errorf("mode %q is none of %q, %q and %q", c.Mode, Auto, Require, Off))
	}
	if c.MaxConcurrent < 0 {
		errs = append(errs, errors.New("the number of commands must not be negative"))
	}
	for _, path := range slices.Concat(c.ReadOnly, c.Hidden) {
		if !filepath.IsAbs(path) || path == "/" || filepath.Clean(path) != path {
			errs = append(errs, fmt.Errorf("%q is no absolute path of a folder or file", path))
		}
	}
	return errors.Join(errs...)
}

// Folder is what a command works in: it gets a copy.
type Folder interface {
	// Send writes the files as a tar archive. back takes the archive of what the
	// command left, and names what was refused of that.
	Send(to io.Writer) (back func(io.Reader) (refused []string, err error), err error)
}

// Command is what is to be run.
type Command struct {
	// Args are the program, a name in PATH or a path, and its arguments.
	Args []string
	// Folder is /workspace, where it begins; nil: an empty one that is thrown away.
	Folder Folder
	Stdin  []byte
	// Env are more variables, NAME=value.
	Env []string
	// ReadOnly are folders that this command may read, also those that are hidden.
	ReadOnly []Mount
	Limits   Limits
}

// Mount is a folder of the machine, and where a command finds it; both absolute.
type Mount struct {
	From string `json:"from"`
	At   string `json:"at"`
}

// Outcome is how a command went.
type Outcome struct {
	// NotRun says why the command was not run; then nothing else is set.
	NotRun string
	// ExitCode is that of the program, 127 when there is none, and -1 when it
	// was killed, by Signal.
	ExitCode       int
	Signal         string
	Stdout, Stderr []byte
	// Truncated says that one of them was cut; a note at its end says so too.
	Truncated bool
	// TimedOut says that Limits.Wall was over, OutOfMemory that Limits.Memory was.
	TimedOut, OutOfMemory bool
	// Refused are the files that it left and the folder did not take, with why.
	Refused  []string
	Duration time.Duration
}

// Capabilities are what isolates commands on this machine.
type Capabilities struct {
	// Available says that commands are run; else Reason says why not.
	Available bool
	Reason    string
	// Calls says that system calls are filtered too, which is no condition.
	Calls bool
}

// String is for a log line.
func (c Capabilities) String() string {
	if !c.Available {
		return "not available: " + c.Reason
	}
	held := "namespaces for files, network and processes; limits"
	if c.Calls {
		held += "; system calls filtered"
	}
	return held
}

// UnavailableError reports that commands cannot be isolated although they must.
type UnavailableError struct{ Reason string }

// Error implements error.
func (e *UnavailableError) Error() string { return "commands cannot be isolated here: " + e.Reason }

// Sandbox runs commands. Its methods are safe for concurrent use.
type Sandbox struct {
	cfg          Config
	slots        chan struct{}
	capabilities Capabilities
}

// New validates the configuration.
func New(cfg Config) (*Sandbox, error) {
	cfg.Mode = cmp.Or(cfg.Mode, Auto)
	cfg.MaxConcurrent = cmp.Or(cfg.MaxConcurrent, 4)
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("sandbox configuration: %w", err)
	}
	return &Sandbox{
		cfg: cfg, slots: make(chan struct{}, cfg.MaxConcurrent), capabilities: Capabilities{Reason: "the sandbox was not started"},
	}, nil
}

// probeTime bounds the try of Start.
const probeTime = 20 * time.Second

// Start tries what isolates commands. With Require an *UnavailableError says
// what is missing.
func (s *Sandbox) Start(ctx context.Context) error {
	s.capabilities = Capabilities{}
	switch {
	case s.cfg.Mode == Off:
		s.capabilities.Reason = "commands are turned off (sandbox off)"
		return nil
	case len(s.cfg.Launcher) == 0:
		s.capabilities.Reason = "this program has no launcher for commands"
	default:
		probe, cancel := context.WithTimeout(ctx, probeTime)
		defer cancel()
		response, _, err := s.execute(probe, Command{Limits: DefaultLimits()})
		s.capabilities = Capabilities{Available: err == nil, Calls: response.Calls}
		if err != nil {
			s.capabilities.Reason = oneLine(err.Error())
		}
	}
	if s.cfg.Mode == Require && !s.capabilities.Available {
		return fmt.Errorf("start sandbox: %w", &UnavailableError{s.capabilities.Reason})
	}
	return nil
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// Capabilities is what Start found.
func (s *Sandbox) Capabilities() Capabilities { return s.capabilities }

// Run runs a command and waits until it and all that it started is gone. An
// error means that the sandbox failed, or ctx ended, and the folder is as it
// was; whatever the command does is an outcome.
func (s *Sandbox) Run(ctx context.Context, c Command) (Outcome, error) {
	if len(c.Args) == 0 || c.Args[0] == "" {
		return Outcome{}, errors.New("run a command: want a program")
	}
	if err := c.Limits.validate(); err != nil {
		return Outcome{}, fmt.Errorf("run %s: %w", c.Args[0], err)
	}
	if !s.capabilities.Available {
		return Outcome{NotRun: "not run: " + s.capabilities.Reason}, nil
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return Outcome{}, fmt.Errorf("run %s: %w", c.Args[0], context.Cause(ctx))
	}
	c.Limits = c.Limits.withDefaults()
	response, outcome, err := s.execute(ctx, c)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return Outcome{}, fmt.Errorf("run %s: %w", c.Args[0], err)
	}
	outcome.ExitCode, outcome.Signal = response.ExitCode, response.Signal
	outcome.TimedOut, outcome.OutOfMemory, outcome.Duration = response.TimedOut, response.OutOfMemory, response.Duration
	return outcome, nil
}
