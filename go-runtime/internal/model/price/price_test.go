package price

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// What genai-prices computes, by scripts/export_prices.py.
func TestCostsAreThoseOfGenaiPrices(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Provider string    `json:"provider"`
		Model    string    `json:"model"`
		At       time.Time `json:"at"`
		Tokens   Tokens    `json:"tokens"`
		NanoUSD  *int64    `json:"nano_usd"`
	}
	if err := json.Unmarshal(text, &rows); err != nil {
		t.Fatal(err)
	}
	list := New()
	models, known := map[string]bool{}, map[string]bool{}
	for _, row := range rows {
		name := row.Provider + "/" + row.Model
		models[name] = true
		cost, ok := list.Cost(row.Provider, row.Model, row.Tokens, row.At)
		if ok != (row.NanoUSD != nil) {
			t.Errorf("%s has a cost: %t", name, ok)
			continue
		}
		if !ok {
			if cost != (Cost{}) {
				t.Errorf("%s has no cost, and %+v", name, cost)
			}
			continue
		}
		known[name] = true
		if cost.NanoUSD != *row.NanoUSD {
			t.Errorf("%s %+v at %s costs %d, want %d", name, row.Tokens, row.At, cost.NanoUSD, *row.NanoUSD)
		}
		if want := fmt.Sprintf("%.9f", float64(*row.NanoUSD)/1e9); cost.Amount != want || cost.Currency != "USD" {
			t.Errorf("%s costs %+v, want %s USD", name, cost, want)
		}
		if !strings.HasPrefix(cost.PriceVersion, "genai-prices ") {
			t.Errorf("price version %q", cost.PriceVersion)
		}
	}
	if len(known) < 20 || len(known) == len(models) {
		t.Errorf("%d of %d models have a cost; want 20 or more, and some that have none", len(known), len(models))
	}
}

func TestEveryProviderCanBeRead(t *testing.T) {
	t.Parallel()
	list := New().read()
	if len(list.Providers) < 40 || list.Version == "" {
		t.Errorf("%d providers of %q", len(list.Providers), list.Version)
	}
	for _, p := range list.Providers {
		if len(p.Models.read()) == 0 {
			t.Errorf("%s has no models", p.ID)
		}
	}
}

func TestPricesChangeWithTheDayAndWithTheLengthOfTheInput(t *testing.T) {
	t.Parallel()
	known := []*priced{{
		Match: clause{Starts: "m"},
		Prices: []rate{
			{Input: tiered{base: 1e9}, Output: tiered{base: 2e9}},
			{From: "2026-03-01", Input: tiered{base: 3e9, tiers: []tier{{Above: 10, Price: 5e9}, {Above: 20, Price: 7e9}}}},
		},
	}}
	list := &List{read: func() contents {
		return contents{"v", []provider{{ID: "p", Models: models{func() []*priced { return known }}}}}
	}}
	day := func(text string) time.Time {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for name, test := range map[string]struct {
		at     string
		tokens Tokens
		want   int64
	}{
		"before":              {"2026-02-28T23:59:59Z", Tokens{Input: 10, Output: 3}, 16_000},
		"in UTC":              {"2026-03-01T00:30:00+01:00", Tokens{Input: 10}, 10_000},
		"from that day":       {"2026-03-01T00:00:00Z", Tokens{Input: 10}, 30_000},
		"above a tier":        {"2026-03-02T00:00:00Z", Tokens{Input: 11}, 55_000},
		"above both":          {"2026-03-02T00:00:00Z", Tokens{Input: 21}, 147_000},
		"cached has no price": {"2026-03-02T00:00:00Z", Tokens{Input: 10, Cached: 4}, 30_000},
		"no price is free":    {"2026-03-02T00:00:00Z", Tokens{Input: 1, Output: 9}, 3_000},
		"more than int64":     {"2026-02-01T00:00:00Z", Tokens{Input: 1e11}, 1e14},
		"nonsense":            {"2026-02-01T00:00:00Z", Tokens{Input: -5, Cached: 7, Output: 2, Reasoning: -9}, 4_000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if cost, ok := list.Cost("p", "M-1", test.tokens, day(test.at)); !ok || cost.NanoUSD != test.want {
				t.Errorf("Cost = %+v, %t; want %d", cost, ok, test.want)
			}
		})
	}
}

func TestProviderIsToldByItsURL(t *testing.T) {
	t.Parallel()
	list := New()
	for url, want := range map[string]string{
		"https://api.groq.com/openai/v1":                                 "groq",
		"https://openrouter.ai/api/v1":                                   "openrouter",
		"https://generativelanguage.googleapis.com/v1beta/openai/":       "google",
		"http://127.0.0.1:11434/v1":                                      "",
		"http://evil.example/?u=https://api.groq.com":                    "",
		"https://api.openai.com/v1/":                                     "openai",
		"https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1":      "aws",
		"https://me.openai.azure.com/openai/v1":                          "azure",
		"https://router.huggingface.co/groq/openai/v1/chat/completions/": "huggingface_groq",
		"https://api.cloudflare.com/client/v4/accounts/abc/ai/v1":        "cloudflare",
	} {
		if got := list.Provider(url); got != want {
			t.Errorf("Provider(%q) = %q, want %q", url, got, want)
		}
	}
}

func FuzzCost(f *testing.F) {
	list := New()
	f.Add("openai", "gpt-5-mini-20250807", int64(1), int64(2), int64(3), int64(4))
	f.Add("google", "gemini-2.5-pro-tts-", int64(-1), int64(1<<62), int64(1<<62), int64(0))
	f.Fuzz(func(t *testing.T, provider, model string, input, cached, output, reasoning int64) {
		tokens := Tokens{Input: input, Cached: cached, Output: output, Reasoning: reasoning}
		cost, ok := list.Cost(provider, model, tokens, time.Unix(0, 0))
		if ok != (cost != Cost{}) {
			t.Errorf("Cost = %+v, %t", cost, ok)
		}
		if cost.NanoUSD < 0 {
			t.Errorf("%+v cost %+v", tokens, cost)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	for b.Loop() {
		if New().Provider("https://api.openai.com/v1/") == "" {
			b.Fatal("no prices")
		}
	}
}
