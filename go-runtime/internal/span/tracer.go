// Package span makes the spans of runs: of a run, its attempts, the nodes of its
// graphs, its agents, tools and calls of models. A span has the names of
// OpenTelemetry's conventions for generative AI (gen_ai.*), and beside them those
// that LangSmith (langsmith.*) and OpenInference (input.value) read.
//
// The tracer travels with the context: StartAttempt puts it there, and StartNode,
// StartModel, StartTool and StartAgent find it. Where there is none, or the trace is
// not sampled, they return spans that do nothing.
package span

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Content says of which runs inputs and outputs go into spans.
type Content string

// The choices. Asked is runs whose metadata says {"trace": true}.
const (
	Never  Content = "never"
	Asked  Content = "asked"
	Always Content = "always"
)

// Config says how spans are made.
type Config struct {
	// Provider makes them; nil: nobody wants any. Its ids have to come from an
	// IDGenerator and its decisions from a sampler that heed IDs and Decided.
	Provider trace.TracerProvider
	// Content is when inputs and outputs are captured; empty: Never.
	Content Content
	// Redact are the names of JSON members whose values are masked, in any case of
	// letters; * stands for any characters.
	Redact []string
	// TraceURL is where a trace is shown, with {trace_id} and {run_id} in it; empty: nowhere.
	TraceURL string
}

// Tracer makes the spans of runs. It is safe for concurrent use.
type Tracer struct {
	// tracer is nil when nobody wants spans.
	tracer   trace.Tracer
	content  Content
	redactor redactor
	traceURL string
}

// New returns a tracer.
func New(cfg Config) *Tracer {
	t := &Tracer{content: cfg.Content, redactor: newRedactor(cfg.Redact), traceURL: cfg.TraceURL}
	if cfg.Provider != nil {
		t.tracer = cfg.Provider.Tracer("github.com/djangobridge/djangobridge/go-runtime/internal/span")
	}
	return t
}

// urlOf is where a trace is shown, or empty.
func (t *Tracer) urlOf(traceID, runID string) string {
	if traceID == "" {
		return ""
	}
	return strings.NewReplacer("{trace_id}", traceID, "{run_id}", runID).Replace(t.traceURL)
}

// scope is what all spans of a run share.
type scope struct {
	tracer  *Tracer
	origin  Origin
	capture bool
	common  []attribute.KeyValue
}

type scopeKey struct{}

func scopeOf(ctx context.Context) *scope {
	s, _ := ctx.Value(scopeKey{}).(*scope)
	return s
}

// Link is where the trace of a run is found.
type Link struct {
	TraceID string
	// Project is LangSmith's, as the run's metadata names it.
	Project string
	// URL shows the trace; empty: nobody said where.
	URL string
	// Exports says that the runtime sends spans somewhere.
	Exports bool
}

// LinkOf returns where the trace of the run is found that ctx belongs to.
func LinkOf(ctx context.Context) Link {
	s := scopeOf(ctx)
	if s == nil {
		return Link{}
	}
	return Link{
		TraceID: s.origin.TraceID(), Project: s.origin.Project, URL: s.origin.TraceURL, Exports: s.tracer.tracer != nil,
	}
}

// Continue returns a context whose span is the one that a W3C traceparent names; none
// where that is empty or no traceparent.
func Continue(ctx context.Context, traceParent string) context.Context {
	ctx = trace.ContextWithSpanContext(ctx, trace.SpanContext{})
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": traceParent})
}

func traceParentOf(sc trace.SpanContext) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(context.Background(), sc), carrier)
	return carrier["traceparent"]
}

type decisionKey struct{}

// Decided returns whether the span that begins with ctx is sampled, where its run's
// metadata says so, or what is known of it already.
func Decided(ctx context.Context) (sampled, decided bool) {
	sampled, decided = ctx.Value(decisionKey{}).(bool)
	return sampled, decided
}

func decide(ctx context.Context, sampled bool) context.Context {
	return context.WithValue(ctx, decisionKey{}, sampled)
}

type ids struct {
	traceID trace.TraceID
	spanID  trace.SpanID
}

type idsKey struct{}

// NewTraceID returns a random id.
func NewTraceID() (id trace.TraceID) {
	binary.LittleEndian.PutUint64(id[:8], rand.Uint64())   //nolint:gosec // no secret
	binary.LittleEndian.PutUint64(id[8:], 1|rand.Uint64()) //nolint:gosec // no secret
	return id
}

// NewSpanID returns a random id.
func NewSpanID() (id trace.SpanID) {
	binary.LittleEndian.PutUint64(id[:], 1|rand.Uint64()) //nolint:gosec // no secret
	return id
}

// IDs returns the ids that the span gets that begins with ctx; zero ones are free.
func IDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	given, _ := ctx.Value(idsKey{}).(ids)
	return given.traceID, given.spanID
}
