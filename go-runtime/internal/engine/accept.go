package engine

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/propagation"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const (
	maxKeyBytes       = 255
	maxRequestIDBytes = 64
	maxLabelBytes     = 200
	maxTextBytes      = 1000
	maxMetadataBytes  = 64 << 10

	// maxHeldInputBytes is the largest input that stays in memory while its run
	// is queued; a larger one is read from the journal when the run starts.
	maxHeldInputBytes = 4 << 10

	appendTimeout = 10 * time.Second
)

// CreateRun accepts a run, or joins the one that the same call made before, and
// with Wait returns when it has ended. What it returns is durable. Once accepted
// the run goes on whatever becomes of ctx.
//
// Errors: those of the registry, *violation.Error, *violation.TooLargeError,
// *ConflictError, *QueueFullError, ErrStopped, and the journal's.
func (e *Engine) CreateRun(ctx context.Context, namespace string, r CreateRequest) (run Run, created bool, err error) {
	if r, err = e.complete(r); err != nil {
		return Run{}, false, err
	}
	id, err := identify(namespace, r)
	if err != nil {
		return Run{}, false, err
	}
	hash := hashPayload(r)

	ent := e.index.get(namespace, id)
	if ent == nil {
		ent, created, err = e.accept(ctx, namespace, id, hash, r)
		if err != nil {
			return Run{}, false, err
		}
	}
	if ent.hash != hash {
		return Run{}, false, &ConflictError{RunID: id}
	}
	if r.Wait {
		run, err = e.await(ctx, ent, 0)
	} else {
		run, err = e.commit(ctx, ent)
	}
	if err == nil {
		run, err = e.withPayloads(ctx, ent, run)
	}
	return run, created, err
}

// complete fills in what the request leaves out and checks the rest.
func (e *Engine) complete(r CreateRequest) (CreateRequest, error) {
	if r.Target == "" {
		r.Target = TaskTarget
	}
	if len(r.Input) == 0 {
		r.Input = []byte("{}")
	}
	if r.RunTimeout == 0 {
		r.RunTimeout = e.cfg.RunTimeout
	}
	if len(r.Input) > e.cfg.MaxInputBytes {
		return r, &violation.TooLargeError{Field: "input", Size: len(r.Input), Limit: e.cfg.MaxInputBytes}
	}
	if len(r.Metadata) > maxMetadataBytes {
		return r, &violation.TooLargeError{Field: "metadata", Size: len(r.Metadata), Limit: maxMetadataBytes}
	}
	checks := []error{jsonvalue.ValidateObject("input", r.Input)}
	if len(r.Metadata) > 0 {
		checks = append(checks, jsonvalue.ValidateObject("metadata", r.Metadata))
	}
	if r.TaskType == "" {
		checks = append(checks, violation.New("task_type", "is required"))
	}
	if r.Target == AgentTarget && r.AgentID == "" {
		checks = append(checks, violation.New("agent_id", "is required"))
	}
	if r.Deadline < 0 {
		checks = append(checks, violation.New("deadline", "must be positive"))
	}
	if r.RunTimeout < 0 {
		checks = append(checks, violation.New("run_timeout", "must be positive"))
	}
	for _, text := range []struct {
		field, value string
		limit        int
	}{
		{"idempotency_key", r.IdempotencyKey, maxKeyBytes},
		{"request_id", r.RequestID, maxRequestIDBytes},
		{"agent_id", r.AgentID, maxLabelBytes},
		{"task_type", r.TaskType, maxLabelBytes},
		{"description", r.Description, maxTextBytes},
	} {
		checks = append(checks, checkText(text.field, text.value, text.limit))
	}
	return r, violation.Join(checks...)
}

func checkText(field, value string, limit int) error {
	if len(value) > limit {
		return violation.New(field, "must be at most %d bytes, is %d", limit, len(value))
	}
	if !utf8.ValidString(value) {
		return violation.New(field, "must be UTF-8")
	}
	return nil
}

// accept appends the run's first record, which is also its place in the queue;
// where a place is free and nobody waits, it is the beginning of its first attempt.
func (e *Engine) accept(
	ctx context.Context, namespace, id string, hash payloadHash, r CreateRequest,
) (ent *entry, created bool, err error) {
	leave, err := e.accepts.enter(ctx, namespace+"/"+id)
	if err != nil {
		return nil, false, err
	}
	defer leave()
	e.accepting.RLock()
	defer e.accepting.RUnlock()
	if e.isStopping() {
		return nil, false, ErrStopped
	}
	if ent := e.index.get(namespace, id); ent != nil {
		return ent, false, nil
	}
	task, err := e.registry.Resolve(r.Target, r.AgentID, r.TaskType, r.Input)
	if err != nil {
		return nil, false, err
	}
	begins := e.takePlace()
	giveBack := e.freePlace
	if !begins {
		if err := e.queue.reserve(); err != nil {
			return nil, false, err
		}
		giveBack = e.queue.release
	}
	defer func() {
		if !created {
			giveBack()
		}
	}()

	now := e.cfg.Now().UTC()
	rec := record{
		ID: uuid.NewString(), Hash: hash, Payload: r.Input, TraceParent: traceParent(ctx),
		Run: Run{
			ID: id, Namespace: namespace, Target: r.Target, AgentID: r.AgentID, TaskType: r.TaskType,
			Description: r.Description, State: Queued, MaxAttempts: e.cfg.MaxAttempts,
			Metadata: r.Metadata, CreatedAt: now, RunTimeout: r.RunTimeout,
		},
	}
	if r.Deadline > 0 {
		rec.Run.Deadline = now.Add(r.Deadline)
	}
	if begins {
		rec.Run.begin(now)
	}
	data, err := rec.encode()
	if err != nil {
		return nil, false, err
	}
	// A caller that goes away must not leave the outcome unknown.
	appendCtx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), appendTimeout, journal.ErrUnavailable)
	defer cancel()
	subject := runSubject(namespace, id)
	seq, err := e.stream.Append(appendCtx, journal.Message{Subject: subject, Data: data, Expect: new(uint64)})
	for errors.Is(err, journal.ErrConflict) {
		there, notThere := e.adopt(ctx, namespace, id)
		if !errors.Is(notThere, journal.ErrNotFound) {
			return there, false, notThere
		}
		// A cluster refuses for the sake of a record that it is still about to keep.
		select {
		case <-time.After(firstPause):
		case <-appendCtx.Done():
			return nil, false, fmt.Errorf("accept run %s: %w", id, context.Cause(appendCtx))
		}
		seq, err = e.stream.Append(appendCtx, journal.Message{Subject: subject, Data: data, Expect: new(uint64)})
	}
	if err != nil {
		return nil, false, fmt.Errorf("accept run %s: %w", id, err)
	}
	rec.Run.Sequence = seq
	e.payloads.Add(seq, r.Input)
	ent = newEntry(&rec)
	ent.task = task
	if begins || len(r.Input) <= maxHeldInputBytes {
		ent.input = r.Input
	}
	if ent, created = e.index.add(ent); !created {
		return ent, false, nil
	}
	if r.Deadline > 0 {
		e.setDeadline(ent, r.Deadline)
	}
	if begins {
		e.occupy(ent)
	} else {
		e.queue.push(ent)
	}
	return ent, true, nil
}

// adopt takes up a run that the journal has and the index has not: an earlier
// call appended it and did not live to see the answer.
func (e *Engine) adopt(ctx context.Context, namespace, id string) (*entry, error) {
	last, err := e.stream.Last(ctx, runSubject(namespace, id))
	if err != nil {
		return nil, fmt.Errorf("read run %s: %w", id, err)
	}
	ent, err := entryOf(last)
	if err != nil {
		return nil, err
	}
	ent, added := e.index.add(ent)
	if added {
		return ent, e.resume(ctx, ent)
	}
	return ent, nil
}

func traceParent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"]
}
