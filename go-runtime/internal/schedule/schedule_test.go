package schedule

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// runs stands for the engine: it joins what has the same id, as the engine does.
type runs struct {
	mu      sync.Mutex
	refuse  error
	created []engine.CreateRequest
	ids     map[string]bool
	some    chan struct{}
	// blocks, unless it is nil, is told of each run that is tried, which waits for its context.
	blocks chan struct{}
}

func newRuns() *runs { return &runs{ids: map[string]bool{}, some: make(chan struct{}, 1000)} }

func (r *runs) CheckRun(_ string, request engine.CreateRequest) error {
	if request.TaskType == "" {
		return violation.New("task_type", "is required")
	}
	return nil
}

func (r *runs) CreateRun(ctx context.Context, _ string, request engine.CreateRequest) (engine.Run, bool, error) {
	if r.blocks != nil {
		r.blocks <- struct{}{}
		<-ctx.Done()
		return engine.Run{}, false, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.some <- struct{}{} }()
	if r.refuse != nil {
		return engine.Run{}, false, r.refuse
	}
	fresh := !r.ids[request.RunID]
	if fresh {
		r.ids[request.RunID] = true
		r.created = append(r.created, request)
	}
	return engine.Run{ID: request.RunID}, fresh, nil
}

func (r *runs) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.created)
}

// clock is a wall clock that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// store is a store on a journal of its own. wake has it look at the clock.
type store struct {
	*Store

	runs  *runs
	clock *clock
	close func()
}

func (s *store) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func open(t *testing.T, dir string, now string, r *runs) *store {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	j, err := journal.New(journal.Config{DataDir: dir, Durability: journal.OS}, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := &clock{now: at(t, now)}
	s := New(j, r, c.Now, log)
	opened := &store{Store: s, runs: r, clock: c}
	opened.close = sync.OnceFunc(func() {
		_ = s.Stop(context.Background())
		_ = j.Stop(context.Background())
	})
	t.Cleanup(opened.close)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return opened
}

func (s *store) create(t *testing.T, schedule Schedule) Schedule {
	t.Helper()
	schedule.Namespace = "default"
	if schedule.Run.TaskType == "" {
		schedule.Run.TaskType = "report"
	}
	created, err := s.Create(t.Context(), schedule, false)
	if err != nil {
		t.Fatal(err)
	}
	return created
}

func (s *store) only(t *testing.T) Schedule {
	t.Helper()
	all := s.List("default")
	if len(all) != 1 {
		t.Fatalf("schedules %+v", all)
	}
	return all[0]
}

// settle waits until what the latest run changed is kept.
func (s *store) settle() {
	s.changes.Lock()
	defer s.changes.Unlock()
}

func TestScheduleCreatesARunAtEachTime(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), "2026-03-28T23:59:00Z", newRuns())
	created := s.create(t, Schedule{ID: "nightly", Cron: "30 2 * * *", TimeZone: "Europe/Berlin", Run: engine.CreateRequest{Input: []byte(`{"n":1}`)}})
	// That night 02:30 does not exist in Berlin: the next is a day later.
	if want := at(t, "2026-03-30T00:30:00Z"); !created.NextTime.Equal(want) {
		t.Fatalf("next %s, want %s", created.NextTime, want)
	}
	s.clock.set(at(t, "2026-03-30T00:30:01Z"))
	s.wake()
	<-s.runs.some
	s.settle()
	got := s.only(t)
	if s.runs.count() != 1 || got.LastRunID != s.runs.created[0].RunID || !got.LastTime.Equal(at(t, "2026-03-30T00:30:00Z")) ||
		!got.NextTime.Equal(at(t, "2026-03-31T00:30:00Z")) {
		t.Fatalf("schedule %+v", got)
	}
	if r := s.runs.created[0]; string(r.Input) != `{"n":1}` || r.Options.ScheduleID != "nightly" {
		t.Fatalf("request %+v", r)
	}
	// The clock goes back over the time: it has had its run.
	s.clock.set(at(t, "2026-03-30T00:29:00Z"))
	s.wake()
	s.clock.set(at(t, "2026-03-30T00:31:00Z"))
	s.wake()
	s.create(t, Schedule{ID: "later", Cron: "@yearly"})
	s.settle()
	if s.runs.count() != 1 {
		t.Fatalf("%d runs", s.runs.count())
	}
}

func TestOnlyTheLatestMissedTimeHasItsRun(t *testing.T) {
	t.Parallel()
	dir, r := t.TempDir(), newRuns()
	s := open(t, dir, "2026-01-01T00:00:30Z", r)
	s.create(t, Schedule{ID: "often", Cron: "* * * * *"})
	s.close()
	s = open(t, dir, "2026-01-09T10:00:30Z", r)
	<-r.some
	s.settle()
	if got := s.only(t); r.count() != 1 || !got.LastTime.Equal(at(t, "2026-01-09T10:00:00Z")) {
		t.Fatalf("%d runs, schedule %+v", r.count(), got)
	}
}

func TestPausedSchedule(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), "2026-01-01T00:00:30Z", newRuns())
	s.create(t, Schedule{ID: "often", Cron: "* * * * *"})
	if paused, err := s.Pause(t.Context(), "default", "often", true); err != nil || !paused.NextTime.IsZero() {
		t.Fatalf("%+v, %v", paused, err)
	}
	s.clock.set(at(t, "2026-01-01T05:00:30Z"))
	s.wake()
	resumed, err := s.Pause(t.Context(), "default", "often", false)
	if err != nil || !resumed.NextTime.Equal(at(t, "2026-01-01T05:01:00Z")) {
		t.Fatalf("%+v, %v", resumed, err)
	}
	s.settle()
	if s.runs.count() != 0 {
		t.Fatal("a time that passed during the pause had its run")
	}
	run, err := s.Trigger(t.Context(), "default", "often", "once")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Trigger(t.Context(), "default", "often", "once"); err != nil || again.ID != run.ID || s.runs.count() != 1 {
		t.Fatalf("%s of %s, %v", again.ID, run.ID, err)
	}
}

func TestSchedulesSurviveARestart(t *testing.T) {
	t.Parallel()
	dir, r := t.TempDir(), newRuns()
	s := open(t, dir, "2026-01-01T00:00:30Z", r)
	want := s.create(t, Schedule{ID: "a schedule * of >", Cron: "@every 90s", Run: engine.CreateRequest{TaskType: "x", Options: engine.Options{Priority: 3}}})
	s.create(t, Schedule{ID: "gone", Cron: "@daily"})
	if err := s.Delete(t.Context(), "default", "gone"); err != nil {
		t.Fatal(err)
	}
	s.close()
	s = open(t, dir, "2026-01-01T00:00:40Z", r)
	got := s.only(t)
	if got.ID != want.ID || !got.NextTime.Equal(want.NextTime) || got.Run.Options.Priority != 3 {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	var missing *NotFoundError
	if err := s.Delete(t.Context(), "default", "gone"); !errors.As(err, &missing) {
		t.Fatalf("err = %v", err)
	}
}

func TestScheduleRefuses(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), "2026-01-01T00:00:30Z", newRuns())
	s.create(t, Schedule{ID: "there", Cron: "@daily"})
	for what, bad := range map[string]Schedule{
		"no id":     {Cron: "@daily"},
		"no cron":   {ID: "x"},
		"bad cron":  {ID: "x", Cron: "61 * * * *"},
		"never":     {ID: "x", Cron: "0 0 30 2 *"},
		"zone":      {ID: "x", Cron: "@daily", TimeZone: "Mars/Olympus"},
		"cron zone": {ID: "x", Cron: "CRON_TZ=UTC 0 0 * * *"},
		"run id":    {ID: "x", Cron: "@daily", Run: engine.CreateRequest{TaskType: "x", RunID: "y"}},
	} {
		if bad.Run.TaskType == "" {
			bad.Run.TaskType = "x"
		}
		if _, err := s.Create(t.Context(), bad, false); !errors.As(err, new(*violation.Error)) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.Create(t.Context(), Schedule{ID: "x", Cron: "@daily"}, false); err == nil {
		t.Error("a run without a task was accepted")
	}
	again := Schedule{ID: "there", Cron: "@hourly", Namespace: "default", Run: engine.CreateRequest{TaskType: "x"}}
	if _, err := s.Create(t.Context(), again, false); !errors.As(err, new(*ExistsError)) {
		t.Errorf("err = %v", err)
	}
	if replaced, err := s.Create(t.Context(), again, true); err != nil || replaced.Cron != "@hourly" {
		t.Errorf("%+v, %v", replaced, err)
	}
}

// TestRunThatIsTriedAgainIsSaid has the agent of a schedule be unknown for a while.
func TestRunThatIsTriedAgainIsSaid(t *testing.T) {
	t.Parallel()
	r := newRuns()
	s := open(t, t.TempDir(), "2026-01-01T00:00:30Z", r)
	s.create(t, Schedule{ID: "often", Cron: "* * * * *"})
	r.mu.Lock()
	r.refuse = errors.New("no agent is called that")
	r.mu.Unlock()
	s.clock.set(at(t, "2026-01-01T00:01:30Z"))
	s.wake()
	<-r.some
	s.settle()
	if got := s.only(t); got.LastError != "no agent is called that" || !got.LastTime.IsZero() {
		t.Fatalf("schedule %+v", got)
	}
	r.mu.Lock()
	r.refuse = nil
	r.mu.Unlock()
	for r.count() == 0 {
		s.wake()
		<-r.some
	}
	s.settle()
	if got := s.only(t); got.LastError != "" || !got.LastTime.Equal(at(t, "2026-01-01T00:01:00Z")) {
		t.Fatalf("schedule %+v", got)
	}
}

func TestRefusedRunIsSaid(t *testing.T) {
	t.Parallel()
	r := newRuns()
	s := open(t, t.TempDir(), "2026-01-01T00:00:30Z", r)
	s.create(t, Schedule{ID: "often", Cron: "* * * * *"})
	r.mu.Lock()
	r.refuse = &engine.ConcurrencyLimitError{Key: "k", Limit: 1}
	r.mu.Unlock()
	s.clock.set(at(t, "2026-01-01T00:01:30Z"))
	s.wake()
	<-r.some
	s.settle()
	if got := s.only(t); got.LastError == "" || !got.LastTime.Equal(at(t, "2026-01-01T00:01:00Z")) || got.LastRunID != "" {
		t.Fatalf("schedule %+v", got)
	}
}

// TestTimeThatComesTwiceCountsOnce has the clock be put back at night.
func TestTimeThatComesTwiceCountsOnce(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		cron, zone, after string
		want              []string
	}{
		"nightly":      {"30 2 * * *", "Europe/Berlin", "2026-10-24T22:00:00Z", []string{"2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}},
		"some hours":   {"0 1,2,3 * * *", "Europe/Berlin", "2026-10-24T22:00:00Z", []string{"2026-10-24T23:00:00Z", "2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z"}},
		"half an hour": {"45 1 * * *", "Australia/Lord_Howe", "2026-04-04T10:00:00Z", []string{"2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"}},
		"each hour":    {"30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", []string{"2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"}},
		"an interval":  {"@every 1h", "Europe/Berlin", "2026-10-25T00:00:00Z", []string{"2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table, err := parse(&Schedule{Cron: tc.cron, TimeZone: tc.zone})
			if err != nil {
				t.Fatal(err)
			}
			next := at(t, tc.after)
			for _, want := range tc.want {
				if next = table.next(next); !next.Equal(at(t, want)) {
					t.Fatalf("next is %s, want %s", next.Format(time.RFC3339), want)
				}
			}
		})
	}
}

// TestSevenIsSunday has the times of a week, from Wednesday to Tuesday, show the days.
func TestSevenIsSunday(t *testing.T) {
	t.Parallel()
	for weekdays, want := range map[string]string{
		"7": "Sun", "1,7": "Sun Mon", "7,1": "Sun Mon", "5-7": "Fri Sat Sun", "fri-7,2": "Fri Sat Sun Tue", "7-7": "Sun",
		"0-7": "Wed Thu Fri Sat Sun Mon Tue", "1-7/2": "Wed Fri Sun Mon", "2-7/2": "Thu Sat Tue", "5-7/9": "Fri",
		"sun": "Sun", "5-6": "Fri Sat", "*/7": "Sun", "5/2": "Fri",
	} {
		table, err := parse(&Schedule{Cron: "30 4 *  * " + weekdays, TimeZone: "Europe/Berlin"})
		if err != nil {
			t.Errorf("%s: %v", weekdays, err)
			continue
		}
		var days []string
		next := at(t, "2026-06-03T00:00:00Z")
		for next = table.next(next); next.Before(at(t, "2026-06-10T00:00:00Z")); next = table.next(next) {
			days = append(days, next.Format("Mon"))
		}
		if got := strings.Join(days, " "); got != want {
			t.Errorf("%s is %s, want %s", weekdays, got, want)
		}
	}
}

func TestWhatIsNoCronExpressionIsSaid(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), "2026-01-01T00:00:30Z", newRuns())
	for expression, want := range map[string]string{
		"0 0 L * *": "from L", "0 0 * * 5#2": "from 5#2", "0 0 * *": "found 4: [0 0 * *]", "61 * * * *": "above maximum (59): 61",
		"0 0 * * 8": ": 8", "0 0 * * 7-5": ": 7-5", "0 0 * * 8-7": ": 8-7", "0 0 * * 1-7/0": ": 1-7/0", "0 0 * * -7": "from ",
		"0 0 7 7-13 *": ": 7-13", "@noon": "@noon", "@every soon": "invalid duration",
	} {
		schedule := Schedule{Namespace: "default", ID: "x", Cron: expression, Run: engine.CreateRequest{TaskType: "x"}}
		_, err := s.Create(t.Context(), schedule, false)
		if !errors.As(err, new(*violation.Error)) || !strings.HasPrefix(err.Error(), "schedule.cron: must be five fields, minute hour") ||
			!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "strconv") {
			t.Errorf("%s: %v", expression, err)
		}
	}
	for _, interval := range []string{"0s", "1ms", "-1h"} {
		schedule := Schedule{Namespace: "default", ID: "x", Cron: "@every " + interval, Run: engine.CreateRequest{TaskType: "x"}}
		_, err := s.Create(t.Context(), schedule, false)
		if !errors.As(err, new(*violation.Error)) || err.Error() != "schedule.cron: must be at least @every 1s" {
			t.Errorf("%s: %v", interval, err)
		}
	}
	s.create(t, Schedule{ID: "x", Cron: "@every 1s"})
}

// TestKeptScheduleGoesOnThoughANewOneIsRefused has an interval that is too short in a record.
func TestKeptScheduleGoesOnThoughANewOneIsRefused(t *testing.T) {
	t.Parallel()
	k, err := decode(journal.Record{Data: []byte(`{"cron":"@every 1ms"}`)}, name{"default", "often"})
	if err != nil || k.schedule.Cron != "@every 1ms" {
		t.Errorf("%+v, %v", k, err)
	}
}

// TestScheduleOfAFullStoreCanBeStopped has the store take nothing more that is new.
func TestScheduleOfAFullStoreCanBeStopped(t *testing.T) {
	t.Parallel()
	j, err := journal.New(journal.Config{DataDir: t.TempDir(), Durability: journal.OS, MaxStoreBytes: 16 << 20}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := New(j, newRuns(), nil, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		_ = s.Stop(context.Background())
		_ = j.Stop(context.Background())
	})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	schedule := Schedule{Namespace: "default", ID: "often", Cron: "@yearly", Run: engine.CreateRequest{TaskType: "report"}}
	if _, err := s.Create(t.Context(), schedule, false); err != nil {
		t.Fatal(err)
	}
	other, err := j.OpenStream(t.Context(), journal.StreamConfig{Name: "OTHER", Subjects: []string{"other"}})
	if err != nil {
		t.Fatal(err)
	}
	for size := 256 << 10; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = other.Append(t.Context(), journal.Message{Subject: "other", Data: make([]byte, size)})
		}
		if !errors.Is(err, journal.ErrNoSpace) {
			t.Fatal(err)
		}
	}
	second := schedule
	second.ID = "second"
	if _, err := s.Create(t.Context(), second, false); !errors.Is(err, journal.ErrNoSpace) {
		t.Errorf("another schedule: %v", err)
	}
	if _, err := s.Pause(t.Context(), "default", "often", true); err != nil {
		t.Errorf("pause: %v", err)
	}
	if err := s.Delete(t.Context(), "default", "often"); err != nil {
		t.Errorf("delete: %v", err)
	}
}

// TestStopCreatesNoMoreRuns has several be due, and the first take its time.
func TestStopCreatesNoMoreRuns(t *testing.T) {
	t.Parallel()
	r := newRuns()
	r.blocks = make(chan struct{}, 10)
	s := open(t, t.TempDir(), "2026-01-01T00:00:30Z", r)
	for _, id := range []string{"a", "b", "c"} {
		s.create(t, Schedule{ID: id, Cron: "* * * * *"})
	}
	s.clock.set(at(t, "2026-01-01T00:01:30Z"))
	s.wake()
	<-r.blocks
	s.close()
	if len(r.blocks) > 0 {
		t.Errorf("%d more runs were tried", len(r.blocks))
	}
}

// TestStopOfAnIdleStoreIsNoFailure has nothing be created when whoever waits has no time left.
func TestStopOfAnIdleStoreIsNoFailure(t *testing.T) {
	t.Parallel()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		s := open(t, t.TempDir(), "2026-01-01T00:00:30Z", newRuns())
		if err := s.Stop(over); err != nil {
			t.Fatal(err)
		}
		s.close()
	}
}
