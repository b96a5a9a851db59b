// Package jsonschema holds JSON texts to JSON Schemas, draft 2020-12, and says of
// each field that does not fit what would, in words that a person or a model can
// mend the text by.
package jsonschema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Schema is a JSON Schema that is ready to check texts. It is safe for concurrent use.
type Schema struct {
	raw         []byte
	description string
	// required are the properties that it asks for, texts those that are any text.
	required []string
	texts    map[string]bool
	// open says that every object fits.
	open     bool
	compiled *validator.Schema
	// budget bounds a check; nil where none is needed.
	budget *budget
}

// New compiles a schema. The name stands for it in errors and begins the address
// that its own references are relative to; a reference to anything but a part of
// the schema itself is refused, so that none reads files or asks servers. For a text
// that is no schema the error wraps a *violation.Error whose paths begin with the name.
func New(name string, raw []byte) (*Schema, error) {
	var head struct {
		Description string   `json:"description"`
		Required    []string `json:"required"`
		Properties  map[string]struct {
			Type any   `json:"type"`
			Enum []any `json:"enum"`
		} `json:"properties"`
	}
	if err := jsonvalue.Validate(name, raw); err != nil {
		return nil, fmt.Errorf("parse schema: %w", err)
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, fmt.Errorf("parse schema %s: %w", name, err)
	}
	document, err := validator.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("parse schema %s: %w", name, err)
	}
	document = bounded(document)
	compiler := validator.NewCompiler()
	compiler.DefaultDraft(validator.Draft2020)
	compiler.UseLoader(validator.SchemeURLLoader{})
	var spending *budget
	if refers(document) {
		spending = &budget{}
		compiler.RegisterVocabulary(spending.vocabulary())
		compiler.AssertVocabs()
	}
	if err := compiler.AddResource(name, document); err != nil {
		return nil, fmt.Errorf("add schema %s: %w", name, err)
	}
	compiled, err := compiler.Compile(name)
	if invalid, failure := (*validator.SchemaValidationError)(nil), (*validator.ValidationError)(nil); errors.As(err, &invalid) &&
		errors.As(invalid.Err, &failure) {
		return nil, fmt.Errorf("compile schema: %w", explain(name, document, failure))
	}
	if err != nil {
		return nil, fmt.Errorf("compile schema %s: %w", name, err)
	}
	texts := map[string]bool{}
	for property, of := range head.Properties {
		texts[property] = of.Type == "string" && of.Enum == nil
	}
	return &Schema{
		raw: raw, description: head.Description, required: head.Required, texts: texts,
		open: isOpen(document), compiled: compiled, budget: spending,
	}, nil
}

// Of compiles the schema that a field of a document has; nil: it has none. Its error is a
// *violation.Error of the field.
func Of(field string, object map[string]any) (*Schema, error) {
	if object == nil {
		return nil, nil
	}
	raw, err := json.Marshal(object)
	if err != nil {
		return nil, violation.New(field, "is no JSON: %s", err)
	}
	schema, err := New(field, raw)
	if wrong, named := errors.AsType[*violation.Error](err); named {
		return nil, wrong
	}
	if err != nil {
		return nil, violation.New(field, "is no JSON Schema: %s", err)
	}
	return schema, nil
}

// Raw is the schema as it was written. It is shared: do not change it.
func (s *Schema) Raw() []byte { return s.raw }

// Description is the schema's top-level `description`, empty where it has none.
func (s *Schema) Description() string { return s.description }

// MissingText returns the one required property that an object lacks, if that is
// any text; empty otherwise.
func (s *Schema) MissingText(object map[string]json.RawMessage) string {
	missing := ""
	for _, property := range s.required {
		if _, given := object[property]; given {
			continue
		}
		if missing != "" || !s.texts[property] {
			return ""
		}
		missing = property
	}
	return missing
}

// isOpen reports whether a schema asks for nothing but an object.
func isOpen(document any) bool {
	members, _ := document.(map[string]any)
	for name := range members {
		switch name {
		case "$schema", "title", "description", "type":
		default:
			return false
		}
	}
	return members["type"] == "object"
}

// Check returns a *violation.Error that names every field of a JSON text that
// does not fit, by its path from root; nil when all do.
func (s *Schema) Check(root string, text []byte) error {
	if s.open && jsonvalue.ValidateObject(root, text) == nil {
		return nil
	}
	document, err := validator.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return violation.New(root, "is not valid JSON")
	}
	document = bounded(document)
	within, err := s.validate(document)
	if !within {
		return violation.New(root, "takes too long to check: its schema refers to itself too often for so deep a text")
	}
	if err == nil {
		return nil
	}
	var failure *validator.ValidationError
	if !errors.As(err, &failure) {
		return fmt.Errorf("validate %s: %w", root, err)
	}
	return explain(root, document, failure)
}

func (s *Schema) validate(document any) (within bool, said error) {
	if s.budget != nil {
		return s.budget.spend(s.compiled, document)
	}
	return true, s.compiled.Validate(document)
}

// maxNumberText is longer than any number that is written without intent to harm.
const maxNumberText = 32

// bounded replaces numbers that are costly to compare exactly (1e999999 has a
// million digits) by the nearest double, in a schema as in a text. Only the validator
// sees the copy: the text itself stays as it was written.
func bounded(document any) any {
	switch value := document.(type) {
	case map[string]any:
		for key, member := range value {
			value[key] = bounded(member)
		}
	case []any:
		for i, item := range value {
			value[i] = bounded(item)
		}
	case json.Number:
		return boundedNumber(value)
	}
	return document
}

func boundedNumber(number json.Number) json.Number {
	float, err := number.Float64()
	switch {
	case err != nil && float > 0:
		return "1e308"
	case err != nil:
		return "-1e308"
	case float == 0 || len(number) > maxNumberText:
		return json.Number(strconv.FormatFloat(float, 'g', -1, 64))
	}
	return number
}
