package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// speaker is a task that says a word for every message of said, and returns when that is closed.
type speaker struct {
	said chan string
	// failed gets what Emit returns.
	failed chan error
}

func newSpeaker() *speaker { return &speaker{said: make(chan string), failed: make(chan error, 100)} }

func (s *speaker) run(ctx context.Context, call Call) ([]byte, error) {
	for {
		select {
		case word, more := <-s.said:
			if !more {
				return []byte(`{}`), nil
			}
			s.failed <- call.Emit(ctx, NewEvent{Type: "assistant.delta", Payload: fmt.Appendf(nil, `{"content":%q}`, word)})
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (s *speaker) say(t *testing.T, words ...string) {
	t.Helper()
	for _, word := range words {
		s.said <- word
		if err := <-s.failed; err != nil {
			t.Fatalf("Emit: %v", err)
		}
	}
}

func TestTaskOfTheRuntimeEmits(t *testing.T) {
	t.Parallel()
	s := newSpeaker()
	b := setup(t, Config{}, tasks{"speak": s.run})
	run := b.create(CreateRequest{TaskType: "speak"})
	s.say(t, "one", "two")
	// They are seen while the run goes on.
	events := b.history(run.ID, 0, 3)
	if got := typesOf(events); !slices.Equal(got, []string{eventStarted, "assistant.delta", "assistant.delta"}) {
		t.Fatalf("events %v", got)
	}
	for i, word := range []string{"one", "two"} {
		ev := events[i+1]
		if string(ev.Payload) != fmt.Sprintf(`{"content":%q}`, word) || ev.Visibility != User || ev.Attempt != 1 || ev.Run != nil {
			t.Errorf("event %+v", ev)
		}
	}
	close(s.said)
	b.wait(run.ID)
	if got := typesOf(b.history(run.ID, events[2].Sequence, 0)); !slices.Equal(got, []string{eventSucceeded}) {
		t.Errorf("the end is %v", got)
	}
}

func TestVisibilityOfWhatATaskEmits(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{"emit": func(ctx context.Context, call Call) ([]byte, error) {
		return []byte(`{}`), call.Emit(ctx,
			NewEvent{Type: "assistant.message"}, NewEvent{Type: "assistant.delta"}, NewEvent{Type: "assistant.delta", Visibility: Debug})
	}})
	run := b.create(CreateRequest{
		TaskType: "emit", Wait: true,
		Options: Options{Visibility: map[string]Visibility{"assistant.delta": Internal}},
	})
	var got []Visibility
	for _, ev := range b.history(run.ID, 0, 0) {
		if ev.Run == nil {
			got = append(got, ev.Visibility)
		}
	}
	if want := []Visibility{User, Internal, Debug}; !slices.Equal(got, want) {
		t.Errorf("visibilities %v, want %v", got, want)
	}
	_, _, err := b.CreateRun(t.Context(), "default", CreateRequest{
		TaskType: "emit", Options: Options{Visibility: map[string]Visibility{"": User}},
	})
	if !errors.As(err, new(*violation.Error)) {
		t.Errorf("a visibility of no type: %v", err)
	}
}

func TestWhatATaskCannotEmit(t *testing.T) {
	t.Parallel()
	large := make([]byte, 100)
	refused := make(chan error, 4)
	b := setup(t, Config{MaxInputBytes: 50}, tasks{"emit": func(ctx context.Context, call Call) ([]byte, error) {
		for _, ev := range []NewEvent{{Type: ""}, {Type: "run.succeeded"}, {Type: "x", Payload: []byte(`[1]`)}, {Type: "x", Payload: large}} {
			refused <- call.Emit(ctx, ev)
		}
		return []byte(`{}`), call.Emit(ctx, NewEvent{Type: "x"})
	}})
	run := b.create(CreateRequest{TaskType: "emit", Wait: true})
	for range cap(refused) {
		if err := <-refused; !errors.As(err, new(*violation.Error)) && !errors.As(err, new(*violation.TooLargeError)) {
			t.Errorf("Emit: %v", err)
		}
	}
	if got := typesOf(b.history(run.ID, 0, 0)); !slices.Equal(got, []string{eventStarted, "x", eventSucceeded}) {
		t.Errorf("events %v", got)
	}
}

// TestTaskThatGoesOnEmitsNothing holds a task that does not heed its context to its lease.
func TestTaskThatGoesOnEmitsNothing(t *testing.T) {
	t.Parallel()
	begun, ended, late := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	b := setup(t, Config{}, tasks{"deaf": func(_ context.Context, call Call) ([]byte, error) {
		close(begun)
		<-ended
		late <- call.Emit(context.Background(), NewEvent{Type: "late"}) //nolint:contextcheck // it is deaf
		return []byte(`{}`), nil
	}})
	run := b.create(CreateRequest{TaskType: "deaf"})
	<-begun
	if _, err := b.CancelRun(t.Context(), "default", run.ID, ""); err != nil {
		t.Fatal(err)
	}
	b.wait(run.ID)
	close(ended)
	if err := <-late; !errors.Is(err, ErrLeaseLost) {
		t.Errorf("Emit behind the end: %v", err)
	}
	if got := typesOf(b.history(run.ID, 0, 0)); !slices.Equal(got, []string{eventStarted, eventCancelled}) {
		t.Errorf("events %v", got)
	}
}

func TestTaskThatIsBegunAgainAfterACrashEmitsAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newSpeaker()
	b := openEngine(t, dir, Config{}, tasks{"speak": s.run})
	id := b.create(CreateRequest{TaskType: "speak"}).ID
	s.say(t, "one")
	b.history(id, 0, 2) // until it is durable
	b.crash()

	s = newSpeaker()
	b = openEngine(t, dir, Config{}, tasks{"speak": s.run})
	s.say(t, "one", "two")
	close(s.said)
	if run := b.wait(id); run.State != Succeeded || run.Attempt != 2 {
		t.Fatalf("run %+v", run)
	}
	events := b.history(id, 0, 0)
	want := []string{
		eventStarted, "assistant.delta", eventRetrying,
		eventStarted, "assistant.delta", "assistant.delta", eventSucceeded,
	}
	if got := typesOf(events); !slices.Equal(got, want) {
		t.Fatalf("events %v, want %v", got, want)
	}
	if events[1].Attempt != 1 || events[5].Attempt != 2 {
		t.Errorf("attempts %d and %d", events[1].Attempt, events[5].Attempt)
	}
}

func TestTasksEmitAtTheSameTime(t *testing.T) {
	t.Parallel()
	const each = 50
	b := setup(t, Config{}, tasks{"crowd": func(ctx context.Context, call Call) ([]byte, error) {
		var crowd sync.WaitGroup
		failures := make(chan error, 4*each)
		for range 4 {
			crowd.Go(func() {
				for range each {
					failures <- call.Emit(ctx, NewEvent{Type: "x"})
				}
			})
		}
		crowd.Wait()
		close(failures)
		var all []error
		for err := range failures {
			all = append(all, err)
		}
		return []byte(`{}`), errors.Join(all...)
	}})
	run := b.create(CreateRequest{TaskType: "crowd", Wait: true})
	if run.State != Succeeded {
		t.Fatalf("run %+v", run.Error)
	}
	if events := b.history(run.ID, 0, 0); len(events) != 4*each+2 {
		t.Errorf("%d events, want %d", len(events), 4*each+2)
	}
}

func TestEventsOfManyRunsInOneMessage(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(3, 0)
	var runs []Assignment
	for range 3 {
		b.create(chat())
		runs = append(runs, w.assignment())
	}
	of := func(run int, number uint64, r Report) Report {
		r.RunID, r.Lease, r.Number = runs[run].Run.ID, runs[run].Lease, number
		return r
	}
	lost := of(2, 4, emitText("of no lease"))
	lost.Lease = 12345
	message := []Report{
		of(0, 1, emitText("one")), of(1, 1, emitText("one")), of(0, 2, emitText("two")),
		of(2, 1, Report{Events: []NewEvent{{Type: "run.mine"}}}),
		of(2, 2, emitText("two")), lost, of(1, 2, emitText("two")),
		of(2, 3, Report{Events: append(emitText("three").Events, emitText("four").Events...)}),
		of(0, 3, Report{Succeed: &Succeed{Output: []byte(`{}`)}}), of(1, 3, emitText("three")),
	}
	// A worker whose connection broke sends again what was not acknowledged.
	for range 2 {
		if err := w.conn.Report(t.Context(), message); err != nil {
			t.Fatal(err)
		}
	}
	for run, want := range [][]string{{"one", "two"}, {"one", "two", "three"}, {"two", "three", "four"}} {
		texts := contents(t, b.history(runs[run].Run.ID, 0, len(want)+1))
		if !slices.Equal(texts, want) {
			t.Errorf("run %d emitted %v, want %v", run, texts, want)
		}
	}
	refused := map[uint64]bool{}
	for range 3 {
		r := next(w, &w.refusals)
		refused[r.Report] = true
		if r.Lease == lost.Lease && !errors.Is(r.Err, ErrLeaseLost) {
			t.Errorf("report %d refused with %v", r.Report, r.Err)
		}
	}
	if !refused[1] || !refused[4] {
		t.Errorf("refused %v, want the one of a type of the runtime's and the one of no lease", refused)
	}
	acked := map[string]uint64{}
	for want := map[string]uint64{runs[0].Run.ID: 3, runs[1].Run.ID: 3, runs[2].Run.ID: 3}; !maps.Equal(acked, want); {
		a := next(w, &w.acks)
		acked[a.RunID] = max(acked[a.RunID], a.Report)
	}
	b.wait(runs[0].Run.ID)
	for run := 1; run <= 2; run++ {
		w.succeed(runs[run], 4)
		b.wait(runs[run].Run.ID)
	}
	b.free()
}

// contents returns what a run's assistant.message and assistant.delta events say.
func contents(t *testing.T, events []Event) []string {
	t.Helper()
	var all []string
	for _, ev := range events {
		var payload struct {
			Content string `json:"content"`
		}
		if !strings.HasPrefix(ev.Type, "assistant.") {
			continue
		}
		if err := json.Unmarshal(ev.Payload, &payload); err != nil {
			t.Fatal(err)
		}
		all = append(all, payload.Content)
	}
	return all
}

func TestEventWhoseAppendHadNoAnswerIsAddedOnce(t *testing.T) {
	t.Parallel()
	s := newSpeaker()
	b := setup(t, Config{}, tasks{"speak": s.run})
	var looks atomic.Int32
	b.fault(&faulty{
		append: func(number int64, add func() (uint64, error)) (uint64, error) {
			seq, err := add()
			if number == 1 {
				return 0, errNoAnswer
			}
			return seq, err
		},
		last: func(subject string) error {
			if strings.HasPrefix(subject, eventPrefix) && looks.Add(1) <= 2 {
				return errNoAnswer
			}
			return nil
		},
	})
	run := b.create(CreateRequest{TaskType: "speak"})
	s.say(t, "one", "two")
	close(s.said)
	b.wait(run.ID)
	if got := contents(t, b.history(run.ID, 0, 0)); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("said %v", got)
	}
	if n := b.records(t, eventSubject("default", run.ID)); n != 2 || looks.Load() != 3 {
		t.Errorf("%d records after %d looks", n, looks.Load())
	}
}

// TestEventThatIsAddedLateToo is about an append that was given up and took place after all.
func TestEventThatIsAddedLateToo(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	var late func() (uint64, error)
	b.fault(&faulty{append: func(number int64, add func() (uint64, error)) (uint64, error) {
		if number == 2 {
			late = add
			return 0, errNoAnswer
		}
		return add()
	}})
	w := b.worker(1, 0)
	r := chat()
	r.Options.Retry = fast(2)
	id := b.create(r).ID
	a := w.assignment()
	w.report(a, 1, emitText("one"))
	w.report(a, 2, Report{Step: &Step{Key: "pay", Result: []byte(`1`)}})
	w.report(a, 3, Report{Events: append(emitText("two").Events, emitText("three").Events...)})
	if _, err := late(); err != nil {
		t.Fatal(err)
	}
	w.report(a, 4, emitText("four"))
	w.report(a, 5, Report{Fail: &Fail{Message: "once more", Retryable: true}})
	a = w.assignment()
	if len(a.Steps) != 1 {
		t.Errorf("steps %+v", a.Steps)
	}
	w.report(a, 1, emitText("five"))
	w.succeed(a, 2)
	b.wait(id)
	events := b.history(id, 0, 0)
	if got := contents(t, events); !slices.Equal(got, []string{"one", "two", "three", "four", "five"}) {
		t.Errorf("said %v", got)
	}
	steps := 0
	for _, eventType := range typesOf(events) {
		if eventType == eventStep {
			steps++
		}
	}
	if n := b.records(t, eventSubject("default", id)); steps != 1 || n != 7 {
		t.Errorf("the step was shown %d times, and there are %d events", steps, n)
	}
	for i, ev := range events {
		if rest := b.history(id, ev.Sequence, 0); !slices.Equal(typesOf(rest), typesOf(events[i+1:])) {
			t.Errorf("behind %s came %v, want %v", ev.Type, typesOf(rest), typesOf(events[i+1:]))
		}
	}
}

func TestTaskEmitsAfterACallThatFailedMidway(t *testing.T) {
	t.Parallel()
	failed := make(chan error, 1)
	b := setup(t, Config{}, tasks{"emit": func(ctx context.Context, call Call) ([]byte, error) {
		failed <- call.Emit(ctx, NewEvent{Type: "one"}, NewEvent{Type: "two"}, NewEvent{Type: "three"})
		return []byte(`{}`), call.Emit(ctx, NewEvent{Type: "four"}, NewEvent{Type: "five"})
	}})
	b.fault(&faulty{append: func(number int64, add func() (uint64, error)) (uint64, error) {
		if number == 2 {
			return 0, journal.ErrTooLarge
		}
		return add()
	}})
	run := b.create(CreateRequest{TaskType: "emit", Wait: true})
	if err := <-failed; !errors.Is(err, journal.ErrTooLarge) {
		t.Errorf("Emit: %v", err)
	}
	if got := typesOf(b.history(run.ID, 0, 0)); !slices.Equal(got, []string{eventStarted, "one", "four", "five", eventSucceeded}) {
		t.Errorf("events %v", got)
	}
}

// TestEventThatIsNotKeptAtOnceHoldsUpNoOther has the journal refuse one run's event
// among those of others in a message, in the ways in which it does.
func TestEventThatIsNotKeptAtOnceHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		// refusal is how the first event fails until there is room; together says
		// that none of the message is appended then.
		refusal  error
		together bool
	}{
		"no space":          {refusal: journal.ErrNoSpace},
		"no answer":         {refusal: errNoAnswer},
		"none was appended": {refusal: journal.ErrNoSpace, together: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, Config{}, tasks{})
			var room atomic.Bool
			refuse := func(m journal.Message) error {
				if !room.Load() && strings.Contains(string(m.Data), "first") {
					return test.refusal
				}
				return nil
			}
			b.fault(&faulty{refuse: refuse, together: test.together})
			w := b.worker(3, 0)
			var runs []Assignment
			var message []Report
			for _, text := range []string{"first", "second", "third"} {
				b.create(chat())
				a := w.assignment()
				r := emitText(text)
				r.RunID, r.Lease, r.Number = a.Run.ID, a.Lease, 1
				runs, message = append(runs, a), append(message, r)
			}
			reported := make(chan error, 1)
			go func() { reported <- w.conn.Report(context.Background(), message) }()
			for range 2 {
				if a := next(w, &w.acks); a.RunID == runs[0].Run.ID {
					t.Error("the event that was refused is acknowledged")
				}
			}
			// The others' runs are free.
			for _, run := range runs[1:] {
				if _, err := b.CancelRun(t.Context(), "default", run.Run.ID, ""); err != nil {
					t.Error(err)
				}
			}
			room.Store(true)
			if a := next(w, &w.acks); a.RunID != runs[0].Run.ID || a.Report != 1 {
				t.Errorf("acknowledged %+v", a)
			}
			if err := <-reported; err != nil {
				t.Error(err)
			}
			w.succeed(runs[0], 2)
			b.wait(runs[0].Run.ID)
			for i, text := range []string{"first", "second", "third"} {
				if got := contents(t, b.history(runs[i].Run.ID, 0, 0)); !slices.Equal(got, []string{text}) {
					t.Errorf("run %d said %v", i, got)
				}
			}
		})
	}
}
