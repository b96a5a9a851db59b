package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
)

// Causes for which an attempt's context ends.
var (
	errRunEnded   = errors.New("run has ended")
	errRunTimeout = errors.New("run timeout")
)

// startAll begins runs that were given places.
func (e *Engine) startAll(placements []placement) {
	for _, p := range placements {
		if p.session != nil {
			p.session.assign(p.ent)
		} else {
			e.occupy(p.ent)
		}
	}
}

// occupy executes a run in a place that was taken for it.
func (e *Engine) occupy(ent *entry) {
	e.running.Go(func() {
		e.executing.Add(1)
		defer e.sched.freePlace()
		defer e.executing.Add(-1)
		e.attempt(ent)
	})
}

// attempt executes a run once and records how it went.
func (e *Engine) attempt(ent *entry) {
	task, call, err := e.prepare(ent)
	if e.work.Err() != nil {
		err = ErrStopped
	}
	if err != nil {
		e.finish(ent, nil, err)
		return
	}
	ctx, cancel := context.WithCancelCause(e.work)
	defer cancel(nil)
	ent.mu.Lock()
	ent.cancel = cancel
	ent.mu.Unlock()

	run := ent.snapshot()
	if run.State == Queued {
		run, err = e.change(e.work, ent, nil, func(run *Run) error {
			if run.State != Queued {
				return errUnchanged
			}
			run.begin(e.cfg.Now().UTC(), nil)
			e.limit(run, e.registry.Defaults(run.Namespace, run.Target, run.AgentID))
			return nil
		})
		if err != nil {
			e.logUnlessUnchanged(run, err)
			return
		}
	}
	if run.State.Ended() {
		return
	}
	call.Attempt = run.Attempt
	log := &taskLog{engine: e, lease: &lease{ent: ent, token: run.Lease, place: -1}, visibilities: run.options().Visibility}
	call.Emit, call.Record, call.Commit, call.StartRun = log.emit, log.record, log.commit, log.startRun
	call.StepsOf = func(ctx context.Context, runID string) ([]Step, error) { return e.RunSteps(ctx, run.Namespace, runID) }
	call.Ended = func(runID string) bool { return e.allEnded(run.Namespace, []string{runID}) }
	e.execute(ctx, ent, run, task, call)
}

// execute runs the task until it returns or its context ends; in the latter case
// the run is settled at once, and the place kept until the task has gone.
func (e *Engine) execute(ctx context.Context, ent *entry, run Run, task Task, call Call) {
	ctx, stopTimer := context.WithTimeoutCause(ctx, run.RunTimeout, errRunTimeout)
	defer stopTimer()
	ctx, attempt := e.cfg.Tracer.StartAttempt(ctx, ent.traceOrigin(), traced(&run))
	attempt.Input(json.RawMessage(call.Input))

	type result struct {
		output []byte
		err    error
	}
	done := make(chan result, 1)
	go func() {
		output, err := runTask(ctx, task, call)
		done <- result{output, err}
	}()
	select {
	case r := <-done:
		if r.err != nil && ctx.Err() != nil {
			r.err = context.Cause(ctx)
		}
		endAttempt(attempt, &run, r.output, r.err)
		e.finish(ent, r.output, r.err) //nolint:contextcheck // recorded whatever ended ctx
	case <-ctx.Done():
		endAttempt(attempt, &run, nil, context.Cause(ctx))
		e.finish(ent, nil, context.Cause(ctx)) //nolint:contextcheck // recorded although ctx ended
		<-done
	}
}

// taskLog is what a task of the runtime adds to its run's log with, for as long as the
// lease lasts.
type taskLog struct {
	engine       *Engine
	lease        *lease
	visibilities map[string]Visibility
	// newest is the sequence of the latest event that was added; the lease's lock guards it.
	newest uint64
}

func (t *taskLog) emit(ctx context.Context, events ...NewEvent) error {
	for i := range events {
		setDefault(&events[i].Visibility, t.visibilities[events[i].Type])
		setDefault(&events[i].Visibility, User)
	}
	l := t.lease
	l.mu.Lock()
	defer l.mu.Unlock()
	// A call that failed may have added some of its events: the next is another report.
	defer l.advance(l.report + 1)
	seq, err := t.engine.emit(ctx, l, l.report+1, events)
	t.newest = max(t.newest, seq)
	return err
}

func (t *taskLog) record(ctx context.Context, key string, result []byte) error {
	event, err := stepEvent("", Step{Key: key, Result: result})
	if err != nil {
		return err
	}
	return t.emit(ctx, event)
}

func (t *taskLog) commit(ctx context.Context) error {
	t.lease.mu.Lock()
	newest := t.newest
	t.lease.mu.Unlock()
	if newest == 0 {
		return nil
	}
	return t.engine.stream.Commit(ctx, newest)
}

func (t *taskLog) startRun(ctx context.Context, key string, request CreateRequest) (Run, error) {
	return t.engine.startSubRun(ctx, t.lease, key, request)
}

// prepare returns the run's task and call. After a restart the task is looked up
// and the input read again.
func (e *Engine) prepare(ent *entry) (Task, Call, error) {
	input, err := e.inputOf(ent)
	if err != nil {
		return nil, Call{}, err
	}
	ent.mu.Lock()
	run, task := ent.run, ent.task
	ent.task, ent.input = nil, nil
	ent.mu.Unlock()
	p, err := e.pastOf(ent)
	if err != nil {
		return nil, Call{}, err
	}
	if task == nil {
		if task, err = e.registry.Resolve(run.Namespace, run.Target, run.AgentID, run.TaskType, nil); err != nil {
			return nil, Call{}, &TaskError{Reason: ReasonAgentFailed, Message: err.Error(), Cause: err}
		}
	}
	return task, Call{
		Namespace: run.Namespace, RunID: run.ID, AgentID: run.AgentID,
		TaskType: run.TaskType, Input: input, Metadata: run.Metadata, Steps: p.Steps, Answers: p.Answers,
	}, nil
}

// inputOf returns the input of a run; after a restart it is read again. Its error
// is a *TaskError.
func (e *Engine) inputOf(ent *entry) ([]byte, error) {
	ent.mu.Lock()
	input := ent.input
	ent.mu.Unlock()
	if input != nil {
		return input, nil
	}
	rec, err := surely(e.work, func() (record, error) { return e.readRecord(e.work, ent.created) })
	if err != nil {
		return nil, unreadable("the run's input", err)
	}
	return rec.Payload, nil
}

// pastOf returns what earlier attempts of a run left that is about to begin. Its error
// is a *TaskError.
func (e *Engine) pastOf(ent *entry) (past, error) {
	// A run that began with its acceptance is Running, and has none.
	if run := ent.snapshot(); run.State != Queued || run.begun == 0 {
		return past{}, nil
	}
	p, err := surely(e.work, func() (past, error) { return e.readPast(e.work, ent) })
	if err != nil {
		return past{}, unreadable("what earlier attempts of the run left", err)
	}
	return p, nil
}

func unreadable(what string, err error) *TaskError {
	return &TaskError{Reason: ReasonAgentFailed, Message: what + " cannot be read", Cause: err}
}

// runTask calls the task and turns a panic into an error.
func runTask(ctx context.Context, task Task, call Call) (output []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &TaskError{
				Reason:  ReasonAgentPanicked,
				Message: "the task panicked; the runtime's log has the stack under the run's id",
				Cause:   fmt.Errorf("panic: %v\n%s", p, debug.Stack()),
			}
		}
	}()
	return task(ctx, call)
}

// giveBackTimeout is how long a stopping engine tries to record that a run is
// queued again; without that record the next start counts another attempt.
const giveBackTimeout = 2 * time.Second

// finish records how an attempt went: its output, or why there is none.
func (e *Engine) finish(ent *entry, output []byte, failure error) {
	if failure == nil {
		failure = e.checkOutput(output)
	}
	var payload []byte
	var wait *Wait
	if failure == nil {
		payload = output
	} else if parked, parks := errors.AsType[*ParkedError](failure); parks {
		asked := &Wait{InterruptID: parked.InterruptID, Payload: parked.Payload, Runs: parked.Runs}
		run := ent.snapshot()
		if err := e.checkPark(&run, asked); err != nil {
			failure = &TaskError{Reason: ReasonAgentFailed, Message: err.Error(), Cause: err}
		} else {
			wait, payload = asked, asked.Payload
		}
	}
	giveBack := errors.Is(failure, ErrStopped)
	ctx := e.work
	if giveBack {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(e.work), giveBackTimeout)
		defer cancel()
	}
	now := e.cfg.Now().UTC()
	change := func(run *Run) error {
		if run.State.Ended() {
			return errUnchanged
		}
		if giveBack {
			if run.State == Queued {
				return errUnchanged
			}
			run.giveBack()
			return nil
		}
		if wait != nil {
			e.park(run, wait)
			return nil
		}
		e.settle(run, failure, e.registry.Defaults(run.Namespace, run.Target, run.AgentID).Retry, now)
		return nil
	}
	run, err := e.change(ctx, ent, payload, change)
	if errors.Is(err, journal.ErrTooLarge) {
		failure, wait = unrecordable(err), nil
		run, err = e.change(ctx, ent, nil, change)
	}
	switch {
	case err != nil:
		e.logUnlessUnchanged(run, err)
	case giveBack:
		e.log.Info("run given back", "run_id", run.ID, "task_type", run.TaskType)
	case run.State == Waiting:
		e.log.Info("run waits", "run_id", run.ID, "task_type", run.TaskType)
	case run.State == Queued:
		e.requeue(ent, &run)
		e.log.Warn("run is tried again", "run_id", run.ID, "task_type", run.TaskType, "attempt", run.Attempt, "err", failure)
	default:
		e.logEnd(run, failure)
	}
}

// unrecordable is the failure of an attempt whose end does not fit into a record.
func unrecordable(err error) error {
	return &TaskError{Reason: ReasonAgentFailed, Message: "how the run ended cannot be kept: " + err.Error(), Cause: err}
}

// settle ends a run whose attempt is over, or queues it for the next one. agent is
// how its agent is retried, nil when it does not say.
func (e *Engine) settle(run *Run, failure error, agent *RetryPolicy, now time.Time) {
	state, why := outcome(run, failure)
	if state != Failed || !why.Retryable || run.Attempt >= run.MaxAttempts {
		run.end(state, why, now)
		return
	}
	policy := e.policyOf(run, agent)
	pause := policy.backoff(run.Attempt)
	if failed, found := errors.AsType[*TaskError](failure); found && failed.RetryAfter > 0 {
		pause = failed.RetryAfter
	}
	run.queue(causeRetry)
	run.Error = why
	run.NotBefore = now.Add(pause)
}

// outcome names the end that a failure (nil: none) makes of a run.
func outcome(run *Run, failure error) (State, *RunError) {
	var failed *TaskError
	switch {
	case failure == nil:
		return Succeeded, nil
	case errors.Is(failure, errRunTimeout):
		return TimedOut, &RunError{
			Reason: ReasonTimedOut, Retryable: true,
			Message: fmt.Sprintf("attempt %d took longer than the run timeout of %s", run.Attempt, run.RunTimeout),
		}
	case errors.As(failure, &failed):
		return Failed, &RunError{Reason: failed.Reason, Message: failed.Message, Retryable: failed.Retryable, Type: failed.Type}
	default:
		return Failed, &RunError{Reason: ReasonAgentFailed, Message: failure.Error()}
	}
}

func (e *Engine) checkOutput(output []byte) error {
	if len(output) > e.cfg.MaxInputBytes {
		return &TaskError{
			Reason:  ReasonAgentFailed,
			Message: fmt.Sprintf("the output has %d bytes, more than the limit of %d", len(output), e.cfg.MaxInputBytes),
		}
	}
	if err := jsonvalue.ValidateObject("output", output); err != nil {
		return &TaskError{Reason: ReasonAgentFailed, Message: err.Error(), Cause: err}
	}
	return nil
}

func (e *Engine) logEnd(run Run, failure error) {
	args := []any{
		"run_id", run.ID, "task_type", run.TaskType, "agent", run.AgentID,
		"attempt", run.Attempt, "duration_ms", run.EndedAt.Sub(run.CreatedAt).Milliseconds(),
	}
	if failure == nil {
		e.log.Info("run succeeded", args...)
		return
	}
	e.log.Warn("run did not succeed", append(args, "state", run.State, "reason", run.Error.Reason, "err", failure)...)
}

func (e *Engine) logUnlessUnchanged(run Run, err error) {
	if !errors.Is(err, errUnchanged) {
		e.log.Error("run not recorded", "run_id", run.ID, "state", run.State, "err", err)
	}
}
