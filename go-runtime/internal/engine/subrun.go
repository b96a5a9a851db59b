package engine

import (
	"cmp"
	"context"
	"iter"

	"github.com/google/uuid"

	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// maxSubRunDepth is how many sub-runs may be under one another. A run that
// waits for its own holds no place, so that nothing else ends a chain of them.
const maxSubRunDepth = 100

// StartRun asks for a sub-run; Key names it in its parent. Err, if it is set, is
// what is wrong with the request already.
type StartRun struct {
	Key     string
	Request CreateRequest
	// TraceParent is the W3C trace context of the code that asks, or empty.
	TraceParent string
	Err         error
}

// startRun creates the sub-run that a report asks for, and answers in its own time.
func (c *Connection) startRun(ctx context.Context, l *lease, r *Report) error {
	e := c.engine
	if r.StartRun.Err != nil {
		return r.StartRun.Err
	}
	run := l.ent.snapshot()
	request, err := e.subRun(l, &run, r.StartRun.Key, r.StartRun.Request)
	if err != nil {
		return err
	}
	// In the trace of the run, and not of the worker's connection.
	ctx = span.Continue(ctx, cmp.Or(r.StartRun.TraceParent, l.ent.traceOrigin().TraceParent))
	number := r.Number
	answer := *r
	e.accepting.RLock()
	defer e.accepting.RUnlock()
	if e.isStopping() {
		return ErrStopped
	}
	e.running.Go(func() {
		child, err := e.createSubRun(context.WithoutCancel(ctx), run.Namespace, request)
		if err != nil {
			c.refuse(&answer, err)
			return
		}
		c.order(func(o *Orders) {
			o.Children = append(o.Children, ChildRun{ParentID: run.ID, Lease: l.token, Report: number, Run: child})
		})
	})
	return nil
}

// startSubRun creates the sub-run that a task of the runtime asks for.
func (e *Engine) startSubRun(ctx context.Context, l *lease, key string, request CreateRequest) (Run, error) {
	run := l.ent.snapshot()
	request, err := e.subRun(l, &run, key, request)
	if err != nil {
		return Run{}, err
	}
	if started := e.index.get(run.Namespace, request.RunID); started != nil {
		return e.read(ctx, started)
	}
	return e.createSubRun(ctx, run.Namespace, request)
}

// subRun makes a request one for the sub-run of that key, of the run that has the lease.
func (e *Engine) subRun(l *lease, run *Run, key string, request CreateRequest) (CreateRequest, error) {
	if key == "" {
		return request, violation.New("start_run.key", "is required")
	}
	if err := checkText("start_run.key", key, maxStepKeyBytes); err != nil {
		return request, err
	}
	if !l.holds(run) {
		return request, ErrLeaseLost
	}
	if e.isDeep(run) {
		return request, violation.New("start_run",
			"it would be sub-run %d of one another, and %d are the most; does the agent run itself?", maxSubRunDepth+1, maxSubRunDepth)
	}
	request, err := e.keyed(request)
	if _, moved := violation.In("start_run.run", err); err != nil {
		return request, moved
	}
	if c := request.Options.Concurrency; c != nil && e.isHeldAbove(run, c.Key) {
		return request, violation.New("start_run.run.concurrency.key", "%q is that of a run which waits for this one", c.Key)
	}
	request.RunID = uuid.NewSHA1(runIDSpace, []byte(run.Namespace+"\x00sub_run\x00"+run.ID+"\x00"+key)).String()
	request.IdempotencyKey, request.RequestID, request.Wait = "", "", false
	request.Options.ParentID = run.ID
	return request, nil
}

// createSubRun creates what subRun made.
func (e *Engine) createSubRun(ctx context.Context, namespace string, request CreateRequest) (Run, error) {
	child, _, err := e.CreateRun(ctx, namespace, request)
	if err != nil {
		return Run{}, err
	}
	if ent := e.index.get(namespace, child.ID); ent != nil {
		// The parent may have ended before it was there to be cancelled with that.
		e.cancelWithParent(e.work, ent)
	}
	return child, nil
}

// isDeep reports whether a run is as far below others as one may be.
func (e *Engine) isDeep(run *Run) bool {
	depth := -1
	for range e.withParents(run) {
		depth++
	}
	return depth >= maxSubRunDepth
}

// isHeldAbove reports whether a run, or one that it is a part of, has a concurrency key.
func (e *Engine) isHeldAbove(run *Run, key string) bool {
	for above := range e.withParents(run) {
		if c := above.options().Concurrency; c != nil && c.Key == key {
			return true
		}
	}
	return false
}

// withParents gives a run, and those that it is a part of, as far as they are kept.
func (e *Engine) withParents(run *Run) iter.Seq[*Run] {
	return func(yield func(*Run) bool) {
		for yield(run) {
			ent := e.index.get(run.Namespace, run.options().ParentID)
			if ent == nil {
				return
			}
			above := ent.snapshot()
			run = &above
		}
	}
}
