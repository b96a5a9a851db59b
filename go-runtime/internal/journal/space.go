package journal

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Purpose says what a record is for. A store that fills up refuses first what
// makes it fuller.
type Purpose int

// The purposes.
const (
	// Accept takes on something new.
	Accept Purpose = iota
	// Finish goes on with what was accepted.
	Finish
	// Release makes room.
	Release

	purposes = iota
)

const (
	// spaceCheckInterval is how old a picture of the store may be that an
	// append is admitted by, spaceRetryInterval one that it is refused by.
	spaceCheckInterval = 100 * time.Millisecond
	spaceRetryInterval = 10 * time.Millisecond
	// maxHeadroom bounds what is kept beyond the store's limit.
	maxHeadroom = 64 << 20
	// headroomMessages is how many of the largest records fit there at least.
	headroomMessages = 4
)

// space watches the room that the disk and the store's limit leave. The server
// does not survive a write that the disk has no room for, and at its own limit
// takes not even deletions, so appends are refused before.
type space struct {
	folder *os.File
	used   func() int64 // bytes of records in the store
	// minFree is what an append of a Purpose leaves on the disk, maxUsed what
	// it lets the store grow to.
	minFree, maxUsed [purposes]int64
	// largest is the record that there is room for unless the store is full.
	largest int64
	started time.Time

	free, kept atomic.Int64           // on the disk and in the store at the last look
	room       [purposes]atomic.Int64 // at the last look
	taken      atomic.Int64           // appended since
	checked    atomic.Int64           // when that was: nanoseconds since started
}

// newSpace watches the disk that folder is on and a store of limit bytes. held
// is the size of the reserve.
func newSpace(folder *os.File, cfg Config, limit, held int64) *space {
	headroom := headroomOf(limit, cfg.MaxMessageBytes)
	return &space{
		folder:  folder,
		minFree: [purposes]int64{Accept: cfg.MinFreeBytes, Finish: held - held/4, Release: held / 2},
		maxUsed: [purposes]int64{Accept: limit, Finish: limit + headroom/2, Release: limit + headroom},
		largest: min(int64(cfg.MaxMessageBytes), limit/16),
		started: time.Now(),
	}
}

// headroomOf is what the store may take beyond its limit.
func headroomOf(limit int64, maxMessage int) int64 {
	return max(min(limit/8, maxHeadroom), headroomMessages*int64(maxMessage))
}

// disk returns the size of the disk that a file is on and what is free there.
func disk(file *os.File) (total, free int64, err error) {
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &stat); err != nil {
		return 0, 0, fmt.Errorf("look up the disk of the store: %w", err)
	}
	return diskBytes(stat.Blocks, stat.Bsize), diskBytes(stat.Bavail, stat.Bsize), nil
}

// diskBytes is the size of so many blocks. The platforms give them in types
// of their own.
func diskBytes[C, S int64 | uint64 | int32 | uint32](blocks C, size S) int64 {
	return int64(blocks) * int64(size)
}

// look takes a picture of the store unless the last one is younger than age,
// and reports whether it did.
func (s *space) look(age time.Duration) (bool, error) {
	now := int64(time.Since(s.started))
	last := s.checked.Load()
	if last > 0 && now-last <= int64(age) || !s.checked.CompareAndSwap(last, now) {
		return false, nil
	}
	_, free, err := disk(s.folder)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	used := s.used()
	for p := range s.room {
		s.room[p].Store(min(free-s.minFree[p], s.maxUsed[p]-used))
	}
	s.free.Store(free)
	s.kept.Store(used)
	s.taken.Store(0)
	return true, nil
}

// take refuses with ErrNoSpace an append of size bytes for which there is too
// little room.
func (s *space) take(size int, purpose Purpose) error {
	if _, err := s.look(spaceCheckInterval); err != nil {
		return err
	}
	if s.fits(int64(size), purpose) {
		return nil
	}
	looked, err := s.look(spaceRetryInterval)
	if err != nil {
		return err
	}
	if looked && s.fits(int64(size), purpose) {
		return nil
	}
	return s.refusal(purpose)
}

// fits takes the room if it is there. What was appended since the last look
// counts as taken.
func (s *space) fits(size int64, purpose Purpose) bool {
	if s.taken.Add(size) <= s.room[purpose].Load() {
		return true
	}
	s.taken.Add(-size)
	return false
}

// refusal says where there is no room.
func (s *space) refusal(purpose Purpose) error {
	free, used := s.free.Load(), s.kept.Load()
	if free-s.minFree[purpose] < s.maxUsed[purpose]-used {
		return fmt.Errorf("%w: the disk has %d bytes left, %d are kept free", ErrNoSpace, free, s.minFree[purpose])
	}
	return fmt.Errorf("%w: the store holds %d bytes, its limit is %d", ErrNoSpace, used, s.maxUsed[purpose])
}

// full returns why the largest of new records would be refused, or nil.
func (s *space) full() error {
	if _, err := s.look(spaceRetryInterval); err != nil {
		return err
	}
	if s.taken.Load()+s.largest <= s.room[Accept].Load() {
		return nil
	}
	return s.refusal(Accept)
}
