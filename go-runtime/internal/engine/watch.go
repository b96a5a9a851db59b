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
	if err := ent.catchUp(ctx, after); err != nil {
		return err
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
		if (len(batch) == 0 || end >= 0) && e.index.get(namespace, runID) != ent {
			// Of a run that is just being removed, what is read is not all.
			return &RunNotFoundError{RunID: runID}
		}
		if len(events) == 0 && len(batch) > 0 {
			return journal.Skip
		}
		if err := ent.catchUp(ctx, lastOfRun(events)); err != nil {
			return err
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

// lastOfRun returns the sequence of the last event that says where the run stands; 0: none does.
func lastOfRun(events []Event) uint64 {
	for _, ev := range slices.Backward(events) {
		if ev.Run != nil {
			return ev.Sequence
		}
	}
	return 0
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

// FollowRequest says which events of a namespace FollowRuns hands out.
type FollowRequest struct {
	// After is the sequence to go on after; 0: from the oldest that is kept.
	After uint64
	// WithoutTypes are left out.
	WithoutTypes []string
	// NamedOnly leaves out the runs whose creator did not give them their id, with their
	// sub-runs; those of schedules have theirs from it. Of the others more than usual are
	// kept for a follower that is behind.
	NamedOnly bool
	// MinInterval lies between two batches at least, unless there is much to send.
	MinInterval time.Duration
}

// FollowRuns hands the events of all runs of a namespace to send, as WatchRun
// does for one. Each event of a run's own has the run with it. It ends only with
// an error: *violation.Error for a sequence that is not of this journal, ctx's,
// send's, the journal's.
func (e *Engine) FollowRuns(
	ctx context.Context, namespace string, r FollowRequest, send func(events []Event, position uint64) error,
) error {
	if newest := e.stream.Newest(); r.After > newest {
		return violation.New("after_sequence", "is %d, and the newest is %d: it is of another journal", r.After, newest)
	}
	reader := newReader()
	wanted := func(ev *Event) bool {
		isNamed := !r.NamedOnly || ev.Run == nil || ev.Run.named
		return isNamed && !slices.Contains(r.WithoutTypes, ev.Type)
	}
	filters := []string{anyPrefix + journal.EncodeToken(namespace) + ".*"}
	var place *followerPlace
	if r.NamedOnly {
		place = e.followed.begin(namespace, r.After)
		defer e.followed.end(place)
	}
	return e.stream.Follow(ctx, r.After, filters, func(batch []journal.Record, position uint64) error {
		left := batch
		if r.NamedOnly {
			left = e.ofNamedRuns(namespace, batch)
		}
		events := e.eventsOf(reader, left, wanted)
		if len(events) == 0 && len(batch) > 0 {
			return journal.Skip
		}
		err := send(events, position)
		if err == nil && place != nil {
			e.followed.note(place, position)
		}
		return err
	}, journal.Every(r.MinInterval))
}

// ofNamedRuns leaves out the records of runs that are known to have their ids from
// the runtime: what is not decoded costs next to nothing.
func (e *Engine) ofNamedRuns(namespace string, batch []journal.Record) []journal.Record {
	var named []journal.Record
	for _, rec := range batch {
		_, runID, _, err := parseSubject(rec.Subject)
		if ent := e.index.get(namespace, runID); err != nil || ent == nil || ent.named {
			named = append(named, rec)
		}
	}
	return named
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
