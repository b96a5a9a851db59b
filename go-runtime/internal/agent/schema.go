package agent

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonschema"
)

// newSchema compiles a schema of the runtime's own, which tells its reader what it is for.
func newSchema(name string, raw []byte) (*jsonschema.Schema, error) {
	compiled, err := jsonschema.New(name, raw)
	if err != nil {
		return nil, err
	}
	if compiled.Description() == "" {
		return nil, fmt.Errorf("schema %s has no description", name)
	}
	return compiled, nil
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
