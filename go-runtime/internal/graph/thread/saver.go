package thread

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

const (
	// maxBatch is about how many bytes of checkpoints one record takes, where one always
	// fits, and maxTogether how many.
	maxBatch    = 256 << 10
	maxTogether = 64
	// gatherTime is how long checkpoints for which nobody waits are gathered to one record.
	gatherTime = time.Millisecond
	// maxWaiting is how many bytes of a thread may wait to be appended before Save does.
	maxWaiting = 4 << 20
	// patience is how long an append is tried whose outcome is unknown.
	patience   = 30 * time.Second
	firstPause = 10 * time.Millisecond
	lastPause  = time.Second
)

// Saver keeps the checkpoints of one run's threads: that of its graph and those of its
// subgraphs. It implements graph.Saver, and is safe for concurrent use.
type Saver struct {
	store     *Store
	namespace string
	sync      bool
	id        string

	writing sync.WaitGroup

	mu    sync.Mutex
	heads map[string]*head
}

// head is where a thread is.
type head struct {
	thread, subject string

	mu sync.Mutex
	// revision is that of the latest checkpoint that was saved.
	revision uint64
	// waiting are checkpoints that are not appended yet, the first of them behind those of
	// the record at sequence.
	waiting  [][]byte
	size     int
	sequence uint64
	// base is the record of the whole checkpoint that the one at sequence is made of.
	base uint64
	// idle is closed when nothing is being appended; nil: it is so.
	idle chan struct{}
	// urgent says that somebody waits for what is being appended; hurry has a token then,
	// or when there is enough for a record.
	urgent bool
	hurry  chan struct{} // capacity 1
	err    error
}

// Saver returns a saver for a run in a namespace. With graph.Sync, what was saved is
// durable when Save returns; else Save returns before what a step left is appended, and
// all is durable when the run waits or has ended, that is with the last Save for a thread
// that is no subgraph's. Close it in the end.
func (s *Store) Saver(namespace string, durability graph.Durability) *Saver {
	return &Saver{
		store: s, namespace: namespace, sync: durability == graph.Sync, id: rand.Text(), heads: map[string]*head{},
	}
}

// Close returns when all that was saved is durable. Its error is that of any append.
func (s *Saver) Close(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	var newest uint64
	for _, h := range s.heads {
		h.mu.Lock()
		h.rest()
		errs = append(errs, h.err)
		newest = max(newest, h.sequence)
		h.mu.Unlock()
	}
	s.writing.Wait()
	errs = append(errs, s.store.stream.Commit(ctx, newest))
	return errors.Join(errs...)
}

func (s *Saver) head(thread string) *head {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.heads[thread]
	if h == nil {
		h = &head{thread: thread, subject: subjectOf(s.namespace, thread), hurry: make(chan struct{}, 1)}
		s.heads[thread] = h
	}
	return h
}

// Save implements graph.Saver. A conflict of a checkpoint that Save did not wait for is
// that of a later Save, or of Close.
func (s *Saver) Save(ctx context.Context, thread string, c *graph.Checkpoint) error {
	h := s.head(thread)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.err != nil:
		return h.err
	case h.revision != c.Revision:
		return graph.ErrConflict
	}
	text, err := c.Pack()
	if err != nil {
		return fmt.Errorf("thread %s: %w", thread, err)
	}
	h.revision++
	c.Revision = h.revision
	h.waiting = append(h.waiting, text)
	h.size += len(text)

	// What a step left may come later, but whoever is to be refused must be told before
	// it calls a node, and what a thread is left at is known before its root's is.
	wait := s.sync || c.Source != graph.Stepped || c.Status != graph.Running || h.size > maxWaiting
	switch {
	case h.idle == nil && wait:
		h.idle, h.urgent = make(chan struct{}), true
		s.append(ctx, h)
	case h.idle == nil:
		h.idle = make(chan struct{})
		s.writing.Go(func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			s.append(context.WithoutCancel(ctx), h)
		})
	case wait:
		h.rest()
	case len(h.waiting) >= maxTogether:
		h.hurryUp()
	}
	if !wait {
		return nil
	}
	ends := c.Status != graph.Running && !strings.Contains(thread, ".")
	if h.err != nil || !s.sync && !ends {
		return h.err
	}
	return s.store.stream.Commit(ctx, h.sequence)
}

func (h *head) hurryUp() {
	select {
	case h.hurry <- struct{}{}:
	default:
	}
}

// gather waits for more to append, as long as nobody waits for what there is. It has the
// lock before and after.
func (h *head) gather() {
	if h.urgent || len(h.waiting) >= maxTogether {
		return
	}
	h.mu.Unlock()
	timer := time.NewTimer(gatherTime)
	select {
	case <-timer.C:
	case <-h.hurry:
	}
	timer.Stop()
	h.mu.Lock()
}

// rest returns when nothing is being appended to the thread. It has the lock before and after.
func (h *head) rest() {
	for h.idle != nil {
		idle := h.idle
		h.urgent = true
		h.hurryUp()
		h.mu.Unlock()
		<-idle
		h.mu.Lock()
	}
}

// append appends what waits, until nothing does. It has the lock before and after, and
// lets it go meanwhile.
func (s *Saver) append(ctx context.Context, h *head) {
	for len(h.waiting) > 0 && h.err == nil {
		h.gather()
		n, size := 0, 0
		for n < min(len(h.waiting), maxTogether) && (n == 0 || size+len(h.waiting[n]) <= maxBatch) {
			size += len(h.waiting[n])
			n++
		}
		next := record{
			revision: h.revision - uint64(len(h.waiting)-n), base: h.base, writer: s.id, texts: h.waiting[:n],
		}
		before := h.sequence
		h.waiting = h.waiting[n:]
		h.size -= size
		h.mu.Unlock()
		sequence, err := s.store.append(ctx, h.subject, &next, before)
		if err == nil && crosses(next.first(), next.revision, s.store.cfg.MaxCheckpoints) && !strings.Contains(h.thread, ".") {
			s.store.trim(ctx, h.subject)
		}
		h.mu.Lock()
		if err != nil {
			h.err = fmt.Errorf("checkpoint %d of thread %s: %w", next.revision, h.thread, err)
			break
		}
		h.sequence = sequence
		if next.whole() >= 0 {
			h.base = sequence
		}
	}
	close(h.idle)
	h.idle, h.urgent = nil, false
}

// crosses reports whether one of the revisions is a multiple of a limit.
func crosses(first, last uint64, limit int) bool {
	return limit > 0 && last/uint64(limit) != (first-1)/uint64(limit)
}

// append appends a record behind the one with a sequence. Where it is unknown whether
// that was done it looks, and tries again.
func (s *Store) append(ctx context.Context, subject string, r *record, after uint64) (uint64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, journal.ErrUnavailable)
	defer cancel()
	m := journal.Message{
		Subject: subject, Expect: &after, Data: bytes.Join(r.texts, []byte("\n")), Purpose: journal.Finish,
		Header: map[string]string{headerRevision: strconv.FormatUint(r.revision, 10), headerWriter: r.writer},
	}
	if after == 0 {
		m.Purpose = journal.Accept
	}
	if r.whole() < 0 {
		m.Header[headerBase] = strconv.FormatUint(r.base, 10)
	}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		sequence, err := s.stream.Append(ctx, m)
		if errors.Is(err, journal.ErrConflict) || errors.Is(err, journal.ErrUnavailable) {
			sequence, err = s.recognise(ctx, subject, r, after, err)
		}
		if !errors.Is(err, journal.ErrUnavailable) || s.journal.Err() != nil {
			return sequence, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return 0, errors.Join(err, context.Cause(ctx))
		}
	}
}

// recognise tells how an append went whose answer was err: done, if the thread's last
// record is it. When it is still the one before, nothing was in the way: a cluster refuses
// for the sake of a record that it is not done with. An error that is journal.ErrUnavailable
// means that it may be appended again.
func (s *Store) recognise(ctx context.Context, subject string, r *record, after uint64, err error) (uint64, error) {
	last, errLast := s.stream.Last(ctx, subject)
	switch {
	case errors.Is(errLast, journal.ErrNotFound) && after == 0:
		return 0, fmt.Errorf("%w: %w", journal.ErrUnavailable, err)
	case errors.Is(errLast, journal.ErrNotFound):
		// It was deleted.
		return 0, graph.ErrConflict
	case errLast != nil:
		return 0, errors.Join(err, errLast)
	case last.Sequence <= after:
		return 0, fmt.Errorf("%w: %w", journal.ErrUnavailable, err)
	}
	found, errFound := decode(last)
	switch {
	case errFound != nil:
		return 0, errFound
	case found.writer == r.writer && found.revision == r.revision:
		return last.Sequence, nil
	default:
		return 0, graph.ErrConflict
	}
}
