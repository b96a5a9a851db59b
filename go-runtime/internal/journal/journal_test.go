package journal_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

var discard = slog.New(slog.DiscardHandler)

func start(t *testing.T, cfg journal.Config) *journal.Journal {
	t.Helper()
	j, err := journal.New(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
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
	return j
}

func open(t *testing.T, j *journal.Journal, cfg journal.StreamConfig) *journal.Stream {
	t.Helper()
	s, err := j.OpenStream(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBasics(t *testing.T) {
	t.Parallel()
	j := start(t, journal.Config{DataDir: t.TempDir()})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := j.OpenStream(ctx, journal.StreamConfig{Name: "STATE", Subjects: []string{"state.>"}, LastPerSubject: true})
	if err != nil {
		t.Fatal(err)
	}
	seq, err := s.Append(ctx, journal.Message{Subject: "state.a", Data: []byte("1"), Header: map[string]string{"x": "y"}, Expect: new(uint64)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(ctx, seq); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(ctx, journal.Message{Subject: "state.a", Expect: new(uint64)}); !errors.Is(err, journal.ErrConflict) {
		t.Fatalf("got %v", err)
	}
	r, err := s.Last(ctx, "state.a")
	if err != nil || string(r.Data) != "1" || r.Header["x"] != "y" || len(r.Header) != 1 || r.Sequence != seq {
		t.Fatalf("got %+v, %v", r, err)
	}
	if _, err := s.Last(ctx, "state.b"); !errors.Is(err, journal.ErrNotFound) {
		t.Fatalf("got %v", err)
	}
	seqs, err := s.AppendAtomic(ctx, []journal.Message{{Subject: "state.b"}, {Subject: "state.c"}})
	if err != nil || len(seqs) != 2 {
		t.Fatalf("got %v, %v", seqs, err)
	}
	var ms []journal.Message
	for i := range 2000 {
		ms = append(ms, journal.Message{Subject: fmt.Sprintf("state.x%d", i)})
	}
	seqs, err = s.AppendAll(ctx, ms)
	if err != nil || len(seqs) != 2000 {
		t.Fatal(err)
	}
	n := 0
	if upTo, err := s.Scan(ctx, 0, true, []string{"state.>"}, func(journal.Record) error { n++; return nil }); err != nil || n != 2003 || upTo != seqs[1999] {
		t.Fatalf("got %d %v", n, err)
	}
	done := errors.New("done")
	n = 0
	err = s.Follow(ctx, 0, []string{"state.x*"}, func(batch []journal.Record, _ uint64) error { return done })
	_ = err
	n = 0
	if err := s.Follow(ctx, 0, nil, func(batch []journal.Record, _ uint64) error {
		if n += len(batch); n == 2003 {
			return done
		}
		return nil
	}); !errors.Is(err, done) {
		t.Fatal(err)
	}
}
