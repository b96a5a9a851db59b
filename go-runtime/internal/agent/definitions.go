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

// Graph is a version of a graph that can be run.
type Graph struct {
	*document.Compiled

	Version string
}

// Graphs finds graphs.
type Graphs interface {
	// Graph returns a version of a graph that a namespace sees; "": the current one. Errors:
	// *UnknownGraphError, a *violation.Error where this runtime cannot run it, the journal's.
	Graph(ctx context.Context, namespace, name, version string) (Graph, error)
}

// maxCompiledBytes bounds the graphs that are kept compiled, each of which takes about
// compiledPerByte of its text.
const (
	maxCompiledBytes = 64 << 20
	compiledPerByte  = 8
)

// graphs compiles what is defined, once for each version. It implements Graphs.
type graphs struct {
	definitions Definitions
	kinds       map[string]document.Kind
	compiled    *recent.Cache[compiledKey, *sized]
}

type compiledKey struct{ namespace, name, version string }

type sized struct {
	graph *document.Compiled
	bytes int
}

func newGraphs(definitions Definitions, kinds map[string]document.Kind) *graphs {
	return &graphs{
		definitions: definitions, kinds: kinds,
		compiled: recent.New(maxCompiledBytes, func(_ compiledKey, s *sized) int { return s.bytes }),
	}
}

// Graph implements Graphs.
func (g *graphs) Graph(ctx context.Context, namespace, name, version string) (Graph, error) {
	found, err := g.definitions.Get(ctx, namespace, definition.Graph, name, version)
	if errors.As(err, new(*definition.NotFoundError)) && version == "" {
		return Graph{}, &UnknownGraphError{GraphID: name, Known: g.known(namespace)}
	}
	if err != nil {
		return Graph{}, err
	}
	key := compiledKey{found.Namespace, found.Name, found.Version}
	if kept, known := g.compiled.Get(key); known {
		return Graph{kept.graph, found.Version}, nil
	}
	compiled, err := g.compile(found.Text)
	if err != nil {
		return Graph{}, fmt.Errorf("version %s of graph %s: %w", found.Version, name, err)
	}
	g.compiled.Add(key, &sized{compiled, compiledPerByte * len(found.Text)})
	return Graph{compiled, found.Version}, nil
}

func (g *graphs) known(namespace string) []string {
	var names []string
	for _, d := range g.definitions.List(namespace, definition.Graph) {
		names = append(names, d.Name)
	}
	return names
}

func (g *graphs) compile(text []byte) (*document.Compiled, error) {
	parsed, err := document.Parse(text)
	if err != nil {
		return nil, err
	}
	return parsed.Compile(g.kinds)
}

// pin returns the graph that a run uses under a name: the version with which it began,
// else the current one, which is noted for later calls with the run.
func pin(ctx context.Context, graphs Graphs, call engine.Call, name string) (Graph, error) {
	key := "graph: " + name
	var pinned struct {
		Version string `json:"version"`
	}
	at := slices.IndexFunc(call.Steps, func(step engine.Step) bool { return step.Key == key })
	if at >= 0 {
		if err := json.Unmarshal(call.Steps[at].Result, &pinned); err != nil {
			return Graph{}, fmt.Errorf("read version of graph %s: %w", name, err)
		}
	}
	found, err := graphs.Graph(ctx, call.Namespace, name, pinned.Version)
	if err != nil || at >= 0 {
		return found, err
	}
	pinned.Version = found.Version
	text, err := encode(pinned)
	if err != nil {
		return Graph{}, err
	}
	return found, call.Record(ctx, key, text)
}

// BuiltIn returns the documents that are part of the runtime.
func (r *Registry) BuiltIn() []definition.Definition { return r.builtIn }

// Check reads a document and returns what it says of itself. Its error is a
// *violation.Error that names every mistake with its place in the document, or a
// *violation.TooLargeError.
func (r *Registry) Check(_ string, kind definition.Kind, text []byte) (name, description string, err error) {
	if kind != definition.Graph {
		return "", "", violation.New("kind", "this runtime takes documents of graphs only")
	}
	compiled, err := r.graphs.compile(text)
	if err != nil {
		return "", "", err
	}
	return compiled.Name(), compiled.Description, nil
}
