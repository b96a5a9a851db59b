package engine

import (
	"bytes"
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

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// says reports whether a record is the one in which a run enters a state.
func says(m journal.Message, state State) bool {
	return strings.HasPrefix(m.Subject, subjectPrefix) && bytes.Contains(m.Data, []byte(`"state":"`+string(state)+`"`))
}

// hatch holds records of one state, once it is shut, until it is opened.
type hatch struct {
	shut atomic.Bool
	// held is closed when a record is held, open opens it.
	held, open chan struct{}
}

// hatch puts one in front of the journal; no run may be there yet.
func (b *bundle) hatch(state State) *hatch {
	g := &hatch{held: make(chan struct{}), open: make(chan struct{})}
	var once sync.Once
	b.fault(&faulty{refuse: func(m journal.Message) error {
		if g.shut.Load() && says(m, state) {
			once.Do(func() { close(g.held) })
			<-g.open
		}
		return nil
	}})
	return g
}

// TestCallerThatGoesAwayLeavesNoRunHalfChanged has the callers of CancelRun and
// ResumeRun go while the journal keeps what they asked for.
func TestCallerThatGoesAwayLeavesNoRunHalfChanged(t *testing.T) {
	t.Parallel()
	t.Run("cancel", func(t *testing.T) {
		t.Parallel()
		b := setup(t, Config{}, tasks{})
		g := b.hatch(Cancelled)
		id := b.create(chat()).ID
		g.shut.Store(true)
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() {
			_, err := b.CancelRun(ctx, "default", id, "")
			gone <- err
		}()
		<-g.held
		leave()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller that left got %v", err)
		}
		close(g.open)
		b.wantEnd(id, Cancelled, ReasonCancelled)
		if run, err := b.CancelRun(t.Context(), "default", id, ""); err != nil || run.State != Cancelled {
			t.Errorf("a repeat: %s, %v", run.State, err)
		}
	})
	t.Run("resume", func(t *testing.T) {
		t.Parallel()
		b := setup(t, Config{}, tasks{})
		g := b.hatch(Queued)
		w := b.worker(1, 0)
		id := b.create(chat()).ID
		w.report(w.assignment(), 1, Report{Park: &Wait{InterruptID: "q#1"}})
		b.awaitWait(id)
		g.shut.Store(true)
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() {
			_, err := b.ResumeRun(ctx, "default", id, "q#1", []byte("true"))
			gone <- err
		}()
		<-g.held
		leave()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller that left got %v", err)
		}
		close(g.open)
		w.succeed(w.assignment(), 1)
		b.wait(id)
	})
}

// TestRunThatIsResumedAtOnceStaysQueued has the answer come in the turn after the
// one in which the run began to wait.
func TestRunThatIsResumedAtOnceStaysQueued(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	for range 50 {
		r := chat()
		r.Options.Concurrency = &Concurrency{Key: "key"}
		id := b.create(r).ID
		a := w.assignment()
		var answered sync.WaitGroup
		answered.Go(func() {
			for {
				if _, err := b.ResumeRun(t.Context(), "default", id, "q#1", nil); err == nil {
					return
				}
			}
		})
		w.report(a, 1, Report{Park: &Wait{InterruptID: "q#1"}})
		answered.Wait()
		w.succeed(w.assignment(), 1)
		b.wait(id)
	}
}

// start has a worker's run begin a sub-run, which is another of the worker's.
func (w *testWorker) start(a Assignment, number uint64) (child string) {
	w.b.t.Helper()
	w.report(a, number, Report{StartRun: &StartRun{Key: "helper#1", Request: chat()}})
	return next(w, &w.children).Run.ID
}

func TestSubRunsOfACancelledRunAreCancelledAfterACrash(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	var dead atomic.Pointer[string]
	b.fault(&faulty{refuse: func(m journal.Message) error {
		if id := dead.Load(); id != nil && says(m, Cancelled) && strings.Contains(m.Subject, journal.EncodeToken(*id)) {
			return errors.New("nothing more reaches the disk")
		}
		return nil
	}})
	w := b.worker(2, 0)
	parent := b.create(chat()).ID
	child := w.start(w.assignment(), 1)
	w.assignment()
	dead.Store(&child)
	if _, err := b.CancelRun(t.Context(), "default", parent, ""); err != nil {
		t.Fatal(err)
	}
	w.disconnect()
	b.crash()
	again := openEngine(t, b.dir, Config{}, tasks{})
	again.wantEnd(child, Cancelled, ReasonCancelled)
}

// TestSubRunThatIsAcceptedAsItsParentEndsIsCancelled has the parent end while the
// journal keeps the sub-run's first record.
func TestSubRunThatIsAcceptedAsItsParentEndsIsCancelled(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	g := b.hatch(Queued)
	w := b.worker(1, 0)
	parent := b.create(chat()).ID
	a := w.assignment()
	g.shut.Store(true)
	w.report(a, 1, Report{StartRun: &StartRun{Key: "helper#1", Request: chat()}})
	<-g.held
	if _, err := b.CancelRun(t.Context(), "default", parent, ""); err != nil {
		t.Fatal(err)
	}
	close(g.open)
	w.report(a, 2, Report{Release: true})
	b.wantEnd(next(w, &w.children).Run.ID, Cancelled, ReasonCancelled)
}

// TestEndThatDoesNotFitFailsItsRun has how a run ended be more than a record holds.
func TestEndThatDoesNotFitFailsItsRun(t *testing.T) {
	t.Parallel()
	tooLarge := func(m journal.Message) error {
		if says(m, Succeeded) {
			return fmt.Errorf("append: %w", journal.ErrTooLarge)
		}
		return nil
	}
	b := setup(t, Config{}, tasks{"echo": echo})
	b.fault(&faulty{refuse: tooLarge})
	w := b.worker(1, 0)
	b.wantEnd(b.create(CreateRequest{TaskType: "echo"}).ID, Failed, ReasonAgentFailed)
	id := b.create(chat()).ID
	w.succeed(w.assignment(), 1)
	b.wantEnd(id, Failed, ReasonAgentFailed)
}

func TestMetadataIsKeptAtItsSize(t *testing.T) {
	t.Parallel()
	r := record{Run: Run{State: Queued, Metadata: []byte(`{"text":"` + strings.Repeat("<&>", 1000) + `"}`)}}
	data, err := r.encode()
	if err != nil || len(data) > 4000 {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	again, err := decodeRecord(data)
	if err != nil || !bytes.Equal(again.Run.Metadata, r.Run.Metadata) {
		t.Errorf("read back %.50s…, %v", again.Run.Metadata, err)
	}
}

// TestRunWhoseAnswerWasLostKeepsItsKey has the answer of the append get lost; the
// caller's repeat finds the run in the journal.
func TestRunWhoseAnswerWasLostKeepsItsKey(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	answers := &losing{stream: b.stream}
	b.stream = answers
	lose := func(r CreateRequest) {
		t.Helper()
		answers.loses.Store(true)
		if _, _, err := b.CreateRun(t.Context(), "default", r); !errors.Is(err, journal.ErrUnavailable) {
			t.Fatalf("the first call: %v", err)
		}
		if _, _, err := b.CreateRun(t.Context(), "default", r); err != nil {
			t.Fatalf("its repeat: %v", err)
		}
	}
	r := chat()
	r.IdempotencyKey = "first"
	r.Options.Concurrency = &Concurrency{Key: "key", Strategy: RejectWhenTaken}
	lose(r)
	other := r
	other.IdempotencyKey = "second"
	if _, _, err := b.CreateRun(t.Context(), "default", other); !errors.As(err, new(*ConcurrencyLimitError)) {
		t.Errorf("a second run of the key: %v", err)
	}
	taker := taking("key")
	taker.IdempotencyKey = "taker"
	lose(taker)
	first, _, err := b.CreateRun(t.Context(), "default", r)
	if err != nil {
		t.Fatal(err)
	}
	b.wantEnd(first.ID, Cancelled, ReasonCancelled)
}

// losing is a stream that keeps the next record, and loses its answer, if it loses.
type losing struct {
	stream

	loses atomic.Bool
}

func (l *losing) AppendEach(ctx context.Context, ms []journal.Message) ([]journal.AppendResult, error) {
	results, err := l.stream.AppendEach(ctx, ms)
	if err == nil && l.loses.Swap(false) {
		results[0] = journal.AppendResult{Err: errNoAnswer}
	}
	return results, err
}

// TestStopHeedsItsContextWhileARunIsAccepted has a run take over a key in a journal that keeps nothing more.
func TestStopHeedsItsContextWhileARunIsAccepted(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	tried := make(chan struct{}, 1)
	b.fault(&faulty{refuse: func(m journal.Message) error {
		if !says(m, Cancelled) {
			return nil
		}
		select {
		case tried <- struct{}{}:
		default:
		}
		return journal.ErrUnavailable
	}})
	b.create(taking("key"))
	var accepting sync.WaitGroup
	accepting.Go(func() { _, _, _ = b.CreateRun(t.Context(), "default", taking("key")) })
	<-tried
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := b.Stop(ctx); err != nil {
		t.Error(err)
	}
	accepting.Wait()
}

// TestRunThatWaitsForWhatWakesNobodyFails has a worker ask for what would never end.
func TestRunThatWaitsForWhatWakesNobodyFails(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{"echo": echo})
	w := b.worker(1, 0)
	foreign := b.create(CreateRequest{TaskType: "echo", Wait: true}).ID
	many := make([]string, maxWaitFor+1)
	for name, runs := range map[string]func(own string) []string{
		"itself":      func(own string) []string { return []string{own} },
		"another run": func(string) []string { return []string{foreign} },
		"too many":    func(string) []string { return many },
	} {
		id := b.create(chat()).ID
		w.report(w.assignment(), 1, Report{Park: &Wait{Runs: runs(id)}})
		if run := b.wantEnd(id, Failed, ReasonAgentFailed); !strings.Contains(run.Error.Message, "wait_for") {
			t.Errorf("%s: %s", name, run.Error.Message)
		}
	}
	r := chat()
	r.Options.Visibility = map[string]Visibility{}
	for i := range maxVisibilities + 1 {
		r.Options.Visibility[fmt.Sprint("type", i)] = User
	}
	if _, _, err := b.CreateRun(t.Context(), "default", r); !errors.As(err, new(*violation.Error)) {
		t.Errorf("%d visibilities: %v", len(r.Options.Visibility), err)
	}
}

// TestRunThatRecordedMoreThanAWorkerIsGivenFails has a run be begun again with more
// steps than go into a message.
func TestRunThatRecordedMoreThanAWorkerIsGivenFails(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{MaxAssignmentBytes: 1000}, tasks{})
	w := b.worker(1, 0)
	r := chat()
	r.Options.Retry = fast(3)
	id := b.create(r).ID
	a := w.assignment()
	for i := range 3 {
		result := fmt.Appendf(nil, "%q", strings.Repeat("x", 400))
		w.report(a, uint64(i+1), Report{Step: &Step{Key: fmt.Sprint("work#", i), Result: result}})
	}
	w.report(a, 4, Report{Fail: &Fail{Message: "again", Retryable: true}})
	if run := b.wantEnd(id, Failed, ReasonAgentFailed); !strings.Contains(run.Error.Message, "a worker is given at most 1000") {
		t.Errorf("%s", run.Error.Message)
	}
}

func TestAnswersComeWithWhatWasAsked(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	id := b.create(chat()).ID
	for i := range 2 {
		w.report(w.assignment(), 1, Report{Park: &Wait{
			InterruptID: fmt.Sprint("q#", i), Payload: fmt.Appendf(nil, `"question %d"`, i),
		}})
		b.awaitWait(id)
		if _, err := b.ResumeRun(t.Context(), "default", id, "", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	a := w.assignment()
	for i, answer := range a.Answers {
		if string(answer.Question) != fmt.Sprintf(`"question %d"`, i) || string(answer.Value) != strconv.Itoa(i) {
			t.Errorf("answer %d to %s is %s", i, answer.Question, answer.Value)
		}
	}
	if len(a.Answers) != 2 {
		t.Errorf("%d answers", len(a.Answers))
	}
}

// TestRunSucceedsNotWithoutAnEventOfIts has the result come right behind an event that
// is refused, before the worker hears of that.
func TestRunSucceedsNotWithoutAnEventOfIts(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	id := b.create(chat()).ID
	a := w.assignment()
	number := `{"n": -1` + strings.Repeat("0", 5000) + `}`
	refused := Report{
		RunID: id, Lease: a.Lease, Number: 1,
		Events: []NewEvent{{Type: "n", Visibility: User, Payload: []byte(number)}},
	}
	success := Report{RunID: id, Lease: a.Lease, Number: 2, Succeed: &Succeed{Output: []byte("{}")}}
	if err := w.conn.Report(t.Context(), []Report{refused, success}); err != nil {
		t.Fatal(err)
	}
	if run := b.wantEnd(id, Failed, ReasonAgentFailed); !strings.Contains(run.Error.Message, "did not keep an event") {
		t.Errorf("%s", run.Error.Message)
	}
}

// TestWatchOfARunThatIsBeingRemovedSaysSo has the events be gone, and the run's own
// records not yet.
func TestWatchOfARunThatIsBeingRemovedSaysSo(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	id := b.create(chat()).ID
	a := w.assignment()
	events := make([]NewEvent, 3000)
	for i := range events {
		events[i] = NewEvent{Type: "n", Visibility: User}
	}
	w.report(a, 1, Report{Events: events})
	w.succeed(a, 2)
	b.wait(id)
	removed := false
	err := b.WatchRun(t.Context(), "default", id, 0, Internal, func([]Event, uint64) error {
		if removed {
			return nil
		}
		removed = true
		b.index.takeOld(1, time.Now(), func(*Run) bool { return false })
		return b.stream.Purge(t.Context(), eventSubject("default", id))
	})
	if !errors.As(err, new(*RunNotFoundError)) {
		t.Errorf("the watch ended with %v", err)
	}
}

// lagging is a stream whose scans give an older record of each run first.
type lagging struct{ stream }

func (l *lagging) Scan(
	ctx context.Context, after uint64, _ bool, filters []string, fn func(journal.Record) error,
) (uint64, error) {
	// All records in order: the newest of each run comes last.
	return l.stream.Scan(ctx, after, false, filters, fn)
}

func TestRunIsTakenUpAsItsNewestRecordSays(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{"echo": echo})
	ended := b.create(CreateRequest{TaskType: "echo", Wait: true}).ID
	e, err := New(Config{}, b.journal, tasks{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	e.stream = &lagging{b.stream}
	if err := e.recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	run, err := e.GetRun(t.Context(), "default", ended)
	if err != nil || run.State != Succeeded || e.sched.length() != 0 {
		t.Errorf("run %s, %d queued, %v", run.State, e.sched.length(), err)
	}
}

// TestSubRunDoesNotWaitForItsParentsKey has a run ask for a sub-run that would wait
// for the run itself to end.
func TestSubRunDoesNotWaitForItsParentsKey(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	r := chat()
	r.Options.Concurrency = &Concurrency{Key: "key"}
	b.create(r)
	w.report(w.assignment(), 1, Report{StartRun: &StartRun{Key: "helper#1", Request: r}})
	if refusal := next(w, &w.refusals); !errors.As(refusal.Err, new(*violation.Error)) {
		t.Errorf("refused with %v", refusal.Err)
	}
}

// TestWorkerIsHeardOfWhileItsReportIsKept has the journal take longer for a report
// than a lease holds: that says nothing about the worker.
func TestWorkerIsHeardOfWhileItsReportIsKept(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	g := b.hatch(Succeeded)
	w := b.worker(2, time.Second)
	ids := []string{b.create(chat()).ID, b.create(chat()).ID}
	first, second := w.assignment(), w.assignment()
	g.shut.Store(true)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		w.succeed(first, 1)
	}()
	<-g.held
	<-time.After(2500 * time.Millisecond)
	g.shut.Store(false)
	close(g.open)
	<-kept
	w.succeed(second, 1)
	for _, id := range ids {
		if run := b.wait(id); run.State != Succeeded || run.Attempt != 1 {
			t.Errorf("%s in attempt %d", run.State, run.Attempt)
		}
	}
}

// TestWhoHasReadTheEndFindsTheRunEnded has the journal's readers know of the end
// before the engine is told that it is kept.
func TestWhoHasReadTheEndFindsTheRunEnded(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	told := make(chan struct{})
	b.fault(&faulty{appended: func(m journal.Message) {
		if says(m, Succeeded) {
			<-told
		}
	}})
	id := b.create(chat()).ID
	states := make(chan State, 1)
	var watching sync.WaitGroup
	watching.Go(func() {
		err := b.WatchRun(t.Context(), "default", id, 0, User, func(events []Event, _ uint64) error {
			for _, ev := range events {
				if ev.Ends() {
					states <- b.GetState(id)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	w := b.worker(1, 0)
	a := w.assignment()
	watching.Go(func() { w.succeed(a, 1) })
	<-time.After(300 * time.Millisecond)
	close(told)
	watching.Wait()
	if state := <-states; state != Succeeded {
		t.Errorf("the end was sent, and the run is %s", state)
	}
}

// TestWaitersOfAnEndedRunAreToldOfIt also when the engine stops at that moment.
func TestWaitersOfAnEndedRunAreToldOfIt(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	id := b.create(chat()).ID
	w := b.worker(1, 0)
	w.succeed(w.assignment(), 1)
	b.wait(id)
	ent := b.index.get("default", id)
	b.stop(0)
	for range 100 {
		if err := b.awaitEnd(t.Context(), ent, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKeyIsTakenFromThoseWhoWaitForItFirst as else one of them would begin in between.
func TestKeyIsTakenFromThoseWhoWaitForItFirst(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	r := chat()
	r.Options.Concurrency = &Concurrency{Key: "key"}
	w := b.worker(1, 0)
	ids := []string{b.create(r).ID}
	w.assignment()
	ids = append(ids, b.create(r).ID, b.create(r).ID)
	other := r
	other.Options.Concurrency = &Concurrency{Key: "other"}
	by := b.index.get("default", b.create(other).ID)
	from := b.sched.takeOver("default", "key", by)
	if len(from) != 3 || from[2].id != ids[0] {
		t.Fatalf("%d runs, the last is not the one that holds the key", len(from))
	}
}

// TestParentSaysWhichOfItsSubRunsAsks to who would answer the parent.
func TestParentSaysWhichOfItsSubRunsAsks(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(2, 0)
	id := b.create(chat()).ID
	parent := w.assignment()
	child := w.start(parent, 1)
	w.report(w.assignment(), 1, Report{Park: &Wait{InterruptID: "q#1"}})
	b.awaitWait(child)
	w.report(parent, 2, Report{Park: &Wait{Runs: []string{child}}})
	b.awaitWait(id)
	_, err := b.ResumeRun(t.Context(), "default", id, "", nil)
	if !errors.As(err, new(*NotWaitingError)) || !strings.Contains(err.Error(), child) {
		t.Fatalf("%v does not name %s", err, child)
	}
	if _, err := b.ResumeRun(t.Context(), "default", child, "", nil); err != nil {
		t.Fatal(err)
	}
}
