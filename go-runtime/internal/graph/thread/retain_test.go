package thread

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// clock is one that a test moves.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) move(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += by
}

func TestOldCheckpointsAreRemovedByCount(t *testing.T) {
	t.Parallel()
	s := open(t, inFolder(t), Config{MaxCheckpoints: 10})
	for _, durability := range []graph.Durability{graph.Sync, graph.Async} {
		thread, steps := string(durability), 100
		g := counting(steps, 100*steps, func(int) {})
		const turns = 3
		for range turns {
			anew := graph.State{"n": graph.Overwrite{Value: 0}, "seen": graph.Overwrite{Value: []any{}}}
			s.mustRun(t, g, durability, graph.Request{Thread: thread, Input: anew})
		}
		history := s.history(t, g, thread)
		if n := len(history); n < 10 || n > 2*steps {
			t.Errorf("%s: %d of %d checkpoints are kept", durability, n, turns*(steps+1))
		}
		// It goes on with what is left, and each is as it was.
		for i, c := range history {
			if texts, _ := c.State["texts"].([]any); c.Source == graph.Stepped && len(texts) != turns*steps-i+i/(steps+1) {
				t.Errorf("%s: checkpoint %d has %d texts", durability, c.Revision, len(texts))
			}
		}
		wantCounted(t, s.mustRun(t, g, durability, graph.Request{Thread: thread}), steps)
		if _, err := g.State(t.Context(), s.Saver(namespace, graph.Sync), thread, 1); !errors.Is(err, graph.ErrUnknownRevision) {
			t.Errorf("%s: the first checkpoint: %v", durability, err)
		}
	}
}

// subjects are the newest sequences by subject, of all threads.
func (s *Store) subjects(t *testing.T) map[string]uint64 {
	t.Helper()
	found := map[string]uint64{}
	_, err := s.stream.Scan(t.Context(), 0, true, nil, func(r journal.Record) error {
		found[r.Subject] = r.Sequence
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestSubgraphsThatAreNeededAreKept cuts threads that wait in a subgraph.
func TestSubgraphsThatAreNeededAreKept(t *testing.T) {
	t.Parallel()
	at := &clock{}
	s := open(t, inFolder(t), Config{MaxAge: time.Hour, Now: at.now})
	var calls atomic.Int64
	g := asking(&calls)
	answer := func(err error) {
		t.Helper()
		var waits *graph.InterruptedError
		if !errors.As(err, &waits) {
			t.Fatal(err)
		}
		answers := map[string]any{waits.Interrupts[0].ID: "yes"}
		s.mustRun(t, g, graph.Async, graph.Request{Thread: "t", Answers: answers})
	}
	const turns = 20
	for turn := range turns {
		// Large enough for whole checkpoints now and then.
		input := graph.State{"turns": fmt.Sprint("turn ", turn)}
		_, err := s.run(t.Context(), g, graph.Async, graph.Request{Thread: "t", Input: input})
		if turn == turns-1 {
			at.move(2 * time.Hour)
			if err := s.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if left := len(s.subjects(t)); left < 2 || left > turns/2 {
				t.Errorf("%d subjects are left of %d", left, turns+1)
			}
		}
		answer(err)
	}
	if calls.Load() != turns {
		t.Errorf("it was answered %d times, and went on %d times", turns, calls.Load())
	}
}

func TestIdleThreadsAreDeleted(t *testing.T) {
	t.Parallel()
	at := &clock{}
	s := open(t, inFolder(t), Config{MaxIdle: time.Hour, Now: at.now})
	var calls atomic.Int64
	g := asking(&calls)
	if _, err := s.run(t.Context(), g, graph.Sync, graph.Request{Thread: "t", Input: graph.State{}}); err == nil {
		t.Fatal("it asks nothing")
	}
	if err := s.Sweep(t.Context()); err != nil || len(s.subjects(t)) != 2 {
		t.Fatalf("a young thread was deleted: %v", err)
	}
	// Who has read the thread by now, is refused.
	saver := s.Saver(namespace, graph.Sync)
	c, err := saver.Load(t.Context(), g, "t")
	if err != nil {
		t.Fatal(err)
	}
	at.move(2 * time.Hour)
	if err := s.Sweep(t.Context()); err != nil || len(s.subjects(t)) != 0 {
		t.Fatalf("left are %v, %v", s.subjects(t), err)
	}
	if err := saver.Save(t.Context(), "t", c); !errors.Is(err, graph.ErrConflict) {
		t.Errorf("saved behind what is deleted: %v", err)
	}
	// The name is free.
	if _, err := s.run(t.Context(), g, graph.Sync, graph.Request{Thread: "t", Input: graph.State{}}); err == nil {
		t.Error("it asks nothing")
	}
}

// TestThreadIsFreeWhileItIsBeingDeleted has a runtime die between the mark and the rest.
func TestThreadIsFreeWhileItIsBeingDeleted(t *testing.T) {
	t.Parallel()
	s := open(t, inFolder(t), Config{})
	g := counting(3, 30, func(int) {})
	s.mustRun(t, g, graph.Sync, graph.Request{Thread: "t", Input: graph.State{}})
	subject := subjectOf(namespace, "t")
	sequence := s.subjects(t)[subject]
	_, err := s.stream.Append(t.Context(), journal.Message{
		Subject: subject, Expect: &sequence, Header: map[string]string{headerDeleted: "1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if threads, err := s.List(t.Context(), namespace, 0, 0); err != nil || len(threads) != 0 {
		t.Errorf("%+v, %v", threads, err)
	}
	if history := s.history(t, g, "t"); len(history) != 0 {
		t.Errorf("it has a history: %+v", history)
	}
	wantCounted(t, s.mustRun(t, g, graph.Sync, graph.Request{Thread: "t", Input: graph.State{}}), 3)
	if history := s.history(t, g, "t"); len(history) != 4 {
		t.Errorf("%d checkpoints", len(history))
	}
}

func TestThreadsAreListedAndDeleted(t *testing.T) {
	t.Parallel()
	s := open(t, inFolder(t), Config{})
	var calls atomic.Int64
	g := asking(&calls)
	const count = 25
	for i := range count {
		_, err := s.run(t.Context(), g, graph.Async, graph.Request{Thread: fmt.Sprint("t", i), Input: graph.State{}})
		if err == nil {
			t.Fatal("it asks nothing")
		}
	}
	s.mustRun(t, counting(3, 30, func(int) {}), graph.Async, graph.Request{Thread: "t0-done", Input: graph.State{}})
	var all []Thread
	for after := uint64(0); ; after = all[len(all)-1].Position {
		page, err := s.List(t.Context(), namespace, after, 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		all = append(all, page...)
	}
	if len(all) != count+1 || all[count].ID != "t0-done" || all[count].Status != graph.Done || all[count].Graph != "counting" {
		t.Fatalf("%d threads, the last %+v", len(all), all[len(all)-1])
	}
	if first := all[0]; first.ID != "t0" || first.Status != graph.Waiting || len(first.Interrupts) != 1 || first.Updated.IsZero() {
		t.Errorf("the first is %+v", first)
	}
	if threads, err := s.List(t.Context(), "other", 0, 0); err != nil || len(threads) != 0 {
		t.Errorf("another namespace has %+v, %v", threads, err)
	}
	if err := errors.Join(s.Delete(t.Context(), namespace, "t0"), s.Delete(t.Context(), namespace, "none")); err != nil {
		t.Fatal(err)
	}
	if left := len(s.subjects(t)); left != 2*(count-1)+1 {
		t.Errorf("%d subjects are left", left)
	}
}

func TestRunOfADeletedThreadIsRefused(t *testing.T) {
	t.Parallel()
	s := open(t, inFolder(t), Config{})
	g := graph.New("g", nil).Node("a", graph.Node{
		Run: func(ctx context.Context, call *graph.Call, _ graph.State) (graph.Command, error) {
			return graph.Command{}, s.Delete(ctx, namespace, call.Thread)
		},
	}).Edge(graph.Start, "a")
	if _, err := s.run(t.Context(), g, graph.Sync, graph.Request{Thread: "t", Input: graph.State{}}); !errors.Is(err, graph.ErrConflict) {
		t.Error(err)
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	t.Parallel()
	_, err := New(Config{MaxCheckpoints: -1, MaxAge: -1, MaxIdle: -1, SweepInterval: -1}, nil, nil)
	var wrong *violation.Error
	if !errors.As(err, &wrong) || len(wrong.Violations) != 4 {
		t.Error(err)
	}
}
