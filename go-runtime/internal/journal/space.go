package journal

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// spaceCheckInterval is how old an answer of the file system may be.
const spaceCheckInterval = 100 * time.Millisecond

// space watches the room on the store's disk. The server does not survive a
// write that the disk has no room for, so appends are refused before.
type space struct {
	folder  *os.File
	minFree int64
	total   int64
	started time.Time

	free    atomic.Int64 // at the last look
	checked atomic.Int64 // nanoseconds since started
}

func newSpace(folder *os.File, minFree int64) (*space, error) {
	s := &space{folder: folder, minFree: minFree, started: time.Now()}
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(folder.Fd()), &stat); err != nil {
		return nil, fmt.Errorf("look up the disk of the store: %w", err)
	}
	s.total = diskBytes(stat.Blocks, stat.Bsize)
	s.free.Store(diskBytes(stat.Bavail, stat.Bsize))
	return s, nil
}

// diskBytes is the size of so many blocks. The platforms give them in types
// of their own.
func diskBytes[C, S int64 | uint64 | int32 | uint32](blocks C, size S) int64 {
	return int64(blocks) * int64(size)
}

// take refuses with ErrNoSpace an append of size bytes that would leave too
// little room.
func (s *space) take(size int) error {
	now := int64(time.Since(s.started))
	if last := s.checked.Load(); now-last > int64(spaceCheckInterval) && s.checked.CompareAndSwap(last, now) {
		var stat unix.Statfs_t
		if err := unix.Fstatfs(int(s.folder.Fd()), &stat); err != nil {
			return fmt.Errorf("%w: look up the disk of the store: %w", ErrUnavailable, err)
		}
		s.free.Store(diskBytes(stat.Bavail, stat.Bsize))
	}
	// What was appended since the last look counts as taken.
	if free := s.free.Add(-int64(size)); free < s.minFree {
		s.free.Add(int64(size))
		return fmt.Errorf("%w: the disk has %d bytes left, %d are kept free", ErrNoSpace, max(free, 0), s.minFree)
	}
	return nil
}
