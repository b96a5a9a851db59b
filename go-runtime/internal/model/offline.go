package model

import (
	"context"
	"fmt"
	"strings"
)

// OfflineNotice is in every answer of the offline provider.
const OfflineNotice = "No model provider is configured, so this answer was made offline from a template, " +
	"without a model. Set OPENAI_API_KEY, ANTHROPIC_API_KEY or GEMINI_API_KEY, or OPENAI_BASE_URL and " +
	"AGENT_RUNTIME_MODEL for a compatible endpoint such as Ollama, vLLM or llama.cpp, and start the runtime again."

const offlineName = "offline"

// offline answers with the request's own sample: the same request, the same answer.
type offline struct{}

func (offline) Name() string  { return offlineName }
func (offline) Model() string { return offlineName }

func (offline) Complete(ctx context.Context, request Request) (Response, error) {
	if err := ended(ctx); err != nil {
		return Response{}, fmt.Errorf("answer offline: %w", err)
	}
	text := OfflineNotice
	if request.Sample != nil {
		sample, err := request.Sample(OfflineNotice)
		if err != nil {
			return Response{}, &Error{Kind: Malformed, Model: offlineName, Cause: err}
		}
		text = sample
	}
	if request.Pieces != nil {
		for piece := range strings.SplitAfterSeq(text, " ") {
			if err := request.Pieces(piece); err != nil {
				return Response{}, err
			}
		}
	}
	return Response{Text: text, Provider: offlineName, Model: offlineName, Offline: true, FinishReason: "stop"}, nil
}
