package journal

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// identify returns a file's size and what tells it from any other file that
// has been in its place; the latter is empty when the file system does not
// say. The number of a file alone is soon given to another one.
func identify(path string) (size int64, identity string, err error) {
	var stat unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_SIZE|unix.STATX_INO|unix.STATX_BTIME, &stat); err != nil {
		return 0, "", fmt.Errorf("look up %s: %w", path, err)
	}
	if stat.Mask&unix.STATX_BTIME != 0 {
		identity = fmt.Sprintf("%d-%d.%09d", stat.Ino, stat.Btime.Sec, stat.Btime.Nsec)
	}
	return int64(stat.Size), identity, nil
}
