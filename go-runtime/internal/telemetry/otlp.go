package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
)

// collector is where spans are sent.
type collector struct {
	name   string
	client sdktrace.SpanExporter
	// secrets are what must not be logged even where the collector sends it back.
	secrets []string
	// shape changes spans on their way; nil: it does not.
	shape func(sdktrace.ReadOnlySpan) sdktrace.ReadOnlySpan
}

// newOTLP returns the collector that OTEL_EXPORTER_OTLP_* asks for, or nil.
func newOTLP(getenv func(string) string) (*collector, error) {
	if getenv("OTEL_TRACES_EXPORTER") == "none" ||
		getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return nil, nil
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if protocol := getenv(name); protocol != "" && protocol != "http/protobuf" {
			return nil, fmt.Errorf("%s is %q: only http/protobuf is spoken", name, protocol)
		}
	}
	wrapped, err := otlptracehttp.New(context.Background())
	if err != nil {
		return nil, fmt.Errorf("set up the OTLP exporter: %w", err)
	}
	var secrets []string
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"} {
		for header := range strings.SplitSeq(getenv(name), ",") {
			_, value, _ := strings.Cut(header, "=")
			if value = strings.TrimSpace(value); value != "" {
				secrets = append(secrets, value)
				if plain, err := url.PathUnescape(value); err == nil {
					secrets = append(secrets, plain)
				}
			}
		}
	}
	return &collector{name: "otlp", client: wrapped, secrets: secrets}, nil
}

const (
	// langSmithEndpoint is that of LangSmith's own service; one of one's own ends in /api/v1.
	langSmithEndpoint = "https://api.smith.langchain.com"
	langSmithPath     = "/otel/v1/traces"
)

// newLangSmith returns the collector that LANGSMITH_* asks for, or nil.
func newLangSmith(getenv func(string) string) (*collector, error) {
	endpoint, key, project := getenv("LANGSMITH_ENDPOINT"), getenv("LANGSMITH_API_KEY"), getenv("LANGSMITH_PROJECT")
	wanted := getenv("LANGSMITH_TRACING")
	if strings.EqualFold(wanted, "false") || endpoint == "" && (key == "" || !strings.EqualFold(wanted, "true")) {
		return nil, nil
	}
	endpoint = cmp.Or(endpoint, langSmithEndpoint)
	address, err := url.Parse(endpoint)
	if err != nil || address.Host == "" || address.User != nil || address.Scheme != "http" && address.Scheme != "https" {
		// Without what it says: a mistyped one may hold the key.
		return nil, errors.New("LANGSMITH_ENDPOINT: want a URL such as https://langsmith.example.com/api/v1, without user and password")
	}
	headers := map[string]string{}
	var secrets []string
	if key != "" {
		headers["x-api-key"], secrets = key, []string{key}
	}
	if project != "" {
		headers["Langsmith-Project"] = project
	}
	wrapped, err := otlptracehttp.New(context.Background(),
		otlptracehttp.WithEndpointURL(strings.TrimRight(endpoint, "/")+langSmithPath),
		// Not those of OTEL_EXPORTER_OTLP_HEADERS, which are another collector's.
		otlptracehttp.WithHeaders(headers))
	if err != nil {
		return nil, fmt.Errorf("set up the exporter to LangSmith: %w", err)
	}
	return &collector{
		name: "langsmith", client: wrapped, secrets: secrets,
		shape: func(s sdktrace.ReadOnlySpan) sdktrace.ReadOnlySpan { return rooted(s, project) },
	}, nil
}

// rooted makes the own span of a run that names another project the first of a trace
// there: what calls the run is not in that project, and LangSmith shows no span whose
// parent is elsewhere.
func rooted(s sdktrace.ReadOnlySpan, project string) sdktrace.ReadOnlySpan {
	enters, elsewhere := false, false
	for _, a := range s.Attributes() {
		switch a.Key {
		case span.Enters:
			enters = a.Value.AsBool()
		case "langsmith.trace.session_name":
			elsewhere = a.Value.AsString() != project
		}
	}
	if enters && elsewhere {
		return rootSpan{s}
	}
	return s
}

// rootSpan is a span without its parent.
type rootSpan struct{ sdktrace.ReadOnlySpan }

// Parent implements sdktrace.ReadOnlySpan.
func (rootSpan) Parent() trace.SpanContext { return trace.SpanContext{} }
