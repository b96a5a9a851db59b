package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// folderLock is an exclusive lock on a data folder. The kernel drops it with
// the process, so a crash leaves nothing to clean up.
type folderLock struct{ file *os.File }

// lockFolder takes the lock or returns a *LockedError. It writes nothing, so
// that it works on a full disk; sign does.
func lockFolder(dir string) (*folderLock, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the data folder: %w", err)
	}
	lock, err := lockFile(dir, file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return lock, nil
}

func lockFile(dir string, file *os.File) (*folderLock, error) {
	err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, &LockedError{Resource: "data folder " + dir, Holder: readHolder(file)}
	}
	if err != nil {
		return nil, fmt.Errorf("lock data folder %s: %w", dir, err)
	}
	return &folderLock{file: file}, nil
}

// sign writes who holds the lock, for those who find it taken.
func (l *folderLock) sign() error {
	if err := l.file.Truncate(0); err != nil {
		return fmt.Errorf("write the lock of the data folder: %w", err)
	}
	if _, err := l.file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("write the lock of the data folder: %w", err)
	}
	return nil
}

// readHolder names the process in the lock file. The file may be read between
// the holder's lock and its write, so an unknown holder is possible.
func readHolder(file *os.File) string {
	buf := make([]byte, 32)
	n, _ := file.ReadAt(buf, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		return "another process"
	}
	return "process " + strconv.Itoa(pid)
}

// release gives the folder free.
func (l *folderLock) release() error {
	if l == nil {
		return nil
	}
	return l.file.Close()
}
