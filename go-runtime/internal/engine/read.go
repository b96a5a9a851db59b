package engine

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// GetRun returns a run with its input and output, as far as it is durable.
// Errors: ErrRunNotFound, the journal's.
func (e *Engine) GetRun(ctx context.Context, namespace, runID string) (Run, error) {
	ent, err := e.find(namespace, runID)
	if err != nil {
		return Run{}, err
	}
	return e.read(ctx, ent)
}

// WaitRun returns a run when it has ended, or as it is when maxWait has passed
// (0: as long as ctx allows). Errors: ErrRunNotFound, ErrStopped, ctx's, the journal's.
func (e *Engine) WaitRun(ctx context.Context, namespace, runID string, maxWait time.Duration) (Run, error) {
	ent, err := e.find(namespace, runID)
	if err != nil {
		return Run{}, err
	}
	run, err := e.await(ctx, ent, maxWait)
	if err != nil {
		return Run{}, err
	}
	return e.withPayloads(ctx, ent, run)
}

// ListRuns returns runs of a namespace without input and output, newest first,
// and the token of the next page, empty on the last.
// Errors: *violation.Error, the journal's.
func (e *Engine) ListRuns(ctx context.Context, namespace string, r ListRequest) ([]Run, string, error) {
	before, err := decodePageToken(r.PageToken)
	if err != nil {
		return nil, "", err
	}
	match := func(run *Run) bool {
		return (len(r.States) == 0 || slices.Contains(r.States, run.State)) &&
			(r.AgentID == "" || run.AgentID == r.AgentID) &&
			(r.TaskType == "" || run.TaskType == r.TaskType)
	}
	found, more := e.index.list(namespace, before, max(1, r.PageSize), match)
	runs := make([]Run, len(found))
	var newest uint64
	for i, ent := range found {
		runs[i] = ent.snapshot()
		newest = max(newest, runs[i].Sequence)
	}
	if newest > 0 {
		if err := e.stream.Commit(ctx, newest); err != nil {
			return nil, "", fmt.Errorf("list runs: %w", err)
		}
	}
	next := ""
	if more {
		next = encodePageToken(found[len(found)-1].created)
	}
	return runs, next, nil
}

func (e *Engine) find(namespace, runID string) (*entry, error) {
	if ent := e.index.get(namespace, runID); ent != nil {
		return ent, nil
	}
	return nil, fmt.Errorf("%w: %q", ErrRunNotFound, runID)
}

// read returns a run with its input and output as it is, once that is durable.
func (e *Engine) read(ctx context.Context, ent *entry) (Run, error) {
	run, err := e.commit(ctx, ent)
	if err != nil {
		return Run{}, err
	}
	return e.withPayloads(ctx, ent, run)
}

// commit returns a run as it is in memory once that is durable.
func (e *Engine) commit(ctx context.Context, ent *entry) (Run, error) {
	run := ent.snapshot()
	if err := e.stream.Commit(ctx, run.Sequence); err != nil {
		return Run{}, fmt.Errorf("read run %s: %w", run.ID, err)
	}
	return run, nil
}

// withPayloads adds the input and the output of a run that is durable.
func (e *Engine) withPayloads(ctx context.Context, ent *entry, run Run) (_ Run, err error) {
	if run.Input, err = e.readPayload(ctx, ent.created); err != nil {
		return Run{}, recordError("input", run.ID, err)
	}
	if run.State == Succeeded {
		if run.Output, err = e.readPayload(ctx, run.Sequence); err != nil {
			return Run{}, recordError("output", run.ID, err)
		}
	}
	return run, nil
}

func (e *Engine) readPayload(ctx context.Context, seq uint64) ([]byte, error) {
	if payload, found := e.payloads.Get(seq); found {
		return payload, nil
	}
	rec, err := e.readRecord(ctx, seq)
	if err != nil {
		return nil, err
	}
	e.payloads.Add(seq, rec.Payload)
	return rec.Payload, nil
}

// recordError explains why a run cannot be read: its records may be gone with
// retention, or with a damaged disk.
func recordError(what, runID string, err error) error {
	if errors.Is(err, journal.ErrNotFound) {
		err = fmt.Errorf("%w: %w", ErrRunNotFound, err)
	}
	return fmt.Errorf("read %s of run %s: %w", what, runID, err)
}

func (e *Engine) readRecord(ctx context.Context, seq uint64) (record, error) {
	rec, err := e.stream.Get(ctx, seq)
	if err != nil {
		return record{}, err
	}
	return decodeRecord(rec.Data)
}

// readRecordSurely is readRecord, tried again while the journal cannot be reached.
func (e *Engine) readRecordSurely(ctx context.Context, seq uint64) (record, error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		rec, err := e.readRecord(ctx, seq)
		if !errors.Is(err, journal.ErrUnavailable) {
			return rec, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return record{}, err
		}
	}
}

// await returns a run once it has ended or maxWait has passed, and that is durable.
func (e *Engine) await(ctx context.Context, ent *entry, maxWait time.Duration) (Run, error) {
	if err := e.awaitEnd(ctx, ent, maxWait); err != nil {
		return Run{}, err
	}
	return e.commit(ctx, ent)
}

// awaitEnd returns nil when the run has ended or maxWait (0: none) has passed.
func (e *Engine) awaitEnd(ctx context.Context, ent *entry, maxWait time.Duration) error {
	var patience <-chan time.Time
	if maxWait > 0 {
		timer := time.NewTimer(maxWait)
		defer timer.Stop()
		patience = timer.C
	}
	stopping := e.stopping
	for {
		select {
		case <-ent.ended:
			return nil
		case <-patience:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-stopping:
			if ent.snapshot().State == Queued {
				return ErrStopped
			}
			stopping = nil
		case <-e.work.Done():
			return ErrStopped
		}
	}
}

func encodePageToken(created uint64) string {
	return base64.RawURLEncoding.EncodeToString(binary.AppendUvarint(nil, created))
}

func decodePageToken(token string) (uint64, error) {
	if token == "" {
		return 0, nil
	}
	data, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		if created, n := binary.Uvarint(data); n == len(data) && n > 0 && created > 0 {
			return created, nil
		}
	}
	return 0, violation.New("page_token", "is not one that a page returned")
}

const (
	streamName    = "RUNS"
	subjectPrefix = "run."
)

func runSubject(namespace, runID string) string {
	return subjectPrefix + journal.EncodeToken(namespace) + "." + journal.EncodeToken(runID)
}
