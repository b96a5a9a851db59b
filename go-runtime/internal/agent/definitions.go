package agent

import (
	"context"
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
	parsed, err := parseGraph(text)
	if err != nil {
		return nil, err
	}
	return parsed.Compile(r.kinds())
}

func parseGraph(text []byte) (*document.Document, error) {
	parsed, err := document.Parse(text)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{threadMember, "graph_id", "chain_id"} {
		if _, taken := parsed.State[name]; taken {
			return nil, violation.New("state."+name, "is what an input names threads and graphs by: call the channel otherwise")
		}
	}
	return parsed, nil
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

// Check implements definition.Checker.
func (r *Registry) Check(namespace string, kind definition.Kind, text []byte) (definition.Checked, error) {
	switch kind {
	case definition.Graph:
		parsed, err := parseGraph(text)
		if err != nil {
			return definition.Checked{}, err
		}
		if _, err := parsed.Compile(r.kinds()); err != nil {
			return definition.Checked{}, err
		}
		said := definition.Checked{Name: parsed.Name, Description: parsed.Description}
		said.Missing = r.missing(namespace, definition.Reference{Kind: kind, Name: said.Name}, namedByGraph(parsed))
		return said, nil
	case definition.Agent:
		d, err := ParseDocument(text)
		if err != nil {
			return definition.Checked{}, err
		}
		if _, err := r.compile(d); err != nil {
			return definition.Checked{}, err
		}
		if _, taken := r.agents[d.Name]; taken || r.endpoints[d.Name] != nil {
			return definition.Checked{}, violation.New("name", "%s is an agent of the runtime's own", d.Name)
		}
		said := definition.Checked{Name: d.Name, Description: d.Description}
		said.Missing = r.missing(namespace, definition.Reference{Kind: kind, Name: said.Name}, namedByAgent(d))
		return said, nil
	}
	return definition.Checked{}, violation.New("kind", "must be %s or %s, is %q", definition.Graph, definition.Agent, kind)
}

// namedByGraph are the graphs and agents that nodes name.
func namedByGraph(d *document.Document) (named []definition.Reference) {
	for _, name := range sortedKeys(d.Nodes) {
		node := d.Nodes[name]
		// A kind of node that has another document do something names it by a member of the same name.
		kind := definition.Kind(node.Kind)
		if said, _ := node.With[node.Kind].(string); kind == definition.Graph || kind == definition.Agent {
			named = append(named, definition.Reference{Place: "nodes." + name + ".with." + node.Kind, Kind: kind, Name: said})
		}
	}
	return named
}

// namedByAgent are the agents to which an agent may give tasks.
func namedByAgent(d *Document) (named []definition.Reference) {
	for i, id := range d.Agents {
		named = append(named, definition.Reference{Place: fmt.Sprintf("agents[%d]", i), Kind: definition.Agent, Name: id})
	}
	return named
}

// missing are those of what a document names that a namespace does not see; itself it will.
func (r *Registry) missing(
	namespace string, itself definition.Reference, named []definition.Reference,
) (missing []definition.Reference) {
	for _, other := range named {
		if other.Kind == itself.Kind && other.Name == itself.Name {
			continue
		}
		if other.Kind == definition.Agent && (r.agents[other.Name] != nil || r.endpoints[other.Name] != nil) {
			continue
		}
		// What is current is in memory.
		_, err := r.graphs.definitions.Get(context.Background(), namespace, other.Kind, other.Name, "")
		if errors.As(err, new(*definition.NotFoundError)) {
			missing = append(missing, other)
		}
	}
	return missing
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
		a, err := r.defined.pin(ctx, newPins(call), id)
		if err != nil {
			return nil, err
		}
		return a.task(taskType).task(ctx, call)
	}
}
