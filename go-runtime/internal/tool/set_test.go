package tool

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// does nothing.
func does(context.Context, Call) (Result, error) { return Result{}, nil }

const orderSchema = `{
	"type": "object", "required": ["id"], "additionalProperties": false,
	"properties": {"id": {"type": "string", "minLength": 1}, "count": {"type": "integer", "minimum": 1}}
}`

func TestSetsRefuseToolsThatCannotBeOffered(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		tools []Tool
		want  []string
	}{
		"names": {
			[]Tool{{Name: "", Call: does}, {Name: "a.b", Call: does}, {Name: strings.Repeat("n", 65), Call: does}},
			[]string{"tools[0].name", "tools[1].name", "tools[2].name"},
		},
		"the same name":  {[]Tool{{Name: "a", Call: does}, {Name: "b", Call: does}, {Name: "a", Call: does}}, []string{"tools[2].name"}},
		"nothing to do":  {[]Tool{{Name: "a"}}, []string{"tools[0].call"}},
		"negative":       {[]Tool{{Name: "a", Call: does, Timeout: -1}}, []string{"tools[0].timeout"}},
		"no JSON":        {[]Tool{{Name: "a", Call: does, Schema: []byte("{")}}, []string{"tools[0].schema"}},
		"no schema":      {[]Tool{{Name: "a", Call: does, Schema: []byte(`{"type": "thing"}`)}}, []string{"tools[0].schema"}},
		"foreign schema": {[]Tool{{Name: "a", Call: does, Schema: []byte(`{"$ref": "file:///etc/hostname"}`)}}, []string{"tools[0].schema"}},
		"odd pattern":    {[]Tool{{Name: "a", Call: does, Schema: []byte(`{"pattern": "("}`)}}, []string{"tools[0].schema"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := NewSet(test.tools...)
			var unfit *violation.Error
			if !errors.As(err, &unfit) {
				t.Fatalf("NewSet gave %v", err)
			}
			var fields []string
			for _, v := range unfit.Violations {
				fields = append(fields, v.Field)
			}
			if !slices.Equal(fields, test.want) {
				t.Errorf("refused %v, want %v", unfit, test.want)
			}
		})
	}
}

func TestPrepareSaysWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	set, err := NewSet(Tool{Name: "order", Schema: []byte(orderSchema), Call: does}, Tool{Name: "list", Call: does})
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct{ name, arguments, want string }{
		"unknown":      {"orders", "{}", `no tool is called "orders"; there are list, order`},
		"no object":    {"order", "[]", "arguments: must be a JSON object, but is an array"},
		"no JSON":      {"order", `{"id": "1"`, "arguments: is not a JSON text: it ends too early, after byte 9"},
		"two texts":    {"order", `{} {}`, "arguments: is not a JSON text: "},
		"missing":      {"order", "", "arguments.id: is required"},
		"several":      {"order", `{"id": "", "count": 0, "x": 1}`, "arguments.count: must be at least 1; arguments.id: must not be empty; arguments.x: "},
		"another type": {"order", `{"id": 7}`, "arguments.id: must be a string, is a number"},
		"deep":         {"list", strings.Repeat(`{"a":`, 300), "arguments: is nested more than 200 levels deep"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := set.Prepare(model.ToolCall{Name: test.name, Arguments: test.arguments})
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("Prepare says %v, want %s", err, test.want)
			}
		})
	}
	for arguments, want := range map[string]string{"": "{}", " \n": "{}", ` {"a": 1e2}`: `{"a": 1e2}`} {
		prepared, got, err := set.Prepare(model.ToolCall{Name: "list", Arguments: arguments})
		if err != nil || prepared.Name != "list" || string(got) != want {
			t.Errorf("Prepare(%q) gave %s, %v", arguments, got, err)
		}
	}
}

func TestSetsDescribeTheirToolsToModels(t *testing.T) {
	t.Parallel()
	set, err := NewSet(Tool{Name: "b", Description: "does b", Schema: []byte(orderSchema), Call: does}, Tool{Name: "a", Call: does})
	if err != nil {
		t.Fatal(err)
	}
	described := set.Model()
	if len(described) != 2 || described[0].Name != "a" || string(described[0].Schema) != anyObject ||
		described[1].Name != "b" || described[1].Description != "does b" || string(described[1].Schema) != orderSchema {
		t.Errorf("described as %+v", described)
	}
	if _, found := set.Lookup("a"); !found {
		t.Error("tool a is not found")
	}
}

// FuzzPrepare gives any schema and arguments: what passes is an object.
func FuzzPrepare(f *testing.F) {
	f.Add([]byte(orderSchema), `{"id": "1"}`)
	f.Add([]byte(`{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#"}}}`), `{"a": {"a": 1e999}}`)
	f.Add([]byte(`{"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}`), strings.Repeat(`{"a":`, 40)+"1"+strings.Repeat("}", 40))
	f.Fuzz(func(t *testing.T, schema []byte, arguments string) {
		set, err := NewSet(Tool{Name: "a", Schema: schema, Call: does})
		if err != nil {
			return
		}
		_, prepared, err := set.Prepare(model.ToolCall{Name: "a", Arguments: arguments})
		if err == nil && prepared[0] != '{' {
			t.Errorf("%s passes", prepared)
		}
	})
}
