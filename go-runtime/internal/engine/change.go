package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// errUnchanged is what a change returns to leave the run as it is.
var errUnchanged = errors.New("run left as it is")

// errFenced means that the run's log was written by someone else.
var errFenced = errors.New("run was changed elsewhere")

// change moves a run on: it takes the run's turn, lets edit alter a copy, and
// appends the result with the payload as the run's next record. The run changes
// in memory only when it has in the journal. Returns the run as it then is, with
// edit's error if it gave one; the record is not yet durable.
func (e *Engine) change(ctx context.Context, ent *entry, payload []byte, edit func(*Run) error) (Run, error) {
	select {
	case ent.turn <- struct{}{}:
		defer func() { <-ent.turn }()
	case <-ctx.Done():
		return ent.snapshot(), context.Cause(ctx)
	}
	before := ent.snapshot()
	next := before
	if err := edit(&next); err != nil {
		return before, err
	}
	rec := record{
		ID: uuid.NewString(), Run: next, Created: ent.created, Hash: ent.hash,
		TraceParent: ent.traceParent, Payload: payload,
	}
	seq, err := e.appendSurely(ctx, &rec, before.Sequence)
	if err != nil {
		return before, fmt.Errorf("record after sequence %d that run %s is %s: %w", before.Sequence, next.ID, next.State, err)
	}
	next.Sequence = seq
	if payload != nil {
		e.payloads.Add(seq, payload)
	}

	ent.mu.Lock()
	ent.run = next
	if next.State.Ended() {
		if ent.deadline != nil {
			ent.deadline.Stop()
		}
		ent.task, ent.input = nil, nil
		close(ent.ended)
		for _, w := range ent.watchers {
			w.add(ent)
		}
		ent.watchers = nil
	}
	ent.mu.Unlock()
	e.index.moved(ent, before.State, next.State)
	return next, nil
}

// appendSurely appends a record after the one with the given sequence. It tries
// again until the outcome is known or ctx ends, since the engine has nowhere else
// to put what happened.
func (e *Engine) appendSurely(ctx context.Context, rec *record, after uint64) (uint64, error) {
	data, err := rec.encode()
	if err != nil {
		return 0, err
	}
	subject := runSubject(rec.Run.Namespace, rec.Run.ID)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		seq, err := e.stream.Append(ctx, journal.Message{
			Subject: subject, Data: data, Expect: &after, Purpose: journal.Finish,
		})
		switch {
		case err == nil:
			return seq, nil
		case errors.Is(err, journal.ErrConflict):
			if seq, err = e.recognise(ctx, subject, rec.ID); !errors.Is(err, journal.ErrUnavailable) {
				return seq, err
			}
		case !errors.Is(err, journal.ErrUnavailable) && !errors.Is(err, journal.ErrNoSpace):
			return 0, err
		}
		e.log.WarnContext(ctx, "run record not kept yet", "run_id", rec.Run.ID, "state", rec.Run.State, "err", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return 0, errors.Join(err, context.Cause(ctx))
		}
	}
}

const (
	firstPause = 10 * time.Millisecond
	lastPause  = time.Second
)

// recognise returns the sequence of a subject's last record if it is the one
// with the id, whose append succeeded although its answer was lost.
func (e *Engine) recognise(ctx context.Context, subject, recordID string) (uint64, error) {
	last, err := e.stream.Last(ctx, subject)
	if err != nil {
		return 0, err
	}
	rec, err := decodeRecord(last.Data)
	if err != nil {
		return 0, err
	}
	if rec.ID != recordID {
		return 0, fmt.Errorf("%w: it is %s at sequence %d", errFenced, rec.Run.State, last.Sequence)
	}
	return last.Sequence, nil
}
