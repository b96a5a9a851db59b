package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// lostSuffix ends the name of a stream's list of lost ranges.
const lostSuffix = ".lost"

// lostRange is a range of sequences that damage took from a stream.
type lostRange struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	// Renewed is where the stream stood once the loss was found: no reader had
	// got there before, and whoever begins afterwards is there at least.
	Renewed uint64 `json:"renewed"`
	// Unsure says that there is only no knowing that nothing was lost.
	Unsure bool `json:"unsure,omitempty"`
	// Acknowledged says that an operator knows, and need not be told again.
	Acknowledged bool `json:"acknowledged,omitempty"`
}

// lostList is what is known to be lost of a stream. It outlives the start that
// found it: readers that have the range before them come later.
type lostList struct {
	Ranges []lostRange `json:"ranges"`
	// Incomplete says that an earlier list could not be read.
	Incomplete bool `json:"incomplete,omitempty"`
}

func lostPath(dataDir, stream string) string {
	return filepath.Join(dataDir, markFolder, stream+lostSuffix)
}

func readLost(dataDir, stream string) (*lostList, error) {
	list := &lostList{}
	err := readNote(lostPath(dataDir, stream), list)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &lostList{}, nil
	case errors.Is(err, errBadNote):
		return &lostList{Incomplete: true}, nil
	default:
		return list, err
	}
}

func (l *lostList) write(dataDir, stream string) error {
	path := lostPath(dataDir, stream)
	if len(l.Ranges) > 0 || l.Incomplete {
		return writeNote(path, l, true)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the list of lost records: %w", err)
	}
	return nil
}

// add notes a range, and reports whether it was news: a repair that was cut
// short finds a range twice.
func (l *lostList) add(r lostRange) bool {
	if slices.ContainsFunc(l.Ranges, func(known lostRange) bool {
		return known.First <= r.First && r.Last <= known.Last
	}) {
		return false
	}
	l.Ranges = append(l.Ranges, r)
	slices.SortFunc(l.Ranges, func(a, b lostRange) int { return cmp.Compare(a.First, b.First) })
	return true
}

// fallOff forgets the ranges that retention has passed, and reports whether
// there were any. A stream that begins right behind a range may do so because
// of the range.
func (l *lostList) fallOff(first uint64) bool {
	before := len(l.Ranges)
	l.Ranges = slices.DeleteFunc(l.Ranges, func(r lostRange) bool { return r.Last+1 < first })
	return len(l.Ranges) < before
}

// acknowledge marks everything as known to an operator.
func (l *lostList) acknowledge() {
	l.Incomplete = false
	for i := range l.Ranges {
		l.Ranges[i].Acknowledged = true
	}
}

// problems names what no operator has acknowledged.
func (l *lostList) problems(stream string) []Problem {
	var problems []Problem
	if l.Incomplete {
		problems = append(problems, Problem{
			Stream:  stream,
			Message: fmt.Sprintf("the list of lost records of stream %s was damaged: it may have named more", stream),
		})
	}
	for _, r := range l.Ranges {
		if !r.Acknowledged {
			problems = append(problems, r.problem(stream))
		}
	}
	return problems
}

func (r lostRange) problem(stream string) Problem {
	if r.Unsure {
		return Problem{Stream: stream, Message: fmt.Sprintf(
			"the high-water mark of stream %s was missing or damaged: records after %d may be lost, it went on above %d",
			stream, r.First-1, r.Last,
		)}
	}
	return Problem{
		Stream: stream, First: r.First, Last: r.Last,
		Message: fmt.Sprintf("records %d to %d of stream %s are lost: the store was damaged", r.First, r.Last, stream),
	}
}

// forReaders returns what a reader must not step over without being told, in
// order and apart from each other. With lastPerSubject a loss also concerns
// those who had read past it: the value they saw last may be gone.
func (l *lostList) forReaders(lastPerSubject bool) []lostRange {
	var merged []lostRange
	for _, r := range l.Ranges {
		if lastPerSubject {
			r.Last = max(r.Last, r.Renewed)
		}
		if n := len(merged); n > 0 && r.First <= merged[n-1].Last+1 {
			merged[n-1].Last = max(merged[n-1].Last, r.Last)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// logProblems says once, at a start, what is wrong: as an error what this
// start found, as a warning what an earlier one did.
func logProblems(log *slog.Logger, problems []Problem, isNew func(Problem) bool) {
	for _, p := range problems {
		facts := []any{"stream", p.Stream, "first", p.First, "last", p.Last, "problem", p.Message}
		if isNew(p) {
			log.Error("journal is damaged", facts...)
		} else {
			log.Warn("journal was damaged before", facts...)
		}
	}
}

// Damage names the lost records of an embedded store that no operator has
// acknowledged; it need not be stopped for that.
func Damage(dataDir string) ([]Problem, error) {
	return visitLost(dataDir, func(string, *lostList) error { return nil })
}

// AcknowledgeDamage makes later starts name no more what Damage names, and
// returns that. Readers that have a lost range before them are told as ever.
// It returns a *LockedError while a runtime uses the store.
func AcknowledgeDamage(dataDir string) (_ []Problem, err error) {
	lock, err := lockFolder(dataDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	return visitLost(dataDir, func(stream string, list *lostList) error {
		list.acknowledge()
		return list.write(dataDir, stream)
	})
}

// visitLost calls visit with the list of each stream that has one, and returns
// what the lists named before.
func visitLost(dataDir string, visit func(stream string, list *lostList) error) ([]Problem, error) {
	streams, err := listLost(dataDir)
	if err != nil {
		return nil, err
	}
	var problems []Problem
	for _, stream := range streams {
		list, err := readLost(dataDir, stream)
		if err != nil {
			return nil, fmt.Errorf("lost records of stream %s: %w", stream, err)
		}
		problems = append(problems, list.problems(stream)...)
		if err := visit(stream, list); err != nil {
			return nil, fmt.Errorf("lost records of stream %s: %w", stream, err)
		}
	}
	return problems, nil
}

// listLost returns the streams that have a list of lost ranges.
func listLost(dataDir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dataDir, markFolder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list lost records: %w", err)
	}
	var streams []string
	for _, entry := range entries {
		if stream, ok := strings.CutSuffix(entry.Name(), lostSuffix); ok {
			streams = append(streams, stream)
		}
	}
	return streams, nil
}
