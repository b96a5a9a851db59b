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

// outlive changes a run for a caller who may go away: what is appended by then is
// followed to its end all the same, as memory must not know less than the journal.
// It lasts no longer than the engine's work, which change heeds.
func outlive(ctx context.Context, change func() (Run, error)) (Run, error) {
	type result struct {
		run Run
		err error
	}
	done := make(chan result, 1)
	go func() {
		run, err := change()
		done <- result{run, err}
	}()
	select {
	case r := <-done:
		return r.run, r.err
	case <-ctx.Done():
		return Run{}, context.Cause(ctx)
	}
}

// errFenced means that the run's log was written by someone else.
var errFenced = errors.New("run was changed elsewhere")

// change moves a run on: it takes the run's turn, lets edit alter a copy, and
// appends the result with the payload as the run's next record. The run changes
// in memory only when it has in the journal. Returns the run as it then is, with
// edit's error if it gave one; the record is not yet durable.
func (e *Engine) change(ctx context.Context, ent *entry, payload []byte, edit func(*Run) error) (Run, error) {
	return e.changeThen(ctx, ent, payload, edit, nil)
}

// changeThen is change, and calls then, unless it is nil, before the turn ends.
func (e *Engine) changeThen(
	ctx context.Context, ent *entry, payload []byte, edit func(*Run) error, then func(*Run),
) (Run, error) {
	before, next, left, err := e.changeInTurn(ctx, ent, payload, edit, then)
	if err != nil {
		return before, err
	}
	e.index.moved(ent, before.State, &next)
	if left != nil {
		left.revoke(revocation(&next))
	}
	if next.State.Ended() {
		e.ended(e.work, &next) //nolint:contextcheck // done whatever becomes of the caller
	}
	return next, nil
}

// revocation says why a worker has a run no more.
func revocation(run *Run) Reason {
	if run.State.Ended() && run.Error != nil {
		return run.Error.Reason
	}
	return ReasonLeaseLost
}

// enter takes a run's turn; leave ends it.
func (ent *entry) enter(ctx context.Context) error {
	select {
	case ent.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tryEnter takes a run's turn if nobody has it.
func (ent *entry) tryEnter() bool {
	select {
	case ent.turn <- struct{}{}:
		return true
	default:
		return false
	}
}

func (ent *entry) leave() { <-ent.turn }

// catchUp waits until the run in memory is as far as a record of its with the
// given sequence, of which readers of the journal may know before.
func (ent *entry) catchUp(ctx context.Context, sequence uint64) error {
	if ent.snapshot().Sequence >= sequence {
		return nil
	}
	if err := ent.enter(ctx); err != nil {
		return err
	}
	ent.leave()
	return nil
}

// changeInTurn does what needs the run's turn. left is the lease that a worker
// has no more.
func (e *Engine) changeInTurn(
	ctx context.Context, ent *entry, payload []byte, edit func(*Run) error, then func(*Run),
) (before, next Run, left *lease, err error) {
	if err := ent.enter(ctx); err != nil {
		return ent.snapshot(), Run{}, nil, err
	}
	defer ent.leave()
	before = ent.snapshot()
	next = before
	if err := edit(&next); err != nil {
		return before, Run{}, nil, err
	}
	rec := record{
		ID: uuid.NewString(), Run: next, Created: ent.created, Hash: ent.hash,
		Trace: ent.traceOrigin(), Payload: payload,
	}
	tells := next.State.Ended() || next.asks()
	if tells {
		rec.Trace.Under = ""
	}
	seq, err := e.appendSurely(ctx, &rec, before.Sequence)
	if err != nil {
		err = fmt.Errorf("record after sequence %d that run %s is %s: %w", before.Sequence, next.ID, next.State, err)
		return before, Run{}, nil, err
	}
	rec.Run = next
	rec.placed(next.Namespace, next.ID, seq)
	next = rec.Run
	if payload != nil {
		e.payloads.Add(seq, payload)
	}

	if tells {
		e.tell(ctx, ent, &next, payload)
	}

	ent.mu.Lock()
	ent.run, ent.trace = next, kept(rec.Trace)
	if next.State.Ended() {
		if ent.deadline != nil {
			ent.deadline.Stop()
		}
		ent.task, ent.input = nil, nil
		if ent.ended != nil {
			close(ent.ended)
		}
		for _, w := range ent.watchers {
			w.add(ent)
		}
		ent.watchers = nil
	}
	if before.State == Running {
		left, ent.lease = ent.lease, nil
	}
	ent.mu.Unlock()
	if then != nil {
		then(&next)
	}
	if next.State.Ended() || next.asks() {
		// In its turn: whoever has the next one may queue the run again.
		e.sched.leave(ent, &next)
	}
	return before, next, left, nil
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
			if seq, err = e.recognise(ctx, subject, rec.ID, after); !errors.Is(err, journal.ErrUnavailable) {
				return seq, err
			}
		case !errors.Is(err, journal.ErrUnavailable) && !errors.Is(err, journal.ErrNoSpace):
			return 0, err
		}
		e.log.WarnContext(ctx, "run record not kept yet", "run_id", rec.Run.ID, "state", rec.Run.State, "err", err)
		if !rest(ctx, pause) {
			return 0, errors.Join(err, context.Cause(ctx))
		}
	}
}

const (
	firstPause = 10 * time.Millisecond
	lastPause  = time.Second
)

// recognise returns the sequence of a subject's last record if it is the one
// with the id, whose append succeeded although its answer was lost. When it is
// still the one after which that was to come, nothing was in the way: a cluster
// refuses for the sake of a record that it is not done with, and has answered for.
func (e *Engine) recognise(ctx context.Context, subject, recordID string, after uint64) (uint64, error) {
	last, err := e.stream.Last(ctx, subject)
	if err != nil {
		return 0, err
	}
	if last.Sequence <= after {
		return 0, fmt.Errorf("%w: refused after sequence %d, which is the last", journal.ErrUnavailable, after)
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
