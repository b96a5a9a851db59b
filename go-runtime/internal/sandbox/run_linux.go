package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// selfExe is this binary, wherever it lies and whoever may look there.
	selfExe = "/proc/self/exe"
	// launcherTime is what the launcher gets beyond the command's own time.
	launcherTime = 30 * time.Second
	// nobody is who commands are when the runtime is root.
	nobody = 65534
	// commandUID is who a command believes to be.
	commandUID = 1000
)

// execute starts the launcher, gives it the command and the folder, and takes
// back what was left.
func (s *Sandbox) execute(ctx context.Context, c Command) (response, Outcome, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.Limits.Wall+launcherTime, errors.New("the launcher does not end"))
	defer cancel()
	toLauncher, requests, err := os.Pipe()
	if err != nil {
		return response{}, Outcome{}, fmt.Errorf("open a pipe: %w", err)
	}
	responses, fromLauncher, err := os.Pipe()
	if err != nil {
		return response{}, Outcome{}, errors.Join(fmt.Errorf("open a pipe: %w", err), toLauncher.Close(), requests.Close())
	}
	stdout, stderr := &cut{limit: c.Limits.Output}, &cut{limit: c.Limits.Output}
	cmd := exec.CommandContext(ctx, selfExe)
	cmd.Args = append([]string{"agent-runtime"}, s.cfg.Launcher...)
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(c.Stdin), stdout, stderr
	cmd.ExtraFiles = []*os.File{toLauncher, fromLauncher}
	cmd.WaitDelay = launcherTime
	uid := isolate(cmd)
	err = cmd.Start()
	_, _ = toLauncher.Close(), fromLauncher.Close()
	if err != nil {
		_, _ = requests.Close(), responses.Close()
		return response{}, Outcome{}, fmt.Errorf("start the launcher in namespaces of its own: %w", err)
	}
	// The launcher may end early; then writing and reading end.
	stop := context.AfterFunc(ctx, func() { _, _ = requests.Close(), responses.Close() })
	defer stop()
	done, refused, err := s.converse(c, uid, requests, responses)
	// Its end ends the launcher, if it has not ended.
	_, _ = requests.Close(), responses.Close()
	waitErr := cmd.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return response{}, Outcome{}, cause
	}
	if err != nil {
		return response{}, Outcome{}, fmt.Errorf("%w; the launcher ended: %s", err, ended(waitErr, stderr))
	}
	return done, Outcome{
		Stdout: stdout.text(), Stderr: stderr.text(), Truncated: stdout.thrown+stderr.thrown > 0, Refused: refused,
	}, nil
}

// ended says how a launcher ended that gave no good answer.
func ended(err error, stderr *cut) string {
	said := oneLine(string(stderr.text()))
	if err != nil {
		said = err.Error() + ": " + said
	}
	return said
}

// converse gives the launcher its request and takes the response.
func (s *Sandbox) converse(c Command, uid int, requests, responses *os.File) (response, []string, error) {
	var done response
	sendErr := writeLine(requests, request{
		Args: c.Args, Env: c.Env, ReadOnly: slices.Concat(usualPaths(), s.cfg.ReadOnly), Hidden: s.cfg.Hidden,
		Mounts: c.ReadOnly, HasFolder: c.Folder != nil, Limits: c.Limits, UID: uid,
	})
	var back func(io.Reader) ([]string, error)
	if sendErr == nil && c.Folder != nil {
		back, sendErr = c.Folder.Send(requests)
	}
	if sendErr != nil {
		_ = requests.Close() // the rest of it does not come
	}
	reader := bufio.NewReader(responses)
	// A launcher that fails says why, whatever became of the request.
	if err := readLine(reader, &done); err != nil {
		return response{}, nil, errors.Join(sendErr, fmt.Errorf("the launcher gave no answer: %w", err))
	}
	switch {
	case done.Error != "":
		return response{}, nil, errors.Join(sendErr, errors.New(done.Error))
	case sendErr != nil:
		return response{}, nil, sendErr
	case back == nil:
		return done, nil, nil
	}
	refused, err := back(reader)
	return done, refused, err
}

// isolate gives a process namespaces of its own, and returns who its command
// will be there; 0: who it is itself.
func isolate(cmd *exec.Cmd) (uid int) {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID |
			unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Setsid: true,
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: commandUID, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: commandUID, HostID: os.Getegid(), Size: 1}}
		cmd.SysProcAttr.AmbientCaps = []uintptr{
			unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER, unix.CAP_KILL, unix.CAP_SETPCAP,
			unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_SYS_RESOURCE,
		}
		return 0
	}
	// Root reads what is shown to the command; the command itself is nobody.
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{
		{ContainerID: 0, HostID: 0, Size: 1}, {ContainerID: commandUID, HostID: nobody, Size: 1},
	}
	cmd.SysProcAttr.GidMappings = cmd.SysProcAttr.UidMappings
	cmd.SysProcAttr.GidMappingsEnableSetgroups = true
	return commandUID
}

// usualPaths are where programs and what they need usually are.
func usualPaths() []string {
	return []string{
		"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64",
		"/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/mime.types",
	}
}
