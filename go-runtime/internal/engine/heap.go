package engine

import (
	"container/heap"
	"time"
)

// item is a queued run in the scheduler.
type item struct {
	ent      *entry
	priority int
	order    uint64
	due      time.Time // monotonic; zero: at once
	local    bool
	pool     poolName
	// suspect says that the run's workers died, and that this is its last attempt.
	suspect     bool
	concurrency *Concurrency

	in    *itemHeap
	index int
}

// before orders the runs of a namespace.
func (it *item) before(other *item) bool {
	if it.priority != other.priority {
		return it.priority > other.priority
	}
	return it.order < other.order
}

// remove takes the item out of where it is.
func (it *item) remove(s *scheduler) {
	if it.in == nil {
		return
	}
	if it.local && it.in != &s.delayed && s.local.heaps[it.pool.namespace] == it.in {
		s.local.remove(it)
		return
	}
	heap.Remove(it.in, it.index)
}

// itemHeap is a heap of items, each of which knows where it is.
type itemHeap struct {
	items  []*item
	byTime bool
}

func (h *itemHeap) Len() int { return len(h.items) }

func (h *itemHeap) Less(i, j int) bool {
	if h.byTime {
		return h.items[i].due.Before(h.items[j].due)
	}
	return h.items[i].before(h.items[j])
}

func (h *itemHeap) Swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	h.items[i].index, h.items[j].index = i, j
}

// Push implements heap.Interface.
func (h *itemHeap) Push(x any) {
	it := x.(*item) //nolint:forcetypeassert // the heap holds nothing else
	it.in, it.index = h, len(h.items)
	h.items = append(h.items, it)
}

// Pop implements heap.Interface.
func (h *itemHeap) Pop() any {
	last := len(h.items) - 1
	it := h.items[last]
	h.items[last] = nil
	h.items = h.items[:last]
	it.in = nil
	return it
}

// turnPool is a pool of ready runs in which namespaces take turns, so that one
// with many runs holds up none with few.
type turnPool struct {
	heaps map[string]*itemHeap
	// turns are the namespaces that have runs, next the one whose turn it is.
	turns []string
	next  int
	size  int
}

func (p *turnPool) push(it *item) {
	namespace := it.pool.namespace
	h := p.heaps[namespace]
	if h == nil {
		h = &itemHeap{}
		p.heaps[namespace] = h
		p.turns = append(p.turns, namespace)
	}
	heap.Push(h, it)
	p.size++
}

// pop takes the first run of the namespace whose turn it is; there must be one.
func (p *turnPool) pop() *item {
	p.next %= len(p.turns)
	namespace := p.turns[p.next]
	h := p.heaps[namespace]
	it := heap.Pop(h).(*item) //nolint:forcetypeassert // the heap holds nothing else
	p.size--
	if h.Len() == 0 {
		p.drop(p.next)
	} else {
		p.next++
	}
	return it
}

func (p *turnPool) remove(it *item) {
	h := it.in
	heap.Remove(h, it.index)
	p.size--
	if h.Len() > 0 {
		return
	}
	for i, namespace := range p.turns {
		if namespace == it.pool.namespace {
			p.drop(i)
			return
		}
	}
}

// drop removes a namespace that has no more runs.
func (p *turnPool) drop(place int) {
	delete(p.heaps, p.turns[place])
	p.turns = append(p.turns[:place], p.turns[place+1:]...)
	if p.next > place {
		p.next--
	}
}
