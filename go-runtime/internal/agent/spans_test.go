package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/otlptest"
	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
	"github.com/djangobridge/djangobridge/go-runtime/internal/telemetry"
	"github.com/djangobridge/djangobridge/go-runtime/internal/tool"
)

// TestSpansOfToolsAndNodes has a node of a graph call tools that succeed, refuse, break and wait.
func TestSpansOfToolsAndNodes(t *testing.T) {
	t.Parallel()
	receiver := otlptest.New(t)
	values := map[string]string{"LANGSMITH_ENDPOINT": receiver.URL}
	tracing, err := telemetry.New("test", func(name string) string { return values[name] }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	tracer := span.New(span.Config{Provider: tracing.Provider(), Content: span.Always, Redact: []string{"token"}})
	run := &span.Run{ID: "run-1", TaskType: "agent.run"}
	ctx, attempt := tracer.StartAttempt(t.Context(), tracer.Accept(t.Context(), run, nil), run)

	g := graph.New("tools", map[string]graph.Channel{"n": {}}).Edge(graph.Start, "work").Edge("work", "ask")
	g.Node("work", graph.Node{Run: func(ctx context.Context, node *graph.Call, _ graph.State) (graph.Command, error) {
		for name, call := range map[string]func(context.Context) (tool.Result, error){
			"works": func(context.Context) (tool.Result, error) {
				return tool.Result{Structured: []byte(`{"token":"S","n":1}`)}, nil
			},
			"refuses": func(context.Context) (tool.Result, error) { return tool.Result{Text: "no", Failed: true}, nil },
			"breaks":  func(context.Context) (tool.Result, error) { return tool.Result{}, errors.New("broken") },
			"waits":   func(context.Context) (tool.Result, error) { return tool.Result{}, node.Await("run-2") },
		} {
			_, _ = spanTool(ctx, name, "call-1", `{"token":"S","q":1}`, call)
		}
		return graph.Command{Update: graph.State{"n": 1}}, nil
	}})
	g.Node("ask", graph.Node{Run: func(_ context.Context, node *graph.Call, _ graph.State) (graph.Command, error) {
		_, err := node.Interrupt("sure?")
		return graph.Command{}, err
	}})
	if _, err := g.Run(ctx, graph.Request{Thread: "t", Input: graph.State{}}, graph.Options{}); err == nil {
		t.Error("the graph does not ask")
	}
	attempt.End(nil)
	if err := tracing.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	node := receiver.Named(t, "node work")
	for name, failure := range map[string]any{"works": nil, "refuses": "tool_failed", "breaks": "error", "waits": nil} {
		s := receiver.Named(t, "execute_tool "+name)
		if hex.EncodeToString(s.GetParentSpanId()) != hex.EncodeToString(node.GetSpanId()) {
			t.Errorf("%s is not under the node", name)
		}
		if s.Attributes["error.type"] != failure || s.Attributes["gen_ai.tool.call.id"] != "call-1" ||
			s.Attributes["gen_ai.tool.call.arguments"] != `{"q":1,"token":"[redacted]"}` {
			t.Errorf("%s: %v", name, s.Attributes)
		}
	}
	if result := receiver.Named(t, "execute_tool works").Attributes["gen_ai.tool.call.result"]; result != `{"n":1,"token":"[redacted]"}` {
		t.Errorf("result = %v", result)
	}
	if asks := receiver.Named(t, "node ask"); asks.Attributes["error.type"] != nil || asks.Attributes["agentruntime.graph"] != "tools" {
		t.Errorf("node that asks: %v", asks.Attributes)
	}
}
