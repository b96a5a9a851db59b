package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"
)

// plausibleGap is above any gap between two records of a stream.
const plausibleGap = 1 << 40

// damageCheck looks through a store that no server has open. Left alone, the
// server would cut a block off at the first damaged record, lose all that
// follows it, say nothing, and use the numbers again.
type damageCheck struct {
	dataDir string
	log     *slog.Logger
	now     time.Time

	problems []Problem
}

// streamsFolder is where the embedded server keeps its streams.
func streamsFolder(dataDir string) string {
	return filepath.Join(dataDir, "store", "jetstream", "$G", "streams")
}

// repairStore checks every record of every stream, takes damaged ones out
// (the damaged file is kept in the folder "damaged") and lets no sequence be
// used again that was ever acknowledged or shown. It returns what was lost.
func repairStore(dataDir string, log *slog.Logger) ([]Problem, error) {
	c := &damageCheck{dataDir: dataDir, log: log, now: time.Now()}
	streams, err := os.ReadDir(streamsFolder(dataDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list streams: %w", err)
	}
	for _, entry := range streams {
		if name := entry.Name(); entry.IsDir() && name[0] != '.' {
			if err := c.checkStream(name); err != nil {
				return nil, fmt.Errorf("check stream %s: %w", name, err)
			}
		}
	}
	return c.problems, nil
}

func (c *damageCheck) report(p Problem) {
	c.problems = append(c.problems, p)
	c.log.Error("journal is damaged", "stream", p.Stream, "first", p.First, "last", p.Last, "problem", p.Message)
}

// streamCheck is the check of one stream.
type streamCheck struct {
	*damageCheck

	name   string
	folder string
	mark   mark
	marked bool // the mark could be read
	// newest is the newest sequence found so far.
	newest uint64
	// broken says that records may be missing after newest.
	broken bool
	// passed is the sequence of the last removal record: an earlier repair
	// marks a lost range with that of its end.
	passed   uint64
	repaired bool
}

func (c *damageCheck) checkStream(name string) error {
	s := &streamCheck{damageCheck: c, name: name, folder: filepath.Join(streamsFolder(c.dataDir), name, "msgs")}
	blocks, err := listBlocks(s.folder)
	if err != nil {
		return err
	}
	switch s.mark, err = readMark(c.dataDir, name); {
	case err == nil:
		s.marked = true
	case errors.Is(err, errNoMark) && len(blocks) == 0:
	case errors.Is(err, errNoMark), errors.Is(err, errBadMark):
		c.report(Problem{Stream: name, Message: err.Error() + ": records at the end may be lost without notice"})
	default:
		return err
	}
	for _, b := range blocks {
		if err := s.checkBlock(b); err != nil {
			return fmt.Errorf("block %d: %w", b.index, err)
		}
	}
	s.lost(s.newest+1, s.mark.committed)
	if s.newest < s.mark.issued {
		if err := s.moveOn(blocks); err != nil {
			return err
		}
	}
	if s.repaired {
		return s.forgetIndex()
	}
	return nil
}

// lost reports a range, without what was never acknowledged.
func (s *streamCheck) lost(first, last uint64) {
	if s.marked {
		last = min(last, s.mark.committed)
	}
	if last < first {
		return
	}
	s.report(Problem{
		Stream: s.name, First: first, Last: last,
		Message: fmt.Sprintf("records %d to %d of stream %s are lost: the store was damaged", first, last, s.name),
	})
}

// checkBlock reads a block; a damaged one is replaced by its intact records.
func (s *streamCheck) checkBlock(b block) error {
	reader, err := newBlockReader(s.name, b.index)
	if err != nil {
		return err
	}
	buf, err := os.ReadFile(b.path)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	// kept has the block's new content once it differs from the old one.
	var kept []byte
	for at := 0; at < len(buf); {
		record, ok := reader.parse(buf[at:], s.plausible())
		gap := ok && s.note(record)
		if kept == nil && (!ok || gap) {
			kept = append(make([]byte, 0, len(buf)), buf[:at]...)
		}
		if !ok {
			s.broken = true
			at++
			continue
		}
		if gap {
			kept = append(kept, reader.removalRecord(record.sequence-1, s.now)...)
		}
		if kept != nil {
			kept = append(kept, record.raw...)
		}
		at += len(record.raw)
	}
	if kept == nil {
		return nil
	}
	return s.replace(b, kept)
}

// plausible bounds the sequences of records to come: looking for the next
// intact record past a damaged one, it saves most checksums.
func (s *streamCheck) plausible() uint64 {
	if !s.broken {
		return math.MaxUint64
	}
	return max(s.newest, s.mark.issued) + plausibleGap
}

// note takes an intact record into account and reports whether records are
// lost before it.
func (s *streamCheck) note(r blockRecord) bool {
	if r.removal {
		s.passed = r.sequence
		if !s.broken {
			s.newest = max(s.newest, r.sequence)
		}
		return false
	}
	if r.sequence <= s.newest {
		return false
	}
	gap := s.newest+1 < r.sequence && (s.broken || s.mustBeDense() && s.passed != r.sequence-1)
	if gap {
		s.lost(s.newest+1, r.sequence-1)
	}
	s.broken = false
	s.newest = r.sequence
	return gap
}

// mustBeDense reports whether a gap after newest is damage: retention removes
// the oldest records only.
func (s *streamCheck) mustBeDense() bool {
	return s.marked && !s.mark.thinned && s.newest > 0
}

// replace keeps the damaged file for people to look at and writes the intact
// records in its place.
func (s *streamCheck) replace(b block, intact []byte) error {
	kept := filepath.Join(s.dataDir, "damaged")
	if err := os.MkdirAll(kept, 0o700); err != nil {
		return fmt.Errorf("make the folder of damaged blocks: %w", err)
	}
	fresh := b.path + ".repaired"
	if err := writeDurable(fresh, intact); err != nil {
		return err
	}
	name := fmt.Sprintf("%s-%d-%d%s", s.name, b.index, s.now.UnixNano(), blockSuffix)
	if err := os.Link(b.path, filepath.Join(kept, name)); err != nil {
		return fmt.Errorf("keep the damaged block: %w", err)
	}
	if err := os.Rename(fresh, b.path); err != nil {
		return fmt.Errorf("replace the damaged block: %w", err)
	}
	s.log.Warn("took damaged records out of a block", "stream", s.name, "block", b.index, "kept_as", filepath.Join(kept, name))
	s.repaired = true
	return nil
}

// moveOn makes the stream go on above its mark.
func (s *streamCheck) moveOn(blocks []block) error {
	index := uint32(1)
	if n := len(blocks); n > 0 {
		index = blocks[n-1].index + 1
	}
	reader, err := newBlockReader(s.name, index)
	if err != nil {
		return err
	}
	path := filepath.Join(s.folder, fmt.Sprintf("%d%s", index, blockSuffix))
	if err := writeDurable(path, reader.removalRecord(s.mark.issued, s.now)); err != nil {
		return err
	}
	s.repaired = true
	return nil
}

// forgetIndex makes the server read the blocks.
func (s *streamCheck) forgetIndex() error {
	err := os.Remove(filepath.Join(s.folder, blockIndex))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the index: %w", err)
	}
	return nil
}

// writeDurable writes a file that is complete on disk when it returns.
func writeDurable(path string, content []byte) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := file.Write(content); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
