package document

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/ext"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
)

// What an expression may cost and take. Hostile ones end at these, not the runtime.
const (
	maxExpressionBytes = 4096
	// maxDepth bounds how deep the parser goes, and how long a chain of operators or calls is;
	// maxNesting is eight maps in each other.
	maxDepth       = 100
	maxNesting     = 16
	maxCost        = 1_000_000
	interruptEvery = 100
)

//nolint:gochecknoglobals // constants, were types any
var (
	anyType       = cel.DynType
	jsonValueType = reflect.TypeFor[*structpb.Value]()
)

// environment is made once: it takes a while.
var environment = sync.OnceValues(func() (*cel.Env, error) { //nolint:gochecknoglobals // immutable
	return cel.NewEnv(
		cel.Variable("state", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("out", cel.DynType),
		cel.ParserRecursionLimit(maxDepth), cel.OptionalTypes(), cel.CrossTypeNumericComparisons(true), ext.Strings(), ext.Lists(),
	)
})

// expression is a CEL program over the state and what a node came to.
type expression struct{ program cel.Program }

// newExpression compiles a text. want is what it must give; anyType: anything.
func newExpression(text string, want *cel.Type) (*expression, error) {
	if len(text) > maxExpressionBytes {
		return nil, fmt.Errorf("must have at most %d bytes, has %d", maxExpressionBytes, len(text))
	}
	env, err := environment()
	if err != nil {
		return nil, err
	}
	parsed, issues := env.Parse(text)
	if said := issues.String(); issues.Err() != nil && strings.Contains(said, "recursion") {
		return nil, fmt.Errorf("nests too deep, or is too long a chain: %d levels are allowed", maxDepth)
	}
	if issues.Err() != nil {
		return nil, errors.New(strings.TrimSpace(issues.String()))
	}
	if nestingOf(parsed.NativeRep().Expr(), maxNesting) > maxNesting {
		return nil, fmt.Errorf("nests lists, objects and macros too deep: %d levels are allowed, of which a map has two", maxNesting)
	}
	checked, issues := env.Check(parsed)
	if issues.Err() != nil {
		return nil, errors.New(strings.TrimSpace(issues.String()))
	}
	given := checked.OutputType()
	if want != anyType && !given.IsExactType(want) && !given.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("gives %s, and must give %s", given, want)
	}
	program, err := env.Program(checked,
		cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost), cel.InterruptCheckFrequency(interruptEvery))
	if err != nil {
		return nil, err
	}
	return &expression{program}, nil
}

// eval returns what the expression gives, as JSON has it. Its error is an
// *ExpressionError, or ctx's.
func (e *expression) eval(ctx context.Context, state graph.State, out any) (any, error) {
	value, _, err := e.program.ContextEval(ctx, map[string]any{"state": state, "out": out})
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, &ExpressionError{err}
	}
	read, err := value.ConvertToNative(jsonValueType)
	if err != nil {
		return nil, &ExpressionError{fmt.Errorf("it gives no JSON: %w", err)}
	}
	plain, isValue := read.(*structpb.Value)
	if !isValue {
		return nil, &ExpressionError{fmt.Errorf("it gives %T", read)}
	}
	return plain.AsInterface(), nil
}

// ExpressionError says why an expression gives nothing.
type ExpressionError struct{ Cause error }

func (e *ExpressionError) Error() string { return e.Cause.Error() }

// Unwrap returns what evaluating it returned.
func (e *ExpressionError) Unwrap() error { return e.Cause }

// Permanent says that it is a mistake of the document's: no call of a node repairs it.
func (*ExpressionError) Permanent() bool { return true }

// text is a text with expressions between {{ and }}.
type text struct {
	// parts are literal texts, with an expression behind each but the last.
	parts       []string
	expressions []*expression
}

func newText(raw string) (*text, error) {
	t := &text{}
	for {
		before, rest, found := strings.Cut(raw, "{{")
		t.parts = append(t.parts, before)
		if !found {
			return t, nil
		}
		inner, behind, closed := strings.Cut(rest, "}}")
		if !closed {
			return nil, errors.New("has {{ without }}")
		}
		e, err := newExpression(strings.TrimSpace(inner), anyType)
		if err != nil {
			return nil, err
		}
		t.expressions = append(t.expressions, e)
		raw = behind
	}
}

func (t *text) render(ctx context.Context, state graph.State) (string, error) {
	var rendered strings.Builder
	for i, part := range t.parts {
		rendered.WriteString(part)
		if i == len(t.expressions) {
			break
		}
		value, err := t.expressions[i].eval(ctx, state, nil)
		if err != nil {
			return "", err
		}
		if said, isString := value.(string); isString {
			rendered.WriteString(said)
			continue
		}
		encoded, err := json.Marshal(value)
		if err != nil {
			return "", err
		}
		rendered.Write(encoded)
	}
	return rendered.String(), nil
}
