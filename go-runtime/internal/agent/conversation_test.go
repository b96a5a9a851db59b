package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// said collects what a call emits.
type said struct {
	mu     sync.Mutex
	events []engine.NewEvent
	// heard gets a copy of each, unless it is nil.
	heard chan engine.NewEvent
	err   error
}

func (s *said) emit(_ context.Context, events ...engine.NewEvent) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, events...)
	if s.heard != nil {
		for _, ev := range events {
			s.heard <- ev
		}
	}
	return s.err
}

// texts joins the contents of the events of a type.
func (s *said) texts(t *testing.T, eventType string) (count int, text string) {
	t.Helper()
	var all strings.Builder
	for _, ev := range s.events {
		if ev.Type != eventType {
			continue
		}
		var payload map[string]string
		if err := json.Unmarshal(ev.Payload, &payload); err != nil || len(payload) != 1 || ev.Visibility != "" {
			t.Fatalf("event %+v: %v", ev, err)
		}
		count++
		all.WriteString(payload["content"])
	}
	return count, all.String()
}

// talk resolves agent.run of an agent with a provider, and runs it.
func talk(t *testing.T, provider model.Provider, agentID, input string, out *said) ([]byte, error) {
	t.Helper()
	registry, err := New(Config{Provider: provider})
	if err != nil {
		t.Fatal(err)
	}
	call := engine.Call{RunID: "run-1", Attempt: 1, AgentID: agentID, TaskType: conversationTask, Input: []byte(input), Emit: out.emit}
	task, err := registry.Resolve("default", engine.AgentTarget, agentID, conversationTask, call.Input)
	if err != nil {
		t.Fatalf("Resolve: %v", err)
	}
	return task(t.Context(), quietly(call))
}

func TestAgentAnswersAConversation(t *testing.T) {
	t.Parallel()
	provider := &scripted{answers: []string{"Use a <button> element."}}
	out := &said{}
	output, err := talk(t, provider, "frontend_agent", `{"messages": [
		{"role": "system", "content": "Be brief."},
		{"role": "user", "content": "Hello"},
		{"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]},
		{"role": "tool", "tool_call_id": "1", "content": "42"},
		{"role": "assistant", "content": "Hi!"},
		{"role": "user", "content": [{"type": "text", "text": "A button,"}, {"type": "text", "text": "please."}], "name": "ada"}
	], "params": {"tone": "kind"}}`, out)
	const want = `{"final_output":{"response":"Use a <button> element."},` +
		`"final_messages":[{"role":"assistant","content":"Use a <button> element."}],` +
		`"usage":{"input_tokens":10,"output_tokens":5,"total_tokens":15},"metadata":{"cost_usd":null,"model":"script-1","offline":false,"price_version":null}}`
	if err != nil || string(output) != want {
		t.Errorf("output\n got: %s, %v\nwant: %s", output, err, want)
	}
	asked := provider.requests[0]
	messages := []model.Message{{Role: model.User, Text: "Hello"}, {Role: model.Assistant, Text: "Hi!"}, {Role: model.User, Text: "A button,\nplease."}}
	if !reflect.DeepEqual(asked.Messages, messages) || asked.Schema != nil || asked.Pieces == nil {
		t.Errorf("asked %+v", asked)
	}
	for _, part := range []string{"take part in a conversation", "You are the frontend agent", "\n\nBe brief."} {
		if !strings.Contains(asked.Instructions, part) {
			t.Errorf("instructions lack %q", part)
		}
	}
	if count, text := out.texts(t, eventMessage); count != 1 || text != "Use a <button> element." {
		t.Errorf("%d messages: %q", count, text)
	}
	if last := out.events[len(out.events)-1]; last.Type != eventMessage {
		t.Errorf("the last event is %s", last.Type)
	}
	if count, text := out.texts(t, eventDelta); count == 0 || text != "Use a <button> element." {
		t.Errorf("%d deltas: %q", count, text)
	}
}

func TestAgentAnswersAConversationOffline(t *testing.T) {
	t.Parallel()
	provider, err := model.New(model.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, agentID := range sortedKeys(newRegistry(t).agents) {
		out := &said{}
		output, err := talk(t, provider, agentID, `{"messages": [{"role": "user", "content": "How so?"}]}`, out)
		var answer runOutput
		if err != nil || json.Unmarshal(output, &answer) != nil {
			t.Fatalf("%s: %s, %v", agentID, output, err)
		}
		want := model.OfflineNotice + "\n\nYou said to " + agentID + ": How so?"
		if answer.FinalOutput["response"] != want || answer.Metadata["offline"] != true || answer.Metadata["model"] != "offline" {
			t.Errorf("%s: %+v", agentID, answer)
		}
		if count, text := out.texts(t, eventDelta); count == 0 || text != want {
			t.Errorf("%s: %d deltas: %q", agentID, count, text)
		}
	}
}

func TestAgentDoesATaskOfAConversation(t *testing.T) {
	t.Parallel()
	provider := &scripted{answers: []string{
		`{"summary":"It adds.","explanation":"With +.","files":[{"path":"docs/add.md","language":"markdown","content":"` +
			"```python\\nx = 1\\n```" + `\n"}],"notes":["Integers only."]}`,
	}}
	out := &said{}
	output, err := talk(t, provider, "codegen_agent", `{
		"messages": [{"role": "user", "content": "Add 12345678901234567890"}],
		"params": {"task_type": "generate_code", "input": {"language": "python"}}
	}`, out)
	if err != nil {
		t.Fatal(err)
	}
	const question = `{"task_type":"generate_code","input":{"language":"python","task":"Add 12345678901234567890"}}`
	if asked := provider.requests[0]; asked.Messages[0].Text != question || asked.Schema == nil {
		t.Errorf("asked %v, want %s", asked.Messages, question)
	}
	var answer runOutput
	if err := json.Unmarshal(output, &answer); err != nil {
		t.Fatal(err)
	}
	const text = "It adds.\n\nWith +.\n\n`docs/add.md`\n\n````markdown\n```python\nx = 1\n```\n````\n\n- Integers only."
	if answer.FinalOutput["response"] != text || answer.FinalMessages[0].Content != text {
		t.Errorf("response\n got: %q\nwant: %q", answer.FinalOutput["response"], text)
	}
	if answer.FinalOutput["summary"] != "It adds." || answer.FinalOutput["task_type"] != "generate_code" || answer.Usage.(map[string]any)["total_tokens"] != 15.0 {
		t.Errorf("output %v, usage %v", answer.FinalOutput, answer.Usage)
	}
	if count, message := out.texts(t, eventMessage); count != 1 || message != text || len(out.events) != 2 || out.events[0].Type != eventUsage {
		t.Errorf("events %v", out.events)
	}
}

func TestEveryTaskCanBeDoneInAConversation(t *testing.T) {
	t.Parallel()
	registry := newRegistry(t)
	for name, test := range offlineCases(t, registry) {
		input, err := json.Marshal(map[string]any{
			"messages": []any{}, "params": map[string]any{"task_type": test.taskType, "input": json.RawMessage(test.input)},
		})
		if err != nil {
			t.Fatal(err)
		}
		alone := run(t, registry, engine.AgentTarget, engine.Call{AgentID: test.agentID, TaskType: test.taskType, Input: []byte(test.input)})
		output := run(t, registry, engine.AgentTarget, engine.Call{
			AgentID: test.agentID, TaskType: conversationTask, Input: input, Emit: discard,
		})
		made, _ := output["final_output"].(map[string]any)
		text, _ := made["response"].(string)
		if made["explanation"] != alone["explanation"] || !strings.Contains(text, model.OfflineNotice) || strings.Contains(text, "no value") {
			t.Errorf("%s: %v", name, output)
		}
		for _, file := range outputFiles(alone) {
			if !strings.Contains(text, "`"+file.path+"`") {
				t.Errorf("%s: the message lacks %s", name, file.path)
			}
		}
	}
}

func TestConversationsThatCannotBeAnsweredAreRefusedByName(t *testing.T) {
	t.Parallel()
	registry := newRegistry(t)
	const user = `"messages": [{"role": "user", "content": "a"}]`
	for name, test := range map[string]struct {
		input string
		want  []string
	}{
		"no messages":      {`{}`, []string{"input.messages: is required"}},
		"none of the user": {`{"messages": []}`, []string{"input.messages: must have a message of the user with text"}},
		"without text": {
			`{"messages": [{"role": "user", "content": " "}, {"role": "assistant", "content": "b"}]}`,
			[]string{"input.messages: must have a message of the user with text"},
		},
		"no list": {`{"messages": "a"}`, []string{"input.messages: must be an array, is a string"}},
		"no role": {`{"messages": [{"content": "a"}]}`, []string{"input.messages[0].role: is required"}},
		"another role": {
			`{"messages": [{"role": "user", "content": "a"}, {"role": "boss", "content": "a"}]}`,
			[]string{`input.messages[1].role: must be one of "system", "developer", "user", "assistant", "tool"`},
		},
		"a number": {
			`{"messages": [{"role": "user", "content": 7}]}`,
			[]string{"input.messages[0].content: must be a string or an array or null, is a number"},
		},
		"an image": {
			`{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}`,
			[]string{"input.messages[0].content[0].text: is required", `input.messages[0].content[0].type: must be "text"`},
		},
		"another field":   {`{` + user + `, "question": "a"}`, []string{"input.question: is not a field of this input"}},
		"params":          {`{` + user + `, "params": []}`, []string{"input.params: must be an object, is an array"}},
		"task type":       {`{` + user + `, "params": {"task_type": 7}}`, []string{"input.params.task_type: must be a string, is a number"}},
		"of another":      {`{` + user + `, "params": {"task_type": "plan_work"}}`, []string{"input.params.task_type: is no task type of agent codegen_agent; known are explain_code, generate_code, write_tests"}},
		"mistyped":        {`{` + user + `, "params": {"task_type": "write_test"}}`, []string{`input.params.task_type: is no task type of agent codegen_agent (did you mean "write_tests"?); known are explain_code, generate_code, write_tests`}},
		"itself":          {`{` + user + `, "params": {"task_type": "agent.run"}}`, []string{"input.params.task_type: is no task type of agent codegen_agent; known are explain_code, generate_code, write_tests"}},
		"lacks two":       {`{` + user + `, "params": {"task_type": "generate_code"}}`, []string{"input.params.input.language: is required", "input.params.input.task: is required"}},
		"no message":      {`{"messages": [], "params": {"task_type": "explain_code"}}`, []string{"input.params.input.code: is required"}},
		"of its input":    {`{` + user + `, "params": {"task_type": "explain_code", "input": {"cod": "b"}}}`, []string{"input.params.input.cod: is not a field of this input"}},
		"input no object": {`{` + user + `, "params": {"task_type": "explain_code", "input": "b"}}`, []string{"input.params.input: must be an object, is a string"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task, err := registry.Resolve("default", engine.AgentTarget, "codegen_agent", conversationTask, []byte(test.input))
			var unfit *violation.Error
			if task != nil || !errors.As(err, &unfit) {
				t.Fatalf("Resolve = %v, %v; want a *violation.Error", task != nil, err)
			}
			if want := strings.Join(test.want, "; "); err.Error() != want {
				t.Errorf("refused\n got: %s\nwant: %s", err, want)
			}
		})
	}
}

func TestConversationReportsTheModelsFailure(t *testing.T) {
	t.Parallel()
	const input = `{"messages": [{"role": "user", "content": "a"}]}`
	out := &said{}
	_, err := talk(t, &scripted{err: &model.Error{Kind: model.RateLimited, Model: "m"}}, "codegen_agent", input, out)
	var failure *engine.TaskError
	if !errors.As(err, &failure) || failure.Reason != engine.ReasonModelFailed || !failure.Retryable || len(out.events) != 0 {
		t.Errorf("error = %#v, events %v", err, out.events)
	}
	lost := &said{err: engine.ErrLeaseLost}
	if _, err := talk(t, &scripted{answers: []string{"b"}}, "codegen_agent", input, lost); !errors.Is(err, engine.ErrLeaseLost) {
		t.Errorf("error = %v, want that of the event", err)
	}
}

// TestCancelEndsTheCallOfTheModel has a provider's server say a word and then nothing more.
func TestCancelEndsTheCallOfTheModel(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write([]byte(`data: {"choices":[{"index":0,"delta":{"content":"Well"}}]}` + "\n\n"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(gone)
	}))
	defer server.Close()
	provider, err := model.New(model.Config{OpenAI: model.Endpoint{BaseURL: server.URL + "/v1"}, Models: []string{"m"}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	registry, err := New(Config{Provider: provider})
	if err != nil {
		t.Fatal(err)
	}
	input := []byte(`{"messages": [{"role": "user", "content": "a"}]}`)
	task, err := registry.Resolve("default", engine.AgentTarget, "codegen_agent", conversationTask, input)
	if err != nil {
		t.Fatal(err)
	}
	cancelled := errors.New("cancelled")
	ctx, cancel := context.WithCancelCause(t.Context())
	out := &said{heard: make(chan engine.NewEvent, 10)}
	ended := make(chan error, 1)
	go func() {
		_, err := task(ctx, quietly(engine.Call{AgentID: "codegen_agent", TaskType: conversationTask, Input: input, Emit: out.emit}))
		ended <- err
	}()
	if ev := <-out.heard; ev.Type != eventDelta || string(ev.Payload) != `{"content":"Well"}` {
		t.Fatalf("event %s %s", ev.Type, ev.Payload)
	}
	cancel(cancelled)
	<-gone
	if err := <-ended; !errors.Is(err, cancelled) {
		t.Errorf("error = %v, want the cause of the cancellation", err)
	}
	if len(out.events) != 1 {
		t.Errorf("events %v", out.events)
	}
}
