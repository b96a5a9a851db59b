package model

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// scripted answers with what a function returns, for what takes longer than a test may.
type scripted struct {
	mu    sync.Mutex
	calls []string
	reply func(ctx context.Context, n int, model string, request Request) (Response, error)
}

func (s *scripted) ask(ctx context.Context, model string, request Request, _ bool) (Response, error) {
	s.mu.Lock()
	s.calls = append(s.calls, model)
	n := len(s.calls)
	s.mu.Unlock()
	return s.reply(ctx, n, model, request)
}

func (s *scripted) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

// scriptedRouter has OpenAI and Anthropic answered by scripts.
func scriptedRouter(t *testing.T, cfg Config, openai, claude *scripted, log *slog.Logger) *Router {
	t.Helper()
	cfg.OpenAI.APIKey, cfg.Anthropic.APIKey = testKey, testKey
	router, err := New(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	router.providers[openAIName].asker, router.providers[anthropicName].asker = openai, claude
	return router
}

func failing(kind Kind, after time.Duration) *scripted {
	return &scripted{reply: func(context.Context, int, string, Request) (Response, error) {
		return Response{}, &Error{Kind: kind, StatusCode: 499, RetryAfter: after}
	}}
}

func answering(text string) *scripted {
	return &scripted{reply: func(_ context.Context, _ int, model string, request Request) (Response, error) {
		if request.Pieces != nil {
			if err := request.Pieces(text); err != nil {
				return Response{}, err
			}
		}
		return Response{Text: text, Model: model}, nil
	}}
}

func TestNamesFindTheirProvider(t *testing.T) {
	t.Parallel()
	key := Endpoint{APIKey: testKey}
	own := Endpoint{BaseURL: "http://127.0.0.1:1/v1"}
	all := Config{OpenAI: key, Anthropic: key, Gemini: key}
	open := Config{OpenAI: own, Anthropic: key, Models: []string{"m"}}
	for name, test := range map[string]struct {
		cfg  Config
		name string
		want string // empty: unknown
	}{
		"named":                       {all, "gemini/gemini-2.5-flash", "gemini/gemini-2.5-flash"},
		"named, with a slash":         {all, "openai/ft/x", "openai/ft/x"},
		"guessed, gpt":                {all, "gpt-5-mini", "openai/gpt-5-mini"},
		"guessed, o":                  {all, "o3", "openai/o3"},
		"guessed, claude":             {all, "claude-opus-5", "anthropic/claude-opus-5"},
		"guessed, gemini":             {all, "gemini-2.5-pro", "gemini/gemini-2.5-pro"},
		"spaces":                      {all, " gpt-5 ", "openai/gpt-5"},
		"not guessed":                 {all, "qwen3", ""},
		"unknown provider":            {all, "mistral/large", ""},
		"without a key":               {Config{OpenAI: key, Gemini: key}, "anthropic/claude-opus-5", ""},
		"guessed, without a key":      {Config{OpenAI: key, Gemini: key}, "claude-opus-5", ""},
		"empty":                       {all, "", ""},
		"no model":                    {all, "openai/", ""},
		"no provider":                 {all, "/gpt-5", ""},
		"the only one takes any":      {Config{Anthropic: key}, "opus", "anthropic/opus"},
		"the only one, other's name":  {Config{Anthropic: key}, "openai/gpt-5", ""},
		"the only one, with a slash":  {Config{OpenAI: key}, "mistral/large", ""},
		"an open one takes any":       {open, "qwen3", "openai/qwen3"},
		"an open one takes slashes":   {open, "Qwen/Qwen3-8B", "openai/Qwen/Qwen3-8B"},
		"an open one, guessed":        {open, "claude-opus-5", "anthropic/claude-opus-5"},
		"an open one, gemini's name":  {open, "gemini-2.5-pro", "openai/gemini-2.5-pro"},
		"an open one, named as other": {open, "gemini/gemini-2.5-pro", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			router, err := New(test.cfg, quiet)
			if err != nil {
				t.Fatal(err)
			}
			found, err := router.directory.chain([]string{test.name})
			if test.want != "" {
				if err != nil || len(found) != 1 || found[0].String() != test.want {
					t.Errorf("found %v, %v; want %s", found, err, test.want)
				}
				return
			}
			unknown, isUnknown := errors.AsType[*UnknownModelError](err)
			if !isUnknown || !slices.Equal(unknown.Models, []string{test.name}) || !slices.Equal(unknown.Configured, router.directory.names()) {
				t.Errorf("found %v, %v; want it unknown, and what is configured", found, err)
			}
		})
	}
}

func TestCheckReportsEveryUnknownName(t *testing.T) {
	t.Parallel()
	router, err := New(Config{OpenAI: Endpoint{APIKey: testKey}}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	err = router.Check("gpt-5, anthropic/claude-opus-5,mistral/large")
	if _, unknown := errors.AsType[*UnknownModelError](err); !unknown || !strings.Contains(err.Error(), "claude-opus-5") ||
		!strings.Contains(err.Error(), "mistral/large") || strings.Contains(err.Error(), "gpt-5") {
		t.Errorf("Check = %v", err)
	}
	for _, known := range []string{"", "gpt-5", "openai/gpt-5, gpt-5-mini"} {
		if err := router.Check(known); err != nil {
			t.Errorf("Check(%q) = %v", known, err)
		}
	}
	_, err = router.Complete(t.Context(), Request{Model: "mistral/large", Messages: ask(nil).Messages})
	failure, failed := errors.AsType[*Error](err)
	if _, unknown := errors.AsType[*UnknownModelError](err); !failed || !unknown || failure.Kind != Rejected ||
		!strings.Contains(failure.Error(), "configured (openai)") {
		t.Errorf("Complete error = %v, want it unknown", err)
	}
	offline, err := New(Config{}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := offline.Check("anthropic/claude-opus-5"); err != nil {
		t.Errorf("Check offline = %v", err)
	}
	response, err := offline.Complete(t.Context(), Request{Model: "anthropic/claude-opus-5", Tools: []Tool{{Name: "look"}}})
	if err != nil || !response.Offline || len(response.ToolCalls) != 0 || response.Provider != "offline" {
		t.Errorf("Complete offline = %+v, %v", response, err)
	}
}

func TestAChainAsksTheNextWhereAnotherMayNotFail(t *testing.T) {
	t.Parallel()
	for kind, passes := range map[Kind]bool{
		RateLimited: true, QuotaExhausted: true, Unavailable: true, Unauthorized: true,
		Rejected: false, Refused: false, Truncated: false, Malformed: false,
	} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			// Beyond what a call waits for, so that each model is asked once.
			first, second := failing(kind, time.Minute), answering("Here.")
			var logged lockedBuffer
			router := scriptedRouter(t, Config{Models: []string{"gpt-5", "claude-opus-5"}}, first, second, slog.New(slog.NewTextHandler(&logged, nil)))
			response, err := router.Complete(t.Context(), ask(nil))
			if passes {
				if err != nil || response.Text != "Here." || response.Provider != anthropicName || response.Model != "claude-opus-5" {
					t.Errorf("Complete = %+v, %v; want the next model's", response, err)
				}
				if !strings.Contains(logged.String(), "model=openai/gpt-5") || !strings.Contains(logged.String(), "next=anthropic/claude-opus-5") {
					t.Errorf("logged %q", logged.String())
				}
				return
			}
			if failure, failed := errors.AsType[*Error](err); !failed || failure.Kind != kind || second.count() != 0 {
				t.Errorf("Complete error = %v after %d requests to the next", err, second.count())
			}
		})
	}
}

func TestARequestNamesItsOwnChain(t *testing.T) {
	t.Parallel()
	first, second := failing(Unavailable, time.Minute), failing(QuotaExhausted, 0)
	router := scriptedRouter(t, Config{Models: []string{"o3"}}, first, second, quiet)
	request := ask(nil)
	request.Model = "claude-opus-5, anthropic/claude-haiku-5-5,gpt-5, gpt-5"
	_, err := router.Complete(t.Context(), request)
	failure, failed := errors.AsType[*Error](err)
	if !failed || failure.Kind != Unavailable || failure.Model != "openai/gpt-5" || !failure.Retryable() || failure.RetryAfter != time.Minute {
		t.Errorf("Complete error = %#v, want the one that may pass", err)
	}
	for _, model := range []string{"anthropic/claude-opus-5", "anthropic/claude-haiku-5-5", "openai/gpt-5"} {
		if !strings.Contains(err.Error(), "model "+model+" ") {
			t.Errorf("%v does not name %s", err, model)
		}
	}
	if !slices.Equal(second.calls, []string{"claude-opus-5", "claude-haiku-5-5"}) || !slices.Equal(first.calls, []string{"gpt-5"}) {
		t.Errorf("asked %v, %v", second.calls, first.calls)
	}
}

func TestNothingIsStreamedTwice(t *testing.T) {
	t.Parallel()
	first := &scripted{reply: func(_ context.Context, _ int, _ string, request Request) (Response, error) {
		if err := request.Pieces("For"); err != nil {
			return Response{}, err
		}
		return Response{}, &Error{Kind: Unavailable}
	}}
	second := answering("Forty-two.")
	router := scriptedRouter(t, Config{Models: []string{"gpt-5", "claude-opus-5"}}, first, second, quiet)
	var pieces []string
	request := ask(nil)
	request.Pieces = collect(&pieces)
	_, err := router.Complete(t.Context(), request)
	if failure, failed := errors.AsType[*Error](err); !failed || failure.Kind != Unavailable || first.count() != 1 || second.count() != 0 {
		t.Errorf("Complete error = %v after %d and %d requests", err, first.count(), second.count())
	}
	if !slices.Equal(pieces, []string{"For"}) {
		t.Errorf("pieces %q", pieces)
	}
}

func TestARequestThatNoProviderTakesIsRefusedByName(t *testing.T) {
	t.Parallel()
	first := answering("Here.")
	router := scriptedRouter(t, Config{}, first, nil, quiet)
	said := []Message{{Role: User, Text: "a"}}
	for name, test := range map[string]struct {
		request Request
		want    string
	}{
		"no messages":         {Request{}, "messages: must have at least one"},
		"name of a tool":      {Request{Messages: said, Tools: []Tool{{Name: "two words"}}}, `tools: has the name "two words"`},
		"schema of a tool":    {Request{Messages: said, Tools: []Tool{{Name: "a", Schema: []byte(`[1`)}}}, `tools: has a schema of "a"`},
		"name of the schema":  {Request{Messages: said, Schema: &Schema{JSON: []byte(`{}`)}}, "schema.name: must be"},
		"schema":              {Request{Messages: said, Schema: &Schema{Name: "a", JSON: []byte(`null`)}}, "schema: must be a JSON object"},
		"result without call": {Request{Messages: []Message{{Role: ToolResult, ToolCallID: "x"}}}, `messages: has a result of the tool call "x"`},
		"image of nothing":    {Request{Messages: []Message{{Role: User, Images: []Image{{MediaType: "image/png"}}}}}, "messages: has an image without data"},
		"image without type":  {Request{Messages: []Message{{Role: User, Images: []Image{{Data: []byte("x")}}}}}, "messages: has an image without data"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := router.Complete(t.Context(), test.request)
			failure, failed := errors.AsType[*Error](err)
			if !failed || failure.Kind != Rejected || !strings.Contains(fmt.Sprint(failure.Cause), test.want) || first.count() != 0 {
				t.Errorf("Complete error = %v (%v), want %s", err, failure.Cause, test.want)
			}
		})
	}
}

func TestAnswersHaveTheirCost(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		dialect dialect
		model   string
		cost    string
	}{
		"Anthropic":        {anthropicDialect(), "claude-haiku-4-5-20251001", "0.000043300"},
		"Gemini":           {geminiDialect(), "gemini-2.5-flash", "0.000019990"},
		"an unknown model": {anthropicDialect(), "no-such-model", ""},
		"somebody else's":  {openAIDialect(), "gpt-5-mini", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := strings.ReplaceAll(test.dialect.text, "answering-model", test.model)
			response, err := test.dialect.router(t, newWire(t, says(http.StatusOK, jsonType, body)).URL, quiet).Complete(t.Context(), ask(nil))
			if err != nil {
				t.Fatal(err)
			}
			if test.cost == "" {
				if response.Cost != nil {
					t.Errorf("cost %+v, want none", *response.Cost)
				}
				return
			}
			if response.Cost == nil || response.Cost.Amount != test.cost || response.Cost.Currency != "USD" || response.Cost.PriceVersion == "" {
				t.Errorf("cost %+v, want %s", response.Cost, test.cost)
			}
		})
	}
}

func TestOpenAICompatibleEndpointsAnswerUnderTheirProvidersName(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"": "openai", "https://api.groq.com/openai/v1": "groq", "http://127.0.0.1:1/v1": "openai-compatible",
	} {
		router, err := New(Config{OpenAI: Endpoint{APIKey: testKey, BaseURL: url}, Models: []string{"m"}}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		if got := router.providers[openAIName].answers(openAIName); got != want {
			t.Errorf("%q answers as %s, want %s", url, got, want)
		}
	}
}
