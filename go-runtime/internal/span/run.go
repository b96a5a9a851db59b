package span

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// Run is what spans say of a run.
type Run struct {
	ID        string
	Namespace string
	TaskType  string
	// AgentID is the agent that executes the run, or, unless Agent is set, a label.
	AgentID string
	Agent   bool
	Attempt int
	// Metadata is a JSON object, or empty. Of its members these count: trace, true to
	// have the run traced with its inputs and outputs whatever the sampler says, or false
	// not to; beside true, project, LangSmith's; conversation_id; and tags, a list of texts.
	Metadata []byte
}

// Origin is where a run stands in a trace. It is kept with the run, so that all its
// attempts, however much later, are in one trace.
type Origin struct {
	// TraceParent is the W3C trace context of the run's own span, which the others are
	// under; of the caller's span where the runtime sends none; or empty.
	TraceParent string `json:"traceparent,omitempty"`
	// Under is the id of the span that the run's own is under, or `root`, until that has
	// been made; then empty.
	Under string `json:"trace_under,omitempty"`
	// Asked says that the run's metadata asks for a trace.
	Asked   bool   `json:"trace_asked,omitempty"`
	Project string `json:"trace_project,omitempty"`
	// Enters says that what the run is a part of is in another project than its own.
	Enters bool `json:"trace_enters,omitempty"`
	// TraceURL is where the trace is shown, or empty.
	TraceURL string `json:"trace_url,omitempty"`
}

// root is Origin.Under of a run whose span is the first of its trace.
const root = "root"

// TraceID is that of the run's trace; empty: it is in none that is sampled.
func (o *Origin) TraceID() string {
	version, rest, _ := strings.Cut(o.TraceParent, "-")
	traceID, rest, _ := strings.Cut(rest, "-")
	_, flags, _ := strings.Cut(rest, "-")
	if sampled, err := strconv.ParseUint(flags, 16, 8); err != nil || version != "00" || sampled&uint64(trace.FlagsSampled) == 0 {
		return ""
	}
	return traceID
}

func (o *Origin) spanContext() trace.SpanContext {
	return trace.SpanContextFromContext(Continue(context.Background(), o.TraceParent))
}

// maxProjectBytes bounds a project's name, maxTags how many tags a run has and
// maxTagBytes each of them; what is more is left out.
const (
	maxProjectBytes = 200
	maxTags         = 20
	maxTagBytes     = 100
)

// wishes are the members of a run's metadata that count. Metadata is the caller's own,
// so that one of another type than expected means something else.
type wishes struct {
	trace        *bool
	project      string
	conversation string
	tags         []string
}

func wishesOf(metadata []byte) wishes {
	var members map[string]json.RawMessage
	if len(metadata) == 0 || json.Unmarshal(metadata, &members) != nil {
		return wishes{}
	}
	var w wishes
	read := func(name string, into any) bool {
		raw := members[name]
		return len(raw) > 0 && string(raw) != "null" && json.Unmarshal(raw, into) == nil
	}
	var traced bool
	if read("trace", &traced) {
		w.trace = &traced
	}
	var project string
	if traced && read("project", &project) && len(project) <= maxProjectBytes {
		w.project = project
	}
	if read("conversation_id", &w.conversation) && len(w.conversation) > maxProjectBytes {
		w.conversation = ""
	}
	var tags []string
	if read("tags", &tags) {
		for _, tag := range tags[:min(len(tags), maxTags)] {
			if tag != "" && len(tag) <= maxTagBytes && !strings.Contains(tag, ",") {
				w.tags = append(w.tags, tag)
			}
		}
	}
	return w
}

// Accept decides where the trace of a new run is, in that of the span in ctx if there is
// one. parent is the origin of the run that it is a sub-run of, or nil: what that asked
// for holds for the sub-run that does not say.
func (t *Tracer) Accept(ctx context.Context, run *Run, parent *Origin) Origin {
	wished := wishesOf(run.Metadata)
	var origin Origin
	origin.Asked, origin.Project = wished.trace != nil && *wished.trace, wished.project
	if wished.trace == nil && parent != nil {
		origin.Asked, origin.Project = parent.Asked, parent.Project
	}
	origin.Enters = origin.Project != "" && (parent == nil || parent.Project != origin.Project)
	caller := trace.SpanContextFromContext(ctx)
	if !caller.IsValid() && parent != nil {
		caller = parent.spanContext()
	}
	switch {
	case wished.trace != nil && !*wished.trace:
		origin.TraceParent = traceParentOf(unsampled(caller))
	case t.tracer == nil:
		origin.TraceParent = traceParentOf(caller)
	default:
		t.begin(trace.ContextWithSpanContext(ctx, caller), caller, run, &origin)
	}
	origin.TraceURL = t.urlOf(origin.TraceID(), run.ID)
	return origin
}

// unsampled is a span context in the caller's trace, or a new one, that is not sampled:
// whoever gets none would begin a trace.
func unsampled(caller trace.SpanContext) trace.SpanContext {
	if !caller.IsValid() {
		caller = trace.NewSpanContext(trace.SpanContextConfig{TraceID: NewTraceID(), SpanID: NewSpanID()})
	}
	return caller.WithTraceFlags(caller.TraceFlags().WithSampled(false))
}

// begin gives the run's own span its ids. That is made by Tell, which knows how the run
// went; what is made here only says what the sampler decides.
func (t *Tracer) begin(ctx context.Context, caller trace.SpanContext, run *Run, origin *Origin) {
	under := caller
	if origin.Asked {
		ctx = decide(ctx, true)
		if !caller.IsSampled() {
			// Nobody sends the caller's span, and backends drop spans whose parent never arrives.
			ctx = context.WithValue(trace.ContextWithSpanContext(ctx, trace.SpanContext{}), idsKey{}, ids{traceID: caller.TraceID()})
			under = trace.SpanContext{}
		}
	}
	_, drawn := t.tracer.Start(ctx, runName(run))
	sc := drawn.SpanContext()
	origin.TraceParent = traceParentOf(sc)
	if sc.IsSampled() {
		origin.Under = root
		if under.IsValid() {
			origin.Under = under.SpanID().String()
		}
	}
}

func runName(run *Run) string { return "run " + run.TaskType }

// Told is how a run went, as its own span says it.
type Told struct {
	Created, Ended time.Time
	// State is the run's: how it ended, or that it waits.
	State string
	// Reason and Message say why it did not succeed; empty: it did, or waits.
	Reason, Message string
	// Input and Output are JSON texts; they are asked for where they are captured.
	Input, Output func() []byte
}

// Tell makes the run's own span, when the run ends or waits for an answer: a backend
// that keeps spans for a while until their parent comes need not wait for a person.
func (t *Tracer) Tell(origin Origin, run *Run, told Told) {
	sc := origin.spanContext()
	if t.tracer == nil || origin.Under == "" || !sc.IsSampled() {
		return
	}
	ctx := context.Background()
	if under, err := trace.SpanIDFromHex(origin.Under); err == nil {
		ctx = trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: sc.TraceID(), SpanID: under, TraceFlags: sc.TraceFlags(), Remote: true,
		}))
	}
	ctx = context.WithValue(decide(ctx, true), idsKey{}, ids{sc.TraceID(), sc.SpanID()})
	s := t.scope(origin, run)
	_, own := s.start(ctx, runName(run), told.Created, chain, run.TaskType, append(runAttributes(run),
		attribute.String("agentruntime.state", told.State), attribute.Bool(Enters, origin.Enters))...)
	if own.Captures() {
		own.Input(json.RawMessage(told.Input()))
		own.Output(json.RawMessage(told.Output()))
	}
	if told.Reason != "" {
		own.fail(told.Reason, told.Message)
	}
	own.span.End(trace.WithTimestamp(told.Ended))
}

// Enters is the attribute of a run's own span that says what Origin.Enters does.
const Enters = "agentruntime.enters_project"

// StartAttempt begins the span of one attempt of a run, and has the spans that begin
// with the returned context be the run's.
func (t *Tracer) StartAttempt(ctx context.Context, origin Origin, run *Run) (context.Context, *Span) {
	ctx = Continue(ctx, origin.TraceParent)
	s := t.scope(origin, run)
	ctx = context.WithValue(ctx, scopeKey{}, s)
	if origin.Asked {
		ctx = decide(ctx, true)
	} else if origin.TraceParent != "" && origin.TraceID() == "" {
		ctx = decide(ctx, false)
	}
	if !run.Agent {
		return s.start(ctx, "attempt "+run.TaskType, time.Time{}, chain, run.TaskType, runAttributes(run)...)
	}
	return s.start(ctx, "invoke_agent "+run.AgentID, time.Time{}, chain, run.AgentID, append(runAttributes(run),
		attribute.String("gen_ai.operation.name", "invoke_agent"), attribute.String("gen_ai.agent.name", run.AgentID))...)
}

func (t *Tracer) scope(origin Origin, run *Run) *scope {
	wished := wishesOf(run.Metadata)
	s := &scope{tracer: t, origin: origin, capture: t.content == Always || t.content == Asked && origin.Asked}
	s.common = []attribute.KeyValue{attribute.String("langsmith.metadata.run_id", run.ID)}
	if origin.Project != "" {
		s.common = append(s.common, attribute.String("langsmith.trace.session_name", origin.Project))
	}
	if wished.conversation != "" {
		s.common = append(s.common, attribute.String("gen_ai.conversation.id", wished.conversation),
			attribute.String("langsmith.metadata.thread_id", wished.conversation))
	}
	if len(wished.tags) > 0 {
		s.common = append(s.common, attribute.String("langsmith.span.tags", strings.Join(wished.tags, ",")))
	}
	return s
}

func runAttributes(run *Run) []attribute.KeyValue {
	attributes := []attribute.KeyValue{
		attribute.String("agentruntime.run_id", run.ID),
		attribute.String("agentruntime.namespace", run.Namespace),
		attribute.String("agentruntime.task_type", run.TaskType),
		attribute.String("langsmith.metadata.task_type", run.TaskType),
	}
	if run.AgentID != "" {
		attributes = append(attributes, attribute.String("agentruntime.agent_id", run.AgentID),
			attribute.String("langsmith.metadata.agent_id", run.AgentID))
	}
	if run.Attempt > 0 {
		attributes = append(attributes, attribute.Int("agentruntime.attempt", run.Attempt),
			attribute.String("langsmith.metadata.attempt", strconv.Itoa(run.Attempt)))
	}
	return attributes
}
