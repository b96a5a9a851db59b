package telemetry_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/djangobridge/djangobridge/go-runtime/internal/otlptest"
	"github.com/djangobridge/djangobridge/go-runtime/internal/telemetry"
)

func TestMain(m *testing.M) {
	// Connections that are kept open for the next batch; they end with the servers.
	http.DefaultTransport.(*http.Transport).DisableKeepAlives = true
	goleak.VerifyTestMain(m)
}

func environment(values map[string]string) func(string) string {
	return func(key string) string { return values[key] }
}

func open(t *testing.T, log *slog.Logger, values map[string]string) *telemetry.Tracing {
	t.Helper()
	tracing, err := telemetry.New("1.2.3", environment(values), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tracing.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return tracing
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestTracingIsOffUnlessAnEndpointIsSet(t *testing.T) {
	t.Parallel()
	const away = "http://127.0.0.1:1"
	for name, tc := range map[string]struct {
		values  map[string]string
		enabled bool
	}{
		"nothing":            {map[string]string{}, false},
		"disabled":           {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": away, "LANGSMITH_ENDPOINT": away, "OTEL_SDK_DISABLED": "TRUE"}, false},
		"none":               {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": away, "OTEL_TRACES_EXPORTER": "none"}, false},
		"a key alone":        {map[string]string{"LANGSMITH_API_KEY": "k"}, false},
		"LangSmith off":      {map[string]string{"LANGSMITH_ENDPOINT": away, "LANGSMITH_TRACING": "false"}, false},
		"LangSmith":          {map[string]string{"LANGSMITH_ENDPOINT": away}, true},
		"LangSmith's own":    {map[string]string{"LANGSMITH_API_KEY": "k", "LANGSMITH_TRACING": "true"}, true},
		"none but LangSmith": {map[string]string{"LANGSMITH_ENDPOINT": away, "OTEL_TRACES_EXPORTER": "none"}, true},
		"a collector":        {map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": away}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tracing := open(t, quiet(), tc.values)
			if tracing.Enabled() != tc.enabled {
				t.Errorf("enabled = %t", tracing.Enabled())
			}
		})
	}
}

func TestBadSettingsAreRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		values map[string]string
		says   string
	}{
		"protocol": {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"},
		"endpoint": {map[string]string{"LANGSMITH_ENDPOINT": "http://me:lsv2_secret@127.0.0.1"}, "LANGSMITH_ENDPOINT"},
		"no URL":   {map[string]string{"LANGSMITH_ENDPOINT": "lsv2_secret"}, "LANGSMITH_ENDPOINT"},
		"sampler":  {map[string]string{"OTEL_TRACES_SAMPLER": "sometimes"}, "parentbased_"},
		"ratio":    {map[string]string{"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "NaN"}, "from 0 to 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := telemetry.New("1", environment(tc.values), quiet())
			if err == nil || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "lsv2_secret") {
				t.Errorf("err = %v", err)
			}
		})
	}
}

// TestSpansReachBothCollectors has a LangSmith of one's own beside another collector:
// neither is sent what is for the other.
//
//nolint:paralleltest // an exporter reads the process's own environment
func TestSpansReachBothCollectors(t *testing.T) {
	collector, langSmith := otlptest.New(t), otlptest.New(t)
	values := map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL, "OTEL_EXPORTER_OTLP_HEADERS": "x-other=secret", "OTEL_SERVICE_NAME": "shop",
		"LANGSMITH_ENDPOINT": langSmith.URL + "/api/v1/", "LANGSMITH_API_KEY": "lsv2_key", "LANGSMITH_PROJECT": "shop project",
	}
	for key, value := range values {
		t.Setenv(key, value)
	}
	tracing := open(t, quiet(), values)
	// The span is a child of the one the caller named in traceparent.
	const parent = "0af7651916cd43dd8448eb211c80319c"
	ctx := tracing.Propagator().Extract(t.Context(), propagation.MapCarrier{"traceparent": "00-" + parent + "-b7ad6b7169203331-01"})
	_, s := tracing.Provider().Tracer("test").Start(ctx, "a span of the test")
	if got := s.SpanContext().TraceID().String(); got != parent {
		t.Errorf("trace = %s, want the caller's", got)
	}
	s.End()
	for range 2 {
		if err := tracing.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		receiver *otlptest.Receiver
		path     string
		headers  map[string]string
	}{
		"collector": {collector, "/v1/traces", map[string]string{"X-Other": "secret", "X-Api-Key": "", "Langsmith-Project": ""}},
		"LangSmith": {langSmith, "/api/v1/otel/v1/traces", map[string]string{
			"X-Other": "", "X-Api-Key": "lsv2_key", "Langsmith-Project": "shop project", "Content-Type": "application/x-protobuf",
		}},
	} {
		got := tc.receiver.Named(t, "a span of the test")
		if got.Request.URL.Path != tc.path || got.Service != "shop" {
			t.Errorf("%s: of %s to %s", name, got.Service, got.Request.URL)
		}
		for header, want := range tc.headers {
			if value := got.Request.Header.Get(header); value != want {
				t.Errorf("%s: %s is %q", name, header, value)
			}
		}
	}
	if want := (telemetry.Stats{Exporter: "langsmith", Sent: 1}); tracing.Stats()[1] != want {
		t.Errorf("stats = %+v", tracing.Stats())
	}
}

// TestCollectorCostsOnlyItsSpans has collectors that take nothing. More spans end than
// wait, none waits for the collector, and each is counted once.
func TestCollectorCostsOnlyItsSpans(t *testing.T) {
	t.Parallel()
	const key = "lsv2_secret_key"
	for name, answer := range map[string]http.HandlerFunc{
		"hangs": func(_ http.ResponseWriter, r *http.Request) {
			// A client that goes away is only seen once its request is read.
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		},
		"500 and tells the key": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, strings.Repeat("no: "+r.Header.Get("X-Api-Key")+"\n", 1000), http.StatusInternalServerError)
		},
		"429": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusTooManyRequests)
		},
		"401": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) },
		"nonsense": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-protobuf")
			_, _ = w.Write([]byte("\xff\xff\xff"))
		},
		"refuses": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r) }))
			defer server.Close()
			if answer == nil {
				server.Close()
			}
			var log lines
			tracing := open(t, slog.New(slog.NewTextHandler(&log, nil)), map[string]string{
				"LANGSMITH_ENDPOINT": server.URL, "LANGSMITH_API_KEY": key,
			})
			const spans = 10_000
			tracer := tracing.Provider().Tracer("test")
			var ending sync.WaitGroup
			for range 4 {
				ending.Go(func() {
					for range spans / 4 {
						_, s := tracer.Start(t.Context(), "a span")
						s.End()
					}
				})
			}
			ending.Wait()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := tracing.Stop(ctx); err != nil {
				t.Error(err)
			}
			stats := tracing.Stats()[0]
			if stats.Sent != 0 || stats.Failed == 0 || stats.Failed+stats.Dropped != spans {
				t.Errorf("stats = %+v", stats)
			}
			if said := log.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "spans lost") || len(said) > 1000 || strings.Contains(said, key) {
				t.Errorf("log = %s", said)
			}
		})
	}
}

// lines are what was logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestQueueIsBounded drops what finds it full.
func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	begun, open := make(chan struct{}), make(chan struct{})
	var once sync.Once
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		once.Do(func() { close(begun) })
		<-open
	}))
	defer server.Close()
	tracing := openTracing(t, server.URL)
	tracer := tracing.Provider().Tracer("test")
	for range 5000 {
		_, s := tracer.Start(t.Context(), "a span")
		s.End()
	}
	<-begun
	if stats := tracing.Stats()[0]; stats.Dropped != 5000-2048 || stats.Sent+stats.Failed != 0 {
		t.Errorf("while the collector is busy: %+v", stats)
	}
	close(open)
	if err := tracing.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stats := tracing.Stats()[0]; stats.Sent != 2048 || stats.Failed != 0 {
		t.Errorf("in the end: %+v", stats)
	}
}

func openTracing(t *testing.T, url string) *telemetry.Tracing {
	t.Helper()
	return open(t, quiet(), map[string]string{"LANGSMITH_ENDPOINT": url})
}

func TestSampler(t *testing.T) {
	t.Parallel()
	const sampled, unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	for name, tc := range map[string]struct {
		sampler, ratio, parent string
		want                   bool
	}{
		"default, root":             {"", "", "", true},
		"default, sampled parent":   {"", "", sampled, true},
		"default, unsampled parent": {"", "", unsampled, false},
		"off, root":                 {"parentbased_always_off", "", "", false},
		"off, sampled parent":       {"parentbased_always_off", "", sampled, true},
		"ratio 0, root":             {"parentbased_traceidratio", "0", "", false},
		"ratio 0, sampled parent":   {"parentbased_traceidratio", "0", sampled, true},
		"ratio 1, root":             {"parentbased_traceidratio", "1", "", true},
		"always, unsampled parent":  {"always_on", "", unsampled, true},
		"never, sampled parent":     {"always_off", "", sampled, false},
		"plain ratio, sampled":      {"traceidratio", "0", sampled, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			receiver := otlptest.New(t)
			tracing := open(t, quiet(), map[string]string{
				"LANGSMITH_ENDPOINT": receiver.URL, "OTEL_TRACES_SAMPLER": tc.sampler, "OTEL_TRACES_SAMPLER_ARG": tc.ratio,
			})
			ctx := tracing.Propagator().Extract(t.Context(), propagation.MapCarrier{"traceparent": tc.parent})
			_, s := tracing.Provider().Tracer("test").Start(ctx, "a span", trace.WithAttributes(attribute.Bool("b", true)))
			if got := s.SpanContext().IsSampled(); got != tc.want {
				t.Errorf("sampled = %t", got)
			}
			s.End()
			if err := tracing.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := len(receiver.Spans()) == 1; got != tc.want {
				t.Errorf("sent = %t", got)
			}
		})
	}
}
