package sandbox

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func run(t *testing.T, s *Sandbox, c Command) Outcome {
	t.Helper()
	outcome, err := s.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return outcome
}

func sh(script string) Command { return Command{Args: []string{"sh", "-c", script}} }

func TestCommandRuns(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for name, test := range map[string]struct {
		command        Command
		code           int
		stdout, stderr string
	}{
		"output":      {sh("echo out; echo err >&2"), 0, "out\n", "err\n"},
		"exit code":   {sh("exit 3"), 3, "", ""},
		"input":       {Command{Args: []string{"cat"}, Stdin: []byte("given")}, 0, "given", ""},
		"unread":      {Command{Args: []string{"true"}, Stdin: bytes.Repeat([]byte("x"), 1<<20)}, 0, "", ""},
		"environment": {Command{Args: []string{"env"}, Env: []string{"A=b"}}, 0, strings.Join(environment(), "\n") + "\nA=b\n", ""},
		"folder":      {sh("pwd; ls -A"), 0, "/workspace\n", ""},
		"user":        {sh("id -un; id -u; id -G; hostname"), 0, "sandbox\n1000\n1000\nsandbox\n", ""},
		"open files":  {sh("ls /proc/self/fd | tr '\\n' ' '"), 0, "0 1 2 3 ", ""},
		"no program":  {Command{Args: []string{"no-such-program"}}, 127, "", "no-such-program: executable file not found in $PATH\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := run(t, s, test.command)
			if o.ExitCode != test.code || string(o.Stdout) != test.stdout || string(o.Stderr) != test.stderr {
				t.Errorf("exit code %d\n%s%s", o.ExitCode, o.Stdout, o.Stderr)
			}
			if o.Signal != "" || o.TimedOut || o.OutOfMemory || o.Truncated || o.Duration <= 0 {
				t.Errorf("%+v", o)
			}
		})
	}
}

// memoryFolder is a folder in memory.
type memoryFolder struct {
	files map[string]string
	types map[string]byte // of what came back
	fail  error
}

func (f *memoryFolder) Send(to io.Writer) (func(io.Reader) ([]string, error), error) {
	archive := tar.NewWriter(to)
	for name, content := range f.files {
		if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o600}); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(archive, content); err != nil {
			return nil, err
		}
	}
	if f.fail != nil {
		return nil, f.fail
	}
	return f.back, archive.Close()
}

func (f *memoryFolder) back(from io.Reader) ([]string, error) {
	f.files, f.types = map[string]string{}, map[string]byte{}
	archive := tar.NewReader(from)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return []string{"noted"}, nil
		}
		if err != nil {
			return nil, err
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			return nil, err
		}
		f.files[header.Name], f.types[header.Name] = string(content), header.Typeflag
	}
}

func TestFolderIsCopiedThereAndBack(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	large := strings.Repeat("0123456789abcdef", 100_000)
	f := &memoryFolder{files: map[string]string{"a/b/c.txt": "one", "gone": "", "large": large, "- x; rm *": "odd"}}
	o := run(t, s, Command{Folder: f, Args: []string{"sh", "-c", `
		cat a/b/c.txt; echo two >> a/b/c.txt; rm gone; mkdir -p new/empty; echo new > new/file; chmod 000 new/file; chmod 000 new
		ln -s /etc/passwd link; ln a/b/c.txt hard; mkfifo pipe
		python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")' || true`}})
	if o.ExitCode != 0 || string(o.Stdout) != "one" || fmt.Sprint(o.Refused) != "[noted]" {
		t.Fatalf("%+v\n%s", o, o.Stderr)
	}
	want := map[string]string{"a/b/c.txt": "onetwo\n", "large": large, "new/file": "new\n", "- x; rm *": "odd", "hard": "onetwo\n"}
	for name, content := range want {
		if f.types[name] != tar.TypeReg || f.files[name] != content {
			t.Errorf("%s: %.40q", name, f.files[name])
		}
	}
	for name, kind := range map[string]byte{"link": tar.TypeSymlink, "pipe": tar.TypeFifo, "gone": 0} {
		if f.types[name] != kind || f.files[name] != "" {
			t.Errorf("%s: %q, %q", name, f.types[name], f.files[name])
		}
	}
}

func TestFolderThatFails(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	broken := errors.New("broken disk")
	_, err := s.Run(t.Context(), Command{Args: []string{"true"}, Folder: &memoryFolder{files: map[string]string{"a": "a"}, fail: broken}})
	if !errors.Is(err, broken) {
		t.Error("a folder that cannot be read:", err)
	}
	// What does not fit is an error, not an outcome.
	_, err = s.Run(t.Context(), Command{
		Args: []string{"true"}, Folder: &memoryFolder{files: map[string]string{"a": strings.Repeat("a", 1<<20)}}, Limits: Limits{DiskBytes: 64 << 10},
	})
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Error(err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *Config) { c.MaxConcurrent = 1 })
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	f := &endless{begun: make(chan struct{})}
	ended := make(chan error, 1)
	go func() {
		_, err := s.Run(ctx, Command{Args: []string{"sleep", "1000"}, Folder: f})
		ended <- err
	}()
	<-f.begun
	waiting, stopWaiting := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, reason)
	defer stopWaiting()
	if _, err := s.Run(waiting, sh("true")); !errors.Is(err, reason) {
		t.Error("while another has the only place:", err)
	}
	cancel(reason)
	if err := <-ended; !errors.Is(err, reason) {
		t.Error(err)
	}
	if o := run(t, s, sh("echo again")); string(o.Stdout) != "again\n" {
		t.Errorf("%+v", o)
	}
}

// endless is an empty folder that says when the command is about to begin.
type endless struct{ begun chan struct{} }

func (f *endless) Send(to io.Writer) (func(io.Reader) ([]string, error), error) {
	close(f.begun)
	return func(io.Reader) ([]string, error) { return nil, nil }, tar.NewWriter(to).Close()
}

func TestModes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cfg    Config
		reason string
	}{
		"off":         {Config{Mode: Off, Launcher: []string{launchArgument}}, "turned off"},
		"no launcher": {Config{}, "no launcher"},
		"broken one":  {Config{Launcher: []string{"--no-such-flag"}}, "the launcher gave no answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := New(test.cfg)
			if err != nil {
				t.Fatal(err)
			}
			if o := run(t, s, sh("echo run")); !strings.HasPrefix(o.NotRun, "not run: ") {
				t.Errorf("before the start: %+v", o)
			}
			if err := s.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			o := run(t, s, sh("echo run"))
			if !strings.HasPrefix(o.NotRun, "not run: ") || !strings.Contains(o.NotRun, test.reason) || len(o.Stdout) > 0 || s.Capabilities().Available {
				t.Errorf("%+v", o)
			}
			if test.cfg.Mode == Off {
				return
			}
			test.cfg.Mode = Require
			s, err = New(test.cfg)
			if err != nil {
				t.Fatal(err)
			}
			var unavailable *UnavailableError
			if err := s.Start(t.Context()); !errors.As(err, &unavailable) || !strings.Contains(unavailable.Reason, test.reason) {
				t.Error("required:", err)
			}
		})
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Mode: "maybe", MaxConcurrent: -1, ReadOnly: []string{"usr", "/"}, Hidden: []string{"/a/../b"}})
	for _, mistake := range []string{"maybe", "number of commands", `"usr"`, `"/"`, "/a/../b"} {
		if err == nil || !strings.Contains(err.Error(), mistake) {
			t.Errorf("%s: %v", mistake, err)
		}
	}
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Command{
		"no program": {}, "empty program": {Args: []string{""}}, "negative": {Args: []string{"true"}, Limits: Limits{Wall: -1}},
		"too little memory": {Args: []string{"true"}, Limits: Limits{Memory: 1}},
	} {
		if _, err := s.Run(t.Context(), c); err == nil {
			t.Error(name)
		}
	}
	if err := Launch(nil); err == nil {
		t.Error("the launcher ran outside its namespace")
	}
}

// What is shown beside the usual can be read; what is hidden cannot, even there.
func TestReadOnlyAndHidden(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tools/program", "tools/data/secret", "tools/key", "other"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\necho "+name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, func(c *Config) {
		c.ReadOnly = []string{dir + "/tools", dir + "/missing"}
		c.Hidden = []string{dir + "/tools/data", dir + "/tools/key", dir + "/other"}
	})
	o := run(t, s, sh(fmt.Sprintf("cd %s; tools/program; ls; ls tools/data; cat tools/data/secret tools/key other; echo x > tools/new", dir)))
	if text := string(o.Stdout); !strings.HasPrefix(text, "tools/program\n") || strings.Contains(text, "secret") || strings.Contains(text, "echo") || strings.Contains(text, "other") {
		t.Errorf("%s\n%s", text, o.Stderr)
	}
	if _, err := os.Stat(dir + "/tools/new"); err == nil {
		t.Error("written")
	}
}
