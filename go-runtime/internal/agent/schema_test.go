package agent

import (
	"encoding/json"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
)

// objectSchema is what these tests look at in a schema, at any depth.
type objectSchema struct {
	Description          string                  `json:"description"`
	Type                 string                  `json:"type"`
	Properties           map[string]objectSchema `json:"properties"`
	Items                *objectSchema           `json:"items"`
	Required             []string                `json:"required"`
	AdditionalProperties *bool                   `json:"additionalProperties"` //nolint:tagliatelle // JSON Schema's own name
}

// TestAnswerSchemasKeepToStrictMode holds them to what providers enforce:
// objects are closed and every property is required.
func TestAnswerSchemasKeepToStrictMode(t *testing.T) {
	t.Parallel()
	loader := newCatalogLoader(t)
	checked := 0
	for agentID, a := range newRegistry(t).agents {
		for name := range a.tasks {
			answer, err := loader.answerSchema(path.Join(agentID, name))
			if err != nil {
				t.Fatal(err)
			}
			var decoded objectSchema
			if err := json.Unmarshal(answer.Raw(), &decoded); err != nil {
				t.Fatal(err)
			}
			checkStrict(t, agentID+"/"+name, decoded)
			checked++
		}
	}
	if checked == 0 {
		t.Error("no answer schema was checked")
	}
}

func checkStrict(t *testing.T, at string, schema objectSchema) {
	t.Helper()
	if schema.Items != nil {
		checkStrict(t, at+"[]", *schema.Items)
	}
	if schema.Type != "object" {
		return
	}
	if schema.AdditionalProperties == nil || *schema.AdditionalProperties {
		t.Errorf("%s is not closed", at)
	}
	for name, property := range schema.Properties {
		if !slices.Contains(schema.Required, name) {
			t.Errorf("%s.%s is not required", at, name)
		}
		checkStrict(t, at+"."+name, property)
	}
}

// TestInputSchemasTellTheirReader holds them to what a caller needs to know.
func TestInputSchemasTellTheirReader(t *testing.T) {
	t.Parallel()
	registry := newRegistry(t)
	tasks := registry.TaskTypes()
	for _, a := range registry.Agents("default") {
		if a.Description == "" || a.Model != "offline" || len(a.TaskTypes) == 0 {
			t.Errorf("agent %s lacks a description, its model or task types: %+v", a.ID, a)
		}
		tasks = append(tasks, a.TaskTypes...)
	}
	for _, task := range tasks {
		var decoded objectSchema
		if err := json.Unmarshal(task.InputSchema, &decoded); err != nil {
			t.Fatal(err)
		}
		if task.Description == "" || task.Description != decoded.Description || decoded.Type != "object" {
			t.Errorf("%s is described as %q, with an input of type %q", task.Name, task.Description, decoded.Type)
		}
		for name, property := range decoded.Properties {
			if property.Description == "" {
				t.Errorf("%s: property %s has no description", task.Name, name)
			}
		}
	}
}

// TestInstructionsNameTheirTaskType keeps a copied folder from telling the model of another task.
func TestInstructionsNameTheirTaskType(t *testing.T) {
	t.Parallel()
	loader := newCatalogLoader(t)
	for agentID, a := range newRegistry(t).agents {
		for name := range a.tasks {
			if name == conversationTask {
				continue
			}
			text, err := loader.text(path.Join(agentID, name, instructionsFile))
			if err != nil || !strings.HasPrefix(text, "Task type `"+name+"`: ") {
				t.Errorf("instructions of %s/%s begin with another task type (%v)", agentID, name, err)
			}
		}
	}
}

func TestNewSchemaRefusesABrokenOne(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"no JSON":        `{`,
		"no description": `{"type": "object"}`,
		"unknown type":   `{"description": "d", "type": "thing"}`,
	}
	for name, raw := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := newSchema("broken.json", []byte(raw)); err == nil {
				t.Error("newSchema took it")
			}
		})
	}
}

func newCatalogLoader(t *testing.T) catalogLoader {
	t.Helper()
	files, err := fs.Sub(catalogFiles, "catalog")
	if err != nil {
		t.Fatal(err)
	}
	return catalogLoader{files: files}
}
