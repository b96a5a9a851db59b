package model

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"
	"github.com/openai/openai-go/v3/shared"
)

const (
	openAIBaseURL = "https://api.openai.com/v1/"
	// Two retries, so three requests, each after at most ten seconds: longer
	// waits belong to the run's own retries, which hold no slot meanwhile.
	maxRetries    = 2
	maxRetryDelay = 10 * time.Second
	// maxResponseBytes is far above any answer, and keeps a broken endpoint from filling memory.
	maxResponseBytes = 32 << 20
)

// openAI asks an OpenAI-compatible endpoint for chat completions.
type openAI struct {
	// completions is the SDK's service by itself: its whole client would also
	// read keys, URLs and headers from the environment.
	completions openai.ChatCompletionService
	model       string
	// compatible is true for endpoints other than OpenAI's own, which lag behind it.
	compatible bool
	// unconstrained is set once the endpoint has refused response_format.
	unconstrained atomic.Bool
	log           *slog.Logger
}

func newOpenAI(cfg Config, log *slog.Logger) *openAI {
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   32,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
	options := []option.RequestOption{
		option.WithHTTPClient(&http.Client{Transport: limitTransport{next: transport}}),
		option.WithBaseURL(cmp.Or(cfg.BaseURL, openAIBaseURL)),
		option.WithRequestTimeout(cmp.Or(cfg.Timeout, DefaultTimeout)),
		option.WithMaxRetries(maxRetries),
		option.WithMaxRetryDelay(maxRetryDelay),
	}
	if cfg.APIKey != "" {
		options = append(options, option.WithAPIKey(cfg.APIKey))
	}
	return &openAI{
		completions: openai.NewChatCompletionService(options...),
		model:       cmp.Or(cfg.Model, DefaultModel),
		compatible:  cfg.BaseURL != "",
		log:         log,
	}
}

func (*openAI) Name() string    { return "openai" }
func (p *openAI) Model() string { return p.model }

func (p *openAI) Complete(ctx context.Context, request Request) (Response, error) {
	params := p.params(request)
	constrained := request.Schema != nil && !p.unconstrained.Load()
	if constrained {
		params.ResponseFormat = responseFormat(request.Schema)
	}
	completion, err := p.send(ctx, params, request.Pieces)
	if refused := new(Error); constrained && errors.As(err, &refused) && refused.Kind == Rejected {
		// Endpoints differ in what they say when they lack response_format, so
		// the proof is that the same request is taken without it.
		params.ResponseFormat = openai.ChatCompletionNewParamsResponseFormatUnion{}
		completion, err = p.send(ctx, params, request.Pieces)
		if err == nil && !p.unconstrained.Swap(true) {
			p.log.WarnContext(ctx, "model endpoint refuses response_format, asking for JSON in the prompt only",
				slog.String("model", p.model))
		}
	}
	if err != nil {
		return Response{}, err
	}
	return p.response(completion, request.Schema != nil)
}

// params states the schema in the instructions too: some endpoints take
// response_format and ignore it, and models answer better when they see it.
func (p *openAI) params(request Request) openai.ChatCompletionNewParams {
	instructions := request.Instructions
	if request.Schema != nil {
		instructions += "\n\nAnswer with one JSON object and nothing around it. It must fit this JSON Schema:\n" +
			string(request.Schema.JSON)
	}
	messages := []openai.ChatCompletionMessageParamUnion{openai.SystemMessage(instructions)}
	for _, m := range request.Messages {
		if m.Role == Assistant {
			messages = append(messages, openai.AssistantMessage(m.Text))
		} else {
			messages = append(messages, openai.UserMessage(m.Text))
		}
	}
	params := openai.ChatCompletionNewParams{Model: p.model, Messages: messages}
	switch {
	case request.MaxTokens == 0:
	case p.compatible:
		params.MaxTokens = openai.Int(int64(request.MaxTokens))
	default:
		params.MaxCompletionTokens = openai.Int(int64(request.MaxTokens))
	}
	return params
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

// send asks once, and passes the pieces of the answer on where somebody wants them.
func (p *openAI) send(
	ctx context.Context, params openai.ChatCompletionNewParams, pieces func(string) error,
) (*openai.ChatCompletion, error) {
	// The SDK's own error lacks the status when the body is not in OpenAI's form.
	var answered *http.Response
	if pieces != nil {
		params.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
		stream := p.completions.NewStreaming(ctx, params, option.WithResponseInto(&answered))
		completion, err := assemble(stream, pieces)
		if errors.Is(err, errStream) {
			return nil, p.failure(ctx, answered, err)
		}
		return completion, err
	}
	completion, err := p.completions.New(ctx, params, option.WithResponseInto(&answered))
	if err != nil {
		return nil, p.failure(ctx, answered, err)
	}
	return completion, nil
}

// errStream marks what the stream of an answer failed with.
var errStream = errors.New("read the answer as it comes")

// assemble puts an answer together from its pieces. One that ends without saying
// why was cut off, and has no choices. It fails with errStream, or as pieces does.
func assemble(stream *ssestream.Stream[openai.ChatCompletionChunk], pieces func(string) error) (*openai.ChatCompletion, error) {
	defer stream.Close() //nolint:errcheck // it was only read
	var whole openai.ChatCompletion
	var choice openai.ChatCompletionChoice
	var text, refusal strings.Builder
	for stream.Next() {
		chunk := stream.Current()
		whole.Model = cmp.Or(chunk.Model, whole.Model)
		if chunk.Usage.TotalTokens > 0 {
			whole.Usage = chunk.Usage
		}
		for _, c := range chunk.Choices {
			if c.Index != 0 {
				continue
			}
			choice.FinishReason = cmp.Or(c.FinishReason, choice.FinishReason)
			refusal.WriteString(c.Delta.Refusal)
			text.WriteString(c.Delta.Content)
			if c.Delta.Content == "" {
				continue
			}
			if err := pieces(c.Delta.Content); err != nil {
				return nil, err
			}
		}
	}
	if err := stream.Err(); err != nil {
		if _, reported := errors.AsType[*ssestream.StreamError](err); reported {
			// Its text may quote the request.
			err = errors.New("the endpoint reported an error")
		}
		return nil, fmt.Errorf("%w: %w", errStream, err)
	}
	if choice.FinishReason != "" {
		choice.Message.Content, choice.Message.Refusal = text.String(), refusal.String()
		whole.Choices = []openai.ChatCompletionChoice{choice}
	}
	return &whole, nil
}

// failure makes an *Error of the SDK's, or passes on why ctx ended. answered is
// nil when there was no answer.
func (p *openAI) failure(ctx context.Context, answered *http.Response, err error) error {
	if cause := ended(ctx); cause != nil {
		return fmt.Errorf("ask model %s: %w", p.model, cause)
	}
	failure := &Error{Kind: Unavailable, Model: p.model, Cause: err}
	if answered == nil {
		return failure
	}
	failure.StatusCode = answered.StatusCode
	failure.RetryAfter = retryAfter(answered.Header)
	if begun := answered.StatusCode < http.StatusBadRequest && errors.Is(err, errStream); !begun {
		failure.Kind = kindOf(answered.StatusCode, err)
	}
	return failure
}

func kindOf(status int, err error) Kind {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return Unauthorized
	case http.StatusTooManyRequests:
		if api := new(openai.Error); errors.As(err, &api) && api.Code == "insufficient_quota" {
			return QuotaExhausted
		}
		return RateLimited
	case http.StatusPaymentRequired:
		return QuotaExhausted
	case http.StatusRequestTimeout, http.StatusConflict:
		return Unavailable
	case http.StatusNotImplemented:
		return Rejected
	}
	switch {
	case status >= http.StatusInternalServerError:
		return Unavailable
	case status >= http.StatusBadRequest:
		return Rejected
	}
	return Malformed
}

func retryAfter(header http.Header) time.Duration {
	if ms, err := strconv.Atoi(header.Get("Retry-After-Ms")); err == nil && ms > 0 {
		return time.Duration(ms) * time.Millisecond
	}
	after := header.Get("Retry-After")
	if seconds, err := strconv.Atoi(after); err == nil && seconds > 0 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(after); err == nil {
		return max(0, time.Until(at).Round(time.Second))
	}
	return 0
}

func (p *openAI) response(completion *openai.ChatCompletion, wantObject bool) (Response, error) {
	if len(completion.Choices) == 0 {
		return Response{}, &Error{Kind: Malformed, Model: p.model}
	}
	choice := completion.Choices[0]
	switch {
	case choice.Message.Refusal != "", choice.FinishReason == "content_filter":
		return Response{}, &Error{Kind: Refused, Model: p.model}
	case choice.FinishReason == "length":
		return Response{}, &Error{Kind: Truncated, Model: p.model}
	case choice.Message.Content == "":
		return Response{}, &Error{Kind: Malformed, Model: p.model}
	}
	text := choice.Message.Content
	if wantObject {
		text = findObject(text)
	}
	return Response{
		Text:  text,
		Model: cmp.Or(completion.Model, p.model),
		Usage: Usage{
			InputTokens:  completion.Usage.PromptTokens,
			OutputTokens: completion.Usage.CompletionTokens,
			TotalTokens:  completion.Usage.TotalTokens,
		},
		FinishReason: choice.FinishReason,
	}, nil
}

// limitTransport ends a response body that goes on beyond maxResponseBytes.
type limitTransport struct {
	next http.RoundTripper
}

func (t limitTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(response.Body, maxResponseBytes), response.Body}
	return response, nil
}
