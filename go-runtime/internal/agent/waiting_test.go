package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/definition"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
)

const askingOnce = `
name: tested
state: {title: {}, approved: {}}
nodes:
  approve: {kind: human, with: {ask: "Publish {{ state.title }}?"}, set: {approved: out}}
edges: [[START, approve]]
`

// site is a runtime whose langgraph_task asks a person.
type site struct {
	*engine.Engine

	tb      testing.TB
	journal *journal.Journal
}

// openJournal starts the journal alone.
func openJournal(tb testing.TB, dir string) *site {
	tb.Helper()
	j, err := journal.New(journal.Config{DataDir: dir, Durability: journal.OS}, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	if err := j.Start(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return &site{tb: tb, journal: j}
}

// begin starts the rest.
func (s *site) begin() {
	s.tb.Helper()
	provider, err := model.New(model.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		s.tb.Fatal(err)
	}
	asking := definition.Definition{
		Kind: definition.Graph, Name: "tested", Version: definition.VersionOf([]byte(askingOnce)), Text: []byte(askingOnce),
	}
	registry, err := New(Config{Provider: provider, Definitions: builtIns{asking}})
	if err != nil {
		s.tb.Fatal(err)
	}
	if s.Engine, err = engine.New(engine.Config{}, s.journal, registry, slog.New(slog.DiscardHandler)); err != nil {
		s.tb.Fatal(err)
	}
	if err := s.Start(s.tb.Context()); err != nil {
		s.tb.Fatal(err)
	}
}

func (s *site) end() {
	s.tb.Helper()
	var errStop error
	if s.Engine != nil {
		errStop = s.Stop(context.Background())
	}
	if err := errors.Join(errStop, s.journal.Stop(context.Background())); err != nil {
		s.tb.Error(err)
	}
}

// park has so many runs ask, and returns when all wait.
func (s *site) park(count int) {
	s.tb.Helper()
	ids := make([]string, count)
	for i := range ids {
		run, _, err := s.CreateRun(s.tb.Context(), "default", engine.CreateRequest{
			TaskType: "langgraph_task", Input: fmt.Appendf(nil, `{"graph_id": "tested", "title": "number %d"}`, i),
		})
		if err != nil {
			s.tb.Fatal(err)
		}
		ids[i] = run.ID
	}
	asked := errors.New("asked")
	for _, id := range ids {
		ctx, cancel := context.WithTimeout(s.tb.Context(), patience)
		err := s.WatchRun(ctx, "default", id, 0, engine.User, func(events []engine.Event, _ uint64) error {
			for _, event := range events {
				if event.Type == "run.interrupted" {
					return asked
				}
			}
			return nil
		})
		cancel()
		if !errors.Is(err, asked) {
			s.tb.Fatal(err)
		}
	}
}

// usage is what the process holds.
type usage struct{ goroutines, bytes int }

func measureUsage() usage {
	// Twice: what the first finds unused, pools hold until the second.
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return usage{runtime.NumGoroutine(), int(stats.HeapAlloc)}
}

// started is what starting a runtime adds to its journal alone, which has its index by then.
func started(tb testing.TB, dir string) usage {
	tb.Helper()
	s := openJournal(tb, dir)
	defer s.end()
	before := measureUsage()
	s.begin()
	after := measureUsage()
	return usage{after.goroutines - before.goroutines, after.bytes - before.bytes}
}

// TestWaitingRunsHoldNoGoroutine has runs wait for people, in the process that parked them
// and in the next one. Nothing else may run meanwhile.
//
//nolint:paralleltest // it counts what the process holds
func TestWaitingRunsHoldNoGoroutine(t *testing.T) {
	dir := t.TempDir()
	s := openJournal(t, dir)
	s.begin()
	const runs = 200
	s.park(1)
	before := measureUsage()
	s.park(runs)
	// A watcher that has gone, and timers, may come and go meanwhile.
	const others = 10
	if more := measureUsage().goroutines - before.goroutines; more > others {
		t.Errorf("%d more goroutines for %d waiting runs", more, runs)
	}
	s.end()
	empty := started(t, t.TempDir())
	if more := started(t, dir).goroutines - empty.goroutines; more > others {
		t.Errorf("after a restart, %d more goroutines for %d waiting runs", more, runs)
	}
}

// BenchmarkWaitingRuns measures what 1,000 runs that wait for people hold in a runtime
// that was started since, beyond the journal's index and the runtime itself.
func BenchmarkWaitingRuns(b *testing.B) {
	const runs = 1000
	dir := b.TempDir()
	s := openJournal(b, dir)
	s.begin()
	s.park(runs)
	s.end()
	// The first start of a process also makes what is made once.
	started(b, b.TempDir())
	for b.Loop() {
		empty, full := started(b, b.TempDir()), started(b, dir)
		b.ReportMetric(float64(full.bytes-empty.bytes)/runs, "B/run")
		b.ReportMetric(float64(full.goroutines-empty.goroutines)/runs, "goroutines/run")
	}
}
