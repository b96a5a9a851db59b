package model

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"
	"github.com/openai/openai-go/v3/shared"
)

const openAIBaseURL = "https://api.openai.com/v1/"

// openAI asks an OpenAI-compatible endpoint for chat completions.
type openAI struct {
	// completions is the SDK's service by itself: its whole client would also
	// read keys, URLs and headers from the environment.
	completions openai.ChatCompletionService
	// compatible is true for endpoints other than OpenAI's own, which lag behind it.
	compatible bool
}

func newOpenAI(e Endpoint, client *http.Client) *openAI {
	options := []option.RequestOption{
		option.WithHTTPClient(client),
		option.WithBaseURL(cmp.Or(e.BaseURL, openAIBaseURL)),
		option.WithMaxRetries(0),
	}
	if e.APIKey != "" {
		options = append(options, option.WithAPIKey(e.APIKey))
	}
	return &openAI{completions: openai.NewChatCompletionService(options...), compatible: e.BaseURL != ""}
}

func (p *openAI) ask(ctx context.Context, model string, request Request, constrained bool) (Response, error) {
	params := p.params(model, request)
	if constrained {
		params.ResponseFormat = responseFormat(request.Schema)
	}
	ctx, answer := watch(ctx)
	var completion *openai.ChatCompletion
	var err error
	if request.Pieces == nil {
		completion, err = p.completions.New(ctx, params)
	} else {
		params.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
		completion, err = assemble(p.completions.NewStreaming(ctx, params), request.Pieces)
	}
	if err != nil {
		return Response{}, failure(answer, err, openAIReport(err))
	}
	return openAIResponse(completion, model)
}

func (p *openAI) params(model string, request Request) openai.ChatCompletionNewParams {
	params := openai.ChatCompletionNewParams{Model: model, Messages: openAIMessages(request)}
	for _, tool := range request.Tools {
		function := shared.FunctionDefinitionParam{Name: tool.Name, Parameters: objectOf(string(schemaOf(tool)))}
		if tool.Description != "" {
			function.Description = openai.String(tool.Description)
		}
		params.Tools = append(params.Tools, openai.ChatCompletionFunctionTool(function))
	}
	switch {
	case request.MaxTokens == 0:
	case p.compatible:
		params.MaxTokens = openai.Int(int64(request.MaxTokens))
	default:
		params.MaxCompletionTokens = openai.Int(int64(request.MaxTokens))
	}
	return params
}

func openAIMessages(request Request) []openai.ChatCompletionMessageParamUnion {
	messages := []openai.ChatCompletionMessageParamUnion{openai.SystemMessage(request.instructions())}
	for _, m := range request.Messages {
		switch m.Role {
		case Assistant:
			messages = append(messages, openAIAssistant(m))
		case ToolResult:
			text := m.Text
			if m.Failed {
				text = "Error: " + text
			}
			messages = append(messages, openai.ToolMessage(text, m.ToolCallID))
		default:
			messages = append(messages, openAIUser(m))
		}
	}
	return messages
}

func openAIUser(m Message) openai.ChatCompletionMessageParamUnion {
	if len(m.Images) == 0 {
		return openai.UserMessage(m.Text)
	}
	var parts []openai.ChatCompletionContentPartUnionParam
	if m.Text != "" {
		parts = append(parts, openai.TextContentPart(m.Text))
	}
	for _, image := range m.Images {
		source := cmp.Or(image.URL, "data:"+image.MediaType+";base64,"+base64.StdEncoding.EncodeToString(image.Data))
		parts = append(parts, openai.ImageContentPart(openai.ChatCompletionContentPartImageImageURLParam{URL: source}))
	}
	return openai.UserMessage(parts)
}

func openAIAssistant(m Message) openai.ChatCompletionMessageParamUnion {
	said := &openai.ChatCompletionAssistantMessageParam{}
	if m.Text != "" || len(m.ToolCalls) == 0 {
		said.Content.OfString = openai.String(m.Text)
	}
	for _, call := range m.ToolCalls {
		said.ToolCalls = append(said.ToolCalls, openai.ChatCompletionMessageToolCallUnionParam{
			OfFunction: &openai.ChatCompletionMessageFunctionToolCallParam{
				ID:       call.ID,
				Function: openai.ChatCompletionMessageFunctionToolCallFunctionParam{Name: call.Name, Arguments: call.Arguments},
			},
		})
	}
	return openai.ChatCompletionMessageParamUnion{OfAssistant: said}
}

func responseFormat(schema *Schema) openai.ChatCompletionNewParamsResponseFormatUnion {
	return openai.ChatCompletionNewParamsResponseFormatUnion{
		OfJSONSchema: &shared.ResponseFormatJSONSchemaParam{
			JSONSchema: shared.ResponseFormatJSONSchemaJSONSchemaParam{
				Name:   schema.Name,
				Strict: openai.Bool(true),
				Schema: json.RawMessage(schema.JSON),
			},
		},
	}
}

// openAIReport reads what OpenAI says of a failure, in a response or in a stream.
func openAIReport(err error) report {
	var code, kind string
	if api, found := errors.AsType[*openai.Error](err); found {
		code, kind = api.Code, api.Type
	} else if event, found := errors.AsType[*ssestream.StreamError](err); found {
		var said struct {
			Error struct {
				Code any `json:"code"`
				Type any `json:"type"`
			} `json:"error"`
		}
		if json.Unmarshal(event.Event.Data, &said) == nil {
			code, _ = said.Error.Code.(string)
			kind, _ = said.Error.Type.(string)
		}
	}
	switch {
	case code == "insufficient_quota" || kind == "insufficient_quota":
		return report{kind: QuotaExhausted, code: "insufficient_quota"}
	case code == "rate_limit_exceeded":
		return report{kind: RateLimited, code: code}
	}
	return report{code: code}
}

func openAIResponse(completion *openai.ChatCompletion, model string) (Response, error) {
	// The SDK makes nothing of a body that is null.
	if completion == nil || len(completion.Choices) == 0 {
		return Response{}, &Error{Kind: Malformed}
	}
	choice := completion.Choices[0]
	var calls []ToolCall
	for _, call := range choice.Message.ToolCalls {
		calls = append(calls, ToolCall{ID: call.ID, Name: call.Function.Name, Arguments: call.Function.Arguments})
	}
	switch {
	case choice.Message.Refusal != "", choice.FinishReason == "content_filter":
		return Response{}, &Error{Kind: Refused}
	case choice.FinishReason == "length":
		return Response{}, &Error{Kind: Truncated}
	case choice.Message.Content == "" && len(calls) == 0:
		return Response{}, &Error{Kind: Malformed}
	}
	used := completion.Usage
	return Response{
		Text:      choice.Message.Content,
		ToolCalls: calls,
		Model:     cmp.Or(completion.Model, model),
		Usage: Usage{
			InputTokens:     used.PromptTokens,
			OutputTokens:    used.CompletionTokens,
			TotalTokens:     used.TotalTokens,
			CachedTokens:    used.PromptTokensDetails.CachedTokens,
			ReasoningTokens: used.CompletionTokensDetails.ReasoningTokens,
		},
		FinishReason: choice.FinishReason,
	}, nil
}
