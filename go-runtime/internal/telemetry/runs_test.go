package telemetry_test

import (
	"context"
	"encoding/hex"
	"log/slog"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/otlptest"
	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
)

// asking is a task that asks once.
type asking struct{}

func (asking) Resolve(string, engine.Target, string, string, []byte) (engine.Task, error) {
	return func(ctx context.Context, call engine.Call) ([]byte, error) {
		_, node := span.StartNode(ctx, "graph", "ask")
		defer node.End(nil)
		if len(call.Answers) == 0 {
			return nil, &engine.ParkedError{InterruptID: "q", Payload: []byte(`{"sure":"?"}`)}
		}
		return []byte(`{"done":true}`), nil
	}, nil
}

func (asking) CheckMetadata(engine.Target, string, string, []byte) error { return nil }

func (asking) ConcurrencyKey(engine.Target, string, []byte) string { return "" }

func (asking) Defaults(string, engine.Target, string) engine.RunDefaults { return engine.RunDefaults{} }

// TestTraceSurvivesARestart has a run wait for an answer while the runtime is another
// process: what follows the answer is in the same trace, under the same span.
func TestTraceSurvivesARestart(t *testing.T) {
	t.Parallel()
	receiver := otlptest.New(t)
	dir := t.TempDir()
	// open starts a runtime in the folder, as a process of its own would.
	open := func() (*engine.Engine, func()) {
		tracing := openTracing(t, receiver.URL)
		j, err := journal.New(journal.Config{DataDir: dir, Durability: journal.OS}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		tracer := span.New(span.Config{Provider: tracing.Provider(), Content: span.Asked})
		e, err := engine.New(engine.Config{Tracer: tracer}, j, asking{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		return e, func() {
			for _, stop := range []func(context.Context) error{e.Stop, j.Stop, tracing.Stop} {
				if err := stop(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
	}
	ctx := span.Continue(t.Context(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	e, stop := open()
	run, _, err := e.CreateRun(ctx, "default", engine.CreateRequest{
		TaskType: "asks", Input: []byte(`{"query":"x"}`), Metadata: []byte(`{"trace":true}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	err = e.WatchRun(t.Context(), "default", run.ID, 0, engine.Internal, func(events []engine.Event, _ uint64) error {
		for _, ev := range events {
			if ev.Type == "run.interrupted" {
				return context.Canceled
			}
		}
		return nil
	})
	if err == nil {
		t.Fatal("the run did not wait")
	}
	stop()
	if own := receiver.Named(t, "run asks"); own.Attributes["output.value"] != `{"sure":"?"}` || own.Attributes["agentruntime.state"] != "waiting" {
		t.Errorf("the run's span says %v", own.Attributes)
	}

	e, stop = open()
	if _, err := e.ResumeRun(t.Context(), "default", run.ID, "q", []byte(`"yes"`)); err != nil {
		t.Fatal(err)
	}
	ended, err := e.WaitRun(t.Context(), "default", run.ID, 0)
	if err != nil || ended.State != engine.Succeeded || ended.TraceID != run.TraceID || run.TraceID == "" {
		t.Fatalf("%s in trace %q, begun in %q: %v", ended.State, ended.TraceID, run.TraceID, err)
	}
	stop()

	own := receiver.Named(t, "run asks")
	if got := hex.EncodeToString(own.GetParentSpanId()); got != "b7ad6b7169203331" {
		t.Errorf("the run is under %s", got)
	}
	count := map[string]int{}
	for _, s := range receiver.Spans() {
		count[s.GetName()]++
		if got := hex.EncodeToString(s.GetTraceId()); got != run.TraceID {
			t.Errorf("%s is in trace %s", s.GetName(), got)
		}
		if s.GetName() == "attempt asks" && string(s.GetParentSpanId()) != string(own.GetSpanId()) {
			t.Error("an attempt is not under the run")
		}
	}
	if count["attempt asks"] != 2 || count["node ask"] != 2 || count["run asks"] != 1 {
		t.Errorf("spans: %v", count)
	}
}
