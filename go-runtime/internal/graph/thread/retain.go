package thread

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// trim removes the oldest checkpoints of a thread, of which there may be too many. What
// it cannot do is left to the next time.
func (s *Store) trim(ctx context.Context, subject string) {
	type place struct{ sequence, revision uint64 }
	var wholes []place
	var last uint64
	err := s.scan(ctx, subject, 0, func(r *record) error {
		last = r.revision
		for i, text := range r.texts {
			if graph.IsWhole(text) {
				wholes = append(wholes, place{r.sequence, r.first() + uint64(i)})
				break
			}
		}
		return nil
	})
	var cut uint64
	for _, whole := range wholes {
		if last-whole.revision+1 >= uint64(s.cfg.MaxCheckpoints) {
			cut = whole.sequence
		}
	}
	if err == nil && cut > 0 {
		err = s.cut(ctx, subject, cut)
	}
	if err != nil {
		s.log.WarnContext(ctx, "old checkpoints not removed", "subject", subject, "err", err)
	}
}

// cut removes the records of a thread before one that has a whole checkpoint, with the
// threads of subgraphs that only those know.
func (s *Store) cut(ctx context.Context, subject string, sequence uint64) error {
	r, err := s.stream.Get(ctx, sequence)
	if err != nil {
		return err
	}
	first, err := decode(r)
	if err != nil {
		return err
	}
	first.texts = first.texts[slices.IndexFunc(first.texts, graph.IsWhole):]
	var kept struct {
		Tasks []graph.Task `json:"tasks"`
	}
	if err := json.Unmarshal(first.texts[0], &kept); err != nil {
		return fmt.Errorf("%w: sequence %d: %w", errBadRecord, sequence, err)
	}
	if err := s.stream.PurgeBefore(ctx, subject, sequence); err != nil {
		return err
	}
	var gone []string
	_, err = s.stream.Scan(ctx, 0, true, []string{subject + ".>"}, func(below journal.Record) error {
		if below.Sequence > sequence {
			return errFull
		}
		_, _, name, err := parseSubject(below.Subject)
		if err != nil {
			return err
		}
		// A task of the checkpoint goes on with the subgraphs that it has.
		task, _, _ := strings.Cut(name, ".")
		if !slices.ContainsFunc(kept.Tasks, func(t graph.Task) bool { return t.ID == task }) {
			gone = append(gone, below.Subject)
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFull) {
		return err
	}
	for _, each := range gone {
		if err := s.stream.PurgeBefore(ctx, each, sequence); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) sweepAlways(ctx context.Context) {
	ticker := time.NewTicker(s.cfg.SweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "old threads not removed", "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// Sweep removes what is too old. It does so by itself once in a SweepInterval.
func (s *Store) Sweep(ctx context.Context) error {
	now := s.cfg.Now()
	if s.cfg.MaxIdle > 0 {
		if err := s.sweepThreads(ctx, now.Add(-s.cfg.MaxIdle)); err != nil {
			return fmt.Errorf("sweep threads: %w", err)
		}
	}
	if s.cfg.MaxAge > 0 {
		if err := s.sweepCheckpoints(ctx, now.Add(-s.cfg.MaxAge)); err != nil {
			return fmt.Errorf("sweep checkpoints: %w", err)
		}
	}
	return nil
}

// sweepThreads deletes threads that have not changed since.
func (s *Store) sweepThreads(ctx context.Context, since time.Time) error {
	idle := map[string]uint64{}
	_, err := s.stream.Scan(ctx, 0, true, []string{subjectPrefix + "*.*"}, func(r journal.Record) error {
		if !r.Time.Before(since) {
			return errFull
		}
		idle[r.Subject] = r.Sequence
		return nil
	})
	if err != nil && !errors.Is(err, errFull) {
		return err
	}
	for subject, sequence := range idle {
		if err := s.bury(ctx, subject, sequence); err != nil {
			return err
		}
	}
	return nil
}

// bury deletes a thread unless it has another last record than that with the sequence.
func (s *Store) bury(ctx context.Context, subject string, sequence uint64) error {
	// Who has read the thread before cannot go on with it.
	mark, err := s.stream.Append(ctx, journal.Message{
		Subject: subject, Expect: &sequence, Header: map[string]string{headerDeleted: "1"}, Purpose: journal.Release,
	})
	if errors.Is(err, journal.ErrConflict) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.stream.PurgeBefore(ctx, subject, mark+1); err != nil {
		return err
	}
	return s.stream.PurgeBefore(ctx, subject+".>", mark)
}

// sweepCheckpoints removes the checkpoints from before a time that no later one needs.
func (s *Store) sweepCheckpoints(ctx context.Context, since time.Time) error {
	// cuts are the last records from before it that have a whole checkpoint, of threads
	// that have older ones.
	cuts, seen := map[string]uint64{}, map[string]bool{}
	_, err := s.stream.Scan(ctx, 0, false, []string{subjectPrefix + "*.*"}, func(r journal.Record) error {
		if !r.Time.Before(since) {
			return errFull
		}
		d, err := decode(r)
		if err != nil {
			return err
		}
		if d.whole() >= 0 && seen[r.Subject] {
			cuts[r.Subject] = r.Sequence
		}
		seen[r.Subject] = true
		return nil
	})
	if err != nil && !errors.Is(err, errFull) {
		return err
	}
	for subject, sequence := range cuts {
		if err := s.cut(ctx, subject, sequence); err != nil {
			return err
		}
	}
	return nil
}
