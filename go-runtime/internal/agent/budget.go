package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Budget bounds what one run may take, its sub-runs included. A zero field does not bound.
type Budget struct {
	// Tokens are those of inputs and outputs together.
	Tokens int64 `json:"tokens,omitempty" yaml:"tokens"`
	// CostUSD is in US dollars. A model whose price is not known costs nothing that could
	// be counted, and so a run with this bound may not ask one.
	CostUSD   float64 `json:"cost_usd,omitempty"   yaml:"cost_usd"`
	ToolCalls int64   `json:"tool_calls,omitempty" yaml:"tool_calls"`
	// Seconds are those that the run was worked on, without the time that it waited.
	Seconds float64 `json:"seconds,omitempty" yaml:"seconds"`
}

func (b Budget) check(field string) error {
	var wrong []error
	for name, value := range map[string]float64{
		"tokens": float64(b.Tokens), "cost_usd": b.CostUSD, "tool_calls": float64(b.ToolCalls), "seconds": b.Seconds,
	} {
		if value < 0 {
			wrong = append(wrong, violation.New(field+"."+name, "must not be negative"))
		}
	}
	return violation.Join(wrong...)
}

// within returns the tighter of both.
func (b Budget) within(other Budget) Budget {
	return Budget{
		Tokens: tighter(b.Tokens, other.Tokens), CostUSD: tighter(b.CostUSD, other.CostUSD),
		ToolCalls: tighter(b.ToolCalls, other.ToolCalls), Seconds: tighter(b.Seconds, other.Seconds),
	}
}

func tighter[N int64 | float64](a, b N) N {
	switch {
	case a == 0:
		return b
	case b == 0:
		return a
	}
	return min(a, b)
}

// BudgetError says which bound of its budget a run has come to.
type BudgetError struct {
	// Bound is the budget's member, Limit what it allows, and Spent what was taken.
	Bound        string
	Limit, Spent float64
}

func (e *BudgetError) Error() string {
	return fmt.Sprintf("the run's budget is used up: %s are %s, and %s were taken",
		e.Bound, formatNumber(e.Limit), formatNumber(e.Spent))
}

// Permanent says that no node is called again after it.
func (*BudgetError) Permanent() bool { return true }

// budgetFailure ends a run that has come to a bound of its budget.
func budgetFailure(over *BudgetError) error {
	return &engine.TaskError{Reason: engine.ReasonBudgetExceeded, Message: over.Error(), Type: "BudgetExceeded"}
}

func formatNumber(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// budgetOf is the budget that a run's metadata asks for.
func budgetOf(metadata []byte) (Budget, error) {
	var members struct {
		Budget json.RawMessage `json:"budget"`
	}
	if len(metadata) == 0 {
		return Budget{}, nil
	}
	if err := json.Unmarshal(metadata, &members); err != nil {
		return Budget{}, fmt.Errorf("read metadata: %w", err)
	}
	if len(members.Budget) == 0 {
		return Budget{}, nil
	}
	var asked Budget
	decoder := json.NewDecoder(bytes.NewReader(members.Budget))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&asked); err != nil {
		return Budget{}, violation.New("metadata.budget",
			"must be an object of numbers, whole ones but for cost_usd and seconds: tokens, cost_usd, tool_calls, seconds; is %s",
			clip(string(members.Budget)))
	}
	return asked, asked.check("metadata.budget")
}
