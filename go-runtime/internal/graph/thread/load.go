package thread

import (
	"context"
	"errors"
	"fmt"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// Load implements graph.Saver.
func (s *Saver) Load(ctx context.Context, g *graph.Graph, thread string) (*graph.Checkpoint, error) {
	texts, revision, err := s.latest(ctx, thread)
	if err != nil || revision == 0 {
		return nil, err
	}
	list, err := g.Unpack(texts, revision, 1)
	if err != nil {
		return nil, fmt.Errorf("thread %s: %w", thread, err)
	}
	return list[0], nil
}

// latest returns the checkpoints of a thread from the last whole one on, and the last
// one's revision, which is 0 without any. The thread goes on behind them.
func (s *Saver) latest(ctx context.Context, thread string) (texts [][]byte, revision uint64, err error) {
	h := s.head(thread)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rest()
	if h.err != nil {
		return nil, 0, h.err
	}
	last, err := s.store.last(ctx, h.subject)
	if err != nil {
		return nil, 0, fmt.Errorf("load thread %s: %w", thread, err)
	}
	h.revision, h.sequence, h.base = last.revision, last.sequence, last.base
	if last.revision == 0 {
		return nil, 0, nil
	}
	if place := last.whole(); place >= 0 {
		return last.texts[place:], last.revision, nil
	}
	err = s.store.scan(ctx, h.subject, last.base, func(r *record) error {
		if r.sequence > last.sequence {
			return errFull
		}
		if place := r.whole(); place >= 0 {
			texts, r.texts = nil, r.texts[place:]
		}
		texts = append(texts, r.texts...)
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("load thread %s: %w", thread, err)
	}
	return texts, last.revision, nil
}

// List implements graph.Saver. It reads the thread from its oldest record on.
func (s *Saver) List(ctx context.Context, g *graph.Graph, thread string, before uint64, limit int) ([]*graph.Checkpoint, error) {
	h := s.head(thread)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rest()
	if h.err != nil || limit <= 0 {
		return nil, h.err
	}
	last, err := s.store.last(ctx, h.subject)
	if err != nil || last.revision == 0 {
		return nil, err
	}
	upTo := last.revision
	if before > 0 {
		upTo = min(upTo, before-1)
	}
	oldest := max(1, int64(upTo)-int64(limit)+1)
	// texts are from the last whole one on that is not behind the oldest.
	var texts [][]byte
	err = s.store.scan(ctx, h.subject, 0, func(r *record) error {
		for i, text := range r.texts {
			revision := r.first() + uint64(i)
			switch {
			case revision > upTo:
				return errFull
			case graph.IsWhole(text) && (int64(revision) <= oldest || len(texts) == 0):
				texts = [][]byte{text}
			case len(texts) > 0:
				texts = append(texts, text)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list checkpoints of thread %s: %w", thread, err)
	}
	if len(texts) == 0 {
		return nil, nil
	}
	list, err := g.Unpack(texts, upTo, min(len(texts), int(int64(upTo)-oldest+1)))
	if err != nil {
		return nil, fmt.Errorf("list checkpoints of thread %s: %w", thread, err)
	}
	return list, nil
}

// last returns the last record of a subject; the zero one without.
func (s *Store) last(ctx context.Context, subject string) (record, error) {
	r, err := s.stream.Last(ctx, subject)
	if errors.Is(err, journal.ErrNotFound) {
		return record{}, nil
	}
	if err != nil {
		return record{}, err
	}
	return decode(r)
}

// scan calls fn with the records of a subject from a sequence on, until it returns errFull.
func (s *Store) scan(ctx context.Context, subject string, from uint64, fn func(*record) error) error {
	_, err := s.stream.Scan(ctx, max(from, 1)-1, false, []string{subject}, func(r journal.Record) error {
		d, err := decode(r)
		if err != nil {
			return err
		}
		return fn(&d)
	})
	if errors.Is(err, errFull) {
		return nil
	}
	return err
}
