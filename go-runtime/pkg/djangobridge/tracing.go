package djangobridge

import (
	"context"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"

	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
	"github.com/djangobridge/djangobridge/go-runtime/internal/telemetry"
)

// newTracer makes the spans of runs. The convention's own variable can ask for inputs and
// outputs of all runs where the configuration does not say never.
func (i *Integration) newTracer(getenv func(string) string) *span.Tracer {
	cfg := span.Config{Content: span.Content(i.cfg.TraceContent), Redact: i.cfg.TraceRedact, TraceURL: i.cfg.TraceURL}
	if cfg.Content == span.Asked && strings.EqualFold(getenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"), "true") {
		cfg.Content = span.Always
	}
	if i.tracing.Enabled() {
		cfg.Provider = i.tracing.Provider()
	}
	return span.New(cfg)
}

// callTracing makes a span of a call whose caller's span is sampled. Of any other call
// none is made, so that no collector is filled with calls that belong to nothing.
type callTracing struct{ stats.Handler }

func newCallTracing(tracing *telemetry.Tracing) callTracing {
	return callTracing{otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(tracing.Provider()),
		otelgrpc.WithPropagators(tracing.Propagator()),
	)}
}

type tracedKey struct{}

// TagRPC implements stats.Handler.
func (h callTracing) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	if caller := trace.SpanContextFromContext(withCaller(ctx)); !caller.IsSampled() {
		return ctx
	}
	return context.WithValue(h.Handler.TagRPC(ctx, info), tracedKey{}, true)
}

// HandleRPC implements stats.Handler.
func (h callTracing) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if ctx.Value(tracedKey{}) != nil {
		h.Handler.HandleRPC(ctx, s)
	}
}

// withCaller returns a context in the trace of the call's caller, for whoever keeps it
// with a run, where the call has no span of its own.
func withCaller(ctx context.Context) context.Context {
	given := metadata.ValueFromIncomingContext(ctx, "traceparent")
	if len(given) == 0 || trace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	return span.Continue(ctx, given[0])
}

// spanFigures shows what became of the spans.
type spanFigures struct{ tracing *telemetry.Tracing }

func (spanFigures) desc() *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(metricNamespace, "", "spans_total"),
		"Spans by where they go and what became of them: sent, failed, or dropped since too many waited.",
		[]string{"exporter", "outcome"}, nil)
}

// Describe implements prometheus.Collector.
func (f spanFigures) Describe(descriptions chan<- *prometheus.Desc) { descriptions <- f.desc() }

// Collect implements prometheus.Collector.
func (f spanFigures) Collect(found chan<- prometheus.Metric) {
	for _, s := range f.tracing.Stats() {
		for outcome, count := range map[string]uint64{"sent": s.Sent, "failed": s.Failed, "dropped": s.Dropped} {
			found <- prometheus.MustNewConstMetric(f.desc(), prometheus.CounterValue, float64(count), s.Exporter, outcome)
		}
	}
}
