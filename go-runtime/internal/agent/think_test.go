package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
)

// scripted is a provider that answers with what it was given, in order.
type scripted struct {
	mu       sync.Mutex
	answers  []string
	err      error
	requests []model.Request
}

func (*scripted) Name() string  { return "scripted" }
func (*scripted) Model() string { return "script-1" }

func (s *scripted) Complete(_ context.Context, request model.Request) (model.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, request)
	if len(s.answers) == 0 {
		return model.Response{}, s.err
	}
	text := s.answers[0]
	s.answers = s.answers[1:]
	if request.Pieces != nil {
		for word := range strings.SplitAfterSeq(text, " ") {
			if err := request.Pieces(word); err != nil {
				return model.Response{}, err
			}
		}
	}
	return model.Response{
		Text: text, Model: "script-1", FinishReason: "stop",
		Usage: model.Usage{InputTokens: 10, OutputTokens: 5, TotalTokens: 15},
	}, nil
}

// generate runs generate_code of codegen_agent with a provider.
func generate(t *testing.T, provider model.Provider) ([]byte, error) {
	t.Helper()
	registry, err := New(Config{Provider: provider})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	call := engine.Call{
		RunID: "run-1", Attempt: 1, AgentID: "codegen_agent", TaskType: "generate_code",
		Input: []byte(`{"language":"python","task":"Add 12345678901234567890"}`),
	}
	task, err := registry.Resolve("default", engine.AgentTarget, call.AgentID, call.TaskType, call.Input)
	if err != nil {
		t.Fatalf("Resolve: %v", err)
	}
	return task(t.Context(), quietly(call))
}

// answerWith is a fitting answer but for the path of its file.
func answerWith(path string) string {
	return `{"summary":"s","explanation":"e","files":[{"path":"` + path + `","language":"python","content":"x = 1 < 2\n"}],"notes":[]}`
}

func TestThinkingReturnsTheAnswerAndItsOrigin(t *testing.T) {
	t.Parallel()
	provider := &scripted{answers: []string{answerWith("src/add.py")}}
	output, err := generate(t, provider)
	const want = `{"agent_id":"codegen_agent","cost_usd":null,"explanation":"e",` +
		`"files":[{"content":"x = 1 < 2\n","language":"python","path":"src/add.py"}],` +
		`"model":"script-1","notes":[],"offline":false,"summary":"s","task_type":"generate_code",` +
		`"usage":{"input_tokens":10,"output_tokens":5,"total_tokens":15}}`
	if err != nil || string(output) != want {
		t.Errorf("output\n got: %s, %v\nwant: %s", output, err, want)
	}
	asked := provider.requests[0]
	const question = `{"task_type":"generate_code","input":{"language":"python","task":"Add 12345678901234567890"}}`
	if len(asked.Messages) != 1 || asked.Messages[0].Text != question {
		t.Errorf("asked %v, want %s", asked.Messages, question)
	}
	for _, part := range []string{"one of the agents", "code generation agent", "Task type `generate_code`"} {
		if !strings.Contains(asked.Instructions, part) {
			t.Errorf("instructions lack %q", part)
		}
	}
	if asked.Schema == nil || asked.Schema.Name != "generate_code" || !json.Valid(asked.Schema.JSON) {
		t.Errorf("schema = %+v", asked.Schema)
	}
}

func TestThinkingLetsTheModelRepairOnce(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ first, mistake string }{
		"no JSON":        {"I made add.py.", "answer: is not valid JSON"},
		"missing field":  {`{"summary":"s","explanation":"e","files":[]}`, "answer.notes: is required"},
		"extra field":    {`{"summary":"s","explanation":"e","files":[],"notes":[],"mood":"good"}`, "answer.mood: is not a field of this input"},
		"wrong type":     {`{"summary":"s","explanation":"e","files":{},"notes":[]}`, "answer.files: must be an array, is an object"},
		"path escapes":   {answerWith("../add.py"), "answer.files[0].path: must be a relative path"},
		"path is rooted": {answerWith("/etc/passwd"), "answer.files[0].path: must be a relative path"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			provider := &scripted{answers: []string{test.first, answerWith("add.py")}}
			output, err := generate(t, provider)
			if err != nil || !strings.Contains(string(output), `"total_tokens":30`) {
				t.Fatalf("output = %s, %v; want the repair, and the tokens of both answers", output, err)
			}
			messages := provider.requests[1].Messages
			if len(messages) != 3 || !reflect.DeepEqual(messages[1], model.Message{Role: model.Assistant, Text: test.first}) {
				t.Fatalf("the repair was asked with %v", messages)
			}
			if !strings.Contains(messages[2].Text, test.mistake) {
				t.Errorf("the repair was asked with %q, which lacks %q", messages[2].Text, test.mistake)
			}
		})
	}
}

func TestThinkingFailsAfterABadRepair(t *testing.T) {
	t.Parallel()
	provider := &scripted{answers: []string{"no", `{"secret": 1}`, answerWith("add.py")}}
	_, err := generate(t, provider)
	var failure *engine.TaskError
	if !errors.As(err, &failure) || failure.Reason != engine.ReasonModelFailed || !failure.Retryable {
		t.Fatalf("error = %#v, want a retryable MODEL_FAILED", err)
	}
	const want = "the answer of model script-1 does not fit its schema, nor does its repair (5 mistakes)"
	if failure.Message != want || len(provider.requests) != 2 {
		t.Errorf("message %q after %d requests; want %q after 2", failure.Message, len(provider.requests), want)
	}
}

func TestThinkingReportsTheModelsFailure(t *testing.T) {
	t.Parallel()
	cause := errors.New("the cause is for the log")
	tests := map[string]struct {
		answers   []string
		err       error
		message   string
		retryable bool
		after     time.Duration
	}{
		"rate limited": {
			nil,
			&model.Error{Kind: model.RateLimited, Model: "m", StatusCode: 429, RetryAfter: 20 * time.Second, Cause: cause},
			"model m is rate limited by its provider (HTTP 429); retry after 20s",
			true,
			20 * time.Second,
		},
		"asks for more than an hour": {
			nil,
			&model.Error{Kind: model.Unavailable, Model: "m", StatusCode: 503, RetryAfter: 48 * time.Hour, Cause: cause},
			"model m is unavailable: its endpoint cannot be reached, failed, or took too long (HTTP 503); retry after 48h0m0s",
			true,
			time.Hour,
		},
		"bad key": {
			nil,
			&model.Error{Kind: model.Unauthorized, Model: "m", StatusCode: 401, Cause: cause},
			"model m cannot be asked: its endpoint does not accept the API key (HTTP 401)",
			false,
			0,
		},
		"in the repair": {
			[]string{"no"},
			&model.Error{Kind: model.Truncated, Model: "m", Cause: cause},
			"model m was cut short: the answer is longer than its token limit",
			false,
			0,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := generate(t, &scripted{answers: test.answers, err: fmt.Errorf("asked: %w", test.err)})
			var failure *engine.TaskError
			if !errors.As(err, &failure) || failure.Reason != engine.ReasonModelFailed {
				t.Fatalf("error = %v, want MODEL_FAILED", err)
			}
			if failure.Message != test.message || failure.Retryable != test.retryable || failure.RetryAfter != test.after ||
				!errors.Is(err, cause) {
				t.Errorf("failure = %+v; want %q, retryable %t after %s", failure, test.message, test.retryable, test.after)
			}
		})
	}
}

func TestThinkingPassesTheEndOfItsContextOn(t *testing.T) {
	t.Parallel()
	_, err := generate(t, &scripted{err: context.Canceled})
	if failure := new(engine.TaskError); !errors.Is(err, context.Canceled) || errors.As(err, &failure) {
		t.Errorf("error = %v, want context.Canceled as it is", err)
	}
}

func TestPathProblem(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{
		"a.py": true, "src/a/b.tsx": true, ".gitignore": true, "a b/ä.md": true, "...": true,
		"": false, ".": false, "..": false, "../a": false, "a/../b": false, "a/./b": false, "a//b": false, "a/": false,
		"/a": false, `a\b`: false, `..\a`: false, "C:/a": false, "a\x00b": false, "a\nb": false, "\xff": false,
		strings.Repeat("a", maxPath): true, strings.Repeat("a", maxPath+1): false,
	}
	for path, good := range tests {
		if problem := pathProblem(path); (problem == "") != good {
			t.Errorf("pathProblem(%q) = %q, want good = %t", path, problem, good)
		}
	}
}

func TestCheckFilesRefusesAPathGivenTwice(t *testing.T) {
	t.Parallel()
	unfit := checkFiles([]byte(`{"files":[{"path":"a"},{"path":"b"},{"path":"a"}]}`))
	if unfit == nil || unfit.Error() != "answer.files[2].path: is that of an earlier file" {
		t.Errorf("checkFiles = %v", unfit)
	}
}
