package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/document"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/thread"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// threadMember is that of an input which names the thread that the run is a turn of. Without
// it the run has a thread of its own, in its log.
const threadMember = "thread_id"

// threadKey begins the key under which a run records at which revision it came to its thread.
const threadKey = "thread: "

func checkThread(field, id string) error {
	if !violation.IsName(id) {
		return violation.New(field, "must be 1 to 100 letters, digits, dashes and underscores, is %q", clip(id))
	}
	return nil
}

// ConcurrencyKey implements engine.Registry: runs that are turns of one thread go on one
// after another.
func (r *Registry) ConcurrencyKey(target engine.Target, taskType string, input []byte) string {
	if _, isGraph := graphTasks()[taskType]; target != engine.TaskTarget || r.threads == nil || !isGraph {
		return ""
	}
	var asked struct {
		ThreadID string `json:"thread_id"`
	}
	if json.Unmarshal(input, &asked) != nil || asked.ThreadID == "" {
		return ""
	}
	return "thread:" + asked.ThreadID
}

// part is what a run has of its thread.
type part struct {
	saver  graph.Saver
	thread string
	// before is the revision that the thread had when the run came to it; 0: there was none.
	before uint64
	// close waits until all is durable.
	close func(ctx context.Context) error
}

// ownPart is that of a run whose thread is in its log.
func ownPart(call engine.Call, durability graph.Durability) part {
	saver := newRunSaver(call)
	if durability == graph.Sync {
		saver.commit = call.Commit
	}
	return part{saver: saver, thread: call.RunID, close: func(context.Context) error { return nil }}
}

// threadPart is that of a run in a thread which outlives it. The revision at which the run
// comes to it is recorded, so that a later call knows whether its input was written.
func (r *Registry) threadPart(ctx context.Context, call engine.Call, found *document.Compiled, id string) (part, error) {
	saver := r.threads.Saver(call.Namespace, found.Durability)
	t := part{saver: signer{Saver: saver, runID: call.RunID}, thread: id, close: saver.Close}
	key := threadKey + id
	var came struct {
		Revision uint64 `json:"revision"`
	}
	if at := slices.IndexFunc(call.Steps, func(step engine.Step) bool { return step.Key == key }); at >= 0 {
		err := json.Unmarshal(call.Steps[at].Result, &came)
		t.before = came.Revision
		return t, err
	}
	saved, err := saver.Load(ctx, found.Graph, id)
	if err != nil {
		return t, err
	}
	if saved != nil {
		switch {
		case saved.Graph != found.Name():
			return t, violation.New("input.thread_id", "thread %s is one of graph %s", id, saved.Graph)
		case saved.Status == graph.Waiting && !call.Ended(saved.Run):
			return t, violation.New("input.thread_id", "thread %s waits for an answer: resume the run that asks, or update its state", id)
		}
		t.before = saved.Revision
	}
	came.Revision = t.before
	text, err := encode(came)
	if err != nil {
		return t, err
	}
	return t, call.Record(ctx, key, text)
}

// Snapshot is how a thread stands, or stood.
type Snapshot struct {
	ThreadID string `json:"thread_id"`
	GraphID  string `json:"graph_id"`
	// Revision numbers the checkpoints of the thread from 1, and Parent is the one that a
	// fork was made of.
	Revision uint64       `json:"revision"`
	Parent   uint64       `json:"parent,omitempty"`
	Status   graph.Status `json:"status"`
	Source   graph.Source `json:"source"`
	Step     int          `json:"step"`
	Time     time.Time    `json:"time"`
	Values   graph.State  `json:"values"`
	// Next are the nodes of the step to be done, and Interrupts what of them waits.
	Next       []string          `json:"next"`
	Interrupts []graph.Interrupt `json:"interrupts"`
	Error      string            `json:"error,omitempty"`
}

func snapshotOf(id string, c *graph.Checkpoint) Snapshot {
	s := Snapshot{
		ThreadID: id, GraphID: c.Graph, Revision: c.Revision, Parent: c.Parent, Status: c.Status, Source: c.Source,
		Step: c.Step, Time: c.Time.Round(0), Values: c.State, Error: c.Error,
		Next: []string{}, Interrupts: []graph.Interrupt{},
	}
	for _, task := range c.Tasks {
		if _, done := c.Written[task.ID]; !done {
			s.Next = append(s.Next, task.Node)
		}
	}
	s.Interrupts = append(s.Interrupts, c.Interrupts...)
	return s
}

// UnknownThreadError is returned for a thread, or a revision of it, that there is not.
type UnknownThreadError struct{ ThreadID string }

func (e *UnknownThreadError) Error() string {
	return fmt.Sprintf("there is no thread %q, or not that revision of it", clip(e.ThreadID))
}

// opened is a thread that is looked at from outside.
type opened struct {
	graph *document.Compiled
	saver *thread.Saver
}

// openThread finds the graph of a thread: the one that ran it last, as it is now, else, for a
// new one, the named one, which must be no other.
func (r *Registry) openThread(ctx context.Context, namespace, id, graphID string) (opened, error) {
	if err := checkThread("thread_id", id); err != nil {
		return opened{}, err
	}
	known, err := r.threads.Get(ctx, namespace, id)
	switch {
	case err == nil && graphID != "" && graphID != known.Graph:
		return opened{}, violation.New("graph_id", "thread %s is one of graph %s", id, known.Graph)
	case err == nil:
		graphID = known.Graph
	case !errors.Is(err, graph.ErrUnknownThread):
		return opened{}, err
	case graphID == "":
		return opened{}, &UnknownThreadError{id}
	}
	found, err := r.currentGraph(ctx, namespace, graphID)
	if err != nil {
		return opened{}, err
	}
	return opened{found, r.threads.Saver(namespace, graph.Sync)}, nil
}

func unknownThread(id string, err error) error {
	if errors.Is(err, graph.ErrUnknownThread) || errors.Is(err, graph.ErrUnknownRevision) {
		return &UnknownThreadError{id}
	}
	return err
}

// UpdateThread writes to the channels of a thread as if a node had: see graph.Graph.Update.
// A thread that there is not is begun, with the named graph. A repeat of a call with the
// same request id, which may be empty, returns what the first one did.
func (r *Registry) UpdateThread(
	ctx context.Context, namespace, id, graphID, asNode string, values graph.State, requestID string,
) (Snapshot, error) {
	o, err := r.openThread(ctx, namespace, id, graphID)
	if err != nil {
		return Snapshot{}, err
	}
	for name := range values {
		if !o.graph.HasChannel(name) {
			return Snapshot{}, violation.New("values."+name, "is no channel of %s", o.graph.Name())
		}
	}
	return o.once(ctx, id, requestID, func(saver graph.Saver) (*graph.Checkpoint, error) {
		return o.graph.Update(ctx, saver, id, nodeOf(asNode), values)
	})
}

// nodeOf is a node's name as graphs have it, for one as documents do.
func nodeOf(name string) string {
	switch name {
	case "START":
		return graph.Start
	case "END":
		return graph.End
	}
	return name
}

// ForkThread has a thread begin with a checkpoint of another, or of its own: see
// graph.Graph.Fork. A repeat is one as with UpdateThread.
func (r *Registry) ForkThread(ctx context.Context, namespace, id string, revision uint64, to, requestID string) (Snapshot, error) {
	if err := checkThread("to_thread_id", to); err != nil {
		return Snapshot{}, err
	}
	o, err := r.openThread(ctx, namespace, id, "")
	if err != nil {
		return Snapshot{}, err
	}
	return o.once(ctx, to, requestID, func(saver graph.Saver) (*graph.Checkpoint, error) {
		return o.graph.Fork(ctx, saver, id, revision, to)
	})
}

// requests is among how many of the latest checkpoints a repeat of a change is looked for.
const requests = 20

// once makes a change of a thread, unless the request has made it before.
func (o opened) once(
	ctx context.Context, id, requestID string, change func(graph.Saver) (*graph.Checkpoint, error),
) (Snapshot, error) {
	made, err := o.madeBy(ctx, id, requestID)
	switch {
	case err != nil:
		return Snapshot{}, err
	case made != nil:
		return snapshotOf(id, made), nil
	}
	c, err := change(signer{Saver: o.saver, requestID: requestID})
	if err != nil {
		return Snapshot{}, threadFailure(id, err)
	}
	return snapshotOf(id, c), o.saver.Close(ctx)
}

// madeBy returns the checkpoint that a request has made; nil: none.
func (o opened) madeBy(ctx context.Context, id, requestID string) (*graph.Checkpoint, error) {
	if requestID == "" {
		return nil, nil
	}
	latest, err := o.graph.History(ctx, o.saver, id, 0, requests)
	if err != nil {
		return nil, err
	}
	if at := slices.IndexFunc(latest, func(c *graph.Checkpoint) bool { return c.Request == requestID }); at >= 0 {
		return latest[at], nil
	}
	return nil, nil
}

// signer is a saver whose checkpoints say which request or run made them.
type signer struct {
	graph.Saver

	requestID, runID string
}

// Save implements graph.Saver.
func (s signer) Save(ctx context.Context, id string, c *graph.Checkpoint) error {
	c.Request, c.Run = s.requestID, s.runID
	return s.Saver.Save(ctx, id, c)
}

// threadFailure names what a caller can mend.
func threadFailure(id string, err error) error {
	if failed, isUpdate := errors.AsType[*graph.UpdateError](err); isUpdate {
		return violation.New("values."+failed.Channel, "%s", failed.Reason)
	}
	if errors.Is(err, graph.ErrConflict) {
		return &ThreadBusyError{id}
	}
	return unknownThread(id, err)
}

// ThreadBusyError says that a thread changed while it was to be changed, or is there already.
type ThreadBusyError struct{ ThreadID string }

func (e *ThreadBusyError) Error() string {
	return fmt.Sprintf("thread %s was changed by somebody else meanwhile", clip(e.ThreadID))
}

// Threads lists those of a namespace: see thread.Store.List.
func (r *Registry) Threads(ctx context.Context, namespace string, after uint64, limit int) ([]thread.Thread, error) {
	return r.threads.List(ctx, namespace, after, limit)
}

// DeleteThread removes a thread with all its checkpoints; one that there is not is no error.
func (r *Registry) DeleteThread(ctx context.Context, namespace, id string) error {
	if err := checkThread("thread_id", id); err != nil {
		return err
	}
	return r.threads.Delete(ctx, namespace, id)
}
