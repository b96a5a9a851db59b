package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
)

// maxAnswerBytes is the largest answer that an endpoint may give.
const maxAnswerBytes = 1 << 20

// Endpoint is an agent that an HTTP server executes.
type Endpoint struct {
	engine.RunDefaults

	URL string
}

// endpoint is an agent that somebody's HTTP server executes. Each attempt of a
// run is one POST: a JSON object with run_id, attempt, agent_id, task_type, input
// and metadata, whose header Idempotency-Key is the run's id. The answer is the
// run's output, a JSON object. A 429 or a 5xx and a server that cannot be reached
// are tried again, after its Retry-After where it has one; another 4xx is not.
type endpoint struct {
	Endpoint

	id     string
	client *http.Client
}

// request is what an endpoint is sent.
type request struct {
	RunID    string          `json:"run_id"`
	Attempt  int             `json:"attempt"`
	AgentID  string          `json:"agent_id"`
	TaskType string          `json:"task_type"`
	Input    json.RawMessage `json:"input"`
	Metadata json.RawMessage `json:"metadata,omitempty"`
}

func newEndpoint(id string, e Endpoint) *endpoint {
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is one
	transport.MaxIdleConnsPerHost = 100
	return &endpoint{Endpoint: e, id: id, client: &http.Client{
		Transport: transport,
		// An endpoint that moved is a mistake in the configuration, not a place to send runs to.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// run implements engine.Task.
func (a *endpoint) run(ctx context.Context, call engine.Call) ([]byte, error) {
	body, err := json.Marshal(request{
		RunID: call.RunID, Attempt: call.Attempt, AgentID: call.AgentID, TaskType: call.TaskType,
		Input: call.Input, Metadata: call.Metadata,
	})
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	asked, err := http.NewRequestWithContext(ctx, http.MethodPost, a.URL, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", a.URL, err)
	}
	asked.Header.Set("Content-Type", "application/json")
	asked.Header.Set("Accept", "application/json")
	asked.Header.Set("Idempotency-Key", call.RunID)
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(asked.Header))
	answer, err := a.client.Do(asked)
	if err != nil {
		return nil, a.failure("could not be reached", 0, true, err)
	}
	defer answer.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswerBytes+1))
	switch {
	case err != nil:
		return nil, a.failure("did not finish its answer", 0, true, err)
	case answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode >= http.StatusInternalServerError:
		return nil, a.failure("answered "+answer.Status, retryAfter(answer.Header.Get("Retry-After"), time.Now()), true, excerpt(text))
	case answer.StatusCode < http.StatusOK || answer.StatusCode >= http.StatusMultipleChoices:
		return nil, a.failure("answered "+answer.Status, 0, false, excerpt(text))
	case len(text) > maxAnswerBytes:
		return nil, a.failure(fmt.Sprintf("answered with more than %d bytes", maxAnswerBytes), 0, false, nil)
	}
	if err := jsonvalue.ValidateObject("answer", text); err != nil {
		return nil, a.failure("did not answer with a JSON object", 0, true, err)
	}
	return text, nil
}

// failure is why an attempt failed. The cause is for the log alone.
func (a *endpoint) failure(what string, after time.Duration, retryable bool, cause error) error {
	return &engine.TaskError{
		Reason: engine.ReasonAgentFailed, Message: fmt.Sprintf("the server of agent %s %s", a.id, what),
		Retryable: retryable, RetryAfter: after, Cause: cause,
	}
}

// excerpt is the beginning of an answer, for the log.
func excerpt(text []byte) error {
	const most = 200
	return errors.New(strings.ToValidUTF8(string(text[:min(len(text), most)]), "\uFFFD"))
}

// longestRetryAfter bounds what an endpoint or a model's provider may ask for.
const longestRetryAfter = time.Hour

// retryAfter reads the header of that name, seconds or a date; 0 when it says nothing sensible.
func retryAfter(header string, now time.Time) time.Duration {
	var after time.Duration
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		after = time.Duration(seconds) * time.Second
	} else if date, err := http.ParseTime(header); err == nil {
		after = date.Sub(now)
	}
	return min(max(after, 0), longestRetryAfter)
}
