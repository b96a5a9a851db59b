package model

import (
	"context"
	"encoding/json"
	"errors"

	"go.opentelemetry.io/otel/attribute"

	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
)

// traced makes a span of a request to a model, in the trace of the run that ctx belongs to.
func traced(
	ctx context.Context, asked reference, request Request, ask func(ctx context.Context) (Response, error),
) (Response, error) {
	ctx, s := span.StartModel(ctx, spanProvider(asked.provider), asked.model)
	if s == nil {
		return ask(ctx)
	}
	if request.MaxTokens > 0 {
		s.Set(attribute.Int("gen_ai.request.max_tokens", request.MaxTokens))
	}
	if s.Captures() {
		s.Asked(request.Instructions, messagesOf(request.Messages))
	}
	response, err := ask(ctx)
	if err == nil {
		s.Answered(response.Model, func() span.Message {
			return messageOf(Message{Role: Assistant, Text: response.Text, ToolCalls: response.ToolCalls})
		}, response.FinishReason)
		if usage := response.Usage; usage.TotalTokens > 0 {
			s.Used(usage.InputTokens, usage.OutputTokens, usage.CachedTokens, usage.ReasoningTokens)
		}
	}
	if failure, failed := errors.AsType[*Error](err); failed {
		s.Fail(string(failure.Kind), failure.Error())
		s.End(nil)
	} else {
		s.End(err)
	}
	return response, err
}

// spanProvider is a provider as the conventions call it.
func spanProvider(provider string) string {
	if provider == "gemini" {
		return "gcp.gemini"
	}
	return provider
}

func messagesOf(messages []Message) []span.Message {
	written := make([]span.Message, len(messages))
	for i, message := range messages {
		written[i] = messageOf(message)
	}
	return written
}

// messageOf writes a message as spans have it. Pictures are named, not shown.
func messageOf(message Message) span.Message {
	written := span.Message{Role: string(message.Role), Parts: []span.Part{}}
	if message.Role == ToolResult {
		written.Parts = append(written.Parts, span.Part{
			Type: "tool_call_response", ID: message.ToolCallID, Response: message.Text,
		})
		return written
	}
	if message.Text != "" {
		written.Parts = append(written.Parts, span.Text(message.Text))
	}
	for _, image := range message.Images {
		written.Parts = append(written.Parts, span.Part{Type: "image", Content: image.MediaType})
	}
	for _, call := range message.ToolCalls {
		arguments := json.RawMessage(call.Arguments)
		if !json.Valid(arguments) {
			// A text is what a model writes that cannot write JSON.
			arguments, _ = json.Marshal(call.Arguments) //nolint:errchkjson // a string is JSON
		}
		written.Parts = append(written.Parts, span.Part{Type: "tool_call", ID: call.ID, Name: call.Name, Arguments: arguments})
	}
	return written
}
