package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// TestTaskParksItsRunAndGoesOn has a task of the runtime ask twice, and record what it
// did before; over a restart.
func TestTaskParksItsRunAndGoesOn(t *testing.T) {
	t.Parallel()
	asks := func(ctx context.Context, call Call) ([]byte, error) {
		n := len(call.Answers)
		if len(call.Steps) != n {
			return nil, fmt.Errorf("%d steps with %d answers", len(call.Steps), n)
		}
		if n == 2 {
			return fmt.Appendf(nil, `{"answers":[%s,%s],"attempt":%d,"first":%s}`,
				call.Answers[0].Value, call.Answers[1].Value, call.Attempt, call.Steps[0].Result), nil
		}
		if err := call.Record(ctx, fmt.Sprint("step ", n), fmt.Appendf(nil, `%d`, n+7)); err != nil {
			return nil, err
		}
		if err := call.Commit(ctx); err != nil {
			return nil, err
		}
		return nil, &ParkedError{InterruptID: fmt.Sprint("q", n), Payload: []byte(`{"n":1}`)}
	}
	b := setup(t, Config{}, tasks{"asks": asks})
	run := b.create(CreateRequest{TaskType: "asks"})
	var after uint64
	for n, answer := range []string{`"a"`, `{"b":1}`} {
		after = b.awaitEvent(run.ID, after, func(ev *Event) bool { return ev.Type == eventInterrupted }).Sequence
		waiting, err := b.GetRun(t.Context(), "default", run.ID)
		if err != nil {
			t.Fatal(err)
		}
		if waiting.Wait.InterruptID != fmt.Sprint("q", n) || waiting.Attempt != 1 {
			t.Fatalf("waits for %+v in attempt %d", waiting.Wait, waiting.Attempt)
		}
		b.crash()
		b = openEngine(t, b.dir, Config{}, tasks{"asks": asks})
		if _, err := b.ResumeRun(t.Context(), "default", run.ID, waiting.Wait.InterruptID, []byte(answer)); err != nil {
			t.Fatal(err)
		}
	}
	ended := b.wait(run.ID)
	if want := `{"answers":["a",{"b":1}],"attempt":1,"first":7}`; string(ended.Output) != want || ended.State != Succeeded {
		t.Errorf("%s with %s, want %s", ended.State, ended.Output, want)
	}
}

// TestTaskThatParksBadlyFails has questions and steps that cannot be kept.
func TestTaskThatParksBadlyFails(t *testing.T) {
	t.Parallel()
	for name, task := range map[string]Task{
		"a question that is no JSON": func(context.Context, Call) ([]byte, error) {
			return nil, &ParkedError{InterruptID: "q", Payload: []byte(`{`)}
		},
		"a question without an id": func(context.Context, Call) ([]byte, error) { return nil, &ParkedError{} },
		"a step that is no JSON": func(ctx context.Context, call Call) ([]byte, error) {
			err := call.Record(ctx, "a", []byte(`{`))
			if !errors.As(err, new(*violation.Error)) {
				return []byte(`{}`), nil
			}
			return nil, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, Config{}, tasks{"bad": task})
			run := b.create(CreateRequest{TaskType: "bad", Wait: true})
			if run.State != Failed || run.Error.Reason != ReasonAgentFailed {
				t.Errorf("%s, %+v", run.State, run.Error)
			}
		})
	}
}

// TestTaskWaitsForItsSubRuns has a task of the runtime start sub-runs that wait for
// answers, over a restart: it is called again once both have ended, and joins them.
func TestTaskWaitsForItsSubRuns(t *testing.T) {
	t.Parallel()
	work := tasks{
		"parent": func(ctx context.Context, call Call) ([]byte, error) {
			var waitFor, outputs []string
			for _, key := range []string{"one", "two"} {
				child, err := call.StartRun(ctx, key, CreateRequest{TaskType: "child", Input: fmt.Appendf(nil, `{"key":%q}`, key)})
				if err != nil {
					return nil, err
				}
				if child.State.Ended() {
					outputs = append(outputs, string(child.Output))
				} else {
					waitFor = append(waitFor, child.ID)
				}
			}
			if len(waitFor) > 0 {
				return nil, &ParkedError{Runs: waitFor}
			}
			return fmt.Appendf(nil, `{"attempt":%d,"outputs":[%s,%s]}`, call.Attempt, outputs[0], outputs[1]), nil
		},
		"child": func(_ context.Context, call Call) ([]byte, error) {
			if len(call.Answers) == 0 {
				return nil, &ParkedError{InterruptID: "q", Payload: []byte(`1`)}
			}
			return fmt.Appendf(nil, `{"said":%s}`, call.Answers[0].Value), nil
		},
	}
	b := setup(t, Config{}, work)
	parent := b.create(CreateRequest{TaskType: "parent"})
	b.awaitEvent(parent.ID, 0, func(ev *Event) bool { return ev.Type == eventWaiting })
	waiting, err := b.GetRun(t.Context(), "default", parent.ID)
	if err != nil {
		t.Fatal(err)
	}
	children := waiting.Wait.Runs
	b.crash()
	b = openEngine(t, b.dir, Config{}, work)
	for _, id := range children {
		b.awaitEvent(id, 0, func(ev *Event) bool { return ev.Type == eventInterrupted })
		if _, err := b.ResumeRun(t.Context(), "default", id, "q", []byte(`"yes"`)); err != nil {
			t.Fatal(err)
		}
	}
	ended := b.wait(parent.ID)
	if want := `{"attempt":1,"outputs":[{"said":"yes"},{"said":"yes"}]}`; string(ended.Output) != want {
		t.Errorf("%s with %s %+v, want %s", ended.State, ended.Output, ended.Error, want)
	}
}

// TestSubRunsOfATaskAreRefused has those that a task of the runtime may not start or wait for.
func TestSubRunsOfATaskAreRefused(t *testing.T) {
	t.Parallel()
	start := func(key string, request CreateRequest) Task {
		return func(ctx context.Context, call Call) ([]byte, error) {
			_, err := call.StartRun(ctx, key, request)
			return nil, err
		}
	}
	var other string
	work := tasks{
		"no key":          start("", CreateRequest{TaskType: "no key"}),
		"no type":         start("a", CreateRequest{}),
		"itself for ever": start("a", CreateRequest{TaskType: "itself for ever"}),
		"another's": func(context.Context, Call) ([]byte, error) {
			return nil, &ParkedError{Runs: []string{other}}
		},
	}
	work["itself for ever"] = func(ctx context.Context, call Call) ([]byte, error) {
		child, err := call.StartRun(ctx, "a", CreateRequest{TaskType: "itself for ever"})
		switch {
		case err != nil:
			return nil, err
		case child.State.Ended():
			return nil, fmt.Errorf("below: %s", child.Error.Message)
		}
		return nil, &ParkedError{Runs: []string{child.ID}}
	}
	b := setup(t, Config{}, work)
	other = b.create(CreateRequest{TaskType: "no key", Wait: true}).ID
	for name, want := range map[string]string{
		"no key": "start_run.key", "no type": "task_type", "itself for ever": "100 are the most", "another's": "no sub-run of the run",
	} {
		run := b.create(CreateRequest{TaskType: name, Wait: true})
		if run.State != Failed || !strings.Contains(run.Error.Message, want) {
			t.Errorf("%s: %s, %+v, want %q", name, run.State, run.Error, want)
		}
	}
}
