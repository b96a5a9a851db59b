package model

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const (
	// DefaultTimeout is generous because small machines serve big models.
	DefaultTimeout = 3 * time.Minute
	// DefaultConcurrency is how many requests one provider is sent at a time.
	DefaultConcurrency = 64
)

// Endpoint is where a provider is asked.
type Endpoint struct {
	// APIKey authenticates; an OpenAI-compatible server on one's own machine often needs none.
	APIKey string
	// BaseURL is that of the API, http://127.0.0.1:11434/v1 for an OpenAI-compatible
	// one; empty means the provider's own.
	BaseURL string
}

// Config says which providers to ask. Its zero value is the offline one.
type Config struct {
	// OpenAI is asked when it has a key or a base URL, the others when they have a key.
	OpenAI, Anthropic, Gemini Endpoint
	// Models are asked in this order, the next where one fails in a way that another
	// may not: it is rate limited, unavailable, out of quota, or refuses the key. A
	// name is provider/model, such as openai/gpt-5-mini, or the model's alone where
	// that says enough; see Router.Check. Empty means the usual model of the first
	// provider that is configured. An OpenAI-compatible base URL has no usual one.
	Models []string
	// Timeout bounds one request; 0 means DefaultTimeout.
	Timeout time.Duration
	// Concurrency is how many requests each provider is sent at a time; 0 means DefaultConcurrency.
	Concurrency int
}

// The kinds of providers, as model names begin with them.
const (
	openAIName    = "openai"
	anthropicName = "anthropic"
	geminiName    = "gemini"
)

// kind is what is known of a kind of provider.
type kind struct {
	name     string
	endpoint Endpoint
	// usual is the model that is asked when none is named; empty: there is none.
	usual string
	// prefixes begin the names of its models.
	prefixes []string
	// open is true when the endpoint may serve models of any name.
	open bool
}

// kinds returns those that are configured, in the order in which they are preferred.
func (c Config) kinds() []kind {
	all := []kind{
		{
			name: openAIName, endpoint: c.OpenAI, usual: "gpt-5-mini", open: c.OpenAI.BaseURL != "",
			prefixes: []string{"gpt-", "chatgpt-", "o1", "o3", "o4", "ft:gpt-", "ft:o"},
		},
		{name: anthropicName, endpoint: c.Anthropic, usual: "claude-haiku-5-5", prefixes: []string{"claude"}},
		{name: geminiName, endpoint: c.Gemini, usual: "gemini-2.5-flash", prefixes: []string{"gemini", "gemma"}},
	}
	return slices.DeleteFunc(all, func(k kind) bool { return k.endpoint.APIKey == "" && !k.open })
}

func (c Config) validate() error {
	var negative, few, unnamed error
	if c.Timeout < 0 {
		negative = violation.New("model-timeout", "must not be negative")
	}
	if c.Concurrency < 0 {
		few = violation.New("model-concurrency", "must not be negative")
	}
	if c.OpenAI.BaseURL != "" && len(c.Models) == 0 {
		unnamed = violation.New("model", "is required with a base URL")
	}
	return violation.Join(
		checkEndpoint("openai", c.OpenAI, "http://127.0.0.1:11434/v1"),
		checkEndpoint("anthropic", c.Anthropic, "https://api.anthropic.com"),
		checkEndpoint("gemini", c.Gemini, "https://generativelanguage.googleapis.com"),
		unnamed, negative, few,
	)
}

// checkEndpoint never quotes what it refuses: a mistyped URL may hold a secret too.
func checkEndpoint(provider string, e Endpoint, example string) error {
	var badKey, badURL error
	if strings.ContainsFunc(e.APIKey, func(r rune) bool { return r <= ' ' || r > '~' }) {
		badKey = violation.New(provider+"-api-key", "must be visible ASCII without spaces")
	}
	u, err := url.Parse(cmp.Or(e.BaseURL, example))
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		badURL = violation.New(provider+"-base-url", "must be a URL such as %s", example)
	case u.User != nil:
		badURL = violation.New(provider+"-base-url", "must not hold a user or password; use the API key")
	}
	return violation.Join(badKey, badURL)
}
