package drawing

import (
	"fmt"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/document"
)

// Mermaid returns a flowchart in the language of https://mermaid.js.org. The document is
// one that compiles; status is by node, and may be nil.
func Mermaid(d *document.Document, status map[string]Status) string {
	f := newFigure(d, status)
	var text strings.Builder
	text.WriteString("flowchart TD\n")
	for i, v := range f.vertices {
		opens, closes := mermaidShape(v.kind)
		fmt.Fprintf(&text, "  n%d%s\"%s\"%s\n", i, opens, mermaidLabel(v), closes)
	}
	for _, e := range f.edges {
		arrow := "-->"
		if e.each {
			arrow = "-.->"
		}
		if e.label != "" {
			arrow += `|"` + mermaidText(e.label) + `"|`
		}
		fmt.Fprintf(&text, "  n%d %s n%d\n", e.from, arrow, e.to)
	}
	for _, class := range []struct {
		status Status
		style  string
	}{
		{Done, "fill:#d9f2e3,stroke:#1a7f4b"},
		{Running, "fill:#dbe9ff,stroke:#1d5fd1"},
		{Waiting, "fill:#fff1cc,stroke:#a86b00"},
		{Failed, "fill:#ffdfdc,stroke:#c0281c"},
	} {
		var of []string
		for i, v := range f.vertices {
			if v.status == class.status {
				of = append(of, fmt.Sprintf("n%d", i))
			}
		}
		if len(of) > 0 {
			fmt.Fprintf(&text, "  classDef %s %s\n  class %s %s\n", class.status, class.style, strings.Join(of, ","), class.status)
		}
	}
	return text.String()
}

// mermaidShape is what stands around the text of a vertex.
func mermaidShape(kind string) (opens, closes string) {
	switch kind {
	case startKind, endKind, joinKind:
		return "((", "))"
	case "human":
		return "{{", "}}"
	case "transform":
		return "[/", "/]"
	case "graph":
		return "[[", "]]"
	case "agent":
		return "([", "])"
	case "python", "http", "tool":
		return "[(", ")]"
	default:
		return "[", "]"
	}
}

func mermaidLabel(v vertex) string {
	switch v.kind {
	case startKind, endKind:
		return v.name
	case joinKind:
		return "all"
	}
	label := mermaidText(v.name) + "<br/>" + mermaidText(v.kind)
	if v.detail != "" {
		label += " " + mermaidText(v.detail)
	}
	return label
}

// mermaidText writes what has a meaning in Mermaid, or in the HTML that it makes, as its code.
func mermaidText(text string) string {
	var safe strings.Builder
	for _, r := range shorten(text, longestText) {
		if strings.ContainsRune("\"#<>&`;\\[]{}()|*_~%", r) {
			fmt.Fprintf(&safe, "#%d;", r)
		} else {
			safe.WriteRune(r)
		}
	}
	return safe.String()
}
