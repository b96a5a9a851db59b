package engine

import (
	"container/heap"
	"sync"
	"time"
)

// scheduler decides which run begins next, and where. It holds the queued runs
// and counts them against a limit from the moment they are being accepted.
//
// A queued run is in one of three kinds of heap: delayed until its time has
// come, held while its concurrency key is taken, or ready. Ready runs lie in
// pools: one for what the runtime executes itself, in which the namespaces take
// turns, and one for each agent of a namespace that workers serve. Within a
// namespace runs begin by priority, then in the order of their acceptance.
type scheduler struct {
	limit int
	// start begins runs that were given a place; it is called without the lock.
	start func([]placement)
	// waitedTooLong is called, without the lock, for a run whose queue timeout has passed.
	waitedTooLong func(*entry)
	// now is the monotonic clock.
	now func() time.Time

	mu sync.Mutex
	// taken counts queued runs and those being accepted, shares does by namespace.
	taken   int
	shares  map[string]int
	queued  int
	delayed itemHeap
	alarm   *time.Timer
	keys    map[keyName]*keyState
	// places is how many runs the runtime may still begin itself.
	places  int
	local   turnPool
	workers map[poolName]*workerPool
	// woken are the pools in which a run may have found a worker.
	woken map[*workerPool]struct{}
	// open says that runs may begin; starting counts those that are just being begun.
	open     bool
	starting int
	started  sync.Cond
}

// keyName is a concurrency key in its namespace, poolName an agent in its.
type (
	keyName  struct{ namespace, key string }
	poolName struct{ namespace, agentID string }
)

// placement is a run that may begin: on a worker, or in the runtime itself.
type placement struct {
	ent     *entry
	session *Session
}

// keyState is who has a concurrency key and who waits for it.
type keyState struct {
	limit   int
	holders map[string]*entry // by run id; nil while the run is being accepted
	held    itemHeap
	// taker is the newest run that took the key from those before it.
	taker *entry
}

// workerPool is the ready runs of a worker's agent, and the workers that serve it.
type workerPool struct {
	ready itemHeap
	// suspects are ready too, and begin one at a time on each worker.
	suspects itemHeap
	sessions map[*Session]struct{}
	agent    WorkerAgent
}

func newScheduler(limit, places int, start func([]placement), waitedTooLong func(*entry)) *scheduler {
	s := &scheduler{
		limit: limit, start: start, waitedTooLong: waitedTooLong, now: time.Now, places: places,
		shares: map[string]int{}, keys: map[keyName]*keyState{}, workers: map[poolName]*workerPool{}, woken: map[*workerPool]struct{}{},
		delayed: itemHeap{byTime: true}, local: turnPool{heaps: map[string]*itemHeap{}},
	}
	s.started.L = &s.mu
	return s
}

// begin lets runs begin.
func (s *scheduler) begin() {
	s.mu.Lock()
	s.open = true
	s.setAlarm()
	s.unlock()
}

// stop begins no more runs, and returns when none is being begun.
func (s *scheduler) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = false
	s.setAlarm()
	for s.starting > 0 {
		s.started.Wait()
	}
}

// unlock gives ready runs the places that are free, releases the lock, and begins them.
func (s *scheduler) unlock() {
	placements := s.match()
	s.starting += len(placements)
	s.mu.Unlock()
	if len(placements) == 0 {
		return
	}
	s.start(placements)
	s.mu.Lock()
	s.starting -= len(placements)
	s.started.Broadcast()
	s.mu.Unlock()
}

// newcomer is a run that is being accepted.
type newcomer struct {
	namespace, runID string
	concurrency      *Concurrency
	// mayBegin says that the runtime itself executes it, and that nothing delays it;
	// delayed that it has to wait for its time.
	mayBegin, delayed bool

	// begins says that a place is taken for it, holds that its concurrency key is.
	begins, holds bool
}

// reserve makes room for all of the runs or for none. Those for which the runtime
// has a free place that no run waits for may begin at once.
// Errors: *QueueFullError, *ConcurrencyLimitError.
func (s *scheduler) reserve(runs []*newcomer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := 0
	for _, n := range runs {
		if n.mayBegin && s.places > 0 && s.local.size == 0 {
			n.begins = true
			s.places--
			continue
		}
		waiting++
	}
	err := s.reserveWaiting(runs, waiting)
	if err != nil {
		for _, n := range runs {
			s.cancelReservation(n)
		}
	}
	return err
}

// greed is how many times what is free of the queue a namespace may have of it; one
// run it always may. So there is room for a namespace with few runs, however many
// runs others have, and those that would fill the queue get alike.
const greed = 8

// count notes that a namespace has so many more runs in the queue.
func (s *scheduler) count(namespace string, more int) {
	s.taken += more
	if s.shares[namespace] += more; s.shares[namespace] == 0 {
		delete(s.shares, namespace)
	}
}

func (s *scheduler) reserveWaiting(runs []*newcomer, waiting int) error {
	namespace := runs[0].namespace // a call is of one
	s.count(namespace, waiting)    // where that is too many, the caller cancels it
	// With this much room a namespace that is alone in the queue gets to the limit.
	room := s.limit + (s.limit+greed-1)/greed
	if waiting > 0 && s.shares[namespace] > max(1, greed*(room-s.taken)) {
		return &QueueFullError{Limit: s.limit, Wanted: waiting, RetryAfter: time.Second}
	}
	for _, n := range runs {
		c := n.concurrency
		if c == nil || c.Strategy != RejectWhenTaken || n.delayed {
			continue
		}
		state := s.key(n.namespace, c)
		if len(state.holders)+state.held.Len() >= state.limit {
			return &ConcurrencyLimitError{Key: c.Key, Limit: state.limit}
		}
		state.holders[n.runID] = nil
		n.holds = true
	}
	return nil
}

// release gives back what was reserved for runs that were not made.
func (s *scheduler) release(runs ...*newcomer) {
	s.mu.Lock()
	for _, n := range runs {
		s.cancelReservation(n)
	}
	s.unlock()
}

func (s *scheduler) cancelReservation(n *newcomer) {
	if n.begins {
		s.places++
	} else {
		s.count(n.namespace, -1)
	}
	if n.holds {
		// A run that was found in the journal meanwhile keeps its key.
		if state := s.keys[keyName{n.namespace, n.concurrency.Key}]; state != nil && state.holders[n.runID] == nil {
			s.free(n.namespace, n.concurrency.Key, n.runID)
		}
	}
	n.begins, n.holds = false, false
}

// push queues a run for which there is a reservation.
func (s *scheduler) push(ent *entry) {
	s.mu.Lock()
	s.enqueue(ent)
	s.unlock()
}

// restore queues a run that was accepted before, beyond the limit if need be.
func (s *scheduler) restore(ent *entry) {
	s.mu.Lock()
	s.count(ent.snapshot().Namespace, 1)
	s.enqueue(ent)
	s.unlock()
}

// enqueue puts a run where it has to wait.
func (s *scheduler) enqueue(ent *entry) {
	run := ent.snapshot()
	if ent.item != nil || run.State != Queued {
		s.count(run.Namespace, -1)
		return
	}
	it := &item{ent: ent, priority: run.options().Priority, order: ent.created, due: ent.dueTime()}
	it.local, it.pool = run.Target != WorkerTarget, poolName{run.Namespace, run.AgentID}
	it.concurrency, it.suspect = run.options().Concurrency, run.suspect()
	ent.item = it
	s.queued++
	if it.due.After(s.now()) {
		heap.Push(&s.delayed, it)
		s.setAlarm()
		return
	}
	s.admit(it)
}

// admit readies a run whose time has come, unless its concurrency key is taken.
func (s *scheduler) admit(it *item) {
	if c := it.concurrency; c != nil {
		state := s.key(it.pool.namespace, c)
		_, holds := state.holders[it.ent.id]
		if !holds && len(state.holders) >= state.limit {
			heap.Push(&state.held, it)
			return
		}
		state.holders[it.ent.id] = it.ent
	}
	s.ready(it)
}

func (s *scheduler) ready(it *item) {
	if it.local {
		s.local.push(it)
	} else {
		pool := s.pool(it.pool)
		if it.suspect {
			heap.Push(&pool.suspects, it)
		} else {
			heap.Push(&pool.ready, it)
		}
		s.woken[pool] = struct{}{}
	}
	it.ent.startQueueTimer(s.waitedTooLong)
}

func (s *scheduler) pool(name poolName) *workerPool {
	p := s.workers[name]
	if p == nil {
		p = &workerPool{sessions: map[*Session]struct{}{}}
		s.workers[name] = p
	}
	return p
}

// key returns the state of a concurrency key, with the limit of the newest run.
func (s *scheduler) key(namespace string, c *Concurrency) *keyState {
	name := keyName{namespace, c.Key}
	state := s.keys[name]
	if state == nil {
		state = &keyState{holders: map[string]*entry{}}
		s.keys[name] = state
	}
	state.limit = max(1, c.Limit)
	return state
}

// free takes a concurrency key from a run and readies those that waited for it.
func (s *scheduler) free(namespace, key, runID string) {
	name := keyName{namespace, key}
	state := s.keys[name]
	if state == nil {
		return
	}
	delete(state.holders, runID)
	for state.held.Len() > 0 && len(state.holders) < state.limit {
		it := heap.Pop(&state.held).(*item) //nolint:forcetypeassert // the heap holds nothing else
		state.holders[it.ent.id] = it.ent
		s.ready(it)
	}
	if len(state.holders) == 0 && state.held.Len() == 0 {
		delete(s.keys, name)
	}
}

// takeOver notes that a run takes a concurrency key, and returns those that it
// takes it from: the runs before it in the log that wait for the key, and behind
// them those that hold it, so that none begins when it is taken from these.
func (s *scheduler) takeOver(namespace, key string, by *entry) []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.keys[keyName{namespace, key}]
	if state == nil {
		return nil
	}
	if state.taker == nil || state.taker.created < by.created {
		state.taker = by
	}
	var others []*entry
	for _, it := range state.held.items {
		if it.ent.created < by.created {
			others = append(others, it.ent)
		}
	}
	for _, ent := range state.holders {
		if ent != nil && ent.created < by.created {
			others = append(others, ent)
		}
	}
	return others
}

// takerFrom returns the run behind another in the log that took its concurrency
// key, or nil: the two were accepted at the same time.
func (s *scheduler) takerFrom(namespace, key string, ent *entry) *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.keys[keyName{namespace, key}]
	if state == nil || state.taker == nil || state.taker.created <= ent.created {
		return nil
	}
	return state.taker
}

// hold gives a run that is under way its concurrency key, also beyond the limit.
func (s *scheduler) hold(ent *entry, run *Run) {
	if c := run.options().Concurrency; c != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.key(run.Namespace, c).holders[run.ID] = ent
	}
}

// leave forgets a run that has ended or waits for an answer: it is queued no
// more and has its concurrency key no more.
func (s *scheduler) leave(ent *entry, run *Run) {
	c := run.options().Concurrency
	s.mu.Lock()
	if c == nil && ent.item == nil {
		s.mu.Unlock()
		return
	}
	if it := ent.item; it != nil {
		it.remove(s)
		s.dequeued(it)
	}
	if c != nil {
		s.free(run.Namespace, c.Key, run.ID)
	}
	s.unlock()
}

func (s *scheduler) dequeued(it *item) {
	it.ent.item = nil
	it.ent.stopQueueTimer()
	s.queued--
	s.count(it.pool.namespace, -1)
}

// freePlace returns a place of the runtime's own.
func (s *scheduler) freePlace() {
	s.mu.Lock()
	s.places++
	s.unlock()
}

// match gives ready runs the places that are free.
func (s *scheduler) match() []placement {
	if !s.open {
		return nil
	}
	var placements []placement
	for s.places > 0 && s.local.size > 0 {
		it := s.local.pop()
		s.places--
		s.dequeued(it)
		placements = append(placements, placement{ent: it.ent})
	}
	for pool := range s.woken {
		placements = s.matchPool(pool, placements)
	}
	clear(s.woken)
	return placements
}

// matchPool gives the runs of an agent to the workers with the most free places.
func (s *scheduler) matchPool(pool *workerPool, placements []placement) []placement {
	for pool.suspects.Len() > 0 {
		best := pool.mostFree(func(session *Session) bool { return session.suspect == "" })
		if best == nil {
			break
		}
		it := heap.Pop(&pool.suspects).(*item) //nolint:forcetypeassert // the heap holds nothing else
		best.suspect = it.ent.id
		placements = s.place(it, best, placements)
	}
	for pool.ready.Len() > 0 {
		best := pool.mostFree(func(*Session) bool { return true })
		if best == nil {
			return placements
		}
		placements = s.place(s.firstOf(best, pool), best, placements)
	}
	return placements
}

func (s *scheduler) place(it *item, session *Session, placements []placement) []placement {
	session.free--
	s.dequeued(it)
	return append(placements, placement{it.ent, session})
}

// mostFree returns the worker with the most free places of those that fit; nil: none has one.
func (p *workerPool) mostFree(fits func(*Session) bool) *Session {
	var best *Session
	for session := range p.sessions {
		if session.free > 0 && fits(session) && (best == nil || session.free > best.free) {
			best = session
		}
	}
	return best
}

// firstOf takes the run that comes first of all that the worker can execute.
func (s *scheduler) firstOf(session *Session, pool *workerPool) *item {
	first := &pool.ready
	for name := range session.agents {
		if other := s.workers[poolName{session.namespace, name}]; other != nil && other.ready.Len() > 0 &&
			other.ready.items[0].before(first.items[0]) {
			first = &other.ready
		}
	}
	return heap.Pop(first).(*item) //nolint:forcetypeassert // the heap holds nothing else
}

// join lets a worker take runs.
func (s *scheduler) join(session *Session) {
	s.mu.Lock()
	for id, agent := range session.agents {
		p := s.pool(poolName{session.namespace, id})
		p.sessions[session] = struct{}{}
		p.agent = agent
		s.woken[p] = struct{}{}
	}
	s.unlock()
}

// part lets a worker take no more runs.
func (s *scheduler) part(session *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range session.agents {
		if p := s.workers[poolName{session.namespace, id}]; p != nil {
			delete(p.sessions, session)
		}
	}
}

// returnPlace gives back the place that a run had at a worker.
func (s *scheduler) returnPlace(session *Session, runID string) {
	s.mu.Lock()
	session.free++
	if session.suspect == runID {
		session.suspect = ""
	}
	for id := range session.agents {
		s.woken[s.pool(poolName{session.namespace, id})] = struct{}{}
	}
	s.unlock()
}

// takePlace notes that a run has a place at a worker that it was not given here.
func (s *scheduler) takePlace(session *Session) {
	s.mu.Lock()
	session.free--
	s.mu.Unlock()
}

// equip says what a worker that has not joined yet serves, and how many runs it
// takes. The session must be locked.
func (s *scheduler) equip(session *Session, hello *Hello) {
	agents := make(map[string]WorkerAgent, len(hello.Agents))
	for _, a := range hello.Agents {
		agents[a.ID] = a
	}
	s.mu.Lock()
	session.agents = agents
	session.free += hello.Concurrency - session.concurrency
	session.concurrency = hello.Concurrency
	s.mu.Unlock()
}

// knows reports whether a worker serves the agent, or served it.
func (s *scheduler) knows(namespace, agentID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.workers[poolName{namespace, agentID}]
	return p != nil && p.agent.ID != ""
}

// agents returns what workers serve or served in a namespace, in no order.
func (s *scheduler) agents(namespace string) []WorkerAgent {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []WorkerAgent
	for name, p := range s.workers {
		if name.namespace == namespace && p.agent.ID != "" {
			a := p.agent
			a.Workers = len(p.sessions)
			found = append(found, a)
		}
	}
	return found
}

// setAlarm has the scheduler wake when the next delayed run's time comes.
func (s *scheduler) setAlarm() {
	if s.alarm != nil {
		s.alarm.Stop()
		s.alarm = nil
	}
	if s.delayed.Len() == 0 || !s.open {
		return
	}
	s.alarm = time.AfterFunc(s.delayed.items[0].due.Sub(s.now()), func() {
		s.mu.Lock()
		if !s.open {
			s.mu.Unlock()
			return
		}
		now := s.now()
		for s.delayed.Len() > 0 && !s.delayed.items[0].due.After(now) {
			s.admit(heap.Pop(&s.delayed).(*item)) //nolint:forcetypeassert // the heap holds nothing else
		}
		s.setAlarm()
		s.unlock()
	})
}

func (s *scheduler) length() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queued
}
