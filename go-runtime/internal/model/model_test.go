package model

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

func TestNewChoosesTheProvider(t *testing.T) {
	t.Parallel()
	key, own := Endpoint{APIKey: testKey}, Endpoint{BaseURL: "http://127.0.0.1:11434/v1"}
	tests := map[string]struct {
		cfg         Config
		name, model string
	}{
		"nothing":    {Config{}, "offline", "offline"},
		"only model": {Config{Models: []string{"gpt-5"}}, "offline", "offline"},
		"key":        {Config{OpenAI: key}, "openai", "gpt-5-mini"},
		"key, model": {Config{OpenAI: key, Models: []string{"gpt-5"}}, "openai", "gpt-5"},
		"base URL":   {Config{OpenAI: own, Models: []string{"qwen"}}, "openai", "qwen"},
		"Anthropic":  {Config{Anthropic: key}, "anthropic", "claude-haiku-5-5"},
		"Gemini":     {Config{Gemini: key}, "gemini", "gemini-2.5-flash"},
		"URL alone":  {Config{Anthropic: Endpoint{BaseURL: "http://127.0.0.1:1"}}, "offline", "offline"},
		"all keys":   {Config{OpenAI: key, Anthropic: key, Gemini: key}, "openai", "gpt-5-mini"},
		"a chain":    {Config{OpenAI: key, Anthropic: key, Models: []string{" claude-opus-5", "gpt-5"}}, "anthropic", "claude-opus-5"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			provider, err := New(test.cfg, quiet)
			if err != nil || provider.Name() != test.name || provider.Model() != test.model {
				t.Errorf("New = %v, %v; want %s asking %s", provider, err, test.name, test.model)
			}
		})
	}
}

func TestNewRefusesABadConfiguration(t *testing.T) {
	t.Parallel()
	at := func(url string) Config { return Config{OpenAI: Endpoint{BaseURL: url}, Models: []string{"m"}} }
	tests := map[string]struct {
		cfg  Config
		want string
	}{
		"no scheme": {at("localhost:11434"), "openai-base-url: must be a URL such as http://127.0.0.1:11434/v1"},
		"not a URL": {at("http://[::1"), "openai-base-url: must be a URL such as http://127.0.0.1:11434/v1"},
		"password":  {at("http://me:secret@host/v1"), "openai-base-url: must not hold a user or password; use the API key"},
		"all at once": {
			Config{OpenAI: Endpoint{BaseURL: "ftp://host"}, Anthropic: Endpoint{APIKey: "two words", BaseURL: "x"}, Gemini: Endpoint{APIKey: "a\nb"}, Timeout: -1, Concurrency: -1},
			"openai-base-url: must be a URL such as http://127.0.0.1:11434/v1; " +
				"anthropic-api-key: must be visible ASCII without spaces; anthropic-base-url: must be a URL such as https://api.anthropic.com; " +
				"gemini-api-key: must be visible ASCII without spaces; " +
				"model: is required with a base URL; model-timeout: must not be negative; model-concurrency: must not be negative",
		},
		"no key": {
			Config{OpenAI: Endpoint{APIKey: testKey}, Models: []string{"anthropic/claude-opus-5", "gpt-5", "mistral/large"}},
			"model: anthropic/claude-opus-5, mistral/large: no provider that is configured (openai) has models of such a name; write provider/model",
		},
		"timeout": {Config{Timeout: -time.Second}, "model-timeout: must not be negative"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			provider, err := New(test.cfg, quiet)
			if unfit := new(violation.Error); provider != nil || !errors.As(err, &unfit) || err.Error() != test.want {
				t.Errorf("New = %v, %v; want %s", provider, err, test.want)
			}
		})
	}
}

func TestOfflineAnswersWithTheSample(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken template")
	tests := map[string]struct {
		sample func(string) (string, error)
		want   string
		err    error
	}{
		"sample":    {func(notice string) (string, error) { return "sample: " + notice, nil }, "sample: " + OfflineNotice, nil},
		"no sample": {nil, OfflineNotice, nil},
		"broken":    {func(string) (string, error) { return "", broken }, "", broken},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			provider, err := New(Config{}, quiet)
			if err != nil {
				t.Fatal(err)
			}
			response, err := provider.Complete(t.Context(), Request{Sample: test.sample})
			if !errors.Is(err, test.err) || response.Text != test.want {
				t.Errorf("Complete = %q, %v; want %q, %v", response.Text, err, test.want, test.err)
			}
			if err == nil && (!response.Offline || response.Model != "offline" || response.Usage != (Usage{})) {
				t.Errorf("response does not say that it is offline: %+v", response)
			}
		})
	}
}

func TestOfflineGivesItsAnswerInPieces(t *testing.T) {
	t.Parallel()
	provider, err := New(Config{}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	var pieces []string
	request := Request{Pieces: func(text string) error {
		pieces = append(pieces, text)
		return nil
	}}
	response, err := provider.Complete(t.Context(), request)
	if err != nil || strings.Join(pieces, "") != response.Text || len(pieces) < 10 {
		t.Errorf("Complete = %q, %v in %d pieces", response.Text, err, len(pieces))
	}
	enough := errors.New("enough")
	request.Pieces = func(string) error { return enough }
	if _, err := provider.Complete(t.Context(), request); !errors.Is(err, enough) {
		t.Errorf("Complete error = %v, want the reader's", err)
	}
}

func TestOfflineEndsWithItsContext(t *testing.T) {
	t.Parallel()
	provider, err := New(Config{}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := provider.Complete(ctx, Request{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Complete error = %v, want context.Canceled", err)
	}
}

func TestOfflineNoticeNamesWhatToSet(t *testing.T) {
	t.Parallel()
	for _, variable := range []string{"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENAI_BASE_URL", "AGENT_RUNTIME_MODEL"} {
		if !strings.Contains(OfflineNotice, variable) {
			t.Errorf("the notice does not name %s", variable)
		}
	}
}

func TestFindObject(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ text, want string }{
		"alone":         {`{"a": 1}`, `{"a": 1}`},
		"spaces":        {"\n {\"a\": 1} \n", `{"a": 1}`},
		"fence":         {"Sure!\n```json\n{\"a\": \"}\"}\n```\nDone.", `{"a": "}"}`},
		"the longest":   {`Not {} but {"a": {"b": 2}} or {"c": 3}.`, `{"a": {"b": 2}}`},
		"after braces":  {`In set notation {x}, the answer is {"a": 1}`, `{"a": 1}`},
		"after thought": {`<think>Maybe {"wrong": "and long as can be"}.</think>{"a": 1}`, `{"a": 1}`},
		"big number":    {`{"a": 12345678901234567890.10}`, `{"a": 12345678901234567890.10}`},
		"none":          {" I would rather not. ", "I would rather not."},
		"cut short":     {`{"a": `, `{"a":`},
		"a list":        {`[1, 2]`, `[1, 2]`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := findObject(test.text); got != test.want {
				t.Errorf("findObject(%q) = %q, want %q", test.text, got, test.want)
			}
		})
	}
}

func FuzzFindObject(f *testing.F) {
	f.Add(`{"a": 1}`)
	f.Add("```{{{[\"{\"</think>")
	f.Fuzz(func(t *testing.T, text string) {
		if got := findObject(text); !strings.Contains(text, got) {
			t.Errorf("findObject(%q) = %q, which is not in it", text, got)
		}
	})
}
