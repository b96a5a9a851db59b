package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// errWatched ends a watch whose run has ended.
var errWatched = errors.New("the run's last event was sent")

// WatchRun hands the events of one run to send, from the one after the given
// sequence on, in batches, without gap or repeat, as they become durable: those
// of at least the given visibility, and always the one with which the run ends,
// after which WatchRun returns. A batch is empty when only the position moved,
// about once a second: everything up to it was sent. A sequence beyond the newest
// is of another journal, such as the one that this is an older copy of: the run is
// then watched from its beginning.
//
// Errors: *RunNotFoundError, also when the run is removed by retention
// meanwhile; ctx's, send's, the journal's.
func (e *Engine) WatchRun(
	ctx context.Context, namespace, runID string, after uint64, least Visibility,
	send func(events []Event, position uint64) error,
) error {
	ent, err := e.find(namespace, runID)
	if err != nil {
		return err
	}
	if after > e.stream.Newest() {
		after = 0
	}
	run := ent.snapshot()
	if run.State.Ended() && after >= run.Sequence {
		return nil
	}
	r := newReader()
	if err := e.resumeAt(ctx, r, after, historySubjects(namespace, runID)); err != nil {
		return err
	}
	if run.Lease <= after {
		r.begins(runID, run.Lease)
	}
	filters := historyFilter(namespace, runID)
	err = e.stream.Follow(ctx, max(after, ent.created-1), filters, func(batch []journal.Record, position uint64) error {
		events := e.eventsOf(r, batch, func(ev *Event) bool { return least.covers(ev.Visibility) || ev.Ends() })
		end := slices.IndexFunc(events, func(ev Event) bool { return ev.Ends() })
		if end >= 0 {
			events = events[:end+1]
		}
		if len(batch) == 0 && e.index.get(namespace, runID) != ent {
			return &RunNotFoundError{RunID: runID}
		}
		if len(events) == 0 && len(batch) > 0 {
			return journal.Skip
		}
		if err := send(events, position); err != nil {
			return err
		}
		if end >= 0 {
			return errWatched
		}
		return nil
	})
	if errors.Is(err, errWatched) {
		return nil
	}
	return err
}

// resumeAt has a reader know the event that it resumes behind, so that it leaves
// out the same one where that was added once more.
func (e *Engine) resumeAt(ctx context.Context, r *reader, after uint64, subjects []string) error {
	if after == 0 {
		return nil
	}
	rec, err := e.stream.Get(ctx, after)
	if errors.Is(err, journal.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if slices.Contains(subjects, rec.Subject) {
		// What cannot be read was left out before.
		_, _ = r.event(rec)
	}
	return nil
}

// FollowRuns hands the events of all runs of a namespace to send, as WatchRun
// does for one, without those of the given types. Each event of a run's own has
// the run with it. Between two calls of send lies at least minInterval, unless
// there is much to send. It ends only with an error: *violation.Error for a sequence
// that is not of this journal, ctx's, send's, the journal's.
func (e *Engine) FollowRuns(
	ctx context.Context, namespace string, after uint64, without []string, minInterval time.Duration,
	send func(events []Event, position uint64) error,
) error {
	if newest := e.stream.Newest(); after > newest {
		return violation.New("after_sequence", "is %d, and the newest is %d: it is of another journal", after, newest)
	}
	r := newReader()
	filters := []string{anyPrefix + journal.EncodeToken(namespace) + ".*"}
	return e.stream.Follow(ctx, after, filters, func(batch []journal.Record, position uint64) error {
		events := e.eventsOf(r, batch, func(ev *Event) bool { return !slices.Contains(without, ev.Type) })
		if len(events) == 0 && len(batch) > 0 {
			return journal.Skip
		}
		return send(events, position)
	}, journal.Every(minInterval))
}

// eventsOf returns what the records of a batch mean, as far as wanted. One that
// cannot be read holds up no reader.
func (e *Engine) eventsOf(r *reader, batch []journal.Record, wanted func(*Event) bool) []Event {
	events := make([]Event, 0, len(batch))
	for _, rec := range batch {
		ev, err := r.event(rec)
		switch {
		case errors.Is(err, errNoEvent):
		case err != nil:
			e.log.Error("run record unreadable", "subject", rec.Subject, "sequence", rec.Sequence, "err", err)
		case wanted(&ev):
			events = append(events, ev)
		}
	}
	return events
}
