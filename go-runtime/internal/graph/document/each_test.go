package document

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
)

// recordBytes is what a record of the journal holds.
const recordBytes = 1 << 20

// records is a Saver that takes no checkpoint that is larger than a record.
type records struct {
	mu      sync.Mutex
	log     graph.Log
	largest int
}

func (r *records) Load(_ context.Context, g *graph.Graph, _ string) (*graph.Checkpoint, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Latest(g)
}

func (r *records) List(_ context.Context, g *graph.Graph, _ string, before uint64, limit int) ([]*graph.Checkpoint, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.List(g, before, limit)
}

func (r *records) Save(_ context.Context, _ string, c *graph.Checkpoint) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	text, err := c.Pack()
	if err != nil {
		return err
	}
	if r.largest = max(r.largest, len(text)); len(text) > recordBytes {
		return fmt.Errorf("a checkpoint has %d bytes", len(text))
	}
	r.log.Add(text)
	c.Revision++
	return nil
}

const fanOut = `
name: fan
state: {items: {}, large: {}, seen: {reducer: append}, all: {}}
nodes:
  one: {kind: %s, with: {%s}, set: {seen: "[state.item, size(state.large), size(state.items)]"}}
  two: {kind: transform}
  end: {kind: transform, set: {all: "[size(state.seen), state.?item.orValue('none')]"}}
edges: [[START, two]]
joins: [{from: [one, two], to: end}]
branches: {START: [{each: state.items, to: one}]}
output: {all: state.all, last: "state.seen[size(state.seen) - 1]", second: "state.seen[1]"}
`

func itemsOf(n, bytes int) []any {
	items := make([]any, n)
	for i := range items {
		items[i] = fmt.Sprintf("%0*d", bytes, i)
	}
	return items
}

// TestFanOutKeepsItsItemsAlone has lists and states that would be too large many times.
func TestFanOutKeepsItsItemsAlone(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ items, bytes, large int }{
		"a list":                  {300, 10, 0},
		"a long list":             {5000, 60, 0},
		"beside a large channel":  {30, 10, 100_000},
		"beside a larger channel": {100, 10, 500_000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compiled := compile(t, fmt.Sprintf(fanOut, "transform", ""))
			saver := &records{}
			input := graph.State{"items": itemsOf(test.items, test.bytes), "large": strings.Repeat("x", test.large)}
			state, err := compiled.Run(t.Context(), graph.Request{Thread: "t", Input: input}, graph.Options{Saver: saver})
			if err != nil {
				t.Fatal(err)
			}
			wantFannedOut(t, compiled, state, test.items, test.bytes, test.large)
			if most := test.large + 3*test.items*(test.bytes+80) + 2000; saver.largest > most {
				t.Errorf("a checkpoint has %d bytes, want %d at most", saver.largest, most)
			}
		})
	}
}

func wantFannedOut(t *testing.T, compiled *Compiled, state graph.State, items, bytes, large int) {
	t.Helper()
	result, err := compiled.Result(t.Context(), state)
	if err != nil {
		t.Fatal(err)
	}
	// "seen" has three members for each item.
	want := fmt.Sprintf("[%d none] %d %d", 3*items, large, items)
	if got := fmt.Sprint(result["all"], " ", result["second"], " ", result["last"]); got != want {
		t.Errorf("%.200s, want %s", got, want)
	}
	last := fmt.Sprintf("%0*d", bytes, items-1)
	if seen := state["seen"].([]any); seen[3*items-3] != last {
		t.Errorf("the last item is %v, want %v", seen[3*items-3], last)
	}
}

// TestFanOutThatWaits has each task ask, and a runner that takes over between the answers.
func TestFanOutThatWaits(t *testing.T) {
	t.Parallel()
	const items, large = 100, 500_000
	compiled := compile(t, fmt.Sprintf(fanOut, "human", `ask: "{{ state.item }} of {{ size(state.large) }}?"`))
	options := graph.Options{Saver: &records{}}
	input := graph.State{"items": itemsOf(items, 10), "large": strings.Repeat("x", large)}
	_, err := compiled.Run(t.Context(), graph.Request{Thread: "t", Input: input}, options)
	for round := range 2 {
		var waits *graph.InterruptedError
		if !errors.As(err, &waits) || len(waits.Interrupts) != items/(round+1) {
			t.Fatal(err)
		}
		answers := map[string]any{}
		for i, question := range waits.Interrupts {
			if i%2 == 0 || round == 1 {
				answers[question.ID] = "yes"
			}
			if asked := question.Value.(map[string]any)["question"].(string); !strings.HasSuffix(asked, " of 500000?") {
				t.Errorf("asked %q", asked)
			}
		}
		var state graph.State
		state, err = compiled.Run(t.Context(), graph.Request{Thread: "t", Answers: answers}, options)
		if round == 1 {
			if err != nil {
				t.Fatal(err)
			}
			wantFannedOut(t, compiled, state, items, 10, large)
		}
	}
}

// TestFanOutAfterACrash has a runner die in the step of the tasks, and another one go on.
func TestFanOutAfterACrash(t *testing.T) {
	t.Parallel()
	const items, large = 100, 500_000
	saver := &records{}
	died := errors.New("died")
	ctx, die := context.WithCancelCause(t.Context())
	all := kinds()
	all["dies"] = func(with With) (Work, error) {
		return func(_ context.Context, _ *graph.Call, state graph.State) (any, error) {
			if state["item"] == "0000000050" {
				die(died)
			}
			return nil, nil
		}, with.Check()
	}
	parsed, err := Parse(fmt.Appendf(nil, fanOut, "dies", ""))
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := parsed.Compile(all)
	if err != nil {
		t.Fatal(err)
	}
	input := graph.State{"items": itemsOf(items, 10), "large": strings.Repeat("x", large)}
	if _, err = compiled.Run(ctx, graph.Request{Thread: "t", Input: input}, graph.Options{Saver: saver}); !errors.Is(err, died) {
		t.Fatal(err)
	}
	state, err := compiled.Run(t.Context(), graph.Request{Thread: "t"}, graph.Options{Saver: saver})
	if err != nil {
		t.Fatal(err)
	}
	wantFannedOut(t, compiled, state, items, 10, large)
}

func TestFanOutThatIsTooWideIsRefused(t *testing.T) {
	t.Parallel()
	compiled := compile(t, fmt.Sprintf(fanOut, "transform", ""))
	options := graph.Options{Saver: &records{}}
	_, err := compiled.Run(t.Context(), graph.Request{Thread: "t", Input: graph.State{"items": itemsOf(20_000, 5)}}, options)
	var wide *graph.FanOutError
	if !errors.As(err, &wide) || !strings.Contains(err.Error(), "more than 10000 tasks") {
		t.Error(err)
	}
	// A state with room, but not for its items once more.
	_, err = compiled.Run(t.Context(), graph.Request{Thread: "t", Input: graph.State{"items": itemsOf(50, 12_000)}}, options)
	var large *graph.SizeError
	if !errors.As(err, &large) || large.Sent < 600_000 {
		t.Error(err)
	}
}
