package agent

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
)

func TestExampleTaskShowsInputAndWork(t *testing.T) {
	t.Parallel()
	got := run(t, newRegistry(t), engine.TaskTarget, engine.Call{
		RunID: "run-1", Attempt: 1, AgentID: "agent1", TaskType: "example_task",
		Input: []byte(`{"param1": "value1", "param2": "value2"}`),
	})
	want := map[string]any{
		"task_type":    "example_task",
		"status":       "completed",
		"input":        map[string]any{"param1": "value1", "param2": "value2"},
		"result":       map[string]any{"param1": "VALUE1", "param2": "VALUE2"},
		"summary":      "String values put into upper case: 2. Everything else is as it came.",
		"processed_by": "agent-runtime",
		"run_id":       "run-1",
		"attempt":      1.0,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("output\n got: %v\nwant: %v", got, want)
	}
}

func TestExampleTaskKeepsWhatIsNoString(t *testing.T) {
	t.Parallel()
	const input = `{"a":[9223372036854775807,-0.0,1e308,true,null,{"b":"<é & 😀>"}]}`
	output, err := exampleTask(t.Context(), engine.Call{TaskType: "example_task", Input: []byte(input)})
	if err != nil {
		t.Fatalf("exampleTask: %v", err)
	}
	var got struct {
		Input  json.RawMessage `json:"input"`
		Result json.RawMessage `json:"result"`
	}
	if err := json.Unmarshal(output, &got); err != nil {
		t.Fatalf("decode output: %v", err)
	}
	if string(got.Input) != input {
		t.Errorf("input\n got: %s\nwant: %s", got.Input, input)
	}
	const want = `{"a":[9223372036854775807,-0.0,1e308,true,null,{"b":"<É & 😀>"}]}`
	if string(got.Result) != want {
		t.Errorf("result\n got: %s\nwant: %s", got.Result, want)
	}
}

func TestEchoReturnsItsInput(t *testing.T) {
	t.Parallel()
	const input = `{ "z": 1.10,  "a": "\u00e9" }`
	output, err := echo(t.Context(), engine.Call{Input: []byte(input)})
	if err != nil || string(output) != input {
		t.Errorf("echo = %s, %v; want %s", output, err, input)
	}
}

func TestSleepLastsAsLongAsAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		output, err := sleep(t.Context(), engine.Call{Input: []byte(`{"seconds": 1800.5}`)})
		if err != nil || string(output) != `{"slept_seconds":1800.5}` {
			t.Errorf("sleep = %s, %v", output, err)
		}
		if got, want := time.Since(start), 1800*time.Second+500*time.Millisecond; got != want {
			t.Errorf("slept %s, want %s", got, want)
		}
	})
}

func TestSleepEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cancelled := errors.New("cancelled by its owner")
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error)
		go func() {
			_, err := sleep(ctx, engine.Call{Input: []byte(`{"seconds": 3600}`)})
			ended <- err
		}()
		synctest.Wait()
		cancel(cancelled)
		if err := <-ended; !errors.Is(err, cancelled) {
			t.Errorf("sleep ended with %v, want the cause of the cancellation", err)
		}
	})
}
