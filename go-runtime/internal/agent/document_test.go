package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/propagation"

	"github.com/djangobridge/djangobridge/go-runtime/internal/definition"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/tool"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// acting is a provider whose answers a function makes of requests.
type acting struct {
	act func(r model.Request) model.Response

	mu    sync.Mutex
	asked []model.Request
}

func (*acting) Name() string  { return "scripted" }
func (*acting) Model() string { return "scripted-1" }

func (a *acting) Complete(_ context.Context, r model.Request) (model.Response, error) {
	a.mu.Lock()
	a.asked = append(a.asked, r)
	a.mu.Unlock()
	response := a.act(r)
	response.Model, response.Usage = "scripted-1", model.Usage{InputTokens: 10, OutputTokens: 1, TotalTokens: 11}
	if r.Pieces != nil && response.Text != "" {
		return response, r.Pieces(response.Text)
	}
	return response, nil
}

// calls is an answer that calls tools: name and arguments by turns.
func calls(of ...string) model.Response {
	var response model.Response
	for call := range slices.Chunk(of, 2) {
		id := fmt.Sprintf("call-%d", len(response.ToolCalls))
		response.ToolCalls = append(response.ToolCalls, model.ToolCall{ID: id, Name: call[0], Arguments: call[1]})
	}
	return response
}

// last is the text of the last message of a request, and whether a tool gave it.
func last(r model.Request) (text string, isResult bool) {
	m := r.Messages[len(r.Messages)-1]
	return m.Text, m.Role == model.ToolResult
}

// results are the texts of what tools gave, in order; of a failure behind "failed: ".
func results(r model.Request) (texts []string) {
	for _, m := range r.Messages {
		switch {
		case m.Role != model.ToolResult:
		case m.Failed:
			texts = append(texts, "failed: "+m.Text)
		default:
			texts = append(texts, m.Text)
		}
	}
	return texts
}

// defining is a registry that has agents and graphs as data besides, whose tools may go to
// the servers that they name.
func defining(t *testing.T, provider model.Provider, documents ...string) *Registry {
	t.Helper()
	return definingWith(t, provider, nil, documents...)
}

// definingWith is defining with a long-term store for each namespace.
func definingWith(
	t *testing.T, provider model.Provider, keeps func(namespace string) graph.Store, documents ...string,
) *Registry {
	t.Helper()
	return definingTools(t, provider, Tooling{MCP: noServers{}, Store: keeps}, documents...)
}

// definingTools is defining with servers of tools.
func definingTools(t *testing.T, provider model.Provider, tooling Tooling, documents ...string) *Registry {
	t.Helper()
	reach := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindAllString(strings.Join(documents, ""), -1)
	web, err := tool.NewWeb(tool.WebConfig{Prefixes: reach, Propagator: propagation.TraceContext{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(web.Stop)
	tooling.Web, tooling.Runner = web, tool.NewRunner(tool.Config{}, slog.New(slog.DiscardHandler))
	var all builtIns
	for _, text := range documents {
		kind := definition.Agent
		if strings.Contains(text, "\nnodes:") {
			kind = definition.Graph
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(text), "name: "), "\n")
		all = append(all, definition.Definition{Kind: kind, Name: name, Version: definition.VersionOf([]byte(text)), Text: []byte(text)})
	}
	r, err := New(Config{Provider: provider, Definitions: all, Tooling: tooling})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if _, err := r.Check("default", d.Kind, d.Text); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

type noServers struct{}

func (noServers) Names() []string                                    { return nil }
func (noServers) Tools(context.Context, string) ([]tool.Tool, error) { return nil, nil }

// do creates a run of an agent.
func (b *bench) do(agentID, taskType, input, metadata string) string {
	b.t.Helper()
	run, _, err := b.CreateRun(b.t.Context(), "default", engine.CreateRequest{
		Target: engine.AgentTarget, AgentID: agentID, TaskType: taskType, Input: []byte(input), Metadata: []byte(metadata),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return run.ID
}

func (b *bench) resume(runID, interruptID, value string) {
	b.t.Helper()
	if _, err := b.ResumeRun(b.t.Context(), "default", runID, interruptID, []byte(value)); err != nil {
		b.t.Fatal(err)
	}
}

// events are the types of a run's events with what they say, but for those of the engine.
func (b *bench) events(runID string) (events []string) {
	b.t.Helper()
	err := b.WatchRun(b.t.Context(), "default", runID, 0, engine.Debug, func(all []engine.Event, _ uint64) error {
		for _, e := range all {
			if !strings.HasPrefix(e.Type, "run.") && e.Type != eventUsage {
				events = append(events, e.Type+" "+string(e.Payload))
			}
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return events
}

// shop answers calls of tools, and keeps what it was called with.
func shop(t *testing.T) (url string, called func() []string) {
	t.Helper()
	var mu sync.Mutex
	var seen []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.URL.Path+" "+string(body))
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"of":%s}`, body)
	}))
	t.Cleanup(server.Close)
	return server.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(seen)
		return slices.Clone(seen)
	}
}

const support = `
name: support
description: Answers customers.
instructions: You answer customers.
tools:
  - http: {name: find, url: %[1]s/find, description: Finds., schema: {type: object, properties: {id: {type: integer}}, required: [id]}}
  - http: {name: refund, url: %[1]s/refund, description: Pays back., approval: true}
parameters: {type: object, properties: {order: {type: integer}}, required: [order]}
output: {type: object, properties: {reply: {type: string}}, required: [reply], additionalProperties: false}
`

// TestAgentUsesToolsThatPeopleAllow has a model call three tools at once, two of which ask
// a person, and the runtime die while they wait.
func TestAgentUsesToolsThatPeopleAllow(t *testing.T) {
	t.Parallel()
	url, called := shop(t)
	provider := &acting{act: func(r model.Request) model.Response {
		if _, isResult := last(r); !isResult {
			return calls("find", `{"id":7}`, "refund", `{"amount":5}`, "refund", `{"amount":900}`)
		}
		text, _ := encode(map[string]string{"reply": strings.Join(results(r), "|")})
		return model.Response{Text: string(text)}
	}}
	registry := defining(t, provider, fmt.Sprintf(support, url))
	dir := t.TempDir()
	b := openWith(t, dir, registry)
	id := b.do("support", "answer", `{"order":7}`, "")
	interruptID, payload := b.question(id, "")
	questions, _ := payload["questions"].([]any)
	if len(questions) != 2 {
		t.Fatalf("asks %v", payload)
	}
	answers := map[string]any{}
	for i, answer := range []any{
		map[string]any{"approved": true, "arguments": map[string]any{"amount": 4}}, map[string]any{"approved": false, "reason": "Too much."},
	} {
		question := questions[i].(map[string]any)
		asked := question["value"].(map[string]any)
		if asked["tool"] != "refund" || asked["type"] != "tool_approval" || asked["arguments"] == nil {
			t.Errorf("asks %v", asked)
		}
		answers[question["id"].(string)] = answer
	}
	b.crash()
	b = openWith(t, dir, registry)
	value, _ := encode(answers)
	b.resume(id, interruptID, string(value))
	run := b.wantEnd(id, engine.Succeeded, 1)
	var output map[string]any
	if err := json.Unmarshal(run.Output, &output); err != nil {
		t.Fatal(err)
	}
	const reply = `{"of":{"id":7}}|{"of":{"amount":4}}|failed: A person did not allow this call. The reason: Too much.`
	usage, _ := output["usage"].(map[string]any)
	if output["reply"] != reply || output["agent_id"] != "support" || output["task_type"] != "answer" || usage["total_tokens"] != 22.0 {
		t.Errorf("output %s", run.Output)
	}
	if got := called(); !slices.Equal(got, []string{`/find {"id":7}`, `/refund {"amount":4}`}) {
		t.Errorf("called %v", got)
	}
	events := b.events(id)
	want := []string{
		`tool.call {"arguments":{"id":7},"id":"call-0","name":"find"}`,
		`tool.call {"arguments":{"amount":5},"id":"call-1","name":"refund"}`,
		`tool.call {"arguments":{"amount":900},"id":"call-2","name":"refund"}`,
		`tool.result {"failed":false,"id":"call-0","name":"find","result":{"of":{"id":7}}}`,
	}
	if len(events) != 6 || !slices.Equal(events[:4], want) {
		t.Errorf("events\n%s", strings.Join(events, "\n"))
	}
}

// TestModelIsToldOfCallsThatDoNotFit has one mend its calls.
func TestModelIsToldOfCallsThatDoNotFit(t *testing.T) {
	t.Parallel()
	url, _ := shop(t)
	provider := &acting{act: func(r model.Request) model.Response {
		switch len(results(r)) {
		case 0:
			return calls("find", `{"id":"seven"}`, "fnd", `{}`, "find", `{"id":`)
		case 3:
			return calls("find", `{"id":7}`)
		}
		text, _ := encode(map[string]string{"reply": strings.Join(results(r), "|")})
		return model.Response{Text: string(text)}
	}}
	b := openWith(t, t.TempDir(), defining(t, provider, fmt.Sprintf(support, url)))
	run := b.wantEnd(b.do("support", "answer", `{"order":7}`, ""), engine.Succeeded, 1)
	for _, part := range []string{"failed: arguments.id: must be an integer", "no tool is called", "find, refund", "is not a JSON text", `{\"of\":{\"id\":7}}`} {
		if !strings.Contains(string(run.Output), part) {
			t.Errorf("output lacks %q: %s", part, run.Output)
		}
	}
}

// TestAgentsWorkForAnother has one give two tasks at once to others, each of which asks a
// person; what all of them took is counted.
func TestAgentsWorkForAnother(t *testing.T) {
	t.Parallel()
	url, _ := shop(t)
	provider := &acting{act: func(r model.Request) model.Response {
		text, isResult := last(r)
		switch {
		case strings.HasPrefix(r.Instructions, "You lead"):
			if !isResult {
				return calls("cook", `{"message":"soup"}`, "cook", `{"message":"cake"}`)
			}
			return model.Response{Text: strings.Join(results(r), " and ")}
		case !isResult:
			return calls("heat", `{"for":"`+text+`"}`)
		}
		return model.Response{Text: "hot " + r.Messages[0].Text}
	}}
	registry := defining(t, provider,
		"name: lead\ninstructions: You lead.\nagents: [cook]\n",
		"name: cook\ndescription: Cooks.\ninstructions: You cook.\ntools: [{http: {name: heat, url: "+url+"/heat, approval: true}}]\n")
	dir := t.TempDir()
	b := openWith(t, dir, registry)
	id := b.do("lead", conversationTask, `{"messages": [{"role": "user", "content": "Dinner, please."}]}`, "")
	below := b.subRuns(id, 2)
	for _, child := range below {
		// What a crash loses is asked for and paid again.
		b.question(child, "")
	}
	for _, child := range below {
		interruptID, _ := b.question(child, "")
		b.crash()
		b = openWith(t, dir, registry)
		b.resume(child, interruptID, `"yes"`)
	}
	run := b.wantEnd(id, engine.Succeeded, 1)
	var output runOutput
	if err := json.Unmarshal(run.Output, &output); err != nil {
		t.Fatal(err)
	}
	usage, _ := output.Usage.(map[string]any)
	if output.FinalOutput["response"] != "hot soup and hot cake" || usage["total_tokens"] != 66.0 {
		t.Errorf("output %s", run.Output)
	}
}

// subRuns waits until a run waits for its sub-runs, and returns their ids.
func (b *bench) subRuns(runID string, n int) (ids []string) {
	b.t.Helper()
	found := errors.New("found")
	err := b.WatchRun(b.t.Context(), "default", runID, 0, engine.Internal, func(all []engine.Event, _ uint64) error {
		for _, e := range all {
			var about struct {
				RunIDs []string `json:"run_ids"`
			}
			if e.Type == "run.waiting" && json.Unmarshal(e.Payload, &about) == nil && len(about.RunIDs) == n {
				ids = about.RunIDs
				return found
			}
		}
		return nil
	})
	if !errors.Is(err, found) {
		b.t.Fatalf("waits not for %d sub-runs: %v", n, err)
	}
	return ids
}

func TestBudgetEndsARunClearly(t *testing.T) {
	t.Parallel()
	url, called := shop(t)
	provider := &acting{act: func(model.Request) model.Response { return calls("find", `{"id":1}`) }}
	definition := fmt.Sprintf(support, url) + "budget: {tool_calls: 30}\nrounds: 1000\n"
	for name, test := range map[string]struct{ metadata, want string }{
		"its own":       {"", "tool_calls are 30, and 30 were taken"},
		"a tighter one": {`{"budget": {"tokens": 40}}`, "tokens are 40, and 44 were taken"},
		"a looser one":  {`{"budget": {"tool_calls": 31}}`, "tool_calls are 30"},
		"time":          {`{"budget": {"seconds": 0.000001}}`, "seconds are 0.000001"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := openWith(t, t.TempDir(), defining(t, provider, definition))
			run := b.wantEnd(b.do("support", "answer", `{"order":7}`, test.metadata), engine.Failed, 1)
			if run.Error.Reason != engine.ReasonBudgetExceeded || !strings.Contains(run.Error.Message, test.want) {
				t.Errorf("%+v, want %q", run.Error, test.want)
			}
		})
	}
	t.Cleanup(func() {
		if n := len(called()); n > 30+30+4 {
			t.Errorf("tools were called %d times", n)
		}
	})
}

func TestAgentThatNeverAnswersEnds(t *testing.T) {
	t.Parallel()
	url, _ := shop(t)
	provider := &acting{act: func(r model.Request) model.Response {
		if len(r.Tools) > 0 {
			return calls("find", `{"id":1}`)
		}
		return model.Response{Text: `{"reply":"I give up."}`}
	}}
	b := openWith(t, t.TempDir(), defining(t, provider, fmt.Sprintf(support, url)+"rounds: 3\n"))
	run := b.wantEnd(b.do("support", "answer", `{"order":7}`, ""), engine.Succeeded, 1)
	if !strings.Contains(string(run.Output), "I give up.") || len(provider.asked) != 4 {
		t.Errorf("output %s, asked %d times", run.Output, len(provider.asked))
	}
}

func TestDefinitionsNameAllMistakes(t *testing.T) {
	t.Parallel()
	registry := defining(t, &acting{})
	d, err := ParseDocument([]byte(`
name: a b
rounds: -1
tools:
  - {http: {name: x, url: "ftp://x"}, mcp: {server: y}}
  - {http: {name: "x y", url: "ftp://x"}}
  - {function: {}}
  - {mcp: {server: nowhere}}
agents: ["a b"]
parameters: {type: nothing}
budget: {tokens: -1}
retry: {max_attempts: 1000}
`))
	if err != nil {
		t.Fatal(err)
	}
	_, err = registry.compile(d)
	wrong, named := errors.AsType[*violation.Error](err)
	if !named {
		t.Fatal(err)
	}
	var fields []string
	for _, v := range wrong.Violations {
		fields = append(fields, v.Field)
	}
	slices.Sort(fields)
	want := []string{
		"agents[0]", "budget.tokens", "instructions", "name", "parameters.type", "rounds", "run.retry.max_attempts",
		"tools[0]", "tools[1].http.name", "tools[1].http.url", "tools[2].function.name", "tools[3].mcp.server",
	}
	if !slices.Equal(fields, want) {
		t.Errorf("%v\nwant\n%v\n%v", fields, want, err)
	}
}

func TestModelsThatNoProviderHasAreRefused(t *testing.T) {
	t.Parallel()
	router, err := model.New(model.Config{OpenAI: model.Endpoint{APIKey: "key"}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	registry := defining(t, router)
	for name, refused := range map[string]bool{"": false, "gpt-5, openai/o3": false, "gpt-5,anthropic/claude-opus-5": true} {
		d, err := ParseDocument([]byte("name: a\ninstructions: b\nmodel: '" + name + "'\n"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = registry.compile(d)
		unfit, is := errors.AsType[*violation.Error](err)
		if (err != nil) != refused || is != refused || (refused && unfit.Violations[0].Field != "model") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func FuzzParseDocument(f *testing.F) {
	f.Add([]byte(fmt.Sprintf(support, "http://127.0.0.1")))
	f.Add([]byte(`{"name": "a", "instructions": "b", "tools": [{"function": {"name": "x.y"}}]}`))
	f.Add([]byte("name: a\ninstructions: b\ntools: [{store: {namespace: [a, b], tools: [get_item], approval: [get_item]}}]\n"))
	log := slog.New(slog.DiscardHandler)
	web, err := tool.NewWeb(tool.WebConfig{})
	if err != nil {
		f.Fatal(err)
	}
	r, err := New(Config{Provider: &acting{}, Tooling: Tooling{
		Runner: tool.NewRunner(tool.Config{}, log), Web: web, MCP: noServers{}, Store: func(string) graph.Store { return nil },
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := ParseDocument(text)
		if err != nil {
			return
		}
		if _, err := r.compile(d); err != nil && !errors.As(err, new(*violation.Error)) {
			t.Errorf("%T: %v", err, err)
		}
	})
}
