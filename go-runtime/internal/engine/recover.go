package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// recover rebuilds the index from the newest record of each run and takes up
// the runs that have not ended, in the order they were accepted.
func (e *Engine) recover(ctx context.Context) error {
	var active []*entry
	_, err := e.stream.Scan(ctx, 0, true, []string{subjectPrefix + ">"}, func(rec journal.Record) error {
		ent, err := entryOf(rec)
		if err != nil {
			e.log.ErrorContext(ctx, "run record unreadable", "subject", rec.Subject, "sequence", rec.Sequence, "err", err)
			return nil
		}
		e.index.add(ent)
		if !ent.run.State.Ended() {
			active = append(active, ent)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read runs: %w", err)
	}
	e.index.sortEnded()
	slices.SortFunc(active, func(a, b *entry) int { return cmp.Compare(a.created, b.created) })
	for _, ent := range active {
		if err := e.resume(ctx, ent); err != nil {
			return err
		}
	}
	if len(active) > 0 {
		e.log.InfoContext(ctx, "runs taken up again", "count", len(active))
	}
	return nil
}

// resume takes up a run found in the journal: it is queued again, or ends when
// its deadline has passed or its attempts are used up.
func (e *Engine) resume(ctx context.Context, ent *entry) error {
	if ent.run.State.Ended() {
		return nil
	}
	now := e.cfg.Now().UTC()
	run, err := e.change(ctx, ent, nil, func(run *Run) error {
		switch {
		case run.State != Queued && run.Attempt >= run.MaxAttempts:
			run.State = Failed
			run.EndedAt = now
			run.Error = &RunError{
				Reason:  ReasonAttemptsExhausted,
				Message: fmt.Sprintf("the runtime ended unexpectedly during each of %d attempts", run.Attempt),
			}
		case run.State != Queued:
			run.State = Queued
		default:
			return errUnchanged
		}
		return nil
	})
	if err != nil && !errors.Is(err, errUnchanged) {
		return err
	}
	if run.State.Ended() {
		return nil
	}
	if !run.Deadline.IsZero() {
		// A deadline that has passed fires at once.
		e.setDeadline(ent, max(run.Deadline.Sub(now), time.Nanosecond))
	}
	e.queue.restore(ent)
	return nil
}

// entryOf makes an entry of the newest record of a run.
func entryOf(rec journal.Record) (*entry, error) {
	namespace, runID, ok := strings.Cut(strings.TrimPrefix(rec.Subject, subjectPrefix), ".")
	if !ok {
		return nil, fmt.Errorf("%w: subject %q", errBadRecord, rec.Subject)
	}
	decoded, err := decodeRecord(rec.Data)
	if err != nil {
		return nil, fmt.Errorf("sequence %d: %w", rec.Sequence, err)
	}
	run := &decoded.Run
	run.Sequence = rec.Sequence
	var errNamespace, errID error
	run.Namespace, errNamespace = journal.DecodeToken(namespace)
	run.ID, errID = journal.DecodeToken(runID)
	if err := errors.Join(errNamespace, errID); err != nil {
		return nil, err
	}
	return newEntry(&decoded), nil
}
