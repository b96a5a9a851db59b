package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
)

const (
	reserveName = "reserve"
	// smallestReserve is the least that is worth a file.
	smallestReserve = 1 << 20
)

// reserve is a file that takes up room on the store's disk. When something else
// has filled the disk, a start gives it up: the runtime then has the room to
// start, to serve reads and to take deletions.
type reserve struct {
	path string
	size int64
	log  *slog.Logger
}

// newReserve returns the reserve of a data folder, which fill makes. The largest
// disks hold a quarter of what is kept free, small ones less.
func newReserve(dataDir string, minFree, total int64, log *slog.Logger) *reserve {
	return &reserve{path: filepath.Join(dataDir, reserveName), size: min(minFree/4, total/16), log: log}
}

// giveUp removes the reserve when the disk has less free than that.
func (r *reserve) giveUp(free int64) error {
	if free >= r.size {
		return nil
	}
	err := os.Remove(r.path)
	if errors.Is(err, os.ErrNotExist) {
		r.log.Error("disk is full and there is no reserve left", "free_bytes", free)
		return nil
	}
	if err != nil {
		return fmt.Errorf("give up the reserve on the disk: %w", err)
	}
	r.log.Warn("disk is full: the reserve was given up", "free_bytes", free, "reserve_bytes", r.size)
	return nil
}

// fill makes the reserve when it is not there and the disk can well spare it;
// spare is what may be appended.
func (r *reserve) fill(spare int64) error {
	if r.size < smallestReserve || spare/2 < r.size {
		return nil
	}
	if info, err := os.Stat(r.path); err == nil && info.Size() >= r.size {
		return nil
	}
	file, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("make the reserve on the disk: %w", err)
	}
	if err := errors.Join(allocate(file, r.size), file.Close()); err != nil {
		return fmt.Errorf("make the reserve on the disk: %w", errors.Join(err, os.Remove(r.path)))
	}
	return nil
}

// writeNoise fills a file with what no file system can make smaller.
func writeNoise(file *os.File, size int64) error {
	if _, err := io.CopyN(file, rand.Reader, size); err != nil {
		return fmt.Errorf("write %d bytes: %w", size, err)
	}
	return nil
}
