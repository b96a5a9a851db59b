package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stageReport is what the stage that becomes the command tells the launcher.
type stageReport struct {
	Error string `json:"error,omitempty"`
	Calls bool   `json:"calls"`
}

// notFound is the exit code of shells for a program that is not there.
const notFound = 127

// becomeCommand limits this process and replaces it with the command.
func becomeCommand() error {
	// Rights and filters are those of one thread, which goes on as the command.
	runtime.LockOSThread()
	if err := closeOnExec(); err != nil {
		return err
	}
	report := os.NewFile(responseFD, "report")
	var r request
	err := readLine(bufio.NewReader(os.NewFile(requestFD, "order")), &r)
	calls := false
	if err == nil {
		calls, err = confine(&r)
	}
	told := stageReport{Calls: calls}
	if err != nil {
		told.Error = "limit the command: " + err.Error()
	}
	if reportErr := json.NewEncoder(report).Encode(told); reportErr != nil || err != nil {
		return errors.Join(err, reportErr)
	}
	if len(r.Args) == 0 {
		return nil
	}
	// The command has nothing that was not told to it.
	env := slices.Concat(environment(), r.Env)
	program, err := findProgram(r.Args[0], env)
	if err == nil {
		err = execWithin(uint64(r.Limits.Memory), program, r.Args, env)
	}
	_, _ = fmt.Fprintf(os.Stderr, "%s: %v\n", r.Args[0], err)
	os.Exit(notFound) //nolint:forbidigo // as a shell does
	return nil
}

// execWithin replaces this process with a program whose memory is limited. It
// returns when it could not.
//
// This process may hold more than the program is to have, and ends when it wants
// more once the limit is set: from there on nothing is allocated, nor is anything
// called that might, as [unix.Exec] does.
func execWithin(memory uint64, program string, args, env []string) error {
	path, err := unix.BytePtrFromString(program)
	if err != nil {
		return err
	}
	argv, err := syscall.SlicePtrFromStrings(args)
	if err != nil {
		return err
	}
	envp, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return err
	}
	limit := &unix.Rlimit{Cur: memory, Max: memory}
	//nolint:gosec // the calls take pointers
	_, _, errno := unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_DATA, uintptr(unsafe.Pointer(limit)), 0, 0, 0)
	if errno == 0 {
		_, _, errno = unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), //nolint:gosec // as above
			uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envp[0]))) //nolint:gosec // as above
	}
	return errno
}

// environment is what every command gets.
func environment() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + workspaceDir, "LANG=C.UTF-8"}
}

// findProgram looks a program up in the PATH of the command.
func findProgram(name string, env []string) (string, error) {
	os.Clearenv()
	for _, variable := range env {
		if path, found := strings.CutPrefix(variable, "PATH="); found {
			if err := os.Setenv("PATH", path); err != nil {
				return "", err
			}
		}
	}
	program, err := exec.LookPath(name)
	if lookup, found := errors.AsType[*exec.Error](err); found {
		err = lookup.Err
	}
	return program, err
}

// confine takes every right from this thread and sets its limits; calls says
// whether system calls are filtered.
func confine(r *request) (calls bool, err error) {
	if err := lowerPriority(); err != nil {
		return false, fmt.Errorf("lower the priority: %w", err)
	}
	// Best effort: of all processes of the machine, this one is to go first.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	for _, limit := range resourceLimits(&r.Limits) {
		if err := unix.Setrlimit(limit.resource, &unix.Rlimit{Cur: limit.soft, Max: limit.hard}); err != nil {
			return false, fmt.Errorf("set the limit of %s: %w", limit.name, err)
		}
	}
	if err := dropBounds(); err != nil {
		return false, err
	}
	if r.UID != 0 {
		if err := becomeUser(uintptr(r.UID)); err != nil {
			return false, err
		}
	}
	if err := dropCapabilities(); err != nil {
		return false, err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return false, fmt.Errorf("forbid new rights: %w", err)
	}
	return filterCalls() == nil, nil
}

// lowerPriority makes this thread nice, unless it is nicer already: it may not
// be made less so.
func lowerPriority() error {
	const nice, kernelBase = 10, 20 // the kernel's answer is the base less the nice value
	if now, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err != nil || kernelBase-now >= nice {
		return err
	}
	return unix.Setpriority(unix.PRIO_PROCESS, 0, nice)
}

type resourceLimit struct {
	name       string
	resource   int
	soft, hard uint64
}

const (
	// launcherThreads are counted with the command's when the launcher is the
	// same user.
	launcherThreads = 24
	// addressSpace is what a process may reserve beyond what it may use:
	// runtimes of languages reserve much more than they use.
	addressSpace = 64 << 30
)

func resourceLimits(l *Limits) []resourceLimit {
	cpu := uint64((l.CPU + time.Second - 1) / time.Second)
	return []resourceLimit{
		{"CPU time", unix.RLIMIT_CPU, cpu, cpu + 1},
		{"address space", unix.RLIMIT_AS, uint64(l.Memory) + addressSpace, uint64(l.Memory) + addressSpace},
		{"processes", unix.RLIMIT_NPROC, uint64(l.Processes) + launcherThreads, uint64(l.Processes) + launcherThreads},
		{"file size", unix.RLIMIT_FSIZE, uint64(l.FileBytes), uint64(l.FileBytes)},
		{"open files", unix.RLIMIT_NOFILE, uint64(l.OpenFiles), uint64(l.OpenFiles)},
		{"locked memory", unix.RLIMIT_MEMLOCK, 0, 0},
		{"message queues", unix.RLIMIT_MSGQUEUE, 0, 0},
		{"core dumps", unix.RLIMIT_CORE, 0, 0},
	}
}

// becomeUser makes this thread another user, of no group but its own.
func becomeUser(uid uintptr) error {
	for what, call := range []func() (uintptr, uintptr, unix.Errno){
		func() (uintptr, uintptr, unix.Errno) { return unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0) },
		func() (uintptr, uintptr, unix.Errno) { return unix.RawSyscall(unix.SYS_SETRESGID, uid, uid, uid) },
		func() (uintptr, uintptr, unix.Errno) { return unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid) },
	} {
		if _, _, errno := call(); errno != 0 {
			return fmt.Errorf("become another user (step %d): %w", what+1, errno)
		}
	}
	return nil
}

// dropBounds makes it impossible to get a capability again.
func dropBounds() error {
	for capability := uintptr(0); ; capability++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		switch {
		case errors.Is(err, unix.EINVAL) && capability > 0:
			return nil // the kernel knows no more
		case err != nil:
			return fmt.Errorf("drop capability %d: %w", capability, err)
		}
	}
}

// dropCapabilities gives up every capability.
func dropCapabilities() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop ambient capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}
