package drawing

import (
	"cmp"
	"math"
	"slices"
)

// The measures of a drawing, in pixels.
const (
	nodeHeight  = 46
	layerGap    = 74
	siblingGap  = 34
	dummyWidth  = 12
	laneWidth   = 18
	margin      = 24
	charWidth   = 7.4
	smallWidth  = 6.3
	endWidth    = 66
	joinWidth   = 54
	selfLoop    = 34
	narrowest   = 92
	padding     = 30
	sweeps      = 12
	mostDummies = 5000
)

// box is a vertex with its place, or a dummy through which an edge passes a layer.
type box struct {
	vertex int // -1: a dummy
	layer  int
	width  float64
	x, y   float64 // of the centre
	up     []int
	down   []int
	order  float64
}

// route is an edge with the boxes that it passes, its ends among them, from top to bottom.
type route struct {
	edge  edge
	boxes []int
	// back marks one that leads up, or to where it is: it has a lane of its own beside the others.
	back bool
	lane int
}

// layout is a figure with the places of its parts.
type layout struct {
	figure *figure
	boxes  []box
	layers [][]int
	routes []route
	lanes  int
	width  float64
	height float64
}

// newLayout places a figure in layers, after Sugiyama, Tagawa and Toda (1981): what
// follows stands below, edges that lead back have lanes at the right.
func newLayout(f *figure) *layout {
	l := &layout{figure: f}
	back := f.backEdges()
	l.assignLayers(back)
	l.connect(back)
	l.orderLayers()
	l.place()
	l.assignLanes()
	return l
}

// backEdges finds the edges that close loops: those to where a walk in depth came from.
func (f *figure) backEdges() []bool {
	const (
		unseen = iota
		open
		closed
	)
	leaving := make([][]int, len(f.vertices))
	for i, e := range f.edges {
		leaving[e.from] = append(leaving[e.from], i)
	}
	back := make([]bool, len(f.edges))
	state := make([]int, len(f.vertices))
	type visit struct{ vertex, next int }
	for root := range f.vertices {
		if state[root] != unseen {
			continue
		}
		state[root] = open
		for path := []visit{{vertex: root}}; len(path) > 0; {
			at := &path[len(path)-1]
			if at.next == len(leaving[at.vertex]) {
				state[at.vertex] = closed
				path = path[:len(path)-1]
				continue
			}
			i := leaving[at.vertex][at.next]
			at.next++
			switch to := f.edges[i].to; state[to] {
			case open:
				back[i] = true
			case unseen:
				state[to] = open
				path = append(path, visit{vertex: to})
			}
		}
	}
	return back
}

// assignLayers puts each vertex below all that lead to it, and END at the bottom.
func (l *layout) assignLayers(back []bool) {
	f := l.figure
	l.boxes = make([]box, len(f.vertices))
	waits := make([]int, len(f.vertices))
	leaving := make([][]int, len(f.vertices))
	for i, e := range f.edges {
		if !back[i] {
			waits[e.to]++
			leaving[e.from] = append(leaving[e.from], e.to)
		}
	}
	var ready []int
	for i := range f.vertices {
		l.boxes[i] = box{vertex: i, width: widthOf(f.vertices[i])}
		if waits[i] == 0 {
			ready = append(ready, i)
		}
	}
	bottom := 0
	for ; len(ready) > 0; ready = ready[1:] {
		at := ready[0]
		bottom = max(bottom, l.boxes[at].layer)
		for _, to := range leaving[at] {
			l.boxes[to].layer = max(l.boxes[to].layer, l.boxes[at].layer+1)
			if waits[to]--; waits[to] == 0 {
				ready = append(ready, to)
			}
		}
	}
	for i, v := range f.vertices {
		if v.kind == endKind {
			l.boxes[i].layer = bottom
		}
	}
	l.layers = make([][]int, bottom+1)
}

func widthOf(v vertex) float64 {
	switch v.kind {
	case startKind, endKind:
		return endWidth
	case joinKind:
		return joinWidth
	}
	name := float64(len([]rune(shorten(v.name, longestName)))) * charWidth
	return max(narrowest, padding+max(name, float64(len([]rune(subtitle(v))))*smallWidth))
}

// subtitle is the second line of a node.
func subtitle(v vertex) string {
	if v.detail == "" {
		return v.kind
	}
	return shorten(v.kind+" "+v.detail, longestLabel)
}

// connect makes the routes. An edge over several layers passes a dummy in each, unless
// there are so many that no order would help.
func (l *layout) connect(back []bool) {
	dummies := 0
	for i, e := range l.figure.edges {
		if !back[i] {
			dummies += max(0, l.boxes[e.to].layer-l.boxes[e.from].layer-1)
		}
		if e.from == e.to {
			l.boxes[e.from].width = widthOf(l.figure.vertices[e.from]) + 2*selfLoop
		}
	}
	for i, e := range l.figure.edges {
		r := route{edge: e, back: back[i], boxes: []int{e.from, e.to}}
		if !r.back && dummies <= mostDummies {
			r.boxes = l.chain(e)
		}
		if !r.back {
			for n := range len(r.boxes) - 1 {
				above, below := r.boxes[n], r.boxes[n+1]
				l.boxes[above].down = append(l.boxes[above].down, below)
				l.boxes[below].up = append(l.boxes[below].up, above)
			}
		}
		l.routes = append(l.routes, r)
	}
	for i, b := range l.boxes {
		l.layers[b.layer] = append(l.layers[b.layer], i)
	}
}

func (l *layout) chain(e edge) []int {
	passed := []int{e.from}
	for layer := l.boxes[e.from].layer + 1; layer < l.boxes[e.to].layer; layer++ {
		l.boxes = append(l.boxes, box{vertex: -1, layer: layer, width: dummyWidth})
		passed = append(passed, len(l.boxes)-1)
	}
	return append(passed, e.to)
}

// orderLayers moves boxes beside those that they are connected with, down and up again,
// and keeps the order with the fewest crossings.
func (l *layout) orderLayers() {
	best, fewest := l.copyLayers(), l.crossings()
	for sweep := range sweeps {
		if sweep%2 == 0 {
			for layer := 1; layer < len(l.layers); layer++ {
				l.sortLayer(layer, func(b *box) []int { return b.up })
			}
		} else {
			for layer := len(l.layers) - 2; layer >= 0; layer-- {
				l.sortLayer(layer, func(b *box) []int { return b.down })
			}
		}
		if n := l.crossings(); n < fewest {
			best, fewest = l.copyLayers(), n
		}
	}
	l.layers = best
}

func (l *layout) copyLayers() [][]int {
	copied := make([][]int, len(l.layers))
	for i, layer := range l.layers {
		copied[i] = slices.Clone(layer)
	}
	return copied
}

func (l *layout) sortLayer(layer int, beside func(*box) []int) {
	for _, next := range []int{layer - 1, layer, layer + 1} {
		if next >= 0 && next < len(l.layers) {
			for place, i := range l.layers[next] {
				l.boxes[i].x = float64(place)
			}
		}
	}
	for _, i := range l.layers[layer] {
		b := &l.boxes[i]
		b.order = b.x
		if neighbours := beside(b); len(neighbours) > 0 {
			b.order = l.mean(neighbours)
		}
	}
	slices.SortStableFunc(l.layers[layer], func(a, b int) int { return cmp.Compare(l.boxes[a].order, l.boxes[b].order) })
}

func (l *layout) mean(boxes []int) float64 {
	sum := 0.0
	for _, i := range boxes {
		sum += l.boxes[i].x
	}
	return sum / float64(len(boxes))
}

// crossings counts those between neighbouring layers.
func (l *layout) crossings() int {
	place := make([]int, len(l.boxes))
	for _, layer := range l.layers {
		for n, i := range layer {
			place[i] = n
		}
	}
	total := 0
	for n := range len(l.layers) - 1 {
		passed := newPrefixSums(len(l.layers[n+1]))
		for _, i := range l.layers[n] {
			// An edge crosses those from further left that end further right.
			below := slices.DeleteFunc(slices.Clone(l.boxes[i].down), func(to int) bool { return l.boxes[to].layer != n+1 })
			for _, to := range below {
				total += passed.above(place[to])
			}
			for _, to := range below {
				passed.add(place[to])
			}
		}
	}
	return total
}

// prefixSums counts places, and those above one, in logarithmic time (Fenwick, 1994).
type prefixSums struct {
	sums  []int
	count int
}

func newPrefixSums(places int) *prefixSums { return &prefixSums{sums: make([]int, places+1)} }

func (s *prefixSums) add(place int) {
	s.count++
	for at := place + 1; at < len(s.sums); at += at & -at {
		s.sums[at]++
	}
}

func (s *prefixSums) above(place int) int {
	n := s.count
	for at := place + 1; at > 0; at -= at & -at {
		n -= s.sums[at]
	}
	return n
}

// place gives each box its x and y: below the middle of what leads to it, as far as its
// neighbours leave room.
func (l *layout) place() {
	for layer, boxes := range l.layers {
		x := 0.0
		for _, i := range boxes {
			b := &l.boxes[i]
			b.y = float64(layer)*(nodeHeight+layerGap) + nodeHeight/2
			b.x = x + b.width/2
			x += b.width + siblingGap
		}
	}
	for sweep := range sweeps {
		for n := range l.layers {
			layer := n
			beside := func(b *box) []int { return b.up }
			if sweep%2 == 1 {
				layer = len(l.layers) - 1 - n
				beside = func(b *box) []int { return b.down }
			}
			l.shift(l.layers[layer], beside)
		}
	}
	left := math.Inf(1)
	for _, b := range l.boxes {
		left = min(left, b.x-b.width/2)
	}
	for i := range l.boxes {
		b := &l.boxes[i]
		b.x += margin - left
		b.y += margin
		l.width = max(l.width, b.x+b.width/2)
	}
	l.height = float64(len(l.layers))*(nodeHeight+layerGap) - layerGap + 2*margin
}

// shift moves the boxes of a layer to where they want to be, with the least sum of
// squares of what is missing to that, and in their order: by pooling those that would overlap.
func (l *layout) shift(boxes []int, beside func(*box) []int) {
	type pool struct {
		sum   float64
		count float64
	}
	var (
		pools   []pool
		sizes   []int
		offsets = make([]float64, len(boxes))
	)
	for n, i := range boxes {
		b := &l.boxes[i]
		if n > 0 {
			before := &l.boxes[boxes[n-1]]
			offsets[n] = offsets[n-1] + (before.width+b.width)/2 + siblingGap
		}
		wanted := b.x
		if neighbours := beside(b); len(neighbours) > 0 {
			wanted = l.mean(neighbours)
		}
		pools, sizes = append(pools, pool{wanted - offsets[n], 1}), append(sizes, 1)
		for last := len(pools) - 1; last > 0 && pools[last-1].sum/pools[last-1].count > pools[last].sum/pools[last].count; last-- {
			pools[last-1].sum += pools[last].sum
			pools[last-1].count += pools[last].count
			sizes[last-1] += sizes[last]
			pools, sizes = pools[:last], sizes[:last]
		}
	}
	n := 0
	for p, size := range sizes {
		for range size {
			l.boxes[boxes[n]].x = pools[p].sum/pools[p].count + offsets[n]
			n++
		}
	}
}

// assignLanes gives the edges that lead back their lanes, short ones inside long ones.
func (l *layout) assignLanes() {
	var back []*route
	for i := range l.routes {
		if r := &l.routes[i]; r.back && r.edge.from != r.edge.to {
			back = append(back, r)
		}
	}
	span := func(r *route) (top, bottom int) {
		return l.boxes[r.edge.to].layer, l.boxes[r.edge.from].layer
	}
	slices.SortStableFunc(back, func(a, b *route) int {
		topA, bottomA := span(a)
		topB, bottomB := span(b)
		return cmp.Or(cmp.Compare(bottomA-topA, bottomB-topB), cmp.Compare(topA, topB))
	})
	var taken [][][2]int
	for _, r := range back {
		top, bottom := span(r)
		lane := slices.IndexFunc(taken, func(spans [][2]int) bool {
			return !slices.ContainsFunc(spans, func(s [2]int) bool { return top <= s[1]+1 && s[0] <= bottom+1 })
		})
		if lane < 0 {
			lane = len(taken)
			taken = append(taken, nil)
		}
		taken[lane] = append(taken[lane], [2]int{top, bottom})
		r.lane = lane
	}
	l.lanes = len(taken)
	if l.lanes > 0 {
		l.width += float64(l.lanes+1) * laneWidth
	}
	l.width += margin
}
