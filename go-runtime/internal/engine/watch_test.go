package engine

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// filterSpy notes by which filters the engine reads the journal.
type filterSpy struct {
	stream

	mu      sync.Mutex
	filters [][]string
}

func (s *filterSpy) note(filters []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.filters = append(s.filters, filters)
}

func (s *filterSpy) Follow(
	ctx context.Context, after uint64, filters []string,
	fn func(batch []journal.Record, position uint64) error, options ...journal.FollowOption,
) error {
	s.note(filters)
	return s.stream.Follow(ctx, after, filters, fn, options...)
}

func (s *filterSpy) Scan(
	ctx context.Context, after uint64, lastOnly bool, filters []string, fn func(journal.Record) error,
) (uint64, error) {
	s.note(filters)
	return s.stream.Scan(ctx, after, lastOnly, filters, fn)
}

// TestRunsAreReadByOneFilterEach holds readers, and attempts that look for what
// earlier ones left, to what costs the same in a large store as in a small one:
// with a second filter, the server counts through everything that the stream has.
func TestRunsAreReadByOneFilterEach(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	spy := &filterSpy{stream: b.stream}
	b.stream = spy
	r := chat()
	r.Options.Retry = fast(2)
	id := b.create(r).ID
	w := b.worker(1, 0)
	a := w.assignment()
	w.report(a, 1, emitText("once"))
	w.report(a, 2, Report{Fail: &Fail{Message: "again", Retryable: true}})
	w.succeed(w.assignment(), 1)
	want := []string{eventQueued, eventStarted, "assistant.message", eventRetrying, eventStarted, eventSucceeded}
	if got := typesOf(b.history(id, 0, 0)); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	seen := 0
	_ = b.FollowRuns(ctx, "default", FollowRequest{}, func(events []Event, _ uint64) error {
		if seen += len(events); seen == len(want) {
			stop()
		}
		return nil
	})
	spy.mu.Lock()
	defer spy.mu.Unlock()
	if len(spy.filters) < 3 || slices.ContainsFunc(spy.filters, func(filters []string) bool { return len(filters) != 1 }) {
		t.Errorf("read by %v", spy.filters)
	}
}

// TestNamedRunsAreFollowedAlone has runs that have their ids from their creators, and
// some that have not, with sub-runs of both; over a restart, and when the engine no
// longer knows of them.
func TestNamedRunsAreFollowedAlone(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{"echo": echo})
	named := CreateRequest{TaskType: "echo", RunID: uuid.NewString(), Wait: true}
	unnamed := b.create(CreateRequest{TaskType: "echo", Wait: true})
	b.create(named)
	scheduled := CreateRequest{TaskType: "echo", RunID: uuid.NewString(), Wait: true}
	scheduled.Options.ScheduleID = "nightly"
	b.create(scheduled)
	subRun := func(of string) string {
		r := CreateRequest{TaskType: "echo", RunID: uuid.NewString(), Wait: true}
		r.Options.ParentID = of
		return b.create(r).ID
	}
	subRun(unnamed.ID)
	child := subRun(named.RunID)
	want := []string{named.RunID, scheduled.RunID, child, subRun(child)}
	last := b.create(CreateRequest{TaskType: "echo", IdempotencyKey: "key", Wait: true})
	follow := func() {
		t.Helper()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var seen []Event
		_ = b.FollowRuns(ctx, "default", FollowRequest{NamedOnly: true}, func(events []Event, position uint64) error {
			seen = append(seen, events...)
			if position >= last.Sequence {
				stop()
			}
			return nil
		})
		var got []string
		for _, ev := range seen {
			if ev.Type == eventStarted {
				got = append(got, ev.RunID)
			}
		}
		if !slices.Equal(got, want) || len(seen) != 2*len(want) {
			t.Errorf("%d events of %v, want 2 of each of %v", len(seen), got, want)
		}
	}
	follow()
	b.crash()
	b = openEngine(t, b.dir, Config{}, tasks{"echo": echo})
	follow()
	b.index = newIndex()
	follow()
}
