package telemetry

import (
	"cmp"
	"context"
	"fmt"
	"strconv"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
)

// sampler asks what a run's metadata has decided before it asks another one.
type sampler struct{ sdktrace.Sampler }

// newSampler returns the sampler of OTEL_TRACES_SAMPLER and its _ARG:
// parentbased_always_on where it is not set.
func newSampler(getenv func(string) string) (sdktrace.Sampler, error) {
	ratio := 1.0
	name := cmp.Or(getenv("OTEL_TRACES_SAMPLER"), "parentbased_always_on")
	if raw := getenv("OTEL_TRACES_SAMPLER_ARG"); raw != "" {
		var err error
		if ratio, err = strconv.ParseFloat(raw, 64); err != nil || !(ratio >= 0 && ratio <= 1) {
			return nil, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG is %q: want a number from 0 to 1", raw)
		}
	}
	switch name {
	case "always_on":
		return sampler{sdktrace.AlwaysSample()}, nil
	case "always_off":
		return sampler{sdktrace.NeverSample()}, nil
	case "traceidratio":
		return sampler{sdktrace.TraceIDRatioBased(ratio)}, nil
	case "parentbased_always_on":
		return sampler{sdktrace.ParentBased(sdktrace.AlwaysSample())}, nil
	case "parentbased_always_off":
		return sampler{sdktrace.ParentBased(sdktrace.NeverSample())}, nil
	case "parentbased_traceidratio":
		return sampler{sdktrace.ParentBased(sdktrace.TraceIDRatioBased(ratio))}, nil
	}
	return nil, fmt.Errorf("OTEL_TRACES_SAMPLER is %q: want always_on, always_off, traceidratio, "+
		"or one of these behind parentbased_", name)
}

// ShouldSample implements sdktrace.Sampler.
func (s sampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	sampled, decided := span.Decided(p.ParentContext)
	if !decided {
		return s.Sampler.ShouldSample(p)
	}
	result := sdktrace.SamplingResult{
		Decision: sdktrace.Drop, Tracestate: trace.SpanContextFromContext(p.ParentContext).TraceState(),
	}
	if sampled {
		result.Decision = sdktrace.RecordAndSample
	}
	return result
}

// idGenerator makes random ids, but where a run's own span has some already.
type idGenerator struct{}

// NewIDs implements sdktrace.IDGenerator.
func (idGenerator) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	traceID, spanID := span.IDs(ctx)
	if !traceID.IsValid() {
		traceID = span.NewTraceID()
	}
	if !spanID.IsValid() {
		spanID = span.NewSpanID()
	}
	return traceID, spanID
}

// NewSpanID implements sdktrace.IDGenerator.
func (idGenerator) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	if _, spanID := span.IDs(ctx); spanID.IsValid() {
		return spanID
	}
	return span.NewSpanID()
}
