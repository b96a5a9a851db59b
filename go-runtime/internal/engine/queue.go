package engine

import (
	"sync"
	"time"
)

// queue holds the runs that wait for a place, first in first out, and counts
// them against a limit from the moment they are being accepted.
type queue struct {
	limit int
	// ready carries one token while there may be something to pop.
	ready chan struct{}

	mu      sync.Mutex
	waiting []*entry
	taken   int
}

func newQueue(limit int) *queue {
	return &queue{limit: limit, ready: make(chan struct{}, 1)}
}

// reserve takes places, all or none, for runs that push will bring, or release give back.
func (q *queue) reserve(runs int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.taken+runs > q.limit && runs > 0 {
		return &QueueFullError{Limit: q.limit, Wanted: runs, RetryAfter: time.Second}
	}
	q.taken += runs
	return nil
}

func (q *queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taken--
}

// push brings a run for which a place was reserved.
func (q *queue) push(ent *entry) {
	q.mu.Lock()
	q.waiting = append(q.waiting, ent)
	q.mu.Unlock()
	q.wake()
}

// restore brings a run that was accepted before, beyond the limit if need be.
func (q *queue) restore(ent *entry) {
	q.mu.Lock()
	q.taken++
	q.mu.Unlock()
	q.push(ent)
}

// pop returns the run that has waited longest, or nil.
func (q *queue) pop() *entry {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return nil
	}
	ent := q.waiting[0]
	q.waiting[0] = nil
	q.waiting = q.waiting[1:]
	q.taken--
	if len(q.waiting) > 0 {
		q.wake()
	}
	return ent
}

func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

func (q *queue) wake() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}
