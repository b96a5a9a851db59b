// Package tool is what a model may have done: functions in Go, calls of HTTP
// endpoints, and, by package mcp, what MCP servers offer. It checks what a model
// asks for before it is done, and contains the doing: a tool that hangs, panics or
// floods its output fails its own call.
package tool

import (
	"context"
	"regexp"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonschema"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// DefaultTimeout is how long one call may take of a tool that does not say.
const DefaultTimeout = 60 * time.Second

// Tool is one thing that a model may have done.
type Tool struct {
	// Name is of letters, digits, underscores and dashes, at most 64.
	Name string
	// Description says to the model what it does and when to use it.
	Description string
	// Schema is the JSON Schema, draft 2020-12, of the arguments, an object. Empty
	// takes any object.
	Schema []byte
	// Timeout is the longest one call may take; 0: DefaultTimeout.
	Timeout time.Duration
	// Approval asks for a person's consent before each call.
	Approval bool
	// Call does it. An error is a failure of the tool's machinery, such as an endpoint
	// that cannot be reached; its text, like that of a Result, holds no secret. Call is
	// safe for concurrent use, and should return when ctx ends; see Runner for one that
	// does not.
	Call func(ctx context.Context, c Call) (Result, error)
}

// Call is one use of a tool.
type Call struct {
	Namespace string
	RunID     string
	// ID is the same when the call is repeated after a crash: an idempotency key.
	ID string
	// Arguments are a JSON object that fits the tool's schema.
	Arguments []byte
}

// Result is what a tool gives back to the model.
type Result struct {
	Text string
	// Failed says that Text is the tool's own refusal: the model is told and goes on.
	Failed bool
	Images []model.Image
	// Structured is the result as JSON, where the tool gives it as that too; or empty.
	Structured []byte
}

// MaxNameBytes is how long a tool's name may be: providers take no longer one.
const MaxNameBytes = 64

var namePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// anyObject is the schema of a tool that has none.
const anyObject = `{"type": "object"}`

// check returns a *violation.Error for a tool that cannot be offered, and compiles its schema.
func (t Tool) check(field string) (*jsonschema.Schema, error) {
	var errCall error
	if t.Call == nil {
		errCall = violation.New(field+".call", "is required")
	}
	schema, errSchema := compileSchema(field+".schema", t.Schema)
	return schema, violation.Join(t.checkNames(field), errCall, errSchema)
}

// checkForm is check for a tool that cannot be called yet.
func (t Tool) checkForm(field string) error {
	_, err := compileSchema(field+".schema", t.Schema)
	return violation.Join(t.checkNames(field), err)
}

func (t Tool) checkNames(field string) error {
	var errName, errTimeout error
	if !namePattern.MatchString(t.Name) {
		errName = violation.New(field+".name", "must be 1 to %d letters, digits, underscores and dashes", MaxNameBytes)
	}
	if t.Timeout < 0 {
		errTimeout = violation.New(field+".timeout", "must not be negative")
	}
	return violation.Join(errName, errTimeout)
}

// compileSchema compiles the schema of a tool's arguments.
func compileSchema(field string, raw []byte) (*jsonschema.Schema, error) {
	if len(raw) == 0 {
		raw = []byte(anyObject)
	}
	schema, err := jsonschema.New("arguments.json", raw)
	if err != nil {
		return nil, violation.New(field, "is no JSON Schema of draft 2020-12: %s", violation.Clip(err.Error(), 300))
	}
	return schema, nil
}
