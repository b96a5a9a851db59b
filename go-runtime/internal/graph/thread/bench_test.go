package thread

import (
	"context"
	"log/slog"
	"strconv"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

func BenchmarkNode(b *testing.B) {
	const count = 100
	log := slog.New(slog.DiscardHandler)
	j, err := journal.New(journal.Config{DataDir: b.TempDir(), Durability: journal.OS}, log)
	if err != nil {
		b.Fatal(err)
	}
	if err := j.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = j.Stop(context.Background()) }()
	s, err := New(Config{}, j, log)
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	g := counting(count, count, func(int) {})
	thread := 0
	for _, durability := range []graph.Durability{graph.Async, graph.Sync} {
		b.Run(string(durability), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				thread++
				r := graph.Request{Thread: string(durability) + strconv.Itoa(thread), Input: graph.State{}}
				if _, err := s.run(b.Context(), g, durability, r); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/count, "ns/node")
		})
	}
}
