package journal_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// damage is done to a stopped store; it returns nothing: what was lost is
// found by reading.
type damage func(t *testing.T, blocks []string)

// flip changes one bit in the middle of a block.
func flip(which int) damage {
	return func(t *testing.T, blocks []string) {
		t.Helper()
		path := pick(blocks, which)
		content := readFile(t, path)
		content[len(content)/2] ^= 0x10
		writeFile(t, path, content)
	}
}

// cut removes the last third of a block.
func cut(which int) damage {
	return func(t *testing.T, blocks []string) {
		t.Helper()
		path := pick(blocks, which)
		content := readFile(t, path)
		writeFile(t, path, content[:len(content)/3*2])
	}
}

// cutBetween removes the end of a block, exactly between two records.
func cutBetween(which int) damage {
	return func(t *testing.T, blocks []string) {
		t.Helper()
		path := pick(blocks, which)
		content := readFile(t, path)
		at := 0
		for at < len(content)/2 {
			at += int(binary.LittleEndian.Uint32(content[at:]) &^ (1 << 31))
		}
		writeFile(t, path, content[:at])
	}
}

// zero overwrites a stretch of a block, as a disk does that lost sectors.
func zero(which int) damage {
	return func(t *testing.T, blocks []string) {
		t.Helper()
		path := pick(blocks, which)
		content := readFile(t, path)
		clear(content[len(content)/3 : len(content)/3+4096*5])
		writeFile(t, path, content)
	}
}

func pick(blocks []string, which int) string {
	if which < 0 {
		which += len(blocks)
	}
	return blocks[which]
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func blockFiles(t *testing.T, dataDir, stream string) []string {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(dataDir, "store", "jetstream", "$G", "streams", stream, "msgs", "*.blk"))
	if err != nil || len(blocks) < 3 {
		t.Fatalf("blocks: %v, %v", blocks, err)
	}
	slices.SortFunc(blocks, func(a, b string) int { return len(a) - len(b) })
	return blocks
}

func TestDamageIsNamedAndSequencesAreNotReused(t *testing.T) {
	t.Parallel()
	const records = 3500
	kinds := map[string]damage{
		"flip last": flip(-1), "flip earlier": flip(1), "flip first": flip(0),
		"cut last": cut(-1), "cut earlier": cut(1),
		"cut last between records": cutBetween(-1), "cut earlier between records": cutBetween(1),
		"zero last": zero(-1), "zero earlier": zero(1),
	}
	written := t.TempDir()
	crashed := t.TempDir()
	writeRecords(t, written, crashed, records)
	for name, spoil := range kinds {
		for stopped, from := range map[string]string{"clean stop": written, "kill": crashed} {
			t.Run(name+" after "+stopped, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
					t.Fatal(err)
				}
				spoil(t, blockFiles(t, dir, "LOG"))
				checkDamaged(t, dir, records)
			})
		}
	}
	t.Run("nothing after kill", func(t *testing.T) {
		t.Parallel()
		j := start(t, journal.Config{DataDir: crashed})
		if p := j.Problems(); len(p) > 0 {
			t.Errorf("problems without damage: %v", p)
		}
	})
}

// writeRecords fills dir and stops; crashed gets what a kill would leave.
func writeRecords(t *testing.T, dir, crashed string, n int) {
	t.Helper()
	j := start(t, journal.Config{DataDir: dir})
	s := open(t, j, journal.StreamConfig{Name: "LOG", Subjects: []string{"log.>"}})
	var ms []journal.Message
	for i := range n {
		ms = append(ms, journal.Message{Subject: fmt.Sprintf("log.%d", i%7), Data: content(uint64(i + 1))})
	}
	seqs, err := s.AppendAll(t.Context(), ms)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), seqs[n-1]); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := j.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// content makes the data of a record out of its sequence.
func content(seq uint64) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%08d", seq), 1000)
}

// checkDamaged starts on a damaged store and compares what is said to be lost
// with what is gone.
func checkDamaged(t *testing.T, dir string, records uint64) {
	t.Helper()
	j := start(t, journal.Config{DataDir: dir})
	s := open(t, j, journal.StreamConfig{Name: "LOG", Subjects: []string{"log.>"}})
	problems := j.Problems()
	if len(problems) == 0 {
		t.Fatal("the damage was not noticed")
	}
	lost := make(map[uint64]bool)
	for _, p := range problems {
		if p.Stream != "LOG" || p.Message == "" {
			t.Errorf("problem %+v", p)
		}
		for seq := p.First; seq <= p.Last; seq++ {
			lost[seq] = true
		}
	}
	for _, p := range problems {
		for _, seq := range []uint64{p.First, p.Last} {
			if _, err := s.Get(t.Context(), seq); !errors.Is(err, journal.ErrNotFound) {
				t.Errorf("record %d is named as lost and reads as %v", seq, err)
			}
		}
	}
	left := make(map[uint64]bool)
	if _, err := s.Scan(t.Context(), 0, false, nil, func(r journal.Record) error {
		left[r.Sequence] = true
		if !bytes.Equal(r.Data, content(r.Sequence)) {
			t.Errorf("record %d has the content of another", r.Sequence)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); seq <= records; seq++ {
		if lost[seq] == left[seq] {
			t.Fatalf("record %d: named as lost %t, found %t", seq, lost[seq], left[seq])
		}
	}
	if seq, err := s.Append(t.Context(), journal.Message{Subject: "log.new"}); err != nil || seq <= records {
		t.Fatalf("append after the damage got %d, %v", seq, err)
	}
	// A start after the repair names the same, finds nothing more and reuses nothing.
	if err := j.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	again := start(t, journal.Config{DataDir: dir})
	s = open(t, again, journal.StreamConfig{Name: "LOG", Subjects: []string{"log.>"}})
	if p := again.Problems(); !slices.Equal(p, problems) {
		t.Errorf("problems after the repair: %v, want %v", p, problems)
	}
	if seq, err := s.Append(t.Context(), journal.Message{Subject: "log.new"}); err != nil || seq <= records+1 {
		t.Fatalf("append after another start got %d, %v", seq, err)
	}
}

func TestMissingStreamFolderIsNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeRecords(t, dir, t.TempDir(), 2000)
	if err := os.RemoveAll(filepath.Join(dir, "store", "jetstream", "$G", "streams", "LOG")); err != nil {
		t.Fatal(err)
	}
	j := start(t, journal.Config{DataDir: dir})
	s := open(t, j, journal.StreamConfig{Name: "LOG", Subjects: []string{"log.>"}})
	if p := j.Problems(); len(p) != 1 || p[0].First != 1 || p[0].Last != 2000 {
		t.Errorf("problems: %+v", p)
	}
	if seq, err := s.Append(t.Context(), journal.Message{Subject: "log.new"}); err != nil || seq != 2001 {
		t.Errorf("append got %d, %v", seq, err)
	}
}

func TestDamagedMetadataLosesNoRecord(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeRecords(t, dir, t.TempDir(), 2000)
	meta := filepath.Join(dir, "store", "jetstream", "$G", "streams", "LOG", "meta.inf")
	content := readFile(t, meta)
	content[len(content)/2] ^= 1
	writeFile(t, meta, content)
	for range 2 {
		j := start(t, journal.Config{DataDir: dir})
		s := open(t, j, journal.StreamConfig{Name: "LOG", Subjects: []string{"log.>"}})
		if first, last, err := s.Bounds(t.Context()); err != nil || first != 1 || last != 2000 {
			t.Errorf("bounds %d to %d, %v", first, last, err)
		}
		if err := j.Stop(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLegitimateGapsAreNoDamage(t *testing.T) {
	t.Parallel()
	dir, crashed := t.TempDir(), t.TempDir()
	j := start(t, journal.Config{DataDir: dir})
	state := journal.StreamConfig{Name: "STATE", Subjects: []string{"state.>"}, LastPerSubject: true}
	log := journal.StreamConfig{Name: "LOG", Subjects: []string{"log.>"}}
	s, l := open(t, j, state), open(t, j, log)
	var last, lastLog uint64
	for round := range 6 {
		var ms, ls []journal.Message
		for i := range 500 {
			ms = append(ms, journal.Message{Subject: fmt.Sprintf("state.%d", i), Data: content(uint64(round))})
			ls = append(ls, journal.Message{Subject: fmt.Sprintf("log.%d", round), Data: content(uint64(i))})
		}
		seqs, err := s.AppendAll(t.Context(), ms)
		if err != nil {
			t.Fatal(err)
		}
		logs, err := l.AppendAll(t.Context(), ls)
		if err != nil {
			t.Fatal(err)
		}
		last, lastLog = seqs[len(seqs)-1], logs[len(logs)-1]
	}
	if err := errors.Join(
		s.Purge(t.Context(), "state.499"), s.Commit(t.Context(), last),
		l.Purge(t.Context(), "log.3"), l.Purge(t.Context(), "log.5"), l.Commit(t.Context(), lastLog),
	); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := j.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]string{"clean": dir, "crash": crashed} {
		j := start(t, journal.Config{DataDir: from})
		if p := j.Problems(); len(p) > 0 {
			t.Errorf("%s: problems: %v", name, p)
		}
		if seq, err := open(t, j, log).Append(t.Context(), journal.Message{Subject: "log.x"}); err != nil || seq != lastLog+1 {
			t.Errorf("%s: append got %d, %v, want %d", name, seq, err, lastLog+1)
		}
		if seq, err := open(t, j, state).Append(t.Context(), journal.Message{Subject: "state.x"}); err != nil || seq != last+1 {
			t.Errorf("%s: append got %d, %v, want %d", name, seq, err, last+1)
		}
	}
}
