package span_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/djangobridge/djangobridge/go-runtime/internal/otlptest"
	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
	"github.com/djangobridge/djangobridge/go-runtime/internal/telemetry"
)

const (
	callersTrace   = "0af7651916cd43dd8448eb211c80319c"
	callersSpan    = "b7ad6b7169203331"
	sampledCaller  = "00-" + callersTrace + "-" + callersSpan + "-01"
	droppedCaller  = "00-" + callersTrace + "-" + callersSpan + "-00"
	defaultProject = "shop"
)

// bench is a tracer whose spans come to a collector once they are flushed.
type bench struct {
	*span.Tracer
	*otlptest.Receiver

	t       *testing.T
	tracing *telemetry.Tracing
}

func newBench(t *testing.T, cfg span.Config, sampler string) *bench {
	t.Helper()
	b := &bench{Receiver: otlptest.New(t), t: t}
	values := map[string]string{
		"LANGSMITH_ENDPOINT": b.URL, "LANGSMITH_PROJECT": defaultProject, "OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": "0",
	}
	var err error
	b.tracing, err = telemetry.New("test", func(key string) string { return values[key] }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.flush)
	cfg.Provider = b.tracing.Provider()
	b.Tracer = span.New(cfg)
	return b
}

func (b *bench) flush() {
	if err := b.tracing.Stop(context.Background()); err != nil {
		b.t.Error(err)
	}
}

// do has a run accepted, execute one attempt with a node in it, and end.
func (b *bench) do(ctx context.Context, run *span.Run, parent *span.Origin) span.Origin {
	origin := b.Accept(ctx, run, parent)
	ctx, attempt := b.StartAttempt(context.Background(), origin, run)
	_, node := span.StartNode(ctx, "graph", "plan")
	node.End(nil)
	attempt.End(nil)
	b.Tell(origin, run, span.Told{
		Created: time.Unix(1000, 0), Ended: time.Unix(1002, 0), State: "succeeded",
		Input:  func() []byte { return []byte(`{"query":"why","api_key":"S3CRET"}`) },
		Output: func() []byte { return []byte(`{"answer":"so"}`) },
	})
	return origin
}

func TestTraceOfARun(t *testing.T) {
	t.Parallel()
	const asked, elsewhere, refused = `{"trace":true}`, `{"trace":true,"project":"other"}`, `{"trace":false}`
	for name, tc := range map[string]struct {
		sampler, caller, metadata string
		parent                    *span.Origin
		// traced says that there are spans; inCallers that they are in the caller's trace,
		// under that the run's own is under the caller's span.
		traced, inCallers, under, captured bool
		project                            string
	}{
		"no caller":                  {traced: true},
		"sampled caller":             {caller: sampledCaller, traced: true, inCallers: true, under: true},
		"caller that is not sampled": {caller: droppedCaller},
		"sampler":                    {sampler: "parentbased_traceidratio"},
		"asked":                      {sampler: "parentbased_traceidratio", metadata: asked, traced: true, captured: true},
		"asked of always_off":        {sampler: "always_off", caller: sampledCaller, metadata: asked, traced: true, inCallers: true, under: true, captured: true},
		// The caller's span is sent nowhere, so that the run's is the first of the trace.
		"asked, caller not sampled": {caller: droppedCaller, metadata: asked, traced: true, inCallers: true, captured: true},
		// LangSmith has the caller's span in another project.
		"another project": {caller: sampledCaller, metadata: elsewhere, traced: true, inCallers: true, captured: true, project: "other"},
		"refused":         {caller: sampledCaller, metadata: refused},
		"refused, alone":  {metadata: refused},
		"refused, always": {sampler: "always_on", metadata: refused},
		"sub-run": {
			parent: &span.Origin{TraceParent: sampledCaller, Asked: true, Project: "other"},
			traced: true, inCallers: true, under: true, captured: true, project: "other",
		},
		"sub-run that refuses": {parent: &span.Origin{TraceParent: sampledCaller, Asked: true}, metadata: refused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, span.Config{Content: span.Asked, Redact: []string{"*_key"}, TraceURL: "https://smith/{trace_id}?run={run_id}"}, tc.sampler)
			run := &span.Run{ID: "run-1", TaskType: "traced_task", Attempt: 1, Metadata: []byte(tc.metadata)}
			origin := b.do(span.Continue(t.Context(), tc.caller), run, tc.parent)
			b.flush()
			if got := origin.TraceID() != ""; got != tc.traced || (len(b.Spans()) == 3) != tc.traced {
				t.Fatalf("traced = %t with %d spans", got, len(b.Spans()))
			}
			if !tc.traced {
				if len(b.Spans()) != 0 || origin.TraceURL != "" {
					t.Errorf("%d spans of what is not traced, at %q", len(b.Spans()), origin.TraceURL)
				}
				// Whoever goes on with it begins no trace either.
				if sc := trace.SpanContextFromContext(span.Continue(t.Context(), origin.TraceParent)); !sc.IsValid() || sc.IsSampled() {
					t.Errorf("traceparent = %q", origin.TraceParent)
				}
				return
			}
			own, attempt, node := b.Named(t, "run traced_task"), b.Named(t, "attempt traced_task"), b.Named(t, "node plan")
			if want := "https://smith/" + origin.TraceID() + "?run=run-1"; origin.TraceURL != want {
				t.Errorf("url = %s", origin.TraceURL)
			}
			if (origin.TraceID() == callersTrace) != tc.inCallers {
				t.Errorf("trace = %s", origin.TraceID())
			}
			under := map[bool]string{true: callersSpan}[tc.under]
			if got := hex.EncodeToString(own.GetParentSpanId()); got != under {
				t.Errorf("the run is under %q, want %q", got, under)
			}
			if string(attempt.GetParentSpanId()) != string(own.GetSpanId()) || string(node.GetParentSpanId()) != string(attempt.GetSpanId()) {
				t.Error("the spans are not under one another")
			}
			for _, s := range b.Spans() {
				if trace.TraceID(s.GetTraceId()).String() != origin.TraceID() {
					t.Errorf("%s is in another trace", s.GetName())
				}
				if project, _ := s.Attributes["langsmith.trace.session_name"].(string); project != tc.project {
					t.Errorf("%s is in project %q", s.GetName(), project)
				}
			}
			input, _ := own.Attributes["input.value"].(string)
			if (input != "") != tc.captured || strings.Contains(input, "S3CRET") || own.GetEndTimeUnixNano()-own.GetStartTimeUnixNano() != 2e9 {
				t.Errorf("input %q from %d to %d", input, own.GetStartTimeUnixNano(), own.GetEndTimeUnixNano())
			}
		})
	}
}

func TestRunsOfADefaultProjectStayUnderTheirCaller(t *testing.T) {
	t.Parallel()
	b := newBench(t, span.Config{}, "")
	run := &span.Run{ID: "run-1", TaskType: "t", Metadata: []byte(`{"trace":true,"project":"` + defaultProject + `"}`)}
	b.do(span.Continue(t.Context(), sampledCaller), run, nil)
	b.flush()
	if got := trace.SpanID(b.Named(t, "run t").GetParentSpanId()).String(); got != callersSpan {
		t.Errorf("the run is under %s", got)
	}
}

func TestContentIsCaptured(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		content  span.Content
		metadata string
		captured bool
	}{
		"never, asked": {span.Never, `{"trace":true}`, false},
		"asked":        {span.Asked, `{"trace":true}`, true},
		"not asked":    {span.Asked, ``, false},
		"always":       {span.Always, ``, true},
		"not said":     {"", `{"trace":true}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, span.Config{Content: tc.content, Redact: []string{"token"}}, "")
			b.speak(tc.metadata)
			for _, s := range b.Spans() {
				for key, value := range s.Attributes {
					if text, _ := value.(string); strings.Contains(text, "S3CRET") || !tc.captured && strings.Contains(text, "shown") {
						t.Errorf("%s: %s is %v", s.GetName(), key, value)
					}
				}
				for _, event := range s.GetEvents() {
					if strings.Contains(event.String(), "shown") != tc.captured {
						t.Errorf("%s: %s", s.GetName(), event)
					}
				}
			}
		})
	}
}

// speak has a run do one thing of each kind, with content.
func (b *bench) speak(metadata string) {
	run := &span.Run{
		ID: "run-1", Namespace: "default", TaskType: "agent.run", AgentID: "frontend_agent", Agent: true, Attempt: 2,
		Metadata: []byte(metadata),
	}
	origin := b.Accept(b.t.Context(), run, nil)
	ctx, attempt := b.StartAttempt(b.t.Context(), origin, run)
	ctx, node := span.StartNode(ctx, "reasoning_graph", "plan")
	node.Input(map[string]any{"q": "shown", "token": "S3CRET"})
	_, model := span.StartModel(ctx, "openai", "gpt-5-mini")
	model.Asked("Be shown.", []span.Message{
		{Role: "user", Parts: []span.Part{span.Text(`{"token":"S3CRET","q":"shown"}`)}},
	})
	model.Answered("gpt-5-mini-2026", func() span.Message {
		return span.Message{Role: "assistant", Parts: []span.Part{
			{Type: "tool_call", ID: "call-1", Name: "search", Arguments: json.RawMessage(`{"token":"S3CRET","q":"shown"}`)},
		}}
	}, "tool_calls")
	model.Used(10, 5, 2, 1)
	model.End(nil)
	_, tool := span.StartTool(ctx, "search", "call-1")
	tool.Input(json.RawMessage(`{"token":"S3CRET","q":"shown"}`))
	tool.Output("shown")
	tool.End(errors.New("it is shown"))
	_, agent := span.StartAgent(ctx, "codegen_agent")
	agent.End(nil)
	node.End(nil)
	attempt.End(nil)
	b.flush()
}

func TestNamesOfAttributes(t *testing.T) {
	t.Parallel()
	b := newBench(t, span.Config{Content: span.Asked, Redact: []string{"token"}}, "")
	b.speak(`{"trace":true,"project":"p","conversation_id":"c-1","tags":["a","b"]}`)
	common := map[string]any{
		"langsmith.trace.session_name": "p", "langsmith.span.tags": "a,b", "langsmith.metadata.run_id": "run-1",
		"langsmith.metadata.thread_id": "c-1", "gen_ai.conversation.id": "c-1",
	}
	for name, attributes := range map[string]map[string]any{
		"invoke_agent frontend_agent": {
			"langsmith.span.kind": "chain", "langsmith.trace.name": "frontend_agent", "gen_ai.operation.name": "invoke_agent",
			"gen_ai.agent.name": "frontend_agent", "agentruntime.attempt": int64(2), "langsmith.metadata.attempt": "2",
			"agentruntime.task_type": "agent.run", "agentruntime.namespace": "default",
		},
		"node plan": {
			"langsmith.span.kind": "chain", "langsmith.trace.name": "plan", "agentruntime.graph": "reasoning_graph",
			"input.value": `{"q":"shown","token":"[redacted]"}`, "input.mime_type": "application/json",
		},
		"chat gpt-5-mini": {
			"langsmith.span.kind": "llm", "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.system": "openai",
			"gen_ai.request.model": "gpt-5-mini", "gen_ai.response.model": "gpt-5-mini-2026",
			"gen_ai.response.finish_reasons": []string{"tool_calls"},
			"gen_ai.usage.input_tokens":      int64(10), "gen_ai.usage.output_tokens": int64(5), "gen_ai.usage.total_tokens": int64(15),
			"gen_ai.usage.cache_read.input_tokens": int64(2), "gen_ai.usage.details.reasoning_tokens": int64(1),
			"gen_ai.system_instructions": `[{"content":"Be shown.","type":"text"}]`,
			"gen_ai.input.messages": `[{"parts":[{"content":"Be shown.","type":"text"}],"role":"system"},` +
				`{"parts":[{"content":"{\"q\":\"shown\",\"token\":\"[redacted]\"}","type":"text"}],"role":"user"}]`,
			"gen_ai.output.messages": `[{"finish_reason":"tool_calls","parts":[{"arguments":{"q":"shown","token":"[redacted]"},` +
				`"id":"call-1","name":"search","type":"tool_call"}],"role":"assistant"}]`,
		},
		"execute_tool search": {
			"langsmith.span.kind": "tool", "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search", "gen_ai.tool.call.id": "call-1",
			"gen_ai.tool.call.arguments": `{"q":"shown","token":"[redacted]"}`, "gen_ai.tool.call.result": `"shown"`,
			"output.value": `"shown"`, "error.type": "error",
		},
		"invoke_agent codegen_agent": {"langsmith.span.kind": "chain", "gen_ai.agent.name": "codegen_agent"},
	} {
		s := b.Named(t, name)
		for _, wanted := range []map[string]any{common, attributes} {
			for key, want := range wanted {
				if list, isList := want.([]string); isList {
					got, _ := s.Attributes[key].([]string)
					if strings.Join(got, " ") != strings.Join(list, " ") {
						t.Errorf("%s: %s is %v", name, key, got)
					}
				} else if got := s.Attributes[key]; got != want {
					t.Errorf("%s: %s is %v, want %v", name, key, got, want)
				}
			}
		}
	}
	if failed := b.Named(t, "execute_tool search"); len(failed.GetEvents()) != 1 || failed.GetEvents()[0].GetName() != "exception" ||
		failed.GetStatus().GetMessage() != "it is shown" {
		t.Errorf("failed with %v", failed.GetStatus())
	}
}

// TestWithoutATracer has the helpers do nothing, and the caller's trace be kept.
func TestWithoutATracer(t *testing.T) {
	t.Parallel()
	ctx, s := span.StartModel(t.Context(), "openai", "gpt")
	s.Asked("x", nil)
	s.Answered("gpt", nil, "stop")
	s.Used(1, 1, 1, 1)
	s.Input("x")
	s.Output("x")
	s.Set()
	s.Fail("x", "x")
	s.End(errors.New("x"))
	if ctx != t.Context() || s.Captures() {
		t.Error("a span that nobody wants")
	}
	off := span.New(span.Config{})
	run := &span.Run{ID: "run-1", TaskType: "t"}
	origin := off.Accept(span.Continue(t.Context(), sampledCaller), run, nil)
	if origin.TraceParent != sampledCaller || origin.Under != "" {
		t.Errorf("origin = %+v", origin)
	}
	ctx, s = off.StartAttempt(t.Context(), origin, run)
	if link := span.LinkOf(ctx); s != nil || link.TraceID != callersTrace || link.Exports {
		t.Errorf("link = %+v", link)
	}
}
