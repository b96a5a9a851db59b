package journal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// askTry is how long a server of a cluster has to answer a question.
const askTry = 2 * time.Second

// ask puts a question that changes nothing. In a cluster, one that was put to a
// server that died is never answered; it is put again, and after a while the
// journal counts as unavailable.
func ask[T any](ctx context.Context, s *Stream, question func(context.Context) (T, error)) (T, error) {
	if s.journal.barrier != nil {
		answer, err := question(ctx)
		if err != nil {
			err = s.requestError(ctx, err)
		}
		return answer, err
	}
	wait, cancel := context.WithTimeoutCause(ctx, ackTimeout, ErrUnavailable)
	defer cancel()
	for {
		try, cancel := context.WithTimeout(wait, askTry)
		answer, err := question(try)
		lost := try.Err() != nil
		cancel()
		switch {
		case err == nil:
			return answer, nil
		case !lost && !maySettle(err):
			return answer, mapRequestError(err)
		case !pause(wait, leaderRetry):
			return answer, s.requestError(wait, err)
		}
	}
}

// Last returns the newest record of a subject, once it is durable, or
// ErrNotFound. The record may be one that has expired since.
func (s *Stream) Last(ctx context.Context, subject string) (Record, error) {
	r, version, found := s.newest.find(subject)
	if found {
		return r, nil
	}
	raw, err := ask(ctx, s, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
		return s.log.GetLastMsgForSubject(ctx, subject)
	})
	if err != nil {
		return Record{}, fmt.Errorf("last of %s in %s: %w", subject, s.cfg.Name, err)
	}
	if err := s.settle(ctx, raw.Sequence); err != nil {
		return Record{}, fmt.Errorf("last of %s: %w", subject, err)
	}
	r = decodeRaw(raw)
	s.newest.keep(version, r)
	return r, nil
}

// Get returns the record at a sequence, once it is durable; ErrNotFound when
// it was removed or never there.
func (s *Stream) Get(ctx context.Context, seq uint64) (Record, error) {
	if seq == 0 {
		return Record{}, fmt.Errorf("record 0 of %s: %w", s.cfg.Name, ErrNotFound)
	}
	raw, err := ask(ctx, s, func(ctx context.Context) (*jetstream.RawStreamMsg, error) { return s.log.GetMsg(ctx, seq) })
	if err != nil {
		return Record{}, fmt.Errorf("record %d of %s: %w", seq, s.cfg.Name, err)
	}
	if err := s.settle(ctx, seq); err != nil {
		return Record{}, fmt.Errorf("record %d: %w", seq, err)
	}
	return decodeRaw(raw), nil
}

// Scan calls fn with every record that matches one of the subject filters
// (NATS wildcards; none means all), in sequence order, from after+1 up to
// what was appended when Scan was called, and returns that sequence.
//
// With lastOnly only the newest record of each subject is given; a subject
// whose newest record was appended during the scan is left out, and Follow
// from the returned sequence delivers it. An error of fn ends the scan and is
// returned as is.
func (s *Stream) Scan(ctx context.Context, after uint64, lastOnly bool, filters []string, fn func(Record) error) (uint64, error) {
	_, upTo, err := s.Bounds(ctx)
	if err != nil {
		return 0, fmt.Errorf("scan: %w", err)
	}
	if upTo <= after {
		return after, nil
	}
	if err := s.settle(ctx, upTo); err != nil {
		return 0, fmt.Errorf("scan: %w", err)
	}
	c := newCursor(s, after, filters)
	c.lastOnly = lastOnly && !s.cfg.LastPerSubject
	defer c.close()
	for {
		records, err := c.next(ctx)
		if errors.Is(err, errDrained) {
			return upTo, nil
		}
		if err != nil {
			return 0, fmt.Errorf("scan %s: %w", s.cfg.Name, err)
		}
		for _, r := range records {
			if r.Sequence > upTo {
				return upTo, nil
			}
			if r.Sequence <= after {
				continue
			}
			if err := fn(r); err != nil {
				return 0, err
			}
		}
	}
}
