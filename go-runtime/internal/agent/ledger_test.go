package agent

import (
	"errors"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

func TestBudgetsThatAreNoneAreRefused(t *testing.T) {
	t.Parallel()
	b := openWith(t, t.TempDir(), defining(t, &acting{}, "name: helper\ninstructions: Help.\n", `
name: tested
state: {}
nodes: {a: {kind: transform}}
edges: [[START, a]]
`))
	graphRun := engine.CreateRequest{TaskType: "langgraph_task", Input: []byte(`{"graph_id": "tested"}`)}
	agentRun := engine.CreateRequest{Target: engine.AgentTarget, AgentID: "helper", TaskType: "help", Input: []byte(`{}`)}
	for name, test := range map[string]struct {
		metadata, field string
	}{
		"a typo":       {`{"budget": {"token": 1}}`, "metadata.budget"},
		"words":        {`{"budget": {"tokens": "many"}}`, "metadata.budget"},
		"a fraction":   {`{"budget": {"tool_calls": 1.5}}`, "metadata.budget"},
		"no object":    {`{"budget": 7}`, "metadata.budget"},
		"less than 0":  {`{"budget": {"seconds": -1}}`, "metadata.budget.seconds"},
		"one":          {`{"budget": {"tokens": 1, "cost_usd": 0.5, "seconds": 1.5}}`, ""},
		"none":         {`{"budget": null}`, ""},
		"other things": {`{"token": "x"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, request := range []engine.CreateRequest{graphRun, agentRun} {
				request.Metadata = []byte(test.metadata)
				err := b.CheckRun("default", request)
				if test.field == "" {
					if err != nil {
						t.Errorf("%s: %v", request.TaskType, err)
					}
					continue
				}
				wrong, named := errors.AsType[*violation.Error](err)
				if !named || wrong.Violations[0].Field != test.field {
					t.Errorf("%s: %v", request.TaskType, err)
				}
				if _, _, err := b.CreateRun(t.Context(), "default", request); err == nil || !strings.Contains(err.Error(), test.field) {
					t.Errorf("%s is created: %v", request.TaskType, err)
				}
			}
		})
	}
	echoed := engine.CreateRequest{TaskType: "echo", Input: []byte(`{}`), Metadata: []byte(`{"budget": "none of ours"}`)}
	if err := b.CheckRun("default", echoed); err != nil {
		t.Errorf("what has no budget: %v", err)
	}
}

// TestWhatSubRunsTakeCounts has an agent give tasks to another for ever, which fails, or
// calls a tool and succeeds.
func TestWhatSubRunsTakeCounts(t *testing.T) {
	t.Parallel()
	url, _ := shop(t)
	act := func(r model.Request) model.Response {
		_, isResult := last(r)
		switch {
		case strings.HasPrefix(r.Instructions, "You lead"):
			return calls("cook", `{"message":"soup"}`)
		case strings.HasPrefix(r.Instructions, "You cook") && isResult:
			return model.Response{Text: "soup"}
		}
		return calls("heat", `{}`)
	}
	const lead = "name: lead\ninstructions: You lead.\nagents: [cook]\nrounds: 100\n"
	for name, test := range map[string]struct {
		cook, budget, want string
		// asked is how often models were.
		asked int
	}{
		"one that fails": {
			"name: cook\ninstructions: You fail.\nretry: {max_attempts: 1}\n",
			`{"tokens": 60}`, "tokens are 60, and 66 were taken", 6,
		},
		"attempts that fail": {
			"name: cook\ninstructions: You fail.\nretry: {max_attempts: 2, initial_backoff: 1ms}\n",
			`{"tokens": 60}`, "tokens are 60, and 66 were taken", 6,
		},
		"calls of tools": {
			"name: cook\ninstructions: You cook.\ntools: [{http: {name: heat, url: " + url + "/heat}}]\n",
			`{"tool_calls": 4}`, "tool_calls are 4, and 4 were taken", 5,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			provider := &acting{act: act}
			b := openWith(t, t.TempDir(), defining(t, provider, lead, test.cook))
			id := b.do("lead", conversationTask, `{"messages": [{"role": "user", "content": "Dinner."}]}`, `{"budget": `+test.budget+`}`)
			run := b.wantEnd(id, engine.Failed, 1)
			if run.Error.Reason != engine.ReasonBudgetExceeded || !strings.Contains(run.Error.Message, test.want) {
				t.Errorf("%+v, want %q", run.Error, test.want)
			}
			if len(provider.asked) != test.asked {
				t.Errorf("models were asked %d times, want %d", len(provider.asked), test.asked)
			}
		})
	}
}
