package engine

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// faulty is a stream that fails where a test says so.
type faulty struct {
	stream

	// append is what becomes of an event, the first being number 1; nil: what does without a fault.
	append func(number int64, add func() (uint64, error)) (uint64, error)
	// refuse says whether a record is not appended, and may wait; with together, none
	// of the events is that come in one call with such a one.
	refuse   func(m journal.Message) error
	together bool
	// appended is called when a record is appended, before its appender knows.
	appended func(m journal.Message)
	// last and purge say whether that fails.
	last  func(subject string) error
	purge func(subject string) error

	appends atomic.Int64
}

// fault puts a stream that fails in front of the engine's; no run may be there yet.
func (b *bundle) fault(f *faulty) {
	f.stream = b.stream
	b.stream = f
}

func (f *faulty) Append(ctx context.Context, m journal.Message) (uint64, error) {
	add := func() (uint64, error) {
		seq, err := f.stream.Append(ctx, m)
		if err == nil && f.appended != nil {
			f.appended(m)
		}
		return seq, err
	}
	if f.refuse != nil {
		if err := f.refuse(m); err != nil {
			return 0, err
		}
	}
	if f.append == nil || !strings.HasPrefix(m.Subject, eventPrefix) {
		return add()
	}
	return f.append(f.appends.Add(1), add)
}

func (f *faulty) AppendEach(ctx context.Context, ms []journal.Message) ([]journal.AppendResult, error) {
	results := make([]journal.AppendResult, len(ms))
	for i, m := range ms {
		if f.together {
			if err := f.refuse(m); err != nil {
				return nil, err
			}
		}
		results[i].Sequence, results[i].Err = f.Append(ctx, m)
	}
	return results, nil
}

func (f *faulty) Last(ctx context.Context, subject string) (journal.Record, error) {
	if f.last != nil {
		if err := f.last(subject); err != nil {
			return journal.Record{}, err
		}
	}
	return f.stream.Last(ctx, subject)
}

func (f *faulty) Purge(ctx context.Context, subject string) error {
	if f.purge != nil {
		if err := f.purge(subject); err != nil {
			return err
		}
	}
	return f.stream.Purge(ctx, subject)
}

// holdBeginning has the first attempt that begins wait, in its run's turn, for goOn
// to be closed; begins is closed then.
func (b *bundle) holdBeginning() (begins, goOn chan struct{}) {
	begins, goOn = make(chan struct{}), make(chan struct{})
	var held atomic.Bool
	b.fault(&faulty{refuse: func(m journal.Message) error {
		if strings.Contains(string(m.Data), `"state":"running"`) && !held.Swap(true) {
			close(begins)
			<-goOn
		}
		return nil
	}})
	return begins, goOn
}

// errNoAnswer is what the journal says when it is not known what became of an append.
var errNoAnswer = fmt.Errorf("no answer: %w", journal.ErrUnavailable)

// records counts what the journal has of a subject.
func (b *bundle) records(t *testing.T, subject string) int {
	t.Helper()
	count := 0
	_, err := b.stream.Scan(t.Context(), 0, false, []string{subject}, func(journal.Record) error {
		count++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return count
}
