package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Report is what a worker says about a run. One of the fields after Number is set.
type Report struct {
	RunID string
	Lease uint64
	// Number is 1 for the first report of a lease and rises by 1.
	Number uint64

	Events   []NewEvent
	Step     *Step
	StartRun *StartRun
	// The others are the last of a lease, and give the worker's place back.
	Succeed  *Succeed
	Fail     *Fail
	Park     *Wait
	GiveBack bool
	Release  bool
}

// last reports whether the worker's place is free after the report.
func (r *Report) last() bool {
	return r.Succeed != nil || r.Fail != nil || r.Park != nil || r.GiveBack || r.Release
}

// NewEvent is an event that an agent emits.
type NewEvent struct {
	Type       string
	Visibility Visibility
	// Payload is a JSON object.
	Payload []byte
}

// Succeed ends a run with an output, a JSON object.
type Succeed struct{ Output []byte }

// Fail ends an attempt.
type Fail struct {
	Message string
	// Retryable is false when no other attempt is to be made.
	Retryable bool
	// RetryAfter is when; 0: by the retry policy.
	RetryAfter time.Duration
	// Type is the agent's own name for the failure.
	Type string
}

const (
	maxEventTypeBytes = 200
	maxStepKeyBytes   = 300
	maxFailureBytes   = 4000
)

// Report takes what the worker says, in order. What cannot be kept is answered
// with a Refusal; what is kept, with an ack once it is durable.
// Errors: ErrReplaced when the worker has connected again.
func (c *Connection) Report(ctx context.Context, reports []Report) error {
	if len(reports) == 0 {
		return nil
	}
	c.heard(1)
	defer c.heard(-1)
	for len(reports) > 0 {
		if n := c.emitTogether(reports); n > 0 {
			reports = reports[n:]
			continue
		}
		r := &reports[0]
		reports = reports[1:]
		c.mu.Lock()
		current, l := c.current(), c.leases[r.Lease]
		c.mu.Unlock()
		if !current {
			return ErrReplaced
		}
		if l == nil || l.ent.id != r.RunID {
			c.refuse(r, ErrLeaseLost)
			continue
		}
		seq, err := c.handle(ctx, l, r)
		switch {
		case err != nil && !r.last():
			c.refuse(r, err)
		case err != nil && !r.Release:
			c.refuse(r, err)
			c.depart(l)
		case r.last():
			c.acknowledgeLater(r, seq)
			c.depart(l)
		case r.StartRun == nil:
			c.acknowledgeLater(r, seq)
		}
	}
	return nil
}

// depart frees the worker's place.
func (c *Connection) depart(l *lease) {
	l.timeout.Stop()
	c.mu.Lock()
	_, there := c.leases[l.token]
	delete(c.leases, l.token)
	if there && !l.revoked.IsZero() {
		c.engine.stopped.Add(1)
		c.engine.stopTime.Add(int64(time.Since(l.revoked)))
	}
	c.mu.Unlock()
	if there {
		c.engine.sched.returnPlace(c.Session, l.ent.id)
	}
}

// refuse tells the worker that a report was not kept. Without one of its events,
// whose code went on meanwhile, the attempt does not succeed.
func (c *Connection) refuse(r *Report, err error) {
	if r.Events != nil && isAboutTheReport(err) {
		c.mu.Lock()
		if l := c.leases[r.Lease]; l != nil {
			l.refused = err
		}
		c.mu.Unlock()
	}
	c.order(func(o *Orders) {
		o.Refusals = append(o.Refusals, Refusal{HeldLease{r.RunID, r.Lease, r.Number}, err})
	})
}

// isAboutTheReport reports whether a report would be refused another time as well.
func isAboutTheReport(err error) bool {
	return errors.As(err, new(*violation.Error)) || errors.As(err, new(*violation.TooLargeError)) ||
		errors.Is(err, journal.ErrTooLarge)
}

func (c *Connection) acknowledgeLater(r *Report, seq uint64) {
	c.mu.Lock()
	if !c.over {
		c.acks[r.Lease] = ack{HeldLease{r.RunID, r.Lease, r.Number}, max(seq, c.acks[r.Lease].sequence)}
	}
	c.mu.Unlock()
	signal(c.kept)
	if r.Step != nil {
		signal(c.awaited)
	}
}

// handle keeps what a report says and returns the sequence of its last record.
func (c *Connection) handle(ctx context.Context, l *lease, r *Report) (seq uint64, err error) {
	e := c.engine
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.StartRun != nil {
		// Asked again until it is answered: it joins the sub-run that there is.
		l.advance(r.Number)
		return 0, c.startRun(ctx, l, r)
	}
	if r.Number <= l.report {
		return l.ent.snapshot().Sequence, nil
	}
	switch {
	case r.Events != nil:
		seq, err = e.emit(e.work, l, r.Number, r.Events)
	case r.Step != nil:
		seq, err = e.recordStep(e.work, l, r)
	case r.Release:
		c.mu.Lock()
		over := l.over
		c.mu.Unlock()
		if !over {
			return 0, violation.New("release", "the lease is not over")
		}
	default:
		seq, err = e.conclude(l, r)
	}
	if err == nil {
		l.advance(r.Number)
	}
	return seq, err
}

// advance notes that a report has been handled.
func (l *lease) advance(number uint64) {
	if number > l.report {
		l.report, l.place = number, -1
	}
}

// conclude ends the attempt as the worker says.
func (e *Engine) conclude(l *lease, r *Report) (uint64, error) {
	run := l.ent.snapshot()
	var payload []byte
	var failure error
	park := r.Park
	switch {
	case r.Succeed != nil:
		payload, failure = r.Succeed.Output, e.checkOutput(r.Succeed.Output)
	case r.Fail != nil:
		failure = &TaskError{
			Reason: ReasonAgentFailed, Message: shorten(r.Fail.Message), Type: shorten(r.Fail.Type),
			Retryable: r.Fail.Retryable, RetryAfter: r.Fail.RetryAfter,
		}
	case park != nil:
		if err := e.checkPark(&run, park); err != nil {
			failure, park = &TaskError{Reason: ReasonAgentFailed, Message: err.Error(), Cause: err}, nil
		} else {
			payload = park.Payload
		}
	}
	l.session.mu.Lock()
	l.over = true // the worker knows
	refused := l.refused
	l.session.mu.Unlock()
	if r.Succeed != nil && failure == nil && refused != nil {
		message := shorten("the agent runtime did not keep an event: " + refused.Error())
		failure = &TaskError{Reason: ReasonAgentFailed, Message: message, Cause: refused}
	}
	if failure != nil {
		payload = nil
	}
	now := e.cfg.Now().UTC()
	change := func(run *Run) error {
		if !l.holds(run) {
			return ErrLeaseLost
		}
		switch {
		case r.GiveBack:
			run.giveBack()
		case park != nil:
			e.park(run, park)
		default:
			e.settle(run, failure, l.agentPolicy(run), now)
		}
		return nil
	}
	run, err := e.change(e.work, l.ent, payload, change)
	if errors.Is(err, journal.ErrTooLarge) {
		failure, park = unrecordable(err), nil
		run, err = e.change(e.work, l.ent, nil, change)
	}
	if err != nil {
		return 0, err
	}
	switch run.State {
	case Queued:
		e.requeue(l.ent, &run)
		e.log.Info("run queued again", "run_id", run.ID, "agent", run.AgentID, "attempt", run.Attempt, "cause", run.cause)
	case Waiting:
		e.log.Info("run waits", "run_id", run.ID, "agent", run.AgentID)
	case Running, Succeeded, Failed, Cancelled, TimedOut:
		e.logEnd(run, failure)
	}
	return run.Sequence, nil
}

// agentPolicy is how the run's agent is retried, as the worker said.
func (l *lease) agentPolicy(run *Run) *RetryPolicy {
	l.session.mu.Lock()
	defer l.session.mu.Unlock()
	return l.session.agents[run.AgentID].Retry
}

func (e *Engine) checkPark(run *Run, w *Wait) error {
	if (w.InterruptID == "") == (len(w.Runs) == 0) {
		return violation.New("park", "needs an interrupt or runs to wait for")
	}
	if w.InterruptID == "" {
		return e.checkWaitFor(run, w.Runs)
	}
	if len(w.Payload) > e.cfg.MaxInputBytes {
		return &violation.TooLargeError{Field: "interrupt.payload", Size: len(w.Payload), Limit: e.cfg.MaxInputBytes}
	}
	w.Payload = orNull(w.Payload)
	return violation.Join(
		checkText("interrupt.interrupt_id", w.InterruptID, maxStepKeyBytes),
		jsonvalue.Validate("interrupt.payload", w.Payload),
	)
}

// maxWaitFor is how many sub-runs one run may wait for at a time.
const maxWaitFor = 10_000

// checkWaitFor refuses to wait for what wakes nobody: runs that are not the run's own sub-runs.
func (e *Engine) checkWaitFor(run *Run, runIDs []string) error {
	if len(runIDs) > maxWaitFor {
		return violation.New("park.wait_for", "must name at most %d runs, has %d", maxWaitFor, len(runIDs))
	}
	for i, id := range runIDs {
		ent := e.index.get(run.Namespace, id)
		if ent == nil {
			continue
		}
		if other := ent.snapshot(); other.options().ParentID != run.ID {
			return violation.New(fmt.Sprintf("park.wait_for[%d]", i), "%s is no sub-run of the run", id)
		}
	}
	return nil
}

// park has the run wait, unless the sub-runs that it would wait for have ended.
func (e *Engine) park(run *Run, w *Wait) {
	if w.InterruptID == "" && e.allEnded(run.Namespace, w.Runs) {
		run.queue(causeSubRuns)
		run.continues = true
		return
	}
	run.State = Waiting
	run.Worker = nil
	run.Wait = &Wait{InterruptID: w.InterruptID, Runs: w.Runs}
}

// recordStep keeps what a step returned.
func (e *Engine) recordStep(ctx context.Context, l *lease, r *Report) (uint64, error) {
	if size := len(r.Step.Result); size > e.cfg.MaxInputBytes {
		return 0, &violation.TooLargeError{Field: "step.result", Size: size, Limit: e.cfg.MaxInputBytes}
	}
	event, err := stepEvent("step.", *r.Step)
	if err != nil {
		return 0, err
	}
	return e.add(ctx, l, r.Number, []NewEvent{event})
}

// stepEvent is the event that records a step. What does not fit is named behind field.
func stepEvent(field string, step Step) (NewEvent, error) {
	if err := violation.Join(
		checkText(field+"key", step.Key, maxStepKeyBytes), jsonvalue.Validate(field+"result", step.Result),
	); err != nil {
		return NewEvent{}, err
	}
	payload, err := marshalPlain(step)
	if err != nil {
		return NewEvent{}, fmt.Errorf("encode step %s: %w", step.Key, err)
	}
	return NewEvent{Type: eventStep, Visibility: Internal, Payload: payload}, nil
}

// recallReport returns the number of the last report of a lease that was kept.
// After a restart it is read from the run's log.
func (e *Engine) recallReport(ctx context.Context, l *lease) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	run := l.ent.snapshot()
	last, seq, err := e.lastEmitted(ctx, eventSubject(run.Namespace, run.ID))
	if errors.Is(err, journal.ErrNotFound) || (err == nil && last.Lease != l.token) {
		return l.report, nil
	}
	if err != nil {
		return 0, err
	}
	if last.Report > l.report {
		// Whether all events of that report were kept, the worker knows who sends it again.
		l.report, l.place = last.Report-1, last.Place
	}
	if err := e.stream.Commit(ctx, seq); err != nil {
		return 0, err
	}
	return l.report, nil
}

// shorten bounds what a worker says about a failure.
func shorten(text string) string {
	return violation.Clip(strings.ToValidUTF8(text, "\uFFFD"), maxFailureBytes)
}
