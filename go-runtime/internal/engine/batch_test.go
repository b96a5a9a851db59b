package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const forever = time.Duration(math.MaxInt64)

// batchOf returns requests of one task type, each with an id and an input of its own.
func batchOf(taskType string, size int) []CreateRequest {
	batch := make([]CreateRequest, size)
	for i := range batch {
		batch[i] = CreateRequest{
			TaskType: taskType, RequestID: strconv.Itoa(i), Input: fmt.Appendf(nil, `{"n":%d}`, i),
		}
	}
	return batch
}

func (b *bundle) createAll(batch []CreateRequest) []Created {
	b.t.Helper()
	created, err := b.CreateRuns(b.t.Context(), "default", batch)
	if err != nil {
		b.t.Fatalf("CreateRuns: %v", err)
	}
	if len(created) != len(batch) {
		b.t.Fatalf("%d requests became %d runs", len(batch), len(created))
	}
	return created
}

// waitAll waits for the runs and returns them by id, each of which has to come once.
func (b *bundle) waitAll(created []Created, maxWait time.Duration) map[string]Run {
	b.t.Helper()
	ids := make([]string, len(created))
	for i, c := range created {
		ids[i] = c.Run.ID
	}
	got := map[string]Run{}
	err := b.WaitRuns(b.t.Context(), "default", ids, maxWait, func(run Run, _ bool) error {
		if _, twice := got[run.ID]; twice {
			b.t.Errorf("run %s was sent twice", run.ID)
		}
		got[run.ID] = run
		return nil
	})
	if err != nil {
		b.t.Fatalf("WaitRuns: %v", err)
	}
	for _, id := range ids {
		if _, sent := got[id]; !sent {
			b.t.Fatalf("run %s was not sent", id)
		}
	}
	return got
}

// free checks that every place and all of the queue are free again.
func (b *bundle) free() {
	b.t.Helper()
	b.sched.mu.Lock()
	defer b.sched.mu.Unlock()
	if b.sched.taken != 0 || b.sched.queued != 0 || len(b.sched.shares) > 0 {
		b.t.Errorf("%d places of the queue are taken (%v), %d runs wait", b.sched.taken, b.sched.shares, b.sched.queued)
	}
}

func TestCreateRunsAcceptsManyInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{MaxConcurrent: 3}, tasks{"echo": echo})
	batch := batchOf("echo", 700)
	before := b.create(batch[5])
	batch[9] = batch[8]
	created := b.createAll(batch)
	var newest uint64
	for i, c := range created {
		if isNew := i != 5 && i != 9; c.New != isNew {
			t.Errorf("run %d: new is %t", i, c.New)
		}
		if c.Run.TaskType != "echo" || c.Run.Sequence == 0 || c.Run.Input != nil {
			t.Fatalf("run %d: %+v", i, c.Run)
		}
		if ent := b.index.get("default", c.Run.ID); c.New && ent.created <= newest {
			t.Fatalf("run %d was accepted before the one before it", i)
		} else if c.New {
			newest = ent.created
		}
	}
	if created[5].Run.ID != before.ID || created[9].Run.ID != created[8].Run.ID {
		t.Error("a request with a known id made another run")
	}
	runs := b.waitAll(created, forever)
	for i, c := range created {
		run := runs[c.Run.ID]
		if run.State != Succeeded || run.Attempt != 1 || string(run.Output) != string(batch[i].Input) || run.Input != nil {
			t.Fatalf("run %d ended as %+v", i, run)
		}
	}
	for i, c := range b.createAll(batch) {
		if c.New || c.Run.ID != created[i].Run.ID || c.Run.State != Succeeded || c.Run.Output != nil {
			t.Fatalf("repeated request %d: %+v", i, c)
		}
	}
	b.free()
}

func TestCreateRunsRefusesTheWholeBatch(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{MaxConcurrent: 2, MaxQueued: 4, MaxInputBytes: 100}, tasks{"echo": echo})
	taken := b.create(CreateRequest{TaskType: "echo", RequestID: "taken", Wait: true})
	for name, test := range map[string]struct {
		edit func(batch []CreateRequest)
		want func(err error) bool
	}{
		"each mistake is named": {
			func(batch []CreateRequest) { batch[1].Input, batch[2].TaskType = []byte(`[]`), "" },
			func(err error) bool {
				e, found := errors.AsType[*violation.Error](err)
				return found && len(e.Violations) == 2 &&
					e.Violations[0].Field == "requests[1].input" && e.Violations[1].Field == "requests[2].task_type"
			},
		},
		"an input is too large": {
			func(batch []CreateRequest) { batch[1].Input = make([]byte, 101) },
			func(err error) bool {
				e, found := errors.AsType[*violation.TooLargeError](err)
				return found && e.Field == "requests[1].input"
			},
		},
		"no such task": {
			func(batch []CreateRequest) { batch[2].TaskType = "none" },
			func(err error) bool {
				e, found := errors.AsType[*RequestError](err)
				return found && e.Place == 2 && errors.Is(err, errNoSuchTask)
			},
		},
		"a run has another payload": {
			func(batch []CreateRequest) { batch[2].RequestID = "taken" },
			func(err error) bool {
				conflict, found := errors.AsType[*ConflictError](err)
				e, placed := errors.AsType[*RequestError](err)
				return found && placed && e.Place == 2 && conflict.RunID == taken.ID
			},
		},
		"another request has another payload": {
			func(batch []CreateRequest) { batch[2].RequestID = batch[0].RequestID },
			func(err error) bool {
				_, found := errors.AsType[*ConflictError](err)
				e, placed := errors.AsType[*RequestError](err)
				return found && placed && e.Place == 2
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			batch := batchOf("echo", 3)
			test.edit(batch)
			if created, err := b.CreateRuns(t.Context(), "default", batch); !test.want(err) {
				t.Errorf("created %v, err = %v", created, err)
			}
			if runs, _, err := b.ListRuns(t.Context(), "default", ListRequest{PageSize: 10}); err != nil || len(runs) != 1 {
				t.Errorf("there are runs %+v (%v), want one", runs, err)
			}
		})
	}
	t.Cleanup(b.free)
}

func TestBatchThatTheQueueHasNoRoomForIsRefused(t *testing.T) {
	t.Parallel()
	g := newGate()
	b := setup(t, Config{MaxConcurrent: 2, MaxQueued: 4}, tasks{"gate": g.run})
	full, found := (*QueueFullError)(nil), false
	if _, err := b.CreateRuns(t.Context(), "default", batchOf("gate", 7)); err != nil {
		full, found = errors.AsType[*QueueFullError](err)
	}
	if !found || full.Limit != 4 || full.RetryAfter <= 0 {
		t.Fatalf("err = %+v, want a full queue", full)
	}
	b.free()
	b.create(CreateRequest{TaskType: "gate", RequestID: "first"})
	<-g.begun
	b.create(CreateRequest{TaskType: "gate", RequestID: "second"})
	<-g.begun
	created := b.createAll(batchOf("gate", 4))
	if stats := b.Stats(); stats.Queued != 4 || stats.States[Running] != 2 {
		t.Errorf("stats = %+v", stats)
	}
	if _, err := b.CreateRuns(t.Context(), "default", []CreateRequest{{TaskType: "gate"}}); err == nil {
		t.Error("accepted one more than the queue holds")
	}
	close(g.open)
	b.waitAll(created, forever)
	b.free()
}

// What an earlier call appended, and did not live to see acknowledged, is joined.
func TestBatchJoinsWhatACrashLeft(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g := newGate()
	b := openEngine(t, dir, Config{MaxConcurrent: 1}, tasks{"gate": g.run, "echo": echo})
	first := b.createAll(batchOf("gate", 10)[:4])
	<-g.begun
	b.crash()

	b = openEngine(t, dir, Config{MaxConcurrent: 1}, tasks{"gate": echo})
	batch := batchOf("gate", 10)
	unseen, err := b.order("default", batch[6])
	if err != nil {
		t.Fatal(err)
	}
	rec := b.firstRecord("default", unseen, time.Now())
	data, err := rec.encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.stream.Append(t.Context(), journal.Message{Subject: runSubject("default", unseen.id), Data: data}); err != nil {
		t.Fatal(err)
	}
	created := b.createAll(batch)
	for i, c := range created {
		if isNew := i >= 4 && i != 6; c.New != isNew {
			t.Errorf("run %d: new is %t", i, c.New)
		}
		if i < 4 && c.Run.ID != first[i].Run.ID {
			t.Errorf("request %d made run %s after the crash, was %s", i, c.Run.ID, first[i].Run.ID)
		}
	}
	for id, run := range b.waitAll(created, forever) {
		if run.State != Succeeded || string(run.Output) == "" {
			t.Errorf("run %s ended as %+v", id, run)
		}
	}
	b.free()

	other, err := b.order("default", CreateRequest{TaskType: "gate", RequestID: "other", Input: []byte(`{"other":1}`)})
	if err != nil {
		t.Fatal(err)
	}
	rec = b.firstRecord("default", other, time.Now())
	if data, err = rec.encode(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.stream.Append(t.Context(), journal.Message{Subject: runSubject("default", other.id), Data: data}); err != nil {
		t.Fatal(err)
	}
	_, err = b.CreateRuns(t.Context(), "default", []CreateRequest{
		{TaskType: "gate", RequestID: "beside"}, {TaskType: "gate", RequestID: "other"},
	})
	if refused, found := errors.AsType[*RequestError](err); !found || refused.Place != 1 {
		t.Errorf("another payload than the journal has: %v", err)
	}
}

func TestBatchSurvivesACrash(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g := newGate()
	b := openEngine(t, dir, Config{MaxConcurrent: 2}, tasks{"gate": g.run})
	created := b.createAll(batchOf("gate", 50))
	b.crash()
	b = openEngine(t, dir, Config{MaxConcurrent: 2}, tasks{"gate": echo})
	for id, run := range b.waitAll(created, forever) {
		if run.State != Succeeded {
			t.Errorf("run %s ended as %s", id, run.State)
		}
	}
	for i, c := range b.createAll(batchOf("gate", 50)) {
		if c.New || c.Run.ID != created[i].Run.ID {
			t.Errorf("a repeat of request %d made run %s", i, c.Run.ID)
		}
	}
}

// Batches that overlap make each run once, and do not hold each other up for ever.
func TestBatchesAtOnce(t *testing.T) {
	t.Parallel()
	var executed atomic.Int32
	b := setup(t, Config{}, tasks{"count": func(context.Context, Call) ([]byte, error) {
		executed.Add(1)
		return []byte(`{}`), nil
	}})
	batch := batchOf("count", 40)
	var made atomic.Int32
	var calls sync.WaitGroup
	for shift := range 16 {
		calls.Go(func() {
			turned := append(append([]CreateRequest(nil), batch[shift:]...), batch[:shift]...)
			created, err := b.CreateRuns(t.Context(), "default", turned)
			if err != nil {
				t.Error(err)
			}
			for _, c := range created {
				if c.New {
					made.Add(1)
				}
			}
		})
	}
	calls.Wait()
	b.waitAll(b.createAll(batch), forever)
	if made.Load() != 40 || executed.Load() != 40 {
		t.Errorf("%d runs made, %d executed; want 40", made.Load(), executed.Load())
	}
}

func TestBatchWhileStopping(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g := newGate()
	b := openEngine(t, dir, Config{MaxConcurrent: 1}, tasks{"gate": g.run})
	created := b.createAll(batchOf("gate", 3))
	<-g.begun
	waited := make(chan error, 1)
	go func() {
		waited <- b.WaitRuns(context.Background(), "default", []string{created[0].Run.ID, created[2].Run.ID}, forever,
			func(Run, bool) error { return nil })
	}()
	stopped := make(chan error, 1)
	go func() { stopped <- b.Stop(context.Background()) }()
	if err := <-waited; !errors.Is(err, ErrStopped) {
		t.Errorf("WaitRuns over a stop: %v", err)
	}
	if _, err := b.CreateRuns(t.Context(), "default", batchOf("gate", 4)); !errors.Is(err, ErrStopped) {
		t.Errorf("CreateRuns while stopping: %v", err)
	}
	if again := b.createAll(batchOf("gate", 3)); again[0].New || again[0].Run.ID != created[0].Run.ID {
		t.Errorf("a repeat while stopping: %+v", again[0])
	}
	close(g.open)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	b.crash()
	b = openEngine(t, dir, Config{MaxConcurrent: 1}, tasks{"gate": echo})
	for id, run := range b.waitAll(created, forever) {
		if run.State != Succeeded || run.Attempt != 1 {
			t.Errorf("run %s ended as %s in attempt %d", id, run.State, run.Attempt)
		}
	}
}

func TestWaitRunsSendsRunsAsTheyEnd(t *testing.T) {
	t.Parallel()
	g := newGate()
	b := setup(t, Config{}, tasks{"gate": g.run, "echo": echo})
	slow := b.create(CreateRequest{TaskType: "gate"})
	quick := b.create(CreateRequest{TaskType: "echo", Wait: true})
	later := b.create(CreateRequest{TaskType: "gate"})
	var order []string
	err := b.WaitRuns(t.Context(), "default", []string{slow.ID, quick.ID, later.ID, quick.ID}, forever, func(run Run, _ bool) error {
		if order = append(order, run.ID); len(order) == 1 {
			close(g.open)
		}
		return nil
	})
	if err != nil || len(order) != 3 || order[0] != quick.ID {
		t.Errorf("sent %v, %v; want %s first", order, err, quick.ID)
	}
}

func TestWaitRunsGivesUp(t *testing.T) {
	t.Parallel()
	g := newGate()
	b := setup(t, Config{}, tasks{"gate": g.run, "echo": echo})
	slow := b.create(CreateRequest{TaskType: "gate"})
	quick := b.create(CreateRequest{TaskType: "echo", Wait: true})
	runs := b.waitAll([]Created{{Run: slow}, {Run: quick}}, 0)
	if runs[slow.ID].State.Ended() || runs[quick.ID].State != Succeeded || string(runs[quick.ID].Output) != `{}` {
		t.Errorf("runs as they are: %+v", runs)
	}

	sends := 0
	count := func(Run, bool) error { sends++; return nil }
	if err := b.WaitRuns(t.Context(), "default", []string{quick.ID, "none"}, forever, count); !isNotFound(err) || sends > 0 {
		t.Errorf("unknown run: %v after %d runs", err, sends)
	}
	errGone := errors.New("gone")
	if err := b.WaitRuns(t.Context(), "default", []string{quick.ID, slow.ID}, forever, func(Run, bool) error { return errGone }); !errors.Is(err, errGone) {
		t.Errorf("err = %v, want send's", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.WaitRuns(ctx, "default", []string{slow.ID}, forever, count); !errors.Is(err, context.Canceled) || sends > 0 {
		t.Errorf("err = %v after %d runs", err, sends)
	}
	ent := b.index.get("default", slow.ID)
	ent.mu.Lock()
	if len(ent.watchers) > 0 {
		t.Errorf("%d of those who gave up are still told", len(ent.watchers))
	}
	ent.mu.Unlock()
	close(g.open)
}
