package djangobridge_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
)

// TestOptionsOfAnHTTPAgent has a server be away thrice, and then be slow.
func TestOptionsOfAnHTTPAgent(t *testing.T) {
	t.Parallel()
	posts := make(chan time.Time, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if posts <- time.Now(); len(posts) < 4 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	sys := start(t, "--http-agents=support="+server.URL+
		";max-attempts=4;initial-backoff=1ms;multiplier=1000;max-backoff=1s;run-timeout=1s")
	response, err := sys.agents.CreateRun(testContext(t), &agentruntimev1.CreateRunRequest{
		Target: agentruntimev1.RunTarget_RUN_TARGET_AGENT, AgentId: "support", TaskType: "agent.run", Wait: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	run := response.GetRun()
	if run.GetState() != agentruntimev1.RunState_RUN_STATE_TIMED_OUT || run.GetAttempt() != 4 || run.GetMaxAttempts() != 4 || len(posts) != 4 {
		t.Errorf("%d POSTs, run %v", len(posts), run)
	}
	<-posts
	second, third := <-posts, <-posts
	if pause := third.Sub(second); pause < 500*time.Millisecond {
		t.Errorf("a second pause of %s", pause)
	}
}
