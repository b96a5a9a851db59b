package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// ackTimeout is how long an append waits for the server. A server that
	// met a full disk does not answer at all.
	ackTimeout = 10 * time.Second
	// appendWindow is how many appends of AppendAll and AppendEach are under way at a time.
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
)

// Append adds one record. It is not durable until Commit(seq) returns.
//
// Errors: ErrConflict when Expect did not hold, ErrTooLarge, ErrNoSpace, and
// with the outcome unknown ErrUnavailable or the context's.
func (s *Stream) Append(ctx context.Context, m Message) (uint64, error) {
	msg, err := s.prepare(ctx, m)
	if err != nil {
		return 0, fmt.Errorf("append to %s: %w", s.cfg.Name, err)
	}
	change := s.newest.begin(m)
	ack, err := s.request(ctx, msg)
	change.end(answered(err))
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
		if err := s.journal.space.take(size, m.Purpose); err != nil {
			return nil, err
		}
	}
	return msg, nil
}

// request publishes and waits for the acknowledgement.
func (s *Stream) request(ctx context.Context, msg *nats.Msg) (appendAck, error) {
	wait, cancel := context.WithTimeoutCause(ctx, ackTimeout, ErrUnavailable)
	defer cancel()
	answer, err := offer(wait, s.journal.conn, msg)
	if err != nil {
		return appendAck{}, s.requestError(wait, err)
	}
	return decodeAck(answer.Data)
}

// offer publishes a message for a stream and waits for the answer. While the
// stream has no leader nobody takes the message, so it is safe to send it again.
func offer(ctx context.Context, conn *nats.Conn, msg *nats.Msg) (*nats.Msg, error) {
	answer, err := conn.RequestMsgWithContext(ctx, msg)
	for errors.Is(err, nats.ErrNoResponders) && pause(ctx, leaderRetry) {
		answer, err = conn.RequestMsgWithContext(ctx, msg)
	}
	return answer, err
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

// answered reports whether it is known how an append went that ended with err.
func answered(err error) bool {
	return err == nil || errors.Is(err, ErrConflict) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrNoSpace)
}

func decodeAck(data []byte) (appendAck, error) {
	if seq, ok := plainAck(data); ok {
		return appendAck{Sequence: seq}, nil
	}
	var ack appendAck
	if err := json.Unmarshal(data, &ack); err != nil {
		return appendAck{}, fmt.Errorf("%w: acknowledgement %q: %w", ErrUnavailable, data, err)
	}
	if ack.Error != nil {
		return appendAck{}, mapAppendError(ack.Error)
	}
	return ack, nil
}

// plainAck reads {"stream":"S","seq":N}, as nearly every acknowledgement is,
// at a small part of what a JSON decoder costs.
func plainAck(data []byte) (uint64, bool) {
	before, after, _ := bytes.Cut(data, []byte(`","seq":`))
	digits, ended := bytes.CutSuffix(after, []byte("}"))
	if !ended || !bytes.HasPrefix(before, []byte(`{"stream":"`)) {
		return 0, false
	}
	seq, err := strconv.ParseUint(string(digits), 10, 64)
	return seq, err == nil
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
	for _, m := range ms {
		if m.Expect != nil {
			return nil, errors.New("records of one call cannot expect a sequence")
		}
	}
	results, err := s.appendEach(ctx, ms)
	if err != nil {
		return nil, err
	}
	seqs := make([]uint64, len(results))
	for i, result := range results {
		if result.Err != nil {
			return nil, result.Err
		}
		seqs[i] = result.Sequence
	}
	return seqs, nil
}

// AppendResult is how one append went: the record's sequence, or an error of Append.
type AppendResult struct {
	Sequence uint64
	Err      error
}

// AppendEach appends records in order, many under way at a time, and returns how
// each went: one that finds a conflict holds up no other. Expect is allowed, for
// one record of each subject. An error means that nothing was appended.
func (s *Stream) AppendEach(ctx context.Context, ms []Message) ([]AppendResult, error) {
	if len(ms) == 1 {
		seq, err := s.Append(ctx, ms[0])
		return []AppendResult{{Sequence: seq, Err: err}}, nil
	}
	results, err := s.appendEach(ctx, ms)
	if err != nil {
		return nil, fmt.Errorf("append %d records to %s: %w", len(ms), s.cfg.Name, err)
	}
	return results, nil
}

func (s *Stream) appendEach(ctx context.Context, ms []Message) ([]AppendResult, error) {
	msgs := make([]*nats.Msg, len(ms))
	for i, m := range ms {
		msg, err := s.prepare(ctx, m)
		if err != nil {
			return nil, err
		}
		msgs[i] = msg
	}
	acks, err := s.newAckWindow(len(msgs))
	if err != nil {
		return nil, err
	}
	defer acks.close()
	change := s.newest.begin(ms...)
	for i, msg := range msgs {
		if i >= appendWindow {
			acks.receive(ctx)
		}
		msg.Reply = acks.inbox + "." + strconv.Itoa(i)
		acks.send(msg)
	}
	for range min(len(msgs), appendWindow) {
		acks.receive(ctx)
	}
	change.end(!slices.ContainsFunc(acks.results, func(r AppendResult) bool { return !answered(r.Err) }))
	return acks.results, nil
}

// ackWindow collects the acknowledgements of pipelined appends, at most
// appendWindow of which are under way. It is for one goroutine.
type ackWindow struct {
	stream  *Stream
	inbox   string
	sub     *nats.Subscription
	answers chan *nats.Msg
	// results are zero where there is no answer yet.
	results []AppendResult
	// broken is why no answer is waited for any more.
	broken error
}

func (s *Stream) newAckWindow(size int) (*ackWindow, error) {
	w := &ackWindow{
		stream: s, inbox: s.journal.conn.NewInbox(), answers: make(chan *nats.Msg, appendWindow),
		results: make([]AppendResult, size),
	}
	var err error
	if w.sub, err = s.journal.conn.ChanSubscribe(w.inbox+".*", w.answers); err != nil {
		return nil, mapRequestError(err)
	}
	return w, nil
}

func (w *ackWindow) close() {
	// The only error is that the connection is closed, which ends the
	// subscription as well.
	_ = w.sub.Unsubscribe()
}

// send publishes a message, unless the window is broken.
func (w *ackWindow) send(msg *nats.Msg) {
	if w.broken != nil {
		return
	}
	if err := w.stream.journal.conn.PublishMsg(msg); err != nil {
		w.fail(mapRequestError(err))
	}
}

// fail gives up the appends that have no answer.
func (w *ackWindow) fail(err error) {
	w.broken = err
	for i := range w.results {
		if w.results[i] == (AppendResult{}) {
			w.results[i].Err = err
		}
	}
}

// receive waits for one acknowledgement and files it, unless the window is broken.
func (w *ackWindow) receive(ctx context.Context) {
	if w.broken != nil {
		return
	}
	answer, err := w.next(ctx)
	if err != nil {
		w.fail(err)
		return
	}
	i, err := strconv.Atoi(answer.Subject[len(w.inbox)+1:])
	if err != nil || i >= len(w.results) {
		w.fail(fmt.Errorf("%w: acknowledgement on %s", ErrUnavailable, answer.Subject))
		return
	}
	result := &w.results[i]
	if answer.Header.Get("Status") == "503" {
		result.Err = fmt.Errorf("%w: the stream has no leader", ErrUnavailable)
		return
	}
	ack, err := decodeAck(answer.Data)
	*result = AppendResult{Sequence: ack.Sequence, Err: err}
	if err != nil {
		return
	}
	w.stream.journal.appends.Add(1)
	w.stream.noteAppended(ack.Sequence)
}

// next waits for one answer. Most are there already, and cost no timer.
func (w *ackWindow) next(ctx context.Context) (*nats.Msg, error) {
	select {
	case answer := <-w.answers:
		return answer, nil
	default:
	}
	timer := time.NewTimer(ackTimeout)
	defer timer.Stop()
	select {
	case answer := <-w.answers:
		return answer, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer: %w", context.Cause(ctx))
	case <-timer.C:
		return nil, fmt.Errorf("no answer: %w", ErrUnavailable)
	case <-w.stream.journal.failed:
		return nil, fmt.Errorf("no answer: %w: %w", ErrUnavailable, w.stream.journal.Err())
	}
}

// AppendAtomic appends all records or none, at most 1,000, and returns their
// sequences. Expect is allowed for each record. It is some ten times slower
// than Append.
func (s *Stream) AppendAtomic(ctx context.Context, ms []Message) ([]uint64, error) {
	change := s.newest.begin(ms...)
	seqs, err := s.appendAtomic(ctx, ms)
	change.end(answered(err))
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
	msgs := make([]*nats.Msg, len(ms))
	for i, m := range ms {
		msg, err := s.prepare(ctx, m)
		if err != nil {
			// Before any is published: the server keeps what is not committed, and only so much of it.
			return nil, err
		}
		if msg.Header == nil {
			msg.Header = make(nats.Header, 3)
		}
		msg.Header[headerBatchID] = []string{id}
		msg.Header[headerBatchSequence] = []string{strconv.Itoa(i + 1)}
		msgs[i] = msg
	}
	last := msgs[len(msgs)-1]
	last.Header[headerBatchCommit] = []string{"1"}
	for _, msg := range msgs[:len(msgs)-1] {
		if err := s.journal.conn.PublishMsg(msg); err != nil {
			return nil, mapRequestError(err)
		}
	}
	ack, err := s.request(ctx, last)
	if err != nil {
		return nil, err
	}
	s.journal.appends.Add(uint64(len(ms)))
	s.noteAppended(ack.Sequence)
	seqs := make([]uint64, len(ms))
	for i := range seqs {
		seqs[i] = ack.Sequence - uint64(len(ms)-1-i)
	}
	return seqs, nil
}
