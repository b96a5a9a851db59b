package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const (
	// maxHeldInputBytes is the largest input that stays in memory while its run
	// is queued; a larger one is read from the journal when the run starts.
	maxHeldInputBytes = 4 << 10

	appendTimeout = 10 * time.Second
)

// CreateRun accepts a run, or joins the one that the same call made before, and
// with Wait returns when it has ended. What it returns is durable. Once accepted
// the run goes on whatever becomes of ctx.
//
// Errors: those of the registry, *violation.Error, *violation.TooLargeError,
// *ConflictError, *QueueFullError, *ConcurrencyLimitError, ErrStopped, and the journal's.
func (e *Engine) CreateRun(ctx context.Context, namespace string, r CreateRequest) (run Run, created bool, err error) {
	o, err := e.order(namespace, r)
	if err != nil {
		return Run{}, false, err
	}
	if err := e.accept(ctx, namespace, []*order{o}); err != nil {
		return Run{}, false, err
	}
	if r.Wait {
		run, err = e.await(ctx, o.ent, 0)
	} else {
		run, err = e.commit(ctx, o.ent)
	}
	if err == nil {
		run, err = e.withPayloads(ctx, o.ent, run)
	}
	return run, o.created, err
}

// CheckRun refuses a request that CreateRun would refuse whatever the load, with
// the same errors.
func (e *Engine) CheckRun(namespace string, r CreateRequest) error {
	o, err := e.order(namespace, r)
	if err != nil {
		return err
	}
	return e.resolveOne(namespace, o)
}

// Created is what a request of CreateRuns became.
type Created struct {
	// Run is without input and output.
	Run Run
	// New is false when the request joined a run that was there already.
	New bool
}

// CreateRuns is CreateRun for many, which do not Wait: all of them or none, and
// durable by one commit. Only after an error of the journal's may some have been
// accepted; a repeat joins those.
//
// Errors: those of CreateRun, whose fields are named `requests[i].…`; another
// error that concerns one request is a *RequestError.
func (e *Engine) CreateRuns(ctx context.Context, namespace string, rs []CreateRequest) ([]Created, error) {
	orders, err := e.orders(namespace, rs)
	if err != nil {
		return nil, err
	}
	var different []*order
	for i, o := range orders {
		if o.place == i {
			different = append(different, o)
		}
	}
	if err := e.accept(ctx, namespace, different); err != nil {
		return nil, err
	}
	entries := make([]*entry, len(orders))
	for i, o := range orders {
		entries[i] = o.ent
	}
	runs, err := e.commitAll(ctx, entries)
	if err != nil {
		return nil, err
	}
	created := make([]Created, len(orders))
	for i, o := range orders {
		created[i] = Created{Run: runs[i], New: o.created && o.place == i}
	}
	return created, nil
}

// order is a request on its way to become a run.
type order struct {
	request CreateRequest
	id      string
	hash    payloadHash
	// place is that in the batch, or alone.
	place int

	// task is nil where a worker executes the run.
	task Task
	// newcomer is its room in the scheduler.
	newcomer newcomer
	record   record
	// ent is the run, once there is one; created says that it was made here.
	ent     *entry
	created bool
}

// alone is the place of an order that is no part of a batch.
const alone = -1

// order completes and checks a request and names its run.
func (e *Engine) order(namespace string, r CreateRequest) (*order, error) {
	r, err := e.keyed(r)
	if err != nil {
		return nil, err
	}
	if r, err = e.complete(r); err != nil {
		return nil, err
	}
	id, err := identify(namespace, r)
	if err != nil {
		return nil, err
	}
	return &order{request: r, id: id, hash: hashPayload(r), place: alone}, nil
}

// keyed gives a request the concurrency key that its work asks for, beside which it takes no
// other.
func (e *Engine) keyed(r CreateRequest) (CreateRequest, error) {
	setDefault(&r.Target, TaskTarget)
	key := e.registry.ConcurrencyKey(r.Target, r.TaskType, r.Input)
	switch given := r.Options.Concurrency; {
	case key == "":
	case given == nil:
		r.Options.Concurrency = &Concurrency{Key: key}
	case given.Key != key:
		return r, violation.New("concurrency",
			"must be left out: a run with a thread_id waits for the turns before it, and takes no key of its own")
	}
	return r, nil
}

// orders makes an order of each request of a batch. Requests with the same id share the first one's.
func (e *Engine) orders(namespace string, rs []CreateRequest) ([]*order, error) {
	orders := make([]*order, len(rs))
	byID := make(map[string]*order, len(rs))
	var mistakes []error
	for i, r := range rs {
		o, err := e.order(namespace, r)
		if err != nil {
			mistakes = append(mistakes, inBatch(i, err))
			continue
		}
		o.place = i
		first, repeated := byID[o.id]
		switch {
		case !repeated:
			byID[o.id] = o
			orders[i] = o
		case first.hash == o.hash:
			orders[i] = first
		default:
			mistakes = append(mistakes, o.refuse(&ConflictError{RunID: o.id}))
		}
	}
	return orders, violation.Join(mistakes...)
}

// refuse says which request an error is about.
func (o *order) refuse(err error) error {
	if o.place == alone {
		return err
	}
	return inBatch(o.place, err)
}

func inBatch(place int, err error) error {
	if names, moved := violation.In(fmt.Sprintf("requests[%d]", place), err); names {
		return moved
	}
	return &RequestError{Place: place, Err: err}
}

// accept gives every order its run: the one that is there already, else a new
// one. It makes none unless there is room for all of them.
func (e *Engine) accept(ctx context.Context, namespace string, orders []*order) error {
	keys := make([]string, len(orders))
	for i, o := range orders {
		keys[i] = namespace + "/" + o.id
	}
	leave, err := e.accepts.enter(ctx, keys...)
	if err != nil {
		return err
	}
	defer leave()
	fresh := make([]*order, 0, len(orders))
	for _, o := range orders {
		if o.ent = e.index.get(namespace, o.id); o.ent == nil {
			fresh = append(fresh, o)
		}
	}
	if err := checkPayloads(orders); err != nil || len(fresh) == 0 {
		return err
	}
	e.accepting.RLock()
	defer e.accepting.RUnlock()
	if e.isStopping() {
		return ErrStopped
	}
	if err := e.resolve(namespace, fresh); err != nil {
		return err
	}
	giveBack, err := e.makeRoom(namespace, fresh)
	if err != nil {
		return err
	}
	defer giveBack()
	err = e.appendFirst(ctx, namespace, fresh)
	e.takeOver(namespace, fresh)
	if err != nil {
		return err
	}
	return checkPayloads(fresh)
}

// takeOver cancels the runs that have the concurrency keys of orders which ask
// for that. Of runs that are accepted at the same time, in whatever order they
// come here, the log's last one stays.
func (e *Engine) takeOver(namespace string, orders []*order) {
	for _, o := range orders {
		c := o.request.Options.Concurrency
		if o.ent == nil || c == nil || o.ent.snapshot().State.Ended() {
			continue
		}
		if c.Strategy == CancelWhoHasTaken {
			for _, ent := range e.sched.takeOver(namespace, c.Key, o.ent) {
				e.cancelFor(e.work, ent, o.ent, c.Key)
			}
		}
		if taker := e.sched.takerFrom(namespace, c.Key, o.ent); taker != nil {
			e.cancelFor(e.work, o.ent, taker, c.Key)
		}
	}
}

// cancelFor cancels a run whose concurrency key another took.
func (e *Engine) cancelFor(ctx context.Context, ent, taker *entry, key string) {
	_, err := e.cancel(ctx, ent, RunError{
		Reason: ReasonCancelled, Message: fmt.Sprintf("run %s took over its concurrency key %q", taker.id, key),
	})
	if err != nil && !errors.Is(err, errUnchanged) {
		e.log.ErrorContext(ctx, "run not cancelled for another", "run_id", ent.id, "for_run_id", taker.id, "err", err)
	}
}

// checkPayloads refuses orders whose run has another payload.
func checkPayloads(orders []*order) error {
	for _, o := range orders {
		if o.ent != nil && o.ent.hash != o.hash {
			return o.refuse(&ConflictError{RunID: o.id})
		}
	}
	return nil
}

// resolve finds out who executes the run of every order.
func (e *Engine) resolve(namespace string, orders []*order) error {
	var mistakes []error
	for _, o := range orders {
		if err := e.resolveOne(namespace, o); err != nil {
			mistakes = append(mistakes, o.refuse(err))
		}
	}
	if len(mistakes) == 1 {
		return mistakes[0]
	}
	return violation.Join(mistakes...)
}

func (e *Engine) resolveOne(namespace string, o *order) (err error) {
	r := &o.request
	if r.Target == WorkerTarget {
		return nil
	}
	o.task, err = e.registry.Resolve(namespace, r.Target, r.AgentID, r.TaskType, r.Input)
	if err != nil && r.Target == AgentTarget && e.sched.knows(namespace, r.AgentID) {
		r.Target = WorkerTarget
		return nil
	}
	if err != nil || len(r.Metadata) == 0 {
		return err
	}
	return e.registry.CheckMetadata(r.Target, r.AgentID, r.TaskType, r.Metadata)
}

// makeRoom takes a place for each order that may begin, or room in the queue, for
// all or none. giveBack returns what was taken for those that made no run.
func (e *Engine) makeRoom(namespace string, orders []*order) (giveBack func(), err error) {
	newcomers := make([]*newcomer, len(orders))
	now := e.cfg.Now()
	for i, o := range orders {
		c := o.request.Options.Concurrency
		o.newcomer = newcomer{
			namespace: namespace, runID: o.id, concurrency: c,
			mayBegin: o.task != nil && c == nil && o.request.delay(now) == 0, delayed: o.request.delay(now) > 0,
		}
		newcomers[i] = &o.newcomer
	}
	if err := e.sched.reserve(newcomers); err != nil {
		return nil, err
	}
	return func() {
		var unused []*newcomer
		for _, o := range orders {
			if !o.created {
				unused = append(unused, &o.newcomer)
			}
		}
		if len(unused) > 0 {
			e.sched.release(unused...)
		}
	}, nil
}

// appendFirst appends the first record of each run, which is also its place in
// the queue; where a place is taken for it, it is the beginning of its first
// attempt. Runs that the journal has already are taken up.
func (e *Engine) appendFirst(ctx context.Context, namespace string, orders []*order) error {
	now := e.cfg.Now().UTC()
	messages := make([]journal.Message, len(orders))
	for i, o := range orders {
		o.record = e.firstRecord(namespace, o, now)
		e.placeInTrace(ctx, &o.record)
		data, err := o.record.encode()
		if err != nil {
			return err
		}
		messages[i] = journal.Message{Subject: runSubject(namespace, o.id), Data: data, Expect: new(uint64)}
	}
	// A caller that goes away must not leave the outcome unknown.
	appendCtx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), appendTimeout, journal.ErrUnavailable)
	defer cancel()
	for {
		results, err := e.stream.AppendEach(appendCtx, messages)
		if err != nil {
			return fmt.Errorf("accept %d runs: %w", len(orders), err)
		}
		var failures []error
		var again []*order
		var messagesAgain []journal.Message
		for i, o := range orders {
			err := e.admit(ctx, o, results[i])
			switch {
			case errors.Is(err, journal.ErrNotFound):
				again, messagesAgain = append(again, o), append(messagesAgain, messages[i])
			case err != nil:
				failures = append(failures, fmt.Errorf("accept run %s: %w", o.id, err))
			}
		}
		if len(again) == 0 || len(failures) > 0 {
			return errors.Join(failures...)
		}
		// A cluster refuses for the sake of a record that it is still about to keep.
		orders, messages = again, messagesAgain
		select {
		case <-time.After(firstPause):
		case <-appendCtx.Done():
			return fmt.Errorf("accept run %s: %w", orders[0].id, context.Cause(appendCtx))
		}
	}
}

// firstRecord is what the log of an order's run begins with.
func (e *Engine) firstRecord(namespace string, o *order, now time.Time) record {
	r := &o.request
	var options *Options
	if !r.Options.isZero() {
		options = &r.Options
	}
	rec := record{
		ID: uuid.NewString(), Hash: o.hash, Payload: r.Input,
		Run: Run{
			ID: o.id, Namespace: namespace, Target: r.Target, AgentID: r.AgentID, TaskType: r.TaskType,
			Description: r.Description, State: Queued,
			Metadata: r.Metadata, CreatedAt: now, RunTimeout: r.RunTimeout, Options: options,
			named: e.isNamed(namespace, r),
		},
	}
	if o.task != nil {
		e.limit(&rec.Run, e.registry.Defaults(namespace, r.Target, r.AgentID))
	} else {
		// A worker's agent says the rest once the run begins.
		rec.Run.MaxAttempts = e.policyOf(&rec.Run, nil).MaxAttempts
	}
	if d := r.delay(now); d > 0 {
		rec.Run.NotBefore = now.Add(d)
	}
	if r.Deadline > 0 {
		rec.Run.Deadline = now.Add(r.Deadline)
	}
	if o.newcomer.begins {
		rec.Run.begin(now, nil)
	}
	return rec
}

// isNamed reports whether whoever keeps rows of runs has, or makes, one of the run:
// its creator gave it its id, as schedules do, or it is a sub-run of such a run.
func (e *Engine) isNamed(namespace string, r *CreateRequest) bool {
	if r.Options.ParentID == "" {
		return r.RunID != ""
	}
	parent := e.index.get(namespace, r.Options.ParentID)
	return parent != nil && parent.named
}

// admit makes the run of an order whose first record was appended, or takes up
// the one that was in the way of that; journal.ErrNotFound when there is none.
func (e *Engine) admit(ctx context.Context, o *order, appended journal.AppendResult) (err error) {
	if errors.Is(appended.Err, journal.ErrConflict) {
		o.ent, err = e.adopt(ctx, o.record.Run.Namespace, o.id)
		return err
	}
	if appended.Err != nil {
		return appended.Err
	}
	o.record.placed(o.record.Run.Namespace, o.id, appended.Sequence)
	input := o.request.Input
	e.payloads.Add(appended.Sequence, input)
	ent := newEntry(&o.record)
	ent.task = o.task
	if o.newcomer.begins || len(input) <= maxHeldInputBytes {
		ent.input = input
	}
	if o.ent, o.created = e.index.add(ent); !o.created {
		return nil
	}
	if o.request.Deadline > 0 {
		e.setDeadline(ent, o.request.Deadline)
	}
	if o.newcomer.begins {
		e.occupy(ent)
		return nil
	}
	ent.delay(o.request.delay(o.record.Run.CreatedAt))
	e.sched.push(ent)
	return nil
}

// adopt takes up a run that the journal has and the index has not: an earlier
// call appended it and did not live to see the answer.
func (e *Engine) adopt(ctx context.Context, namespace, id string) (*entry, error) {
	last, err := e.stream.Last(ctx, runSubject(namespace, id))
	if err != nil {
		return nil, fmt.Errorf("read run %s: %w", id, err)
	}
	ent, err := entryOf(last)
	if err != nil {
		return nil, err
	}
	ent, added := e.index.add(ent)
	if added {
		return ent, e.resume(e.work, ent)
	}
	return ent, nil
}
