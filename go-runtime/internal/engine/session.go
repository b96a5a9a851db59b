package engine

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Session is a worker and the runs it has, from its first Hello until it has not
// been heard of for the lease time. Its connection may break and come again.
type Session struct {
	engine    *Engine
	namespace string
	worker    Worker
	// agents is set with the scheduler's lock and mu: either is enough to read it.
	agents map[string]WorkerAgent

	// concurrency is how many runs it takes, free how many more than it has, and
	// suspect the suspect that it has, or empty; the scheduler's lock guards them.
	// A run has its place from when the scheduler gives it one until its lease, or
	// the attempt to begin it, is over: who removes a lease returns the place.
	concurrency, free int
	suspect           string

	mu sync.Mutex
	// connection counts how often the worker connected; 0 while it has not since the start.
	connection int
	connected  bool
	draining   bool
	// over is set when the session ends, left with it when it was the worker who ended it.
	over, left bool
	// handling counts the messages of the worker that are being handled.
	handling int
	leases   map[uint64]*lease
	assigned []*entry
	orders   Orders
	acks     map[uint64]ack
	// lapse fires when the worker has not been heard of for the lease time.
	lapse *time.Timer
	// some carries one token while there are orders, work while there are runs to
	// begin, kept while there are reports to acknowledge, and awaited while the
	// code of an agent waits for one of the acknowledgements.
	some, work, kept, awaited chan struct{}
	// gone is closed when the session is over.
	gone chan struct{}
}

// ack is a report to be acknowledged once what it brought is durable.
type ack struct {
	HeldLease

	sequence uint64
}

// Connect introduces a worker, or one that was there before again; the worker's
// earlier connection is over. held are its leases that hold, with what was kept
// of each. The caller sends what Next returns and calls Disconnect at the end.
//
// Errors: *violation.Error, ErrStopped, the journal's.
func (e *Engine) Connect(ctx context.Context, namespace string, hello Hello) (*Connection, []HeldLease, error) {
	if err := hello.check(); err != nil {
		return nil, nil, err
	}
	setDefault(&hello.LeaseTTL, defaultLeaseTTL)
	s, err := e.sessionOf(namespace, hello.ID)
	if err != nil {
		return nil, nil, err
	}
	number, held, err := s.connect(ctx, &hello)
	if err != nil {
		return nil, nil, err
	}
	e.sched.join(s)
	e.log.Info("worker connected", "worker", hello.Name, "worker_id", hello.ID, "namespace", namespace,
		"agents", hello.agentIDs(), "concurrency", hello.Concurrency, "runs_held", len(held))
	return &Connection{Session: s, number: number}, held, nil
}

// sessionOf returns the session of a worker, a new one if there is none.
func (e *Engine) sessionOf(namespace, workerID string) (*Session, error) {
	e.sessionsMu.Lock()
	defer e.sessionsMu.Unlock()
	if e.isStopping() {
		return nil, ErrStopped
	}
	key := namespace + "/" + workerID
	s := e.sessions[key]
	if s == nil {
		s = &Session{
			engine: e, namespace: namespace, worker: Worker{ID: workerID, TTL: defaultLeaseTTL},
			leases: map[uint64]*lease{}, acks: map[uint64]ack{},
			some: make(chan struct{}, 1), work: make(chan struct{}, 1), kept: make(chan struct{}, 1),
			awaited: make(chan struct{}, 1),
			gone:    make(chan struct{}),
		}
		s.lapse = time.AfterFunc(s.worker.TTL, func() { e.later(func() { s.end(false) }) })
		e.sessions[key] = s
		e.running.Go(s.serve)
		e.running.Go(s.confirm)
	}
	return s, nil
}

// awaitWorker gives the worker of a run that was running when the process ended
// the time of its lease to come back.
func (e *Engine) awaitWorker(ent *entry, run *Run) {
	s, err := e.sessionOf(run.Namespace, run.Worker.ID)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.worker = *run.Worker
	s.lapse.Reset(s.worker.TTL)
	s.mu.Unlock()
	e.sched.takePlace(s)
	e.lease(s, ent, run)
}

// connect makes the session that of a worker's new connection, whose number it returns.
func (s *Session) connect(ctx context.Context, hello *Hello) (number int, held []HeldLease, err error) {
	s.engine.sched.part(s)
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return 0, nil, ErrLeaseLost
	}
	s.connection++
	number = s.connection
	s.connected, s.draining = true, false
	s.worker = Worker{ID: hello.ID, Name: hello.Name, TTL: hello.LeaseTTL}
	s.engine.sched.equip(s, hello)
	s.lapse.Reset(s.worker.TTL)
	s.orders = Orders{}
	s.acks = map[uint64]ack{}
	claims, unheard, over := s.compare(hello.Held)
	s.mu.Unlock()
	signal(s.some)

	for _, l := range slices.Concat(unheard, over) {
		s.engine.sched.returnPlace(s, l.ent.id)
	}
	for _, l := range unheard {
		s.engine.takeBack(l, hello.LeaseTTL)
	}
	for _, l := range claims {
		report, err := s.engine.recallReport(ctx, l)
		if err != nil {
			return 0, nil, err
		}
		held = append(held, HeldLease{RunID: l.ent.id, Lease: l.token, Report: report})
	}
	return number, held, nil
}

// compare returns those of the leases that a worker claims which hold. It removes
// and returns the others: those that the worker has not heard of, and those that
// are over. The session must be locked.
func (s *Session) compare(claims []HeldLease) (held, unheard, over []*lease) {
	claimed := make(map[uint64]string, len(claims))
	for _, c := range claims {
		claimed[c.Lease] = c.RunID
	}
	for token, l := range s.leases {
		switch {
		case l.over:
			over = append(over, l)
		case claimed[token] == l.ent.id:
			held = append(held, l)
			continue
		default:
			unheard = append(unheard, l)
		}
		delete(s.leases, token)
	}
	return held, unheard, over
}

// ackTime is how long an acknowledgement for which no code waits may wait for
// others, and for a sync that somebody else needs: one more message costs a
// worker in Python as much as half a run.
const ackTime = 10 * time.Millisecond

// confirm acknowledges reports, until the session is over or the engine stops.
func (s *Session) confirm() {
	for s.await(s.kept) {
		select {
		case <-time.After(ackTime):
		case <-s.awaited:
		case <-s.gone:
		case <-s.engine.stopping:
		}
		s.mu.Lock()
		acks := s.acks
		s.acks = map[uint64]ack{}
		s.mu.Unlock()
		s.acknowledge(acks)
	}
}

// await waits for a token; false means that the session is over or the engine stops.
func (s *Session) await(some <-chan struct{}) bool {
	select {
	case <-some:
		return true
	case <-s.gone:
		return false
	case <-s.engine.stopping:
		return false
	}
}

// acknowledge tells the worker which reports are kept, once that is durable.
func (s *Session) acknowledge(acks map[uint64]ack) {
	if len(acks) == 0 {
		return
	}
	var newest uint64
	for _, a := range acks {
		newest = max(newest, a.sequence)
	}
	if err := s.engine.stream.Commit(s.engine.work, newest); err != nil {
		// The worker sends again what was not acknowledged, on its next connection.
		s.engine.log.Warn("reports not acknowledged", "err", err)
		return
	}
	s.order(func(o *Orders) {
		for _, a := range acks {
			o.Acks = append(o.Acks, a.HeldLease)
		}
	})
}

// isHandling reports whether what the worker said is being handled, which counts
// as being heard of.
func (s *Session) isHandling() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handling > 0 {
		s.lapse.Reset(s.worker.TTL)
	}
	return s.handling > 0
}

// end gives up a worker that has left, or has not been heard of: its runs go to others.
func (s *Session) end(left bool) {
	e := s.engine
	if !left && s.isHandling() {
		return
	}
	e.sched.part(s)
	s.mu.Lock()
	if s.over || e.isStopping() {
		s.mu.Unlock()
		return
	}
	s.over, s.left = true, left
	leases, assigned, worker := s.leases, s.assigned, s.worker
	s.leases, s.assigned = nil, nil
	s.mu.Unlock()
	e.sessionsMu.Lock()
	if key := s.namespace + "/" + worker.ID; e.sessions[key] == s {
		delete(e.sessions, key)
	}
	e.sessionsMu.Unlock()
	close(s.gone)
	signal(s.some)
	for _, ent := range assigned {
		e.sched.restore(ent)
	}
	if len(leases) > 0 && !left {
		e.log.Warn("worker lost", "worker", worker.Name, "worker_id", worker.ID, "runs", len(leases))
	}
	for _, l := range leases {
		e.reclaim(l, left, worker.TTL)
	}
}
