package sandbox

import (
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where a filter finds what in a system call.
const (
	atNumber   = 0
	atArch     = 4
	atArgument = 16 // the lower half of the first one, on little-endian machines
)

// x32Calls is where the numbers of another way to call begin on amd64.
const x32Calls = 0x40000000

var errNoFilter = errors.New("no filter of system calls for this machine")

// filterCalls forbids this thread what a command has no use for: memory that no
// limit counts, keys, tracing, and networks that no namespace parts from the
// machine's (those of virtual machines).
func filterCalls() error {
	var arch uint32
	switch runtime.GOARCH {
	case "amd64":
		arch = unix.AUDIT_ARCH_X86_64
	case "arm64":
		arch = unix.AUDIT_ARCH_AARCH64
	default:
		return errNoFilter
	}
	filter := callFilter(arch)
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0,
		uintptr(unsafe.Pointer(&program))) //nolint:gosec // the call takes a pointer
	runtime.KeepAlive(filter)
	if errno != 0 {
		return errno
	}
	return nil
}

func callFilter(arch uint32) []unix.SockFilter {
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		least  = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		answer = unix.BPF_RET | unix.BPF_K
	)
	refuse := func(errno unix.Errno) unix.SockFilter {
		return unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(errno)}
	}
	filter := []unix.SockFilter{
		{Code: load, K: atArch},
		{Code: equal, K: arch, Jt: 1},
		{Code: answer, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: load, K: atNumber},
		{Code: least, K: x32Calls, Jf: 1},
		refuse(unix.ENOSYS),
	}
	for _, call := range forbiddenCalls() {
		filter = append(filter, unix.SockFilter{Code: equal, K: uint32(call), Jf: 1}, refuse(unix.ENOSYS))
	}
	families := []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}
	// Sockets of other families are refused; what is no socket goes on.
	filter = append(filter,
		unix.SockFilter{Code: equal, K: unix.SYS_SOCKET, Jf: uint8(2 + len(families))},
		unix.SockFilter{Code: load, K: atArgument})
	for i, family := range families {
		filter = append(filter, unix.SockFilter{Code: equal, K: family, Jt: uint8(len(families) - i)})
	}
	return append(filter, refuse(unix.EAFNOSUPPORT), unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ALLOW})
}

func forbiddenCalls() []uintptr {
	return []uintptr{
		unix.SYS_MEMFD_CREATE, unix.SYS_MEMFD_SECRET, unix.SYS_SHMGET, unix.SYS_MSGGET, unix.SYS_SEMGET, unix.SYS_MQ_OPEN,
		unix.SYS_IO_URING_SETUP, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_KEYCTL, unix.SYS_ADD_KEY,
		unix.SYS_REQUEST_KEY, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_UNSHARE, unix.SYS_SETNS,
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN,
		unix.SYS_FSMOUNT, unix.SYS_KEXEC_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_OPEN_BY_HANDLE_AT,
	}
}
