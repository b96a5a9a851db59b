package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
)

// patience fails a test that waits in vain.
const patience = 30 * time.Second

// server executes the agent "support": each POST has the next of its answers.
type server struct {
	*httptest.Server

	// asked has what each POST said, gone one for each that hung and was closed.
	asked chan request
	gone  chan struct{}
}

type answer func(s *server, w http.ResponseWriter, r *http.Request)

func serve(t *testing.T, answers ...answer) *server {
	t.Helper()
	s := &server{asked: make(chan request, 10), gone: make(chan struct{}, 10)}
	var posts atomic.Int32
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var said request
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &said)
		}
		place := int(posts.Add(1)) - 1
		if err != nil || r.Header.Get("Idempotency-Key") != said.RunID || place >= len(answers) {
			t.Errorf("POST %d: %v %s: %v", place+1, r.Header, body, err)
			return
		}
		s.asked <- said
		answers[place](s, w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func says(output string) answer {
	return func(_ *server, w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, output) }
}

func refuses(status int) answer {
	return func(_ *server, w http.ResponseWriter, _ *http.Request) { http.Error(w, "a secret", status) }
}

// hangs is an answer that never comes.
func hangs(s *server, _ http.ResponseWriter, r *http.Request) {
	<-r.Context().Done()
	s.gone <- struct{}{}
}

// within receives, unless nothing comes.
func within[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(patience):
		t.Fatalf("no %T came", *new(T))
		return *new(T)
	}
}

// bench is an engine on a journal of its own.
type bench struct {
	*engine.Engine

	t       *testing.T
	journal *journal.Journal
}

// open is a bench whose agent "support" a server executes.
func open(t *testing.T, dir string, s *server, defaults engine.RunDefaults) *bench {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	provider, err := model.New(model.Config{}, log)
	if err != nil {
		t.Fatal(err)
	}
	registry, err := New(Config{Provider: provider, Endpoints: map[string]Endpoint{"support": {URL: s.URL, RunDefaults: defaults}}})
	if err != nil {
		t.Fatal(err)
	}
	return openWith(t, dir, registry)
}

// openWith is open with any agents and tasks.
func openWith(t *testing.T, dir string, registry *Registry) *bench {
	t.Helper()
	return openOn(t, dir, func(*journal.Journal) (*Registry, store) { return registry, nil })
}

// store is what keeps something beside runs in their journal.
type store interface {
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
}

// openOn is openWith where what can be run needs the journal, and a store in it, which is
// nil where none is needed.
func openOn(t *testing.T, dir string, prepare func(j *journal.Journal) (*Registry, store)) *bench {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	j, err := journal.New(journal.Config{DataDir: dir, Durability: journal.OS}, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	registry, beside := prepare(j)
	e, err := engine.New(engine.Config{}, j, registry, log)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{Engine: e, t: t, journal: j}
	t.Cleanup(b.crash)
	if beside != nil {
		t.Cleanup(func() {
			if err := beside.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		})
		if err := beside.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// crash ends the engine as a kill does: nothing more reaches the journal.
func (b *bench) crash() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	if err := errors.Join(b.journal.Stop(context.Background()), b.Stop(now)); err != nil {
		b.t.Error(err)
	}
}

// ask creates a run of the agent.
func (b *bench) ask() string {
	b.t.Helper()
	run, _, err := b.CreateRun(b.t.Context(), "default", engine.CreateRequest{
		Target: engine.AgentTarget, AgentID: "support", TaskType: "agent.run", Input: []byte(`{"q":1}`),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return run.ID
}

// wantEnd waits for the end of a run and checks how and when it came.
func (b *bench) wantEnd(runID string, state engine.State, attempt int) engine.Run {
	b.t.Helper()
	run, err := b.WaitRun(b.t.Context(), "default", runID, patience)
	if err != nil || run.State != state || run.Attempt != attempt {
		b.t.Fatalf("run is %s in attempt %d with %+v, want %s in %d: %v", run.State, run.Attempt, run.Error, state, attempt, err)
	}
	return run
}

// wantDeadLetter checks that a run is the only dead letter.
func (b *bench) wantDeadLetter(runID string) {
	b.t.Helper()
	dead, _, err := b.ListRuns(b.t.Context(), "default", engine.ListRequest{DeadLetters: true, PageSize: 10})
	if err != nil || len(dead) != 1 || dead[0].ID != runID {
		b.t.Errorf("dead letters %+v, %v", dead, err)
	}
}

func TestEndpointIsAskedAgain(t *testing.T) {
	t.Parallel()
	s := serve(t, refuses(http.StatusServiceUnavailable), says(`{"answer":42}`))
	soon := &engine.RetryPolicy{InitialBackoff: time.Millisecond}
	b := open(t, t.TempDir(), s, engine.RunDefaults{Retry: soon})
	id := b.ask()
	if run := b.wantEnd(id, engine.Succeeded, 2); string(run.Output) != `{"answer":42}` || run.Error != nil {
		t.Errorf("output %s, error %+v", run.Output, run.Error)
	}
	for attempt := 1; attempt <= 2; attempt++ {
		if said := within(t, s.asked); said.RunID != id || said.Attempt != attempt || string(said.Input) != `{"q":1}` {
			t.Errorf("POST %d said %+v", attempt, said)
		}
	}
}

// TestEndpointSaysWhenToComeBack has the retry policy say otherwise.
func TestEndpointSaysWhenToComeBack(t *testing.T) {
	t.Parallel()
	s := serve(t, func(_ *server, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
	}, says(`{}`))
	b := open(t, t.TempDir(), s, engine.RunDefaults{Retry: &engine.RetryPolicy{InitialBackoff: time.Hour, MaxBackoff: time.Hour}})
	before := time.Now()
	if run := b.wantEnd(b.ask(), engine.Succeeded, 2); run.StartedAt.Before(before.Add(time.Second)) {
		t.Errorf("asked again after %s", run.StartedAt.Sub(before))
	}
}

func TestEndpointIsAskedNoMoreOfACancelledRun(t *testing.T) {
	t.Parallel()
	s := serve(t, hangs)
	b := open(t, t.TempDir(), s, engine.RunDefaults{RunTimeout: time.Hour})
	id := b.ask()
	within(t, s.asked)
	if _, err := b.CancelRun(t.Context(), "default", id, "not needed"); err != nil {
		t.Fatal(err)
	}
	within(t, s.gone)
	b.wantEnd(id, engine.Cancelled, 1)
}

func TestEndpointThatTakesTooLong(t *testing.T) {
	t.Parallel()
	s := serve(t, hangs)
	b := open(t, t.TempDir(), s, engine.RunDefaults{RunTimeout: 100 * time.Millisecond})
	id := b.ask()
	if run := b.wantEnd(id, engine.TimedOut, 1); run.Error.Reason != engine.ReasonTimedOut {
		t.Errorf("error %+v", run.Error)
	}
	within(t, s.gone)
	b.wantDeadLetter(id)
}

// TestEndpointThatRefuses shows nobody but the log what else the server said.
func TestEndpointThatRefuses(t *testing.T) {
	t.Parallel()
	s := serve(t, refuses(http.StatusUnprocessableEntity), says(`{"answer":42}`))
	b := open(t, t.TempDir(), s, engine.RunDefaults{})
	id := b.ask()
	run := b.wantEnd(id, engine.Failed, 1)
	if e := run.Error; e.Reason != engine.ReasonAgentFailed || e.Retryable || !strings.Contains(e.Message, "422") || strings.Contains(e.Message, "secret") {
		t.Errorf("error %+v", e)
	}
	b.wantDeadLetter(id)
	again, err := b.RetryRun(t.Context(), "default", id, "", "")
	if err != nil {
		t.Fatal(err)
	}
	b.wantEnd(again.ID, engine.Succeeded, 1)
}

func TestEndpointIsAskedAgainAfterACrash(t *testing.T) {
	t.Parallel()
	s := serve(t, hangs, says(`{"answer":42}`))
	dir := t.TempDir()
	b := open(t, dir, s, engine.RunDefaults{})
	id := b.ask()
	within(t, s.asked)
	b.crash()
	within(t, s.gone)
	b = open(t, dir, s, engine.RunDefaults{})
	if run := b.wantEnd(id, engine.Succeeded, 2); string(run.Output) != `{"answer":42}` {
		t.Errorf("output %s", run.Output)
	}
	if said := within(t, s.asked); said.RunID != id || said.Attempt != 2 {
		t.Errorf("the second POST said %+v", said)
	}
}
