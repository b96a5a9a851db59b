package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/djangobridge/djangobridge/go-runtime/internal/definition"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/document"
	"github.com/djangobridge/djangobridge/go-runtime/internal/recent"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Definitions are the documents that can be run: those that are registered, and the
// runtime's own.
type Definitions interface {
	// Get returns a version of a document that a namespace sees; "": the current one,
	// without waiting for anything. Errors: *definition.NotFoundError, the journal's.
	Get(ctx context.Context, namespace string, kind definition.Kind, name, version string) (definition.Definition, error)
	// List returns what is current of a kind, by name.
	List(namespace string, kind definition.Kind) []definition.Definition
}

// builtIns are the Definitions where none are registered.
type builtIns []definition.Definition

// Get implements Definitions.
func (b builtIns) Get(
	_ context.Context, _ string, kind definition.Kind, name, version string,
) (definition.Definition, error) {
	for _, d := range b {
		if d.Kind == kind && d.Name == name && (version == "" || version == d.Version) {
			return d, nil
		}
	}
	return definition.Definition{}, &definition.NotFoundError{Kind: kind, Name: name, Version: version}
}

// List implements Definitions.
func (b builtIns) List(_ string, kind definition.Kind) []definition.Definition {
	return slices.DeleteFunc(slices.Clone(b), func(d definition.Definition) bool { return d.Kind != kind })
}

// maxCompiledBytes bounds what is kept compiled of a kind, each document of which takes
// about compiledPerByte of its text.
const (
	maxCompiledBytes = 64 << 20
	compiledPerByte  = 8
)

// compiled is the documents of a kind, each version of which is compiled once.
type compiled[T any] struct {
	definitions Definitions
	kind        definition.Kind
	compile     func(text []byte) (T, error)
	cache       *recent.Cache[compiledKey, *version[T]]
}

type compiledKey struct{ namespace, name, version string }

// version is one of a document, compiled.
type version[T any] struct {
	is    T
	name  string
	bytes int
}

func newCompiled[T any](definitions Definitions, kind definition.Kind, compile func([]byte) (T, error)) *compiled[T] {
	return &compiled[T]{
		definitions: definitions, kind: kind, compile: compile,
		cache: recent.New(maxCompiledBytes, func(_ compiledKey, v *version[T]) int { return v.bytes }),
	}
}

// get returns a version that a namespace sees; "": the current one. Errors:
// *definition.NotFoundError, a *violation.Error where this runtime cannot run it, the journal's.
func (c *compiled[T]) get(ctx context.Context, namespace, name, wanted string) (*version[T], error) {
	found, err := c.definitions.Get(ctx, namespace, c.kind, name, wanted)
	if err != nil {
		return nil, err
	}
	key := compiledKey{found.Namespace, found.Name, found.Version}
	if kept, known := c.cache.Get(key); known {
		return kept, nil
	}
	is, err := c.compile(found.Text)
	if err != nil {
		return nil, fmt.Errorf("version %s of %s %s: %w", found.Version, c.kind, name, err)
	}
	v := &version[T]{is: is, name: found.Version, bytes: compiledPerByte * len(found.Text)}
	c.cache.Add(key, v)
	return v, nil
}

// pinKey is the key under which a run records the version that it uses under a name.
func (c *compiled[T]) pinKey(name string) string { return string(c.kind) + ": " + name }

// pin returns the document that a run uses under a name: the version with which it began,
// else the current one, which is noted for later calls with the run.
func (c *compiled[T]) pin(ctx context.Context, call engine.Call, name string) (is T, err error) {
	key := c.pinKey(name)
	var pinned struct {
		Version string `json:"version"`
	}
	at := slices.IndexFunc(call.Steps, func(step engine.Step) bool { return step.Key == key })
	if at >= 0 {
		if err := json.Unmarshal(call.Steps[at].Result, &pinned); err != nil {
			return is, fmt.Errorf("read version of %s %s: %w", c.kind, name, err)
		}
	}
	found, err := c.get(ctx, call.Namespace, name, pinned.Version)
	if err != nil {
		return is, err
	}
	if at >= 0 {
		return found.is, nil
	}
	pinned.Version = found.name
	text, err := encode(pinned)
	if err != nil {
		return is, err
	}
	return found.is, call.Record(ctx, key, text)
}

// names are those that a namespace sees, sorted.
func (c *compiled[T]) names(namespace string) []string {
	var names []string
	for _, d := range c.definitions.List(namespace, c.kind) {
		names = append(names, d.Name)
	}
	return names
}

// currentGraph returns the graph that a namespace has under a name, or an *UnknownGraphError.
func (r *Registry) currentGraph(ctx context.Context, namespace, name string) (*document.Compiled, error) {
	found, err := r.graphs.get(ctx, namespace, name, "")
	if errors.As(err, new(*definition.NotFoundError)) {
		return nil, &UnknownGraphError{GraphID: name, Known: r.graphs.names(namespace)}
	}
	if err != nil {
		return nil, err
	}
	return found.is, nil
}

func (r *Registry) compileGraph(text []byte) (*document.Compiled, error) {
	parsed, err := document.Parse(text)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{threadMember, "graph_id", "chain_id"} {
		if _, taken := parsed.State[name]; taken {
			return nil, violation.New("state."+name, "is what an input names threads and graphs by: call the channel otherwise")
		}
	}
	return parsed.Compile(r.kinds())
}

func (r *Registry) compileAgent(text []byte) (*agent, error) {
	d, err := ParseDocument(text)
	if err != nil {
		return nil, err
	}
	return r.compile(d)
}

// BuiltIn returns the documents that are part of the runtime.
func (r *Registry) BuiltIn() []definition.Definition { return r.builtIn }

// Check reads a document and returns what it says of itself. Its error is a
// *violation.Error that names every mistake with its place in the document, or a
// *violation.TooLargeError.
func (r *Registry) Check(_ string, kind definition.Kind, text []byte) (name, description string, err error) {
	switch kind {
	case definition.Graph:
		made, err := r.compileGraph(text)
		if err != nil {
			return "", "", err
		}
		return made.Name(), made.Description, nil
	case definition.Agent:
		made, err := r.compileAgent(text)
		if err != nil {
			return "", "", err
		}
		if _, taken := r.agents[made.id]; taken || r.endpoints[made.id] != nil {
			return "", "", violation.New("name", "%s is an agent of the runtime's own", made.id)
		}
		return made.id, made.description, nil
	}
	return "", "", violation.New("kind", "must be %s or %s, is %q", definition.Graph, definition.Agent, kind)
}

// agentOf returns an agent of the runtime's own, or one that is registered in a namespace; nil:
// there is none.
func (r *Registry) agentOf(namespace, id string) *agent {
	if a := r.agents[id]; a != nil {
		return a
	}
	// What is current is in memory.
	found, err := r.defined.get(context.Background(), namespace, id, "")
	if err != nil {
		return nil
	}
	return found.is
}

// pinned has a run of an agent that is data go on with the version that it began with.
func (r *Registry) pinned(id, taskType string) engine.Task {
	return func(ctx context.Context, call engine.Call) ([]byte, error) {
		a, err := r.defined.pin(ctx, call, id)
		if err != nil {
			return nil, err
		}
		return a.task(taskType).task(ctx, call)
	}
}
