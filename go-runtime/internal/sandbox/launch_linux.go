package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// commandStage is the argument that makes the launcher start the command in place of itself.
const commandStage = "command"

// Launch is the launcher: what this binary does, instead of all else, when it
// is called with Config.Launcher; args are what comes behind that. The error is
// for people who call it themselves.
func Launch(args []string) error {
	if len(args) == 1 && args[0] == commandStage {
		return becomeCommand()
	}
	if os.Getpid() != 1 {
		return errors.New("this command is for the runtime's own use")
	}
	// Nobody may look into this process, nor at the files it has open.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("protect the launcher: %w", err)
	}
	if err := closeOnExec(); err != nil {
		return err
	}
	// The command may send signals here; none of them ends process 1.
	signal.Notify(make(chan os.Signal, 1))
	requests, responses := os.NewFile(requestFD, "request"), os.NewFile(responseFD, "response")
	l := &launcher{requests: bufio.NewReader(requests), responses: responses}
	if err := l.run(); err != nil {
		return writeLine(responses, response{Error: err.Error()})
	}
	return nil
}

// closeOnExec keeps every open file but the standard ones from the command,
// those too that the runtime's own parent left open.
func closeOnExec() error {
	if err := unix.CloseRange(requestFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("keep open files from the command: %w", err)
	}
	return nil
}

// launcher is process 1 of its namespace: when it ends, all others do.
type launcher struct {
	request   request
	requests  *bufio.Reader
	responses *os.File

	timedOut, outOfMemory atomic.Bool
}

func (l *launcher) run() error {
	if err := readLine(l.requests, &l.request); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if err := enter(&l.request); err != nil {
		return err
	}
	if l.request.HasFolder {
		if err := l.unpack(); err != nil {
			return fmt.Errorf("take in the folder: %w", err)
		}
	}
	// The runtime keeps the pipe open as long as it wants an answer.
	go func() {
		_, _ = io.Copy(io.Discard, l.requests)
		os.Exit(1) //nolint:forbidigo // process 1 has nobody to return to
	}()
	done, err := l.supervise()
	if err != nil {
		return err
	}
	if err := writeLine(l.responses, done); err != nil {
		return err
	}
	if l.request.HasFolder {
		return l.pack()
	}
	return nil
}

// supervise starts the command and returns when no process is left.
func (l *launcher) supervise() (response, error) {
	begun := time.Now()
	pid, failure, err := l.startCommand()
	if err != nil {
		return response{}, err
	}
	quit := make(chan struct{})
	defer close(quit)
	go l.watch(quit)

	done := response{}
	for {
		var status unix.WaitStatus
		ended, err := unix.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return response{}, fmt.Errorf("wait for the command: %w", err)
		}
		if ended == pid {
			done.ExitCode = status.ExitStatus()
			if status.Signaled() {
				done.Signal = unix.SignalName(status.Signal())
			}
			break
		}
	}
	done.Duration = time.Since(begun)
	killAll()
	done.TimedOut, done.OutOfMemory = l.timedOut.Load(), l.outOfMemory.Load()
	var started stageReport
	if err := json.NewDecoder(failure).Decode(&started); err != nil {
		return response{}, fmt.Errorf("start the command: no report (%w), exit code %d, %s", err, done.ExitCode, done.Signal)
	}
	if started.Error != "" {
		return response{}, errors.New(started.Error)
	}
	done.Calls = started.Calls
	return done, nil
}

// startCommand starts the stage that becomes the command.
func (l *launcher) startCommand() (pid int, report *os.File, err error) {
	report, reports, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	orders, order, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	//nolint:gosec // it is this program
	process, err := os.StartProcess(selfExe, append(slices.Clone(os.Args), commandStage), &os.ProcAttr{
		Dir: workspaceDir, Env: []string{}, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, orders, reports},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err = errors.Join(err, orders.Close(), reports.Close()); err != nil {
		return 0, nil, fmt.Errorf("start the command: %w", err)
	}
	err = errors.Join(writeLine(order, l.request), order.Close())
	if err != nil {
		return 0, nil, fmt.Errorf("tell the command what to be: %w", err)
	}
	pid = process.Pid
	// It is waited for with all others.
	return pid, report, process.Release()
}

// killAll ends every process but this one, and returns when they are gone.
func killAll() {
	for {
		_ = unix.Kill(-1, unix.SIGKILL) // fails when there is none
		_, err := unix.Wait4(-1, nil, 0, nil)
		if errors.Is(err, unix.ECHILD) {
			return
		}
	}
}

// watchEvery is how often memory is looked at.
const watchEvery = 50 * time.Millisecond

// watch kills the processes whose time is over or who take too much memory. The
// command is one of them, so that the launcher goes on from there.
func (l *launcher) watch(quit <-chan struct{}) {
	over := time.NewTimer(l.request.Limits.Wall)
	defer over.Stop()
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-quit:
			return
		case <-over.C:
			l.timedOut.Store(true)
			_ = unix.Kill(-1, unix.SIGKILL)
		case <-ticker.C:
			if memoryAbove(l.request.Limits.Memory) {
				l.outOfMemory.Store(true)
				_ = unix.Kill(-1, unix.SIGKILL)
			}
		}
	}
}
