package state

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// maxTries bounds how often an operation without an expectation is tried again
// because another writer was faster. Each failed try means that somebody succeeded.
const maxTries = 100

// SetRequest describes a Set.
type SetRequest struct {
	Key string
	// Value is a JSON text.
	Value []byte
	// Expect is the revision the key must be at, 0 that it must not exist; nil: any.
	Expect *uint64
	// TTL is how long the key lives, in whole seconds; 0: until it is deleted.
	TTL time.Duration
	// RequestID names the call for repeats; see the package. At most 64 bytes.
	RequestID string
}

// Operation is one step of a transaction: it sets a key, or deletes it.
type Operation struct {
	Key    string
	Delete bool
	// Value and TTL are as in SetRequest.
	Value []byte
	TTL   time.Duration
	// Expect is as in SetRequest; for a deletion it is not 0.
	Expect *uint64
}

// Result is what became of an Operation.
type Result struct {
	// Revision is the new one of a key that was set; 0 for one that was deleted.
	Revision uint64
	// Existed is whether the key existed before.
	Existed bool
}

// Set writes a key and returns its new revision.
//
// Errors: *RevisionError, *violation.Error, *violation.TooLargeError.
func (s *Store) Set(ctx context.Context, namespace string, r SetRequest) (uint64, error) {
	op := Operation{Key: r.Key, Value: r.Value, TTL: r.TTL, Expect: r.Expect}
	if err := violation.Join(s.checkOperation("", op), checkRequestID(r.RequestID)); err != nil {
		return 0, err
	}
	if r.Expect != nil {
		results, err := s.apply(ctx, namespace, []Operation{op}, r.RequestID)
		if err != nil {
			return 0, err
		}
		return results[0].Revision, nil
	}
	m := message(namespace, op, r.RequestID, "")
	m.DedupeID = dedupeID(m.Subject, r.RequestID)
	revision, err := s.stream.Append(ctx, m)
	if err == nil {
		err = s.stream.Commit(ctx, revision)
	}
	if err != nil {
		return 0, fmt.Errorf("set state: %w", err)
	}
	return revision, nil
}

// Delete removes a key and reports whether it was there; expect is the revision
// it must be at, nil: any.
//
// Errors: *RevisionError, *violation.Error.
func (s *Store) Delete(ctx context.Context, namespace, key string, expect *uint64, requestID string) (bool, error) {
	op := Operation{Key: key, Delete: true, Expect: expect}
	if err := violation.Join(s.checkOperation("", op), checkRequestID(requestID)); err != nil {
		return false, err
	}
	results, err := s.apply(ctx, namespace, []Operation{op}, requestID)
	if err != nil {
		return false, err
	}
	return results[0].Existed, nil
}

// Transact applies 1 to 100 operations on as many keys, all or none, and
// returns their results in the same order. It happens at one moment: no reader
// and no other writer comes in between.
//
// Errors: *RevisionError of the first operation whose expectation does not hold,
// *violation.Error, *violation.TooLargeError.
func (s *Store) Transact(ctx context.Context, namespace string, ops []Operation, requestID string) ([]Result, error) {
	if err := violation.Join(s.checkOperations(ops), checkRequestID(requestID)); err != nil {
		return nil, err
	}
	return s.apply(ctx, namespace, ops, requestID)
}

// apply reads the keys, checks the expectations and appends over exactly what
// was read, again when another writer was faster.
func (s *Store) apply(ctx context.Context, namespace string, ops []Operation, requestID string) ([]Result, error) {
	subjects := make([]string, len(ops))
	for i, op := range ops {
		subjects[i] = keySubject(namespace, op.Key)
	}
	for try := range maxTries {
		if try == 1 {
			// Those who lost the first time take turns, or many would keep
			// each other from ever succeeding.
			select {
			case s.turn <- struct{}{}:
				defer func() { <-s.turn }()
			case <-ctx.Done():
				return nil, fmt.Errorf("change state: %w", context.Cause(ctx))
			}
		}
		current, err := s.last(ctx, subjects)
		if err != nil {
			return nil, fmt.Errorf("change state: %w", err)
		}
		if results, newest, ok := earlier(ops, current, requestID); ok {
			if err := s.stream.Commit(ctx, newest); err != nil {
				return nil, fmt.Errorf("change state: %w", err)
			}
			return results, nil
		}
		results, err := expected(ops, current, s.cfg.Now())
		if err != nil {
			return nil, err
		}
		err = s.append(ctx, namespace, ops, current, results, requestID)
		switch {
		case err == nil:
			return results, nil
		case !errors.Is(err, journal.ErrConflict):
			return nil, fmt.Errorf("change state: %w", err)
		}
	}
	return nil, fmt.Errorf("change state: other writers were faster %d times: %w", maxTries, journal.ErrUnavailable)
}

// expected checks the expectations against the keys as they are, and returns
// the results as far as they are known: whether each key existed.
func expected(ops []Operation, current []*record, now time.Time) ([]Result, error) {
	results := make([]Result, len(ops))
	for i, op := range ops {
		var revision uint64
		if current[i].exists(now) {
			results[i].Existed = true
			revision = current[i].revision()
		}
		if op.Expect != nil && *op.Expect != revision {
			return nil, &RevisionError{Key: op.Key, Revision: revision, CreateOnly: *op.Expect == 0}
		}
	}
	return results, nil
}

// append writes the operations over the current records and fills the
// revisions in. A deletion of a key that does not exist writes nothing.
func (s *Store) append(
	ctx context.Context,
	namespace string,
	ops []Operation,
	current []*record,
	results []Result,
	requestID string,
) error {
	var (
		messages []journal.Message
		written  []int
	)
	for i, op := range ops {
		if op.Delete && !results[i].Existed {
			continue
		}
		var trace string
		if requestID != "" {
			trace = makeTrace(i, results)
		}
		m := message(namespace, op, requestID, trace)
		revision := current[i].revision()
		m.Expect = &revision
		messages = append(messages, m)
		written = append(written, i)
	}
	var (
		revisions []uint64
		err       error
	)
	switch len(messages) {
	case 0:
		return nil
	case 1:
		messages[0].DedupeID = dedupeID(messages[0].Subject, requestID)
		revisions = make([]uint64, 1)
		revisions[0], err = s.stream.Append(ctx, messages[0])
	default:
		revisions, err = s.stream.AppendAtomic(ctx, messages)
	}
	if err != nil {
		return err
	}
	for n, i := range written {
		if !ops[i].Delete {
			results[i].Revision = revisions[n]
		}
	}
	return s.stream.Commit(ctx, revisions[len(revisions)-1])
}

// makeTrace is what the record of operation i tells a repeat of the call, even
// when it is the last record of the call that is left: which operation it was,
// and which keys existed, "2:0110".
func makeTrace(i int, results []Result) string {
	b := strconv.AppendInt(make([]byte, 0, len(results)+4), int64(i), 10)
	b = append(b, ':')
	for _, r := range results {
		if r.Existed {
			b = append(b, '1')
		} else {
			b = append(b, '0')
		}
	}
	return string(b)
}

// earlier finds out from the records of the keys whether a call with this
// request id has been applied. It returns that call's results and the newest
// sequence it wrote: its records lie side by side.
func earlier(ops []Operation, current []*record, requestID string) (results []Result, newest uint64, ok bool) {
	if requestID == "" {
		return nil, 0, false
	}
	for i, r := range current {
		if r == nil || r.requestID != requestID {
			continue
		}
		place, existed, _ := strings.Cut(r.trace, ":")
		if place != strconv.Itoa(i) || len(existed) != len(ops) || strings.Trim(existed, "01") != "" {
			continue
		}
		return replay(ops, existed, i, r.revision())
	}
	return nil, 0, false
}

// replay works out the results of a call whose operation i wrote revision.
func replay(ops []Operation, existed string, i int, revision uint64) (results []Result, newest uint64, ok bool) {
	wrote := func(i int) bool { return !ops[i].Delete || existed[i] == '1' }
	for before := range i {
		if wrote(before) {
			revision--
		}
	}
	results = make([]Result, len(ops))
	for n, op := range ops {
		results[n].Existed = existed[n] == '1'
		if !wrote(n) {
			continue
		}
		if !op.Delete {
			results[n].Revision = revision
		}
		newest = revision
		revision++
	}
	return results, newest, true
}

// dedupeID names one key's change by one call; the subject has namespace and key.
func dedupeID(subject, requestID string) string {
	if requestID == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(subject + "\x00" + requestID))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}
