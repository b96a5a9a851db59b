// Package document makes graphs of YAML and JSON documents:
//
//	name: reasoning_graph
//	state:
//	  question: {}
//	  notes: {reducer: append}
//	  rounds: {reducer: add, initial: 0}
//	nodes:
//	  think:
//	    kind: llm
//	    with: {instructions: Think step by step., prompt: "{{ state.question }}"}
//	    set: {notes: out.text, rounds: "1"}
//	edges:
//	  - [START, think]
//	branches:
//	  think:
//	    - {when: state.rounds < 3, to: think}
//	    - {to: END}
//	output: {answer: "state.notes[size(state.notes) - 1]"}
//
// Conditions, what nodes set, and what stands between {{ and }} in texts are
// expressions of CEL (https://cel.dev) over `state` and, in `set`, `out`, which is what
// the node came to. A kind says what a node does; the caller has them.
package document

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonschema"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const (
	maxBytes = 256 << 10
	maxNodes = 500
	// maxSteps bounds Document.RecursionLimit.
	maxSteps = 10_000
)

// Document is a graph as data.
type Document struct {
	// Name is that of the graph: letters, digits, dashes and underscores.
	Name        string `yaml:"name"`
	Description string `yaml:"description"`
	// Durability is when a run that dies has what its steps left: `sync`, before the next
	// step begins; `async`, which is meant by none, soon; `exit`, only once it waits or ends.
	Durability Durability `yaml:"durability"`
	// RecursionLimit is how many steps a run may take; 0: 25.
	RecursionLimit int `yaml:"recursion_limit"`
	// Parameters is the JSON Schema of inputs; nothing: they may have any channel.
	Parameters map[string]any `yaml:"parameters"`
	// State are the channels by name.
	State map[string]Channel `yaml:"state"`
	Nodes map[string]Node    `yaml:"nodes"`
	// Edges are pairs of what follows what; START and END are before the first and behind the last.
	Edges [][]string `yaml:"edges"`
	Joins []Join     `yaml:"joins"`
	// Branches say what follows a node by the first case that holds.
	Branches map[string][]Case `yaml:"branches"`
	// Output is what a run returns: expressions by name.
	Output map[string]string `yaml:"output"`

	// digest is of the text that was parsed, so that no result of another one is used.
	digest [sha256.Size]byte
}

// Durability is when checkpoints are kept.
type Durability = graph.Durability

// When checkpoints are kept.
const (
	Async = graph.Async
	Sync  = graph.Sync
	Exit  = graph.Exit
)

// Channel is a graph.Channel as data.
type Channel struct {
	// Reducer is one of graph.Reducers; empty: last.
	Reducer   string `yaml:"reducer"`
	Initial   any    `yaml:"initial"`
	Ephemeral bool   `yaml:"ephemeral"`
}

// Node is a node of some kind.
type Node struct {
	Kind string `yaml:"kind"`
	// With is for the kind.
	With map[string]any `yaml:"with"`
	// Set are expressions by channel, which are written when the node has returned.
	Set map[string]string `yaml:"set"`
	// Retry is how often it is called where it fails; nothing: once.
	Retry Retry `yaml:"retry"`
	// Timeout is the longest one call may take, such as 30s; nothing: as long as the run.
	Timeout time.Duration `yaml:"timeout"`
	// Cache has the node not called where what it would come to is known; nothing: it is called.
	Cache *Cache `yaml:"cache"`
	// Defer has the node wait until no tasks but such are left; see graph.Node.
	Defer bool `yaml:"defer"`
}

// Cache says what a node's result depends on, beside the text of the document, and for how
// long it holds.
type Cache struct {
	// Key is an expression for what the result depends on; empty: all that the node reads.
	Key string `yaml:"key"`
	// TTL is for how long the result holds, such as 10m; nothing: as long as there is room for it.
	TTL time.Duration `yaml:"ttl"`
}

// Retry has a node called again where it fails, but for errors that come again, such as
// those of expressions.
type Retry struct {
	// Attempts is how often in all, at most 100; nothing: once.
	Attempts int `yaml:"attempts"`
	// Backoff is the pause before the second call, doubled for each further one up to
	// MaxBackoff; nothing: up to an hour, which is the most of either. With Jitter each pause
	// is a random one, half as long at least.
	Backoff    time.Duration `yaml:"backoff"`
	MaxBackoff time.Duration `yaml:"max_backoff"`
	Jitter     bool          `yaml:"jitter"`
}

// Join has a node follow once all of several have returned.
type Join struct {
	From []string `yaml:"from"`
	To   string   `yaml:"to"`
}

// Case is what follows a node when an expression holds; without one, it always does.
type Case struct {
	When string `yaml:"when"`
	To   string `yaml:"to"`
	// Each is an expression for a list: the node is called once for each item, as `state.item`.
	Each string `yaml:"each"`
}

// Parse reads a document, YAML or JSON. Its error is a *violation.Error or a *violation.TooLargeError.
func Parse(text []byte) (*Document, error) {
	if len(text) > maxBytes {
		return nil, &violation.TooLargeError{Field: "graph", Size: len(text), Limit: maxBytes}
	}
	document := &Document{digest: sha256.Sum256(text)}
	return document, Decode("graph", text, document)
}

// Decode reads one YAML or JSON document, whose members are all known. Its error is a
// *violation.Error that calls the document what.
func Decode(what string, text []byte, into any) error {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	switch err := decoder.Decode(into); {
	case errors.Is(err, io.EOF):
		return violation.New(what, "is empty")
	case err != nil:
		return parseError(what, err)
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return violation.New(what, "must be one document, and another follows it")
	}
	return nil
}

// parseError says each mistake of its own, as the parser does, with its line.
func parseError(what string, err error) error {
	mistakes, many := errors.AsType[*yaml.TypeError](err)
	if !many {
		return violation.New(what, "is no YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	wrong := make([]error, len(mistakes.Errors))
	for i, text := range mistakes.Errors {
		wrong[i] = violation.New(what, "%s", text)
	}
	return violation.Join(wrong...)
}

// Compiled is a graph that can be run, with what its runs return.
type Compiled struct {
	*graph.Graph

	Description string
	Durability  Durability

	parameters *jsonschema.Schema
	output     map[string]*expression
}

// CheckInput refuses members that are no channels, and an input that does not fit the
// document's parameters. Its error is a *violation.Error.
func (c *Compiled) CheckInput(input graph.State) error {
	var wrong []error
	for _, channel := range slices.Sorted(maps.Keys(input)) {
		if !c.HasChannel(channel) {
			wrong = append(wrong, violation.New("input."+channel, "is no channel of %s; its channels are %s",
				c.Name(), strings.Join(c.Channels(), ", ")))
		}
	}
	if c.parameters != nil {
		text, err := json.Marshal(input)
		if err != nil {
			return violation.New("input", "is no JSON: %s", err)
		}
		wrong = append(wrong, c.parameters.Check("input", text))
	}
	return violation.Join(wrong...)
}

// Compile checks all of a document and makes its graph. Its error is a
// *violation.Error that names every mistake with its place in the document.
func (d *Document) Compile(kinds map[string]Kind) (*Compiled, error) {
	c := compiler{document: d, kinds: kinds, follows: map[string][]string{}}
	return c.compile()
}

// compiler collects what is wrong.
type compiler struct {
	document *Document
	kinds    map[string]Kind
	wrong    []error
	// follows are the nodes that may follow a node.
	follows map[string][]string
}

func (c *compiler) refusef(place, format string, args ...any) {
	c.wrong = append(c.wrong, violation.New(place, format, args...))
}

func (c *compiler) compile() (*Compiled, error) {
	d := c.document
	if !violation.IsName(d.Name) {
		c.refusef("name", "must be letters, digits, dashes and underscores, at most 100, is %q", d.Name)
	}
	durability := d.Durability
	switch durability {
	case "":
		durability = Async
	case Async, Sync, Exit:
	default:
		c.refusef("durability", "must be %s, %s or %s, is %q", Async, Sync, Exit, durability)
	}
	if d.RecursionLimit < 0 || d.RecursionLimit > maxSteps {
		c.refusef("recursion_limit", "must be 1 to %d, is %d", maxSteps, d.RecursionLimit)
	}
	if len(d.Nodes) == 0 || len(d.Nodes) > maxNodes {
		c.refusef("nodes", "must be 1 to %d, are %d", maxNodes, len(d.Nodes))
		return nil, violation.Join(c.wrong...)
	}
	parameters, err := jsonschema.Of("parameters", d.Parameters)
	c.wrong = append(c.wrong, err)
	g := graph.New(d.Name, c.channels()).Limit(d.RecursionLimit)
	for _, name := range slices.Sorted(maps.Keys(d.Nodes)) {
		c.node(g, name)
	}
	for i, edge := range d.Edges {
		c.edge(g, fmt.Sprintf("edges[%d]", i), edge)
	}
	for i, j := range d.Joins {
		c.join(g, fmt.Sprintf("joins[%d]", i), j)
	}
	for _, from := range slices.Sorted(maps.Keys(d.Branches)) {
		c.branch(g, from)
	}
	c.checkReach()
	output := map[string]*expression{}
	for _, name := range slices.Sorted(maps.Keys(d.Output)) {
		output[name] = c.expression("output."+name, d.Output[name], anyType)
	}
	if err := violation.Join(c.wrong...); err != nil {
		return nil, err
	}
	if err := g.Check(); err != nil {
		return nil, err
	}
	return &Compiled{Graph: g, Description: d.Description, Durability: durability, parameters: parameters, output: output}, nil
}

func (c *compiler) channels() map[string]graph.Channel {
	reducers := graph.Reducers()
	channels := make(map[string]graph.Channel, len(c.document.State))
	for _, name := range slices.Sorted(maps.Keys(c.document.State)) {
		channel := c.document.State[name]
		reducer := channel.Reducer
		if reducer == "" {
			reducer = "last"
		}
		reduce, known := reducers[reducer]
		if !known {
			c.refusef("state."+name+".reducer", "there is no %q; there are %s", reducer, names(reducers))
		}
		c.initial("state."+name+".initial", reducer, channel.Initial)
		channels[name] = graph.Channel{Reduce: reduce, Initial: channel.Initial, Ephemeral: channel.Ephemeral}
	}
	return channels
}

// name returns the name of a node as the graph has it, and refuses one that is none.
func (c *compiler) name(place, name string) string {
	switch name {
	case "START":
		return graph.Start
	case "END":
		return graph.End
	}
	if _, known := c.document.Nodes[name]; !known {
		c.refusef(place, "there is no node %q; there are %s", name, names(c.document.Nodes))
	}
	return name
}

func (c *compiler) link(place, from, to string) (source, target string) {
	source, target = c.name(place, from), c.name(place, to)
	if source == graph.End {
		c.refusef(place, "nothing follows END")
	}
	if target == graph.Start {
		c.refusef(place, "nothing leads to START")
	}
	c.follows[source] = append(c.follows[source], target)
	return source, target
}

func (c *compiler) edge(g *graph.Graph, place string, edge []string) {
	const ends = 2
	if len(edge) != ends {
		c.refusef(place, "must be [from, to], has %d members", len(edge))
		return
	}
	g.Edge(c.link(place, edge[0], edge[1]))
}

func (c *compiler) join(g *graph.Graph, place string, j Join) {
	if len(j.From) == 0 {
		c.refusef(place+".from", "must name nodes")
	}
	for i, from := range j.From {
		if slices.Contains(j.From[:i], from) {
			c.refusef(fmt.Sprintf("%s.from[%d]", place, i), "is %q a second time, and is waited for once", from)
			continue
		}
		c.link(place, from, j.To)
	}
	g.Join(j.From, j.To)
}

// checkReach refuses nodes that nothing leads to.
func (c *compiler) checkReach() {
	seen := map[string]bool{graph.Start: true}
	for open := []string{graph.Start}; len(open) > 0; open = open[1:] {
		for _, next := range c.follows[open[0]] {
			if !seen[next] {
				seen[next] = true
				open = append(open, next)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.document.Nodes)) {
		if !seen[name] {
			c.refusef("nodes."+name, "nothing leads to it from START")
		}
	}
}

func names[V any](of map[string]V) string { return strings.Join(slices.Sorted(maps.Keys(of)), ", ") }
