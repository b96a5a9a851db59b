package agent

import (
	"errors"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
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
