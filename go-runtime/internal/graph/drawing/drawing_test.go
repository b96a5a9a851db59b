package drawing

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/document"
)

func parse(tb testing.TB, text string) *document.Document {
	tb.Helper()
	d, err := document.Parse([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

const review = `
name: review
nodes:
  plan: {kind: llm}
  ask: {kind: human}
  write: {kind: agent, with: {agent: codegen_agent}}
  check: {kind: python, with: {function: shop.check}}
  both: {kind: transform}
edges: [[START, plan], [plan, ask], [plan, write]]
joins: [{from: [ask, write], to: both}]
branches:
  both:
    - {when: 'state.n < 3', to: plan}
    - {each: state.parts, to: check}
`

func TestMermaid(t *testing.T) {
	t.Parallel()
	//nolint:dupword // it is no prose
	want := `flowchart TD
  n0(("START"))
  n1{{"ask<br/>human"}}
  n2[/"both<br/>transform"/]
  n3[("check<br/>python shop.check")]
  n4["plan<br/>llm"]
  n5(["write<br/>agent codegen#95;agent"])
  n6(("END"))
  n7(("all"))
  n0 --> n4
  n1 --> n7
  n2 -.->|"else: each state.parts"| n3
  n2 -->|"state.n #60; 3"| n4
  n3 --> n6
  n4 --> n1
  n4 --> n5
  n5 --> n7
  n7 --> n2
  classDef done fill:#d9f2e3,stroke:#1a7f4b
  class n4,n5 done
  classDef waiting fill:#fff1cc,stroke:#a86b00
  class n1 waiting
`
	status := map[string]Status{"plan": Done, "write": Done, "ask": Waiting}
	if got := Mermaid(parse(t, review), status); got != want {
		t.Errorf("Mermaid() =\n%s", got)
	}
}

// pictures are what is drawn to be looked at, too.
func pictures(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{"review": review, "large": large(30), "hostile": hostile}
	files, err := filepath.Glob("../../agent/graphs/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[strings.TrimSuffix(filepath.Base(file), ".yaml")] = string(text)
	}
	return texts
}

// large has chains side by side, joins, shortcuts, and loops of different lengths.
func large(nodes int) string {
	var text strings.Builder
	text.WriteString("name: large\nnodes:\n")
	kinds := []string{"llm", "transform", "agent", "human", "http", "graph", "python", "tool"}
	for i := range nodes {
		fmt.Fprintf(&text, "  step_%d: {kind: %s}\n", i, kinds[i%len(kinds)])
	}
	text.WriteString("edges:\n  - [START, step_0]\n")
	for i := 1; i < nodes; i++ {
		fmt.Fprintf(&text, "  - [step_%d, step_%d]\n", (i-1)/2, i)
	}
	fmt.Fprintf(&text, "joins:\n  - {from: [step_%d, step_%d, step_%d], to: step_%d}\n", nodes-3, nodes-5, nodes-8, nodes-1)
	fmt.Fprintf(&text, "branches:\n  step_%d:\n    - {when: state.rounds < 3, to: step_0}\n    - {when: state.review == \"again\", to: step_3}\n    - {to: END}\n", nodes-1)
	fmt.Fprintf(&text, "  step_%d:\n    - {when: size(state.errors) > 0, to: step_%d}\n    - {each: state.parts, to: step_%d}\n", nodes/2, nodes/2, nodes-2)
	fmt.Fprintf(&text, "  step_%d:\n    - {when: '!state.ok', to: step_1}\n    - {to: END}\n", nodes-4)
	return text.String()
}

const hostile = `
name: hostile
description: "</title><script>alert(1)</script>"
nodes:
  a: {kind: "agent\"]; click n0 callback", with: {agent: "</text><script>alert(1)</script>\u0001 \" ' & ` + "`" + ` %"}}
  b: {kind: agent, with: {agent: "]]></g><![CDATA["}}
edges: [[START, a]]
branches:
  a:
    - {when: '"</svg>" == state.x || "\u0000\"|\"" in ["<b>"]', to: b}
    - {each: '["--> n0", "<img src=x onerror=alert(1)>"]', to: a}
`

func TestSVGIsWellFormed(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("DRAWINGS")
	for name, text := range pictures(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := parse(t, text)
			svg := SVG(d, nil)
			if again := SVG(parse(t, text), nil); again != svg {
				t.Error("two drawings differ")
			}
			if dir != "" {
				if err := os.WriteFile(filepath.Join(dir, name+".svg"), []byte(svg), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			wantElements(t, svg)
			for node := range d.Nodes {
				if !strings.Contains(svg, ">"+node+"</text>") {
					t.Errorf("node %s is not drawn", node)
				}
			}
		})
	}
}

// wantElements reads a picture, which must have those elements only that are drawn with.
func wantElements(t *testing.T, svg string) {
	t.Helper()
	decoder := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		switch part := token.(type) {
		case xml.StartElement:
			if !slices.Contains([]string{"svg", "title", "defs", "marker", "path", "rect", "g", "polygon", "text"}, part.Name.Local) {
				t.Errorf("there is an element %s", part.Name.Local)
			}
			for _, attribute := range part.Attr {
				if strings.HasPrefix(attribute.Name.Local, "on") || attribute.Name.Local == "href" {
					t.Errorf("there is an attribute %s", attribute.Name.Local)
				}
			}
		case xml.Directive, xml.ProcInst, xml.Comment:
			t.Errorf("there is %v", part)
		}
	}
}

func TestMermaidOfHostileTextsHasNoMoreLines(t *testing.T) {
	t.Parallel()
	text := Mermaid(parse(t, hostile), nil)
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	// The heading, four vertices and their four edges.
	if len(lines) != 9 {
		t.Errorf("%s", text)
	}
	for _, line := range lines[1:] {
		if quotes := strings.Count(line, `"`); quotes != 0 && quotes != 2 || strings.Contains(line, "<script") || strings.Contains(line, "`") {
			t.Errorf("%s", line)
		}
	}
}

func TestLargeGraphsAreDrawnInBounds(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	text.WriteString("name: dense\nnodes:\n")
	const nodes = 200
	for i := range nodes {
		fmt.Fprintf(&text, "  n%d: {kind: llm}\n", i)
	}
	text.WriteString("edges:\n  - [START, n0]\n")
	for i := range nodes {
		for n := 1; n < nodes; n += 3 {
			if text.Len() < 255<<10 {
				fmt.Fprintf(&text, "  - [n%d, n%d]\n", i, (i+n)%nodes)
			}
		}
	}
	d := parse(t, text.String())
	l := newLayout(newFigure(d, nil))
	if len(l.boxes) > mostDummies+nodes+2 {
		t.Errorf("%d boxes", len(l.boxes))
	}
	wantElements(t, SVG(d, nil))
}

// TestBoxesDoNotOverlap looks at each layer, and at what leads where.
func TestBoxesDoNotOverlap(t *testing.T) {
	t.Parallel()
	for name, text := range pictures(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLayout(newFigure(parse(t, text), nil))
			for _, layer := range l.layers {
				for n := 1; n < len(layer); n++ {
					a, b := l.boxes[layer[n-1]], l.boxes[layer[n]]
					if a.x+a.width/2 > b.x-b.width/2 {
						t.Errorf("%v and %v overlap", a, b)
					}
				}
			}
			for _, r := range l.routes {
				from, to := l.boxes[r.edge.from], l.boxes[r.edge.to]
				if r.back != (from.layer >= to.layer) {
					t.Errorf("edge %v leads from layer %d to %d", r.edge, from.layer, to.layer)
				}
			}
			for _, b := range l.boxes {
				if b.x-b.width/2 < margin-1 || b.x+b.width/2 > l.width || b.y > l.height {
					t.Errorf("%v is outside", b)
				}
			}
		})
	}
}

func FuzzDrawing(f *testing.F) {
	f.Add([]byte(review))
	f.Add([]byte(hostile))
	f.Add([]byte(large(9)))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := document.Parse(text)
		if err != nil || len(d.Nodes) > 50 || len(text) > 10_000 {
			return
		}
		Mermaid(d, nil)
		wantElements(t, SVG(d, nil))
	})
}
