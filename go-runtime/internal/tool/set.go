package tool

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonschema"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Set is the tools that one model is offered, by name. It does not change, and is
// safe for concurrent use.
type Set struct {
	tools map[string]member
}

type member struct {
	tool   Tool
	schema *jsonschema.Schema
}

// NewSet checks tools and compiles their schemas. The error is a *violation.Error
// that names every tool, as tools[2].name, that cannot be offered or whose name is taken.
func NewSet(tools ...Tool) (*Set, error) {
	s := &Set{tools: make(map[string]member, len(tools))}
	var errs []error
	for i, t := range tools {
		field := fmt.Sprintf("tools[%d]", i)
		schema, err := t.check(field)
		if _, taken := s.tools[t.Name]; taken {
			err = violation.Join(err, violation.New(field+".name", "%q is the name of another tool", t.Name))
		}
		errs = append(errs, err)
		s.tools[t.Name] = member{tool: t, schema: schema}
	}
	if err := violation.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

// Names are those of the tools, sorted.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.tools)) }

// Lookup returns a tool by its name.
func (s *Set) Lookup(name string) (Tool, bool) {
	m, found := s.tools[name]
	return m.tool, found
}

// Model describes the tools for a request to a model, sorted by name.
func (s *Set) Model() []model.Tool {
	described := make([]model.Tool, 0, len(s.tools))
	for _, name := range s.Names() {
		m := s.tools[name]
		described = append(described, model.Tool{Name: name, Description: m.tool.Description, Schema: m.schema.Raw()})
	}
	return described
}

// Prepare returns the tool that a model's call is of, and its arguments as Call
// has them: no text at all stands for no arguments. The error says what is wrong in
// words that the model can mend its call by: *UnknownToolError, or a
// *violation.Error that names every argument that does not fit.
func (s *Set) Prepare(call model.ToolCall) (Tool, []byte, error) {
	m, found := s.tools[call.Name]
	if !found {
		return Tool{}, nil, &UnknownToolError{Name: call.Name, Known: s.Names()}
	}
	arguments := bytes.TrimSpace([]byte(call.Arguments))
	if len(arguments) == 0 {
		arguments = []byte("{}")
	}
	if err := jsonvalue.ValidateObject("arguments", arguments); err != nil {
		return Tool{}, nil, err
	}
	if err := m.schema.Check("arguments", arguments); err != nil {
		return Tool{}, nil, err
	}
	return m.tool, arguments, nil
}

// UnknownToolError is returned for a call of a tool that there is not.
type UnknownToolError struct {
	Name string
	// Known are those there are, sorted.
	Known []string
}

func (e *UnknownToolError) Error() string {
	name := violation.Clip(e.Name, MaxNameBytes)
	if len(e.Known) == 0 {
		return fmt.Sprintf("no tool is called %q; there are none", name)
	}
	return fmt.Sprintf("no tool is called %q; there are %s", name, strings.Join(e.Known, ", "))
}
