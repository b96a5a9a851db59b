package document

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"cel.dev/cel-go/cel"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Work is what a node of some kind does; what it returns is `out` in the node's `set`.
type Work func(ctx context.Context, call *graph.Call, state graph.State) (out any, err error)

// Kind makes the work of a node from its `with`. Its errors name the members at fault,
// as violations.
type Kind func(with With) (Work, error)

// Transform is the kind of nodes that only set channels.
func Transform(with With) (Work, error) {
	with.RefuseCache("is for nodes that do more than set channels")
	return func(context.Context, *graph.Call, graph.State) (any, error) { return nil, nil }, with.Check()
}

// Human is the kind of nodes that ask a person; what they come to is the answer. `ask` is
// the question, and `choices` are answers to choose from, if there are some.
func Human(with With) (Work, error) {
	with.RefuseCache("is not for nodes that ask a person: each run asks anew")
	ask := with.Text("ask")
	choices := with.List("choices")
	work := func(ctx context.Context, call *graph.Call, state graph.State) (any, error) {
		question, err := ask(ctx, state)
		if err != nil {
			return nil, err
		}
		asked := map[string]any{"question": question}
		if len(choices) > 0 {
			asked["choices"] = choices
		}
		return call.Interrupt(asked)
	}
	return work, with.Check()
}

// set is a channel with the expression that a node writes to it.
type set struct {
	channel string
	value   *expression
}

func (c *compiler) node(g *graph.Graph, name string) {
	place := "nodes." + name
	if !violation.IsName(name) || name == "START" || name == "END" {
		c.refusef(place, "must be called by letters, digits, dashes and underscores, and not START or END")
	}
	node := c.document.Nodes[name]
	kind, known := c.kinds[node.Kind]
	if !known {
		c.refusef(place+".kind", "there is no %q; there are %s", node.Kind, names(c.kinds))
		return
	}
	with := newWith(node.With)
	work, err := kind(with)
	if _, moved := violation.In(place+".with", err); err != nil {
		c.wrong = append(c.wrong, moved)
	}
	var sets []set
	for _, channel := range slices.Sorted(maps.Keys(node.Set)) {
		at := place + ".set." + channel
		if _, known := c.document.State[channel]; !known {
			c.refusef(at, "there is no channel %q; there are %s", channel, names(c.document.State))
		}
		sets = append(sets, set{channel, c.expression(at, node.Set[channel], anyType)})
	}
	policy := c.retry(place+".retry", node.Retry)
	if node.Timeout < 0 {
		c.refusef(place+".timeout", "must not be negative")
	}
	if node.Cache != nil && *with.uncached != "" {
		c.refusef(place+".cache", "%s", *with.uncached)
	}
	if why := *with.unrepeated; why != "" {
		if node.Timeout != 0 {
			c.refusef(place+".timeout", "%s", why)
		}
		if node.Retry != (Retry{}) {
			c.refusef(place+".retry", "%s", why)
		}
	}
	run := func(ctx context.Context, call *graph.Call, state graph.State) (graph.Command, error) {
		out, err := work(ctx, call, state)
		if err != nil {
			return graph.Command{}, err
		}
		update := make(graph.State, len(sets))
		for _, s := range sets {
			if update[s.channel], err = s.value.eval(ctx, state, out); err != nil {
				return graph.Command{}, fmt.Errorf("set %s: %w", s.channel, err)
			}
		}
		return graph.Command{Update: update}, nil
	}
	g.Node(name, graph.Node{
		Run: run, Timeout: node.Timeout, Cache: c.cache(place+".cache", node.Cache), Defer: node.Defer,
		Attempts: policy.Attempts, Backoff: policy.Backoff, MaxBackoff: policy.MaxBackoff, Jitter: policy.Jitter,
	})
}

// The bounds of a Retry.
const (
	maxAttempts = 100
	maxPause    = time.Hour
)

// retry returns a policy with the longest pause, and refuses one that has no end to speak of.
func (c *compiler) retry(place string, given Retry) Retry {
	if given.Attempts < 0 || given.Attempts > maxAttempts {
		c.refusef(place+".attempts", "must be 1 to %d, is %d", maxAttempts, given.Attempts)
	}
	if given.Backoff < 0 || given.Backoff > maxPause {
		c.refusef(place+".backoff", "must be 0s to %s, is %s", maxPause, given.Backoff)
	}
	if given.MaxBackoff < 0 || given.MaxBackoff > maxPause {
		c.refusef(place+".max_backoff", "must be 0s to %s, is %s", maxPause, given.MaxBackoff)
	}
	given.MaxBackoff = cmp.Or(given.MaxBackoff, maxPause)
	return given
}

// cache makes the policy of a node; nil: it has none.
func (c *compiler) cache(place string, given *Cache) *graph.CachePolicy {
	if given == nil {
		return nil
	}
	if given.TTL < 0 {
		c.refusef(place+".ttl", "must not be negative")
	}
	var depends *expression
	if given.Key != "" {
		depends = c.expression(place+".key", given.Key, anyType)
	}
	text := string(c.document.digest[:])
	key := func(ctx context.Context, state graph.State) (string, error) {
		var value any = state
		if depends != nil {
			var err error
			if value, err = depends.eval(ctx, state, nil); err != nil {
				return "", err
			}
		}
		encoded, err := json.Marshal(value)
		return text + string(encoded), err
	}
	return &graph.CachePolicy{Key: key, TTL: given.TTL}
}

// choice is a compiled Case.
type choice struct {
	when, each *expression
	to         string
}

func (c *compiler) branch(g *graph.Graph, from string) {
	cases := c.document.Branches[from]
	place := "branches." + from
	if len(cases) == 0 {
		c.refusef(place, "must have cases")
	}
	choices := make([]choice, len(cases))
	source := from
	for i, given := range cases {
		at := fmt.Sprintf("%s[%d]", place, i)
		source, choices[i].to = c.link(at, from, given.To)
		switch {
		case given.When != "":
			choices[i].when = c.expression(at+".when", given.When, cel.BoolType)
		case i != len(cases)-1:
			c.refusef(at, "always holds, so that the cases behind it never do: give it a when")
		}
		if given.Each != "" {
			choices[i].each = c.expression(at+".each", given.Each, anyType)
		}
	}
	g.Branch(source, func(ctx context.Context, state graph.State) ([]graph.Send, error) {
		for _, one := range choices {
			holds, err := one.holds(ctx, state)
			if err != nil {
				return nil, err
			}
			if holds {
				return one.sends(ctx, state)
			}
		}
		return nil, errors.New("no case holds: add one without when")
	})
}

func (o *choice) holds(ctx context.Context, state graph.State) (bool, error) {
	if o.when == nil {
		return true, nil
	}
	value, err := o.when.eval(ctx, state, nil)
	if err != nil {
		return false, err
	}
	holds, isBool := value.(bool)
	if !isBool {
		return false, fmt.Errorf("the condition gives %v, and must give true or false", value)
	}
	return holds, nil
}

func (o *choice) sends(ctx context.Context, state graph.State) ([]graph.Send, error) {
	if o.each == nil {
		return graph.To(o.to), nil
	}
	value, err := o.each.eval(ctx, state, nil)
	if err != nil {
		return nil, err
	}
	items, isList := value.([]any)
	if !isList {
		return nil, errors.New("each gives no list")
	}
	sends := make([]graph.Send, len(items))
	for i, item := range items {
		sends[i] = graph.Send{Node: o.to, Beside: graph.State{"item": item}}
	}
	return sends, nil
}

func (c *compiler) expression(place, raw string, want *cel.Type) *expression {
	e, err := newExpression(raw, want)
	if err != nil {
		c.refusef(place, "%s", err.Error())
	}
	return e
}

// Result is what a run returns that has left a state: as the document's output says,
// else the state.
func (c *Compiled) Result(ctx context.Context, state graph.State) (map[string]any, error) {
	if len(c.output) == 0 {
		return state, nil
	}
	result := make(map[string]any, len(c.output))
	for name, e := range c.output {
		value, err := e.eval(ctx, state, nil)
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", name, err)
		}
		result[name] = value
	}
	return result, nil
}
