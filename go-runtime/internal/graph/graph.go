package graph

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// The names of what comes before the first and behind the last task.
const (
	Start = "__start__"
	End   = "__end__"
)

// Func is the work of a node: it reads the state, or what a Send gave it, and says what
// to write and where to go beside the edges. An *InterruptedError or what
// Call.Interrupt returned parks the run; any other error ends it.
type Func func(ctx context.Context, call *Call, state State) (Command, error)

// Command is what a node's work comes to.
type Command struct {
	// Update is written to the channels that it names.
	Update State `json:"update,omitempty"`
	// Goto are tasks that follow, beside those that the node's edges and branches name.
	Goto []Send `json:"goto,omitempty"`
	// Parent makes it the command of the node that runs this graph as a part of its task:
	// the graph ends with this step, none of whose writes it keeps. The node must return
	// the error of Call.Run as it is.
	Parent bool `json:"parent,omitempty"`
}

// Send is a task of the next step.
type Send struct {
	Node string `json:"node"`
	// Input is what the node reads in the place of the state; nil: the state. Two tasks
	// of a node that read the state alone are one.
	Input any `json:"input,omitempty"`
	// Beside is what the node reads beside the state, in the place of channels of the same
	// names: it alone is kept for the task, and the state once for all. With an Input it is
	// not looked at.
	Beside State `json:"beside,omitempty"`
}

// ofState reports whether the node reads the state alone.
func (s Send) ofState() bool { return s.Input == nil && len(s.Beside) == 0 }

// To is the Goto of nodes that read the state.
func To(nodes ...string) []Send {
	sends := make([]Send, len(nodes))
	for i, node := range nodes {
		sends[i] = Send{Node: node}
	}
	return sends
}

// Branch says what follows a node, from the state that its step left.
type Branch func(ctx context.Context, state State) ([]Send, error)

// Node is a node of a graph.
type Node struct {
	Run Func
	// Timeout is the longest one call may take; 0: as long as the run. A call that goes on
	// for long after its context has ended is left alone: nobody waits for it, what it
	// returns and emits is dropped, and its task fails with a *StuckError. Without a
	// Timeout such a call holds up Run.
	Timeout time.Duration
	// Attempts is how often it is called, in all, before its error is the run's; 0: once.
	Attempts int
	// Backoff is the pause before the second call, doubled for each further one, up to
	// MaxBackoff, where 0 is no limit. With Jitter each pause is a random one, half as long
	// at least.
	Backoff, MaxBackoff time.Duration
	Jitter              bool
	// Retries reports whether the node is called again after an error that is not permanent,
	// see IsPermanent; nil: after any.
	Retries func(error) bool
	// Cache has the node not called where what it would come to is known; nil: it is called.
	Cache *CachePolicy
	// Defer has the node wait until no tasks but such are left, where it follows another by
	// an edge, a branch, a join or a Goto. A Send that has more than the state does not wait.
	Defer bool
}

// Graph is made with its methods, which may be called in any order, and then run. It
// does not change once it was run, and is safe for concurrent runs.
type Graph struct {
	name     string
	channels map[string]Channel
	nodes    map[string]*Node
	edges    map[string][]string
	branches map[string][]Branch
	joins    []join
	// kept is what checkpoints have of the channels.
	kept map[string]keptChannel
	// limit is that of its steps; 0: the options'.
	limit int
}

// join has a node follow once all others have returned since it did last.
type join struct {
	from []string
	to   string
}

// New returns a graph with these channels and no nodes. The name is for people.
func New(name string, channels map[string]Channel) *Graph {
	known, reducers := make(map[string]Channel, len(channels)), Reducers()
	for channel, kind := range channels {
		known[channel] = kind.withKind(reducers)
	}
	return &Graph{
		name: name, channels: known, kept: keptChannels(known),
		nodes: map[string]*Node{}, edges: map[string][]string{}, branches: map[string][]Branch{},
	}
}

// Limit is how many steps a run of the graph may take, whatever the options say.
func (g *Graph) Limit(steps int) *Graph {
	g.limit = steps
	return g
}

// Name is what New was given.
func (g *Graph) Name() string { return g.name }

// Channels are the names of the channels, sorted.
func (g *Graph) Channels() []string { return slices.Sorted(maps.Keys(g.channels)) }

// HasChannel reports whether there is a channel of the name.
func (g *Graph) HasChannel(name string) bool {
	_, known := g.channels[name]
	return known
}

// Node adds a node.
func (g *Graph) Node(name string, node Node) *Graph {
	g.nodes[name] = &node
	return g
}

// Edge has a node follow another one, or Start.
func (g *Graph) Edge(from, to string) *Graph {
	g.edges[from] = append(g.edges[from], to)
	return g
}

// Branch has what follows a node, or Start, depend on the state.
func (g *Graph) Branch(from string, branch Branch) *Graph {
	g.branches[from] = append(g.branches[from], branch)
	return g
}

// Join has a node follow once all of several have returned, be it in different steps.
func (g *Graph) Join(from []string, to string) *Graph {
	g.joins = append(g.joins, join{slices.Clone(from), to})
	return g
}

// Check returns a *violation.Error that names all that is wrong with the graph.
func (g *Graph) Check() error {
	var wrong []error
	add := func(field, format string, args ...any) { wrong = append(wrong, violation.New(field, format, args...)) }
	for _, name := range slices.Sorted(maps.Keys(g.nodes)) {
		switch {
		case name == Start || name == End || name == "":
			add("nodes", "must not be called %q", name)
		case g.nodes[name].Run == nil:
			add("nodes."+name, "does nothing: it has no function")
		}
	}
	known := func(field, name string) {
		if _, found := g.nodes[name]; !found && name != Start && name != End {
			add(field, "there is no node %q", name)
		}
	}
	for _, from := range slices.Sorted(maps.Keys(g.edges)) {
		known("edges", from)
		for _, to := range g.edges[from] {
			known("edges."+from, to)
			if to == Start {
				add("edges."+from, "nothing leads to %s", Start)
			}
		}
	}
	for _, from := range slices.Sorted(maps.Keys(g.branches)) {
		known("branches", from)
	}
	for i, j := range g.joins {
		field := fmt.Sprintf("joins[%d]", i)
		known(field, j.to)
		for place, from := range j.from {
			known(field, from)
			if slices.Contains(j.from[:place], from) {
				add(field, "waits for %q twice", from)
			}
		}
		if len(j.from) == 0 {
			add(field, "waits for nothing")
		}
	}
	if len(g.edges[Start])+len(g.branches[Start]) == 0 {
		add("edges", "nothing follows %s", Start)
	}
	return violation.Join(wrong...)
}
