package model

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"time"

	"google.golang.org/genai"
)

const geminiBaseURL = "https://generativelanguage.googleapis.com/"

// geminiAPI asks Google's Gemini API.
type geminiAPI struct {
	models *genai.Models
}

// newGemini leaves nothing open that the SDK would take from the environment.
func newGemini(e Endpoint, client *http.Client) (*geminiAPI, error) {
	api, err := genai.NewClient(context.Background(), &genai.ClientConfig{
		APIKey:      e.APIKey,
		Backend:     genai.BackendGeminiAPI,
		HTTPClient:  client,
		HTTPOptions: genai.HTTPOptions{BaseURL: cmp.Or(e.BaseURL, geminiBaseURL), APIVersion: "v1beta"},
	})
	if err != nil {
		// Its text would show the configuration.
		return nil, fmt.Errorf("make the client of Gemini: %w", cause(err, ""))
	}
	return &geminiAPI{models: api.Models}, nil
}

func (p *geminiAPI) ask(ctx context.Context, model string, request Request, constrained bool) (Response, error) {
	config := geminiConfig(request)
	if constrained {
		config.ResponseMIMEType = "application/json"
		config.ResponseJsonSchema = objectOf(string(request.Schema.JSON))
	}
	ctx, answer := watch(ctx)
	whole := &geminiAnswer{}
	pieces := request.Pieces
	var responses iter.Seq2[*genai.GenerateContentResponse, error]
	if contents := geminiContents(request.Messages); pieces == nil {
		pieces = func(string) error { return nil }
		responses = func(yield func(*genai.GenerateContentResponse, error) bool) {
			yield(p.models.GenerateContent(ctx, model, contents, config))
		}
	} else {
		responses = marked(p.models.GenerateContentStream(ctx, model, contents, config))
	}
	if err := whole.read(responses, pieces); err != nil {
		return Response{}, failure(answer, err, geminiReport(err))
	}
	return whole.response(model)
}

// marked puts errStream before the errors of a stream.
func marked(stream iter.Seq2[*genai.GenerateContentResponse, error]) iter.Seq2[*genai.GenerateContentResponse, error] {
	return func(yield func(*genai.GenerateContentResponse, error) bool) {
		for response, err := range stream {
			if err != nil {
				err = fmt.Errorf("%w: %w", errStream, err)
			}
			if !yield(response, err) {
				return
			}
		}
	}
}

func geminiConfig(request Request) *genai.GenerateContentConfig {
	config := &genai.GenerateContentConfig{MaxOutputTokens: int32(request.MaxTokens)}
	if instructions := request.instructions(); instructions != "" {
		config.SystemInstruction = &genai.Content{Parts: []*genai.Part{{Text: instructions}}}
	}
	var functions []*genai.FunctionDeclaration
	for _, tool := range request.Tools {
		functions = append(functions, &genai.FunctionDeclaration{
			Name: tool.Name, Description: tool.Description, ParametersJsonSchema: objectOf(string(schemaOf(tool))),
		})
	}
	if len(functions) > 0 {
		config.Tools = []*genai.Tool{{FunctionDeclarations: functions}}
	}
	return config
}

// geminiContents joins what one side says in a row: the results of all calls of
// one turn belong into one.
func geminiContents(messages []Message) []*genai.Content {
	var joined []*genai.Content
	names := map[string]string{}
	for _, m := range messages {
		role, parts := genai.RoleUser, geminiUser(m, names)
		if m.Role == Assistant {
			role, parts = genai.RoleModel, geminiModel(m)
			for _, call := range m.ToolCalls {
				names[call.ID] = call.Name
			}
		}
		if len(parts) == 0 {
			continue
		}
		if last := len(joined) - 1; last >= 0 && joined[last].Role == role {
			joined[last].Parts = append(joined[last].Parts, parts...)
			continue
		}
		joined = append(joined, &genai.Content{Role: role, Parts: parts})
	}
	return joined
}

func geminiUser(m Message, names map[string]string) []*genai.Part {
	if m.Role == ToolResult {
		key := "output"
		if m.Failed {
			key = "error"
		}
		return []*genai.Part{{FunctionResponse: &genai.FunctionResponse{
			ID: m.ToolCallID, Name: names[m.ToolCallID], Response: map[string]any{key: m.Text},
		}}}
	}
	var parts []*genai.Part
	if m.Text != "" {
		parts = append(parts, &genai.Part{Text: m.Text})
	}
	for _, image := range m.Images {
		if image.URL != "" {
			parts = append(parts, &genai.Part{FileData: &genai.FileData{FileURI: image.URL, MIMEType: image.MediaType}})
		} else {
			parts = append(parts, &genai.Part{InlineData: &genai.Blob{Data: image.Data, MIMEType: image.MediaType}})
		}
	}
	return parts
}

func geminiModel(m Message) []*genai.Part {
	var parts []*genai.Part
	if m.Text != "" {
		parts = append(parts, &genai.Part{Text: m.Text})
	}
	for _, call := range m.ToolCalls {
		part := &genai.Part{FunctionCall: &genai.FunctionCall{ID: call.ID, Name: call.Name, Args: objectOf(call.Arguments)}}
		if kept, own := strings.CutPrefix(call.Opaque, geminiName+":"); own {
			part.ThoughtSignature, _ = base64.StdEncoding.DecodeString(kept)
		}
		parts = append(parts, part)
	}
	return parts
}

// geminiAnswer is put together from the responses of a stream, or the one there is.
type geminiAnswer struct {
	text         strings.Builder
	calls        []ToolCall
	model        string
	finishReason genai.FinishReason
	blocked      bool
	usage        Usage
}

// errMisread is a response in which the SDK met another type than it expected.
var errMisread = errors.New("the answer is not of the API's form")

// read takes all responses in, and fails as they or pieces do.
func (a *geminiAnswer) read(responses iter.Seq2[*genai.GenerateContentResponse, error], pieces func(string) error) error {
	next, stop := iter.Pull2(responses)
	defer stop()
	for {
		got, more := pull(next)
		if got.err != nil || !more {
			return got.err
		}
		if err := a.add(got.response, pieces); err != nil {
			return err
		}
	}
}

// pulled is what a stream gives at a time.
type pulled struct {
	response *genai.GenerateContentResponse
	err      error
}

// pull returns what next does. The SDK panics where a response has another type
// than it expects, and what an endpoint sends must end no more than its call.
func pull(next func() (*genai.GenerateContentResponse, error, bool)) (got pulled, more bool) {
	defer func() {
		if recover() != nil {
			got, more = pulled{err: errMisread}, false
		}
	}()
	got.response, got.err, more = next()
	return got, more
}

// add takes one response in, and fails as pieces does.
func (a *geminiAnswer) add(response *genai.GenerateContentResponse, pieces func(string) error) error {
	a.model = cmp.Or(response.ModelVersion, a.model)
	a.blocked = a.blocked || (response.PromptFeedback != nil && response.PromptFeedback.BlockReason != "")
	if used := response.UsageMetadata; used != nil {
		a.usage = Usage{
			InputTokens:     int64(used.PromptTokenCount) + int64(used.ToolUsePromptTokenCount),
			OutputTokens:    int64(used.CandidatesTokenCount) + int64(used.ThoughtsTokenCount),
			TotalTokens:     int64(used.TotalTokenCount),
			CachedTokens:    int64(used.CachedContentTokenCount),
			ReasoningTokens: int64(used.ThoughtsTokenCount),
		}
	}
	if len(response.Candidates) == 0 || response.Candidates[0] == nil {
		return nil
	}
	candidate := response.Candidates[0]
	a.finishReason = cmp.Or(candidate.FinishReason, a.finishReason)
	if candidate.Content == nil {
		return nil
	}
	for _, part := range candidate.Content.Parts {
		switch {
		case part == nil:
		case part.FunctionCall != nil:
			if err := a.call(part); err != nil {
				return err
			}
		case part.Text != "" && !part.Thought:
			a.text.WriteString(part.Text)
			if err := pieces(part.Text); err != nil {
				return err
			}
		}
	}
	return nil
}

// call takes one call in, with the signature of the thoughts that led to it: the
// API wants it back.
func (a *geminiAnswer) call(part *genai.Part) error {
	arguments := []byte("{}")
	if len(part.FunctionCall.Args) > 0 {
		var err error
		if arguments, err = json.Marshal(part.FunctionCall.Args); err != nil {
			return fmt.Errorf("write arguments: %w", err)
		}
	}
	call := ToolCall{ID: part.FunctionCall.ID, Name: part.FunctionCall.Name, Arguments: string(arguments)}
	if len(part.ThoughtSignature) > 0 {
		call.Opaque = geminiName + ":" + base64.StdEncoding.EncodeToString(part.ThoughtSignature)
	}
	a.calls = append(a.calls, call)
	return nil
}

func (a *geminiAnswer) response(model string) (Response, error) {
	if a.blocked {
		return Response{}, &Error{Kind: Refused}
	}
	switch a.finishReason {
	case genai.FinishReasonStop:
	case genai.FinishReasonMaxTokens:
		return Response{}, &Error{Kind: Truncated}
	case genai.FinishReasonSafety, genai.FinishReasonRecitation, genai.FinishReasonLanguage, genai.FinishReasonBlocklist,
		genai.FinishReasonProhibitedContent, genai.FinishReasonSPII, genai.FinishReasonImageSafety,
		genai.FinishReasonImageProhibitedContent, genai.FinishReasonImageRecitation:
		return Response{}, &Error{Kind: Refused}
	default:
		return Response{}, &Error{Kind: Malformed, Cause: cause(nil, string(a.finishReason))}
	}
	if a.text.Len() == 0 && len(a.calls) == 0 {
		return Response{}, &Error{Kind: Malformed}
	}
	return Response{
		Text:         a.text.String(),
		ToolCalls:    a.calls,
		Model:        cmp.Or(a.model, model),
		Usage:        a.usage,
		FinishReason: string(a.finishReason),
	}, nil
}

// geminiReport reads what Google says of a failure, in a response or in a stream.
func geminiReport(err error) report {
	api, found := errors.AsType[genai.APIError](err)
	if !found {
		return report{}
	}
	said := report{code: api.Status}
	switch api.Status {
	case "RESOURCE_EXHAUSTED":
		said.kind = RateLimited
	case "UNAUTHENTICATED", "PERMISSION_DENIED":
		said.kind = Unauthorized
	case "INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND", "OUT_OF_RANGE", "UNIMPLEMENTED":
		said.kind = Rejected
	case "UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED", "UNKNOWN", "ABORTED":
		said.kind = Unavailable
	}
	for _, detail := range api.Details {
		said.read(detail)
	}
	return said
}

// read takes in one of google.rpc's details.
func (r *report) read(detail map[string]any) {
	switch kind, _ := detail["@type"].(string); strings.TrimPrefix(kind, "type.googleapis.com/google.rpc.") {
	case "RetryInfo":
		delay, _ := detail["retryDelay"].(string)
		if wait, err := time.ParseDuration(delay); err == nil && wait > 0 {
			r.retryAfter = wait
		}
	case "ErrorInfo":
		// Google answers a bad key with INVALID_ARGUMENT.
		if reason, _ := detail["reason"].(string); reason == "API_KEY_INVALID" {
			r.kind, r.code = Unauthorized, reason
		}
	case "QuotaFailure":
		violations, _ := detail["violations"].([]any)
		for _, violation := range violations {
			members, _ := violation.(map[string]any)
			// A day's quota is not one to wait for.
			if id, _ := members["quotaId"].(string); strings.Contains(id, "PerDay") {
				r.kind = QuotaExhausted
			}
		}
	}
}
