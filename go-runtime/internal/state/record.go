package state

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

const (
	streamName  = "STATE"
	subjectRoot = "state."

	// deletionTTL is how long a deletion can be seen by watches that resume.
	deletionTTL = 24 * time.Hour

	// headerTTL has a key's time to live in seconds.
	headerTTL = "T"
	// headerRequest has the request id of the call that wrote the record, encoded as a token.
	headerRequest = "R"
	// headerTrace comes with headerRequest and says what the call did; see trace.
	headerTrace = "C"
	// headerOperation marks a deletion in NATS's own way: the server lets such
	// a record expire without another marker for it.
	headerOperation = "KV-Operation"
	operationDelete = "PURGE"
)

// Kind is what happened to a key.
type Kind int

// The kinds of changes.
const (
	Set Kind = iota + 1
	Deleted
	Expired
)

// record is the newest that is known of a key.
type record struct {
	kind      Kind
	namespace string
	entry     Entry
	requestID string
	trace     string
}

// exists reports whether the record makes a key that can be read.
func (r *record) exists(now time.Time) bool {
	return r != nil && r.kind == Set && (r.entry.ExpiresAt.IsZero() || now.Before(r.entry.ExpiresAt))
}

// revision is the sequence that an append over this record expects.
func (r *record) revision() uint64 {
	if r == nil {
		return 0
	}
	return r.entry.Revision
}

func keySubject(namespace, key string) string {
	return namespaceSubject(namespace) + journal.EncodeToken(key)
}

// namespaceSubject is what the subjects of all keys of a namespace begin with.
func namespaceSubject(namespace string) string {
	return subjectRoot + namespace + "."
}

// splitSubject is the inverse of keySubject.
func splitSubject(subject string) (namespace, key string, err error) {
	rest, rooted := strings.CutPrefix(subject, subjectRoot)
	namespace, token, ok := strings.Cut(rest, ".")
	if !rooted || !ok {
		return "", "", fmt.Errorf("subject %q is no key of the state", subject)
	}
	if key, err = journal.DecodeToken(token); err != nil {
		return "", "", fmt.Errorf("subject %q: %w", subject, err)
	}
	return namespace, key, nil
}

// decode reads what message wrote, or a marker of the journal's.
func decode(r journal.Record) (*record, error) {
	namespace, key, err := splitSubject(r.Subject)
	if err != nil {
		return nil, err
	}
	decoded := &record{
		kind:      Set,
		namespace: namespace,
		entry:     Entry{Key: key, Revision: r.Sequence, UpdatedAt: r.Time},
		trace:     r.Header[headerTrace],
	}
	if token := r.Header[headerRequest]; token != "" {
		if decoded.requestID, err = journal.DecodeToken(token); err != nil {
			return nil, fmt.Errorf("request id of record %d: %w", r.Sequence, err)
		}
	}
	switch {
	case r.Expired:
		decoded.kind = Expired
		return decoded, nil
	case r.Header[headerOperation] == operationDelete:
		decoded.kind = Deleted
		return decoded, nil
	}
	decoded.entry.Value = r.Data
	if seconds := r.Header[headerTTL]; seconds != "" {
		n, err := strconv.ParseUint(seconds, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("TTL of record %d: %w", r.Sequence, err)
		}
		decoded.entry.ExpiresAt = r.Time.Add(time.Duration(n) * time.Second)
	}
	return decoded, nil
}

// message is the record of one operation. The trace is empty without a request id.
func message(namespace string, op Operation, requestID string, trace string) journal.Message {
	m := journal.Message{Subject: keySubject(namespace, op.Key), Header: map[string]string{}}
	if requestID != "" {
		m.Header[headerRequest] = journal.EncodeToken(requestID)
	}
	if trace != "" {
		m.Header[headerTrace] = trace
	}
	if op.Delete {
		m.Header[headerOperation] = operationDelete
		m.TTL = deletionTTL
		m.Purpose = journal.Release
		return m
	}
	m.Data = op.Value
	if op.TTL > 0 {
		m.Header[headerTTL] = strconv.FormatInt(int64(op.TTL/time.Second), 10)
		m.TTL = op.TTL
	}
	return m
}
