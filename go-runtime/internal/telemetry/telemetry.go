// Package telemetry sends traces to OpenTelemetry collectors, and to LangSmith.
//
// It is configured by the environment variables of the OpenTelemetry
// specification (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME,
// OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, ...) and those of LangSmith's SDK
// (LANGSMITH_ENDPOINT, LANGSMITH_API_KEY, LANGSMITH_PROJECT), and speaks OTLP over
// HTTP. A collector that is away, slow or refuses costs its own spans only: they
// wait in a queue that is bounded, and what does not fit is dropped and counted.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
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
	// provider is nil when spans go nowhere.
	provider  *sdktrace.TracerProvider
	exporters []*exporter
}

// New returns tracing as the environment asks for it: off unless
// OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or
// LANGSMITH_ENDPOINT is set, or LANGSMITH_API_KEY together with LANGSMITH_TRACING=true.
// Both kinds are sent to where both are set. OTEL_SDK_DISABLED=true turns all off,
// OTEL_TRACES_EXPORTER=none the first, LANGSMITH_TRACING=false the second. getenv is
// os.Getenv. Nothing waits for a collector: it need not be there.
func New(version string, getenv func(string) string, log *slog.Logger) (*Tracing, error) {
	t := &Tracing{}
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return t, nil
	}
	otlp, errOTLP := newOTLP(getenv)
	langSmith, errLangSmith := newLangSmith(getenv)
	sampler, errSampler := newSampler(getenv)
	if err := errors.Join(errOTLP, errLangSmith, errSampler); err != nil {
		return nil, err
	}
	if otlp == nil && langSmith == nil {
		return t, nil
	}
	described, err := resource.New(context.Background(),
		resource.WithAttributes(attribute.String("service.name", defaultServiceName), attribute.String("service.version", version)),
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(),
	)
	if err != nil {
		return nil, fmt.Errorf("describe this service for traces: %w", err)
	}
	options := []sdktrace.TracerProviderOption{
		sdktrace.WithResource(described), sdktrace.WithSampler(sampler), sdktrace.WithIDGenerator(idGenerator{}),
	}
	for _, c := range []*collector{otlp, langSmith} {
		if c == nil {
			continue
		}
		e := newExporter(c, queueSize(getenv), log)
		t.exporters = append(t.exporters, e)
		options = append(options, sdktrace.WithSpanProcessor(e))
	}
	t.provider = sdktrace.NewTracerProvider(options...)
	return t, nil
}

// Enabled reports whether spans go anywhere.
func (t *Tracing) Enabled() bool { return t.provider != nil }

// Provider makes tracers.
func (t *Tracing) Provider() trace.TracerProvider {
	if t.provider == nil {
		return noop.NewTracerProvider()
	}
	return t.provider
}

// Propagator carries the caller's span over the wire: W3C trace context and baggage.
func (t *Tracing) Propagator() propagation.TextMapPropagator {
	return propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
}

// Stats counts the spans of one exporter.
type Stats struct {
	// Exporter is `otlp` or `langsmith`.
	Exporter string
	// Sent were taken by the collector, Failed were not, Dropped found the queue full.
	Sent, Failed, Dropped uint64
}

// Stats returns the counts of each exporter.
func (t *Tracing) Stats() []Stats {
	stats := make([]Stats, len(t.exporters))
	for i, e := range t.exporters {
		stats[i] = Stats{e.to.name, e.sent.Load(), e.failed.Load(), e.dropped.Load()}
	}
	return stats
}

// flushTimeout is the longest a stop waits for collectors.
const flushTimeout = 3 * time.Second

// Stop sends what is left, for three seconds at most and as long as ctx allows; what is
// not sent by then is lost. It may be called twice.
func (t *Tracing) Stop(ctx context.Context) error {
	if t.provider == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	var stopping sync.WaitGroup
	for _, e := range t.exporters {
		stopping.Go(func() { e.stop(ctx) })
	}
	stopping.Wait()
	return t.provider.Shutdown(context.WithoutCancel(ctx))
}
