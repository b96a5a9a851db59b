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

const (
	// plausibleGap is above any gap between two records of a stream.
	plausibleGap = 1 << 40
	// farAhead is how far above what is left a stream goes on that has no mark:
	// five times what a block can hold of the smallest records. It is not more
	// because the server looks at each sequence of the gap (80 ns) when it
	// starts within the time that it remembers DedupeIDs.
	farAhead = 1 << 20
)

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

// blocksFolder is where the embedded server keeps the blocks of a stream.
func blocksFolder(dataDir, stream string) string {
	return filepath.Join(streamsFolder(dataDir), stream, "msgs")
}

// repairStore checks every record of every stream, takes damaged ones out
// (the damaged file is kept in the folder "damaged") and lets no sequence be
// used again that was ever acknowledged or shown. It returns what was lost, now
// or earlier, and no operator has acknowledged.
func repairStore(dataDir string, log *slog.Logger) ([]Problem, error) {
	c := &damageCheck{dataDir: dataDir, log: log, now: time.Now()}
	streams, err := listStreams(dataDir)
	if err != nil {
		return nil, err
	}
	for _, name := range streams {
		if err := c.checkStream(name); err != nil {
			return nil, fmt.Errorf("check stream %s: %w", name, err)
		}
	}
	return c.problems, nil
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
	passed uint64
	sealed sealedNote
	// before is the index of the block that was checked last.
	before uint32
	// size is that of all blocks.
	size    int64
	found   []lostRange
	repairs []repair
}

// repair is the new content of a damaged block.
type repair struct {
	block

	intact []byte
}

func (c *damageCheck) checkStream(name string) error {
	s := &streamCheck{damageCheck: c, name: name, folder: blocksFolder(c.dataDir, name)}
	blocks, err := listBlocks(s.folder)
	if err != nil {
		return err
	}
	switch s.mark, err = readMark(c.dataDir, name); {
	case err == nil:
		s.marked = true
	case errors.Is(err, errNoMark), errors.Is(err, errBadMark):
	default:
		return err
	}
	if s.sealed, err = readSealed(c.dataDir, name); err != nil {
		return err
	}
	s.sealed.Clean = s.sealed.Clean && s.marked && s.sealed.Issued == s.mark.issued
	for _, b := range blocks {
		if err := s.checkBlock(b); err != nil {
			return fmt.Errorf("block %d: %w", b.index, err)
		}
	}
	s.lost(s.newest+1, s.mark.committed)
	s.decideEnd()
	if err := s.noteLost(); err != nil {
		return err
	}
	if err := s.repair(blocks); err != nil {
		return err
	}
	// From here on the server may make blocks shorter.
	return noteSealed(c.dataDir, name, false, true)
}

// decideEnd finds where the stream goes on.
func (s *streamCheck) decideEnd() {
	switch {
	case !s.marked && s.size > 0:
		s.mark.issued = s.newest + farAhead
		s.found = append(s.found, lostRange{First: s.newest + 1, Last: s.mark.issued, Unsure: true})
	case len(s.found) > 0 && s.mark.thinned:
		// Whoever reads on from the newest sequence there was has to be told
		// from who begins now, see lostRange.Renewed.
		s.mark.issued++
	}
}

// noteLost keeps what was found for later starts and for readers, before the
// repair takes the traces of it away.
func (s *streamCheck) noteLost() error {
	list, err := readLost(s.dataDir, s.name)
	if err != nil {
		return err
	}
	news := make(map[Problem]bool)
	for _, r := range s.found {
		r.Renewed = max(s.newest, s.mark.issued)
		if list.add(r) {
			news[r.problem(s.name)] = true
		}
	}
	if len(news) > 0 {
		if err := list.write(s.dataDir, s.name); err != nil {
			return err
		}
	}
	problems := list.problems(s.name)
	logProblems(s.log, problems, func(p Problem) bool { return news[p] })
	s.problems = append(s.problems, problems...)
	return nil
}

// repair makes the server read intact records only, and go on above the mark.
func (s *streamCheck) repair(blocks []block) error {
	ahead := s.newest < s.mark.issued
	if !ahead && len(s.repairs) == 0 {
		return nil
	}
	if err := s.forgetIndex(); err != nil {
		return err
	}
	if ahead {
		if err := s.moveOn(blocks); err != nil {
			return err
		}
	}
	for _, r := range s.repairs {
		if err := s.replace(r.block, r.intact); err != nil {
			return err
		}
	}
	return syncFolder(s.folder)
}

// lost notes a range, without what was never acknowledged.
func (s *streamCheck) lost(first, last uint64) {
	if s.marked {
		last = min(last, s.mark.committed)
	}
	if first <= last {
		s.found = append(s.found, lostRange{First: first, Last: last})
	}
}

// checkBlock reads a block; a damaged one is to be replaced by its intact
// records.
func (s *streamCheck) checkBlock(b block) error {
	reader, err := newBlockReader(s.name, b.index)
	if err != nil {
		return err
	}
	buf, err := os.ReadFile(b.path)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	s.size += int64(len(buf))
	s.broken = s.broken || s.sealed.isGone(s.before, b.index)
	s.before = b.index
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
	if kept != nil {
		s.repairs = append(s.repairs, repair{b, kept})
	}
	cut, err := s.sealed.isCut(b, int64(len(buf)))
	s.broken = s.broken || cut
	return err
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
	if err := writeFile(fresh, intact, true); err != nil {
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
	if err := os.MkdirAll(s.folder, 0o700); err != nil {
		return fmt.Errorf("make the folder of blocks: %w", err)
	}
	path := filepath.Join(s.folder, fmt.Sprintf("%d%s", index, blockSuffix))
	return writeFile(path, reader.removalRecord(s.mark.issued, s.now), true)
}

// forgetIndex makes the server read the blocks.
func (s *streamCheck) forgetIndex() error {
	err := os.Remove(filepath.Join(s.folder, blockIndex))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the index: %w", err)
	}
	return nil
}
