package document

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// kinds are transform, and say, which gives the text that it has.
func kinds() map[string]Kind {
	return map[string]Kind{"transform": Transform, "human": Human, "say": func(with With) (Work, error) {
		text := with.Text("text")
		return func(ctx context.Context, _ *graph.Call, state graph.State) (any, error) {
			said, err := text(ctx, state)
			return map[string]any{"text": said}, err
		}, with.Check()
	}}
}

func compile(t *testing.T, text string) *Compiled {
	t.Helper()
	parsed, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := parsed.Compile(kinds())
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

func run(t *testing.T, text string, input graph.State) map[string]any {
	t.Helper()
	compiled := compile(t, text)
	state, err := compiled.Run(t.Context(), graph.Request{Thread: "t", Input: input}, graph.Options{})
	if err != nil {
		t.Fatal(err)
	}
	result, err := compiled.Result(t.Context(), state)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

const loop = `
name: loop
state:
  n: {reducer: add, initial: 0}
  said: {reducer: append}
nodes:
  say: {kind: say, with: {text: "round {{ state.n }} of {{ state.?of.orValue({'a': 1}) }}"}, set: {said: out.text, n: "1"}}
edges:
  - [START, say]
branches:
  say:
    - {when: state.n < 3, to: say}
    - {to: END}
output: {said: state.said, n: state.n + 1.0}
`

func TestDocumentRuns(t *testing.T) {
	t.Parallel()
	want := map[string]any{"n": 4.0, "said": []any{`round 0 of {"a":1}`, `round 1 of {"a":1}`, `round 2 of {"a":1}`}}
	if got := run(t, loop, graph.State{}); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

func TestEachItemHasATaskAndJoinsWait(t *testing.T) {
	t.Parallel()
	got := run(t, `
name: fan
state: {items: {}, seen: {reducer: append}, all: {}}
nodes:
  one: {kind: transform, set: {seen: "[state.item * 2.0]"}}
  two: {kind: transform}
  end: {kind: transform, set: {all: size(state.seen)}}
edges: [[START, two]]
joins: [{from: [one, two], to: end}]
branches: {START: [{each: state.items, to: one}]}
`, graph.State{"items": []any{1, 2, 3}})
	if want := (map[string]any{"items": []any{1.0, 2.0, 3.0}, "seen": []any{2.0, 4.0, 6.0}, "all": 3.0}); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

func TestRecursionLimit(t *testing.T) {
	t.Parallel()
	for limit, want := range map[int]int{0: 25, 3: 3, 40: 0} {
		compiled := compile(t, fmt.Sprintf(`
name: loop
recursion_limit: %d
state: {n: {reducer: add, initial: 0}}
nodes: {count: {kind: transform, set: {n: "1"}}}
edges: [[START, count]]
branches: {count: [{when: "state.n < 30", to: count}, {to: END}]}
`, limit))
		_, err := compiled.Run(t.Context(), graph.Request{Thread: "t", Input: graph.State{}}, graph.Options{})
		var over *graph.RecursionError
		if errors.As(err, &over) != (want > 0) || over != nil && over.Limit != want {
			t.Errorf("with %d: %v", limit, err)
		}
	}
}

func TestInputsFitTheParameters(t *testing.T) {
	t.Parallel()
	compiled := compile(t, `
name: ask
parameters: {type: object, properties: {question: {type: string}, times: {minimum: 1}}, required: [question]}
state: {question: {}, times: {}}
nodes: {end: {kind: transform}}
edges: [[START, end]]
`)
	for name, test := range map[string]struct {
		input graph.State
		want  []string
	}{
		"fits":       {graph.State{"question": "Why?"}, nil},
		"lacks one":  {graph.State{}, []string{"input.question"}},
		"two others": {graph.State{"question": "Why?", "times": 0, "who": "Ada"}, []string{"input.who", "input.times"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var fields []string
			wrong, named := errors.AsType[*violation.Error](compiled.CheckInput(test.input))
			if named {
				for _, v := range wrong.Violations {
					fields = append(fields, v.Field)
				}
			}
			if !slices.Equal(fields, test.want) {
				t.Errorf("%v, want %v", wrong, test.want)
			}
		})
	}
}

func TestAllMistakesAreNamedWithTheirPlace(t *testing.T) {
	t.Parallel()
	parsed, err := Parse([]byte(`
name: a b
durability: never
recursion_limit: 10001
parameters: {type: 7}
state: {x: {reducer: sum}}
nodes:
  one: {kind: sing}
  two: {kind: say, with: {txt: hi, text: "{{ state.. }}"}, set: {y: "1 +", x: "1"}}
  three: {kind: say, cache: {key: "state.", ttl: -1s}}
  lost: {kind: transform, cache: {}}
  ask: {kind: human, with: {ask: "Why?"}, cache: {ttl: 1m}}
  slow: {kind: say, with: {text: hi}, retry: {max_backoff: -1s, attempts: 1000000000, backoff: 9999h}, timeout: -1s}
edges:
  - [START, one]
  - [one, nowhere]
  - [two]
  - [END, two]
  - [START, ask]
  - [START, slow]
branches:
  one:
    - {to: two}
    - {when: "1 + 1", to: three, each: "state.x[0"}
joins:
  - {from: [one, two, one], to: slow}
output: {z: nothing}
`))
	if err != nil {
		t.Fatal(err)
	}
	_, err = parsed.Compile(kinds())
	var wrong *violation.Error
	if !errors.As(err, &wrong) {
		t.Fatal(err)
	}
	var fields []string
	for _, v := range wrong.Violations {
		fields = append(fields, v.Field)
	}
	want := []string{
		"name", "durability", "recursion_limit", "parameters.type", "state.x.reducer", "nodes.one.kind", "nodes.three.with.text", "nodes.two.with.text", "nodes.two.with.txt",
		"nodes.two.set.y", "nodes.two.set.y", "edges[1]", "edges[2]", "edges[3]", "branches.one[0]", "branches.one[1].when",
		"branches.one[1].each", "nodes.lost", "output.z", "nodes.three.cache.key", "nodes.three.cache.ttl", "nodes.lost.cache",
		"nodes.ask.cache", "joins[0].from[2]",
		"nodes.slow.retry.max_backoff", "nodes.slow.retry.attempts", "nodes.slow.retry.backoff", "nodes.slow.timeout",
	}
	slices.Sort(fields)
	slices.Sort(want)
	if !slices.Equal(fields, want) {
		t.Errorf("%v\nwant\n%v\n%v", fields, want, err)
	}
}

func TestTextThatIsNoDocumentIsRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ text, want string }{
		"empty":   {"", "is empty"},
		"broken":  {"a: [", "is no YAML"},
		"unknown": {"name: a\nnode: {}\nedges: 7", "field node not found"},
		"two":     {"name: a\n---\nname: b", "another follows"},
		"large":   {strings.Repeat("#", maxBytes+1), "graph"},
		"bomb": {"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n" +
			"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n", "graph"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := Parse([]byte(test.text)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

// TestExpensiveExpressionEnds has one that would take hours.
func TestExpensiveExpressionEnds(t *testing.T) {
	t.Parallel()
	list := "[" + strings.Repeat("1,", 300) + "1]"
	compiled := compile(t, `
name: hostile
state: {n: {}}
nodes:
  a: {kind: transform, set: {n: "`+list+`.map(a, `+list+`.map(b, `+list+`.map(c, a * b * c)))"}}
edges: [[START, a]]
`)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := compiled.Run(ctx, graph.Request{Thread: "t", Input: graph.State{}}, graph.Options{})
	if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "cost") {
		t.Error(err)
	}
}

// TestPoliciesOfNodes has a node that fails twice between random pauses, and whose result is
// kept; and one that waits for the others.
func TestPoliciesOfNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const text = `
name: policies
state: {n: {}, other: {}, order: {reducer: append}}
nodes:
  flaky:
    kind: flaky
    set: {order: out}
    retry: {attempts: 3, backoff: 10s, max_backoff: 15s, jitter: true}
    cache: {key: "[state.n]", ttl: 1h}
  last: {kind: transform, set: {order: "'last'"}, defer: true}
  two: {kind: transform, set: {order: "'two'"}}
edges: [[START, flaky], [START, last], [flaky, two]]
`
		calls := 0
		all := kinds()
		all["flaky"] = func(with With) (Work, error) {
			return func(context.Context, *graph.Call, graph.State) (any, error) {
				if calls++; calls%3 != 0 {
					return nil, errors.New("not now")
				}
				return fmt.Sprint("call ", calls), nil
			}, with.Check()
		}
		cache := graph.NewMemoryCache(1 << 20)
		run := func(text string, input graph.State) any {
			parsed, err := Parse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			compiled, err := parsed.Compile(all)
			if err != nil {
				t.Fatal(err)
			}
			state, err := compiled.Run(t.Context(), graph.Request{Input: input}, graph.Options{Cache: cache})
			if err != nil {
				t.Fatal(err)
			}
			return state["order"]
		}
		began := time.Now()
		if got, want := run(text, graph.State{"n": 1}), []any{"call 3", "two", "last"}; !reflect.DeepEqual(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		if took := time.Since(began); took < 5*time.Second+15*time.Second/2 || took > 25*time.Second {
			t.Errorf("the pauses were %s", took)
		}
		for name, test := range map[string]struct {
			text  string
			input graph.State
			after time.Duration
			calls int
		}{
			"the same key":     {text, graph.State{"n": 1, "other": 2}, 0, 3},
			"another key":      {text, graph.State{"n": 2}, 0, 6},
			"another document": {text + "description: Another.\n", graph.State{"n": 1}, 0, 6},
			"after its time":   {text, graph.State{"n": 1}, time.Hour, 6},
		} {
			calls = 0
			cache = graph.NewMemoryCache(1 << 20)
			run(text, graph.State{"n": 1})
			time.Sleep(test.after) //nolint:forbidigo // the clock is the test's
			if run(test.text, test.input); calls != test.calls {
				t.Errorf("%s: it was called %d times, want %d", name, calls, test.calls)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(loop))
	f.Add([]byte(`{"name": "a", "nodes": {"a": {"kind": "transform", "set": {"x": "1"}}}, "edges": [["START", "a"]]}`))
	f.Add([]byte("name: a\nnodes: {a: {kind: say, with: {text: b}, cache: {key: state.x, ttl: 1s}, defer: true, retry: {jitter: true}}}\nedges: [[START, a]]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		parsed, err := Parse(text)
		if err != nil {
			return
		}
		compiled, err := parsed.Compile(kinds())
		if err != nil {
			if !errors.As(err, new(*violation.Error)) {
				t.Errorf("%T: %v", err, err)
			}
			return
		}
		_, _ = compiled.Run(t.Context(), graph.Request{Thread: "t", Input: graph.State{}}, graph.Options{RecursionLimit: 3})
	})
}
