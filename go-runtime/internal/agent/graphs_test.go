package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// responder answers as a function of the request says.
type responder struct {
	mu     sync.Mutex
	asked  []model.Request
	answer func(n int, r model.Request) (string, error)
}

func (*responder) Name() string  { return "scripted" }
func (*responder) Model() string { return "scripted-1" }

func (s *responder) Complete(_ context.Context, r model.Request) (model.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r)
	text, err := s.answer(len(s.asked), r)
	usage := model.Usage{InputTokens: 10, OutputTokens: 1, TotalTokens: 11}
	return model.Response{Text: text, Model: "scripted-1", Usage: usage}, err
}

// runGraph runs a task of the built-in ones, and returns its output and its events' types.
func runGraph(t *testing.T, provider model.Provider, task, input string) (output map[string]any, events []string, err error) {
	t.Helper()
	registry, err := New(Config{Provider: provider})
	if err != nil {
		t.Fatal(err)
	}
	work, err := registry.Resolve("default", engine.TaskTarget, "", task, []byte(input))
	if err != nil {
		return nil, nil, err
	}
	var mu sync.Mutex
	call := engine.Call{RunID: "run", TaskType: task, Input: []byte(input)}
	call.Emit = func(_ context.Context, added ...engine.NewEvent) error {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range added {
			if !json.Valid(e.Payload) || e.Visibility != engine.Debug {
				t.Errorf("event %+v", e)
			}
			events = append(events, e.Type)
		}
		return nil
	}
	call.Record = func(context.Context, string, []byte) error { return nil }
	text, err := work(t.Context(), call)
	if err != nil {
		return nil, events, err
	}
	if err := json.Unmarshal(text, &output); err != nil {
		t.Fatal(err)
	}
	return output, events, nil
}

func TestReasoningGraphDraftsUntilItsReviewIsFine(t *testing.T) {
	t.Parallel()
	provider := &responder{answer: func(n int, r model.Request) (string, error) {
		switch {
		case strings.HasPrefix(r.Instructions, "You plan"):
			return "the plan", nil
		case strings.HasPrefix(r.Instructions, "You review") && n < 5:
			return "too short", nil
		case strings.HasPrefix(r.Instructions, "You review"):
			return "FINE", nil
		}
		return fmt.Sprintf("draft %d", n), nil
	}}
	output, events, err := runGraph(t, provider, "langraph_task", `{"graph_id": "reasoning_graph", "input": "Why?"}`)
	if err != nil {
		t.Fatal(err)
	}
	said, _ := output["output"].(map[string]any)
	if said["answer"] != "draft 4" || said["plan"] != "the plan" || said["rounds"] != 2.0 || said["review"] != "FINE" {
		t.Errorf("output %v", said)
	}
	usage, _ := output["usage"].(map[string]any)
	if output["graph_id"] != "reasoning_graph" || output["offline"] != false || usage["total_tokens"] != 55.0 {
		t.Errorf("output %v", output)
	}
	// The second draft knows of the first one, and of its review.
	again := provider.asked[3].Messages[0].Text
	if !strings.Contains(again, "draft 2") || !strings.Contains(again, "too short") || !strings.Contains(again, "Why?") {
		t.Errorf("asked %q", again)
	}
	if n := len(events); n != 15 || events[1] != eventUsage || events[0] != "graph.node.started" || events[n-1] != "graph.node.finished" {
		t.Errorf("events %v", events)
	}
}

func TestReasoningGraphEndsWhereItsReviewNeverIsFine(t *testing.T) {
	t.Parallel()
	provider := &responder{answer: func(int, model.Request) (string, error) { return "no", nil }}
	output, _, err := runGraph(t, provider, "langgraph_task", `{"graph_id": "reasoning_graph", "input": "Why?"}`)
	if err != nil || output["output"].(map[string]any)["rounds"] != 3.0 {
		t.Errorf("%v, %v", output, err)
	}
}

func TestResearchChainAnswersItsQuestionsInParallel(t *testing.T) {
	t.Parallel()
	provider := &responder{answer: func(_ int, r model.Request) (string, error) {
		switch {
		case strings.HasPrefix(r.Instructions, "You prepare"):
			return "one?\n\n  \ntwo?\n", nil
		case strings.HasPrefix(r.Instructions, "You answer"):
			_, question, _ := strings.Cut(r.Messages[0].Text, "Question: ")
			return "yes to " + strings.TrimSpace(question), nil
		}
		return "all of " + r.Messages[0].Text, nil
	}}
	output, _, err := runGraph(t, provider, "langchain_task", `{"chain_id": "research_chain", "query": "tides"}`)
	if err != nil {
		t.Fatal(err)
	}
	said := output["output"].(map[string]any)
	want := []any{
		map[string]any{"answer": "yes to one?", "question": "one?"}, map[string]any{"answer": "yes to two?", "question": "two?"},
	}
	if !reflect.DeepEqual(said["findings"], want) {
		t.Errorf("findings %v", said["findings"])
	}
	if summary := said["summary"].(string); !strings.Contains(summary, "tides") || !strings.Contains(summary, "yes to two?") {
		t.Errorf("summary %q", summary)
	}
}

func TestGraphsAnswerOfflineAndSaySo(t *testing.T) {
	t.Parallel()
	offline, err := model.New(model.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for task, input := range map[string]string{
		"langraph_task":  `{"graph_id": "reasoning_graph", "input": "Why?"}`,
		"langchain_task": `{"chain_id": "research_chain", "query": "tides"}`,
	} {
		output, _, err := runGraph(t, offline, task, input)
		if err != nil || output["offline"] != true || output["notice"] != model.OfflineNotice {
			t.Errorf("%s: %v, %v", task, output, err)
		}
	}
}

func TestGraphThatThereIsNotIsRefused(t *testing.T) {
	t.Parallel()
	provider := &responder{}
	_, _, err := runGraph(t, provider, "langraph_task", `{"graph_id": "reasonin_graph", "input": ""}`)
	var unknown *UnknownGraphError
	if !errors.As(err, &unknown) || !slices.Contains(unknown.Known, "reasoning_graph") ||
		!strings.Contains(err.Error(), `did you mean "reasoning_graph"?`) {
		t.Error(err)
	}
	_, _, err = runGraph(t, provider, "langraph_task", `{"graph_id": "reasoning_graph", "question": ""}`)
	var unfit *violation.Error
	if !errors.As(err, &unfit) || unfit.Violations[0].Field != "input.question" {
		t.Error(err)
	}
	if _, _, err = runGraph(t, provider, "langraph_task", `{"input": ""}`); !errors.As(err, &unfit) {
		t.Error(err)
	}
}

func TestGraphWhoseModelFailsSaysWhere(t *testing.T) {
	t.Parallel()
	provider := &responder{answer: func(int, model.Request) (string, error) {
		return "", &model.Error{Kind: model.Unavailable, Model: "scripted-1"}
	}}
	_, _, err := runGraph(t, provider, "langraph_task", `{"graph_id": "reasoning_graph", "input": "Why?"}`)
	var failed *engine.TaskError
	if !errors.As(err, &failed) || failed.Reason != engine.ReasonModelFailed || !failed.Retryable ||
		!strings.HasPrefix(failed.Message, "node plan of graph reasoning_graph: ") {
		t.Error(err)
	}
}
