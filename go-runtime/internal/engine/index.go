package engine

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
	"unique"

	"github.com/tidwall/btree"

	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
)

// entry is a run in memory: what its log says, and while it is active what the
// engine does about it.
type entry struct {
	id string
	// created is the sequence of the run's first record, hash that of its request.
	created uint64
	hash    payloadHash
	named   bool

	// turn is held by whoever changes the run; it has room for one.
	turn chan struct{}

	mu  sync.Mutex
	run Run // without payloads
	// trace is where the run stands in a trace; nil: in none.
	trace *span.Origin
	// task and input are set while the run waits in memory; a run queued before a
	// restart has neither and gets them when it starts.
	task  Task
	input []byte
	// cancel ends the attempt that is under way in the runtime itself; nil between attempts.
	cancel context.CancelCauseFunc
	// lease is the worker's that executes the run, else nil.
	lease *lease
	// due is when a queued run may begin, on the monotonic clock; zero: at once.
	due time.Time
	// queueTimer fires when a run that could begin has waited for too long.
	queueTimer *time.Timer
	// deadline fires when the run has to end; nil without one.
	deadline *time.Timer
	// ended is closed when the run has ended; then watchers are told. nil: nobody waits for
	// that, and most runs are waited for by nobody.
	ended    chan struct{}
	watchers []*watcher

	// item is the run's place in the scheduler, whose lock guards it; nil when it is not queued.
	item *item
	// filed says that the run is among those that have ended; the index's lock guards it.
	filed bool
}

func newEntry(r *record) *entry {
	ent := &entry{
		id:      r.Run.ID,
		created: r.Created,
		hash:    r.Hash,
		named:   r.Run.named,
		turn:    make(chan struct{}, 1),
		run:     r.Run,
		trace:   kept(r.Trace),
	}
	if ent.created == 0 {
		ent.created = r.Run.Sequence
	}
	// Many runs have the same of these, and each would have a copy.
	for _, text := range []*string{&ent.run.Namespace, &ent.run.AgentID, &ent.run.TaskType} {
		*text = unique.Make(*text).Value()
	}
	return ent
}

// end is closed when the run has ended.
func (ent *entry) end() <-chan struct{} {
	ent.mu.Lock()
	defer ent.mu.Unlock()
	if ent.ended == nil {
		ent.ended = make(chan struct{})
		if ent.run.State.Ended() {
			close(ent.ended)
		}
	}
	return ent.ended
}

// delay has the run begin no earlier than after d.
func (ent *entry) delay(d time.Duration) {
	ent.mu.Lock()
	defer ent.mu.Unlock()
	ent.due = time.Time{}
	if d > 0 {
		ent.due = time.Now().Add(d)
	}
}

func (ent *entry) dueTime() time.Time {
	ent.mu.Lock()
	defer ent.mu.Unlock()
	return ent.due
}

// startQueueTimer begins to count the time for which the run could begin and does not.
func (ent *entry) startQueueTimer(fire func(*entry)) {
	ent.mu.Lock()
	defer ent.mu.Unlock()
	if timeout := ent.run.options().QueueTimeout; timeout > 0 && ent.queueTimer == nil {
		ent.queueTimer = time.AfterFunc(timeout, func() { fire(ent) })
	}
}

func (ent *entry) stopQueueTimer() {
	ent.mu.Lock()
	defer ent.mu.Unlock()
	if ent.queueTimer != nil {
		ent.queueTimer.Stop()
		ent.queueTimer = nil
	}
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
}

type namespaceIndex struct {
	byID      map[string]*entry
	byCreated btree.Map[uint64, *entry]
	// children are the sub-runs of a run.
	children map[string][]*entry
	// retried are the runs that another does again.
	retried map[string]struct{}
	// failed holds the runs that failed or timed out, ended those that ended
	// otherwise, oldest end first: however many succeed, failures stay to be seen
	// to. A sub-run is in them once its parent has ended, which still reads it.
	failed, ended []*entry
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
		ns = &namespaceIndex{byID: map[string]*entry{}, children: map[string][]*entry{}, retried: map[string]struct{}{}}
		x.namespaces[run.Namespace] = ns
	}
	if there := ns.byID[run.ID]; there != nil {
		return there, false
	}
	ns.byID[run.ID] = ent
	ns.byCreated.Set(ent.created, ent)
	if parent := run.options().ParentID; parent != "" {
		ns.children[parent] = append(ns.children[parent], ent)
	}
	if again := run.options().RetryOf; again != "" {
		ns.retried[again] = struct{}{}
	}
	x.states[run.State]++
	ns.file(ent, &run)
	return ent, true
}

// file puts a run among those that have ended, if it has, with its sub-runs that
// waited for that.
func (ns *namespaceIndex) file(ent *entry, run *Run) {
	if !run.State.Ended() || ent.filed || ns.isRead(run) {
		return
	}
	ent.filed = true
	switch run.State {
	case Failed, TimedOut:
		ns.failed = append(ns.failed, ent)
	case Succeeded, Cancelled, Queued, Running, Waiting:
		ns.ended = append(ns.ended, ent)
	}
	for _, child := range ns.children[run.ID] {
		of := child.snapshot()
		ns.file(child, &of)
	}
}

// isRead reports whether a parent that has not ended may still read a run.
func (ns *namespaceIndex) isRead(run *Run) bool {
	parent := ns.byID[run.options().ParentID]
	return parent != nil && !parent.snapshot().State.Ended()
}

// moved accounts for a run's change of state.
func (x *index) moved(ent *entry, from State, run *Run) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.states[from]--
	x.states[run.State]++
	x.namespaces[run.Namespace].file(ent, run)
}

// sortEnded puts the runs that have ended in the order they did so, once all that
// are kept have been added.
func (x *index) sortEnded() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, ns := range x.namespaces {
		for _, ended := range []*[]*entry{&ns.failed, &ns.ended} {
			*ended = slices.DeleteFunc(*ended, func(ent *entry) bool {
				run := ent.snapshot()
				ent.filed = !ns.isRead(&run)
				return !ent.filed
			})
			slices.SortFunc(*ended, func(a, b *entry) int { return a.snapshot().EndedAt.Compare(b.snapshot().EndedAt) })
		}
	}
}

// mostUnread is how many times as many as are to be kept are kept for who has yet
// to read them, batchOfOld how many are taken at a time.
const (
	mostUnread = 10
	batchOfOld = 1000
)

// takeOld removes and returns runs that ended before the given time, and in each
// namespace the first of more than keep that failed or timed out, and of more than
// keep that ended otherwise; none when none is due. Unread ones go with their time,
// or when there are very many.
func (x *index) takeOld(keep int, before time.Time, isUnread func(*Run) bool) (old []*entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, ns := range x.namespaces {
		for _, ended := range []*[]*entry{&ns.failed, &ns.ended} {
			for len(*ended) > 0 && len(old) < batchOfOld {
				ent := (*ended)[0]
				run := ent.snapshot()
				isMany := len(*ended) > mostUnread*keep || len(*ended) > keep && !isUnread(&run)
				if !isMany && !run.EndedAt.Before(before) {
					break
				}
				(*ended)[0] = nil
				*ended = (*ended)[1:]
				x.remove(ent, &run)
				old = append(old, ent)
			}
		}
	}
	return old
}

// remove forgets a run.
func (x *index) remove(ent *entry, run *Run) {
	ns := x.namespaces[run.Namespace]
	delete(ns.byID, run.ID)
	ns.byCreated.Delete(ent.created)
	delete(ns.children, run.ID)
	delete(ns.retried, run.ID)
	if parent := run.options().ParentID; parent != "" {
		ns.children[parent] = slices.DeleteFunc(ns.children[parent], func(other *entry) bool { return other == ent })
		if len(ns.children[parent]) == 0 {
			delete(ns.children, parent)
		}
	}
	x.states[run.State]--
}

// childrenOf returns the sub-runs of a run.
func (x *index) childrenOf(namespace, runID string) []*entry {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if ns := x.namespaces[namespace]; ns != nil {
		return slices.Clone(ns.children[runID])
	}
	return nil
}

// list returns the runs accepted before the given sequence (0: all) for which
// match holds, newest first, at most limit, and whether there are more.
func (x *index) list(namespace string, before uint64, limit int, match func(run *Run, retried bool) bool) (found []*entry, more bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	ns := x.namespaces[namespace]
	if ns == nil {
		return nil, false
	}
	visit := func(_ uint64, ent *entry) bool {
		run := ent.snapshot()
		if _, retried := ns.retried[run.ID]; !match(&run, retried) {
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
