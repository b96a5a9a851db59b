package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// schema is a JSON Schema, draft 2020-12, ready to check documents.
type schema struct {
	// raw is the schema as it was written.
	raw []byte
	// description is its top-level `description`, which every schema here has.
	description string
	// required are the properties that it asks for, texts those that are any text.
	required []string
	texts    map[string]bool
	// open says that every object fits.
	open     bool
	compiled *jsonschema.Schema
}

func newSchema(name string, raw []byte) (*schema, error) {
	var head struct {
		Description string   `json:"description"`
		Required    []string `json:"required"`
		Properties  map[string]struct {
			Type any   `json:"type"`
			Enum []any `json:"enum"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, fmt.Errorf("parse schema %s: %w", name, err)
	}
	if head.Description == "" {
		return nil, fmt.Errorf("schema %s has no description", name)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("parse schema %s: %w", name, err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	if err := compiler.AddResource(name, document); err != nil {
		return nil, fmt.Errorf("add schema %s: %w", name, err)
	}
	compiled, err := compiler.Compile(name)
	if err != nil {
		return nil, fmt.Errorf("compile schema %s: %w", name, err)
	}
	texts := map[string]bool{}
	for property, of := range head.Properties {
		texts[property] = of.Type == "string" && of.Enum == nil
	}
	return &schema{
		raw: raw, description: head.Description, required: head.Required, texts: texts,
		open: isOpen(document), compiled: compiled,
	}, nil
}

// missingText returns the one required property that an object lacks, if that is
// any text; empty otherwise.
func (s *schema) missingText(object map[string]json.RawMessage) string {
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

// mergeSchemas adds the properties of a schema of an object to those of another,
// and takes its description.
func mergeSchemas(base, extra []byte) ([]byte, error) {
	type object struct {
		Schema               string                     `json:"$schema"`
		Description          string                     `json:"description"`
		Type                 string                     `json:"type"`
		Properties           map[string]json.RawMessage `json:"properties"`
		Required             []string                   `json:"required"`
		AdditionalProperties bool                       `json:"additionalProperties"` //nolint:tagliatelle // JSON Schema's own name
	}
	var merged, added object
	if err := json.Unmarshal(base, &merged); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(extra, &added); err != nil {
		return nil, err
	}
	merged.Description = added.Description
	merged.Required = append(merged.Required, added.Required...)
	maps.Copy(merged.Properties, added.Properties)
	return json.MarshalIndent(merged, "", "  ")
}

// check returns a *violation.Error that names every field of a JSON text that
// does not fit, by its path from root; nil when all do.
func (s *schema) check(root string, text []byte) error {
	if s.open && jsonvalue.ValidateObject(root, text) == nil {
		return nil
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return violation.New(root, "is not valid JSON")
	}
	document = bounded(document)
	err = s.compiled.Validate(document)
	if err == nil {
		return nil
	}
	var failure *jsonschema.ValidationError
	if !errors.As(err, &failure) {
		return fmt.Errorf("validate %s: %w", root, err)
	}
	return explain(root, document, failure)
}

// maxNumberText is longer than any number that is written without intent to harm.
const maxNumberText = 32

// bounded replaces numbers that are costly to compare exactly (1e999999 has a
// million digits) by the nearest double. Only the validator sees the copy: the
// text itself stays as it was written.
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
