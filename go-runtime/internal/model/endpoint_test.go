package model

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

const testKey = "sk-test-do-not-show"

// wireRequest is what the endpoint is sent, in OpenAI's form.
type wireRequest struct {
	Model    string `json:"model"`
	Messages []struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	} `json:"messages"`
	MaxTokens           *int `json:"max_tokens"`
	MaxCompletionTokens *int `json:"max_completion_tokens"`
	Stream              bool `json:"stream"`
	StreamOptions       *struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	ResponseFormat *struct {
		Type       string `json:"type"`
		JSONSchema struct {
			Name   string          `json:"name"`
			Strict bool            `json:"strict"`
			Schema json.RawMessage `json:"schema"`
		} `json:"json_schema"`
	} `json:"response_format"`
}

// endpoint is a server that speaks OpenAI's chat completions: it answers the
// n-th request with the n-th reply, and the last reply from then on.
type endpoint struct {
	*httptest.Server

	mu       sync.Mutex
	requests []wireRequest
	headers  []http.Header
}

type reply func(w http.ResponseWriter, r *http.Request, request wireRequest)

func newEndpoint(t *testing.T, replies ...reply) *endpoint {
	t.Helper()
	e := &endpoint{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/v1/chat/completions" {
			t.Errorf("endpoint was asked for %s %s", r.Method, r.URL.Path)
		}
		var request wireRequest
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			t.Errorf("endpoint got a request that is not JSON: %v", err)
		}
		// Reading to the end lets the server see the client go away.
		_, _ = io.Copy(io.Discard, r.Body)
		e.mu.Lock()
		e.requests = append(e.requests, request)
		e.headers = append(e.headers, r.Header.Clone())
		n := min(len(e.requests), len(replies))
		e.mu.Unlock()
		replies[n-1](w, r, request)
	}))
	t.Cleanup(e.Close)
	return e
}

// sent returns the requests so far.
func (e *endpoint) sent() []wireRequest {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.requests
}

// provider returns a provider that asks the endpoint.
func (e *endpoint) provider(t *testing.T, log *slog.Logger) Provider {
	t.Helper()
	provider, err := New(Config{OpenAI: Endpoint{APIKey: testKey, BaseURL: e.URL + "/v1"}, Models: []string{"small-model"}}, log)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return provider
}

// answers replies with a completion.
func answers(content, finishReason string) reply {
	return func(w http.ResponseWriter, _ *http.Request, request wireRequest) {
		writeJSON(w, http.StatusOK, map[string]any{
			"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": request.Model + "-2026",
			"choices": []any{map[string]any{
				"index": 0, "finish_reason": finishReason, "logprobs": nil,
				"message": map[string]any{"role": "assistant", "content": content, "refusal": nil},
			}},
			"usage": map[string]any{"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
		})
	}
}

// chunk is one piece of a streamed answer, in OpenAI's form.
func chunk(content, finishReason string) string {
	var reason any
	if finishReason != "" {
		reason = finishReason
	}
	text, err := json.Marshal(map[string]any{
		"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "small-model-2026",
		"choices": []any{map[string]any{"index": 0, "delta": map[string]any{"content": content}, "finish_reason": reason}},
	})
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// streams replies with server-sent events.
func streams(events ...string) reply {
	return func(w http.ResponseWriter, _ *http.Request, _ wireRequest) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, event := range events {
			_, _ = io.WriteString(w, "data: "+event+"\n\n")
		}
	}
}

// refuses replies with the refusal that a model gives in place of an answer.
func refuses(w http.ResponseWriter, _ *http.Request, request wireRequest) {
	writeJSON(w, http.StatusOK, map[string]any{
		"id": "chatcmpl-2", "object": "chat.completion", "created": 1700000000, "model": request.Model,
		"choices": []any{map[string]any{
			"index": 0, "finish_reason": "stop", "logprobs": nil,
			"message": map[string]any{"role": "assistant", "content": nil, "refusal": "I cannot help with that."},
		}},
	})
}

// fails replies with an error in OpenAI's form, which quotes the key and the payload.
func fails(status int, code string, header ...string) reply {
	return func(w http.ResponseWriter, _ *http.Request, request wireRequest) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		writeJSON(w, status, map[string]any{"error": map[string]any{
			"message": "key " + testKey + " said " + request.Messages[len(request.Messages)-1].Content,
			"type":    "error", "param": nil, "code": code,
		}})
	}
}

// withoutResponseFormat replies with an error to requests that have the parameter.
func withoutResponseFormat(status int, next reply) reply {
	return func(w http.ResponseWriter, r *http.Request, request wireRequest) {
		if request.ResponseFormat != nil {
			writeJSON(w, status, map[string]any{"error": "json_schema is not supported"})
			return
		}
		next(w, r, request)
	}
}

// raw replies with a body as it is.
func raw(status int, contentType, body string) reply {
	return func(w http.ResponseWriter, _ *http.Request, _ wireRequest) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		status = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}
