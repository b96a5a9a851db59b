package journal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// stopNow stops a journal in the middle of a test.
func stopNow(t *testing.T, j *journal.Journal) {
	t.Helper()
	if err := j.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// appendEach appends n records, of which each is alone on its subject, and commits
// them.
func appendEach(t *testing.T, s *journal.Stream, prefix string, n int) {
	t.Helper()
	ms := make([]journal.Message, n)
	for i := range ms {
		ms[i] = journal.Message{Subject: fmt.Sprintf("%s.%d", prefix, i), Data: content(uint64(i + 1))}
	}
	seqs, err := s.AppendAll(t.Context(), ms)
	if err == nil {
		err = s.Commit(t.Context(), seqs[n-1])
	}
	if err != nil {
		t.Fatal(err)
	}
}

var errReadAll = errors.New("read all")

// read follows the stream up to a sequence and returns what came.
func read(t *testing.T, s *journal.Stream, after, upTo uint64, filters ...string) (sequences []uint64, position uint64, err error) {
	t.Helper()
	position = after
	err = s.Follow(t.Context(), after, filters, func(batch []journal.Record, at uint64) error {
		for _, r := range batch {
			sequences = append(sequences, r.Sequence)
		}
		if position = at; position >= upTo {
			return errReadAll
		}
		return nil
	})
	return sequences, position, err
}

// between makes the sequences from first to last.
func between(first, last uint64) []uint64 {
	var sequences []uint64
	for seq := first; seq <= last; seq++ {
		sequences = append(sequences, seq)
	}
	return sequences
}

func TestReadersAreToldOfALostRange(t *testing.T) {
	t.Parallel()
	const records = 3500
	dir := t.TempDir()
	cfg := journal.StreamConfig{Name: "LOG", Subjects: []string{"log.>"}}
	writeRecords(t, dir, t.TempDir(), records)
	zero(1)(t, blockFiles(t, dir, "LOG"))
	for starts := range 2 { // the start that finds it, and one that remembers it
		j := start(t, journal.Config{DataDir: dir})
		s := open(t, j, cfg)
		problems := j.Problems()
		if len(problems) != 1 {
			t.Fatalf("start %d: problems %+v", starts, problems)
		}
		first, last := problems[0].First, problems[0].Last
		for name, test := range map[string]struct {
			after   uint64
			filters []string
			got     []uint64
		}{
			"from the beginning":         {after: 0, got: between(1, first-1)},
			"right before it":            {after: first - 1},
			"inside it":                  {after: first},
			"at its last but one":        {after: last - 1},
			"of a subject that has none": {after: 0, filters: []string{"log.other"}},
		} {
			got, position, err := read(t, s, test.after, records, test.filters...)
			var truncated *journal.TruncatedError
			if !errors.As(err, &truncated) || truncated.Oldest != last+1 || !truncated.Damaged {
				t.Errorf("start %d, %s: %v, want to be told of %d to %d", starts, name, err, first, last)
			}
			if want := max(test.after, first-1); !slices.Equal(got, test.got) || position != want {
				t.Errorf("start %d, %s: got %d records up to %d, want %d up to %d", starts, name, len(got), position, len(test.got), want)
			}
		}
		for name, after := range map[string]uint64{"at its end": last, "resumed behind it": last, "later": last + 1} {
			got, _, err := read(t, s, after, records)
			if !errors.Is(err, errReadAll) || !slices.Equal(got, between(after+1, records)) {
				t.Errorf("start %d, %s: got %d records, %v", starts, name, len(got), err)
			}
		}
		stopNow(t, j)
	}
}

// A watcher of values that are gone has to look again, also one that had read
// past the range when it was lost.
func TestReadersOfLastValuesStartOver(t *testing.T) {
	t.Parallel()
	const records = 3500
	dir := t.TempDir()
	cfg := journal.StreamConfig{Name: "STATE", Subjects: []string{"state.>"}, LastPerSubject: true}
	j := start(t, journal.Config{DataDir: dir})
	appendEach(t, open(t, j, cfg), "state", records)
	stopNow(t, j)
	flip(1)(t, blockFiles(t, dir, "STATE"))

	j = start(t, journal.Config{DataDir: dir})
	s := open(t, j, cfg)
	problems := j.Problems()
	if len(problems) != 1 || problems[0].First == 0 {
		t.Fatalf("problems %+v", problems)
	}
	_, newest, err := s.Bounds(t.Context())
	if err != nil || newest <= records {
		t.Fatalf("the newest sequence is %d, %v", newest, err)
	}
	for name, after := range map[string]uint64{
		"before it": problems[0].First - 1, "past it": problems[0].Last, "had read everything": records,
	} {
		_, _, err := read(t, s, after, newest)
		var truncated *journal.TruncatedError
		if !errors.As(err, &truncated) || truncated.Oldest != newest+1 {
			t.Errorf("%s: %v, want to be told to go on after %d", name, err, newest)
		}
	}
	upTo, err := s.Scan(t.Context(), 0, true, nil, func(journal.Record) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	seq, err := s.Append(t.Context(), journal.Message{Subject: "state.new"})
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := read(t, s, upTo, seq); !errors.Is(err, errReadAll) || !slices.Equal(got, []uint64{seq}) {
		t.Errorf("one who began after the loss got %v, %v", got, err)
	}
}

func TestAcknowledgedDamageIsNamedNoMore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := journal.StreamConfig{Name: "LOG", Subjects: []string{"log.>"}}
	writeRecords(t, dir, t.TempDir(), 3500)
	flip(1)(t, blockFiles(t, dir, "LOG"))
	j := start(t, journal.Config{DataDir: dir})
	open(t, j, cfg)
	found := j.Problems()
	if len(found) != 1 {
		t.Fatalf("problems %+v", found)
	}
	var locked *journal.LockedError
	if _, err := journal.AcknowledgeDamage(dir); !errors.As(err, &locked) {
		t.Errorf("acknowledging while it runs: %v", err)
	}
	stopNow(t, j)
	if named, err := journal.Damage(dir); err != nil || !slices.Equal(named, found) {
		t.Errorf("named %+v, %v", named, err)
	}
	if named, err := journal.AcknowledgeDamage(dir); err != nil || !slices.Equal(named, found) {
		t.Errorf("acknowledged %+v, %v", named, err)
	}
	if named, err := journal.Damage(dir); err != nil || len(named) > 0 {
		t.Errorf("named after that %+v, %v", named, err)
	}

	j = start(t, journal.Config{DataDir: dir})
	s := open(t, j, cfg)
	if p := j.Problems(); len(p) > 0 {
		t.Errorf("problems after that: %+v", p)
	}
	if _, _, err := read(t, s, 0, 3500); !errors.Is(err, journal.ErrTruncated) {
		t.Errorf("a reader is told %v", err)
	}
	stopNow(t, j)

	// New damage is news.
	flip(0)(t, blockFiles(t, dir, "LOG"))
	if p := start(t, journal.Config{DataDir: dir}).Problems(); len(p) != 1 || p[0] == found[0] {
		t.Errorf("problems after more damage: %+v", p)
	}
}

func TestRetentionForgetsALostRange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := journal.StreamConfig{Name: "LOG", Subjects: []string{"log.>"}, MaxBytes: 64 << 20}
	j := start(t, journal.Config{DataDir: dir})
	appendEach(t, open(t, j, cfg), "log", 3500)
	stopNow(t, j)
	flip(0)(t, blockFiles(t, dir, "LOG"))
	for range 2 {
		j = start(t, journal.Config{DataDir: dir})
		open(t, j, cfg)
		if p := j.Problems(); len(p) != 1 {
			t.Fatalf("problems %+v", p)
		}
		stopNow(t, j)
	}
	cfg.MaxBytes = 16 << 20
	j = start(t, journal.Config{DataDir: dir})
	s := open(t, j, cfg)
	appendEach(t, s, "log", 2)
	stopNow(t, j)
	j = start(t, journal.Config{DataDir: dir})
	s = open(t, j, cfg)
	if p := j.Problems(); len(p) > 0 {
		first, _, err := s.Bounds(t.Context())
		t.Errorf("problems %+v, the first record is %d, %v", p, first, err)
	}
}

func TestADamagedListOfLostRangesIsNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeRecords(t, dir, t.TempDir(), 3500)
	flip(1)(t, blockFiles(t, dir, "LOG"))
	stopNow(t, start(t, journal.Config{DataDir: dir}))
	path := filepath.Join(dir, "highwater", "LOG.lost")
	text := readFile(t, path)
	text[len(text)-4] ^= 1
	writeFile(t, path, text)
	for range 2 {
		j := start(t, journal.Config{DataDir: dir})
		if p := j.Problems(); len(p) != 1 || p[0].Stream != "LOG" || p[0].First != 0 {
			t.Errorf("problems %+v", p)
		}
		stopNow(t, j)
	}
}

// Without the mark nobody knows how far the stream had come.
func TestWithoutItsMarkAStreamGoesOnFarAhead(t *testing.T) {
	t.Parallel()
	const records = 3500
	for name, spoil := range map[string]func(path string) error{
		"missing": os.Remove,
		"damaged": func(path string) error { return os.WriteFile(path, []byte("nonsense"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			writeRecords(t, dir, t.TempDir(), records)
			if err := errors.Join(
				spoil(filepath.Join(dir, "highwater", "LOG")),
				os.Remove(filepath.Join(dir, "store", "jetstream", "$G", "streams", "LOG", "msgs", "index.db")),
			); err != nil {
				t.Fatal(err)
			}
			cutBetween(-1)(t, blockFiles(t, dir, "LOG"))
			var last uint64
			for starts := range 2 {
				j := start(t, journal.Config{DataDir: dir})
				s := open(t, j, journal.StreamConfig{Name: "LOG", Subjects: []string{"log.>"}})
				p := j.Problems()
				if len(p) != 1 || p[0].Stream != "LOG" || p[0].First != 0 {
					t.Fatalf("start %d: problems %+v", starts, p)
				}
				seq, err := s.Append(t.Context(), journal.Message{Subject: "log.new"})
				if err != nil || seq < 1<<20 || last > 0 && seq != last+1 {
					t.Errorf("start %d: append got %d after %d, %v", starts, seq, last, err)
				}
				last = seq
				if _, _, err := read(t, s, records, seq); !errors.Is(err, journal.ErrTruncated) {
					t.Errorf("start %d: a reader who had come further than what is left is told %v", starts, err)
				}
				stopNow(t, j)
			}
		})
	}
}

// Where records are overwritten, gaps between records say nothing.
func TestACutBetweenRecordsIsNoticedWhereGapsAreLegal(t *testing.T) {
	t.Parallel()
	const records = 3500
	cfg := journal.StreamConfig{Name: "STATE", Subjects: []string{"state.>"}, LastPerSubject: true}
	written := t.TempDir()
	j := start(t, journal.Config{DataDir: written})
	s := open(t, j, cfg)
	appendEach(t, s, "state", records)
	if err := s.Purge(t.Context(), "state.7"); err != nil {
		t.Fatal(err)
	}
	stopNow(t, j)
	for name, test := range map[string]struct {
		spoil damage
		noted bool // the note of the blocks is of the time before a kill
	}{
		"earlier":              {spoil: cutBetween(1)},
		"first":                {spoil: cutBetween(0)},
		"earlier after a kill": {spoil: cutBetween(1), noted: true},
		"a whole block": {spoil: func(t *testing.T, blocks []string) {
			t.Helper()
			if err := os.Remove(blocks[1]); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(written)); err != nil {
				t.Fatal(err)
			}
			if test.noted {
				if err := journal.NoteBlocksOfRunningServer(dir); err != nil {
					t.Fatal(err)
				}
			}
			test.spoil(t, blockFiles(t, dir, "STATE"))
			j := start(t, journal.Config{DataDir: dir})
			s := open(t, j, cfg)
			problems := j.Problems()
			if len(problems) != 1 {
				t.Fatalf("problems %+v", problems)
			}
			left := make(map[uint64]bool)
			if _, err := s.Scan(t.Context(), 0, false, nil, func(r journal.Record) error {
				left[r.Sequence] = true
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			for seq := uint64(1); seq <= records; seq++ {
				lost := seq >= problems[0].First && seq <= problems[0].Last
				if lost == left[seq] && seq != 8 { // which was purged
					t.Fatalf("record %d: lost %t, found %t", seq, lost, left[seq])
				}
			}
		})
	}
}
