package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/djangobridge/djangobridge/go-runtime/internal/ticket"
)

const hang = 30 * time.Second

// fakeRuns has one run, "r", of namespace "n", with the given events.
type fakeRuns struct {
	events []Event
	end    uint64
	err    error
	// open leaves the stream open after the events.
	open bool
	// endless repeats the last event for ever.
	endless bool
	watches atomic.Int32
}

func (f *fakeRuns) EndOfRun(_ context.Context, namespace, runID string) (uint64, error) {
	if namespace != "n" || runID != "r" {
		return 0, fmt.Errorf("look: %w", ErrRunNotFound)
	}
	return f.end, nil
}

func (f *fakeRuns) WatchRun(ctx context.Context, _, _ string, after uint64, least string, send func([]Event) error) error {
	f.watches.Add(1)
	var shown []Event
	for _, ev := range f.events {
		if ev.Sequence > after && (least != "user" || ev.Visibility == "user") {
			shown = append(shown, ev)
		}
	}
	if len(shown) > 0 {
		if err := send(shown); err != nil {
			return err
		}
	}
	for f.endless {
		if err := send(f.events[len(f.events)-1:]); err != nil {
			return err
		}
	}
	if f.open {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return f.err
}

// fakeTickets reads tickets of the form namespace/run/principal/least.
type fakeTickets struct{}

func (fakeTickets) Verify(_ context.Context, text string) (ticket.Ticket, error) {
	parts := strings.Split(text, "/")
	switch {
	case text == "old":
		return ticket.Ticket{}, ticket.ErrExpired
	case text == "later":
		return ticket.Ticket{}, errors.New("the journal is away")
	case len(parts) != 4:
		return ticket.Ticket{}, ticket.ErrInvalid
	}
	return ticket.Ticket{Namespace: parts[0], RunID: parts[1], Principal: parts[2], Least: parts[3]}, nil
}

func newMetrics() StreamMetrics {
	return StreamMetrics{
		Open:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "open", Help: "h"}),
		Events: prometheus.NewCounter(prometheus.CounterOpts{Name: "events_total", Help: "h"}),
		Ended:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ended_total", Help: "h"}, []string{"reason"}),
	}
}

// value returns what a metric stands at.
func value(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%d families, %v", len(families), err)
	}
	m := families[0].GetMetric()[0]
	return m.GetGauge().GetValue() + m.GetCounter().GetValue()
}

type served struct {
	*Server

	metrics StreamMetrics
	serving *atomic.Bool
}

func serve(t *testing.T, runs Runs, change func(*StreamConfig)) served {
	t.Helper()
	return serveWith(t, runs, nil, change)
}

func serveWith(t *testing.T, runs Runs, tlsConfig *tls.Config, change func(*StreamConfig)) served {
	t.Helper()
	s := served{metrics: newMetrics(), serving: new(atomic.Bool)}
	s.serving.Store(true)
	cfg := StreamConfig{
		Runs: runs, Tickets: fakeTickets{}, Origins: []string{"https://site.example"},
		Limit: 10, LimitPerUser: 2, SendTimeout: hang, Metrics: s.metrics,
	}
	if change != nil {
		change(&cfg)
	}
	s.Server = New(Config{
		Address: "127.0.0.1:0", Metrics: prometheus.NewRegistry(), Streams: &cfg, TLS: tlsConfig,
		Readiness: func() Readiness { return Readiness{Serving: s.serving.Load()} },
	}, slog.New(slog.DiscardHandler))
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), hang)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

// answer is a response whose body is closed with the test.
type answer struct {
	StatusCode int
	Header     http.Header
	Body       io.ReadCloser
}

// ask sends a request.
func (s served) ask(t *testing.T, method, query string, header ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, method, "http://"+s.Addr()+"/v1/runs/r/events?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return answer{response.StatusCode, response.Header, response.Body}
}

func text(t *testing.T, response answer) string {
	t.Helper()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func ids(body string) string {
	var found []string
	for line := range strings.SplitSeq(body, "\n") {
		if id, is := strings.CutPrefix(line, "id: "); is {
			found = append(found, id)
		}
	}
	return strings.Join(found, " ")
}

// until waits for a condition that something running brings about.
func until(t *testing.T, what string, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(hang); !met(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
		<-time.After(time.Millisecond)
	}
}

func three() *fakeRuns {
	return &fakeRuns{events: []Event{
		{Sequence: 2, Type: "a", Visibility: "user"},
		{Sequence: 5, Type: "b", Visibility: "internal"},
		{Sequence: 9, Type: "run.succeeded", Visibility: "user"},
	}}
}

func TestAStreamHasTheEventsAndEnds(t *testing.T) {
	t.Parallel()
	s := serve(t, three(), nil)
	response := s.ask(t, http.MethodGet, "ticket=n/r/u/internal")
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache, no-transform",
		"X-Accel-Buffering": "no", "Vary": "Origin", "Access-Control-Allow-Origin": "",
	} {
		if got := response.Header.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	body := text(t, response)
	if response.StatusCode != http.StatusOK || !strings.HasPrefix(body, "retry: 2000\n\nid: 2\nevent: a\ndata: {") || ids(body) != "2 5 9" {
		t.Errorf("%d %s", response.StatusCode, body)
	}
	if body := text(t, s.ask(t, http.MethodGet, "unnamed=1&ticket=n/r/u/user")); strings.Contains(body, "event:") || ids(body) != "2 9" {
		t.Errorf("unnamed: %s", body)
	}
	for given, unnamed := range map[string]bool{
		"true": true, "True": true, "on": true, "0": false, "false": false, "": false, "0&unnamed=1": true,
	} {
		body := text(t, s.ask(t, http.MethodGet, "ticket=n/r/"+url.QueryEscape(given)+"/user&unnamed="+given))
		if strings.Contains(body, "event:") == unnamed || ids(body) != "2 9" {
			t.Errorf("unnamed=%s: %s", given, body)
		}
	}
	if n := value(t, s.metrics.Events); n != 19 {
		t.Errorf("%v events counted", n)
	}
	until(t, "the end of both", func() bool {
		return value(t, s.metrics.Open) == 0 && value(t, s.metrics.Ended.WithLabelValues("finished")) == 9
	})
}

func TestResume(t *testing.T) {
	t.Parallel()
	s := serve(t, three(), nil)
	tests := map[string]struct {
		query, header, want string
	}{
		"query":             {"&last_event_id=2", "", "5 9"},
		"header":            {"", "5", "9"},
		"header goes first": {"&last_event_id=5", "2", "5 9"},
		"empty":             {"&last_event_id=", "", "2 5 9"},
		"zero":              {"&last_event_id=0", "", "2 5 9"},
		"from_seq":          {"&from_seq=2", "", "5 9"},
		"id before seq":     {"&last_event_id=5&from_seq=2", "", "9"},
		"the last of two":   {"&last_event_id=2&last_event_id=5", "", "9"},
		"beside others":     {"&_=123&trace&last_event_id=2", "", "5 9"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := text(t, s.ask(t, http.MethodGet, "ticket=n/r/"+strings.ReplaceAll(name, " ", "-")+"/internal"+test.query, "Last-Event-ID", test.header))
			if got := ids(body); got != test.want {
				t.Errorf("ids = %s, want %s", got, test.want)
			}
		})
	}
}

func TestWhatIsOverIsSaidSo(t *testing.T) {
	t.Parallel()
	runs := three()
	runs.end = 9
	s := serve(t, runs, nil)
	if response := s.ask(t, http.MethodGet, "ticket=n/r/u/user", "Last-Event-ID", "9"); response.StatusCode != http.StatusNoContent {
		t.Errorf("after the end: %d", response.StatusCode)
	}
	if body := text(t, s.ask(t, http.MethodGet, "ticket=n/r/u/internal&last_event_id=5")); ids(body) != "9" {
		t.Errorf("before the end: %s", body)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := serve(t, three(), nil)
	tests := map[string]struct {
		method, query string
		header        []string
		status        int
		code          string
	}{
		"no ticket":           {http.MethodGet, "", nil, 401, "TICKET_INVALID"},
		"no such ticket":      {http.MethodGet, "ticket=x", nil, 401, "TICKET_INVALID"},
		"expired":             {http.MethodGet, "ticket=old", nil, 401, "TICKET_EXPIRED"},
		"another run's":       {http.MethodGet, "ticket=n/other/u/user", nil, 403, "TICKET_OF_ANOTHER_RUN"},
		"another namespace":   {http.MethodGet, "ticket=m/r/u/user", nil, 404, "RUN_NOT_FOUND"},
		"a word as position":  {http.MethodGet, "ticket=n/r/u/user&last_event_id=x", nil, 400, "INVALID_ARGUMENT"},
		"a negative position": {http.MethodGet, "ticket=n/r/u/user", []string{"Last-Event-ID", "-1"}, 400, "INVALID_ARGUMENT"},
		"an unknown boolean":  {http.MethodGet, "ticket=n/r/u/user&unnamed=maybe", nil, 400, "INVALID_ARGUMENT"},
		"a signed position":   {http.MethodGet, "ticket=n/r/u/user&from_seq=%2B5", nil, 400, "INVALID_ARGUMENT"},
		"a hidden position":   {http.MethodGet, "ticket=n/r/u/user&from_seq=x&last_event_id=2", nil, 400, "INVALID_ARGUMENT"},
		"a huge position":     {http.MethodGet, "ticket=n/r/u/user&last_event_id=18446744073709551615", nil, 400, "INVALID_ARGUMENT"},
		"foreign origin":      {http.MethodGet, "ticket=n/r/u/user", []string{"Origin", "https://evil.example"}, 403, "ORIGIN_NOT_ALLOWED"},
		"origin of a suffix":  {http.MethodGet, "ticket=n/r/u/user", []string{"Origin", "https://site.example.evil"}, 403, "ORIGIN_NOT_ALLOWED"},
		"no origin":           {http.MethodGet, "ticket=n/r/u/user", []string{"Origin", "null"}, 403, "ORIGIN_NOT_ALLOWED"},
		"foreign preflight":   {http.MethodOptions, "", []string{"Origin", "https://evil.example"}, 403, "ORIGIN_NOT_ALLOWED"},
		"post":                {http.MethodPost, "ticket=n/r/u/user", nil, 405, "METHOD_NOT_ALLOWED"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			response := s.ask(t, test.method, test.query, test.header...)
			var p problem
			if err := json.Unmarshal([]byte(text(t, response)), &p); err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != test.status || p.Status != test.status || p.Code != test.code || p.Detail == "" ||
				p.Title != http.StatusText(test.status) ||
				p.Type != "urn:agentruntime:problem:"+strings.ToLower(strings.ReplaceAll(test.code, "_", "-")) ||
				response.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%d %s %+v, want %d %s", response.StatusCode, response.Header.Get("Content-Type"), p, test.status, test.code)
			}
			if response.Header.Get("Access-Control-Allow-Origin") != "" || response.Header.Get("Vary") != "Origin" {
				t.Errorf("headers: %v", response.Header)
			}
		})
	}
	if head := s.ask(t, http.MethodHead, "ticket=n/r/u/user"); head.StatusCode != http.StatusMethodNotAllowed || head.Header.Get("Allow") != "GET, OPTIONS" {
		t.Errorf("head: %d %v", head.StatusCode, head.Header)
	}
}

func TestWhatDoesNotFitIsNamed(t *testing.T) {
	t.Parallel()
	s := serve(t, three(), nil)
	for query, want := range map[string]string{
		"ticket=n/r/u/user&last_event_id=x&a=1": "last_event_id",
	} {
		var p problem
		if err := json.Unmarshal([]byte(text(t, s.ask(t, http.MethodGet, query))), &p); err != nil {
			t.Fatal(err)
		}
		var fields []string
		for _, named := range p.Errors {
			if named.Detail == "" {
				t.Errorf("%s: %s is not explained", query, named.Field)
			}
			fields = append(fields, named.Field)
		}
		if got := strings.Join(fields, ", "); got != want {
			t.Errorf("%s: named %q, want %q", query, got, want)
		}
	}
}

func TestPagesOfListedOriginsMayRead(t *testing.T) {
	t.Parallel()
	s := serve(t, three(), nil)
	const origin = "https://site.example"
	response := s.ask(t, http.MethodGet, "ticket=n/r/u/user", "Origin", origin)
	if response.StatusCode != http.StatusOK || response.Header.Get("Access-Control-Allow-Origin") != origin || response.Header.Get("Vary") != "Origin" {
		t.Errorf("%d %v", response.StatusCode, response.Header)
	}
	refused := s.ask(t, http.MethodGet, "ticket=old", "Origin", origin)
	if refused.StatusCode != http.StatusUnauthorized || refused.Header.Get("Access-Control-Allow-Origin") != origin {
		t.Errorf("a page cannot read why it was refused: %d %v", refused.StatusCode, refused.Header)
	}
	preflight := s.ask(t, http.MethodOptions, "ticket=n/r/u/user", "Origin", origin, "Access-Control-Request-Headers", "last-event-id")
	if preflight.StatusCode != http.StatusNoContent || preflight.Header.Get("Access-Control-Allow-Origin") != origin ||
		preflight.Header.Get("Access-Control-Allow-Methods") != "GET" || !strings.Contains(preflight.Header.Get("Access-Control-Allow-Headers"), "Last-Event-ID") {
		t.Errorf("preflight: %d %v", preflight.StatusCode, preflight.Header)
	}
	own := s.ask(t, http.MethodGet, "ticket=n/r/v/user", "Origin", "http://"+s.Addr())
	if own.StatusCode != http.StatusOK || own.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("the site itself: %d %v", own.StatusCode, own.Header)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	runs := three()
	runs.open = true
	s := serve(t, runs, func(cfg *StreamConfig) { cfg.Limit = 5 })
	open := func(principal string) answer {
		return s.ask(t, http.MethodGet, "ticket=n/r/"+principal+"/user")
	}
	first := open("u")
	for _, principal := range []string{"u", "", ""} {
		if response := open(principal); response.StatusCode != http.StatusOK {
			t.Fatalf("%q: %d", principal, response.StatusCode)
		}
	}
	for principal, want := range map[string]int{"u": http.StatusTooManyRequests, "": http.StatusTooManyRequests} {
		if response := open(principal); response.StatusCode != want || response.Header.Get("Retry-After") == "" {
			t.Errorf("%q: %d, retry after %q", principal, response.StatusCode, response.Header.Get("Retry-After"))
		}
	}
	open("v")
	if response := open("w"); response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %d", response.StatusCode)
	}
	if n := value(t, s.metrics.Open); n != 5 {
		t.Errorf("%v are open", n)
	}
	// A reader that leaves makes room.
	if err := first.Body.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "room", func() bool { return open("u").StatusCode == http.StatusOK })
	if left := value(t, s.metrics.Ended.WithLabelValues("left")); left != 1 {
		t.Errorf("%v left", left)
	}
}

func TestHeartbeats(t *testing.T) {
	t.Parallel()
	runs := &fakeRuns{open: true}
	s := serve(t, runs, func(cfg *StreamConfig) { cfg.Heartbeat = time.Millisecond })
	lines := bufio.NewScanner(s.ask(t, http.MethodGet, "ticket=n/r/u/user").Body)
	for beats := 0; beats < 3; {
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		if lines.Text() == ": heartbeat" {
			beats++
		}
	}
}

// encrypt has a server be read over HTTP/2, by the client that it returns.
func encrypt(t *testing.T, runs Runs, change func(*StreamConfig)) (served, *http.Client) {
	t.Helper()
	lender := httptest.NewTLSServer(nil)
	t.Cleanup(lender.Close)
	transport, _ := lender.Client().Transport.(*http.Transport)
	transport.ForceAttemptHTTP2 = true
	certificates := &tls.Config{Certificates: lender.TLS.Certificates, MinVersion: tls.VersionTLS12}
	return serveWith(t, runs, certificates, change), lender.Client()
}

// open begins to read a run's events over HTTP/2.
func (s served) open(t *testing.T, client *http.Client) io.Reader {
	t.Helper()
	url := "https://" + s.Addr() + "/v1/runs/r/events?ticket=n/r/u/user"
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	if response.ProtoMajor != 2 {
		t.Fatalf("over %s", response.Proto)
	}
	return response.Body
}

// TestSilenceIsNoSlowReader has nothing be said for longer than a reader may take
// nothing, over HTTP/2, whose limit of a write is one of silence too.
func TestSilenceIsNoSlowReader(t *testing.T) {
	t.Parallel()
	s, client := encrypt(t, &fakeRuns{open: true}, func(cfg *StreamConfig) {
		cfg.SendTimeout, cfg.Heartbeat = time.Second, 1500*time.Millisecond
	})
	lines := bufio.NewScanner(s.open(t, client))
	for lines.Scan() {
		if lines.Text() == ": heartbeat" {
			return
		}
	}
	t.Fatalf("the stream ended: %v", lines.Err())
}

func TestASlowReaderIsCutOff(t *testing.T) {
	t.Parallel()
	endless := func() *fakeRuns {
		payload := []byte(`{"a":"` + strings.Repeat("x", frameBytes) + `"}`)
		return &fakeRuns{endless: true, events: []Event{{Sequence: 1, Type: "a", Visibility: "user", Payload: payload}}}
	}
	shortly := func(cfg *StreamConfig) { cfg.SendTimeout = time.Second }
	isCut := func(t *testing.T, s served) {
		t.Helper()
		until(t, "the cut", func() bool {
			return value(t, s.metrics.Ended.WithLabelValues("slow")) == 1 && value(t, s.metrics.Open) == 0
		})
	}
	t.Run("HTTP/1.1", func(t *testing.T) {
		t.Parallel()
		s := serve(t, endless(), shortly)
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if _, err := fmt.Fprintf(conn, "GET /v1/runs/r/events?ticket=n/r/u/user HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		// It reads nothing.
		isCut(t, s)
	})
	t.Run("HTTP/2", func(t *testing.T) {
		t.Parallel()
		s, client := encrypt(t, endless(), shortly)
		_ = s.open(t, client)
		isCut(t, s)
	})
}

func TestDrainEndsStreams(t *testing.T) {
	t.Parallel()
	runs := three()
	runs.open = true
	s := serve(t, runs, nil)
	response := s.ask(t, http.MethodGet, "ticket=n/r/u/user")
	// Another one reads nothing of much.
	stuck := serve(t, &fakeRuns{endless: true, events: []Event{{Sequence: 1, Payload: []byte(`{"a":"` + strings.Repeat("x", frameBytes) + `"}`)}}}, nil)
	_ = stuck.ask(t, http.MethodGet, "ticket=n/r/u/debug")
	var body strings.Builder
	lines := bufio.NewReader(response.Body)
	for line := ""; line != "id: 9\n"; {
		var err error
		if line, err = lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		body.WriteString(line)
	}

	s.Drain()
	if _, err := lines.WriteTo(&body); err != nil || ids(body.String()) != "2 9" {
		t.Errorf("%s, %v", body.String(), err)
	}
	// A browser is told to come again, not refused for good.
	again := s.ask(t, http.MethodGet, "ticket=n/r/u/user")
	if body := text(t, again); again.StatusCode != http.StatusOK || body != "retry: 2000\n\n" {
		t.Errorf("%d %s", again.StatusCode, body)
	}
	if n := value(t, s.metrics.Ended.WithLabelValues("draining")); n != 1 {
		t.Errorf("%v streams were ended", n)
	}
	ctx, cancel := context.WithTimeout(context.Background(), hang/2) // less than the send timeout
	defer cancel()
	if err := stuck.Stop(ctx); err != nil {
		t.Errorf("a reader that reads nothing holds up the stop: %v", err)
	}
}

func TestWhoComesTooEarlyComesAgain(t *testing.T) {
	t.Parallel()
	s := serve(t, three(), nil)
	for name, prepare := range map[string]func() string{
		"the journal is away": func() string { return "ticket=later" },
		"starting":            func() string { s.serving.Store(false); return "ticket=x" },
	} {
		response := s.ask(t, http.MethodGet, prepare())
		if body := text(t, response); response.StatusCode != http.StatusOK || body != "retry: 2000\n\n" {
			t.Errorf("%s: %d %s", name, response.StatusCode, body)
		}
		s.serving.Store(true)
	}
}

func TestLossIsTold(t *testing.T) {
	t.Parallel()
	s := serve(t, &fakeRuns{err: fmt.Errorf("watch: %w", &TruncatedError{Oldest: 8})}, nil)
	body := text(t, s.ask(t, http.MethodGet, "ticket=n/r/u/user"))
	want := "retry: 2000\n\nid: 7\nevent: stream.error\ndata: {\"problem\":{"
	if !strings.HasPrefix(body, want) || !strings.Contains(body, `"code":"EVENTS_TRUNCATED"`) || !strings.Contains(body, `"type":"stream.error"`) {
		t.Errorf("%s", body)
	}
}
