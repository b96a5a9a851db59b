package model

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	quiet   = slog.New(slog.DiscardHandler)
	answer  = &Schema{Name: "answer", JSON: []byte(`{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"],"additionalProperties":false}`)}
	payload = "a payload that no error repeats"
)

func ask(schema *Schema) Request {
	return Request{Instructions: "Count.", Messages: []Message{{Role: User, Text: payload}}, Schema: schema}
}

func TestCompleteReturnsTheAnswerAndItsUsage(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t, answers("Forty-two.", "stop"))
	response, err := e.provider(t, quiet).Complete(t.Context(), Request{
		Instructions: "Count.",
		Messages:     []Message{{Role: User, Text: "How many?"}, {Role: Assistant, Text: "Many."}, {Role: User, Text: "Exactly?"}},
		MaxTokens:    100,
	})
	want := Response{
		Text: "Forty-two.", Provider: "openai-compatible", Model: "small-model-2026", FinishReason: "stop",
		Usage: Usage{InputTokens: 11, OutputTokens: 7, TotalTokens: 18},
	}
	if err != nil || !reflect.DeepEqual(response, want) {
		t.Errorf("Complete = %+v, %v; want %+v", response, err, want)
	}
	sent := e.sent()[0]
	got := fmt.Sprint(sent.Model, sent.Messages, *sent.MaxTokens, sent.ResponseFormat)
	if want := "small-model[{system Count.} {user How many?} {assistant Many.} {user Exactly?}] 100 <nil>"; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
	if got := e.headers[0].Get("Authorization"); got != "Bearer "+testKey {
		t.Errorf("Authorization = %q", got)
	}
}

func TestCompleteAsksForTheSchema(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t, answers("Here you are:\n```json\n{\"n\": 1}\n```", "stop"))
	response, err := e.provider(t, quiet).Complete(t.Context(), ask(answer))
	if err != nil || response.Text != `{"n": 1}` {
		t.Errorf("Complete = %q, %v; want the object alone", response.Text, err)
	}
	sent := e.sent()[0]
	if f := sent.ResponseFormat; f == nil || f.Type != "json_schema" || f.JSONSchema.Name != "answer" ||
		!f.JSONSchema.Strict || string(f.JSONSchema.Schema) != string(answer.JSON) {
		t.Errorf("response_format = %+v", f)
	}
	if !strings.Contains(sent.Messages[0].Content, string(answer.JSON)) {
		t.Errorf("the instructions lack the schema: %s", sent.Messages[0].Content)
	}
}

func TestCompleteDoesWithoutResponseFormat(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusNotImplemented} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			e := newEndpoint(t, withoutResponseFormat(status, answers(`{"n": 2}`, "stop")))
			provider := e.provider(t, quiet)
			for range 2 {
				response, err := provider.Complete(t.Context(), ask(answer))
				if err != nil || response.Text != `{"n": 2}` {
					t.Fatalf("Complete = %q, %v", response.Text, err)
				}
			}
			var formats []bool
			for _, request := range e.sent() {
				formats = append(formats, request.ResponseFormat != nil)
			}
			if !slices.Equal(formats, []bool{true, false, false}) {
				t.Errorf("response_format in requests: %v; want it dropped for good once refused", formats)
			}
		})
	}
}

func TestCompleteKeepsResponseFormatWhenTheRequestIsAtFault(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t, fails(http.StatusBadRequest, "context_length_exceeded"))
	provider := e.provider(t, quiet)
	for range 2 {
		_, err := provider.Complete(t.Context(), ask(answer))
		if failure := new(Error); !errors.As(err, &failure) || failure.Kind != Rejected {
			t.Fatalf("Complete error = %v, want it rejected", err)
		}
	}
	if sent := e.sent(); len(sent) != 4 || sent[2].ResponseFormat == nil {
		t.Errorf("sent %d requests; want each call to try with and without response_format", len(sent))
	}
}

func TestCompleteRetriesWhatPasses(t *testing.T) {
	t.Parallel()
	tests := map[string]reply{
		"server error": fails(http.StatusInternalServerError, "", "Retry-After-Ms", "1"),
		"overloaded":   fails(http.StatusServiceUnavailable, "", "Retry-After-Ms", "1"),
		"rate limit":   fails(http.StatusTooManyRequests, "rate_limit_exceeded", "Retry-After-Ms", "1"),
	}
	for name, first := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEndpoint(t, first, answers("Here.", "stop"))
			response, err := e.provider(t, quiet).Complete(t.Context(), ask(nil))
			if err != nil || response.Text != "Here." || len(e.sent()) != 2 {
				t.Errorf("Complete = %q, %v after %d requests", response.Text, err, len(e.sent()))
			}
		})
	}
}

func TestCompleteClassifiesFailures(t *testing.T) {
	t.Parallel()
	cutOff := func(w http.ResponseWriter, _ *http.Request, _ wireRequest) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"id": "chatcmpl-3", "choices": [{"mess`))
	}
	tests := map[string]struct {
		reply     reply
		kind      Kind
		retryable bool
		text      string
	}{
		"bad key":     {fails(http.StatusUnauthorized, "invalid_api_key"), Unauthorized, false, "does not accept the API key (HTTP 401)"},
		"forbidden":   {fails(http.StatusForbidden, ""), Unauthorized, false, "(HTTP 403)"},
		"no model":    {fails(http.StatusNotFound, "model_not_found"), Rejected, false, "(HTTP 404)"},
		"quota":       {fails(http.StatusTooManyRequests, "insufficient_quota", "Retry-After-Ms", "1"), QuotaExhausted, false, "no quota left"},
		"rate limit":  {fails(http.StatusTooManyRequests, "", "Retry-After", "3600"), RateLimited, true, "(HTTP 429); retry after 1h0m0s"},
		"always down": {fails(http.StatusBadGateway, "", "Retry-After-Ms", "1"), Unavailable, true, "(HTTP 502)"},
		"plain text":  {raw(http.StatusServiceUnavailable, "text/html", "<h1>down</h1>"), Unavailable, true, "(HTTP 503)"},
		"string error": {
			raw(http.StatusNotFound, "application/json", `{"error":"model \"x\" not found"}`), Rejected, false, "(HTTP 404)",
		},
		"truncated JSON": {raw(http.StatusOK, "application/json", `{"id": "chatcmpl-3", "choices": [{"mess`), Malformed, true, "not an answer"},
		"cut off":        {cutOff, Malformed, true, "not an answer"},
		"a web page":     {raw(http.StatusOK, "text/html", "<h1>Log in</h1>"), Malformed, true, "not an answer"},
		"no choices":     {raw(http.StatusOK, "application/json", `{"choices": []}`), Malformed, true, "not an answer"},
		"empty":          {answers("", "stop"), Malformed, true, "not an answer"},
		"too long":       {answers("It begins", "length"), Truncated, false, "cut short"},
		"content filter": {answers("", "content_filter"), Refused, false, "refused"},
		"refusal":        {refuses, Refused, false, "refused"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var logged lockedBuffer
			e := newEndpoint(t, test.reply)
			provider := e.provider(t, slog.New(slog.NewTextHandler(&logged, nil)))
			response, err := provider.Complete(t.Context(), ask(nil))
			var failure *Error
			if !errors.As(err, &failure) || !reflect.DeepEqual(response, Response{}) {
				t.Fatalf("Complete = %+v, %v; want an *Error", response, err)
			}
			if failure.Kind != test.kind || failure.Retryable() != test.retryable {
				t.Errorf("kind %s, retryable %t; want %s, %t (%v)", failure.Kind, failure.Retryable(), test.kind, test.retryable, failure.Cause)
			}
			if !strings.Contains(failure.Error(), test.text) {
				t.Errorf("text %q lacks %q", failure.Error(), test.text)
			}
			for _, text := range []string{failure.Error(), fmt.Sprint(failure.Cause), logged.String()} {
				if strings.Contains(text, testKey) || strings.Contains(text, payload) {
					t.Errorf("a secret got into %q", text)
				}
			}
		})
	}
}

func TestCompleteReportsAnEndpointThatIsNotThere(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	provider, err := New(Config{OpenAI: Endpoint{BaseURL: "http://" + address + "/v1"}, Models: []string{"small-model"}}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	_, err = provider.Complete(t.Context(), ask(nil))
	if failure := new(Error); !errors.As(err, &failure) || failure.Kind != Unavailable || failure.StatusCode != 0 {
		t.Errorf("Complete error = %#v, want it unavailable", err)
	}
}

func TestCompleteGivesTheAnswerInPieces(t *testing.T) {
	t.Parallel()
	const usage = `{"id":"chatcmpl-1","model":"small-model-2026","choices":[],` +
		`"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}`
	e := newEndpoint(t, streams(chunk("", ""), chunk("Forty", ""), chunk("-two.", ""), chunk("", "stop"), usage, "[DONE]"))
	var pieces []string
	request := ask(nil)
	request.Pieces = func(text string) error {
		pieces = append(pieces, text)
		return nil
	}
	response, err := e.provider(t, quiet).Complete(t.Context(), request)
	want := Response{
		Text: "Forty-two.", Provider: "openai-compatible", Model: "small-model-2026", FinishReason: "stop",
		Usage: Usage{InputTokens: 11, OutputTokens: 7, TotalTokens: 18},
	}
	if err != nil || !reflect.DeepEqual(response, want) {
		t.Errorf("Complete = %+v, %v; want %+v", response, err, want)
	}
	if !slices.Equal(pieces, []string{"Forty", "-two."}) {
		t.Errorf("pieces %q", pieces)
	}
	if sent := e.sent()[0]; !sent.Stream || !sent.StreamOptions.IncludeUsage {
		t.Errorf("sent %+v", sent)
	}
}

func TestCompleteInPiecesClassifiesFailures(t *testing.T) {
	t.Parallel()
	cutOff := func(w http.ResponseWriter, r *http.Request, request wireRequest) {
		w.Header().Set("Content-Length", "1000")
		streams(chunk("Forty", ""))(w, r, request)
	}
	for name, test := range map[string]struct {
		reply reply
		kind  Kind
	}{
		"bad key":        {fails(http.StatusUnauthorized, "invalid_api_key"), Unauthorized},
		"rate limit":     {fails(http.StatusTooManyRequests, "", "Retry-After", "3600"), RateLimited},
		"always down":    {fails(http.StatusBadGateway, "", "Retry-After-Ms", "1"), Unavailable},
		"cut off":        {cutOff, Unavailable},
		"ends early":     {streams(chunk("Forty", "")), Malformed},
		"reports":        {streams(chunk("Forty", ""), `{"error":{"message":"`+payload+` `+testKey+`"}}`), Unavailable},
		"no JSON":        {streams(chunk("Forty", ""), `{"id":`), Unavailable},
		"a web page":     {raw(http.StatusOK, "text/html", "<h1>Log in</h1>"), Malformed},
		"not streamed":   {answers("Forty-two.", "stop"), Malformed},
		"empty":          {streams(chunk("", "stop"), "[DONE]"), Malformed},
		"too long":       {streams(chunk("Forty", ""), chunk("", "length"), "[DONE]"), Truncated},
		"content filter": {streams(chunk("Forty", ""), chunk("", "content_filter"), "[DONE]"), Refused},
		"refusal": {streams(
			`{"choices":[{"index":0,"delta":{"refusal":"I cannot."},"finish_reason":"stop"}]}`, "[DONE]"), Refused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEndpoint(t, test.reply)
			request := ask(nil)
			request.Pieces = func(string) error { return nil }
			response, err := e.provider(t, quiet).Complete(t.Context(), request)
			var failure *Error
			if !errors.As(err, &failure) || !reflect.DeepEqual(response, Response{}) || failure.Kind != test.kind {
				t.Fatalf("Complete = %+v, %v; want %s", response, err, test.kind)
			}
			for _, text := range []string{failure.Error(), fmt.Sprint(failure.Cause)} {
				if strings.Contains(text, testKey) || strings.Contains(text, payload) {
					t.Errorf("a secret got into %q", text)
				}
			}
		})
	}
}

func TestCompleteInPiecesEndsWithItsContextAndWithItsReader(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{}, 2)
	e := newEndpoint(t, func(w http.ResponseWriter, r *http.Request, request wireRequest) {
		streams(chunk("Forty", ""))(w, r, request)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		gone <- struct{}{}
	})
	provider := e.provider(t, quiet)
	enough := errors.New("enough")
	request := ask(nil)
	request.Pieces = func(string) error { return enough }
	if _, err := provider.Complete(t.Context(), request); !errors.Is(err, enough) {
		t.Errorf("Complete error = %v, want the reader's", err)
	}
	<-gone

	cancelled := errors.New("cancelled by its owner")
	ctx, cancel := context.WithCancelCause(t.Context())
	request.Pieces = func(string) error {
		cancel(cancelled)
		return nil
	}
	_, err := provider.Complete(ctx, request)
	if failure := new(Error); !errors.Is(err, cancelled) || !errors.Is(err, context.Canceled) || errors.As(err, &failure) {
		t.Errorf("Complete error = %v, want the cause of the cancellation", err)
	}
	<-gone
}

// stalls returns a reply that never comes, and a channel that says when it was asked for.
func stalls() (reply, <-chan struct{}) {
	asked := make(chan struct{}, 1)
	return func(_ http.ResponseWriter, r *http.Request, _ wireRequest) {
		asked <- struct{}{}
		<-r.Context().Done()
	}, asked
}

func TestCompleteEndsWithItsContext(t *testing.T) {
	t.Parallel()
	stalled, asked := stalls()
	e := newEndpoint(t, stalled)
	provider := e.provider(t, quiet)
	cancelled := errors.New("cancelled by its owner")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-asked
		cancel(cancelled)
	}()
	_, err := provider.Complete(ctx, ask(answer))
	if !errors.Is(err, cancelled) || !errors.Is(err, context.Canceled) {
		t.Errorf("Complete error = %v, want the cause of the cancellation", err)
	}
	if failure := new(Error); errors.As(err, &failure) {
		t.Errorf("a cancellation is reported as the model's failure: %v", failure)
	}
}

func TestCompleteGivesUpOnASlowEndpoint(t *testing.T) {
	t.Parallel()
	stalled, asked := stalls()
	e := newEndpoint(t, stalled)
	provider, err := New(Config{OpenAI: Endpoint{BaseURL: e.URL + "/v1"}, Models: []string{"small-model"}, Timeout: 50 * time.Millisecond}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	_, err = provider.Complete(t.Context(), ask(nil))
	<-asked
	if failure := new(Error); !errors.As(err, &failure) || failure.Kind != Unavailable || !failure.Retryable() {
		t.Errorf("Complete error = %v, want it unavailable", err)
	}
}

func TestProviderIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t, withoutResponseFormat(http.StatusBadRequest, answers(`{"n": 3}`, "stop")))
	provider := e.provider(t, quiet)
	var asking sync.WaitGroup
	for range 16 {
		asking.Go(func() {
			if response, err := provider.Complete(t.Context(), ask(answer)); err != nil || response.Text != `{"n": 3}` {
				t.Errorf("Complete = %q, %v", response.Text, err)
			}
		})
	}
	asking.Wait()
}

// lockedBuffer is a log's destination that may be written from any goroutine.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
