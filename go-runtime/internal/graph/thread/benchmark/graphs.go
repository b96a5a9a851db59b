package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
)

// messageBytes is how long a message of the conversation is.
const messageBytes = 1000

// graphOf returns a graph of so many steps, the same as that of
// bench/peers/langgraph_driver.py. Its nodes tell the clock when they are called.
func graphOf(name string, steps int, c *clock) (*graph.Graph, error) {
	switch name {
	case "loop":
		return loop(steps, c), nil
	case "fanout":
		return fanOut(steps), nil
	case "conversation":
		return conversation(steps, c), nil
	default:
		return nil, fmt.Errorf("there is no graph %q", name)
	}
}

// clock has when the first node was called, and the last. It is for nodes that follow
// each other.
type clock struct{ first, last time.Time }

func (c *clock) tick() {
	c.last = time.Now()
	if c.first.IsZero() {
		c.first = c.last
	}
}

// answers are what the model says, one after the other.
func answers() []string {
	return []string{"look up the order", "the order is late", "write to the customer", "done"}
}

func node(run graph.Func) graph.Node { return graph.Node{Run: run} }

// loop is a model and its tool that follow each other.
func loop(steps int, c *clock) *graph.Graph {
	script := answers()
	return graph.New("loop", map[string]graph.Channel{"n": {Reduce: graph.Add, Initial: 0}, "text": {}}).
		Node("model", node(func(_ context.Context, _ *graph.Call, s graph.State) (graph.Command, error) {
			c.tick()
			said := int(s["n"].(float64)) //nolint:forcetypeassert // Add makes numbers
			return graph.Command{Update: graph.State{"n": 1.0, "text": script[said%len(script)]}}, nil
		})).
		Node("tool", node(func(context.Context, *graph.Call, graph.State) (graph.Command, error) {
			c.tick()
			return graph.Command{Update: graph.State{"n": 1.0}}, nil
		})).
		Edge(graph.Start, "model").
		Branch("model", whileFewer(steps, "tool")).
		Branch("tool", whileFewer(steps, "model"))
}

func whileFewer(steps int, next string) graph.Branch {
	return func(_ context.Context, s graph.State) ([]graph.Send, error) {
		if s["n"] == float64(steps) {
			return nil, nil
		}
		return graph.To(next), nil
	}
}

// fanOut sends items to as many tasks, and joins what they make.
func fanOut(steps int) *graph.Graph {
	return graph.New("fanout", map[string]graph.Channel{"n": {Reduce: graph.Add, Initial: 0}, "results": {Reduce: graph.Append}}).
		Branch(graph.Start, func(context.Context, graph.State) ([]graph.Send, error) {
			sends := make([]graph.Send, steps)
			for i := range sends {
				sends[i] = graph.Send{Node: "work", Input: graph.State{"item": float64(i)}}
			}
			return sends, nil
		}).
		Node("work", node(func(_ context.Context, _ *graph.Call, s graph.State) (graph.Command, error) {
			return graph.Command{Update: graph.State{"n": 1.0, "results": []any{s["item"]}}}, nil
		})).
		Node("join", node(func(context.Context, *graph.Call, graph.State) (graph.Command, error) {
			return graph.Command{}, nil
		})).
		Edge("work", "join")
}

// conversation adds one message in each step.
func conversation(steps int, c *clock) *graph.Graph {
	text := strings.Repeat("x", messageBytes)
	return graph.New("conversation", map[string]graph.Channel{"n": {Reduce: graph.Add, Initial: 0}, "messages": {Reduce: graph.Append}}).
		Node("say", node(func(context.Context, *graph.Call, graph.State) (graph.Command, error) {
			c.tick()
			return graph.Command{Update: graph.State{"n": 1.0, "messages": []any{text}}}, nil
		})).
		Edge(graph.Start, "say").
		Branch("say", whileFewer(steps, "say"))
}
