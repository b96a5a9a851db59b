package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// testWorker is a worker of one agent, "chat", on the engine's own interface.
type testWorker struct {
	b     *bundle
	hello Hello
	conn  *Connection
	held  []HeldLease

	orders  chan Orders
	stop    context.CancelFunc
	stopped chan struct{}

	// What was ordered and not asked for yet.
	assignments   []Assignment
	acks          []HeldLease
	cancellations []Cancellation
	refusals      []Refusal
	children      []ChildRun
}

func (b *bundle) worker(concurrency int, ttl time.Duration) *testWorker {
	b.t.Helper()
	w := &testWorker{b: b, hello: Hello{
		ID: uuid.NewString(), Name: "test", Agents: []WorkerAgent{{ID: "chat"}}, Concurrency: concurrency, LeaseTTL: ttl,
	}}
	w.connect()
	b.t.Cleanup(w.disconnect)
	return w
}

// connect connects, again with the leases that it holds.
func (w *testWorker) connect(held ...HeldLease) {
	w.b.t.Helper()
	w.hello.Held = held
	conn, got, err := w.b.Connect(w.b.t.Context(), "default", w.hello)
	if err != nil {
		w.b.t.Fatalf("Connect: %v", err)
	}
	w.conn, w.held = conn, got
	ctx, stop := context.WithCancel(context.Background())
	w.stop, w.stopped, w.orders = stop, make(chan struct{}), make(chan Orders, 1000)
	go func(orders chan Orders, stopped chan struct{}) {
		defer close(stopped)
		for {
			next, err := conn.Next(ctx)
			if err != nil {
				return
			}
			orders <- next
		}
	}(w.orders, w.stopped)
}

// disconnect is what becomes of a stream that breaks.
func (w *testWorker) disconnect() {
	w.stop()
	<-w.stopped
	w.conn.Disconnect()
}

// next waits until there is something in one of the lists.
func next[T any](w *testWorker, list *[]T) T {
	w.b.t.Helper()
	for len(*list) == 0 {
		select {
		case o := <-w.orders:
			w.assignments = append(w.assignments, o.Assignments...)
			w.acks = append(w.acks, o.Acks...)
			w.cancellations = append(w.cancellations, o.Cancellations...)
			w.refusals = append(w.refusals, o.Refusals...)
			w.children = append(w.children, o.Children...)
		case <-time.After(20 * time.Second):
			w.b.t.Fatalf("the worker was told nothing of %T", *list)
		}
	}
	first := (*list)[0]
	*list = (*list)[1:]
	return first
}

// lose is what becomes of a worker that has died, once its lease time is over.
func (w *testWorker) lose() {
	w.disconnect()
	w.conn.end(false)
}

func (w *testWorker) assignment() Assignment { w.b.t.Helper(); return next(w, &w.assignments) }

// idle checks that nothing was assigned, after everything before has been dealt with.
func (w *testWorker) idle() {
	w.b.t.Helper()
	for {
		select {
		case o := <-w.orders:
			w.assignments = append(w.assignments, o.Assignments...)
		case <-time.After(50 * time.Millisecond):
			if len(w.assignments) > 0 {
				w.b.t.Fatalf("run %s was assigned", w.assignments[0].Run.ID)
			}
			return
		}
	}
}

func (w *testWorker) report(a Assignment, number uint64, r Report) {
	w.b.t.Helper()
	r.RunID, r.Lease, r.Number = a.Run.ID, a.Lease, number
	if err := w.conn.Report(w.b.t.Context(), []Report{r}); err != nil {
		w.b.t.Fatalf("Report: %v", err)
	}
}

func (w *testWorker) succeed(a Assignment, number uint64) {
	w.b.t.Helper()
	w.report(a, number, Report{Succeed: &Succeed{Output: []byte(`{"done":true}`)}})
}

func emitText(text string) Report {
	return Report{Events: []NewEvent{{Type: "assistant.message", Visibility: User, Payload: fmt.Appendf(nil, `{"content":%q}`, text)}}}
}

func chat() CreateRequest {
	return CreateRequest{Target: WorkerTarget, AgentID: "chat", TaskType: "agent.run", Input: []byte(`{"messages":[]}`)}
}

func fast(attempts int) *RetryPolicy {
	return &RetryPolicy{MaxAttempts: attempts, InitialBackoff: time.Millisecond, MaxBackoff: time.Millisecond}
}

// history reads a run's events until it has ended, or as many as are asked for.
func (b *bundle) history(runID string, after uint64, atLeast int) []Event {
	b.t.Helper()
	var all []Event
	enough := errors.New("enough")
	err := b.WatchRun(b.t.Context(), "default", runID, after, Internal, func(events []Event, _ uint64) error {
		all = append(all, events...)
		if atLeast > 0 && len(all) >= atLeast {
			return enough
		}
		return nil
	})
	if err != nil && !errors.Is(err, enough) {
		b.t.Fatalf("WatchRun: %v", err)
	}
	return all
}

func typesOf(events []Event) []string {
	types := make([]string, 0, len(events))
	for _, ev := range events {
		types = append(types, ev.Type)
	}
	return types
}

func TestWorkerExecutesARun(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	created := b.create(chat())
	if created.State != Queued {
		t.Fatalf("state %s before there is a worker", created.State)
	}
	w := b.worker(1, 0)
	a := w.assignment()
	if a.Run.ID != created.ID || a.Run.Attempt != 1 || string(a.Run.Input) != `{"messages":[]}` || a.Lease == 0 {
		t.Fatalf("assignment %+v", a)
	}
	w.report(a, 1, emitText("hello"))
	w.succeed(a, 2)
	if ack := next(w, &w.acks); ack.RunID != a.Run.ID || ack.Lease != a.Lease {
		t.Fatalf("ack %+v", ack)
	}
	run := b.wait(created.ID)
	if run.State != Succeeded || string(run.Output) != `{"done":true}` {
		t.Fatalf("run %+v", run)
	}
	events := b.history(created.ID, 0, 0)
	want := []string{eventQueued, eventStarted, "assistant.message", eventSucceeded}
	if got := typesOf(events); !slices.Equal(got, want) {
		t.Fatalf("events %v, want %v", got, want)
	}
	if last := events[3]; last.Sequence != run.Sequence || string(last.Payload) != `{"output":{"done":true}}` {
		t.Fatalf("last event %+v", last)
	}
	// A reader resumes after any of them.
	for i := range events {
		if got := typesOf(b.history(created.ID, events[i].Sequence, 0)); !slices.Equal(got, want[i+1:]) {
			t.Errorf("after event %d: %v", i, got)
		}
	}
	b.free()
}

func TestUnknownAgentIsKnownOnceAWorkerServesIt(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	r := chat()
	r.Target = AgentTarget
	if _, _, err := b.CreateRun(t.Context(), "default", r); !errors.Is(err, errNoSuchTask) {
		t.Fatalf("err = %v, want the registry's", err)
	}
	w := b.worker(1, 0)
	run := b.create(r)
	if run.Target != WorkerTarget {
		t.Fatalf("target %s", run.Target)
	}
	w.succeed(w.assignment(), 1)
	b.wait(run.ID)
}

func TestRunsBeginByPriorityThenInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	var ids []string
	for _, priority := range []int{0, 0, 5, -1, 5} {
		r := chat()
		r.Options.Priority = priority
		ids = append(ids, b.create(r).ID)
	}
	w := b.worker(1, 0)
	var got []string
	for range ids {
		a := w.assignment()
		got = append(got, a.Run.ID)
		w.succeed(a, 1)
	}
	if want := []string{ids[2], ids[4], ids[0], ids[1], ids[3]}; !slices.Equal(got, want) {
		t.Fatalf("order %v, want %v", got, want)
	}
}

func TestDelayedRunsWait(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{"echo": echo})
	w := b.worker(3, 0)
	r := chat()
	r.Delay = time.Hour
	tomorrow := b.create(r)
	if tomorrow.State != Queued || !tomorrow.NotBefore.Equal(tomorrow.CreatedAt.Add(time.Hour)) {
		t.Fatalf("delayed run %+v", tomorrow)
	}
	const delay = 100 * time.Millisecond
	r.Delay = delay
	later, local := b.create(r), b.create(CreateRequest{TaskType: "echo", Delay: delay})
	now := b.create(chat())
	for range 2 {
		a := w.assignment()
		if a.Run.ID != now.ID && a.Run.ID != later.ID {
			t.Fatalf("assignment %+v", a)
		}
		w.succeed(a, 1)
	}
	b.wait(now.ID)
	for _, id := range []string{later.ID, local.ID} {
		if run := b.wait(id); run.StartedAt.Before(run.CreatedAt.Add(delay)) {
			t.Errorf("run %+v began too early", run)
		}
	}
	if state := b.GetState(tomorrow.ID); state != Queued {
		t.Errorf("state %s of the run whose time has not come", state)
	}
	if _, _, err := b.CreateRun(t.Context(), "default", CreateRequest{TaskType: "echo", Delay: 1, RunAt: time.Now()}); err == nil {
		t.Error("delay and run_at were accepted together")
	}
}

func TestFailedRunsAreRetried(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	r := chat()
	r.Options.Retry = fast(3)
	id := b.create(r).ID
	for attempt := 1; attempt <= 3; attempt++ {
		a := w.assignment()
		if a.Run.Attempt != attempt || a.Run.MaxAttempts != 3 {
			t.Fatalf("attempt %d of %d", a.Run.Attempt, a.Run.MaxAttempts)
		}
		w.report(a, 1, Report{Fail: &Fail{Message: "no luck", Retryable: true, Type: "Luck"}})
	}
	run := b.wantEnd(id, Failed, ReasonAgentFailed)
	if run.Error.Type != "Luck" || run.Attempt != 3 {
		t.Fatalf("run %+v", run)
	}
	want := []string{
		eventQueued, eventStarted, eventRetrying, eventStarted, eventRetrying, eventStarted, eventFailed,
	}
	if got := typesOf(b.history(id, 0, 0)); !slices.Equal(got, want) {
		t.Fatalf("events %v", got)
	}
	dead, _, err := b.ListRuns(t.Context(), "default", ListRequest{DeadLetters: true, PageSize: 10})
	if err != nil || len(dead) != 1 || dead[0].ID != id {
		t.Fatalf("dead letters %v, %v", dead, err)
	}
	again, err := b.RetryRun(t.Context(), "default", id, "", "once")
	if err != nil || again.options().RetryOf != id || again.ID == id {
		t.Fatalf("RetryRun: %+v, %v", again, err)
	}
	if joined, err := b.RetryRun(t.Context(), "default", id, "", "once"); err != nil || joined.ID != again.ID {
		t.Fatalf("a repeat made %s of %s: %v", joined.ID, again.ID, err)
	}
	if dead, _, _ := b.ListRuns(t.Context(), "default", ListRequest{DeadLetters: true, PageSize: 10}); len(dead) != 0 {
		t.Fatalf("dead letters %v after the retry", dead)
	}
	w.succeed(w.assignment(), 1)
	b.wait(again.ID)
	if _, err := b.RetryRun(t.Context(), "default", again.ID, "", ""); !errors.As(err, new(*NotEndedError)) {
		t.Fatalf("retry of a run that succeeded: %v", err)
	}
}

func TestFailuresThatAreNotRetried(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	for name, r := range map[string]Report{
		"do not retry": {Fail: &Fail{Message: "wrong input"}},
		"output":       {Succeed: &Succeed{Output: []byte(`[]`)}},
		"park":         {Park: &Wait{}},
	} {
		id := b.create(chat()).ID
		w.report(w.assignment(), 1, r)
		if run := b.wantEnd(id, Failed, ReasonAgentFailed); run.Attempt != 1 {
			t.Errorf("%s: attempt %d", name, run.Attempt)
		}
	}
	b.free()
}

func TestRunWhosePastCannotBeReadFails(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	r := chat()
	r.Options.Retry = fast(3)
	id := b.create(r).ID
	a := w.assignment()
	broken := emitted{Type: eventStep, Visibility: Internal, Attempt: 1, Lease: a.Lease, Report: 1, Payload: []byte(`[]`)}
	data, err := broken.encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.stream.Append(t.Context(), journal.Message{Subject: eventSubject("default", id), Data: data}); err != nil {
		t.Fatal(err)
	}
	w.report(a, 1, Report{Fail: &Fail{Message: "once more", Retryable: true}})
	if run := b.wantEnd(id, Failed, ReasonAgentFailed); run.Attempt != 1 {
		t.Errorf("attempt %d", run.Attempt)
	}
	// The worker's place is free for others.
	other := b.create(chat()).ID
	w.succeed(w.assignment(), 1)
	b.wait(other)
	b.free()
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	id := b.create(chat()).ID
	w.report(w.assignment(), 1, Report{Fail: &Fail{Message: "busy", Retryable: true, RetryAfter: 100 * time.Millisecond}})
	if a := w.assignment(); a.Run.ID != id || a.Run.Attempt != 2 {
		t.Fatalf("assignment %+v", a)
	}
	events := b.history(id, 0, 4)
	var retrying struct {
		RetryAt time.Time `json:"retry_at"`
	}
	if err := json.Unmarshal(events[2].Payload, &retrying); err != nil || events[3].Time.Before(retrying.RetryAt) {
		t.Fatalf("began at %s, was to wait until %s: %v", events[3].Time, retrying.RetryAt, err)
	}
}

func TestLostWorkersRunsGoToAnother(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	frozen := b.worker(1, 0)
	id := b.create(chat()).ID
	late := frozen.assignment()
	frozen.report(late, 1, emitText("first"))
	frozen.disconnect()
	frozen.hello.LeaseTTL = minLeaseTTL // from now on
	frozen.connect(HeldLease{RunID: id, Lease: late.Lease})
	healthy := b.worker(1, 0)
	a := healthy.assignment()
	if a.Run.ID != id || a.Run.Attempt != 2 || a.Lease <= late.Lease {
		t.Fatalf("assignment %+v", a)
	}
	// The frozen one wakes up: nothing it says counts.
	for number, r := range map[uint64]Report{
		2: emitText("late"), 3: {Step: &Step{Key: "s#1", Result: []byte("1")}}, 4: {Succeed: &Succeed{Output: []byte(`{"late":1}`)}},
	} {
		frozen.report(late, number, r)
	}
	healthy.report(a, 1, emitText("second"))
	healthy.succeed(a, 2)
	if run := b.wait(id); run.State != Succeeded || string(run.Output) != `{"done":true}` {
		t.Fatalf("run %+v", run)
	}
	want := []string{
		eventQueued, eventStarted, "assistant.message", eventRetrying, eventStarted, "assistant.message", eventSucceeded,
	}
	if got := typesOf(b.history(id, 0, 0)); !slices.Equal(got, want) {
		t.Fatalf("events %v", got)
	}
	if _, err := frozen.conn.Next(t.Context()); !errors.Is(err, ErrLeaseLost) {
		t.Fatalf("the lost worker's connection goes on: %v", err)
	}
}

func TestPoisonRunFails(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	r := chat()
	r.Options.Retry = fast(2)
	id := b.create(r).ID
	var after uint64
	for range 2 {
		w := b.worker(1, 0)
		if a := w.assignment(); a.Run.ID != id {
			t.Fatalf("run %s", a.Run.ID)
		}
		w.lose()
		after = b.awaitEvent(id, after, func(ev *Event) bool { return ev.Type == eventRetrying || ev.Ends() }).Sequence
	}
	b.wantEnd(id, Failed, ReasonAttemptsExhausted)
	other := b.create(chat()).ID
	w := b.worker(1, 0)
	w.succeed(w.assignment(), 1)
	b.wait(other)
}

// TestWorkerThatLeavesHoldsNothing: one that ends while a run is on its way to it,
// or being begun, does not have the run wait until its lease lapses.
func TestWorkerThatLeavesHoldsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(3, 0)
	begun := b.create(chat()).ID
	w.assignment()
	w.conn.Drain()
	w.conn.Leave()
	other := b.worker(3, 0)
	if a := other.assignment(); a.Run.ID != begun || a.Run.Attempt != 1 {
		t.Fatalf("run %s, attempt %d: nobody executed it before", a.Run.ID, a.Run.Attempt)
	}
	// Many at once, so that some are between the queue and the worker.
	ids := make([]string, 50)
	late := b.worker(len(ids), 0)
	other.conn.Drain()
	for i := range ids {
		ids[i] = b.create(chat()).ID
	}
	late.conn.Leave()
	last := b.worker(len(ids), 0)
	for range ids {
		last.succeed(last.assignment(), 1)
	}
	for _, id := range ids {
		if run := b.wait(id); run.Attempt != 1 {
			t.Errorf("attempt %d", run.Attempt)
		}
	}
	if _, err := late.conn.Next(t.Context()); !errors.Is(err, ErrLeaseLost) && !errors.Is(err, ErrReplaced) {
		t.Errorf("%v: the worker has left", err)
	}
}

// GetState returns where a run stands.
func (b *bundle) GetState(runID string) State {
	b.t.Helper()
	run, err := b.GetRun(b.t.Context(), "default", runID)
	if err != nil {
		b.t.Fatal(err)
	}
	return run.State
}

func TestRunsThatShareAProcessWithPoisonSurvive(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	ids := make([]string, 5)
	for i := range ids {
		ids[i] = b.create(chat()).ID
	}
	poison := ids[2]
	// Twice all of them are lost with their worker. For the last attempt they come one by one.
	var after uint64
	for range 2 {
		w := b.worker(len(ids), 0)
		for range ids {
			w.assignment()
		}
		w.lose()
		newest := after
		for _, id := range ids {
			lost := b.awaitEvent(id, after, func(ev *Event) bool { return ev.Type == eventRetrying })
			newest = max(newest, lost.Sequence)
		}
		after = newest
	}
	for ended := 0; ended < len(ids); {
		w := b.worker(len(ids), 0)
		for ended < len(ids) {
			a := w.assignment()
			w.idle()
			ended++
			if a.Run.ID == poison {
				w.lose()
				b.wantEnd(poison, Failed, ReasonAttemptsExhausted)
				break
			}
			w.succeed(a, 1)
		}
	}
	for _, id := range ids {
		if run := b.wait(id); (run.State == Succeeded) == (id == poison) {
			t.Errorf("run %s ended as %s", id, run.State)
		}
	}
	b.free()
}

func TestReconnectedWorkerKeepsItsRuns(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(2, 0)
	kept, unheard := b.create(chat()), b.create(chat())
	a := w.assignment()
	other := w.assignment()
	if a.Run.ID != kept.ID {
		a, other = other, a
	}
	w.report(a, 1, emitText("one"))
	w.disconnect()
	// The second assignment did not reach the worker: the run is given out again.
	w.connect(HeldLease{RunID: a.Run.ID, Lease: a.Lease})
	if len(w.held) != 1 || w.held[0] != (HeldLease{a.Run.ID, a.Lease, 1}) {
		t.Fatalf("held %+v", w.held)
	}
	w.report(a, 1, emitText("one"))
	w.report(a, 2, emitText("two"))
	w.succeed(a, 3)
	again := w.assignment()
	if again.Run.ID != unheard.ID || again.Run.Attempt != 1 || again.Lease == other.Lease {
		t.Fatalf("assignment %+v", again)
	}
	w.succeed(again, 1)
	b.wait(kept.ID)
	b.wait(unheard.ID)
	want := []string{eventQueued, eventStarted, "assistant.message", "assistant.message", eventSucceeded}
	if got := typesOf(b.history(kept.ID, 0, 0)); !slices.Equal(got, want) {
		t.Fatalf("events %v", got)
	}
}

// TestWorkerThatConnectsWhileARunIsBegunHasItsPlacesOnce is about a run that is
// neither assigned nor leased at that moment.
func TestWorkerThatConnectsWhileARunIsBegunHasItsPlacesOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	begins, goOn := b.holdBeginning()
	first, second := b.create(chat()).ID, b.create(chat()).ID
	w := b.worker(1, 0)
	<-begins
	w.disconnect()
	w.connect()
	close(goOn)
	a := w.assignment()
	if a.Run.ID != first {
		t.Fatalf("assignment %+v", a)
	}
	w.idle() // its only place is taken
	w.disconnect()
	w.connect(HeldLease{RunID: first, Lease: a.Lease})
	w.idle()
	w.succeed(a, 1)
	b.wait(first)
	a = w.assignment()
	if a.Run.ID != second {
		t.Fatalf("assignment %+v", a)
	}
	w.succeed(a, 1)
	b.wait(second)
	b.sched.mu.Lock()
	if free := w.conn.free; free > 1 {
		t.Errorf("%d places of 1 are free", free)
	}
	b.sched.mu.Unlock()
	b.free()
}

// TestRunThatIsOverBeforeItIsHandedToItsWorker is about the moment between the
// record with which an attempt begins and the word to the worker.
func TestRunThatIsOverBeforeItIsHandedToItsWorker(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		// happens is what does at that moment; unlock lets the engine go on.
		happens func(t *testing.T, w *testWorker, ent *entry, unlock func())
		// order is that of the runs which the worker gets of the two.
		order []int
	}{
		"cancelled": {
			happens: func(t *testing.T, w *testWorker, ent *entry, unlock func()) {
				t.Helper()
				_, next, left, err := w.b.changeInTurn(t.Context(), ent, nil, func(run *Run) error {
					run.end(Cancelled, &RunError{Reason: ReasonCancelled}, time.Now())
					return nil
				}, nil)
				if err != nil {
					t.Fatal(err)
				}
				left.revoke(revocation(&next))
				unlock()
			},
			order: []int{1},
		},
		"worker connects again": {
			happens: func(t *testing.T, w *testWorker, ent *entry, unlock func()) {
				t.Helper()
				// The lease is there once the turn is over.
				if err := ent.enter(t.Context()); err != nil {
					t.Fatal(err)
				}
				w.disconnect()
				go func() {
					for leased := 1; leased > 0; _, leased = w.b.countWorkers() {
						<-time.After(time.Millisecond)
					}
					ent.leave()
					unlock()
				}()
				w.connect()
			},
			order: []int{0, 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, Config{}, tasks{})
			begins, goOn := b.holdBeginning()
			ids := []string{b.create(chat()).ID, b.create(chat()).ID}
			ent := b.index.get("default", ids[0])
			w := b.worker(1, 0)
			<-begins
			b.index.mu.Lock()
			close(goOn)
			test.happens(t, w, ent, b.index.mu.Unlock)
			for _, place := range test.order {
				a := w.assignment()
				if run, err := b.GetRun(t.Context(), "default", ids[place]); err != nil || run.Lease != a.Lease {
					t.Fatalf("assigned run %s, lease %d; want run %+v (%v)", a.Run.ID, a.Lease, run, err)
				}
				w.idle()
				w.succeed(a, 1)
				b.wait(ids[place])
			}
			b.sched.mu.Lock()
			defer b.sched.mu.Unlock()
			if w.conn.free != 1 {
				t.Errorf("%d places of 1 are free", w.conn.free)
			}
		})
	}
}

func TestWorkerConnectsWhileItsOldConnectionEnds(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	old := w.conn
	for range 3000 {
		var ends sync.WaitGroup
		ends.Go(old.Disconnect)
		conn, _, err := b.Connect(t.Context(), "default", w.hello)
		if err != nil {
			t.Fatal(err)
		}
		ends.Wait()
		old = conn
		b.sched.mu.Lock()
		joined := len(b.sched.workers[poolName{"default", "chat"}].sessions)
		b.sched.mu.Unlock()
		if joined != 1 {
			t.Fatal("the worker is connected and gets no runs")
		}
	}
	old.Disconnect()
}

// A worker gives up by itself what it has not heard of for the lease time. The
// runtime may have heard of it a little later, and hold the lease still.
func TestLeaseThatLapsedAtItsWorkerCountsAnAttempt(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	r := chat()
	r.Options.Retry = fast(3)
	id := b.create(r).ID
	b.age(w.assignment())
	w.disconnect()
	w.connect()
	a := w.assignment()
	if a.Run.ID != id || a.Run.Attempt != 2 {
		t.Fatalf("assignment %+v", a)
	}
	w.succeed(a, 1)
	b.wait(id)
	want := []string{eventQueued, eventStarted, eventRetrying, eventStarted, eventSucceeded}
	if got := typesOf(b.history(id, 0, 0)); !slices.Equal(got, want) {
		t.Fatalf("events %v", got)
	}
}

// age has the lease of an assignment be as old as it may become.
func (b *bundle) age(a Assignment) {
	b.t.Helper()
	ent := b.index.get(a.Run.Namespace, a.Run.ID)
	ent.mu.Lock()
	defer ent.mu.Unlock()
	ent.lease.begun = ent.lease.begun.Add(-defaultLeaseTTL)
}

// TestClockThatStepsCountsNoAttempt has the assignment get lost with its stream,
// while the wall clock is set forward.
func TestClockThatStepsCountsNoAttempt(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	b := setup(t, Config{Now: now}, tasks{})
	w := b.worker(1, 0)
	r := chat()
	r.Options.Retry = fast(1)
	id := b.create(r).ID
	w.assignment()
	w.disconnect()
	ahead.Store(int64(time.Hour))
	w.connect()
	a := w.assignment()
	if a.Run.ID != id || a.Run.Attempt != 1 {
		t.Fatalf("assignment %+v", a)
	}
	w.succeed(a, 1)
	b.wait(id)
}

func TestWorkerKeepsItsRunOverARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := openEngine(t, dir, Config{}, tasks{})
	w := b.worker(1, 0)
	id := b.create(chat()).ID
	a := w.assignment()
	w.report(a, 1, emitText("before"))
	w.report(a, 2, Report{Events: []NewEvent{{Type: "x", Visibility: User}, {Type: "y", Visibility: User}}})
	w.disconnect()
	b.crash()
	b = openEngine(t, dir, Config{}, tasks{})
	if got := b.GetState(id); got != Running {
		t.Fatalf("state %s after the restart", got)
	}
	w.b = b
	w.connect(HeldLease{RunID: id, Lease: a.Lease})
	if len(w.held) != 1 {
		t.Fatalf("held %+v", w.held)
	}
	// Reports that were kept already are not kept twice.
	w.report(a, 2, Report{Events: []NewEvent{{Type: "x", Visibility: User}, {Type: "y", Visibility: User}}})
	w.report(a, 3, emitText("after"))
	w.succeed(a, 4)
	b.wait(id)
	want := []string{eventQueued, eventStarted, "assistant.message", "x", "y", "assistant.message", eventSucceeded}
	if got := typesOf(b.history(id, 0, 0)); !slices.Equal(got, want) {
		t.Fatalf("events %v", got)
	}
	w.disconnect()
}

func TestCancelReachesTheWorker(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	id := b.create(chat()).ID
	waiting := b.create(chat()).ID
	a := w.assignment()
	if _, err := b.CancelRun(t.Context(), "default", id, "enough"); err != nil {
		t.Fatal(err)
	}
	if c := next(w, &w.cancellations); c.RunID != id || c.Lease != a.Lease || c.Reason != ReasonCancelled {
		t.Fatalf("cancellation %+v", c)
	}
	w.idle() // its place is free only when the code has gone
	w.report(a, 1, emitText("still here"))
	if r := next(w, &w.refusals); !errors.Is(r.Err, ErrLeaseLost) {
		t.Fatalf("refusal %+v", r)
	}
	w.report(a, 2, Report{Release: true})
	if a := w.assignment(); a.Run.ID != waiting {
		t.Fatal("another run was to come next")
	}
	b.wantEnd(id, Cancelled, ReasonCancelled)
	// A queued run that is cancelled never begins.
	third := b.create(chat()).ID
	if _, err := b.CancelRun(t.Context(), "default", third, ""); err != nil {
		t.Fatal(err)
	}
	w.idle()
}

func TestRunTimeoutOfAWorkersRun(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	r := chat()
	r.RunTimeout = time.Second
	id := b.create(r).ID
	w.assignment()
	if c := next(w, &w.cancellations); c.Reason != ReasonTimedOut {
		t.Fatalf("cancellation %+v", c)
	}
	b.wantEnd(id, TimedOut, ReasonTimedOut)
}

func TestQueueTimeout(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	r := chat()
	r.Options.QueueTimeout = 30 * time.Millisecond
	b.wantEnd(b.create(r).ID, TimedOut, ReasonQueueTimedOut)
	b.free()
}

func TestInterruptAndResume(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := openEngine(t, dir, Config{}, tasks{})
	w := b.worker(1, 0)
	id := b.create(chat()).ID
	a := w.assignment()
	w.report(a, 1, Report{Step: &Step{Key: "charge#1", Result: []byte(`{"paid":1}`)}})
	w.report(a, 2, Report{Events: []NewEvent{{Type: eventCheckpoint, Visibility: Internal, Payload: []byte(`{"n":1}`)}}})
	w.report(a, 3, Report{Park: &Wait{InterruptID: "interrupt#1", Payload: []byte(`{"sure":true}`)}})
	run := b.awaitWait(id)
	if run.Wait.InterruptID != "interrupt#1" || string(run.Wait.Payload) != `{"sure":true}` {
		t.Fatalf("wait %+v", run.Wait)
	}
	// It waits over a restart, and holds no worker.
	w.disconnect()
	b.crash()
	b = openEngine(t, dir, Config{}, tasks{})
	if _, err := b.ResumeRun(t.Context(), "default", id, "other", []byte("1")); !errors.As(err, new(*NotWaitingError)) {
		t.Fatalf("another interrupt was answered: %v", err)
	}
	if run, err := b.ResumeRun(t.Context(), "default", id, "interrupt#1", []byte(`"yes"`)); err != nil || run.State != Queued {
		t.Fatalf("ResumeRun: %+v, %v", run, err)
	}
	if _, err := b.ResumeRun(t.Context(), "default", id, "interrupt#1", []byte(`"yes"`)); err != nil {
		t.Fatalf("a repeat: %v", err)
	}
	_, err := b.ResumeRun(t.Context(), "default", id, "interrupt#1", []byte(`"no"`))
	if notWaiting, found := errors.AsType[*NotWaitingError](err); !found || !notWaiting.Answered {
		t.Fatalf("another answer: %v", err)
	}
	w = b.worker(1, 0)
	a = w.assignment()
	if a.Run.Attempt != 1 || len(a.Steps) != 1 || a.Steps[0].Key != "charge#1" || string(a.Steps[0].Result) != `{"paid":1}` ||
		len(a.Answers) != 1 || a.Answers[0].InterruptID != "interrupt#1" || string(a.Answers[0].Value) != `"yes"` ||
		string(a.Checkpoint) != `{"n":1}` {
		t.Fatalf("assignment %+v", a)
	}
	w.succeed(a, 1)
	b.wait(id)
	want := []string{
		eventQueued, eventStarted, eventStep, eventCheckpoint, eventInterrupted, eventResumed, eventStarted, eventSucceeded,
	}
	if got := typesOf(b.history(id, 0, 0)); !slices.Equal(got, want) {
		t.Fatalf("events %v", got)
	}
	if _, err := b.ResumeRun(t.Context(), "default", id, "", nil); !errors.As(err, new(*EndedError)) {
		t.Fatalf("a run that has ended was resumed: %v", err)
	}
	w.disconnect()
}

// awaitWait returns a run once it waits.
func (b *bundle) awaitWait(runID string) Run {
	b.t.Helper()
	b.awaitEvent(runID, 0, func(ev *Event) bool { return ev.Run != nil && ev.Run.State == Waiting })
	run, err := b.GetRun(b.t.Context(), "default", runID)
	if err != nil {
		b.t.Fatal(err)
	}
	return run
}

// awaitEvent returns a run's first event after a sequence for which match holds.
func (b *bundle) awaitEvent(runID string, after uint64, match func(*Event) bool) Event {
	b.t.Helper()
	var found Event
	enough := errors.New("enough")
	err := b.WatchRun(b.t.Context(), "default", runID, after, Internal, func(events []Event, _ uint64) error {
		for i := range events {
			if match(&events[i]) {
				found = events[i]
				return enough
			}
		}
		return nil
	})
	if !errors.Is(err, enough) {
		b.t.Fatalf("run %s has no such event: %v", runID, err)
	}
	return found
}

func TestSubRuns(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{"echo": echo})
	w := b.worker(1, 0)
	id := b.create(chat()).ID
	a := w.assignment()
	w.report(a, 1, Report{StartRun: &StartRun{Key: "helper#1", Request: chat()}})
	w.report(a, 2, Report{StartRun: &StartRun{Key: "echo#1", Request: CreateRequest{TaskType: "echo", Input: []byte(`{"x":1}`)}}})
	first, second := next(w, &w.children), next(w, &w.children)
	if first.Report != 1 {
		first, second = second, first
	}
	if first.Run.options().ParentID != id || first.ParentID != id || second.Run.TaskType != "echo" {
		t.Fatalf("children %+v %+v", first, second)
	}
	w.report(a, 3, Report{Park: &Wait{Runs: []string{first.Run.ID, second.Run.ID}}})
	// The parent holds no place: its child has it.
	child := w.assignment()
	if child.Run.ID != first.Run.ID {
		t.Fatalf("run %s was assigned", child.Run.ID)
	}
	w.succeed(child, 1)
	again := w.assignment()
	if again.Run.ID != id || again.Run.Attempt != 1 {
		t.Fatalf("assignment %+v", again)
	}
	// A replay joins its children.
	w.report(again, 1, Report{StartRun: &StartRun{Key: "helper#1", Request: chat()}})
	if joined := next(w, &w.children); joined.Run.ID != first.Run.ID || string(joined.Run.Output) != `{"done":true}` {
		t.Fatalf("joined %+v", joined)
	}
	w.succeed(again, 2)
	b.wait(id)
	children, _, err := b.ListRuns(t.Context(), "default", ListRequest{ParentID: id, PageSize: 10})
	if err != nil || len(children) != 2 {
		t.Fatalf("children %v, %v", children, err)
	}
}

// TestSubRunsHaveADepth has an agent that runs itself, and waits each time.
func TestSubRunsHaveADepth(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	root := b.create(chat()).ID
	for range maxSubRunDepth {
		a := w.assignment()
		w.report(a, 1, Report{StartRun: &StartRun{Key: "chat#1", Request: chat()}})
		w.report(a, 2, Report{Park: &Wait{Runs: []string{next(w, &w.children).Run.ID}}})
	}
	deepest := w.assignment()
	w.report(deepest, 1, Report{StartRun: &StartRun{Key: "chat#1", Request: chat()}})
	if refusal := next(w, &w.refusals); !strings.Contains(refusal.Err.Error(), "does the agent run itself?") {
		t.Errorf("refused with %v", refusal.Err)
	}
	w.report(deepest, 2, Report{Fail: &Fail{Message: "too deep"}})
	for range maxSubRunDepth {
		w.succeed(w.assignment(), 1)
	}
	if run := b.wait(root); run.State != Succeeded {
		t.Errorf("run %+v", run)
	}
}

func TestCancelCascades(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	id := b.create(chat()).ID
	a := w.assignment()
	w.report(a, 1, Report{StartRun: &StartRun{Key: "helper#1", Request: chat()}})
	child := next(w, &w.children).Run.ID
	w.report(a, 2, Report{Park: &Wait{Runs: []string{child}}})
	w.assignment()
	if _, err := b.CancelRun(t.Context(), "default", id, ""); err != nil {
		t.Fatal(err)
	}
	b.wantEnd(id, Cancelled, ReasonCancelled)
	b.wantEnd(child, Cancelled, ReasonCancelled)
	if c := next(w, &w.cancellations); c.RunID != child {
		t.Fatalf("cancellation %+v", c)
	}
}

func TestConcurrencyKeyQueues(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(10, 0)
	keyed := func(strategy Strategy) CreateRequest {
		r := chat()
		r.Options.Concurrency = &Concurrency{Key: "conversation:1", Strategy: strategy}
		return r
	}
	first, second, third := b.create(keyed("")).ID, b.create(keyed(QueueWhenTaken)).ID, b.create(keyed("")).ID
	a := w.assignment()
	if a.Run.ID != first {
		t.Fatal("not the first run")
	}
	w.idle()
	if _, _, err := b.CreateRun(t.Context(), "default", keyed(RejectWhenTaken)); !errors.As(err, new(*ConcurrencyLimitError)) {
		t.Fatalf("err = %v", err)
	}
	w.succeed(a, 1)
	a = w.assignment()
	if a.Run.ID != second {
		t.Fatal("not the second run")
	}
	fourth := b.create(keyed(CancelWhoHasTaken)).ID
	b.wantEnd(second, Cancelled, ReasonCancelled)
	b.wantEnd(third, Cancelled, ReasonCancelled)
	a = w.assignment()
	if a.Run.ID != fourth {
		t.Fatal("not the fourth run")
	}
	w.succeed(a, 1)
	b.wait(fourth)
	rejecting := b.create(keyed(RejectWhenTaken))
	w.succeed(w.assignment(), 1)
	b.wait(rejecting.ID)
	b.sched.mu.Lock()
	defer b.sched.mu.Unlock()
	if len(b.sched.keys) != 0 {
		t.Fatalf("keys %v are held", b.sched.keys)
	}
}

func TestNamespacesTakeTurns(t *testing.T) {
	t.Parallel()
	g := newGate()
	b := setup(t, Config{MaxConcurrent: 1}, tasks{"gate": g.run})
	b.create(CreateRequest{TaskType: "gate"})
	<-g.begun
	for range 5 {
		b.create(CreateRequest{TaskType: "gate"})
	}
	if _, _, err := b.CreateRun(t.Context(), "small", CreateRequest{TaskType: "gate"}); err != nil {
		t.Fatal(err)
	}
	close(g.open)
	for place := 1; ; place++ {
		if call := <-g.begun; call.Namespace == "small" {
			if place > 2 {
				t.Fatalf("the other namespace's run began as number %d", place)
			}
			return
		}
	}
}

func TestFollowRunsSeesAllRunsOfTheNamespace(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(5, 0)
	var wait sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	var seen []Event
	all := make(chan struct{})
	wait.Go(func() {
		ends := 0
		err := b.FollowRuns(ctx, "default", FollowRequest{WithoutTypes: []string{"assistant.delta"}, MinInterval: time.Millisecond}, func(events []Event, _ uint64) error {
			for _, ev := range events {
				seen = append(seen, ev)
				if ev.Ends() {
					ends++
				}
			}
			if ends == 3 {
				close(all)
				ends = 0
			}
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("FollowRuns: %v", err)
		}
	})
	if _, _, err := b.CreateRun(t.Context(), "other", chat()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		b.create(chat())
		a := w.assignment()
		w.report(a, 1, Report{Events: []NewEvent{{Type: "assistant.delta", Visibility: User}, {Type: "tool.call", Visibility: Debug}}})
		w.succeed(a, 2)
	}
	<-all
	cancel()
	wait.Wait()
	never := func([]Event, uint64) error { return nil }
	if err := b.FollowRuns(t.Context(), "default", FollowRequest{After: 1 << 40}, never); !errors.As(err, new(*violation.Error)) {
		t.Errorf("a sequence of another journal: %v", err)
	}
	if len(seen) != 12 {
		t.Fatalf("%d events: %v", len(seen), typesOf(seen))
	}
	for i, ev := range seen[1:] {
		if ev.Sequence <= seen[i].Sequence {
			t.Fatal("not in order")
		}
	}
}

func TestVisibilityOfEvents(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	r := chat()
	r.Options.Visibility = map[string]Visibility{eventStarted: User}
	id := b.create(r).ID
	a := w.assignment()
	w.report(a, 1, Report{Events: []NewEvent{
		{Type: "tool.call", Visibility: Debug}, {Type: "assistant.message", Visibility: User}, {Type: "x", Visibility: Internal},
	}})
	w.succeed(a, 2)
	b.wait(id)
	for least, want := range map[Visibility][]string{
		User:  {eventStarted, "assistant.message", eventSucceeded},
		Debug: {eventStarted, "tool.call", "assistant.message", eventSucceeded},
	} {
		var got []string
		err := b.WatchRun(t.Context(), "default", id, 0, least, func(events []Event, _ uint64) error {
			got = append(got, typesOf(events)...)
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", least, got, err)
		}
	}
}

func TestEventsThatCannotBeEmitted(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	id := b.create(chat()).ID
	a := w.assignment()
	for i, ev := range []NewEvent{{Type: ""}, {Type: "run.succeeded"}, {Type: "x", Payload: []byte(`[1]`)}, {Type: "x", Payload: []byte(`{`)}} {
		w.report(a, uint64(i+1), Report{Events: []NewEvent{ev}})
		if r := next(w, &w.refusals); r.Err == nil || r.Report != uint64(i+1) {
			t.Fatalf("refusal %+v", r)
		}
	}
	w.succeed(a, 9)
	b.wait(id)
}

func TestStepsUpToTheLimitAreRecorded(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	r := chat()
	r.Options.Retry = fast(2)
	id := b.create(r).ID
	a := w.assignment()
	limit := b.cfg.MaxInputBytes
	result := fmt.Appendf(nil, "%q", strings.Repeat("<", limit-2))
	w.report(a, 1, Report{Step: &Step{Key: "page", Result: result}})
	if ack := next(w, &w.acks); ack.Report != 1 {
		t.Fatalf("acknowledged %+v", ack)
	}
	w.report(a, 2, Report{Step: &Step{Key: "larger", Result: append(result[:limit-1:limit-1], `>"`...)}})
	var tooLarge *violation.TooLargeError
	if r := next(w, &w.refusals); !errors.As(r.Err, &tooLarge) || tooLarge.Field != "step.result" || tooLarge.Size != limit+1 {
		t.Fatalf("refused with %v", r.Err)
	}
	w.report(a, 3, Report{Fail: &Fail{Message: "once more", Retryable: true}})
	a = w.assignment()
	if len(a.Steps) != 1 || !bytes.Equal(a.Steps[0].Result, result) {
		t.Fatalf("%d steps", len(a.Steps))
	}
	w.succeed(a, 1)
	b.wait(id)
}

func TestDrainingWorkerGetsNoRuns(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(2, 0)
	first := b.create(chat()).ID
	a := w.assignment()
	w.conn.Drain()
	second := b.create(chat()).ID
	w.idle()
	w.report(a, 1, Report{GiveBack: true})
	other := b.worker(2, 0)
	got := []string{other.assignment().Run.ID, other.assignment().Run.ID}
	if !slices.Contains(got, first) || !slices.Contains(got, second) {
		t.Fatalf("assigned %v", got)
	}
	if run, _ := b.GetRun(t.Context(), "default", first); run.Attempt != 1 {
		t.Fatalf("attempt %d: a run that is given back counts none", run.Attempt)
	}
	events := b.history(first, 0, 4)
	if back := events[2]; back.Type != eventRetrying || string(back.Payload) != `{"attempt":1,"reason":"GIVEN_BACK"}` {
		t.Errorf("%s %s", back.Type, back.Payload)
	}
}

func TestThousandRunsAreCancelledAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(500, 0)
	ids := make([]string, 1000)
	for i := range ids {
		ids[i] = b.create(chat()).ID
	}
	var wait sync.WaitGroup
	for _, id := range ids {
		wait.Go(func() {
			if _, err := b.CancelRun(t.Context(), "default", id, ""); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for _, id := range ids {
		b.wantEnd(id, Cancelled, ReasonCancelled)
	}
	w.disconnect()
	b.free()
}
