package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
)

func TestEndpointExecutesARun(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var got map[string]any
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil || r.Method != http.MethodPost ||
			r.Header.Get("Idempotency-Key") != "run-1" || got["run_id"] != "run-1" || got["attempt"] != 2.0 ||
			got["agent_id"] != "support" || got["task_type"] != "agent.run" {
			t.Errorf("%s %v %v", r.Method, r.Header, got)
		}
		_, _ = io.WriteString(w, `{"answer":42}`)
	}))
	defer server.Close()
	provider, err := model.New(model.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	registry, err := New(Config{Provider: provider, Endpoints: map[string]Endpoint{"support": {URL: server.URL}}})
	if err != nil {
		t.Fatal(err)
	}
	task, err := registry.Resolve("default", engine.AgentTarget, "support", "agent.run", []byte(`{"q":1}`))
	if err != nil {
		t.Fatal(err)
	}
	output, err := task(t.Context(), engine.Call{RunID: "run-1", Attempt: 2, AgentID: "support", TaskType: "agent.run", Input: []byte(`{"q":1}`)})
	if err != nil || string(output) != `{"answer":42}` {
		t.Fatalf("%s, %v", output, err)
	}
	if !slices.ContainsFunc(registry.Agents("default"), func(a Agent) bool { return a.ID == "support" }) {
		t.Errorf("agents %v", registry.Agents("default"))
	}
}

func TestEndpointFailures(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		handle    http.HandlerFunc
		retryable bool
		after     time.Duration
	}{
		"busy": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
		}, true, 7 * time.Second},
		"broken":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, true, 0},
		"refused":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnprocessableEntity) }, false, 0},
		"moved":     {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, false, 0},
		"half":      {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"answer":`) }, true, 0},
		"no object": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `[1]`) }, true, 0},
		"too large": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"x":"`+strings.Repeat("x", maxAnswerBytes)+`"}`)
		}, false, 0},
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"answer"`)
		}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(test.handle)
			defer server.Close()
			_, err := newEndpoint("support", Endpoint{URL: server.URL}).run(t.Context(), engine.Call{RunID: "r"})
			var failure *engine.TaskError
			if !errors.As(err, &failure) || failure.Retryable != test.retryable || failure.RetryAfter != test.after {
				t.Fatalf("err = %+v", err)
			}
		})
	}
}

func TestEndpointThatHangsIsGivenUp(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := newEndpoint("support", Endpoint{URL: server.URL}).run(ctx, engine.Call{RunID: "r"}); err == nil {
		t.Fatal("it answered")
	}
}
