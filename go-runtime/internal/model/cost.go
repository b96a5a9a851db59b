package model

import (
	"cmp"

	"github.com/djangobridge/djangobridge/go-runtime/internal/model/price"
)

// answers is who answers for a kind of provider, as far as the address says: the
// models of an OpenAI-compatible endpoint cost what its own provider charges.
func (p *provider) answers(kind string) string {
	if kind != openAIName || p.baseURL == "" {
		return kind
	}
	return cmp.Or(p.prices.Provider(p.baseURL), "openai-compatible")
}

// priceName is what package price calls a provider.
func priceName(provider string) string {
	if provider == geminiName {
		return "google"
	}
	return provider
}

// tokens are a usage as package price counts it.
func tokens(u Usage) price.Tokens {
	return price.Tokens{Input: u.InputTokens, Cached: u.CachedTokens, Output: u.OutputTokens, Reasoning: u.ReasoningTokens}
}
