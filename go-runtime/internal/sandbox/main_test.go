package sandbox

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"
)

// launchArgument makes the test binary the launcher.
const launchArgument = "sandbox-exec"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == launchArgument {
		if err := Launch(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if script := os.Getenv(runHelper); script != "" {
		runAndWait(script)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// runHelper makes the test binary a process that runs a command.
const runHelper = "TEST_SANDBOX_RUNS"

func runAndWait(script string) {
	s, err := New(Config{Launcher: []string{launchArgument}})
	if err != nil || s.Start(context.Background()) != nil {
		return
	}
	_, _ = s.Run(context.Background(), Command{Args: []string{"sh", "-c", script}, Folder: &telling{}})
}

// telling is an empty folder that says that the command is about to begin.
type telling struct{}

func (*telling) Send(to io.Writer) (func(io.Reader) ([]string, error), error) {
	err := tar.NewWriter(to).Close()
	fmt.Println("sent") //nolint:forbidigo // it tells its parent
	return func(io.Reader) ([]string, error) { return nil, nil }, err
}

// start returns a sandbox that runs commands, or skips the test where none can
// be: with what reason is told.
func start(t *testing.T, change func(*Config)) *Sandbox {
	t.Helper()
	cfg := Config{Launcher: []string{launchArgument}}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := s.Capabilities(); !c.Available {
		t.Skip("commands cannot be isolated here: ", c.Reason)
	}
	return s
}

func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skip(err)
	}
}
