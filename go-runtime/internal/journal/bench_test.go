package journal_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

func benchStream(b *testing.B, durability journal.Durability) *journal.Stream {
	b.Helper()
	j, err := journal.New(journal.Config{DataDir: b.TempDir(), Durability: durability}, discard)
	if err != nil {
		b.Fatal(err)
	}
	if err := j.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := j.Stop(context.Background()); err != nil {
			b.Error(err)
		}
	})
	s, err := j.OpenStream(b.Context(), journal.StreamConfig{Name: "STATE", Subjects: []string{"state.>"}, LastPerSubject: true})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func BenchmarkAppendCommit(b *testing.B) {
	for _, durability := range []journal.Durability{journal.Fsync, journal.OS} {
		for _, writers := range []int{1, 32, 256} {
			b.Run(fmt.Sprintf("%s/writers=%d", durability, writers), func(b *testing.B) {
				s := benchStream(b, durability)
				var n atomic.Int64
				b.SetParallelism(writers)
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					subject := fmt.Sprintf("state.%d", n.Add(1))
					data := make([]byte, 256)
					for pb.Next() {
						seq, err := s.Append(b.Context(), journal.Message{Subject: subject, Data: data})
						if err == nil {
							err = s.Commit(b.Context(), seq)
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}

func BenchmarkLast(b *testing.B) {
	s := benchStream(b, journal.OS)
	if _, err := s.Append(b.Context(), journal.Message{Subject: "state.a", Data: make([]byte, 256)}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Last(b.Context(), "state.a"); err != nil {
			b.Fatal(err)
		}
	}
}

// One operation is one record handed to one follower, from disk or live.
func BenchmarkFollow(b *testing.B) {
	s := benchStream(b, journal.OS)
	const batch = 1000
	var writing sync.WaitGroup
	writing.Go(func() {
		ms := make([]journal.Message, batch)
		for i := 0; i < b.N; i += batch {
			for k := range ms {
				ms[k] = journal.Message{Subject: fmt.Sprintf("state.%d", i+k), Data: make([]byte, 256)}
			}
			if _, err := s.AppendAll(b.Context(), ms); err != nil {
				b.Error(err)
				return
			}
		}
	})
	got := 0
	err := s.Follow(b.Context(), 0, nil, func(records []journal.Record, _ uint64) error {
		if got += len(records); got >= b.N {
			return errDone
		}
		return nil
	})
	if !errors.Is(err, errDone) {
		b.Fatal(err)
	}
	writing.Wait()
}
