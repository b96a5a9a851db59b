package sandbox

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// alive reports whether a process of the machine has a text in its command line.
func alive(t *testing.T, mark string) bool {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		text, _ := os.ReadFile(line)
		if strings.Contains(string(text), mark) && !strings.Contains(line, fmt.Sprintf("/%d/", os.Getpid())) {
			return true
		}
	}
	return false
}

func TestStubbornCommandIsEnded(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	o := run(t, s, Command{Args: []string{"sh", "-c", "trap '' TERM INT HUP; echo begun; while :; do sleep 1; done"}, Limits: Limits{Wall: 500 * time.Millisecond}})
	if !o.TimedOut || o.Signal != "SIGKILL" || o.ExitCode != -1 || string(o.Stdout) != "begun\n" {
		t.Errorf("%+v", o)
	}
}

func TestComputingIsBounded(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	o := run(t, s, Command{Args: []string{"sh", "-c", "while :; do :; done"}, Limits: Limits{CPU: time.Second, Wall: time.Minute}})
	if o.TimedOut || o.Signal != "SIGXCPU" && o.Signal != "SIGKILL" {
		t.Errorf("%+v", o)
	}
}

// A gigabyte of output is read, and thrown away but for the beginning.
func TestFloodOfOutputIsCut(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	o := run(t, s, Command{Args: []string{"sh", "-c", "yes | head -c 1000000000; echo error >&2; exit 4"}, Limits: Limits{Output: 1000, Wall: 2 * time.Minute}})
	if !o.Truncated || !strings.HasPrefix(string(o.Stdout), strings.Repeat("y\n", 2)) || len(o.Stdout) > 1100 || !strings.Contains(string(o.Stdout), "999999000 more bytes") {
		t.Errorf("%d bytes: %.50q", len(o.Stdout), o.Stdout)
	}
	if o.ExitCode != 4 || string(o.Stderr) != "error\n" {
		t.Errorf("%+v", o)
	}
}

func TestForkBombIsBounded(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	mark := fmt.Sprintf("bomb-%d", os.Getpid())
	o := run(t, s, Command{
		Args:   []string{"sh", "-c", `bomb() { bomb "$1" | bomb "$1" & }; bomb; sleep 1; n=$(ls -d /proc/[0-9]* | wc -l); echo $n`, mark},
		Limits: Limits{Processes: 40, Wall: 3 * time.Second},
	})
	if count := strings.TrimSpace(string(o.Stdout)); len(count) > 2 {
		t.Errorf("%s processes\n%.300s", count, o.Stderr)
	}
	if alive(t, mark) {
		t.Error("it goes on")
	}
	if o := run(t, s, sh("echo fine")); string(o.Stdout) != "fine\n" {
		t.Errorf("after it: %+v", o)
	}
}

func TestDaemonIsGone(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	mark := strconv.Itoa(100_000 + os.Getpid())
	o := run(t, s, sh("(setsid sh -c 'trap \"\" TERM HUP; sleep "+mark+" >/dev/null 2>&1 & sleep "+mark+"' >/dev/null 2>&1 &) ; "+
		"until grep -zq "+mark+" /proc/[0-9]*/cmdline; do :; done; echo started"))
	if string(o.Stdout) != "started\n" || o.ExitCode != 0 {
		t.Fatalf("%+v %s", o, o.Stderr)
	}
	if alive(t, "sleep\x00"+mark) {
		t.Error("the daemon lives")
	}
	// One that keeps the output open holds up nobody.
	if o := run(t, s, sh("setsid sleep "+mark+" & echo parent")); string(o.Stdout) != "parent\n" || o.TimedOut {
		t.Errorf("%+v", o)
	}
}

func TestDiskIsBounded(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	f := &memoryFolder{}
	o := run(t, s, Command{
		Args: []string{"sh", "-c", `
			dd if=/dev/zero of=big bs=64k count=1000 2>/dev/null; wc -c < big; rm big
			for i in 1 2 3 4 5 6 7 8 9; do dd if=/dev/zero of=part$i bs=64k count=16 2>/dev/null; done; du -sk . | cut -f1; rm part*
			dd if=/dev/zero of=/tmp/x bs=64k count=16 2>/dev/null; dd if=/dev/zero of=/tmp/y bs=64k count=1000 2>/dev/null; du -sk /tmp | cut -f1
			i=0; while [ $i -lt 1000 ]; do touch f$i 2>/dev/null || break; i=$((i+1)); done; ls | wc -l
			touch /usr/x /x /etc/x /dev/x /proc/x`},
		Folder: f, Limits: Limits{FileBytes: 1 << 20, DiskBytes: 4 << 20, Files: 100},
	})
	numbers := strings.Fields(string(o.Stdout))
	if len(numbers) != 4 || numbers[0] != "1048576" {
		t.Fatalf("%q\n%s", o.Stdout, o.Stderr)
	}
	for i, most := range []int{1 << 20, 4 << 10, 4 << 10, 100} {
		var n int
		if _, err := fmt.Sscan(numbers[i], &n); err != nil || n > most {
			t.Errorf("number %d: %s, want at most %d", i, numbers[i], most)
		}
	}
	if strings.Count(string(o.Stderr), "/x") < 5 {
		t.Errorf("written outside: %s", o.Stderr)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	need(t, "python3")
	s := start(t, nil)
	python := func(code string) Command {
		return Command{Args: []string{"/usr/bin/python3", "-c", code}, Limits: Limits{Memory: 128 << 20, Wall: 20 * time.Second}}
	}
	if _, err := os.Stat("/usr/bin/python3"); err != nil {
		t.Skip(err)
	}
	for name, code := range map[string]string{
		"one process": "x = bytearray(1 << 30)",
		"many processes": `
import os, time
for i in range(8):
    if os.fork() == 0:
        x = bytearray(50 << 20)
        time.sleep(100)
os.wait()`,
		"shared memory": `
import mmap, time
x = mmap.mmap(-1, 1 << 30)
for i in range(0, 1 << 30, 4096): x[i] = 1
time.sleep(100)`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := run(t, s, python(code))
			if o.ExitCode == 0 || o.TimedOut || !o.OutOfMemory && !strings.Contains(string(o.Stderr), "MemoryError") {
				t.Errorf("%+v\n%s", o, o.Stderr)
			}
		})
	}
	for name, code := range map[string]string{
		"memory without a process": `import os; os.memfd_create("x")`,
		"System V":                 `import ctypes; exit(ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600) < 0)`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if !s.Capabilities().Calls {
				t.Skip("system calls are not filtered here")
			}
			if o := run(t, s, python(code)); o.ExitCode == 0 {
				t.Errorf("%+v", o)
			}
		})
	}
}

func TestNetworkIsNotThere(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	if _, err := os.Stat("/usr/bin/python3"); err != nil {
		t.Skip(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it accepts nobody
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	socket := filepath.Join(t.TempDir(), "socket")
	local, err := net.Listen("unix", socket) //nolint:noctx // it accepts nobody
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = local.Close() })
	abstract, err := net.Listen("unix", fmt.Sprintf("@sandbox-test-%d", os.Getpid())) //nolint:noctx // it accepts nobody
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = abstract.Close() })
	for name, code := range map[string]string{
		"loopback": fmt.Sprintf("s.create_connection(('127.0.0.1', %d), 2)", listener.Addr().(*net.TCPAddr).Port),
		"outside":  "s.create_connection(('192.0.2.1', 80), 2)",
		"datagram": "s.socket(s.AF_INET, s.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
		"names":    "s.getaddrinfo('example.com', 80)",
		"local":    fmt.Sprintf("s.socket(s.AF_UNIX).connect(%q)", socket),
		"abstract": fmt.Sprintf("s.socket(s.AF_UNIX).connect('\\0sandbox-test-%d')", os.Getpid()),
		"raw":      "s.socket(s.AF_PACKET, s.SOCK_RAW)",
		"host":     "s.socket(s.AF_VSOCK, s.SOCK_STREAM)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "host" && !s.Capabilities().Calls {
				t.Skip("system calls are not filtered here")
			}
			o := run(t, s, Command{Args: []string{"/usr/bin/python3", "-c", "import socket as s; " + code + "; print('connected')"}})
			if o.ExitCode == 0 || strings.Contains(string(o.Stdout), "connected") || !strings.Contains(string(o.Stderr), "rror") {
				t.Errorf("%+v\n%s", o, o.Stderr)
			}
		})
	}
}

func TestMachineIsNotSeen(t *testing.T) {
	t.Setenv("AGENT_RUNTIME_TEST_SECRET", "secret-of-the-runtime")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "store"), []byte("secret-of-the-runtime"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := start(t, nil)
	self := os.Getpid()
	for name, script := range map[string]string{ //nolint:paralleltest // a variable is set for all of them
		"accounts":          "cat /etc/shadow",
		"data folder":       "cat " + dir + "/store",
		"home":              "ls /root /home",
		"environment of 1":  "cat /proc/1/environ",
		"files of 1":        "ls -l /proc/1/fd",
		"memory of 1":       "head -c 1 /proc/1/mem",
		"root of 1":         "ls /proc/1/root",
		"the runtime":       fmt.Sprintf("ls /proc/%d", self+1_000_000),
		"outside":           "echo x > ../x",
		"a link out":        "ln -s ../../etc out && cat out/shadow",
		"mounting":          "mount -t tmpfs x /tmp",
		"unmounting":        "umount /proc",
		"a user namespace":  "unshare -U true",
		"another namespace": "unshare -n true",
		"process 1":         "kill -9 1 && sleep 0.2 && test ! -d /proc/1",
		"becoming root":     "su -c true || sudo -n true",
		"devices":           "mknod disk b 254 0",
		"kernel settings":   "echo 1 > /proc/sys/kernel/panic || echo 9 > /proc/sys/user/max_user_namespaces",
		"more processes":    "ulimit -u 100000",
		"more memory":       "ulimit -d 10000000",
	} {
		t.Run(name, func(t *testing.T) {
			o := run(t, s, sh("( "+script+" ) 2>&1"))
			if o.ExitCode == 0 || strings.Contains(string(o.Stdout), "secret-of-the-runtime") || strings.Contains(string(o.Stdout), "root:") {
				t.Errorf("exit code %d:\n%s", o.ExitCode, o.Stdout)
			}
		})
	}
	o := run(t, s, sh("env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null; ls -R /tmp /workspace"))
	if text := string(o.Stdout); strings.Contains(text, "AGENT_RUNTIME") || strings.Contains(text, dir) {
		t.Error(text)
	}
	// Signals to process 1 do not hide how the command went.
	if o := run(t, s, sh("kill -TERM 1; kill -ABRT 1; kill -SEGV 1; kill -9 -1; echo alive; exit 5")); o.ExitCode != 5 || string(o.Stdout) != "alive\n" {
		t.Errorf("%+v\n%s", o, o.Stderr)
	}
}
