// Package telemetry sends traces to an OpenTelemetry collector.
//
// It is configured by the environment variables of the OpenTelemetry
// specification alone (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME,
// OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, ...), and speaks OTLP over HTTP.
package telemetry

import (
	"context"
	"fmt"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// defaultServiceName is what traces carry unless OTEL_SERVICE_NAME says otherwise.
const defaultServiceName = "agent-runtime"

// Tracing makes spans and sends them.
type Tracing struct {
	provider trace.TracerProvider
	stop     func(context.Context) error
}

// New returns tracing as the environment asks for it: off unless
// OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set, and
// off with OTEL_SDK_DISABLED=true or OTEL_TRACES_EXPORTER=none. getenv is
// os.Getenv. Nothing waits for the collector: it need not be there.
func New(version string, getenv func(string) string) (*Tracing, error) {
	ctx := context.Background()
	if !wanted(getenv) {
		return &Tracing{provider: noop.NewTracerProvider(), stop: func(context.Context) error { return nil }}, nil
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if protocol := getenv(name); protocol != "" && protocol != "http/protobuf" {
			return nil, fmt.Errorf("%s is %q: only http/protobuf is spoken", name, protocol)
		}
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("set up the OTLP exporter: %w", err)
	}
	described, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", defaultServiceName), attribute.String("service.version", version)),
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(),
	)
	if err != nil {
		return nil, fmt.Errorf("describe this service for traces: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(described))
	return &Tracing{provider: provider, stop: provider.Shutdown}, nil
}

func wanted(getenv func(string) string) bool {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") || getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	return getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

// Enabled reports whether spans go anywhere.
func (t *Tracing) Enabled() bool {
	_, off := t.provider.(noop.TracerProvider)
	return !off
}

// Provider makes tracers.
func (t *Tracing) Provider() trace.TracerProvider { return t.provider }

// Propagator carries the caller's span over the wire: W3C trace context and baggage.
func (t *Tracing) Propagator() propagation.TextMapPropagator {
	return propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
}

// Stop sends what is left, as long as ctx allows. It may be called twice.
func (t *Tracing) Stop(ctx context.Context) error { return t.stop(ctx) }
