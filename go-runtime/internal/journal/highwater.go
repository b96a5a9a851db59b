package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
)

const (
	slotSize   = 512 // one sector: a torn write damages one slot
	slotLength = 37  // magic, count, committed, issued, thinned, checksum
	slotMagic  = "DBHWMARK"
	markFolder = "highwater"
)

var (
	errNoMark  = errors.New("high-water mark is missing")
	errBadMark = errors.New("high-water mark is damaged")
)

// markChecksum is the checksum at the end of a slot. The table is the
// library's own, made once.
func markChecksum(content []byte) uint32 {
	return crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli))
}

// mark is how far a stream has come.
type mark struct {
	// committed is the newest sequence that was acknowledged or shown.
	committed uint64
	// issued is the newest sequence that may have been: a sync that covers it
	// had begun. A stream goes on above it.
	issued uint64
	// thinned says that records other than the oldest may have been removed
	// on purpose; otherwise a gap between two records is damage.
	thinned bool
}

// markFile keeps a stream's mark beside the store. It is written before each
// sync and made durable by that same sync, so whatever is acknowledged is at
// or below a durable issued, at no cost of its own. Two slots take turns, so
// that a write cut short leaves the other one.
type markFile struct {
	file  *os.File
	count uint64
	last  mark
}

func markPath(dataDir, stream string) string {
	return filepath.Join(dataDir, markFolder, stream)
}

// openMark opens a stream's mark, or makes one.
func openMark(dataDir, stream string) (*markFile, error) {
	path := markPath(dataDir, stream)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of high-water marks: %w", err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the high-water mark: %w", err)
	}
	m := &markFile{file: file}
	if m.last, m.count, err = parseMark(readSlots(file)); err != nil {
		// Both slots are replaced by the next two writes; readMark reported
		// the damage before.
		m.last, m.count = mark{}, 0
	}
	return m, nil
}

// readMark reads a stream's mark; errNoMark or errBadMark say that there is
// none to go by.
func readMark(dataDir, stream string) (mark, error) {
	file, err := os.Open(markPath(dataDir, stream))
	if errors.Is(err, os.ErrNotExist) {
		return mark{}, errNoMark
	}
	if err != nil {
		return mark{}, fmt.Errorf("read the high-water mark: %w", err)
	}
	slots := readSlots(file)
	if err := file.Close(); err != nil {
		return mark{}, fmt.Errorf("read the high-water mark: %w", err)
	}
	m, _, err := parseMark(slots)
	return m, err
}

// readSlots reads what is there; parseMark judges it.
func readSlots(file *os.File) []byte {
	slots := make([]byte, 2*slotSize)
	n, _ := file.ReadAt(slots, 0)
	return slots[:n]
}

// parseMark returns the newer valid slot and its count.
func parseMark(slots []byte) (mark, uint64, error) {
	var newest mark
	var count uint64
	for ; len(slots) >= slotLength; slots = slots[min(slotSize, len(slots)):] {
		slot := slots[:slotLength]
		sum := markChecksum(slot[:slotLength-4])
		if string(slot[:8]) != slotMagic || binary.LittleEndian.Uint32(slot[slotLength-4:]) != sum {
			continue
		}
		if c := binary.LittleEndian.Uint64(slot[8:]); c > count {
			count = c
			newest = mark{
				committed: binary.LittleEndian.Uint64(slot[16:]),
				issued:    binary.LittleEndian.Uint64(slot[24:]),
				thinned:   slot[32] != 0,
			}
		}
	}
	if count == 0 {
		return mark{}, 0, errBadMark
	}
	return newest, count, nil
}

// write hands a mark to the operating system. It costs one system call, and
// nothing when the mark has not changed.
func (m *markFile) write(to mark) error {
	if m.count > 0 && to == m.last {
		return nil
	}
	slot := make([]byte, slotLength)
	copy(slot, slotMagic)
	binary.LittleEndian.PutUint64(slot[8:], m.count+1)
	binary.LittleEndian.PutUint64(slot[16:], to.committed)
	binary.LittleEndian.PutUint64(slot[24:], to.issued)
	if to.thinned {
		slot[32] = 1
	}
	binary.LittleEndian.PutUint32(slot[slotLength-4:], markChecksum(slot[:slotLength-4]))
	if _, err := m.file.WriteAt(slot, int64((m.count+1)%2)*slotSize); err != nil {
		return fmt.Errorf("write the high-water mark: %w", err)
	}
	m.count++
	m.last = to
	return nil
}

// flush makes what was written durable.
func (m *markFile) flush() error {
	if err := m.file.Sync(); err != nil {
		return fmt.Errorf("sync the high-water mark: %w", err)
	}
	return nil
}

func (m *markFile) close() error { return m.file.Close() }
