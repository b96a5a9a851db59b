package engine

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// GetRun returns a run with its input and output, as far as it is durable.
// Errors: *RunNotFoundError, the journal's.
func (e *Engine) GetRun(ctx context.Context, namespace, runID string) (Run, error) {
	ent, err := e.find(namespace, runID)
	if err != nil {
		return Run{}, err
	}
	return e.read(ctx, ent)
}

// PeekRun is GetRun without payloads: input, output and what an interrupt asks.
func (e *Engine) PeekRun(ctx context.Context, namespace, runID string) (Run, error) {
	ent, err := e.find(namespace, runID)
	if err != nil {
		return Run{}, err
	}
	return e.commit(ctx, ent)
}

// RunSteps returns what a run has recorded by now, in order. Errors: *RunNotFoundError, the
// journal's.
func (e *Engine) RunSteps(ctx context.Context, namespace, runID string) ([]Step, error) {
	ent, err := e.find(namespace, runID)
	if err != nil {
		return nil, err
	}
	left, err := e.readPast(ctx, ent)
	if err != nil {
		return nil, err
	}
	// Of a run that was just removed, what was read is not all.
	_, err = e.find(namespace, runID)
	return left.Steps, err
}

// ListRuns returns runs of a namespace without input and output, newest first,
// and the token of the next page, empty on the last.
// Errors: *violation.Error, the journal's.
func (e *Engine) ListRuns(ctx context.Context, namespace string, r ListRequest) ([]Run, string, error) {
	before, err := decodePageToken(r.PageToken)
	if err != nil {
		return nil, "", err
	}
	found, more := e.index.list(namespace, before, max(1, r.PageSize), r.selects)
	runs, err := e.commitAll(ctx, found)
	if err != nil {
		return nil, "", err
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
	return nil, &RunNotFoundError{RunID: runID}
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

// commitAll returns runs as they are in memory once that is durable.
func (e *Engine) commitAll(ctx context.Context, entries []*entry) ([]Run, error) {
	runs := make([]Run, len(entries))
	var newest uint64
	for i, ent := range entries {
		runs[i] = ent.snapshot()
		newest = max(newest, runs[i].Sequence)
	}
	if newest > 0 {
		if err := e.stream.Commit(ctx, newest); err != nil {
			return nil, fmt.Errorf("read %d runs: %w", len(runs), err)
		}
	}
	return runs, nil
}

// withPayloads adds the input and the output of a run that is durable.
func (e *Engine) withPayloads(ctx context.Context, ent *entry, run Run) (_ Run, err error) {
	if run.Input, err = e.readPayload(ctx, ent.created); err != nil {
		return Run{}, recordError("input", run.ID, err)
	}
	if run.State == Waiting && run.Wait.InterruptID != "" {
		asking := *run.Wait
		if asking.Payload, err = e.readPayload(ctx, run.Sequence); err != nil {
			return Run{}, recordError("interrupt", run.ID, err)
		}
		run.Wait = &asking
	}
	return e.withOutput(ctx, run)
}

// withOutput adds the output of a run that is durable.
func (e *Engine) withOutput(ctx context.Context, run Run) (_ Run, err error) {
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
		err = fmt.Errorf("%w: %w", &RunNotFoundError{RunID: runID}, err)
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

// surely reads, and reads again while the journal cannot be reached.
func surely[T any](ctx context.Context, read func() (T, error)) (T, error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		value, err := read()
		if !errors.Is(err, journal.ErrUnavailable) {
			return value, err
		}
		if !rest(ctx, pause) {
			return value, err
		}
	}
}

// rest waits and reports whether ctx has not ended.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
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
	return subjectPrefix + subjectEnd(namespace, runID)
}

// subjectEnd is what follows the prefix in the subjects of a run.
func subjectEnd(namespace, runID string) string {
	return journal.EncodeToken(namespace) + "." + journal.EncodeToken(runID)
}
