package model

import (
	"encoding/json"
	"regexp"
	"strings"

	"github.com/google/uuid"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// labels is what providers take as names of tools and schemas.
var labels = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// validate refuses, by name, what no provider would take.
func (r Request) validate() error {
	var unfit []error
	refuse := func(field, format string, args ...any) { unfit = append(unfit, violation.New(field, format, args...)) }
	if len(r.Messages) == 0 {
		refuse("messages", "must have at least one")
	}
	if r.Schema != nil {
		if !labels.MatchString(r.Schema.Name) {
			refuse("schema.name", "must be 1 to 64 letters, digits, underscores or dashes")
		}
		if !isObject(r.Schema.JSON) {
			refuse("schema", "must be a JSON object")
		}
	}
	for _, tool := range r.Tools {
		if !labels.MatchString(tool.Name) {
			refuse("tools", "has the name %q; want 1 to 64 letters, digits, underscores or dashes", tool.Name)
		}
		if len(tool.Schema) > 0 && !isObject(tool.Schema) {
			refuse("tools", "has a schema of %q that is no JSON object", tool.Name)
		}
	}
	called := map[string]bool{}
	for _, message := range r.Messages {
		for _, call := range message.ToolCalls {
			called[call.ID] = true
		}
		if message.Role == ToolResult && !called[message.ToolCallID] {
			refuse("messages", "has a result of the tool call %q, which is not before it", message.ToolCallID)
		}
		for _, image := range message.Images {
			if (image.URL == "") == (len(image.Data) == 0) || (len(image.Data) > 0 && image.MediaType == "") {
				refuse("messages", "has an image without data and media type, or a URL in their place")
			}
		}
	}
	return violation.Join(unfit...)
}

func isObject(text []byte) bool {
	var object map[string]json.RawMessage
	return json.Unmarshal(text, &object) == nil && object != nil
}

// instructions state the schema too: some endpoints take one and ignore it, and
// models answer better when they see it.
func (r Request) instructions() string {
	if r.Schema == nil {
		return r.Instructions
	}
	return r.Instructions + "\n\nAnswer with one JSON object and nothing around it. It must fit this JSON Schema:\n" +
		string(r.Schema.JSON)
}

// schemaOf is the JSON Schema of a tool's arguments; without one there are none.
func schemaOf(tool Tool) json.RawMessage {
	if len(tool.Schema) == 0 {
		return json.RawMessage(`{"type":"object","properties":{}}`)
	}
	return tool.Schema
}

// objectOf reads a text that is a JSON object, or puts any other into one: some
// providers take a call's arguments back only as an object.
func objectOf(text string) map[string]any {
	var members map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &members) != nil || members == nil {
		return map[string]any{"invalid_json": text}
	}
	object := make(map[string]any, len(members))
	for name, value := range members {
		object[name] = value
	}
	return object
}

// newCallID makes the id of a call that its provider gave none. All providers take it back.
func newCallID() string { return "call_" + strings.ReplaceAll(uuid.NewString(), "-", "") }
