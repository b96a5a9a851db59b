package document

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// TestExpressionsThatTakeLongToCompileAreRefused has documents that would take from minutes
// to an hour each.
func TestExpressionsThatTakeLongToCompileAreRefused(t *testing.T) {
	t.Parallel()
	const many = 20
	nested := func(begin string, n int, end string) string {
		return strings.Repeat(begin, n) + "1" + strings.Repeat(end, n)
	}
	for name, test := range map[string]struct {
		hostile, want string
	}{
		"maps in arguments":    {"[1]" + strings.Repeat(".map(x,[1,2]", 200) + strings.Repeat(")", 200), "100 levels"},
		"maps":                 {nested("[1].map(x,", 90, ")"), "16 levels"},
		"maps of lists":        {nested("[", 90, "].map(x,x)"), "16 levels"},
		"maps with conditions": {nested("[1].map(x,true,", 90, ")"), "16 levels"},
		"optional values":      {nested("optional.of(1).optMap(x,", 90, ")"), "16 levels"},
		"lists":                {nested("[", 90, "]"), "16 levels"},
		"objects":              {nested("{'a':", 90, "}"), "16 levels"},
		"a chain of maps":      {"[1]" + strings.Repeat(".map(x,x)", 300), "100 levels"},
		"a chain of sums":      {strings.Repeat("1+", 1000) + "1", "100 levels"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state := []byte("name: hostile\nedges: [[START, a]]\nstate:\n")
			nodes := []byte("nodes:\n  a:\n    kind: transform\n    set:\n")
			for i := range many {
				state = fmt.Appendf(state, "  c%d: {}\n", i)
				nodes = fmt.Appendf(nodes, "      c%d: %q\n", i, test.hostile)
			}
			parsed, err := Parse(append(state, nodes...))
			if err != nil {
				t.Fatal(err)
			}
			_, err = parsed.Compile(kinds())
			var wrong *violation.Error
			if !errors.As(err, &wrong) || len(wrong.Violations) != many {
				t.Fatalf("%.500v", err)
			}
			for _, v := range wrong.Violations {
				if !strings.HasPrefix(v.Field, "nodes.a.set.c") || !strings.Contains(v.Description, test.want) {
					t.Fatalf("%.300s: %.300s", v.Field, v.Description)
				}
			}
		})
	}
}

func TestExpressionsOfNormalDepthWork(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"maps in maps":  "[1].map(a, [2].map(b, [3].map(c, [4].map(d, [a, b, c, d]))))",
		"filters":       "[3, 4].filter(x, [1, 2].exists(y, [1].all(z, x + y == 5 || z == 0))).map(x, {'a': [x]})",
		"a chain":       "['a']" + strings.Repeat(".map(x, x + 'b')", 40),
		"a long sum":    strings.Repeat("'part ' + ", 80) + "'end'",
		"a long choice": strings.Repeat("size('a') == 2 ? 'x' : ", 40) + "'y'",
		"objects":       "{'a': {'b': {'c': {'d': [[{'e': 1}]]}}}}",
		"optional":      "optional.of(1).optMap(x, optional.of(x).optMap(y, y + 1).orValue(2)).orValue(3)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := newExpression(text, anyType)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := e.eval(t.Context(), graph.State{}, nil); err != nil {
				t.Error(err)
			}
		})
	}
}
