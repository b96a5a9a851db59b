package engine

import (
	"context"
	"errors"
	"fmt"
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
