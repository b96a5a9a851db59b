package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tasks is a Registry of plain functions by task type.
type tasks map[string]Task

var errNoSuchTask = errors.New("no such task")

func (t tasks) Resolve(_ string, _ Target, _, taskType string, _ []byte) (Task, error) {
	if task := t[taskType]; task != nil {
		return task, nil
	}
	return nil, errNoSuchTask
}

func (tasks) CheckMetadata(Target, string, string, []byte) error { return nil }

func (tasks) ConcurrencyKey(Target, string, []byte) string { return "" }

func (t tasks) Defaults(string, Target, string) RunDefaults { return RunDefaults{} }

// agents is a Registry of plain functions by task type, with what holds for the runs of each agent.
type agents struct {
	tasks

	defaults map[string]RunDefaults
}

func (a agents) Defaults(_ string, _ Target, agentID string) RunDefaults { return a.defaults[agentID] }

// gate is a task that says when it has begun and returns when it is let go.
type gate struct {
	begun chan Call
	open  chan struct{}
}

func newGate() *gate { return &gate{begun: make(chan Call, 100), open: make(chan struct{})} }

func (g *gate) run(ctx context.Context, call Call) ([]byte, error) {
	g.begun <- call
	select {
	case <-g.open:
		return []byte(`{"passed":true}`), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func echo(_ context.Context, call Call) ([]byte, error) { return call.Input, nil }

func isNotFound(err error) bool {
	var notFound *RunNotFoundError
	return errors.As(err, &notFound)
}

// bundle is an engine on a journal of its own.
type bundle struct {
	*Engine

	t       *testing.T
	dir     string
	journal *journal.Journal
}

func openEngine(t *testing.T, dir string, cfg Config, registry Registry) *bundle {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	j, err := journal.New(journal.Config{DataDir: dir, Durability: journal.Fsync}, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	e, err := New(cfg, j, registry, log)
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle{Engine: e, t: t, dir: dir, journal: j}
	t.Cleanup(b.crash)
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

func setup(t *testing.T, cfg Config, registry Registry) *bundle {
	t.Helper()
	return openEngine(t, t.TempDir(), cfg, registry)
}

// stop ends the engine as SIGTERM does, with the given time to drain.
func (b *bundle) stop(drain time.Duration) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	if err := b.Stop(ctx); err != nil {
		b.t.Error(err)
	}
	b.crash()
}

// crash ends the engine as a kill does: nothing more reaches the journal.
func (b *bundle) crash() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.journal.Stop(context.Background()); err != nil {
		b.t.Error(err)
	}
	if err := b.Stop(ctx); err != nil {
		b.t.Error(err)
	}
}

func (b *bundle) create(r CreateRequest) Run {
	b.t.Helper()
	run, _, err := b.CreateRun(b.t.Context(), "default", r)
	if err != nil {
		b.t.Fatalf("CreateRun of %s: %v", r.TaskType, err)
	}
	return run
}

func (b *bundle) wait(runID string) Run {
	b.t.Helper()
	run, err := b.WaitRun(b.t.Context(), "default", runID, 0)
	if err != nil {
		b.t.Fatalf("WaitRun(%s): %v", runID, err)
	}
	return run
}

func (b *bundle) wantEnd(runID string, state State, reason Reason) Run {
	b.t.Helper()
	run := b.wait(runID)
	if run.State != state || run.Error == nil || run.Error.Reason != reason {
		b.t.Fatalf("run ended as %s with %+v, want %s with %s", run.State, run.Error, state, reason)
	}
	if run.EndedAt.IsZero() || len(run.Output) > 0 {
		b.t.Errorf("ended at %v with output %q", run.EndedAt, run.Output)
	}
	return run
}

func TestCreateRunWaits(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{"echo": echo})
	in := `{"n": 9223372036854775807, "f": -0.0, "s": "🐍"}`
	run := b.create(CreateRequest{TaskType: "echo", AgentID: "label", Input: []byte(in), Metadata: []byte(`{"a":1}`), Wait: true})
	if run.State != Succeeded || string(run.Output) != in || string(run.Input) != in {
		t.Fatalf("run = %+v", run)
	}
	if run.Attempt != 1 || run.Target != TaskTarget || run.StartedAt.Before(run.CreatedAt) || run.EndedAt.Before(run.StartedAt) {
		t.Errorf("run = %+v", run)
	}
	again, err := b.GetRun(t.Context(), "default", run.ID)
	if err != nil || string(again.Output) != in || again.Sequence != run.Sequence {
		t.Errorf("GetRun = %+v, %v", again, err)
	}
	if _, err := b.GetRun(t.Context(), "other", run.ID); !isNotFound(err) {
		t.Errorf("another namespace sees the run: %v", err)
	}
}

func TestCreateRunRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{MaxInputBytes: 100}, tasks{"echo": echo})
	long := strings.Repeat("x", 2000)
	for name, tc := range map[string]struct {
		request CreateRequest
		field   string
	}{
		"no task type":       {CreateRequest{}, "task_type"},
		"input not JSON":     {CreateRequest{TaskType: "echo", Input: []byte(`{`)}, "input"},
		"input no object":    {CreateRequest{TaskType: "echo", Input: []byte(`[1]`)}, "input"},
		"metadata no object": {CreateRequest{TaskType: "echo", Metadata: []byte(`1`)}, "metadata"},
		"agent without id":   {CreateRequest{TaskType: "echo", Target: AgentTarget}, "agent_id"},
		"run id no UUID":     {CreateRequest{TaskType: "echo", RunID: "run-1"}, "run_id"},
		"negative deadline":  {CreateRequest{TaskType: "echo", Deadline: -1}, "deadline"},
		"negative timeout":   {CreateRequest{TaskType: "echo", RunTimeout: -1}, "run_timeout"},
		"long description":   {CreateRequest{TaskType: "echo", Description: long}, "description"},
		"broken UTF-8":       {CreateRequest{TaskType: "echo", AgentID: "\xff"}, "agent_id"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := b.CreateRun(t.Context(), "default", tc.request)
			var refused *violation.Error
			if !errors.As(err, &refused) || refused.Violations[0].Field != tc.field {
				t.Errorf("err = %v, want a violation of %s", err, tc.field)
			}
		})
	}
	t.Run("input too large", func(t *testing.T) {
		t.Parallel()
		_, _, err := b.CreateRun(t.Context(), "default", CreateRequest{TaskType: "echo", Input: fmt.Appendf(nil, `{"x":%q}`, long)})
		var large *violation.TooLargeError
		if !errors.As(err, &large) || large.Field != "input" || large.Limit != 100 {
			t.Errorf("err = %v", err)
		}
	})
	t.Run("unknown task type", func(t *testing.T) {
		t.Parallel()
		if _, _, err := b.CreateRun(t.Context(), "default", CreateRequest{TaskType: "nope"}); !errors.Is(err, errNoSuchTask) {
			t.Errorf("err = %v", err)
		}
	})
}

func TestRepeatedCallsJoinOneRun(t *testing.T) {
	t.Parallel()
	var executed atomic.Int32
	b := setup(t, Config{}, tasks{"count": func(context.Context, Call) ([]byte, error) {
		executed.Add(1)
		return []byte(`{}`), nil
	}})
	for _, r := range []CreateRequest{
		{RequestID: "request"},
		{IdempotencyKey: "key", RequestID: "ignored"},
		{RunID: "0F0E8A9C-3B1D-4C57-9E57-5B1C2A5F0E11"},
	} {
		executed.Store(0)
		r.TaskType, r.Wait = "count", true
		ids := make([]string, 50)
		var created atomic.Int32
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				run, isNew, err := b.CreateRun(t.Context(), "default", r)
				if err != nil {
					t.Error(err)
				}
				if isNew {
					created.Add(1)
				}
				ids[i] = run.ID
			})
		}
		wg.Wait()
		for _, id := range ids {
			if id != ids[0] {
				t.Fatalf("runs %s and %s for one request", id, ids[0])
			}
		}
		if executed.Load() != 1 || created.Load() != 1 {
			t.Errorf("%+v: executed %d times, created %d times", r, executed.Load(), created.Load())
		}
		r.Input = []byte(`{"other":true}`)
		var conflict *ConflictError
		if _, _, err := b.CreateRun(t.Context(), "default", r); !errors.As(err, &conflict) || conflict.RunID != ids[0] {
			t.Errorf("another payload under the same id: %v", err)
		}
	}
	other, _, err := b.CreateRun(t.Context(), "other", CreateRequest{TaskType: "count", RequestID: "request"})
	mine := b.create(CreateRequest{TaskType: "count", RequestID: "request"})
	if err != nil || other.ID == mine.ID {
		t.Errorf("two namespaces share run %s (%v)", other.ID, err)
	}
}

// Calls that come at once make one run, which is begun once: none of them takes
// up what another has just appended as if a dead process had left it.
func TestCallsAtOnceMakeOneRun(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{"echo": echo})
	for round := range 200 {
		var made atomic.Int32
		var calls sync.WaitGroup
		for range 8 {
			calls.Go(func() {
				run, created, err := b.CreateRun(t.Context(), "default", CreateRequest{
					TaskType: "echo", IdempotencyKey: strconv.Itoa(round), Wait: true,
				})
				if err != nil || run.State != Succeeded || run.Attempt != 1 {
					t.Errorf("run %s is %s in attempt %d: %v", run.ID, run.State, run.Attempt, err)
				}
				if created {
					made.Add(1)
				}
			})
		}
		calls.Wait()
		if made.Load() != 1 {
			t.Errorf("%d calls made the run", made.Load())
		}
	}
}

func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	g := newGate()
	b := setup(t, Config{MaxConcurrent: 1, MaxQueued: 2}, tasks{"gate": g.run})
	first := b.create(CreateRequest{TaskType: "gate"})
	<-g.begun
	// The dispatcher holds no run while no place is free, so two more fit.
	second := b.create(CreateRequest{TaskType: "gate"})
	third := b.create(CreateRequest{TaskType: "gate"})
	var full *QueueFullError
	if _, _, err := b.CreateRun(t.Context(), "default", CreateRequest{TaskType: "gate"}); !errors.As(err, &full) || full.RetryAfter <= 0 {
		t.Fatalf("err = %v, want a full queue", err)
	}
	if stats := b.Stats(); stats.Queued != 2 || stats.States[Running] != 1 {
		t.Errorf("stats = %+v", stats)
	}
	close(g.open)
	for _, run := range []Run{first, second, third} {
		if got := b.wait(run.ID); got.State != Succeeded {
			t.Errorf("run = %+v", got)
		}
	}
	b.create(CreateRequest{TaskType: "gate", Wait: true})
}

func TestNoNamespaceFillsTheQueueForOthers(t *testing.T) {
	t.Parallel()
	g := newGate()
	const limit = 80
	b := setup(t, Config{MaxConcurrent: 1, MaxQueued: limit}, tasks{"gate": g.run})
	b.create(CreateRequest{TaskType: "gate"})
	<-g.begun
	queued := map[string]int{}
	// fill queues up to so many runs of a namespace, until one is refused.
	fill := func(namespace string, most int) {
		for range most {
			_, _, err := b.CreateRun(t.Context(), namespace, CreateRequest{TaskType: "gate"})
			if errors.As(err, new(*QueueFullError)) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
			queued[namespace]++
		}
	}
	fill("default", 2*limit)
	if queued["default"] != limit {
		t.Errorf("%d runs wait of a namespace that is alone, want %d", queued["default"], limit)
	}
	fill("small", 3)
	fill("large", 2*limit)
	fill("late", 1)
	if queued["small"] != 3 || queued["large"] == 0 || queued["late"] != 1 {
		t.Errorf("queued %v", queued)
	}
	// Those that would fill the queue come to have as much of it.
	for range limit {
		run, _, err := b.ListRuns(t.Context(), "default", ListRequest{PageSize: 1, States: []State{Queued}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.CancelRun(t.Context(), "default", run[0].ID, ""); err != nil {
			t.Fatal(err)
		}
		queued["default"]--
		fill("large", 1)
		fill("default", 1)
	}
	if difference := queued["default"] - queued["large"]; difference < -limit/8 || difference > limit/8 {
		t.Errorf("queued %v", queued)
	}
	fill("latest", 1)
	if queued["latest"] != 1 {
		t.Error("a namespace with no runs is refused")
	}
}

func TestHowRunsFail(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{MaxInputBytes: 1000}, tasks{
		"error": func(context.Context, Call) ([]byte, error) { return nil, errors.New("no luck") },
		"task error": func(context.Context, Call) ([]byte, error) {
			return nil, &TaskError{Reason: ReasonModelFailed, Message: "the model is away", Retryable: true, Cause: errors.New("secret")}
		},
		"panic":     func(context.Context, Call) ([]byte, error) { panic("boom") },
		"no JSON":   func(context.Context, Call) ([]byte, error) { return []byte("done"), nil },
		"no object": func(context.Context, Call) ([]byte, error) { return []byte("[]"), nil },
		"huge":      func(context.Context, Call) ([]byte, error) { return make([]byte, 2000), nil },
		"hang":      func(ctx context.Context, _ Call) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() },
	})
	for taskType, want := range map[string]struct {
		state  State
		reason Reason
	}{
		"error":      {Failed, ReasonAgentFailed},
		"task error": {Failed, ReasonModelFailed},
		"panic":      {Failed, ReasonAgentPanicked},
		"no JSON":    {Failed, ReasonAgentFailed},
		"no object":  {Failed, ReasonAgentFailed},
		"huge":       {Failed, ReasonAgentFailed},
		"hang":       {TimedOut, ReasonTimedOut},
	} {
		t.Run(taskType, func(t *testing.T) {
			t.Parallel()
			b := *b
			b.t = t
			request := CreateRequest{TaskType: taskType, Options: Options{Retry: fast(1)}}
			if taskType == "hang" {
				request.RunTimeout = 100 * time.Millisecond
			}
			run := b.create(request)
			run = b.wantEnd(run.ID, want.state, want.reason)
			if taskType == "task error" && (run.Error.Message != "the model is away" || !run.Error.Retryable) {
				t.Errorf("error = %+v", run.Error)
			}
		})
	}
}

func TestTimedOutRunEndsThoughItsTaskDoesNot(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	b := setup(t, Config{}, tasks{"deaf": func(context.Context, Call) ([]byte, error) { <-release; return []byte(`{}`), nil }})
	run := b.create(CreateRequest{TaskType: "deaf", RunTimeout: time.Millisecond})
	b.wantEnd(run.ID, TimedOut, ReasonTimedOut)
	if b.Stats().Executing == 0 {
		t.Error("the place is free while the task goes on")
	}
	close(release)
}

func TestCancelRun(t *testing.T) {
	t.Parallel()
	g := newGate()
	b := setup(t, Config{MaxConcurrent: 1}, tasks{"gate": g.run, "echo": echo})
	running := b.create(CreateRequest{TaskType: "gate"})
	<-g.begun
	queued := b.create(CreateRequest{TaskType: "gate"})

	// The queued one first: the other's end gives it a place.
	for _, run := range []Run{queued, running} {
		got, err := b.CancelRun(t.Context(), "default", run.ID, "not needed")
		if err != nil || got.State != Cancelled || got.Error.Reason != ReasonCancelled {
			t.Fatalf("cancel run: %+v, %v", got, err)
		}
		again, err := b.CancelRun(t.Context(), "default", run.ID, "")
		if err != nil || again.Sequence != got.Sequence {
			t.Errorf("cancel run again: %+v, %v", again, err)
		}
	}
	done := b.create(CreateRequest{TaskType: "echo", Wait: true})
	var ended *EndedError
	if _, err := b.CancelRun(t.Context(), "default", done.ID, ""); !errors.As(err, &ended) || ended.State != Succeeded {
		t.Errorf("cancel of a run that succeeded: %v", err)
	}
	if _, err := b.CancelRun(t.Context(), "default", "none", ""); !isNotFound(err) {
		t.Errorf("cancel of no run: %v", err)
	}
	b.wantEnd(queued.ID, Cancelled, ReasonCancelled)
	if len(g.begun) != 0 {
		t.Error("the queued run was begun after its cancellation")
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	g := newGate()
	b := setup(t, Config{MaxConcurrent: 1}, tasks{"gate": g.run})
	running := b.create(CreateRequest{TaskType: "gate", Deadline: 200 * time.Millisecond})
	queued := b.create(CreateRequest{TaskType: "gate", Deadline: time.Millisecond})
	b.wantEnd(queued.ID, Cancelled, ReasonDeadlineExceeded)
	b.wantEnd(running.ID, Cancelled, ReasonDeadlineExceeded)
}

func TestDeadlineIgnoresClockSteps(t *testing.T) {
	t.Parallel()
	var offset atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	g := newGate()
	b := setup(t, Config{Now: now}, tasks{"gate": g.run})
	run := b.create(CreateRequest{TaskType: "gate", Deadline: time.Hour, RunTimeout: time.Hour})
	<-g.begun
	offset.Store(int64(48 * time.Hour))
	other := b.create(CreateRequest{TaskType: "gate", Deadline: time.Hour})
	<-g.begun
	offset.Store(-int64(48 * time.Hour))
	close(g.open)
	for _, id := range []string{run.ID, other.ID} {
		if got := b.wait(id); got.State != Succeeded {
			t.Errorf("run = %+v, error %+v", got, got.Error)
		}
	}
}

func TestWaitRunGivesUp(t *testing.T) {
	t.Parallel()
	g := newGate()
	b := setup(t, Config{}, tasks{"gate": g.run})
	run := b.create(CreateRequest{TaskType: "gate"})
	<-g.begun
	got, err := b.WaitRun(t.Context(), "default", run.ID, time.Millisecond)
	if err != nil || got.State != Running {
		t.Errorf("WaitRun = %+v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.WaitRun(ctx, "default", run.ID, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitRun of a caller that left: %v", err)
	}
	close(g.open)
	b.wait(run.ID)
}

func TestCrashQueuesRunsAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g := newGate()
	b := openEngine(t, dir, Config{MaxConcurrent: 1}, tasks{"gate": g.run, "echo": echo})
	large := fmt.Sprintf(`{"text":%q}`, strings.Repeat("x", maxHeldInputBytes))
	done := b.create(CreateRequest{TaskType: "echo", Input: []byte(large), Wait: true})
	running := b.create(CreateRequest{TaskType: "gate", Input: []byte(`{"first":1}`)})
	<-g.begun
	queued := b.create(CreateRequest{TaskType: "gate", RequestID: "second"})
	b.crash()

	g = newGate()
	close(g.open)
	b = openEngine(t, dir, Config{MaxConcurrent: 1}, tasks{"gate": g.run})
	for i, want := range []Run{running, queued} {
		got := b.wait(want.ID)
		if got.State != Succeeded || got.Attempt != 2-i {
			t.Errorf("run = %+v, want attempt %d to succeed", got, 2-i)
		}
		if call := <-g.begun; call.RunID != want.ID || call.Attempt != 2-i {
			t.Errorf("began %+v, want run %s", call, want.ID)
		}
	}
	if again := b.create(CreateRequest{TaskType: "gate", RequestID: "second"}); again.ID != queued.ID {
		t.Errorf("a repeated call made run %s", again.ID)
	}
	got, err := b.GetRun(t.Context(), "default", done.ID)
	if err != nil || string(got.Output) != large || got.Sequence != done.Sequence {
		t.Errorf("finished run after the crash: sequence %d, %v", got.Sequence, err)
	}
}

func TestRunThatKillsTheRuntimeFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var id string
	for range 2 {
		g := newGate()
		b := openEngine(t, dir, Config{MaxAttempts: 2}, tasks{"gate": g.run})
		id = b.create(CreateRequest{TaskType: "gate", RequestID: "poison"}).ID
		<-g.begun
		b.crash()
	}
	b := openEngine(t, dir, Config{MaxAttempts: 2}, tasks{})
	b.wantEnd(id, Failed, ReasonAttemptsExhausted)
}

func TestStopGivesRunsBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g := newGate()
	b := openEngine(t, dir, Config{MaxConcurrent: 1}, tasks{"gate": g.run})
	running := b.create(CreateRequest{TaskType: "gate"})
	<-g.begun
	queued := b.create(CreateRequest{TaskType: "gate"})
	waited := make(chan error, 2)
	for _, run := range []Run{running, queued} {
		go func() {
			_, err := b.WaitRun(context.Background(), "default", run.ID, 0)
			waited <- err
		}()
	}
	b.stop(10 * time.Millisecond)
	for range 2 {
		if err := <-waited; !errors.Is(err, ErrStopped) {
			t.Errorf("WaitRun over a stop: %v", err)
		}
	}

	close(g.open)
	b = openEngine(t, dir, Config{MaxConcurrent: 1}, tasks{"gate": g.run})
	for _, run := range []Run{running, queued} {
		if got := b.wait(run.ID); got.State != Succeeded || got.Attempt != 1 {
			t.Errorf("run = %+v, want its first attempt to succeed", got)
		}
	}
}

func TestStopLetsRunsFinish(t *testing.T) {
	t.Parallel()
	g := newGate()
	b := setup(t, Config{}, tasks{"gate": g.run})
	run := b.create(CreateRequest{TaskType: "gate"})
	<-g.begun
	waited := make(chan Run, 1)
	go func() {
		got, err := b.WaitRun(context.Background(), "default", run.ID, 0)
		if err != nil {
			t.Error(err)
		}
		waited <- got
	}()
	stopped := make(chan error, 1)
	go func() { stopped <- b.Stop(context.Background()) }()
	<-b.stopping
	if _, _, err := b.CreateRun(t.Context(), "default", CreateRequest{TaskType: "gate"}); !errors.Is(err, ErrStopped) {
		t.Errorf("CreateRun while stopping: %v", err)
	}
	close(g.open)
	if got := <-waited; got.State != Succeeded {
		t.Errorf("run = %+v", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestDeadlineAcrossRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g := newGate()
	b := openEngine(t, dir, Config{}, tasks{"gate": g.run})
	run := b.create(CreateRequest{TaskType: "gate", Deadline: time.Hour})
	<-g.begun
	b.crash()
	later := func() time.Time { return time.Now().Add(2 * time.Hour) }
	b = openEngine(t, dir, Config{Now: later}, tasks{"gate": g.run})
	b.wantEnd(run.ID, Cancelled, ReasonDeadlineExceeded)
}

func TestListRuns(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{"echo": echo, "fail": func(context.Context, Call) ([]byte, error) { return nil, errors.New("no") }})
	var ids []string
	for i := range 10 {
		taskType := []string{"echo", "fail"}[i%2]
		run := b.create(CreateRequest{TaskType: taskType, AgentID: fmt.Sprint("agent", i%3), Wait: true})
		ids = append([]string{run.ID}, ids...)
	}
	list := func(r ListRequest) (got []string) {
		t.Helper()
		for {
			runs, next, err := b.ListRuns(t.Context(), "default", r)
			if err != nil {
				t.Fatal(err)
			}
			if len(runs) > r.PageSize {
				t.Fatalf("%d runs on a page of %d", len(runs), r.PageSize)
			}
			for _, run := range runs {
				if run.Input != nil || run.Output != nil {
					t.Error("list carries payloads")
				}
				got = append(got, run.ID)
			}
			if r.PageToken = next; next == "" {
				return got
			}
		}
	}
	for size := 1; size <= 11; size++ {
		if got := list(ListRequest{PageSize: size}); fmt.Sprint(got) != fmt.Sprint(ids) {
			t.Errorf("pages of %d: %v, want %v", size, got, ids)
		}
	}
	if got := list(ListRequest{PageSize: 2, States: []State{Failed}}); len(got) != 5 {
		t.Errorf("%d failed runs, want 5", len(got))
	}
	if got := list(ListRequest{PageSize: 3, AgentID: "agent0", TaskType: "echo"}); len(got) != 2 {
		t.Errorf("%d runs of agent0 and echo, want 2", len(got))
	}
	if runs, _, err := b.ListRuns(t.Context(), "other", ListRequest{PageSize: 1}); err != nil || len(runs) != 0 {
		t.Errorf("another namespace lists %v, %v", runs, err)
	}
	var refused *violation.Error
	if _, _, err := b.ListRuns(t.Context(), "default", ListRequest{PageSize: 1, PageToken: "?"}); !errors.As(err, &refused) {
		t.Errorf("bad page token: %v", err)
	}
}

func TestEndedRunsAreForgotten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := openEngine(t, dir, Config{KeepEnded: 3}, tasks{"echo": echo})
	var runs []Run
	for range 5 {
		runs = append(runs, b.create(CreateRequest{TaskType: "echo", Wait: true}))
	}
	check := func() {
		t.Helper()
		for i, run := range runs {
			_, err := b.GetRun(t.Context(), "default", run.ID)
			if forgotten := isNotFound(err); forgotten != (i < 2) {
				t.Errorf("run %d of %d: %v", i, len(runs), err)
			}
		}
	}
	b.forgetOld()
	check()
	b.crash()
	b = openEngine(t, dir, Config{KeepEnded: 3}, tasks{})
	check()
	b.crash()
	later := func() time.Time { return time.Now().Add(48 * time.Hour) }
	b = openEngine(t, dir, Config{KeepEndedFor: 24 * time.Hour, Now: later}, tasks{})
	b.forgetOld()
	if left, _, err := b.ListRuns(t.Context(), "default", ListRequest{PageSize: 10}); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestSuccessesPushOutNoFailures(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := openEngine(t, dir, Config{KeepEnded: 2}, tasks{
		"echo": echo,
		"fail": func(context.Context, Call) ([]byte, error) { return nil, errors.New("broken") },
	})
	var failed, succeeded []string
	for range 3 {
		failed = append(failed, b.create(CreateRequest{TaskType: "fail", Wait: true}).ID)
	}
	for range 5 {
		succeeded = append(succeeded, b.create(CreateRequest{TaskType: "echo", Wait: true}).ID)
	}
	for range 2 {
		b.forgetOld()
		for about, kept := range map[string]bool{
			failed[0]: false, failed[1]: true, failed[2]: true, succeeded[2]: false, succeeded[3]: true, succeeded[4]: true,
		} {
			if _, err := b.GetRun(t.Context(), "default", about); isNotFound(err) == kept {
				t.Errorf("run %s: %v", about, err)
			}
		}
		dead, _, err := b.ListRuns(t.Context(), "default", ListRequest{DeadLetters: true, PageSize: 10})
		if err != nil || len(dead) != 2 {
			t.Errorf("%d dead letters (%v), want 2", len(dead), err)
		}
		b.crash()
		b = openEngine(t, dir, Config{KeepEnded: 2}, tasks{})
	}
}

func TestNoNamespacePushesOutTheRunsOfOthers(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{KeepEnded: 2}, tasks{"echo": echo})
	quiet := b.create(CreateRequest{TaskType: "echo", Wait: true})
	for range 5 {
		if _, _, err := b.CreateRun(t.Context(), "other", CreateRequest{TaskType: "echo", Wait: true}); err != nil {
			t.Fatal(err)
		}
	}
	b.forgetOld()
	if _, err := b.GetRun(t.Context(), "default", quiet.ID); err != nil {
		t.Errorf("the run of a namespace with few: %v", err)
	}
	if left, _, err := b.ListRuns(t.Context(), "other", ListRequest{PageSize: 10}); err != nil || len(left) != 2 {
		t.Errorf("%d runs of the namespace with many are left, want 2: %v", len(left), err)
	}
}

// TestSubRunIsKeptForItsParent has a sub-run end long before its parent, which
// reads how it ended when it goes on, also when the runtime is started meanwhile.
func TestSubRunIsKeptForItsParent(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{KeepEnded: 1}, tasks{"echo": echo})
	w := b.worker(2, 0)
	parent := b.create(chat()).ID
	a := w.assignment()
	w.report(a, 1, Report{StartRun: &StartRun{Key: "echo#1", Request: CreateRequest{TaskType: "echo"}}})
	child := next(w, &w.children).Run.ID
	b.wait(child)
	others := func() {
		for range 3 {
			b.create(CreateRequest{TaskType: "echo", Wait: true})
		}
		b.forgetOld()
	}
	others()
	w.disconnect()
	b.crash()
	b = openEngine(t, b.dir, Config{KeepEnded: 1}, tasks{"echo": echo})
	w.b = b
	w.connect(HeldLease{RunID: parent, Lease: a.Lease})
	others()
	if _, err := b.GetRun(t.Context(), "default", child); err != nil {
		t.Fatalf("the sub-run of a run that has not ended: %v", err)
	}
	w.succeed(a, 2)
	b.wait(parent)
	others()
	for _, id := range []string{parent, child} {
		if _, err := b.GetRun(t.Context(), "default", id); !isNotFound(err) {
			t.Errorf("run %s is kept: %v", id, err)
		}
	}
	w.disconnect()
}

// TestNamedRunsAreKeptUntilTheirEndWasFollowed has whoever keeps rows of runs be
// away while more of them end than are kept.
func TestNamedRunsAreKeptUntilTheirEndWasFollowed(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	b := setup(t, Config{KeepEnded: 2, Now: now}, tasks{"echo": echo})
	end := func() Run { return b.create(CreateRequest{TaskType: "echo", RunID: uuid.NewString(), Wait: true}) }
	follow := func(after, until uint64) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		r := FollowRequest{After: after, NamedOnly: true}
		_ = b.FollowRuns(ctx, "default", r, func(_ []Event, position uint64) error {
			if position >= until {
				stop()
			}
			return nil
		})
	}
	count := func() int {
		b.forgetOld()
		left, _, err := b.ListRuns(t.Context(), "default", ListRequest{PageSize: 100})
		if err != nil {
			t.Fatal(err)
		}
		return len(left)
	}
	has := func(sequence uint64) {
		ctx, stop := context.WithCancel(t.Context())
		stop()
		r := FollowRequest{After: sequence, NamedOnly: true}
		_ = b.FollowRuns(ctx, "default", r, func([]Event, uint64) error { return nil })
	}
	followed := end().Sequence
	has(followed)
	var last Run
	for range 6 {
		last = end()
	}
	if left := count(); left != 6 {
		t.Errorf("%d runs are left, want the 6 whose end was not followed", left)
	}
	// What was sent need not have been written down.
	follow(followed, last.Sequence)
	if left := count(); left != 6 {
		t.Errorf("%d runs are left, want the 6 whose end was only sent", left)
	}
	has(last.Sequence)
	if left := count(); left != 2 {
		t.Errorf("%d runs are left, want 2", left)
	}
	for range 2 * mostUnread {
		end()
	}
	end()
	if left := count(); left != 2*mostUnread {
		t.Errorf("%d runs are left, want %d", left, 2*mostUnread)
	}
	ahead.Store(int64(31 * 24 * time.Hour))
	if left := count(); left != 0 {
		t.Errorf("%d runs are left beyond their time", left)
	}
}

// TestRunThatWasForgottenInPartIsForgottenLater has the process end before, and
// after, the first of a run's subjects is removed.
func TestRunThatWasForgottenInPartIsForgottenLater(t *testing.T) {
	t.Parallel()
	for purged := range 2 {
		t.Run(strconv.Itoa(purged), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			b := openEngine(t, dir, Config{KeepEnded: 1}, tasks{"emit": func(ctx context.Context, call Call) ([]byte, error) {
				return []byte(`{}`), call.Emit(ctx, NewEvent{Type: "x"})
			}})
			purges := 0
			b.fault(&faulty{purge: func(string) error {
				if purges++; purges > purged {
					return journal.ErrUnavailable
				}
				return nil
			}})
			old := b.create(CreateRequest{TaskType: "emit", Wait: true})
			b.create(CreateRequest{TaskType: "emit", Wait: true})
			b.forgetOld()
			b.crash()
			b = openEngine(t, dir, Config{KeepEnded: 1}, tasks{})
			b.forgetOld()
			for _, subject := range historySubjects("default", old.ID) {
				if n := b.records(t, subject); n > 0 {
					t.Errorf("%d records of %s are left", n, subject)
				}
			}
			if n := b.records(t, eventPrefix+">"); n != 1 {
				t.Errorf("%d events are left, want that of the other run", n)
			}
		})
	}
}

// TestRecordThatIsRefusedInPassingIsKept has the journal refuse each record of a
// run twice as if another one were there, as a cluster does that has answered for
// the run's last record and is not done with it.
func TestRecordThatIsRefusedInPassingIsKept(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{"echo": echo})
	var mu sync.Mutex
	refused := map[string]int{}
	b.fault(&faulty{refuse: func(m journal.Message) error {
		mu.Lock()
		defer mu.Unlock()
		if m.Expect == nil || refused[fmt.Sprint(m.Subject, *m.Expect)] == 2 {
			return nil
		}
		refused[fmt.Sprint(m.Subject, *m.Expect)]++
		return journal.ErrConflict
	}})
	ofTheRuntime := b.create(CreateRequest{TaskType: "echo", Input: []byte(`{"n":1}`)})
	ofAWorker := b.create(chat())
	w := b.worker(1, 0)
	w.succeed(w.assignment(), 1)
	for _, run := range []Run{ofTheRuntime, ofAWorker} {
		if run = b.wait(run.ID); run.State != Succeeded {
			t.Errorf("run %+v", run)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(refused) != 5 {
		t.Errorf("%d records were refused, want those of both runs: %v", len(refused), refused)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	rec := record{ID: "id", Run: Run{State: Succeeded, TaskType: "echo"}, Payload: []byte(`{"a":1}`)}
	data, err := rec.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, data []byte) {
		rec, err := decodeRecord(data)
		if err != nil {
			return
		}
		again, err := rec.encode()
		if err != nil {
			t.Skip() // facts that JSON reads and cannot write, such as a year above 9999
		}
		back, err := decodeRecord(again)
		if err != nil || string(back.Payload) != string(rec.Payload) || back.Run.State != rec.Run.State || back.Hash != rec.Hash {
			t.Errorf("%+v became %+v, %v", rec, back, err)
		}
	})
}
