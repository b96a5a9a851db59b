package drawing

import (
	"encoding/xml"
	"fmt"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/document"
)

// The colours of a drawing.
const (
	ink      = "#1f2933"
	faint    = "#5c6b7a"
	lineTone = "#7b8794"
	loopTone = "#8a5cb8"
)

// SVG returns a picture that stands alone. The document is one that compiles; status is
// by node, and may be nil.
func SVG(d *document.Document, status map[string]Status) string {
	return newPicture(newLayout(newFigure(d, status))).String()
}

// picture writes a layout.
type picture struct {
	*layout

	text strings.Builder
	// labels counts those in the gap below a layer, so that neighbours stand at different heights.
	labels map[int]int
	said   []label
	// right is where the boxes end and the lanes begin.
	right float64
}

func newPicture(l *layout) *picture {
	p := &picture{layout: l, labels: map[int]int{}, right: l.width - margin - float64(l.lanes)*laneWidth}
	for i := range l.routes {
		if said := p.route(&l.routes[i]); said.text != "" {
			// What does not fit is moved in at the left, and makes room at the right.
			said.x = max(said.x, margin/2+said.width/2)
			l.width = max(l.width, said.x+said.width/2+margin/2)
			p.said = append(p.said, said)
		}
	}
	for i := range l.boxes {
		if b := &l.boxes[i]; b.vertex >= 0 {
			p.vertex(b, l.figure.vertices[b.vertex])
		}
	}
	// Behind all others, so that they stand above them.
	for _, one := range p.said {
		p.label(one)
	}
	return p
}

// String is the picture with what stands around it.
func (p *picture) String() string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" role="img" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" `+
		`font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif">`+
		"\n<title>%s</title>\n<defs>%s%s</defs>\n"+`<rect width="100%%" height="100%%" fill="#fff"/>`+"\n%s</svg>\n",
		p.width, p.height, p.width, p.height, escape(shorten(p.figure.title, 10*longestText)),
		marker("arrow", lineTone), marker("loop", loopTone), p.text.String())
}

func (p *picture) writef(format string, args ...any) { fmt.Fprintf(&p.text, format, args...) }

func marker(id, tone string) string {
	return fmt.Sprintf(`<marker id="%s" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" `+
		`orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="%s"/></marker>`, id, tone)
}

// escape makes any text that of an element or an attribute.
func escape(text string) string {
	var safe strings.Builder
	// A strings.Builder takes everything.
	_ = xml.EscapeText(&safe, []byte(text))
	return safe.String()
}

// label is a text beside an edge, whose place is the middle of its foot.
type label struct {
	text        string
	x, y, width float64
	tone        string
}

// route draws an edge and says where its label goes.
func (p *picture) route(r *route) label {
	tone, mark, dash := lineTone, "arrow", ""
	if r.back {
		tone, mark = loopTone, "loop"
	}
	if r.edge.each {
		dash = ` stroke-dasharray="6 4"`
	}
	var path strings.Builder
	said := label{text: r.edge.label, tone: tone}
	said.width = float64(len([]rune(shorten(said.text, longestLabel)))) * smallWidth
	switch {
	case r.edge.from == r.edge.to:
		said.x, said.y = p.selfLoop(&path, r)
	case r.back:
		said.x, said.y = p.loop(&path, r, said.width)
	default:
		said.x, said.y = p.line(&path, r)
	}
	p.writef(`<path d="%s" fill="none" stroke="%s" stroke-width="1.5"%s marker-end="url(#%s)"/>`+"\n", path.String(), tone, dash, mark)
	return said
}

// line leads down through all of its boxes.
func (p *picture) line(path *strings.Builder, r *route) (x, y float64) {
	from, to := &p.boxes[r.boxes[0]], &p.boxes[r.boxes[len(r.boxes)-1]]
	startX, startY := from.x, from.y+p.half(from)
	fmt.Fprintf(path, "M%.1f %.1f", startX, startY)
	for n, i := range r.boxes[1:] {
		next := &p.boxes[i]
		endY := next.y - nodeHeight/2
		if next == to {
			endY = next.y - p.half(to)
		}
		middle := (endY - startY) / 2
		fmt.Fprintf(path, "C%.1f %.1f %.1f %.1f %.1f %.1f", startX, startY+middle, next.x, endY-middle, next.x, endY)
		if n == 0 {
			x = startX + (next.x-startX)*0.72
			y = startY + (endY-startY)*0.66
		}
		startX, startY = next.x, endY
		if next != to {
			startY = next.y + nodeHeight/2
			fmt.Fprintf(path, "L%.1f %.1f", startX, startY)
		}
	}
	if r.edge.label != "" {
		y += p.stagger(from.layer)
	}
	return x, y
}

// stagger gives the labels below a layer one of three heights in turn.
func (p *picture) stagger(layer int) float64 {
	const heights, step = 3, 14
	n := p.labels[layer]
	p.labels[layer]++
	return float64(n%heights-1) * step
}

// loop leaves below its box, passes the others in its lane, and comes in from above.
// Its label stands above where it leaves, or beside its lane where there is no room.
func (p *picture) loop(path *strings.Builder, r *route, width float64) (x, y float64) {
	const corner, aside, entry = 9, 0.28, 20
	from, to := &p.boxes[r.edge.from], &p.boxes[r.edge.to]
	lane := p.right + (float64(r.lane)+0.5)*laneWidth
	// Each lane has heights of its own in the gaps.
	low := from.y + nodeHeight/2 + 12 + float64(r.lane%4)*4
	high := to.y - nodeHeight/2 - entry - float64(r.lane%4)*4
	startX, endX := from.x+from.width*aside, to.x+to.width*aside
	fmt.Fprintf(path, "M%.1f %.1fV%.1fQ%.1f %.1f %.1f %.1f", startX, from.y+p.half(from), low-corner, startX, low, startX+corner, low)
	fmt.Fprintf(path, "H%.1fQ%.1f %.1f %.1f %.1f", lane-corner, lane, low, lane, low-corner)
	fmt.Fprintf(path, "V%.1fQ%.1f %.1f %.1f %.1f", high+corner, lane, high, lane-corner, high)
	fmt.Fprintf(path, "H%.1fQ%.1f %.1f %.1f %.1fV%.1f", endX+corner, endX, high, endX, high+corner, to.y-p.half(to))
	if startX+2*corner+width > lane {
		return lane + corner + width/2, (low + high) / 2
	}
	return lane - corner - width/2 - 4, low - 4
}

// selfLoop leads around the right side of its box.
func (p *picture) selfLoop(path *strings.Builder, r *route) (x, y float64) {
	b := &p.boxes[r.edge.from]
	side := b.x + widthOf(p.figure.vertices[b.vertex])/2
	const height = 12
	fmt.Fprintf(path, "M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f", side, b.y+height, side+selfLoop, b.y+2*height,
		side+selfLoop, b.y-2*height, side, b.y-height)
	return side, b.y + nodeHeight/2 + 14
}

// half is that of the height of a box.
func (p *picture) half(b *box) float64 {
	if b.vertex >= 0 && p.figure.vertices[b.vertex].kind == joinKind {
		return 9
	}
	return nodeHeight / 2
}

func (p *picture) label(l label) {
	p.writef(`<text x="%.1f" y="%.1f" text-anchor="middle" font-size="11" fill="%s" stroke="#fff" stroke-width="4" `+
		`paint-order="stroke" stroke-linejoin="round"><title>%s</title>%s</text>`+"\n",
		l.x, l.y, l.tone, escape(shorten(l.text, 10*longestText)), escape(shorten(l.text, longestLabel)))
}

// vertex draws a node by the shape and the colour of its kind.
func (p *picture) vertex(b *box, v vertex) {
	width, half := widthOf(v), p.half(b)
	left, right, top, bottom := b.x-width/2, b.x+width/2, b.y-half, b.y+half
	fill, stroke := tones(v)
	style := fmt.Sprintf(`fill="%s" stroke="%s" stroke-width="%s"`, fill, stroke, lineOf(v))
	said := strings.Join([]string{v.name, v.kind, v.detail, string(v.status)}, " ")
	p.writef(`<g class="node"><title>%s</title>`, escape(strings.Join(strings.Fields(said), " ")))
	switch v.kind {
	case startKind, endKind, "agent":
		p.writef(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="%.1f" %s/>`, left, top, width, 2*half, half, style)
	case "human":
		const slant = 14
		p.polygon(style, []point{
			{left + slant, top}, {right - slant, top}, {right, b.y}, {right - slant, bottom}, {left + slant, bottom}, {left, b.y},
		})
	case "transform":
		const slant = 10
		p.polygon(style, []point{{left + slant, top}, {right, top}, {right - slant, bottom}, {left, bottom}})
	default:
		p.writef(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="6" %s/>`, left, top, width, 2*half, style)
	}
	if v.kind == "graph" {
		const inset = 6
		p.writef(`<path d="M%.1f %.1fV%.1fM%.1f %.1fV%.1f" stroke="%s"/>`, left+inset, top, bottom, right-inset, top, bottom, stroke)
	}
	p.caption(b, v)
	p.writef("</g>\n")
}

type point struct{ x, y float64 }

func (p *picture) polygon(style string, corners []point) {
	p.writef(`<polygon points="`)
	for _, corner := range corners {
		p.writef("%.1f,%.1f ", corner.x, corner.y)
	}
	p.writef(`" %s/>`, style)
}

func (p *picture) caption(b *box, v vertex) {
	const line = `<text x="%.1f" y="%.1f" text-anchor="middle" font-size="%d" font-weight="%d" fill="%s">%s</text>`
	switch v.kind {
	case startKind, endKind:
		p.writef(line, b.x, b.y+4, 12, 600, ink, v.name)
	case joinKind:
		p.writef(line, b.x, b.y+4, 10, 600, "#fff", "all")
	default:
		p.writef(line, b.x, b.y-3, 13, 600, ink, escape(shorten(v.name, longestName)))
		p.writef(line, b.x, b.y+14, 11, 400, faint, escape(subtitle(v)))
	}
}

// tones are the colours of a node: of its status where it has one, else of its kind.
func tones(v vertex) (fill, stroke string) {
	switch v.status {
	case Done:
		return "#d9f2e3", "#1a7f4b"
	case Running:
		return "#dbe9ff", "#1d5fd1"
	case Waiting:
		return "#fff1cc", "#a86b00"
	case Failed:
		return "#ffdfdc", "#c0281c"
	}
	switch v.kind {
	case startKind, endKind:
		return "#eef1f4", ink
	case joinKind:
		return faint, faint
	case "llm":
		return "#eef4ff", "#4a72b8"
	case "human":
		return "#fff7e6", "#b07c1e"
	case "agent", "graph":
		return "#f5efff", "#7a52b3"
	case "python", "http", "tool":
		return "#eafaf6", "#2f8f7c"
	default:
		return "#f7f8fa", "#8593a1"
	}
}

func lineOf(v vertex) string {
	if v.status != "" {
		return "2.5"
	}
	return "1.5"
}
