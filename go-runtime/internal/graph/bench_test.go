package graph

import (
	"context"
	"testing"
)

// steps is a graph of two nodes that follow each other so many times.
func steps(n float64) *Graph {
	follow := func(next string) Branch {
		return func(_ context.Context, s State) ([]Send, error) {
			if s["n"] == n {
				return nil, nil
			}
			return To(next), nil
		}
	}
	return New("steps", map[string]Channel{"n": {Reduce: Add, Initial: 0}, "text": {}}).
		Node("a", writes(State{"n": 1.0, "text": "look up the order"})).Node("b", writes(State{"n": 1.0})).
		Edge(Start, "a").Branch("a", follow("b")).Branch("b", follow("a"))
}

func BenchmarkNode(b *testing.B) {
	const count = 100
	g := steps(count)
	for name, saver := range map[string]func() Saver{
		"without checkpoints": func() Saver { return nil },
		"in memory":           func() Saver { return &Memory{} },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				o := Options{Saver: saver(), RecursionLimit: count + 1}
				if _, err := g.Run(b.Context(), Request{Thread: "t", Input: State{}}, o); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/count, "ns/node")
		})
	}
}

func BenchmarkFanOut(b *testing.B) {
	const count = 100
	sends := make([]Send, count)
	for i := range sends {
		sends[i] = Send{Node: "work", Input: State{"item": float64(i)}}
	}
	g := list().Node("work", does(func(_ context.Context, _ *Call, s State) (Command, error) {
		return Command{Update: State{"seen": []any{s["item"]}}}, nil
	})).Branch(Start, func(context.Context, State) ([]Send, error) { return sends, nil }).
		Node("join", writes(nil)).Edge("work", "join")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.Run(b.Context(), Request{Input: State{}}, Options{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/count, "ns/task")
}
