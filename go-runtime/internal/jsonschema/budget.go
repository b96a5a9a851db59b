package jsonschema

import (
	"runtime"
	"slices"
	"sync"

	validator "github.com/santhosh-tekuri/jsonschema/v6"
)

// maxSteps is how many times the parts of one schema are held to the parts of one
// text: honest schemas need a few thousand. One whose parts refer to each other can
// ask for more than a machine will ever do.
const maxSteps = 50_000

// budget bounds the checks of a schema with references. The validator has no end of
// its own, so one that spends too much ends its goroutine. Without references each
// part of a schema meets each part of a text once, and no budget is needed.
type budget struct {
	mu    sync.Mutex
	steps int
}

// vocabulary has the validator call Validate after each part of the schema.
func (b *budget) vocabulary() *validator.Vocabulary {
	return &validator.Vocabulary{
		URL:     "urn:agentruntime:budget",
		Compile: func(*validator.CompilerContext, map[string]any) (validator.SchemaExt, error) { return b, nil },
	}
}

// Validate implements validator.SchemaExt.
func (b *budget) Validate(*validator.ValidatorContext, any) {
	if b.steps++; b.steps > maxSteps {
		runtime.Goexit()
	}
}

// spend returns what the validator says, or false when that would cost too much.
func (b *budget) spend(compiled *validator.Schema, document any) (within bool, said error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.steps = 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		said = compiled.Validate(document)
		within = true
	}()
	<-done
	return within, said
}

// refers reports whether a schema has references in it.
func refers(document any) bool {
	switch value := document.(type) {
	case map[string]any:
		for key, member := range value {
			if key == "$ref" || key == "$dynamicRef" || key == "$recursiveRef" || refers(member) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(value, refers)
	}
	return false
}
