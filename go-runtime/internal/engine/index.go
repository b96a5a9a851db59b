package engine

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tidwall/btree"
)

// entry is a run in memory: what its log says, and while it is active what the
// engine does about it.
type entry struct {
	// created is the sequence of the run's first record, hash that of its request.
	created     uint64
	hash        payloadHash
	traceParent string

	// turn is held by whoever changes the run; it has room for one.
	turn chan struct{}

	mu  sync.Mutex
	run Run // without payloads
	// task and input are set while the run waits in memory; a run queued before a
	// restart has neither and gets them when it starts.
	task  Task
	input []byte
	// cancel ends the attempt that is under way; nil between attempts.
	cancel context.CancelCauseFunc
	// deadline fires when the run has to end; nil without one.
	deadline *time.Timer
	// ended is closed when the run has ended; then watchers are told.
	ended    chan struct{}
	watchers []*watcher
}

func newEntry(r *record) *entry {
	ent := &entry{
		created:     r.Created,
		hash:        r.Hash,
		traceParent: r.TraceParent,
		turn:        make(chan struct{}, 1),
		run:         r.Run,
		ended:       make(chan struct{}),
	}
	if ent.created == 0 {
		ent.created = r.Run.Sequence
	}
	if r.Run.State.Ended() {
		close(ent.ended)
	}
	return ent
}

func (ent *entry) snapshot() Run {
	ent.mu.Lock()
	defer ent.mu.Unlock()
	return ent.run
}

// index holds every run that is kept, by id and in the order of acceptance.
type index struct {
	mu         sync.RWMutex
	namespaces map[string]*namespaceIndex
	states     map[State]int
	// ended holds the runs that have ended, oldest end first.
	ended []*entry
}

type namespaceIndex struct {
	byID      map[string]*entry
	byCreated btree.Map[uint64, *entry]
}

func newIndex() *index {
	return &index{namespaces: map[string]*namespaceIndex{}, states: map[State]int{}}
}

func (x *index) get(namespace, runID string) *entry {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if ns := x.namespaces[namespace]; ns != nil {
		return ns.byID[runID]
	}
	return nil
}

// add puts a run in and reports true, or returns the entry that is there already.
func (x *index) add(ent *entry) (*entry, bool) {
	run := ent.snapshot()
	x.mu.Lock()
	defer x.mu.Unlock()
	ns := x.namespaces[run.Namespace]
	if ns == nil {
		ns = &namespaceIndex{byID: map[string]*entry{}}
		x.namespaces[run.Namespace] = ns
	}
	if there := ns.byID[run.ID]; there != nil {
		return there, false
	}
	ns.byID[run.ID] = ent
	ns.byCreated.Set(ent.created, ent)
	x.states[run.State]++
	if run.State.Ended() {
		x.ended = append(x.ended, ent)
	}
	return ent, true
}

// moved accounts for a run's change of state.
func (x *index) moved(ent *entry, from, to State) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.states[from]--
	x.states[to]++
	if to.Ended() {
		x.ended = append(x.ended, ent)
	}
}

// sortEnded puts the runs that have ended in the order they did so; add and moved keep it.
func (x *index) sortEnded() {
	x.mu.Lock()
	defer x.mu.Unlock()
	slices.SortFunc(x.ended, func(a, b *entry) int { return a.snapshot().EndedAt.Compare(b.snapshot().EndedAt) })
}

// oldestEnded removes and returns the run that ended first when more than keep
// runs have ended or it ended before the given time; nil when none is due.
func (x *index) oldestEnded(keep int, before time.Time) *entry {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.ended) == 0 {
		return nil
	}
	ent := x.ended[0]
	run := ent.snapshot()
	if len(x.ended) <= keep && !run.EndedAt.Before(before) {
		return nil
	}
	x.ended[0] = nil
	x.ended = x.ended[1:]
	ns := x.namespaces[run.Namespace]
	delete(ns.byID, run.ID)
	ns.byCreated.Delete(ent.created)
	x.states[run.State]--
	return ent
}

// list returns the runs accepted before the given sequence (0: all) for which
// match holds, newest first, at most limit, and whether there are more.
func (x *index) list(namespace string, before uint64, limit int, match func(*Run) bool) (found []*entry, more bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	ns := x.namespaces[namespace]
	if ns == nil {
		return nil, false
	}
	visit := func(_ uint64, ent *entry) bool {
		run := ent.snapshot()
		if !match(&run) {
			return true
		}
		if len(found) == limit {
			more = true
			return false
		}
		found = append(found, ent)
		return true
	}
	if before == 0 {
		ns.byCreated.Reverse(visit)
	} else {
		ns.byCreated.Descend(before-1, visit)
	}
	return found, more
}

func (x *index) stateCounts() map[State]int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	counts := make(map[State]int, len(x.states))
	maps.Copy(counts, x.states)
	return counts
}
