package model

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"
	"github.com/anthropics/anthropic-sdk-go/packages/param"
	"github.com/anthropics/anthropic-sdk-go/packages/ssestream"
)

const (
	anthropicBaseURL = "https://api.anthropic.com/"
	// anthropicMaxTokens bounds an answer where the request does not: the API needs
	// a bound, and this is the largest that all current models take.
	anthropicMaxTokens = 32_000
)

// anthropicAPI asks Anthropic's Messages API.
type anthropicAPI struct {
	// messages is the SDK's service by itself: its whole client would also read
	// keys, URLs and headers from the environment and from profiles.
	messages anthropic.MessageService
}

func newAnthropic(e Endpoint, client *http.Client) *anthropicAPI {
	return &anthropicAPI{messages: anthropic.NewMessageService(
		option.WithHTTPClient(client),
		option.WithBaseURL(cmp.Or(e.BaseURL, anthropicBaseURL)),
		option.WithAPIKey(e.APIKey),
		option.WithMaxRetries(0),
		// Without it the SDK asks for a stream when an answer may take longer than its own limit.
		option.WithRequestTimeout(time.Hour),
		// Its spans would follow the environment, and may hold what was said.
		option.WithoutOpenTelemetry(),
	)}
}

func (p *anthropicAPI) ask(ctx context.Context, model string, request Request, constrained bool) (Response, error) {
	params := anthropicParams(model, request)
	if constrained {
		params.OutputConfig.Format.Schema = objectOf(string(request.Schema.JSON))
	}
	ctx, answer := watch(ctx)
	var message *anthropic.Message
	var inputs map[int64]string
	var err error
	if request.Pieces == nil {
		message, err = p.messages.New(ctx, params)
	} else {
		message, inputs, err = accumulate(p.messages.NewStreaming(ctx, params), request.Pieces)
	}
	if err != nil {
		return Response{}, failure(answer, err, anthropicReport(err))
	}
	return anthropicResponse(message, inputs, model)
}

func anthropicParams(model string, request Request) anthropic.MessageNewParams {
	params := anthropic.MessageNewParams{
		Model:     model,
		MaxTokens: int64(cmp.Or(request.MaxTokens, anthropicMaxTokens)),
		Messages:  anthropicMessages(request.Messages),
	}
	if instructions := request.instructions(); instructions != "" {
		params.System = []anthropic.TextBlockParam{{Text: instructions}}
	}
	for _, tool := range request.Tools {
		described := &anthropic.ToolParam{
			Name: tool.Name, InputSchema: param.Override[anthropic.ToolInputSchemaParam](schemaOf(tool)),
		}
		if tool.Description != "" {
			described.Description = anthropic.String(tool.Description)
		}
		params.Tools = append(params.Tools, anthropic.ToolUnionParam{OfTool: described})
	}
	return params
}

// anthropicMessages joins what one side says in a row: all results of an
// assistant's calls must be in the one message that follows it.
func anthropicMessages(messages []Message) []anthropic.MessageParam {
	var joined []anthropic.MessageParam
	for _, m := range messages {
		role, blocks := anthropic.MessageParamRoleUser, anthropicUser(m)
		if m.Role == Assistant {
			role, blocks = anthropic.MessageParamRoleAssistant, anthropicAssistant(m)
		}
		if len(blocks) == 0 {
			continue
		}
		if last := len(joined) - 1; last >= 0 && joined[last].Role == role {
			joined[last].Content = append(joined[last].Content, blocks...)
			continue
		}
		joined = append(joined, anthropic.MessageParam{Role: role, Content: blocks})
	}
	return joined
}

func anthropicUser(m Message) []anthropic.ContentBlockParamUnion {
	if m.Role == ToolResult {
		result := &anthropic.ToolResultBlockParam{ToolUseID: anthropicID(m.ToolCallID)}
		if m.Failed {
			result.IsError = anthropic.Bool(true)
		}
		if m.Text != "" {
			result.Content = []anthropic.ToolResultBlockParamContentUnion{{OfText: &anthropic.TextBlockParam{Text: m.Text}}}
		}
		return []anthropic.ContentBlockParamUnion{{OfToolResult: result}}
	}
	var blocks []anthropic.ContentBlockParamUnion
	for _, image := range m.Images {
		if image.URL != "" {
			blocks = append(blocks, anthropic.NewImageBlock(anthropic.URLImageSourceParam{URL: image.URL}))
		} else {
			data := base64.StdEncoding.EncodeToString(image.Data)
			blocks = append(blocks, anthropic.NewImageBlockBase64(image.MediaType, data))
		}
	}
	if m.Text != "" {
		blocks = append(blocks, anthropic.NewTextBlock(m.Text))
	}
	return blocks
}

func anthropicAssistant(m Message) []anthropic.ContentBlockParamUnion {
	var blocks []anthropic.ContentBlockParamUnion
	for _, call := range m.ToolCalls {
		var thoughts []json.RawMessage
		if kept, own := strings.CutPrefix(call.Opaque, anthropicName+":"); own && json.Unmarshal([]byte(kept), &thoughts) == nil {
			for _, thought := range thoughts {
				blocks = append(blocks, param.Override[anthropic.ContentBlockParamUnion](thought))
			}
		}
	}
	if m.Text != "" {
		blocks = append(blocks, anthropic.NewTextBlock(m.Text))
	}
	for _, call := range m.ToolCalls {
		var input any = json.RawMessage(call.Arguments)
		if !isObject([]byte(call.Arguments)) {
			input = objectOf(call.Arguments)
		}
		blocks = append(blocks, anthropic.NewToolUseBlock(anthropicID(call.ID), input, call.Name))
	}
	return blocks
}

// anthropicID fits the id of another provider's call to what Anthropic takes.
func anthropicID(id string) string { return notInID.ReplaceAllString(id, "_") }

var notInID = regexp.MustCompile(`[^a-zA-Z0-9_-]`)

// accumulate puts a message together from its events, and passes its text on. One
// that ends without saying why was cut off, and has no stop reason. inputs are the
// arguments of calls by the index of their blocks, because the message loses those
// that are not JSON. It fails with errStream, or as pieces does.
func accumulate(
	stream *ssestream.Stream[anthropic.MessageStreamEventUnion], pieces func(string) error,
) (message *anthropic.Message, inputs map[int64]string, _ error) {
	defer stream.Close() //nolint:errcheck // it was only read
	message, inputs = &anthropic.Message{}, map[int64]string{}
	for stream.Next() {
		event := stream.Current()
		if err := message.Accumulate(event); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", errStream, err)
		}
		if event.Type != "content_block_delta" {
			continue
		}
		inputs[event.Index] += event.Delta.PartialJSON
		if event.Delta.Type != "text_delta" || event.Delta.Text == "" {
			continue
		}
		if err := pieces(event.Delta.Text); err != nil {
			return nil, nil, err
		}
	}
	if err := stream.Err(); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errStream, err)
	}
	return message, inputs, nil
}

// anthropicReport reads what Anthropic says of a failure, in a response or in a stream.
func anthropicReport(err error) report {
	api, found := errors.AsType[*anthropic.Error](err)
	if !found {
		return report{}
	}
	said := report{code: string(api.Type())}
	switch api.Type() {
	case anthropic.ErrorTypeOverloadedError, anthropic.ErrorTypeAPIError, anthropic.ErrorTypeTimeoutError:
		said.kind = Unavailable
	case anthropic.ErrorTypeRateLimitError:
		said.kind = RateLimited
	case anthropic.ErrorTypeBillingError:
		said.kind = QuotaExhausted
	case anthropic.ErrorTypeAuthenticationError, anthropic.ErrorTypePermissionError:
		said.kind = Unauthorized
	case anthropic.ErrorTypeInvalidRequestError:
		said.kind = Rejected
		// An account without credit is told so only in these words.
		if strings.Contains(api.RawJSON(), "credit balance is too low") {
			said.kind = QuotaExhausted
		}
	case anthropic.ErrorTypeNotFoundError:
		said.kind = Rejected
	}
	return said
}

func anthropicResponse(message *anthropic.Message, inputs map[int64]string, model string) (Response, error) {
	// The SDK makes nothing of a body that is null.
	if message == nil {
		return Response{}, &Error{Kind: Malformed}
	}
	var text strings.Builder
	var calls []ToolCall
	var thoughts []json.RawMessage
	for index, block := range message.Content {
		switch block.Type {
		case "text":
			text.WriteString(block.Text)
		case "tool_use":
			arguments := cmp.Or(inputs[int64(index)], string(block.Input), "{}")
			calls = append(calls, ToolCall{ID: block.ID, Name: block.Name, Arguments: arguments})
		case "thinking", "redacted_thinking":
			thoughts = append(thoughts, json.RawMessage(block.RawJSON()))
		}
	}
	switch {
	case message.StopReason == anthropic.StopReasonRefusal:
		return Response{}, &Error{Kind: Refused}
	case message.StopReason == anthropic.StopReasonMaxTokens,
		message.StopReason == anthropic.StopReasonModelContextWindowExceeded:
		return Response{}, &Error{Kind: Truncated}
	case message.StopReason == "", text.Len() == 0 && len(calls) == 0:
		return Response{}, &Error{Kind: Malformed}
	}
	// The API wants a model's thoughts back with the calls that they led to.
	if kept, err := json.Marshal(thoughts); err == nil && len(thoughts) > 0 && len(calls) > 0 {
		calls[0].Opaque = anthropicName + ":" + string(kept)
	}
	used := message.Usage
	input := used.InputTokens + used.CacheReadInputTokens + used.CacheCreationInputTokens
	return Response{
		Text:      text.String(),
		ToolCalls: calls,
		Model:     cmp.Or(message.Model, model),
		Usage: Usage{
			InputTokens:     input,
			OutputTokens:    used.OutputTokens,
			TotalTokens:     input + used.OutputTokens,
			CachedTokens:    used.CacheReadInputTokens,
			ReasoningTokens: used.OutputTokensDetails.ThinkingTokens,
		},
		FinishReason: string(message.StopReason),
	}, nil
}
