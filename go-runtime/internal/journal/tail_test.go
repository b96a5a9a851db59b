package journal

import (
	"context"
	"errors"
	"log/slog"
	"testing"
)

func openLog(t *testing.T, cfg StreamConfig) *Stream {
	t.Helper()
	j, err := New(Config{DataDir: t.TempDir(), Durability: Fsync}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	cfg.Name, cfg.Subjects = "LOG", []string{"log.>"}
	s, err := j.OpenStream(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestFollowerIsToldWhatRetentionTookBeforeTheTail has a burst pass through the
// stream while the tail waits for a sync.
func TestFollowerIsToldWhatRetentionTookBeforeTheTail(t *testing.T) {
	t.Parallel()
	s := openLog(t, StreamConfig{MaxBytes: 64 << 10})
	first, err := s.Append(t.Context(), Message{Subject: "log.a"})
	if err != nil {
		t.Fatal(err)
	}
	began := make(chan struct{})
	ended := make(chan error, 1)
	position := first - 1
	go func() {
		ended <- s.Follow(t.Context(), 0, nil, func(batch []Record, _ uint64) error {
			for _, r := range batch {
				if r.Sequence != position+1 {
					t.Errorf("record %d follows %d", r.Sequence, position)
				}
				position = r.Sequence
			}
			if position == first {
				close(began)
			}
			return nil
		})
	}()
	<-began
	s.journal.barrier.turn <- struct{}{}
	if _, err := s.Append(t.Context(), Message{Subject: "log.a"}); err != nil {
		t.Fatal(err)
	}
	burst := make([]Message, 5000)
	for i := range burst {
		burst[i] = Message{Subject: "log.a", Data: make([]byte, 2<<10)}
	}
	sequences, err := s.AppendAll(t.Context(), burst)
	if err != nil {
		t.Fatal(err)
	}
	<-s.journal.barrier.turn
	if err := s.Commit(t.Context(), sequences[len(sequences)-1]); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrTruncated) {
		t.Errorf("the follower ended with %v", err)
	}
}

// TestTailThatHasEndedFeedsNobody has a read be under way as the tail is given up,
// whose place another may have taken by the time it is done.
func TestTailThatHasEndedFeedsNobody(t *testing.T) {
	t.Parallel()
	tail := newTail(openLog(t, StreamConfig{}))
	ended, end := context.WithCancel(t.Context())
	end()
	tail.push(ended, []Record{{Sequence: 1, Subject: "log.a"}})
	if len(tail.ring) != 0 || tail.head != 0 {
		t.Errorf("%d records, up to %d", len(tail.ring), tail.head)
	}
	tail.push(t.Context(), []Record{{Sequence: 1, Subject: "log.a"}})
	if len(tail.ring) != 1 || tail.head != 1 {
		t.Errorf("%d records, up to %d", len(tail.ring), tail.head)
	}
}
