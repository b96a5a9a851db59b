package schedule

import (
	"context"
	"log/slog"
	"maps"
	"testing"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// echoes is a registry in which every task returns its input.
type echoes struct{}

func (echoes) Resolve(string, engine.Target, string, string, []byte) (engine.Task, error) {
	return func(_ context.Context, call engine.Call) ([]byte, error) { return call.Input, nil }, nil
}

func (echoes) CheckMetadata(engine.Target, string, string, []byte) error { return nil }

func (echoes) ConcurrencyKey(engine.Target, string, []byte) string { return "" }

func (echoes) Defaults(string, engine.Target, string) engine.RunDefaults { return engine.RunDefaults{} }

// system is an engine on a journal of its own, which creates the runs of stores.
type system struct {
	*engine.Engine

	t       *testing.T
	journal *journal.Journal
	clock   *clock
	// before and after are called of each run that is created: the latter once it is
	// durable, with whether it was not there before.
	before func(context.Context)
	after  func(isNew bool)
}

func newSystem(t *testing.T, dir, now string) *system {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	j, err := journal.New(journal.Config{DataDir: dir, Durability: journal.OS}, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(engine.Config{}, j, echoes{}, log)
	if err != nil {
		t.Fatal(err)
	}
	s := &system{
		Engine: e, t: t, journal: j, clock: &clock{now: at(t, now)},
		before: func(context.Context) {}, after: func(bool) {},
	}
	t.Cleanup(s.crash)
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// crash ends the system as a kill does: nothing more reaches the journal.
func (s *system) crash() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.journal.Stop(context.Background())
	_ = s.Stop(now)
}

func (s *system) CreateRun(ctx context.Context, namespace string, r engine.CreateRequest) (engine.Run, bool, error) {
	s.before(ctx)
	run, isNew, err := s.Engine.CreateRun(ctx, namespace, r)
	if err != nil {
		return run, isNew, err
	}
	s.after(isNew)
	return run, isNew, nil
}

// store returns one that is not started.
func (s *system) store() *store {
	opened := &store{Store: New(s.journal, s, s.clock.Now, slog.New(slog.DiscardHandler)), clock: s.clock}
	s.t.Cleanup(func() { _ = opened.Stop(context.Background()) })
	return opened
}

// start returns one that is.
func (s *system) start() *store {
	s.t.Helper()
	opened := s.store()
	if err := opened.Start(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return opened
}

// runsOf returns the runs of a schedule, which have ended.
func (s *system) runsOf(id string) []engine.Run {
	s.t.Helper()
	found, _, err := s.ListRuns(s.t.Context(), "default", engine.ListRequest{ScheduleID: id, PageSize: 100})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, run := range found {
		if ended, err := s.WaitRun(s.t.Context(), "default", run.ID, 0); err != nil || ended.State != engine.Succeeded {
			s.t.Errorf("run %s is %s: %v", run.ID, ended.State, err)
		}
	}
	return found
}

// TestTwoStoresCreateOneRunForATime has them come to the engine at once, each time.
// Of a journal each stream is opened once: the second store has the first's.
func TestTwoStoresCreateOneRunForATime(t *testing.T) {
	t.Parallel()
	s := newSystem(t, t.TempDir(), "2026-01-01T00:00:30Z")
	meeting, created := make(chan struct{}), make(chan bool, 2)
	s.before = func(ctx context.Context) {
		select {
		case meeting <- struct{}{}:
		case <-meeting:
		case <-ctx.Done():
		}
	}
	s.after = func(isNew bool) { created <- isNew }
	first, second := s.start(), s.store()
	first.create(t, Schedule{ID: "often", Cron: "* * * * *"})
	second.stream, second.byName = first.stream, maps.Clone(first.byName)
	second.running.Go(second.run)
	const times = 20
	for minute := range times {
		due := at(t, "2026-01-01T00:01:00Z").Add(time.Duration(minute) * time.Minute)
		s.clock.set(due)
		first.wake()
		second.wake()
		if a, b := <-created, <-created; a == b {
			t.Fatalf("both stores hear of the run of %s that it is new: %t", due, a)
		}
		first.settle()
		second.settle()
		one, other := first.only(t), second.only(t)
		if one.LastRunID != other.LastRunID || !one.LastTime.Equal(due) || !other.LastTime.Equal(due) {
			t.Fatalf("at %s: %+v and %+v", due, one, other)
		}
	}
	if got := len(s.runsOf("often")); got != times {
		t.Errorf("%d runs for %d times", got, times)
	}
}

// TestTimeWhoseRunWasCreatedAsTheRuntimeDiedHasNoOther has the run be kept, and not
// that its time has had one.
func TestTimeWhoseRunWasCreatedAsTheRuntimeDiedHasNoOther(t *testing.T) {
	t.Parallel()
	dir, died := t.TempDir(), make(chan struct{})
	dying := newSystem(t, dir, "2026-01-01T00:00:30Z")
	dying.after = func(isNew bool) {
		if isNew {
			_ = dying.journal.Stop(context.Background())
			close(died)
		}
	}
	opened := dying.start()
	opened.create(t, Schedule{ID: "often", Cron: "* * * * *"})
	dying.clock.set(at(t, "2026-01-01T00:01:30Z"))
	opened.wake()
	<-died
	_ = opened.Stop(t.Context())
	if got := opened.only(t); !got.LastTime.IsZero() {
		t.Fatalf("schedule %+v", got)
	}
	dying.crash()

	s, created := newSystem(t, dir, "2026-01-01T00:01:40Z"), make(chan bool, 1)
	s.after = func(isNew bool) { created <- isNew }
	opened = s.start()
	if <-created {
		t.Error("the time has another run")
	}
	opened.settle()
	runs := s.runsOf("often")
	if got := opened.only(t); len(runs) != 1 || got.LastRunID != runs[0].ID || !got.LastTime.Equal(at(t, "2026-01-01T00:01:00Z")) {
		t.Errorf("%d runs, schedule %+v", len(runs), got)
	}
}
