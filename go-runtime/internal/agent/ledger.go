package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
)

const nano = 1e9

// eventUsage tells what a model's answer took, for who debugs and who bills.
const eventUsage = "usage"

// spentPrefix begins the keys of the steps that record what was spent.
const spentPrefix = "spent: "

// spent is what a run has taken, or one answer of a model.
type spent struct {
	Usage model.Usage `json:"usage"`
	// Cost is in billionths of a US dollar.
	Cost int64 `json:"cost_nano_usd,omitempty"`
	// Unpriced says that the cost lacks what models took whose price is not known.
	Unpriced   bool    `json:"unpriced,omitempty"`
	ModelCalls int64   `json:"model_calls,omitempty"`
	ToolCalls  int64   `json:"tool_calls,omitempty"`
	Seconds    float64 `json:"seconds,omitempty"`
	// Model is the one that answered, and PriceVersion the list that the cost is from.
	Model        string `json:"model,omitempty"`
	PriceVersion string `json:"price_version,omitempty"`
	// Run is the sub-run that took it; empty: the run itself.
	Run string `json:"run,omitempty"`
	// Offline is the model that stood in for one, and took nothing.
	Offline string `json:"offline,omitempty"`
}

func (s spent) add(other spent) spent {
	return spent{
		Usage: s.Usage.Add(other.Usage), Cost: s.Cost + other.Cost, Unpriced: s.Unpriced || other.Unpriced,
		ModelCalls: s.ModelCalls + other.ModelCalls, ToolCalls: s.ToolCalls + other.ToolCalls,
		Seconds: s.Seconds + other.Seconds, Model: cmp.Or(other.Model, s.Model),
		PriceVersion: cmp.Or(other.PriceVersion, s.PriceVersion),
	}
}

// ledger counts what a run takes, over all calls with it: each entry is a recorded step.
type ledger struct {
	call   engine.Call
	budget Budget

	mu      sync.Mutex
	total   spent
	entries int
	// runs are the sub-runs that were counted.
	runs map[string]bool
	// since is when the latest entry was made, or this call began.
	since time.Time
	// offline is the model that stood in for one, if that was so.
	offline string
}

// begin has a call with a run counted: ctx has the ledger, and ends when the budget's
// seconds are over. stop gives back what that takes.
func begin(ctx context.Context, call engine.Call, budget Budget) (_ context.Context, l *ledger, stop context.CancelFunc, err error) {
	if l, err = newLedger(call, budget); err != nil {
		return nil, nil, nil, err
	}
	ctx, stop = l.withTime(context.WithValue(ctx, ledgerKey{}, l))
	return ctx, l, stop, nil
}

// newLedger takes up what earlier calls with the run recorded. The run's metadata may
// tighten the budget.
func newLedger(call engine.Call, budget Budget) (*ledger, error) {
	l := &ledger{call: call, runs: map[string]bool{}, since: time.Now()}
	asked, err := budgetOf(call.Metadata)
	if err != nil {
		return nil, err
	}
	l.budget = budget.within(asked)
	for _, step := range call.Steps {
		entry, counts, err := entryOf(step)
		if err != nil {
			return nil, err
		}
		if !counts {
			continue
		}
		l.total = l.total.add(entry)
		l.entries++
		l.offline = cmp.Or(entry.Offline, l.offline)
		if entry.Run != "" {
			l.runs[entry.Run] = true
		}
	}
	return l, nil
}

// left returns a *BudgetError when a bound has been reached.
func (l *ledger) left() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over()
}

// over is left for who has the lock.
func (l *ledger) over() error {
	for _, bound := range []struct {
		name         string
		limit, spent float64
	}{
		{"tokens", float64(l.budget.Tokens), float64(l.total.Usage.TotalTokens)},
		{"cost_usd", l.budget.CostUSD, float64(l.total.Cost) / nano},
		{"tool_calls", float64(l.budget.ToolCalls), float64(l.total.ToolCalls)},
		{"seconds", l.budget.Seconds, l.total.Seconds + time.Since(l.since).Seconds()},
	} {
		if bound.limit > 0 && bound.spent >= bound.limit {
			return &BudgetError{Bound: bound.name, Limit: bound.limit, Spent: bound.spent}
		}
	}
	return nil
}

// remaining is the budget that a sub-run may take: what is left, which left has found to
// be something. Sub-runs at the same time may each take all of it.
func (l *ledger) remaining() Budget {
	l.mu.Lock()
	defer l.mu.Unlock()
	rest := l.budget
	if rest.Tokens > 0 {
		rest.Tokens = max(rest.Tokens-l.total.Usage.TotalTokens, 1)
	}
	if rest.CostUSD > 0 {
		rest.CostUSD = max(rest.CostUSD-float64(l.total.Cost)/nano, 1/nano)
	}
	if rest.ToolCalls > 0 {
		rest.ToolCalls = max(rest.ToolCalls-l.total.ToolCalls, 1)
	}
	if rest.Seconds > 0 {
		rest.Seconds = max(rest.Seconds-l.total.Seconds, 1/nano)
	}
	return rest
}

// withTime ends ctx with a *BudgetError when the budget's seconds are over.
func (l *ledger) withTime(ctx context.Context) (context.Context, context.CancelFunc) {
	if l.budget.Seconds == 0 {
		return ctx, func() {}
	}
	l.mu.Lock()
	over := &BudgetError{Bound: "seconds", Limit: l.budget.Seconds, Spent: l.budget.Seconds}
	left := time.Duration((l.budget.Seconds - l.total.Seconds) * float64(time.Second))
	l.mu.Unlock()
	return context.WithTimeoutCause(ctx, max(left, 0), over)
}

// answered counts an answer of a model, and the tools that it calls.
func (l *ledger) answered(ctx context.Context, response model.Response) error {
	if response.Offline {
		return l.stoodIn(ctx, response.Model)
	}
	entry := spent{
		Usage: response.Usage, Unpriced: response.Cost == nil, ModelCalls: 1, ToolCalls: int64(len(response.ToolCalls)),
		Model: response.Model,
	}
	if response.Cost != nil {
		entry.Cost, entry.PriceVersion = response.Cost.NanoUSD, response.Cost.PriceVersion
	}
	usage := map[string]any{
		"provider": response.Provider, "model": response.Model, "usage": response.Usage, "cost": response.Cost,
	}
	payload, err := encode(usage)
	if err != nil {
		return err
	}
	if err := l.call.Emit(ctx, engine.NewEvent{Type: eventUsage, Visibility: engine.Debug, Payload: payload}); err != nil {
		return err
	}
	return l.enter(ctx, entry)
}

// stoodIn notes, once, that a stand-in answered, for later calls with the run too.
func (l *ledger) stoodIn(ctx context.Context, name string) error {
	l.mu.Lock()
	known := l.offline != ""
	l.offline = name
	l.mu.Unlock()
	if known {
		return nil
	}
	return l.enter(ctx, spent{Offline: name})
}

// isOffline reports whether a stand-in answered, which mends nothing.
func (l *ledger) isOffline() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.offline != ""
}

// ran counts what a sub-run took, however it ended, once.
func (l *ledger) ran(ctx context.Context, run engine.Run) error {
	l.mu.Lock()
	counted := l.runs[run.ID]
	l.runs[run.ID] = true
	l.mu.Unlock()
	if counted {
		return nil
	}
	entry, counts, err := l.spentIn(ctx, run)
	if err != nil || !counts {
		return err
	}
	entry.Run = run.ID
	return l.enter(ctx, entry)
}

// spentIn is what a sub-run took: by its own entries, which it has however it ended, else by
// its output.
func (l *ledger) spentIn(ctx context.Context, run engine.Run) (took spent, counts bool, err error) {
	if run.Target == engine.WorkerTarget {
		took, counts = spentBy(run.Output)
		return took, counts, nil
	}
	steps, err := l.call.StepsOf(ctx, run.ID)
	if err != nil {
		return spent{}, false, fmt.Errorf("read what run %s took: %w", run.ID, err)
	}
	for _, step := range steps {
		entry, counts, err := entryOf(step)
		if err != nil {
			return spent{}, false, err
		}
		if counts {
			took = took.add(entry)
		}
	}
	if took.Usage == (model.Usage{}) && took.ToolCalls == 0 {
		took, counts = spentBy(run.Output)
		return took, counts, nil
	}
	// It was worked on while this one waited, and its models are not this one's.
	took.Seconds, took.Model = 0, ""
	return took, true, nil
}

// entryOf reads a step of a run; false: it is none that a ledger has recorded.
func entryOf(step engine.Step) (entry spent, counts bool, err error) {
	if !strings.HasPrefix(step.Key, spentPrefix) {
		return spent{}, false, nil
	}
	if err := json.Unmarshal(step.Result, &entry); err != nil {
		return spent{}, false, fmt.Errorf("read step %s: %w", step.Key, err)
	}
	return entry, true, nil
}

// spentBy is what a run took by its output, that of an agent of the runtime or of Python.
func spentBy(output []byte) (spent, bool) {
	var about struct {
		Usage        model.Usage `json:"usage"`
		Cost         *string     `json:"cost_usd"`
		PriceVersion string      `json:"price_version"`
		Metadata     struct {
			Cost         *string `json:"cost_usd"`
			PriceVersion string  `json:"price_version"`
		} `json:"metadata"`
	}
	if json.Unmarshal(output, &about) != nil || about.Usage == (model.Usage{}) {
		return spent{}, false
	}
	entry := spent{Usage: about.Usage, PriceVersion: cmp.Or(about.PriceVersion, about.Metadata.PriceVersion)}
	written := about.Cost
	if written == nil {
		written = about.Metadata.Cost
	}
	if written == nil {
		entry.Unpriced = true
		return entry, true
	}
	dollars, err := strconv.ParseFloat(*written, 64)
	entry.Cost, entry.Unpriced = int64(dollars*nano), err != nil
	return entry, true
}

// called counts a call of a tool that no model made, if the budget allows it. Of several at
// the same time no more pass than it allows.
func (l *ledger) called(ctx context.Context) error {
	l.mu.Lock()
	if err := l.over(); err != nil {
		l.mu.Unlock()
		return err
	}
	key, entry := l.add(spent{ToolCalls: 1})
	l.mu.Unlock()
	return l.record(ctx, key, entry)
}

func (l *ledger) enter(ctx context.Context, entry spent) error {
	l.mu.Lock()
	key, entry := l.add(entry)
	l.mu.Unlock()
	return l.record(ctx, key, entry)
}

// add counts an entry, for who has the lock, with the time since the one before it.
func (l *ledger) add(entry spent) (key string, _ spent) {
	now := time.Now()
	entry.Seconds += now.Sub(l.since).Seconds()
	l.since = now
	l.total = l.total.add(entry)
	l.entries++
	return spentPrefix + strconv.Itoa(l.entries), entry
}

func (l *ledger) record(ctx context.Context, key string, entry spent) error {
	text, err := encode(entry)
	if err != nil {
		return err
	}
	return l.call.Record(ctx, key, text)
}

// describe adds to an output who answered, and what it took.
func (l *ledger) describe(output map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	output["model"], output["offline"], output["usage"] = cmp.Or(l.offline, l.total.Model), l.offline != "", l.total.Usage
	output["cost_usd"] = nil
	if l.total.PriceVersion != "" && !l.total.Unpriced {
		output["cost_usd"], output["price_version"] = formatNumber(float64(l.total.Cost)/nano), l.total.PriceVersion
	}
}

type ledgerKey struct{}

func ledgerOf(ctx context.Context) *ledger {
	l, _ := ctx.Value(ledgerKey{}).(*ledger)
	return l
}

// ask has a model answer, if the budget allows it, and counts what that takes.
func ask(ctx context.Context, provider model.Provider, request model.Request) (model.Response, error) {
	l := ledgerOf(ctx)
	if err := l.left(); err != nil {
		return model.Response{}, err
	}
	response, err := provider.Complete(ctx, request)
	if err != nil {
		return response, modelFailure(err)
	}
	if err := l.answered(ctx, response); err != nil {
		return response, err
	}
	if l.budget.CostUSD > 0 && response.Cost == nil && !response.Offline {
		return response, &engine.TaskError{
			Reason: engine.ReasonBudgetExceeded, Type: "PriceUnknown",
			Message: "the run's budget bounds its cost, and the price of model " + response.Model + " is not known",
		}
	}
	return response, nil
}
