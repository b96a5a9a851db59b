// Package model asks language models. A Provider takes instructions, messages,
// tools and the JSON Schema of the wanted answer, and returns the answer with the
// tokens it took. The Router asks OpenAI-compatible, Anthropic and Gemini
// endpoints through their official SDKs, one model after another where one fails;
// without any key it answers offline from templates, and says so each time.
//
// Neither keys nor the content of requests and answers are ever logged or put
// into the text of an error.
package model

import (
	"context"
	"errors"

	"github.com/djangobridge/djangobridge/go-runtime/internal/model/price"
)

// Role says who wrote a message.
type Role string

// The roles of a conversation. What the system says goes into Request.Instructions.
const (
	User      Role = "user"
	Assistant Role = "assistant"
	// ToolResult messages are what a tool gave back to a call of the assistant.
	ToolResult Role = "tool"
)

// Message is one turn of a conversation. It is JSON, so that a conversation can be kept.
type Message struct {
	Role Role   `json:"role"`
	Text string `json:"text,omitempty"`
	// Images go with the text of a user.
	Images []Image `json:"images,omitempty"`
	// ToolCalls are what the assistant wants done before it goes on.
	ToolCalls []ToolCall `json:"tool_calls,omitempty"`
	// ToolCallID is the call that a ToolResult answers; Failed says that Text is its error.
	ToolCallID string `json:"tool_call_id,omitempty"`
	Failed     bool   `json:"failed,omitempty"`
}

// Image is a picture that a model is shown.
type Image struct {
	// MediaType is such as image/png.
	MediaType string `json:"media_type,omitempty"`
	// Data is the picture, or URL where the provider finds it.
	Data []byte `json:"data,omitempty"`
	URL  string `json:"url,omitempty"`
}

// Tool is what a model may have done.
type Tool struct {
	// Name is of letters, digits, underscores and dashes, at most 64.
	Name string
	// Description says to the model what it does and when to use it.
	Description string
	// Schema is the JSON Schema of its arguments, an object.
	Schema []byte
}

// ToolCall is one use of a tool that a model wants.
type ToolCall struct {
	// ID is the provider's, or one that was made where it has none.
	ID   string `json:"id"`
	Name string `json:"name"`
	// Arguments are a JSON object as the model wrote it, not yet checked; a text that is
	// no JSON object where the model wrote none.
	Arguments string `json:"arguments"`
	// Opaque is what the provider wants to see again with the call; others leave it out.
	Opaque string `json:"opaque,omitempty"`
}

// Schema is the JSON Schema that an answer should fit.
type Schema struct {
	// Name is a short label, of letters, digits, underscores and dashes, at most 64.
	Name string
	// JSON is the schema. To be enforced by every endpoint it keeps to what
	// OpenAI's strict mode takes: objects closed, every property required, no
	// lengths or bounds.
	JSON []byte
}

// Request is what a model is asked.
type Request struct {
	// Instructions frame the conversation; they are the system message.
	Instructions string
	// Messages are the conversation so far, oldest first; at least one.
	Messages []Message
	// Schema makes the answer a JSON object; nil leaves it free text.
	Schema *Schema
	// Tools may be called by the model, whose answer then has ToolCalls.
	Tools []Tool
	// Model names the model to ask as Config.Models does, or several with commas
	// between, of which the next is asked where one fails; empty: Config.Models.
	Model string
	// MaxTokens bounds the answer; 0 leaves it to the provider.
	MaxTokens int
	// Sample makes an answer without a model, in the form that Schema asks for,
	// that carries the notice. The offline provider answers with it; others
	// never call it. Nil makes the offline answer the notice alone.
	Sample func(notice string) (string, error)
	// Pieces, unless it is nil, is given the text of the answer while it comes, in
	// order and by one goroutine. An error of its ends the call, which returns it.
	// When the call fails otherwise, a beginning of an answer may have been given;
	// once it was, neither is the request made again nor another model asked.
	Pieces func(text string) error
}

// Usage counts the tokens that an answer took; all are 0 where the provider does not say.
type Usage struct {
	InputTokens  int64 `json:"input_tokens"`
	OutputTokens int64 `json:"output_tokens"`
	TotalTokens  int64 `json:"total_tokens"`
	// CachedTokens are those of the input that the provider had cached, and
	// ReasoningTokens those of the output that nobody sees; both are counted in the others.
	CachedTokens    int64 `json:"cached_tokens,omitempty"`
	ReasoningTokens int64 `json:"reasoning_tokens,omitempty"`
}

// Add returns the sum of both.
func (u Usage) Add(other Usage) Usage {
	return Usage{
		InputTokens:     u.InputTokens + other.InputTokens,
		OutputTokens:    u.OutputTokens + other.OutputTokens,
		TotalTokens:     u.TotalTokens + other.TotalTokens,
		CachedTokens:    u.CachedTokens + other.CachedTokens,
		ReasoningTokens: u.ReasoningTokens + other.ReasoningTokens,
	}
}

// Response is a model's whole answer.
type Response struct {
	// Text is the answer. With Request.Schema it is the JSON object found in it
	// (models like to talk around one), not yet checked against the schema, or
	// all of it when there is none.
	Text string
	// ToolCalls are what the model wants done before it answers; Text may say why.
	ToolCalls []ToolCall
	// Provider is who answered: openai, anthropic, gemini or offline. For an
	// OpenAI-compatible endpoint it is its provider as package price names it, such
	// as groq, or openai-compatible.
	Provider string
	// Model is the one that answered, as the provider names it.
	Model string
	Usage Usage
	// Cost is what the usage costs at list prices; nil where no price is known, which
	// is not free. What failed attempts took is in neither.
	Cost *price.Cost
	// Offline is true when no model was asked.
	Offline bool
	// FinishReason is the provider's word for why the answer ends, usually "stop".
	FinishReason string
}

// Provider answers requests. It is safe for concurrent use.
type Provider interface {
	// Name is the kind of provider that is asked first, such as openai, or offline.
	Name() string
	// Model is the model that is asked first, `offline` when there is none.
	Model() string
	// Complete returns the whole answer. Failures are *Error, but for the end
	// of ctx, which is returned as context.Cause(ctx), wrapped.
	Complete(ctx context.Context, request Request) (Response, error)
}

// ended returns the cause with which ctx ended, or nil while it has not.
func ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	cause := context.Cause(ctx)
	if errors.Is(cause, ctx.Err()) {
		return cause
	}
	return errors.Join(ctx.Err(), cause)
}
