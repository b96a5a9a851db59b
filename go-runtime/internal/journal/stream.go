package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// ackTimeout is how long an append waits for the server. A server that
	// met a full disk does not answer at all.
	ackTimeout = 10 * time.Second
	// appendWindow is how many appends of AppendAll are under way at a time.
	appendWindow = 512
	// leaderRetry is the pause before a message is offered to a stream again
	// that had no leader.
	leaderRetry = 50 * time.Millisecond
	// leaderRetries is how often a reader does so.
	leaderRetries = int(ackTimeout / leaderRetry)
	// maxAtomicBatch is the server's limit of one atomic batch.
	maxAtomicBatch = 1000
	// maxAtomicInFlight keeps below the server's limit of 50 a stream.
	maxAtomicInFlight = 16
	// markerTTL is how long a marker of an expired record stays for readers
	// that were away.
	markerTTL = 24 * time.Hour
)

// Stream is an ordered log of records. Its methods are safe for concurrent
// use.
type Stream struct {
	journal *Journal
	cfg     StreamConfig
	log     jetstream.Stream
	tail    *tail
	mark    *markFile // nil in a cluster

	// appended is the newest sequence known to be in the store, durable the
	// newest that may be shown.
	appended, durable atomic.Uint64
	// thinned says that records may be removed from between others, see mark;
	// thinKnown says that a power cut cannot make the mark forget it.
	thinned, thinKnown atomic.Bool

	atomicSlots chan struct{}
}

// OpenStream creates the stream or changes it to the configuration. Call it
// between Start and Stop; a second call with the same name is an error.
func (j *Journal) OpenStream(ctx context.Context, cfg StreamConfig) (*Stream, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("open stream %q: %w", cfg.Name, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.started || j.stopped {
		return nil, fmt.Errorf("open stream %s: %w: journal is not running", cfg.Name, ErrUnavailable)
	}
	if _, ok := j.streams[cfg.Name]; ok {
		return nil, fmt.Errorf("open stream %s: it is open already", cfg.Name)
	}
	server := jetstream.StreamConfig{
		Name:               cfg.Name,
		Subjects:           slices.Clone(cfg.Subjects),
		MaxAge:             cfg.MaxAge,
		MaxBytes:           cmpZero(cfg.MaxBytes, -1),
		Discard:            jetstream.DiscardOld,
		Storage:            jetstream.FileStorage,
		Duplicates:         cfg.DedupeWindow,
		AllowMsgTTL:        true,
		AllowAtomicPublish: true,
	}
	if cfg.LastPerSubject {
		server.MaxMsgsPerSubject = 1
		server.SubjectDeleteMarkerTTL = markerTTL
		server.AllowRollup = true
	}
	j.backend.configure(&server)
	log, err := j.js.CreateOrUpdateStream(ctx, server)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", cfg.Name, mapRequestError(err))
	}
	s := &Stream{journal: j, cfg: cfg, log: log, atomicSlots: make(chan struct{}, maxAtomicInFlight)}
	s.tail = newTail(s)
	if err := s.begin(ctx); err != nil {
		return nil, fmt.Errorf("open stream %s: %w", cfg.Name, err)
	}
	j.streams[cfg.Name] = s
	return s, nil
}

// begin finds where the stream stands. A stream whose folder is gone goes on
// above its mark.
func (s *Stream) begin(ctx context.Context) error {
	j := s.journal
	if j.barrier == nil {
		s.durable.Store(math.MaxUint64)
		return s.awaitLeader(ctx)
	}
	var err error
	if s.mark, err = openMark(j.cfg.DataDir, s.cfg.Name); err != nil {
		return err
	}
	last := s.log.CachedInfo().State.LastSeq
	if last < s.mark.last.issued {
		if lost := s.mark.last.committed; last < lost {
			p := Problem{
				Stream: s.cfg.Name, First: last + 1, Last: lost,
				Message: fmt.Sprintf("records %d to %d of stream %s are lost: its folder is gone", last+1, lost, s.cfg.Name),
			}
			j.problems = append(j.problems, p)
			j.log.Error("journal is damaged", "stream", p.Stream, "first", p.First, "last", p.Last, "problem", p.Message)
		}
		last = s.mark.last.issued
		if err := s.log.Purge(ctx, jetstream.WithPurgeSequence(last+1)); err != nil {
			return errors.Join(mapRequestError(err), s.mark.close())
		}
	}
	s.appended.Store(last)
	s.thinned.Store(s.mark.last.thinned)
	j.barrier.add(s)
	if s.thinned.Load() || s.cfg.LastPerSubject {
		return s.thin(ctx)
	}
	return s.sync(ctx)
}

// awaitLeader returns when the stream takes messages, which a cluster's new
// stream does only a moment after it was made.
func (s *Stream) awaitLeader(ctx context.Context) error {
	probe := &nats.Msg{
		Subject: strings.NewReplacer("*", "_", ">", "_").Replace(s.cfg.Subjects[0]),
		// The stream refuses what is meant for another one.
		Header: nats.Header{headerExpectStream: []string{"not-" + s.cfg.Name}},
	}
	var api *jetstream.APIError
	if _, err := s.request(ctx, probe); err != nil && !errors.As(err, &api) {
		return err
	}
	return nil
}

// sync waits for one round of the barrier.
func (s *Stream) sync(ctx context.Context) error {
	if b := s.journal.barrier; b.sync != nil {
		return b.wait(ctx)
	}
	return s.journal.barrier.note(s)
}

// thin returns when it is noted, durably whatever the durability of records
// is, that records are about to be removed from between others: a removal
// that outlived the note would look like damage.
func (s *Stream) thin(ctx context.Context) error {
	if s.mark == nil || s.thinKnown.Load() {
		return nil
	}
	s.thinned.Store(true)
	if err := s.sync(ctx); err != nil {
		return err
	}
	if s.journal.barrier.sync == nil {
		if err := s.mark.flush(); err != nil {
			return err
		}
	}
	s.thinKnown.Store(true)
	return nil
}

func cmpZero(v, whenZero int64) int64 {
	if v == 0 {
		return whenZero
	}
	return v
}

func (s *Stream) stop() { s.tail.stop() }

// noteAppended raises the newest sequence known to be in the store.
func (s *Stream) noteAppended(seq uint64) {
	for {
		old := s.appended.Load()
		if seq <= old || s.appended.CompareAndSwap(old, seq) {
			return
		}
	}
}

// Append adds one record. It is not durable until Commit(seq) returns.
//
// Errors: ErrConflict when Expect did not hold, ErrTooLarge, ErrNoSpace, and
// with the outcome unknown ErrUnavailable or the context's.
func (s *Stream) Append(ctx context.Context, m Message) (uint64, error) {
	msg, err := s.prepare(ctx, m)
	if err != nil {
		return 0, fmt.Errorf("append to %s: %w", s.cfg.Name, err)
	}
	ack, err := s.request(ctx, msg)
	if err != nil {
		return 0, fmt.Errorf("append to %s: %w", s.cfg.Name, err)
	}
	s.journal.appends.Add(1)
	s.noteAppended(ack.Sequence)
	return ack.Sequence, nil
}

// prepare checks that the journal can take the message and encodes it.
func (s *Stream) prepare(ctx context.Context, m Message) (*nats.Msg, error) {
	select {
	case <-s.journal.failed:
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, s.journal.Err())
	default:
	}
	if s.journal.closing.Load() {
		return nil, errStopped
	}
	msg, err := m.encode()
	if err != nil {
		return nil, err
	}
	if m.TTL > 0 {
		if err := s.thin(ctx); err != nil {
			return nil, err
		}
	}
	size := msg.Size()
	if limit := s.journal.cfg.MaxMessageBytes; size > limit {
		return nil, fmt.Errorf("%w: %d bytes with headers, the limit is %d", ErrTooLarge, size, limit)
	}
	if s.journal.space != nil {
		if err := s.journal.space.take(size); err != nil {
			return nil, err
		}
	}
	return msg, nil
}

// request publishes and waits for the acknowledgement. While the stream has no
// leader nobody takes the message, so it is safe to send it again.
func (s *Stream) request(ctx context.Context, msg *nats.Msg) (appendAck, error) {
	wait, cancel := context.WithTimeoutCause(ctx, ackTimeout, ErrUnavailable)
	defer cancel()
	answer, err := s.journal.conn.RequestMsgWithContext(wait, msg)
	for errors.Is(err, nats.ErrNoResponders) && pause(wait, leaderRetry) {
		answer, err = s.journal.conn.RequestMsgWithContext(wait, msg)
	}
	if err != nil {
		return appendAck{}, s.requestError(wait, err)
	}
	return decodeAck(answer.Data)
}

// pause waits and reports whether ctx has not ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// requestError explains why a request has no answer.
func (s *Stream) requestError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("no answer: %w", cause)
	}
	return mapRequestError(err)
}

func decodeAck(data []byte) (appendAck, error) {
	var ack appendAck
	if err := json.Unmarshal(data, &ack); err != nil {
		return appendAck{}, fmt.Errorf("%w: acknowledgement %q: %w", ErrUnavailable, data, err)
	}
	if ack.Error != nil {
		return appendAck{}, mapAppendError(ack.Error)
	}
	return ack, nil
}

// AppendAll appends records in order, many under way at a time, and returns
// their sequences. It is not atomic: after an error some of them, not
// necessarily the first, may have been appended. Expect is not allowed.
func (s *Stream) AppendAll(ctx context.Context, ms []Message) ([]uint64, error) {
	seqs, err := s.appendAll(ctx, ms)
	if err != nil {
		return nil, fmt.Errorf("append %d records to %s: %w", len(ms), s.cfg.Name, err)
	}
	return seqs, nil
}

func (s *Stream) appendAll(ctx context.Context, ms []Message) ([]uint64, error) {
	msgs := make([]*nats.Msg, len(ms))
	for i, m := range ms {
		if m.Expect != nil {
			return nil, errors.New("a pipelined record cannot expect a sequence")
		}
		msg, err := s.prepare(ctx, m)
		if err != nil {
			return nil, err
		}
		msgs[i] = msg
	}
	acks, err := s.newAckWindow()
	if err != nil {
		return nil, err
	}
	defer acks.close()
	seqs := make([]uint64, len(msgs))
	for i, msg := range msgs {
		if i >= appendWindow {
			if err := acks.receive(ctx, seqs); err != nil {
				return nil, err
			}
		}
		msg.Reply = acks.inbox + "." + strconv.Itoa(i)
		if err := s.journal.conn.PublishMsg(msg); err != nil {
			return nil, mapRequestError(err)
		}
	}
	for range min(len(msgs), appendWindow) {
		if err := acks.receive(ctx, seqs); err != nil {
			return nil, err
		}
	}
	return seqs, nil
}

// ackWindow collects the acknowledgements of pipelined appends.
type ackWindow struct {
	stream *Stream
	inbox  string
	sub    *nats.Subscription
}

func (s *Stream) newAckWindow() (*ackWindow, error) {
	inbox := s.journal.conn.NewInbox()
	sub, err := s.journal.conn.SubscribeSync(inbox + ".*")
	if err != nil {
		return nil, mapRequestError(err)
	}
	return &ackWindow{stream: s, inbox: inbox, sub: sub}, nil
}

func (w *ackWindow) close() {
	// The only error is that the connection is closed, which ends the
	// subscription as well.
	_ = w.sub.Unsubscribe()
}

// receive waits for one acknowledgement and files its sequence.
func (w *ackWindow) receive(ctx context.Context, seqs []uint64) error {
	wait, cancel := context.WithTimeoutCause(ctx, ackTimeout, ErrUnavailable)
	defer cancel()
	answer, err := w.sub.NextMsgWithContext(wait)
	if err != nil {
		return w.stream.requestError(wait, err)
	}
	if answer.Header.Get("Status") == "503" {
		return fmt.Errorf("%w: the stream has no leader", ErrUnavailable)
	}
	ack, err := decodeAck(answer.Data)
	if err != nil {
		return err
	}
	i, err := strconv.Atoi(answer.Subject[len(w.inbox)+1:])
	if err != nil || i >= len(seqs) {
		return fmt.Errorf("%w: acknowledgement on %s", ErrUnavailable, answer.Subject)
	}
	seqs[i] = ack.Sequence
	w.stream.journal.appends.Add(1)
	w.stream.noteAppended(ack.Sequence)
	return nil
}

// AppendAtomic appends all records or none, at most 1,000, and returns their
// sequences. Expect is allowed for each record. It is some ten times slower
// than Append.
func (s *Stream) AppendAtomic(ctx context.Context, ms []Message) ([]uint64, error) {
	seqs, err := s.appendAtomic(ctx, ms)
	if err != nil {
		return nil, fmt.Errorf("append %d records atomically to %s: %w", len(ms), s.cfg.Name, err)
	}
	return seqs, nil
}

func (s *Stream) appendAtomic(ctx context.Context, ms []Message) ([]uint64, error) {
	switch {
	case len(ms) == 0:
		return nil, nil
	case len(ms) > maxAtomicBatch:
		return nil, fmt.Errorf("%w: at most %d records in one batch", ErrTooLarge, maxAtomicBatch)
	}
	select {
	case s.atomicSlots <- struct{}{}:
		defer func() { <-s.atomicSlots }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	id := nats.NewInbox()
	var ack appendAck
	for i, m := range ms {
		msg, err := s.prepare(ctx, m)
		if err != nil {
			return nil, err
		}
		if msg.Header == nil {
			msg.Header = make(nats.Header, 3)
		}
		msg.Header[headerBatchID] = []string{id}
		msg.Header[headerBatchSequence] = []string{strconv.Itoa(i + 1)}
		if i < len(ms)-1 {
			if err := s.journal.conn.PublishMsg(msg); err != nil {
				return nil, mapRequestError(err)
			}
			continue
		}
		msg.Header[headerBatchCommit] = []string{"1"}
		if ack, err = s.request(ctx, msg); err != nil {
			return nil, err
		}
	}
	s.journal.appends.Add(uint64(len(ms)))
	s.noteAppended(ack.Sequence)
	seqs := make([]uint64, len(ms))
	for i := range seqs {
		seqs[i] = ack.Sequence - uint64(len(ms)-1-i)
	}
	return seqs, nil
}

// Commit returns when everything up to seq is durable. An error that is not
// the context's is final: the journal has failed.
func (s *Stream) Commit(ctx context.Context, seq uint64) error {
	if s.durable.Load() >= seq {
		return nil
	}
	if appended := s.appended.Load(); seq > appended {
		return fmt.Errorf("commit %s: sequence %d was not appended (the newest is %d)", s.cfg.Name, seq, appended)
	}
	if err := s.sync(ctx); err != nil {
		return fmt.Errorf("commit %s: %w", s.cfg.Name, err)
	}
	return nil
}

// settle is Commit for a reader that found seq in the store: records that the
// server wrote by itself have no writer who commits them.
func (s *Stream) settle(ctx context.Context, seq uint64) error {
	s.noteAppended(seq)
	return s.Commit(ctx, seq)
}

// Bounds returns the oldest sequence kept and the newest appended; 0 and 0
// when nothing was ever appended.
func (s *Stream) Bounds(ctx context.Context) (first, last uint64, err error) {
	info, err := s.log.Info(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("bounds of %s: %w", s.cfg.Name, mapRequestError(err))
	}
	return info.State.FirstSeq, info.State.LastSeq, nil
}

// Purge removes all records of a subject. Sequences are not reused.
func (s *Stream) Purge(ctx context.Context, subject string) error {
	if err := s.thin(ctx); err != nil {
		return fmt.Errorf("purge %s of %s: %w", subject, s.cfg.Name, err)
	}
	if err := s.log.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
		return fmt.Errorf("purge %s of %s: %w", subject, s.cfg.Name, mapRequestError(err))
	}
	return nil
}
