package document

import (
	"errors"
	"fmt"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

func TestInitialFitsItsReducer(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ channel, place string }{
		"a number":                {"{reducer: add, initial: 3}", ""},
		"a fraction":              {"{reducer: add, initial: 0.5}", ""},
		"a large number":          {"{reducer: add, initial: 18446744073709551615}", ""},
		"a list":                  {"{reducer: append, initial: [1, {a: b}]}", ""},
		"an object":               {"{reducer: merge, initial: {a: 1, b: null}}", ""},
		"messages":                {"{reducer: messages, initial: [{role: user}]}", ""},
		"anything":                {"{initial: [1, true, x, {a: null}, 2026-01-01]}", ""},
		"null":                    {"{reducer: add, initial: null}", ""},
		"a text to add to":        {"{reducer: add, initial: '3'}", "state.x.initial"},
		"a number to append to":   {"{reducer: append, initial: 0}", "state.x.initial"},
		"a list to merge into":    {"{reducer: merge, initial: []}", "state.x.initial"},
		"one message":             {"{reducer: messages, initial: {role: user}}", "state.x.initial"},
		"messages that are texts": {"{reducer: messages, initial: [{role: user}, hi]}", "state.x.initial[1]"},
		"no number":               {"{initial: .nan}", "state.x.initial"},
		"no end":                  {"{reducer: add, initial: .inf}", "state.x.initial"},
		"no end within":           {"{reducer: append, initial: [{a: [1, -.inf]}]}", "state.x.initial[0].a[1]"},
		"keys":                    {"{initial: {1: a}}", "state.x.initial"},
		"keys within":             {"{initial: [{a: {true: b}}]}", "state.x.initial[0].a"},
		"keys to merge into":      {"{reducer: merge, initial: {1: a}}", "state.x.initial"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const text = "name: a\nstate: {x: %s}\nnodes: {a: {kind: transform}}\nedges: [[START, a]]"
			parsed, err := Parse(fmt.Appendf(nil, text, test.channel))
			if err != nil {
				t.Fatal(err)
			}
			compiled, err := parsed.Compile(kinds())
			if test.place == "" {
				if err != nil {
					t.Fatal(err)
				}
				request := graph.Request{Thread: "t", Input: graph.State{}}
				if _, err = compiled.Run(t.Context(), request, graph.Options{Saver: &graph.Memory{}}); err != nil {
					t.Error(err)
				}
				return
			}
			var wrong *violation.Error
			if !errors.As(err, &wrong) || len(wrong.Violations) != 1 || wrong.Violations[0].Field != test.place {
				t.Errorf("%v, want one at %s", err, test.place)
			}
		})
	}
}
