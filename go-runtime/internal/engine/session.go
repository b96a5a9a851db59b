package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Limits of a worker.
const (
	maxWorkerAgents      = 1000
	maxWorkerConcurrency = 10_000
	defaultLeaseTTL      = 30 * time.Second
	minLeaseTTL          = time.Second
	maxLeaseTTL          = time.Hour
)

// Hello introduces a worker: a process that executes agents.
type Hello struct {
	// ID is a UUID, new for each process; Name is for people.
	ID, Name string
	Agents   []WorkerAgent
	// Concurrency is how many runs the worker executes at a time.
	Concurrency int
	// LeaseTTL is for how long a worker that is not heard of keeps its runs; 0: 30 s.
	LeaseTTL time.Duration
	// Held are the leases that the worker still holds from before.
	Held []HeldLease
}

// HeldLease is a run that a worker executes.
type HeldLease struct {
	RunID string
	Lease uint64
	// Report is the number of the last report of the lease that was kept.
	Report uint64
}

// WorkerAgent is an agent that a worker serves.
type WorkerAgent struct {
	ID, Description string
	// Retry and RunTimeout are for runs that do not say; nil and 0: the engine's.
	Retry      *RetryPolicy
	RunTimeout time.Duration
	// Workers is how many serve it at present.
	Workers int
}

func (h *Hello) check() error {
	var checks []error
	if id, err := uuid.Parse(h.ID); err != nil || id.String() != h.ID {
		checks = append(checks, violation.New("hello.worker_id", "must be a UUID such as %s", uuid.Nil))
	}
	checks = append(checks, checkText("hello.name", h.Name, maxLabelBytes))
	if len(h.Agents) == 0 || len(h.Agents) > maxWorkerAgents {
		checks = append(checks, violation.New("hello.agents", "must be 1 to %d", maxWorkerAgents))
	}
	for i, a := range h.Agents {
		field := fmt.Sprintf("hello.agents[%d]", i)
		if a.ID == "" {
			checks = append(checks, violation.New(field+".agent_id", "is required"))
		}
		checks = append(checks, checkText(field+".agent_id", a.ID, maxLabelBytes),
			checkText(field+".description", a.Description, maxTextBytes), a.Retry.check(field+".retry"))
		if a.RunTimeout < 0 {
			checks = append(checks, violation.New(field+".run_timeout", "must be positive"))
		}
	}
	if h.Concurrency < 1 || h.Concurrency > maxWorkerConcurrency {
		checks = append(checks, violation.New("hello.concurrency", "must be 1 to %d", maxWorkerConcurrency))
	}
	if h.LeaseTTL != 0 && (h.LeaseTTL < minLeaseTTL || h.LeaseTTL > maxLeaseTTL) {
		checks = append(checks, violation.New("hello.lease_ttl", "must be %s to %s", minLeaseTTL, maxLeaseTTL))
	}
	return violation.Join(checks...)
}

// Session is a worker and the runs it has, from its first Hello until it has not
// been heard of for the lease time. Its connection may break and come again.
type Session struct {
	engine    *Engine
	namespace string
	worker    Worker
	agents    map[string]WorkerAgent

	// free is how many more runs it takes; the scheduler's lock guards it.
	free int

	mu sync.Mutex
	// connection counts how often the worker connected; 0 while it has not since the start.
	connection int
	connected  bool
	draining   bool
	over       bool
	leases     map[uint64]*lease
	assigned   []*entry
	orders     Orders
	acks       map[uint64]ack
	// lapse fires when the worker has not been heard of for the lease time.
	lapse *time.Timer
	// some carries one token while there are orders, work while there are runs to
	// begin, kept while there are reports to acknowledge.
	some, work, kept chan struct{}
	// gone is closed when the session is over.
	gone chan struct{}
}

// lease is a run that a worker executes.
type lease struct {
	session *Session
	ent     *entry
	token   uint64
	// timeout ends the attempt.
	timeout *time.Timer

	// mu is held while a report of the lease is handled. report is the number of
	// the last one that was, place that of its last event which was kept.
	mu     sync.Mutex
	report uint64
	place  int

	// over says that the run has moved on; the worker's place is still taken.
	// revoked is since when the worker is to stop. Guarded by the session's lock.
	over    bool
	revoked time.Time
}

// ack is a report to be acknowledged once what it brought is durable.
type ack struct {
	HeldLease

	sequence uint64
}

// Orders is what the engine has to say to a worker.
type Orders struct {
	Assignments   []Assignment
	Acks          []HeldLease
	Cancellations []Cancellation
	Refusals      []Refusal
	Children      []ChildRun
}

func (o *Orders) empty() bool {
	return len(o.Assignments)+len(o.Acks)+len(o.Cancellations)+len(o.Refusals)+len(o.Children) == 0
}

// Assignment leases a run to a worker.
type Assignment struct {
	// Run is with its input.
	Run         Run
	Lease       uint64
	StepTimeout time.Duration
	Steps       []Step
	Answers     []Answer
	Checkpoint  []byte
	TraceParent string
}

// Cancellation says that a run is no longer the worker's.
type Cancellation struct {
	RunID  string
	Lease  uint64
	Reason Reason
}

// Refusal says that a report was not kept.
type Refusal struct {
	HeldLease

	// Err is ErrLeaseLost, or an error of CreateRun, or *violation.Error.
	Err error
}

// ChildRun answers a report that started a sub-run.
type ChildRun struct {
	ParentID string
	Lease    uint64
	Report   uint64
	// Run is with its output if it succeeded.
	Run Run
}

// WorkerAgents returns the agents that workers of a namespace serve or served, in no order.
func (e *Engine) WorkerAgents(namespace string) []WorkerAgent { return e.sched.agents(namespace) }

// countWorkers returns how many workers are connected, and how many runs workers have.
func (e *Engine) countWorkers() (connected, leased int) {
	e.sessionsMu.Lock()
	defer e.sessionsMu.Unlock()
	for _, s := range e.sessions {
		s.mu.Lock()
		leased += len(s.leases)
		if s.connected {
			connected++
		}
		s.mu.Unlock()
	}
	return connected, leased
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
		"agents", slices.Sorted(maps.Keys(s.agents)), "concurrency", hello.Concurrency, "runs_held", len(held))
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
			gone: make(chan struct{}),
		}
		s.lapse = time.AfterFunc(s.worker.TTL, func() { e.later(s.end) })
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
	e.lease(s, ent, run)
}

// lease notes that a worker has a run. The run's turn must be held, or the run
// be unknown to others yet.
func (e *Engine) lease(s *Session, ent *entry, run *Run) {
	l := &lease{session: s, ent: ent, token: run.Lease, place: -1}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		ttl := s.worker.TTL
		e.running.Go(func() { e.loseLease(l, ttl) })
		return
	}
	l.timeout = time.AfterFunc(run.RunTimeout, func() { e.later(func() { e.timeOut(ent, l.token) }) })
	s.leases[l.token] = l
	ent.mu.Lock()
	ent.lease = l
	ent.mu.Unlock()
}

// timeOut ends a run whose attempt has taken too long.
func (e *Engine) timeOut(ent *entry, token uint64) {
	now := e.cfg.Now().UTC()
	run, err := e.change(e.work, ent, nil, func(run *Run) error {
		if run.State != Running || run.Lease != token {
			return errUnchanged
		}
		state, why := outcome(run, errRunTimeout)
		run.end(state, why, now)
		return nil
	})
	if err != nil {
		e.logUnlessUnchanged(run, err)
		return
	}
	e.logEnd(run, errRunTimeout)
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
	s.agents = make(map[string]WorkerAgent, len(hello.Agents))
	for _, a := range hello.Agents {
		s.agents[a.ID] = a
	}
	s.lapse.Reset(s.worker.TTL)
	s.orders = Orders{}
	s.acks = map[uint64]ack{}
	claims, unheard := s.compare(hello.Held)
	taken := len(s.leases) + len(s.assigned)
	s.mu.Unlock()
	signal(s.some)

	for _, l := range unheard {
		l.timeout.Stop()
		s.engine.giveBack(l.ent, l.token)
	}
	for _, l := range claims {
		report, err := s.engine.recallReport(ctx, l)
		if err != nil {
			return 0, nil, err
		}
		held = append(held, HeldLease{RunID: l.ent.id, Lease: l.token, Report: report})
	}
	s.engine.sched.setFree(s, hello.Concurrency-taken)
	return number, held, nil
}

// compare returns those of the leases that a worker claims which hold, and those
// that it has not heard of. The session must be locked.
func (s *Session) compare(claims []HeldLease) (held, unheard []*lease) {
	claimed := make(map[uint64]string, len(claims))
	for _, c := range claims {
		claimed[c.Lease] = c.RunID
	}
	for token, l := range s.leases {
		switch {
		case claimed[token] == l.ent.id && !l.over:
			held = append(held, l)
			continue
		case !l.over:
			unheard = append(unheard, l)
		}
		delete(s.leases, token)
	}
	return held, unheard
}

// Connection is a session for as long as one stream to its worker lives.
type Connection struct {
	*Session

	number int
}

// LeaseTTL is for how long the worker keeps its runs without being heard of.
func (c *Connection) LeaseTTL() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.worker.TTL
}

// current reports whether the worker has not connected again since. The session must be locked.
func (c *Connection) current() bool { return c.connected && c.number == c.connection }

// Heard notes that the worker is alive.
func (c *Connection) Heard() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current() && !c.over {
		c.lapse.Reset(c.worker.TTL)
	}
}

// Drain has the worker get no more runs.
func (c *Connection) Drain() {
	c.mu.Lock()
	c.draining = true
	c.mu.Unlock()
	c.engine.sched.part(c.Session)
}

// Disconnect says that the stream is gone. The worker keeps its runs for the lease time.
func (c *Connection) Disconnect() {
	c.mu.Lock()
	current, worker := c.current(), c.worker
	if current {
		c.connected = false
	}
	c.mu.Unlock()
	if current {
		c.engine.sched.part(c.Session)
		c.engine.log.Info("worker disconnected", "worker", worker.Name, "worker_id", worker.ID)
	}
}

// Next waits for something to say to the worker.
// Errors: ErrStopped, ErrReplaced when the worker has connected again, ctx's.
func (c *Connection) Next(ctx context.Context) (Orders, error) {
	for gathered := false; ; {
		c.mu.Lock()
		if !c.current() {
			c.mu.Unlock()
			return Orders{}, ErrReplaced
		}
		if c.over {
			c.mu.Unlock()
			return Orders{}, ErrLeaseLost
		}
		if !gathered && len(c.leases) > gatherAbove && !c.orders.empty() {
			c.mu.Unlock()
			gathered = true
			if err := c.gather(ctx); err != nil {
				return Orders{}, err
			}
			continue
		}
		orders := c.orders
		c.orders = Orders{}
		c.mu.Unlock()
		if !orders.empty() {
			return orders, nil
		}
		gathered = false
		select {
		case <-c.some:
		case <-c.engine.stopping:
			return Orders{}, ErrStopped
		case <-ctx.Done():
			return Orders{}, context.Cause(ctx)
		}
	}
}

// A message costs a worker in Python many times what is in it. So a worker that
// has more than a few runs gets what comes within a moment as one.
const (
	gatherAbove = 4
	gatherTime  = 500 * time.Microsecond
)

// gather waits for more to say.
func (c *Connection) gather(ctx context.Context) error {
	moment := time.NewTimer(gatherTime)
	defer moment.Stop()
	select {
	case <-moment.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// order adds to what is said to the worker.
func (s *Session) order(add func(*Orders)) {
	s.mu.Lock()
	if s.connected {
		add(&s.orders)
	}
	s.mu.Unlock()
	signal(s.some)
}

func signal(some chan struct{}) {
	select {
	case some <- struct{}{}:
	default:
	}
}

// assign gives the worker a run for which a place of its was taken.
func (s *Session) assign(ent *entry) {
	s.mu.Lock()
	over := s.over
	if !over {
		s.assigned = append(s.assigned, ent)
	}
	s.mu.Unlock()
	if over {
		s.engine.sched.restore(ent)
		return
	}
	signal(s.work)
}

// serve begins the runs that were assigned, until the session is over or the engine stops.
func (s *Session) serve() {
	for s.await(s.work) {
		s.mu.Lock()
		assigned := s.assigned
		s.assigned = nil
		s.mu.Unlock()
		for _, ent := range assigned {
			s.begin(ent)
		}
	}
}

// confirm acknowledges reports, until the session is over or the engine stops.
func (s *Session) confirm() {
	for s.await(s.kept) {
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

// begin begins an attempt and tells the worker.
func (s *Session) begin(ent *entry) {
	e := s.engine
	s.mu.Lock()
	connected, worker := s.connected && !s.draining, s.worker
	s.mu.Unlock()
	if !connected {
		e.sched.restore(ent)
		e.sched.returnPlaces(s, 1)
		return
	}
	assignment, err := s.beginAttempt(ent, &worker)
	if err != nil {
		e.sched.returnPlaces(s, 1)
		if !errors.Is(err, errUnchanged) {
			e.log.Error("run not begun", "run_id", ent.id, "worker", worker.Name, "err", err)
		}
		return
	}
	s.order(func(o *Orders) { o.Assignments = append(o.Assignments, assignment) })
}

func (s *Session) beginAttempt(ent *entry, worker *Worker) (Assignment, error) {
	e := s.engine
	before := ent.snapshot()
	ent.mu.Lock()
	input := ent.input
	ent.mu.Unlock()
	if input == nil {
		rec, err := e.readRecordSurely(e.work, ent.created)
		if err != nil {
			return Assignment{}, err
		}
		input = rec.Payload
	}
	var p past
	if before.begun > 0 {
		var err error
		if p, err = e.readPast(e.work, ent); err != nil {
			return Assignment{}, err
		}
	}
	s.mu.Lock()
	agent := s.agents[before.AgentID]
	s.mu.Unlock()
	now := e.cfg.Now().UTC()
	run, err := e.changeThen(e.work, ent, nil, func(run *Run) error {
		if run.State != Queued {
			return errUnchanged
		}
		run.begin(now, worker)
		run.MaxAttempts = e.policyOf(run, agent.Retry).MaxAttempts
		if run.RunTimeout == 0 {
			if run.RunTimeout = agent.RunTimeout; run.RunTimeout == 0 {
				run.RunTimeout = e.cfg.RunTimeout
			}
		}
		return nil
	}, func(run *Run) { e.lease(s, ent, run) })
	if err != nil {
		return Assignment{}, err
	}
	run.Input = input
	return Assignment{
		Run: run, Lease: run.Lease, StepTimeout: run.options().StepTimeout,
		Steps: p.Steps, Answers: p.Answers, Checkpoint: p.Checkpoint, TraceParent: ent.traceParent,
	}, nil
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

// end gives up a worker that has not been heard of: its runs go to others.
func (s *Session) end() {
	e := s.engine
	e.sched.part(s)
	s.mu.Lock()
	if s.over || e.isStopping() {
		s.mu.Unlock()
		return
	}
	s.over = true
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
	if len(leases) > 0 {
		e.log.Warn("worker lost", "worker", worker.Name, "worker_id", worker.ID, "runs", len(leases))
	}
	for _, l := range leases {
		e.loseLease(l, worker.TTL)
	}
}

// loseLease takes a run from a worker that was not heard of.
func (e *Engine) loseLease(l *lease, ttl time.Duration) {
	if l.timeout != nil {
		l.timeout.Stop()
	}
	run, err := e.lose(e.work, l.ent, l.token, "the worker was not heard of for "+ttl.String())
	if err != nil {
		e.logUnlessUnchanged(run, err)
		return
	}
	if run.State == Queued {
		e.sched.restore(l.ent)
	}
}

// revoke tells the worker that a run has moved on. The worker keeps its place
// until it says that the run's code is gone.
func (l *lease) revoke(reason Reason) {
	l.timeout.Stop()
	s := l.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases[l.token] != l || l.over {
		return
	}
	l.over, l.revoked = true, time.Now()
	if s.connected {
		s.orders.Cancellations = append(s.orders.Cancellations, Cancellation{RunID: l.ent.id, Lease: l.token, Reason: reason})
		signal(s.some)
	}
}

// giveBack queues a run again to go on with the attempt that nobody executes.
func (e *Engine) giveBack(ent *entry, token uint64) {
	run, err := e.change(e.work, ent, nil, func(run *Run) error {
		if run.State != Running || run.Lease != token {
			return errUnchanged
		}
		run.giveBack()
		return nil
	})
	if err != nil {
		e.logUnlessUnchanged(run, err)
		return
	}
	e.requeue(ent, &run)
}

// policyOf returns how a run is retried: as it says, else as its agent does, else
// by the engine's configuration.
func (e *Engine) policyOf(run *Run, agent *RetryPolicy) RetryPolicy {
	policy := RetryPolicy{}
	if agent != nil {
		policy = *agent
	}
	if own := run.options().Retry; own != nil {
		policy = *own
	}
	setDefault(&policy.MaxAttempts, e.cfg.MaxAttempts)
	return policy
}
