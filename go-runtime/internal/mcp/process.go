package mcp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

// How long the process of a server has to end by itself.
const (
	// closeGrace is after the end of its input, termGrace after SIGTERM.
	closeGrace = 2 * time.Second
	termGrace  = 2 * time.Second
	// maxLogLine is how much of a line that a server writes to its log is kept.
	maxLogLine = 4 << 10
)

// keptVariables are those of the runtime's environment that the commands of servers
// are given too. Its others may be secrets.
func keptVariables() []string {
	return []string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR", "TERM"}
}

// process is the command of a server, in a process group of its own.
type process struct {
	command *exec.Cmd
	stdin   *os.File
	stdout  *os.File
	// ended is closed once the command has ended and its group is killed.
	ended chan struct{}
	// waiting counts the goroutines that wait for the command and read its log.
	waiting sync.WaitGroup
	stderr  *os.File
}

// startProcess starts a command. What it writes to its standard error goes into the
// log, at level debug.
func startProcess(cfg ServerConfig, environment []string, log *slog.Logger) (*process, error) {
	//nolint:gosec,noctx // the operator's own command, ended by stop
	command := exec.Command(cfg.Command, cfg.Args...)
	command.Dir = cfg.Cwd
	command.Env = environment
	for name, value := range cfg.Env {
		command.Env = append(command.Env, name+"="+value)
	}
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Pipes of our own: those of exec.Cmd are closed when the command ends, while they are read.
	var files []*os.File
	pipe := func() (r, w *os.File, err error) {
		if r, w, err = os.Pipe(); err == nil {
			files = append(files, r, w)
		}
		return r, w, err
	}
	closeAll := func(files ...*os.File) {
		for _, file := range files {
			_ = file.Close()
		}
	}
	childIn, stdin, errIn := pipe()
	stdout, childOut, errOut := pipe()
	stderr, childErr, errErr := pipe()
	if err := errors.Join(errIn, errOut, errErr); err != nil {
		closeAll(files...)
		return nil, fmt.Errorf("make pipes: %w", err)
	}
	command.Stdin, command.Stdout, command.Stderr = childIn, childOut, childErr
	if err := command.Start(); err != nil {
		closeAll(files...)
		return nil, err
	}
	closeAll(childIn, childOut, childErr)
	p := &process{command: command, stdin: stdin, stdout: stdout, stderr: stderr, ended: make(chan struct{})}
	p.waiting.Go(func() { logLines(stderr, log) })
	p.waiting.Go(func() {
		defer close(p.ended)
		err := command.Wait()
		// What the command left behind holds its pipes open and belongs to nobody.
		p.signal(syscall.SIGKILL)
		log.Debug("mcp server process ended", "state", command.ProcessState.String(), "err", err)
	})
	return p, nil
}

// signal sends a signal to the whole group.
func (p *process) signal(s syscall.Signal) {
	_ = syscall.Kill(-p.command.Process.Pid, s)
}

// transport speaks with the process.
func (p *process) transport() *sdk.IOTransport {
	return &sdk.IOTransport{Reader: p.stdout, Writer: p.stdin}
}

// stop ends the process: first its input, then politely, then for certain; at once
// when ctx has ended. It returns when the process and what it started are gone.
func (p *process) stop(ctx context.Context) {
	_ = p.stdin.Close()
	for _, next := range []struct {
		after  time.Duration
		signal syscall.Signal
	}{{closeGrace, syscall.SIGTERM}, {termGrace, syscall.SIGKILL}} {
		timer := time.NewTimer(next.after)
		select {
		case <-p.ended:
		case <-ctx.Done():
			p.signal(syscall.SIGKILL)
		case <-timer.C:
			p.signal(next.signal)
		}
		timer.Stop()
	}
	<-p.ended
	// A child that left the group may hold them open.
	_ = p.stdout.Close()
	_ = p.stderr.Close()
	p.waiting.Wait()
}

// logLines writes each line to the log, long ones cut, until there are no more.
func logLines(from io.Reader, log *slog.Logger) {
	reader := bufio.NewReaderSize(from, maxLogLine)
	for {
		line, more, err := reader.ReadLine()
		if len(line) > 0 {
			log.Debug("mcp server says", "line", string(line), "cut", more)
		}
		for more && err == nil {
			_, more, err = reader.ReadLine()
		}
		if err != nil {
			return
		}
	}
}
