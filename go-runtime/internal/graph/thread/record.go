package thread

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

const (
	streamName    = "THREADS"
	subjectPrefix = "thread."
)

// The headers of a record.
const (
	// headerRevision is the number of its last checkpoint.
	headerRevision = "Revision"
	// headerBase is the sequence of the record with the whole checkpoint that its last one
	// is made of; without, that is in the record itself.
	headerBase = "Base"
	// headerWriter is whose it is: who gets no answer knows its own record by it.
	headerWriter = "Writer"
	// headerDeleted marks that a thread is being deleted: there are no checkpoints.
	headerDeleted = "Deleted"
)

var errBadRecord = errors.New("record of a thread is unreadable")

// rootSubject is the subject of a thread that is no subgraph's.
func rootSubject(namespace, root string) string {
	return subjectPrefix + journal.EncodeToken(namespace) + "." + journal.EncodeToken(root)
}

// subjectOf is the subject of a thread: one of a subgraph has its root's before a dot.
func subjectOf(namespace, thread string) string {
	root, below, isBelow := strings.Cut(thread, ".")
	if !isBelow {
		return rootSubject(namespace, root)
	}
	return rootSubject(namespace, root) + "." + journal.EncodeToken(below)
}

// parseSubject is the inverse of subjectOf; below is empty for a root.
func parseSubject(subject string) (namespace, root, below string, err error) {
	tokens := strings.Split(strings.TrimPrefix(subject, subjectPrefix), ".")
	if len(tokens) != 2 && len(tokens) != 3 {
		return "", "", "", fmt.Errorf("%w: subject %q", errBadRecord, subject)
	}
	decoded := make([]string, 3)
	for i, token := range tokens {
		if decoded[i], err = journal.DecodeToken(token); err != nil {
			return "", "", "", err
		}
	}
	return decoded[0], decoded[1], decoded[2], nil
}

// record is a record of the stream.
type record struct {
	sequence uint64
	// revision is that of the last of the texts; 0: the thread is being deleted.
	revision uint64
	base     uint64
	writer   string
	texts    [][]byte
}

func decode(r journal.Record) (record, error) {
	d := record{sequence: r.Sequence, base: r.Sequence, writer: r.Header[headerWriter]}
	if r.Header[headerDeleted] != "" {
		return d, nil
	}
	var err error
	d.revision, err = strconv.ParseUint(r.Header[headerRevision], 10, 64)
	d.texts = bytes.Split(r.Data, []byte("\n"))
	if base, given := r.Header[headerBase]; err == nil && given {
		d.base, err = strconv.ParseUint(base, 10, 64)
	}
	if err != nil {
		return record{}, fmt.Errorf("%w: sequence %d: %w", errBadRecord, r.Sequence, err)
	}
	if d.revision < uint64(len(d.texts)) {
		return record{}, fmt.Errorf("%w: sequence %d: checkpoint %d is the last of %d", errBadRecord, r.Sequence, d.revision, len(d.texts))
	}
	return d, nil
}

// first is the revision of the first of the texts.
func (r *record) first() uint64 { return r.revision + 1 - uint64(len(r.texts)) }

// whole is the place of the last whole one among the texts, -1 without.
func (r *record) whole() int {
	for i, text := range slices.Backward(r.texts) {
		if graph.IsWhole(text) {
			return i
		}
	}
	return -1
}
