package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// When the runtime is killed, its commands end.
func TestCommandEndsWithTheRuntime(t *testing.T) {
	t.Parallel()
	start(t, nil)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), runHelper+"=trap '' TERM HUP; sleep 1000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "sent\n" {
		t.Fatal(line, err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
	if err != nil {
		t.Skip(err)
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		more, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", cmd.Process.Pid, thread.Name()))
		text = append(text, more...)
	}
	children := strings.Fields(string(text))
	if len(children) == 0 {
		t.Fatal("no launcher")
	}
	pid, err := strconv.Atoi(children[0])
	if err != nil {
		t.Fatal(err)
	}
	launcher, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(launcher) }()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	ended := []unix.PollFd{{Fd: int32(launcher), Events: unix.POLLIN}}
	n, err := unix.Poll(ended, 20_000)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Poll(ended, 20_000)
	}
	if err != nil || n != 1 {
		t.Errorf("the launcher lives: %v", err)
	}
}

// The runtime need not be root: everything holds for a user without rights.
func TestEverythingHoldsForAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	start(t, nil)
	dir, err := os.MkdirTemp("/tmp", "sandbox-test-") //nolint:usetesting // the user cannot enter the folder above that of a test
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), selfExe, "-test.v", "-test.timeout=4m", "-test.skip=TestFlood|TestComputing")
	cmd.Env, cmd.Dir = []string{"TMPDIR=" + dir, "PATH=" + os.Getenv("PATH")}, dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
	out, err := cmd.CombinedOutput()
	text := string(out)
	if err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	if strings.Contains(text, "cannot be isolated here") {
		t.Skip("not here:\n", text)
	}
	if !strings.Contains(text, "--- PASS: TestMachineIsNotSeen") {
		t.Error(text)
	}
}
