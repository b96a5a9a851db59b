// Package drawing draws the graphs of documents: as Mermaid text, and as SVG by a layered
// layout of its own. A document makes the same drawing each time. What it says is text in
// the drawing and nothing else, whatever it says.
package drawing

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/document"
)

// Status is what became of a node in a run.
type Status string

// The statuses; a node without one was not reached.
const (
	Done    Status = "done"
	Running Status = "running"
	Waiting Status = "waiting"
	Failed  Status = "failed"
)

// The kinds of what stands for no node.
const (
	startKind = "START"
	endKind   = "END"
	joinKind  = "join"
)

// figure is a graph as it is drawn. START is its first vertex.
type figure struct {
	title    string
	vertices []vertex
	edges    []edge
}

type vertex struct {
	name, kind string
	// detail is what the kind works with, such as the name of an agent; it may be empty.
	detail string
	status Status
}

type edge struct {
	from, to int
	label    string
	// each marks the edge that is taken once for each item of a list.
	each bool
}

// newFigure makes the figure of a document whose edges, joins and branches name its nodes.
func newFigure(d *document.Document, status map[string]Status) *figure {
	f := &figure{title: d.Name}
	if d.Description != "" {
		f.title += ": " + d.Description
	}
	places := map[string]int{}
	add := func(v vertex) int {
		f.vertices = append(f.vertices, v)
		return len(f.vertices) - 1
	}
	places["START"] = add(vertex{name: "START", kind: startKind})
	for _, name := range slices.Sorted(maps.Keys(d.Nodes)) {
		node := d.Nodes[name]
		places[name] = add(vertex{name: name, kind: node.Kind, detail: detailOf(node), status: status[name]})
	}
	places["END"] = add(vertex{name: "END", kind: endKind})
	link := func(from, to string, label string, each bool) {
		source, known := places[from]
		target, alsoKnown := places[to]
		if known && alsoKnown {
			f.edges = append(f.edges, edge{source, target, label, each})
		}
	}
	for _, pair := range d.Edges {
		const ends = 2
		if len(pair) == ends {
			link(pair[0], pair[1], "", false)
		}
	}
	for i, join := range d.Joins {
		name := fmt.Sprintf("join %d", i)
		places[name] = add(vertex{name: name, kind: joinKind})
		for _, from := range join.From {
			link(from, name, "", false)
		}
		link(name, join.To, "", false)
	}
	for _, from := range slices.Sorted(maps.Keys(d.Branches)) {
		for i, choice := range d.Branches[from] {
			link(from, choice.To, labelOf(choice, i), choice.Each != "")
		}
	}
	f.endAll()
	f.prune()
	return f
}

func labelOf(choice document.Case, place int) string {
	var parts []string
	switch {
	case choice.When != "":
		parts = append(parts, choice.When)
	case place > 0:
		parts = append(parts, "else")
	}
	if choice.Each != "" {
		parts = append(parts, "each "+choice.Each)
	}
	return strings.Join(strings.Fields(strings.Join(parts, ": ")), " ")
}

// detailOf is what a node works with, in the member that its kind has for it.
func detailOf(node document.Node) string {
	member := map[string]string{"agent": "agent", "graph": "graph", "python": "function", "http": "url", "tool": "tool"}[node.Kind]
	detail, _ := node.With[member].(string)
	return strings.Join(strings.Fields(detail), " ")
}

// endAll has END follow what nothing follows: there a run can end, too.
func (f *figure) endAll() {
	left := make([]bool, len(f.vertices))
	end := 0
	for _, e := range f.edges {
		left[e.from] = true
	}
	for i, v := range f.vertices {
		if v.kind == endKind {
			end = i
		}
	}
	for i := range f.vertices {
		if i != end && !left[i] {
			f.edges = append(f.edges, edge{from: i, to: end})
		}
	}
}

// prune leaves one of edges that say the same, and puts them in an order of their own.
func (f *figure) prune() {
	slices.SortStableFunc(f.edges, func(a, b edge) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to), cmp.Compare(a.label, b.label))
	})
	f.edges = slices.Compact(f.edges)
}
