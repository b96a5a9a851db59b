package model

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/packages/ssestream"
)

// assemble puts an answer together from its pieces. One that ends without saying
// why was cut off, and has no choices. It fails with errStream, or as pieces does.
func assemble(stream *ssestream.Stream[openai.ChatCompletionChunk], pieces func(string) error) (*openai.ChatCompletion, error) {
	defer stream.Close() //nolint:errcheck // it was only read
	var whole openai.ChatCompletion
	var choice openai.ChatCompletionChoice
	var text, refusal strings.Builder
	var calls fragments
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
			calls.add(c.Delta.ToolCalls)
			if c.Delta.Content == "" {
				continue
			}
			if err := pieces(c.Delta.Content); err != nil {
				return nil, err
			}
		}
	}
	if err := stream.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", errStream, err)
	}
	if choice.FinishReason != "" {
		choice.Message.Content, choice.Message.Refusal = text.String(), refusal.String()
		choice.Message.ToolCalls = calls.whole()
		whole.Choices = []openai.ChatCompletionChoice{choice}
	}
	return &whole, nil
}

// fragments are tool calls that come in parts, each with the index of its call.
type fragments struct {
	calls []*fragment
	// latest is the last call that began at an index.
	latest map[int64]*fragment
}

type fragment struct {
	id, name  string
	arguments strings.Builder
}

func (f *fragments) add(deltas []openai.ChatCompletionChunkChoiceDeltaToolCall) {
	for _, delta := range deltas {
		call := f.latest[delta.Index]
		// Some endpoints give several whole calls the same index.
		if call == nil || (delta.ID != "" && call.id != "" && delta.ID != call.id) {
			call = &fragment{}
			f.calls = append(f.calls, call)
			if f.latest == nil {
				f.latest = map[int64]*fragment{}
			}
			f.latest[delta.Index] = call
		}
		call.id = cmp.Or(call.id, delta.ID)
		call.name = cmp.Or(call.name, delta.Function.Name)
		call.arguments.WriteString(delta.Function.Arguments)
	}
}

func (f *fragments) whole() []openai.ChatCompletionMessageToolCallUnion {
	var calls []openai.ChatCompletionMessageToolCallUnion
	for _, call := range f.calls {
		var whole openai.ChatCompletionMessageToolCallUnion
		whole.ID, whole.Function.Name, whole.Function.Arguments = call.id, call.name, call.arguments.String()
		calls = append(calls, whole)
	}
	return calls
}
