package engine

import (
	"context"
	"encoding/json"
	"testing"
	"time"
)

// unlucky is a task that fails each time, and may be tried again.
func unlucky(context.Context, Call) ([]byte, error) {
	return nil, &TaskError{Reason: ReasonAgentFailed, Message: "no luck", Retryable: true}
}

// hang is a task that takes its time.
func hang(ctx context.Context, _ Call) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func ofAgent(agentID, taskType string) CreateRequest {
	return CreateRequest{Target: AgentTarget, AgentID: agentID, TaskType: taskType}
}

// wantPause checks that a run waits between a half and all of so long after its first
// attempt, which ended between its beginning and the record that says so.
func (b *bundle) wantPause(runID string, most time.Duration) {
	b.t.Helper()
	tried := b.awaitEvent(runID, 0, func(ev *Event) bool { return ev.Type == eventRetrying })
	var retrying struct {
		RetryAt time.Time `json:"retry_at"`
	}
	if err := json.Unmarshal(tried.Payload, &retrying); err != nil {
		b.t.Fatal(err)
	}
	if retrying.RetryAt.Before(tried.Run.StartedAt.Add(most/2)) || retrying.RetryAt.After(tried.Time.Add(most)) {
		b.t.Errorf("began at %s, failed until %s, waits until %s: want a pause of %s",
			tried.Run.StartedAt, tried.Time, retrying.RetryAt, most)
	}
}

// TestRunsAreRetriedAsTheirAgentSays has the pauses tell whose policy counts.
func TestRunsAreRetriedAsTheirAgentSays(t *testing.T) {
	t.Parallel()
	hourly := &RetryPolicy{InitialBackoff: time.Hour, MaxBackoff: time.Hour}
	b := setup(t, Config{MaxAttempts: 2}, agents{tasks{"unlucky": unlucky}, map[string]RunDefaults{
		"eager": {Retry: fast(4)}, "once": {Retry: &RetryPolicy{MaxAttempts: 1}}, "patient": {Retry: hourly},
	}})
	for name, tc := range map[string]struct {
		agent    string
		retry    *RetryPolicy
		attempts int
		// pause is after the first attempt, the longest; 0: there is none.
		pause time.Duration
	}{
		"the agent says":        {"eager", nil, 4, time.Millisecond},
		"the agent says once":   {"once", nil, 1, 0},
		"the agent says a part": {"patient", nil, 2, time.Hour},
		"the run says a part":   {"eager", &RetryPolicy{MaxAttempts: 3}, 3, time.Millisecond},
		"the run says another":  {"once", hourly, 1, 0},
		"the run says all":      {"patient", fast(3), 3, time.Millisecond},
		"only the run says":     {"silent", hourly, 2, time.Hour},
		"nobody says":           {"silent", nil, 2, defaultInitialBackoff},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := *b
			b.t = t
			request := ofAgent(tc.agent, "unlucky")
			request.Options.Retry = tc.retry
			run := b.create(request)
			if run.MaxAttempts != tc.attempts {
				t.Errorf("%d attempts at most, want %d", run.MaxAttempts, tc.attempts)
			}
			if tc.pause > 0 {
				b.wantPause(run.ID, tc.pause)
			}
			if tc.pause < time.Second {
				if run = b.wantEnd(run.ID, Failed, ReasonAgentFailed); run.Attempt != tc.attempts {
					t.Errorf("%d attempts, want %d", run.Attempt, tc.attempts)
				}
			}
		})
	}
}

// TestQueuedRunsSayWhenTheyBegin has one that is delayed, and fails once it has begun.
func TestQueuedRunsSayWhenTheyBegin(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{"unlucky": unlucky})
	request := CreateRequest{TaskType: "unlucky", Delay: time.Millisecond, Options: Options{Retry: fast(2)}}
	run := b.create(request)
	b.wait(run.ID)
	for _, ev := range b.history(run.ID, 0, 0) {
		var payload map[string]any
		if err := json.Unmarshal(ev.Payload, &payload); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{}
		switch ev.Type {
		case eventQueued:
			want["not_before"] = run.NotBefore.Format(time.RFC3339Nano)
		case eventRetrying:
			want["retry_at"] = ev.Run.NotBefore.Format(time.RFC3339Nano)
		}
		for _, key := range []string{"not_before", "retry_at"} {
			if payload[key] != want[key] {
				t.Errorf("%s says %s %v, want %v", ev.Type, key, payload[key], want[key])
			}
		}
	}
}

func TestRunsAreRetriedAsTheirWorkersAgentSays(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	w.disconnect()
	w.hello.Agents[0].RunDefaults = RunDefaults{Retry: fast(2), RunTimeout: time.Hour}
	w.connect()
	id := b.create(chat()).ID
	for range 2 {
		a := w.assignment()
		if a.Run.MaxAttempts != 2 || a.Run.RunTimeout != time.Hour {
			t.Errorf("%d attempts of %s at most", a.Run.MaxAttempts, a.Run.RunTimeout)
		}
		w.report(a, 1, Report{Fail: &Fail{Message: "no luck", Retryable: true}})
	}
	b.wantPause(id, time.Millisecond)
	b.wantEnd(id, Failed, ReasonAgentFailed)
}

func TestAttemptsTakeAsLongAsTheirAgentSays(t *testing.T) {
	t.Parallel()
	const short = 100 * time.Millisecond
	registry := agents{tasks{"hang": hang}, map[string]RunDefaults{"brief": {RunTimeout: short}, "long": {RunTimeout: time.Hour}}}
	b := setup(t, Config{}, registry)
	own := ofAgent("long", "hang")
	own.RunTimeout = short
	for _, request := range []CreateRequest{ofAgent("brief", "hang"), own} {
		b.wantEnd(b.create(request).ID, TimedOut, ReasonTimedOut)
	}
	for agentID, want := range map[string]time.Duration{"long": time.Hour, "silent": b.cfg.RunTimeout} {
		if run := b.create(ofAgent(agentID, "hang")); run.RunTimeout != want {
			t.Errorf("an attempt of agent %s may take %s, want %s", agentID, run.RunTimeout, want)
		}
	}
	// One that the runtime did not begin before it died keeps its limit.
	later := ofAgent("brief", "hang")
	later.Delay = short
	id := b.create(later).ID
	b.crash()
	openEngine(t, b.dir, Config{}, registry).wantEnd(id, TimedOut, ReasonTimedOut)
}
