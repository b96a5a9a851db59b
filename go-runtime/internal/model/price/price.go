// Package price says what the answers of language models cost, by the list of
// genai-prices that scripts/export_prices.py wrote beside it.
package price

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"math/big"
	"regexp"
	"strings"
	"sync"
	"time"
)

//go:embed prices.json
var exported []byte

// Tokens are what an answer took.
type Tokens struct {
	// Input are all that were sent, Cached those of them that the provider had cached.
	Input  int64 `json:"input"`
	Cached int64 `json:"cached"`
	// Output are all that came back, Reasoning those of them that nobody sees.
	Output    int64 `json:"output"`
	Reasoning int64 `json:"reasoning"`
}

// Cost is what an answer costs at list prices.
type Cost struct {
	// Amount is in Currency, as a decimal number with nine digits after the point.
	Amount   string `json:"amount"`
	Currency string `json:"currency"`
	// PriceVersion names the list.
	PriceVersion string `json:"price_version"`
	// NanoUSD is the amount in billionths of a dollar.
	NanoUSD int64 `json:"-"`
}

// List is what is charged for tokens. It does not change, and is safe for concurrent use.
type List struct {
	// read is not called by a runtime that asks no model.
	read func() contents
}

type contents struct {
	Version   string     `json:"version"`
	Providers []provider `json:"providers"`
}

// New returns the list that is part of the program.
func New() *List {
	return &List{read: sync.OnceValue(func() contents {
		var list contents
		// What is embedded was read by the tests. A list that cannot be read has no prices.
		if err := json.Unmarshal(exported, &list); err != nil {
			return contents{}
		}
		return list
	})}
}

// Provider returns who serves the API at a URL, as the list names it; empty: nobody who is known.
func (l *List) Provider(url string) string {
	for _, p := range l.read().Providers {
		if p.API.MatchString(url) {
			return p.ID
		}
	}
	return ""
}

// Cost returns what the tokens of an answer cost that a provider gave at a time,
// by the model's name in its answer. It is false for a model whose price is not
// known, or depends on more than its tokens: such a cost is not zero.
//
// Writing to a provider's cache is charged as input, as nothing asks for it.
func (l *List) Cost(providerID, model string, tokens Tokens, at time.Time) (Cost, bool) {
	list := l.read()
	found := list.provider(providerID)
	if found == nil {
		return Cost{}, false
	}
	priced := list.find(found, strings.ToLower(model))
	if priced == nil || len(priced.Prices) == 0 {
		return Cost{}, false
	}
	nano, sane := priced.at(at).charge(tokens)
	if !sane {
		return Cost{}, false
	}
	return Cost{
		Amount:       fmt.Sprintf("%d.%09d", nano/1e9, nano%1e9),
		Currency:     "USD",
		PriceVersion: list.Version,
		NanoUSD:      nano,
	}, true
}

func (c contents) provider(id string) *provider {
	for i := range c.Providers {
		if c.Providers[i].ID == id {
			return &c.Providers[i]
		}
	}
	return nil
}

// find returns the provider's model of a name, or that of a provider whose models
// it serves too. Dates are found with and without dashes.
func (c contents) find(p *provider, name string) *priced {
	for _, spelled := range []string{name, compactDate.ReplaceAllString(name, "-$1-$2-$3$4")} {
		if found := p.find(spelled); found != nil {
			return found
		}
		for _, id := range p.Fallback {
			if other := c.provider(id); other != nil {
				if found := other.find(spelled); found != nil {
					return found
				}
			}
		}
	}
	return nil
}

// compactDate is a date without dashes, as some gateways write it.
var compactDate = regexp.MustCompile(`-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(-|:|$)`)

type provider struct {
	ID       string   `json:"id"`
	API      anchored `json:"api"`
	Models   models   `json:"models"`
	Fallback []string `json:"fallback"`
}

func (p *provider) find(name string) *priced {
	for _, m := range p.Models.read() {
		if m.Match.fits(name) {
			return m
		}
	}
	return nil
}

// models are read when one of them is looked for: a runtime asks few of the providers.
type models struct{ read func() []*priced }

// UnmarshalJSON implements json.Unmarshaler.
func (m *models) UnmarshalJSON(text []byte) error {
	kept := bytes.Clone(text)
	m.read = sync.OnceValue(func() []*priced {
		var list []*priced
		if err := json.Unmarshal(kept, &list); err != nil {
			return nil
		}
		return list
	})
	return nil
}

// priced is a model. Without prices it is there so that its name is not taken for another's.
type priced struct {
	Match  clause `json:"match"`
	Prices []rate `json:"prices"`
}

// at returns the prices of a time: the last that have begun, or the first.
func (p *priced) at(when time.Time) rate {
	day := when.UTC().Format(time.DateOnly)
	for i := len(p.Prices) - 1; i > 0; i-- {
		if p.Prices[i].From <= day {
			return p.Prices[i]
		}
	}
	return p.Prices[0]
}

// rate is prices in billionths of a dollar for a million tokens. What has none is
// charged as the rest.
type rate struct {
	// From is the day on which they begin, empty if there is none.
	From      string `json:"from"`
	Input     tiered `json:"input"`
	Output    tiered `json:"output"`
	Cached    tiered `json:"cached"`
	Reasoning tiered `json:"reasoning"`
}

// charge returns billionths of a dollar, rounded. It is false for counts that nobody could pay.
func (r rate) charge(tokens Tokens) (int64, bool) {
	sum := new(big.Int)
	add := func(price tiered, n int64) {
		if n > 0 {
			sum.Add(sum, new(big.Int).Mul(big.NewInt(price.of(tokens.Input)), big.NewInt(n)))
		}
	}
	split := func(whole, part int64, priceOfRest, priceOfPart tiered) {
		if !priceOfPart.known {
			part = 0
		}
		part = max(0, min(part, whole))
		add(priceOfRest, whole-part)
		add(priceOfPart, part)
	}
	split(tokens.Input, tokens.Cached, r.Input, r.Cached)
	split(tokens.Output, tokens.Reasoning, r.Output, r.Reasoning)
	sum.Add(sum, big.NewInt(500_000))
	sum.Div(sum, big.NewInt(1_000_000))
	return sum.Int64(), sum.IsInt64()
}

// tiered is a price that may depend on how many tokens are sent.
type tiered struct {
	known bool
	base  int64
	tiers []tier
}

type tier struct {
	Above int64 `json:"above"`
	Price int64 `json:"price"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *tiered) UnmarshalJSON(text []byte) error {
	var whole struct {
		Base  int64  `json:"base"`
		Tiers []tier `json:"tiers"`
	}
	if text[0] != '{' {
		t.known = true
		return json.Unmarshal(text, &t.base)
	}
	if err := json.Unmarshal(text, &whole); err != nil {
		return err
	}
	t.known, t.base, t.tiers = true, whole.Base, whole.Tiers
	return nil
}

// of returns the price of every token of a request with so much input.
func (t tiered) of(input int64) int64 {
	price := t.base
	for _, tier := range t.tiers {
		if input > tier.Above {
			price = tier.Price
		}
	}
	return price
}
