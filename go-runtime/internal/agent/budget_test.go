package agent

import (
	"fmt"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
)

func TestNodesAreNotCalledAgainForABudget(t *testing.T) {
	t.Parallel()
	over := &BudgetError{Bound: "tool_calls", Limit: 1, Spent: 1}
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"of the run":       {fmt.Errorf("think: %w", over), true},
		"of a sub-run":     {subRunFailure(engine.Run{Error: &engine.RunError{Reason: engine.ReasonBudgetExceeded}}), true},
		"as an agent says": {budgetFailure(over), true},
		"another failure":  {&engine.TaskError{Reason: engine.ReasonAgentFailed}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := graph.IsPermanent(test.err); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}
