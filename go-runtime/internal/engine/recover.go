package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// recover rebuilds the index from the newest record of each run and takes up
// the runs that have not ended, in the order they were accepted.
func (e *Engine) recover(ctx context.Context) error {
	// A server that lags behind gives an older record of a run first.
	newest := map[string]*entry{}
	_, err := e.stream.Scan(ctx, 0, true, []string{subjectPrefix + ">"}, func(rec journal.Record) error {
		ent, err := entryOf(rec)
		if err != nil {
			e.log.ErrorContext(ctx, "run record unreadable", "subject", rec.Subject, "sequence", rec.Sequence, "err", err)
			return nil
		}
		newest[rec.Subject] = ent
		return nil
	})
	if err != nil {
		return fmt.Errorf("read runs: %w", err)
	}
	var active []*entry
	for _, ent := range newest {
		e.index.add(ent)
		if !ent.run.State.Ended() {
			active = append(active, ent)
		}
	}
	e.index.sortEnded()
	slices.SortFunc(active, func(a, b *entry) int { return cmp.Compare(a.created, b.created) })
	// Those that are under way have their concurrency keys, and those that were come next.
	for _, ent := range active {
		if ent.run.isUnderWay() {
			e.sched.hold(ent, &ent.run)
		}
	}
	slices.SortStableFunc(active, func(a, b *entry) int { return cmp.Compare(min(a.run.begun, 1), min(b.run.begun, 1)) * -1 })
	lost := overtaken(active)
	for _, ent := range active {
		if err := e.resume(ctx, ent); err != nil {
			return err
		}
	}
	for _, ent := range active {
		e.cancelWithParent(ctx, ent)
	}
	for ent, taker := range lost {
		run := taker.snapshot()
		e.cancelFor(ctx, ent, taker, run.options().Concurrency.Key)
	}
	if len(active) > 0 {
		e.log.InfoContext(ctx, "runs taken up again", "count", len(active))
	}
	return nil
}

// overtaken returns the runs whose concurrency key was taken by another as the
// runtime ended, with who took it: those to which nothing has happened since the
// other was accepted. One that waited for an answer then, or for its time, had no key.
func overtaken(active []*entry) map[*entry]*entry {
	takers, lost := map[keyName]*entry{}, map[*entry]*entry{}
	keyOf := func(ent *entry) (keyName, *Concurrency) {
		c := ent.run.options().Concurrency
		if c == nil {
			return keyName{}, nil
		}
		return keyName{ent.run.Namespace, c.Key}, c
	}
	for _, ent := range active {
		key, c := keyOf(ent)
		if c != nil && c.Strategy == CancelWhoHasTaken && (takers[key] == nil || takers[key].created < ent.created) {
			takers[key] = ent
		}
	}
	for _, ent := range active {
		key, c := keyOf(ent)
		if c == nil {
			continue
		}
		taker := takers[key]
		if taker == nil || ent.run.Sequence >= taker.created {
			continue
		}
		wasDelayed := ent.run.begun == 0 && ent.run.NotBefore.After(taker.run.CreatedAt)
		if !ent.run.asks() && !wasDelayed {
			lost[ent] = taker
		}
	}
	return lost
}

// resume takes up a run found in the journal. One that a worker executes stays
// its until its lease lapses; one that waits goes on waiting unless what it waits
// for has come; any other is queued again, or ends when its attempts are used up.
func (e *Engine) resume(ctx context.Context, ent *entry) error {
	run := ent.snapshot()
	if run.State.Ended() {
		return nil
	}
	now := e.cfg.Now().UTC()
	if !run.Deadline.IsZero() {
		// A deadline that has passed fires at once.
		e.setDeadline(ent, max(run.Deadline.Sub(now), time.Nanosecond))
	}
	switch {
	case run.State == Running && run.Worker != nil:
		e.awaitWorker(ent, &run)
		return nil
	case run.State == Waiting:
		e.endWait(ctx, ent)
		return nil
	case run.State == Running:
		var err error
		if run, err = e.lose(ctx, ent, run.Lease, "the runtime ended unexpectedly"); err != nil {
			return err
		}
	}
	if run.State == Queued {
		ent.delay(run.NotBefore.Sub(now))
		e.sched.restore(ent)
	}
	return nil
}

// entryOf makes an entry of the newest record of a run.
func entryOf(rec journal.Record) (*entry, error) {
	namespace, runID, _, err := parseSubject(rec.Subject)
	if err != nil {
		return nil, err
	}
	decoded, err := decodeRecord(rec.Data)
	if err != nil {
		return nil, fmt.Errorf("sequence %d: %w", rec.Sequence, err)
	}
	decoded.placed(namespace, runID, rec.Sequence)
	return newEntry(&decoded), nil
}
