package telemetry_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"

	"github.com/djangobridge/djangobridge/go-runtime/internal/telemetry"
)

func TestTracingIsOffUnlessAnEndpointIsSet(t *testing.T) {
	t.Parallel()
	for name, environment := range map[string]map[string]string{
		"nothing":  {},
		"disabled": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "TRUE"},
		"none":     {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tracing, err := telemetry.New("1", func(key string) string { return environment[key] })
			if err != nil || tracing.Enabled() {
				t.Errorf("enabled, %v", err)
			}
			if err := tracing.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnotherProtocolIsRefused(t *testing.T) {
	t.Parallel()
	environment := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
	if _, err := telemetry.New("1", func(key string) string { return environment[key] }); err == nil || !strings.Contains(err.Error(), "http/protobuf") {
		t.Errorf("err = %v", err)
	}
}

//nolint:paralleltest // the exporter reads the process's own environment
func TestSpansReachTheCollector(t *testing.T) {
	sent := make(chan string, 1)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		sent <- r.URL.Path + " " + string(body)
	}))
	defer collector.Close()
	environment := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL, "OTEL_SERVICE_NAME": "shop"}
	for key, value := range environment {
		t.Setenv(key, value)
	}
	tracing, err := telemetry.New("1.2.3", func(key string) string { return environment[key] })
	if err != nil || !tracing.Enabled() {
		t.Fatalf("tracing is off: %v", err)
	}
	// The span is a child of the one the caller named in traceparent.
	const parent = "0af7651916cd43dd8448eb211c80319c"
	ctx := tracing.Propagator().Extract(t.Context(), propagation.MapCarrier{"traceparent": "00-" + parent + "-b7ad6b7169203331-01"})
	_, span := tracing.Provider().Tracer("test").Start(ctx, "a span of the test")
	if got := span.SpanContext().TraceID().String(); got != parent {
		t.Errorf("trace = %s, want the caller's", got)
	}
	span.End()
	if err := tracing.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	body := <-sent
	for _, part := range []string{"/v1/traces", "a span of the test", "shop", "1.2.3"} {
		if !strings.Contains(body, part) {
			t.Errorf("the collector did not get %q", part)
		}
	}
	if err := tracing.Stop(t.Context()); err != nil {
		t.Errorf("second stop: %v", err)
	}
}
