package tool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const secret = "s3cr3t-value"

// newWeb makes a Web that may go to the prefixes, with the secrets TOKEN and FILE.
func newWeb(t *testing.T, prefixes ...string) *Web {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"-of-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	web, err := NewWeb(WebConfig{
		Prefixes: prefixes,
		Secrets:  map[string]string{"TOKEN": "", "FILE": file, "UNSET": ""},
		Getenv: func(name string) string {
			return map[string]string{"TOKEN": secret, "HOME": "/root"}[name]
		},
		Propagator: propagation.TraceContext{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(web.Stop)
	return web
}

// serve starts a server that answers with handle.
func serve(t *testing.T, handle http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return server
}

// ask calls the tool that h describes, whose server may be asked.
func ask(t *testing.T, h HTTP, arguments string) (Result, error) {
	t.Helper()
	h.Name = "ask"
	prefix, _, _ := strings.Cut(h.URL, "?")
	made, err := newWeb(t, prefix).Tool("tool", h)
	if err != nil {
		t.Fatal(err)
	}
	return newRunner(t, Config{}).Do(t.Context(), made, Call{RunID: "run", ID: "call-1", Arguments: []byte(arguments)})
}

func TestAPostSendsTheArgumentsAsItsBody(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body []byte
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = io.WriteString(w, `{"price": 12.50}`)
	})
	made, err := newWeb(t, server.URL).Tool("tool", HTTP{
		Name: "price", URL: server.URL + "/price?v=1",
		Headers: map[string]string{"Authorization": "Bearer ${secret:TOKEN}", "X-Other": "${secret:FILE}, plain"},
	})
	if err != nil {
		t.Fatal(err)
	}
	traced := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled,
	}))
	result, err := newRunner(t, Config{}).Do(traced, made, Call{ID: "call-1", Arguments: []byte(`{"n": 1.0}`)})
	if err != nil || result.Failed || result.Text != `{"price": 12.50}` || string(result.Structured) != result.Text {
		t.Fatalf("result = %+v, %v", result, err)
	}
	if got.Method != http.MethodPost || got.URL.RequestURI() != "/price?v=1" || string(body) != `{"n": 1.0}` {
		t.Errorf("asked %s %s %s", got.Method, got.URL, body)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Idempotency-Key": "call-1", "Authorization": "Bearer " + secret,
		"X-Other": secret + "-of-file, plain", "Traceparent": "00-01000000000000000000000000000000-0200000000000000-01",
	} {
		if got.Header.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, got.Header.Get(name), want)
		}
	}
}

func TestAGetSendsTheArgumentsInTheQuery(t *testing.T) {
	t.Parallel()
	var got string
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Method + " " + r.URL.RequestURI()
		if r.ContentLength != 0 {
			t.Error("a GET has a body")
		}
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, "fine")
	})
	result, err := ask(t, HTTP{URL: server.URL + "/find?v=1", Method: "GET"},
		`{"text": "a b&c", "list": ["x", 2], "none": null, "yes": true, "big": 123456789012345678901, "object": {"a": 1}}`)
	if err != nil || result.Text != "fine" || result.Structured != nil {
		t.Errorf("result = %+v, %v", result, err)
	}
	if want := "GET /find?big=123456789012345678901&list=x&list=2&object=%7B%22a%22%3A+1%7D&text=a+b%26c&v=1&yes=true"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		status     int
		kind, body string
		want       Result
		err        string
	}{
		"text":         {200, "text/plain", "hello", Result{Text: "hello"}, ""},
		"nothing":      {204, "", "", Result{Text: "HTTP 204 No Content"}, ""},
		"no JSON":      {200, "application/json", `{"a":`, Result{Text: `{"a":`}, ""},
		"a kind of it": {200, "application/problem+json", `{}`, Result{Text: `{}`, Structured: []byte(`{}`)}, ""},
		"refusal":      {404, "application/json", `{"detail": "no order 7"}`, Result{Text: `HTTP 404 Not Found: {"detail": "no order 7"}`, Failed: true}, ""},
		"long refusal": {400, "text/plain", strings.Repeat("x", 5000), Result{Text: "HTTP 400 Bad Request: " + strings.Repeat("x", 2048) + "…\n[cut: the first 2048 bytes]", Failed: true}, ""},
		"repeats it":   {401, "text/plain", "bad token " + secret, Result{Text: "HTTP 401 Unauthorized: bad token [secret]", Failed: true}, ""},
		"echoes it":    {200, "application/json", `{"authorization": "` + secret + `"}`, Result{Text: `{"authorization": "[secret]"}`, Structured: []byte(`{"authorization": "[secret]"}`)}, ""},
		"bytes":        {200, "application/pdf", "%PDF", Result{Text: `HTTP 200 OK: the answer is "application/pdf", neither JSON nor text`, Failed: true}, ""},
		"undeclared":   {200, "-", "\x00\x01\x02", Result{Text: `HTTP 200 OK: the answer is "application/octet-stream", neither JSON nor text`, Failed: true}, ""},
		"no UTF-8":     {200, "text/plain", "caf\xe9", Result{Text: "caf\uFFFD"}, ""},
		"fault":        {500, "text/plain", "trace", Result{}, "tool ask: the server answered HTTP 500 Internal Server Error"},
		"flood":        {200, "text/plain", strings.Repeat("x", 2<<20), Result{Text: strings.Repeat("x", 64<<10) + "…\n[cut: the first 65536 bytes]"}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				asked.Add(1)
				if test.kind == "-" {
					w.Header()["Content-Type"] = nil
				} else {
					w.Header().Set("Content-Type", test.kind)
				}
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			})
			got, err := ask(t, HTTP{URL: server.URL, Headers: map[string]string{"X-Token": "${secret:TOKEN}"}}, "{}")
			if test.err != "" {
				if err == nil || err.Error() != test.err {
					t.Fatalf("failed with %v, want %s", err, test.err)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if got.Text != test.want.Text || got.Failed != test.want.Failed || string(got.Structured) != string(test.want.Structured) {
				t.Errorf("result = %+v, want %+v", got, test.want)
			}
			if asked.Load() != 1 {
				t.Errorf("asked %d times", asked.Load())
			}
		})
	}
}

func TestWhatIsTriedAgain(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		first func(w http.ResponseWriter)
		times int64
	}{
		"too many":    {func(w http.ResponseWriter) { w.WriteHeader(http.StatusTooManyRequests) }, 2},
		"bad gateway": {func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) }, 2},
		"unavailable": {func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }, 2},
		"slow behind": {func(w http.ResponseWriter) { w.WriteHeader(http.StatusGatewayTimeout) }, 2},
		"hung up":     {hangUp, 2},
		"fault":       {func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }, 1},
		"conflict":    {func(w http.ResponseWriter) { w.WriteHeader(http.StatusConflict) }, 1},
		"half an answer": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "x")
		}, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			keys := make(chan string, 10)
			server := serve(t, func(w http.ResponseWriter, r *http.Request) {
				keys <- r.Header.Get("Idempotency-Key")
				if asked.Add(1) == 1 {
					test.first(w)
					return
				}
				_, _ = io.WriteString(w, "fine")
			})
			result, err := ask(t, HTTP{URL: server.URL}, "{}")
			if asked.Load() != test.times || (test.times > 1) != (err == nil && result.Text == "fine") {
				t.Errorf("asked %d times: %+v, %v", asked.Load(), result, err)
			}
			for range test.times {
				if key := <-keys; key != "call-1" {
					t.Errorf("idempotency key %q", key)
				}
			}
		})
	}
}

// hangUp closes the connection without an answer.
func hangUp(w http.ResponseWriter) {
	connection, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = connection.Close()
	}
}

func TestRetryAfterIsHeldToTheTimeout(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, "come back later")
	})
	begun := time.Now()
	result, err := ask(t, HTTP{URL: server.URL}, "{}")
	if err != nil || !result.Failed || result.Text != "HTTP 429 Too Many Requests: come back later" || asked.Load() != 1 {
		t.Errorf("asked %d times: %+v, %v", asked.Load(), result, err)
	}
	if time.Since(begun) > DefaultTimeout/2 {
		t.Error("the call waited for what cannot be")
	}
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "soon": 0, "99999999999999999999": 0,
		"Sun, 01 Nov 2026 12:01:00 GMT": time.Minute, "Sun, 01 Nov 2026 11:00:00 GMT": 0,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("%q is %s, want %s", header, got, want)
		}
	}
}

func TestASlowBodyIsHeldToTheTimeout(t *testing.T) {
	t.Parallel()
	released := make(chan struct{})
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "a beginning")
		w.(http.Flusher).Flush()
		<-released
	})
	defer close(released)
	_, err := ask(t, HTTP{URL: server.URL, Timeout: 50 * time.Millisecond}, "{}")
	var failure *Error
	if !errors.As(err, &failure) || failure.Reason != TimedOut {
		t.Errorf("failed with %v", err)
	}
}

func TestRedirectsStayAtTheirHost(t *testing.T) {
	t.Parallel()
	var elsewhereAsked atomic.Int64
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { elsewhereAsked.Add(1) })
	mux := http.NewServeMux()
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/here", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/here", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s %s", r.Method, body, r.Header.Get("X-Token"))
	})
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/round", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/round", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/with", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, strings.Replace("http://"+r.Host, "http://", "http://user:pass@", 1)+"/here", http.StatusFound)
	})
	server := serve(t, mux.ServeHTTP)
	// The list names both servers: that a host may be called does not pass it another's secrets.
	web := newWeb(t, server.URL, elsewhere.URL)
	for path, want := range map[string]string{
		"/moved": `POST {"a":1} [secret]`,
		"/away":  "tool t: the server answered HTTP 307 Temporary Redirect: it leads elsewhere, where tools do not follow",
		"/round": "tool t: the server answered HTTP 307 Temporary Redirect: it leads elsewhere, where tools do not follow",
		"/with":  "tool t: the server answered HTTP 302 Found: it leads elsewhere, where tools do not follow",
	} {
		made, err := web.Tool("t", HTTP{Name: "t", URL: server.URL + path, Headers: map[string]string{"X-Token": "${secret:TOKEN}"}})
		if err != nil {
			t.Fatal(err)
		}
		result, err := newRunner(t, Config{}).Do(t.Context(), made, Call{Arguments: []byte(`{"a":1}`)})
		got := result.Text
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s gave %s, want %s", path, got, want)
		}
	}
	if elsewhereAsked.Load() != 0 {
		t.Error("the other host was asked")
	}
}

// TestNamesThatResolveInsideAreNotReached asks for names and addresses that no check
// of the URL's text alone would tell from public ones.
func TestNamesThatResolveInsideAreNotReached(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	server := serve(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	web := newWeb(t)
	for _, host := range []string{"localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0"} {
		made, err := web.Tool("t", HTTP{Name: "t", URL: "http://" + host + ":" + port + "/"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = newRunner(t, Config{}).Do(t.Context(), made, Call{Arguments: []byte(`{}`)})
		var refused *addressError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), "http-tools") {
			t.Errorf("%s: %v", host, err)
		}
	}
	if asked.Load() != 0 {
		t.Errorf("the server was asked %d times", asked.Load())
	}
}

func TestFailuresHoldNoSecretsAndNoArguments(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + listener.Addr().String() + "/"
	_ = listener.Close()
	_, err = ask(t, HTTP{URL: url, Method: "GET", Timeout: 5 * time.Second, Headers: map[string]string{"X-Token": "${secret:TOKEN}"}}, `{"q": "private"}`)
	if err == nil || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "private") || !strings.Contains(err.Error(), "gave no answer") {
		t.Errorf("failed with %v", err)
	}
	if _, err := ask(t, HTTP{URL: url, Headers: map[string]string{"X-Token": "${secret:UNSET}"}}, `{}`); err == nil || !strings.Contains(err.Error(), "secret UNSET") {
		t.Errorf("a secret that is not set: %v", err)
	}
}

func TestHTTPToolsThatDoNotFit(t *testing.T) {
	t.Parallel()
	fine := HTTP{Name: "a", URL: "https://a.example/b"}
	with := func(change func(*HTTP)) HTTP {
		changed := fine
		change(&changed)
		return changed
	}
	tests := map[string]struct {
		described HTTP
		want      []string
	}{
		"fine":           {fine, nil},
		"empty":          {HTTP{}, []string{"tools[1].name", "tools[1].url"}},
		"method":         {with(func(h *HTTP) { h.Method = "DELETE" }), []string{"tools[1].method"}},
		"schema":         {with(func(h *HTTP) { h.Schema = map[string]any{"type": 1} }), []string{"tools[1].schema"}},
		"no JSON schema": {with(func(h *HTTP) { h.Schema = map[string]any{"x": map[any]any{1: 2}} }), []string{"tools[1].schema"}},
		"timeout":        {with(func(h *HTTP) { h.Timeout = -time.Second }), []string{"tools[1].timeout"}},
		"not listed":     {with(func(h *HTTP) { h.URL = "https://b.example/b" }), []string{"tools[1].url"}},
		"header name":    {with(func(h *HTTP) { h.Headers = map[string]string{"a b": "c"} }), []string{`tools[1].headers["a b"]`}},
		"own header":     {with(func(h *HTTP) { h.Headers = map[string]string{"host": "c"} }), []string{`tools[1].headers["host"]`}},
		"header value":   {with(func(h *HTTP) { h.Headers = map[string]string{"a": "b\r\nc: d"} }), []string{`tools[1].headers["a"]`}},
		"odd reference":  {with(func(h *HTTP) { h.Headers = map[string]string{"a": "${env:HOME}"} }), []string{`tools[1].headers["a"]`}},
		"unknown secret": {with(func(h *HTTP) { h.Headers = map[string]string{"a": "${secret:HOME}"} }), []string{"tools[1].headers"}},
	}
	web := newWeb(t, "https://a.example/")
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := web.Tool("tools[1]", test.described)
			var fields []string
			if unfit, found := errors.AsType[*violation.Error](err); found {
				for _, v := range unfit.Violations {
					fields = append(fields, v.Field)
				}
			}
			if !slices.Equal(fields, test.want) {
				t.Errorf("refused %v, want %v", err, test.want)
			}
		})
	}
	_, err := newWeb(t).Tool("t", with(func(h *HTTP) { h.Headers = map[string]string{"a": "${secret:TOKEN}"} }))
	if err == nil || !strings.Contains(err.Error(), "sent only where") {
		t.Errorf("a secret goes anywhere: %v", err)
	}
	for _, prefix := range []string{"", "a.example", "https://u:p@a.example", "https://a.example/?q"} {
		if _, err := NewWeb(WebConfig{Prefixes: []string{prefix}}); err == nil {
			t.Errorf("the prefix %q is taken", prefix)
		}
	}
}

func TestACallEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{})
	server := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		// A server learns that its client is gone once it has read what that sent.
		_, _ = io.Copy(io.Discard, r.Body)
		close(reached)
		<-r.Context().Done()
	})
	made, err := newWeb(t, server.URL).Tool("t", HTTP{Name: "t", URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-reached
		cancel(gone)
	}()
	if _, err := newRunner(t, Config{}).Do(ctx, made, Call{Arguments: []byte(`{}`)}); !errors.Is(err, gone) {
		t.Errorf("failed with %v", err)
	}
}
