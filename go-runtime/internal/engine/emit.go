package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// emit adds what an agent emitted as the report of that number.
func (e *Engine) emit(ctx context.Context, l *lease, number uint64, events []NewEvent) (uint64, error) {
	if err := e.checkEvents(events); err != nil {
		return 0, err
	}
	return e.add(ctx, l, number, events)
}

// checkEvents checks what an agent emitted.
func (e *Engine) checkEvents(events []NewEvent) error {
	for i := range events {
		ev := &events[i]
		field := fmt.Sprintf("events[%d]", i)
		if len(ev.Payload) == 0 {
			ev.Payload = []byte("{}")
		}
		switch {
		case ev.Type == "":
			return violation.New(field+".type", "is required")
		case strings.HasPrefix(ev.Type, ownPrefix):
			return violation.New(field+".type", "%q is the runtime's: types that begin with %q cannot be emitted", ev.Type, ownPrefix)
		case len(ev.Payload) > e.cfg.MaxInputBytes:
			return &violation.TooLargeError{Field: field + ".payload", Size: len(ev.Payload), Limit: e.cfg.MaxInputBytes}
		}
		if err := violation.Join(
			checkText(field+".type", ev.Type, maxEventTypeBytes), jsonvalue.ValidateObject(field+".payload", ev.Payload),
		); err != nil {
			return err
		}
	}
	return nil
}

// add appends the events of a report to the run's log, those that are not there
// yet, and returns the sequence of the last.
func (e *Engine) add(ctx context.Context, l *lease, number uint64, events []NewEvent) (seq uint64, err error) {
	if err := l.ent.enter(ctx); err != nil {
		return 0, err
	}
	defer l.ent.leave()
	run := l.ent.snapshot()
	if !l.holds(&run) {
		return 0, ErrLeaseLost
	}
	from := 0
	if number == l.report+1 && l.place >= 0 {
		from = l.place + 1
	}
	for i := from; i < len(events); i++ {
		a, err := newAddition(&run, number, i, &events[i])
		if err != nil {
			return 0, err
		}
		seq, err = e.stream.Append(ctx, a.message)
		if seq, err = e.surelyAdded(ctx, a, seq, err); err != nil {
			return 0, err
		}
		l.place = i
	}
	l.place = -1
	return seq, nil
}

// holds reports whether the run is still that of the lease.
func (l *lease) holds(run *Run) bool { return run.State == Running && run.Lease == l.token }

// addition is an event on its way to a run's log.
type addition struct {
	emitted emitted
	message journal.Message
}

func newAddition(run *Run, report uint64, place int, event *NewEvent) (*addition, error) {
	a := &addition{emitted: emitted{
		Type: event.Type, Visibility: event.Visibility, Attempt: run.Attempt, Lease: run.Lease,
		Report: report, Place: place, Payload: event.Payload,
	}}
	data, err := a.emitted.encode()
	if err != nil {
		return nil, err
	}
	a.message = journal.Message{Subject: eventSubject(run.Namespace, run.ID), Data: data, Purpose: journal.Finish}
	return a, nil
}

// surelyAdded returns the sequence of an event whose append has ended with seq
// and err. It appends again where that failed; when it is not known whether it
// failed, it looks first. What is appended in the end although it was not there
// when it was looked for, readers leave out.
func (e *Engine) surelyAdded(ctx context.Context, a *addition, seq uint64, err error) (uint64, error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		switch {
		case err == nil:
			return seq, nil
		case errors.Is(err, journal.ErrNoSpace):
		case errors.Is(err, journal.ErrUnavailable):
			last, errLook := surely(ctx, func() (last emitted, err error) {
				last, seq, err = e.lastEmitted(ctx, a.message.Subject)
				return last, err
			})
			switch {
			case errLook == nil && last.place() == a.emitted.place():
				return seq, nil
			case errLook != nil && !errors.Is(errLook, journal.ErrNotFound):
				return 0, errors.Join(err, errLook)
			}
		default:
			return 0, err
		}
		e.log.WarnContext(ctx, "event not kept yet", "subject", a.message.Subject, "type", a.emitted.Type, "err", err)
		if !rest(ctx, pause) {
			return 0, errors.Join(err, context.Cause(ctx))
		}
		seq, err = e.stream.Append(ctx, a.message)
	}
}

// lastEmitted returns the last event that was added to a run's log.
func (e *Engine) lastEmitted(ctx context.Context, subject string) (emitted, uint64, error) {
	last, err := e.stream.Last(ctx, subject)
	if err != nil {
		return emitted{}, 0, err
	}
	m, err := decodeEmitted(last.Data)
	return m, last.Sequence, err
}

// maxTogether bounds how many runs wait for each other's events.
const maxTogether = 256

// emission is a report of one event whose lease and run are held until it is kept.
type emission struct {
	report   *Report
	lease    *lease
	addition *addition
}

// emitTogether adds the events of the first reports, as many of them as are one
// event each, of different runs: appends that are under way together cost half
// of what they cost one after another. It returns how many reports it took; what
// is out of the ordinary about the next is for handle. An event that is not kept
// at once holds up no other run.
func (c *Connection) emitTogether(reports []Report) int {
	e := c.engine
	emissions := make([]emission, 0, min(len(reports), maxTogether))
	for i := range reports[:cap(emissions)] {
		next, ok := c.hold(&reports[i])
		if !ok {
			break
		}
		emissions = append(emissions, next)
	}
	if len(emissions) == 0 {
		return 0
	}
	messages := make([]journal.Message, len(emissions))
	for i := range emissions {
		messages[i] = emissions[i].addition.message
	}
	results, failed := e.stream.AppendEach(e.work, messages)
	var late sync.WaitGroup
	for i, em := range emissions {
		if failed == nil && results[i].Err == nil {
			c.settle(&em, results[i].Sequence, nil)
			continue
		}
		late.Go(func() {
			var result journal.AppendResult
			if failed == nil {
				result = results[i]
			} else {
				// None was appended, on account of one of them perhaps.
				result.Sequence, result.Err = e.stream.Append(e.work, messages[i])
			}
			seq, err := e.surelyAdded(e.work, em.addition, result.Sequence, result.Err)
			c.settle(&em, seq, err)
		})
	}
	late.Wait()
	return len(emissions)
}

// settle gives back what hold took and tells the worker how it went.
func (c *Connection) settle(em *emission, seq uint64, err error) {
	if err == nil {
		em.lease.advance(em.report.Number)
	}
	em.lease.ent.leave()
	em.lease.mu.Unlock()
	if err != nil {
		c.refuse(em.report, err)
	} else {
		c.acknowledgeLater(em.report, seq)
	}
}

// hold takes the lease and the run of a report that is one new event, if both are
// free and nothing speaks against keeping it.
func (c *Connection) hold(r *Report) (em emission, ok bool) {
	if len(r.Events) != 1 {
		return em, false
	}
	c.mu.Lock()
	current, l := c.current(), c.leases[r.Lease]
	c.mu.Unlock()
	if !current || l == nil || l.ent.id != r.RunID || !l.mu.TryLock() {
		return em, false
	}
	defer func() {
		if !ok {
			l.mu.Unlock()
		}
	}()
	if r.Number <= l.report || l.place >= 0 || c.engine.checkEvents(r.Events) != nil || !l.ent.tryEnter() {
		return em, false
	}
	defer func() {
		if !ok {
			l.ent.leave()
		}
	}()
	run := l.ent.snapshot()
	if !l.holds(&run) {
		return em, false
	}
	a, err := newAddition(&run, r.Number, 0, &r.Events[0])
	return emission{report: r, lease: l, addition: a}, err == nil
}
