package thread

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

func TestMain(m *testing.M) {
	if order := os.Getenv(killOrder); order != "" {
		fmt.Fprintln(os.Stderr, runUntilKilled(order))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m,
		// Process-wide clocks of the NATS server and client, without an end.
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.init.0.func1"),
	)
}

const namespace = "default"

// open starts a store on a journal of its own.
func open(t *testing.T, on journal.Config, cfg Config) *Store {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	j, err := journal.New(on, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s, err := New(cfg, j, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func inFolder(t *testing.T) journal.Config {
	t.Helper()
	return journal.Config{DataDir: t.TempDir()}
}

// run runs a thread with a saver of its own.
func (s *Store) run(
	ctx context.Context, g *graph.Graph, durability graph.Durability, r graph.Request,
) (graph.State, error) {
	saver := s.Saver(namespace, durability)
	state, err := g.Run(ctx, r, graph.Options{
		Saver: saver, OnlyEnds: durability == graph.Exit, RecursionLimit: 1000,
	})
	if errClose := saver.Close(ctx); err == nil {
		err = errClose
	}
	return state, err
}

func (s *Store) mustRun(t *testing.T, g *graph.Graph, durability graph.Durability, r graph.Request) graph.State {
	t.Helper()
	state, err := s.run(t.Context(), g, durability, r)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// history is all that is kept of a thread, newest first.
func (s *Store) history(t *testing.T, g *graph.Graph, thread string) []*graph.Checkpoint {
	t.Helper()
	saver := s.Saver(namespace, graph.Async)
	var all []*graph.Checkpoint
	for before := uint64(0); ; before = all[len(all)-1].Revision {
		page, err := g.History(t.Context(), saver, thread, before, 7)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
	}
}

// counting is a graph of so many steps, each of which appends its number to a list and
// adds to a text that has grown to so many bytes in the end. called is told of each call.
func counting(steps, bytes int, called func(step int)) *graph.Graph {
	text := make([]byte, bytes/steps)
	for i := range text {
		text[i] = 'x'
	}
	count := func(_ context.Context, _ *graph.Call, s graph.State) (graph.Command, error) {
		step := int(s["n"].(float64))
		called(step)
		command := graph.Command{Update: graph.State{"n": 1, "seen": step, "texts": string(text)}}
		if step < steps-1 {
			command.Goto = graph.To("count")
		}
		return command, nil
	}
	return graph.New("counting", map[string]graph.Channel{
		"n": {Reduce: graph.Add, Initial: 0}, "seen": {Reduce: graph.Append}, "texts": {Reduce: graph.Append},
	}).Node("count", graph.Node{Run: count}).Edge(graph.Start, "count")
}

// wantCounted checks that each step is in the state once, and in order.
func wantCounted(t *testing.T, state graph.State, steps int) {
	t.Helper()
	seen, _ := state["seen"].([]any)
	if len(seen) != steps || state["n"] != float64(steps) {
		t.Fatalf("state has %d of %d steps, n %v", len(seen), steps, state["n"])
	}
	for i, step := range seen {
		if step != float64(i) {
			t.Fatalf("place %d of the state is that of step %v", i, step)
		}
	}
}
