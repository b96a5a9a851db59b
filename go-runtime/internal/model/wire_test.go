package model

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// asked is one request that a wire was sent.
type asked struct {
	path   string
	header http.Header
	body   map[string]any
}

// wire is a server that gives the nth request the nth answer, and the last from then on.
type wire struct {
	*httptest.Server

	mu       sync.Mutex
	requests []asked
}

func newWire(t *testing.T, answers ...http.HandlerFunc) *wire {
	t.Helper()
	server := &wire{}
	server.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := asked{path: r.URL.String(), header: r.Header.Clone()}
		if err := json.NewDecoder(r.Body).Decode(&got.body); err != nil {
			t.Errorf("got a request that is not JSON: %v", err)
		}
		// Reading to the end lets the server see the client go away.
		_, _ = io.Copy(io.Discard, r.Body)
		server.mu.Lock()
		server.requests = append(server.requests, got)
		answer := answers[min(len(server.requests), len(answers))-1]
		server.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	return server
}

func (s *wire) sent() []asked {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// says answers with a body.
func says(status int, contentType, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// cutOff answers with the beginning of a body, and breaks the connection.
func cutOff(contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Length", "100000")
		_, _ = io.WriteString(w, body)
	}
}

// hangs answers when its client has gone, and says when it was asked.
func hangs(begin string) (http.HandlerFunc, <-chan struct{}) {
	reached := make(chan struct{}, 100)
	return func(w http.ResponseWriter, r *http.Request) {
		if begin != "" {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, begin)
			w.(http.Flusher).Flush()
		}
		reached <- struct{}{}
		<-r.Context().Done()
	}, reached
}

const jsonType, eventsType = "application/json", "text/event-stream"

// dialect is how one provider says things on the wire. What it says is what it
// said of old, not what our own code would make of it.
type dialect struct {
	provider, model string
	at              func(url string) Config
	// path and streamPath are what is asked for.
	path, streamPath string
	key              string

	// Forty-two., in whole and in pieces, and what it took.
	text, stream string
	usage        Usage
	finishReason string
	// Two calls, in whole and in pieces.
	calls, callStream, badCallStream string
	// {"n": 1} with words around it.
	object string
	// constraint finds what holds the answer to a schema.
	constraint func(body map[string]any) any

	truncated, refusal, filtered, empty string
	// midStream begins an answer and reports a failure; of overload, then of a limit.
	midStream, midStreamLimit string
	// endsEarly begins a stream that lacks its end; broken is an event of half its text.
	endsEarly, broken string
	// failure is the body of a failed response.
	failure func(code, message string) string
	// limited is what a limit is called, and overloaded an overload.
	limited, overloaded string
}

// dialects are those of all providers.
func dialects() map[string]dialect {
	return map[string]dialect{openAIName: openAIDialect(), anthropicName: anthropicDialect(), geminiName: geminiDialect()}
}

func (d dialect) router(t *testing.T, url string, log *slog.Logger) *Router {
	t.Helper()
	router, err := New(d.at(url), log)
	if err != nil {
		t.Fatal(err)
	}
	return router
}

// events writes a stream, each event a line.
func events(lines ...string) string { return strings.Join(lines, "\n\n") + "\n\n" }
