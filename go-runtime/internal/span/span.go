package span

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// kind is LangSmith's for a span.
type kind string

const (
	chain kind = "chain"
	llm   kind = "llm"
	tool  kind = "tool"
)

// Span is a span that has begun. A nil one does nothing.
type Span struct {
	span  trace.Span
	scope *scope
	kind  kind
}

// StartNode begins the span of a call of a graph's node.
func StartNode(ctx context.Context, graph, node string) (context.Context, *Span) {
	if scopeOf(ctx) == nil {
		return ctx, nil
	}
	return begin(ctx, "node "+node, chain, node,
		attribute.String("agentruntime.graph", graph), attribute.String("agentruntime.node", node))
}

// StartAgent begins the span of an agent that is a part of a run: another agent's tool.
// The agent that a run is of has the span of the attempt.
func StartAgent(ctx context.Context, name string) (context.Context, *Span) {
	return begin(ctx, "invoke_agent "+name, chain, name,
		attribute.String("gen_ai.operation.name", "invoke_agent"), attribute.String("gen_ai.agent.name", name))
}

// StartTool begins the span of a tool's call. callID is the model's for it, or empty.
func StartTool(ctx context.Context, name, callID string) (context.Context, *Span) {
	attributes := []attribute.KeyValue{
		attribute.String("gen_ai.operation.name", "execute_tool"), attribute.String("gen_ai.tool.name", name),
	}
	if callID != "" {
		attributes = append(attributes, attribute.String("gen_ai.tool.call.id", callID))
	}
	return begin(ctx, "execute_tool "+name, tool, name, attributes...)
}

// StartModel begins the span of a request to a model. The rest is for Asked, Answered
// and Used to say.
func StartModel(ctx context.Context, provider, model string) (context.Context, *Span) {
	return begin(ctx, "chat "+model, llm, "chat "+model,
		attribute.String("gen_ai.operation.name", "chat"),
		attribute.String("gen_ai.provider.name", provider),
		// The conventions' earlier name of the same, which LangSmith reads.
		attribute.String("gen_ai.system", provider),
		attribute.String("gen_ai.request.model", model))
}

func begin(ctx context.Context, name string, k kind, title string, attributes ...attribute.KeyValue) (context.Context, *Span) {
	s := scopeOf(ctx)
	if s == nil {
		return ctx, nil
	}
	return s.start(ctx, name, time.Time{}, k, title, attributes...)
}

// start begins a span now, or at a time that is not zero.
func (s *scope) start(
	ctx context.Context, name string, at time.Time, k kind, title string, attributes ...attribute.KeyValue,
) (context.Context, *Span) {
	if s.tracer.tracer == nil {
		return ctx, nil
	}
	spanKind := trace.SpanKindInternal
	if k == llm {
		spanKind = trace.SpanKindClient
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(spanKind)}
	if !at.IsZero() {
		options = append(options, trace.WithTimestamp(at))
	}
	ctx, made := s.tracer.tracer.Start(ctx, clip(name, maxNameBytes), options...)
	if !made.IsRecording() {
		return ctx, nil
	}
	made.SetAttributes(
		attribute.String("langsmith.span.kind", string(k)), attribute.String("langsmith.trace.name", clip(title, maxNameBytes)))
	made.SetAttributes(s.common...)
	made.SetAttributes(attributes...)
	return ctx, &Span{span: made, scope: s, kind: k}
}

// maxNameBytes bounds the names of spans, maxMessageBytes the text of an error.
const (
	maxNameBytes    = 200
	maxMessageBytes = 1000
)

// Captures reports whether inputs and outputs go into the span, so that nobody makes
// texts that nobody wants.
func (s *Span) Captures() bool { return s != nil && s.scope.capture }

// Set adds attributes.
func (s *Span) Set(attributes ...attribute.KeyValue) {
	if s != nil {
		s.span.SetAttributes(attributes...)
	}
}

// Input says what the work was given: any JSON value, or a json.RawMessage.
func (s *Span) Input(value any) { s.carry("input", "gen_ai.tool.call.arguments", value) }

// Output says what the work came to: any JSON value, or a json.RawMessage.
func (s *Span) Output(value any) { s.carry("output", "gen_ai.tool.call.result", value) }

func (s *Span) carry(side, ofTool string, value any) {
	if !s.Captures() {
		return
	}
	text := s.scope.tracer.redactor.text(value)
	if text == "" {
		return
	}
	s.span.SetAttributes(attribute.String(side+".value", text), attribute.String(side+".mime_type", "application/json"))
	if s.kind == tool {
		s.span.SetAttributes(attribute.String(ofTool, text))
	}
}

// Message is a message to a model or from one, as the conventions write it.
type Message struct {
	Role         string `json:"role"`
	Parts        []Part `json:"parts"`
	FinishReason string `json:"finish_reason,omitempty"`
}

// Part is a part of a message: of the type text, with Content; tool_call, with ID, Name
// and Arguments; tool_call_response, with ID and Response; or another one.
type Part struct {
	Type      string          `json:"type"`
	Content   string          `json:"content,omitempty"`
	ID        string          `json:"id,omitempty"`
	Name      string          `json:"name,omitempty"`
	Arguments json.RawMessage `json:"arguments,omitempty"`
	Response  string          `json:"response,omitempty"`
}

// Text is the part with a text.
func Text(content string) Part { return Part{Type: "text", Content: content} }

// Asked says what a model was asked.
func (s *Span) Asked(instructions string, messages []Message) {
	if !s.Captures() {
		return
	}
	if instructions != "" {
		redacted := s.scope.tracer.redactor.text([]Part{Text(instructions)})
		s.span.SetAttributes(attribute.String("gen_ai.system_instructions", redacted))
		// LangSmith shows the messages alone.
		messages = append([]Message{{Role: "system", Parts: []Part{Text(instructions)}}}, messages...)
	}
	s.span.SetAttributes(attribute.String("gen_ai.input.messages", s.scope.tracer.redactor.text(messages)))
}

// Answered says what a model answered, and which.
func (s *Span) Answered(model string, answer func() Message, finishReason string) {
	if s == nil {
		return
	}
	s.span.SetAttributes(attribute.String("gen_ai.response.model", model))
	if finishReason != "" {
		s.span.SetAttributes(attribute.StringSlice("gen_ai.response.finish_reasons", []string{finishReason}))
	}
	if s.Captures() {
		message := answer()
		message.FinishReason = finishReason
		s.span.SetAttributes(attribute.String("gen_ai.output.messages", s.scope.tracer.redactor.text([]Message{message})))
	}
}

// Used says how many tokens an answer took; cached and reasoning ones are among them.
func (s *Span) Used(input, output, cached, reasoning int64) {
	if s == nil {
		return
	}
	s.span.SetAttributes(
		attribute.Int64("gen_ai.usage.input_tokens", input),
		attribute.Int64("gen_ai.usage.output_tokens", output),
		attribute.Int64("gen_ai.usage.total_tokens", input+output))
	if cached > 0 {
		s.span.SetAttributes(attribute.Int64("gen_ai.usage.cache_read.input_tokens", cached))
	}
	if reasoning > 0 {
		s.span.SetAttributes(attribute.Int64("gen_ai.usage.details.reasoning_tokens", reasoning))
	}
}

// End ends the span. err is why the work failed, or nil. Its text goes into the span
// where inputs and outputs do, since it may quote them.
func (s *Span) End(err error) {
	if s == nil {
		return
	}
	if err != nil {
		s.fail(errorType(err), err.Error())
	}
	s.span.End()
}

// Fail says why the work failed, by a word for programs and a text for people.
func (s *Span) Fail(reason, message string) {
	if s != nil {
		s.fail(reason, message)
	}
}

func (s *Span) fail(reason, message string) {
	if !s.scope.capture {
		message = reason
	}
	message = clip(message, maxMessageBytes)
	s.span.SetStatus(codes.Error, message)
	s.span.SetAttributes(attribute.String("error.type", reason))
	s.span.AddEvent("exception", trace.WithAttributes(
		attribute.String("exception.type", reason), attribute.String("exception.message", message)))
}

// errorType is the type of an error's innermost cause that is more than a text.
func errorType(err error) string {
	switch {
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	named := "error"
	for ; err != nil; err = errors.Unwrap(err) {
		switch name := fmt.Sprintf("%T", err); name {
		case "*errors.errorString", "*errors.joinError", "*fmt.wrapError", "*fmt.wrapErrors":
		default:
			named = name
		}
	}
	return named
}
