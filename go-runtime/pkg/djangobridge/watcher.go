package djangobridge

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Limits of one WatchRuns stream.
const (
	maxWatches      = 10_000
	maxWatchIDBytes = 64
)

// Pauses of a watch that something passing keeps from its run.
const (
	firstWatchPause = 100 * time.Millisecond
	lastWatchPause  = 5 * time.Second
)

// watcher serves the watches of one stream. Each follows its run at its own
// pace, in its own goroutine; serve alone keeps the list of them, and puts what
// several have to say at the same time into one message.
type watcher struct {
	engine    *engine.Engine
	metrics   *metrics
	log       *slog.Logger
	namespace string
	// admit asks once more whether the client may call, for each watch as for a
	// call of its own.
	admit func(context.Context) error
	send  func(*agentruntimev1.WatchRunsResponse) error

	open map[string]context.CancelFunc
	// updates carries what the watches have to say.
	updates chan *agentruntimev1.RunWatchUpdate
	wait    sync.WaitGroup
}

// newWatcher returns the watcher of a call.
func (s *agentService) newWatcher(ctx context.Context, send func(*agentruntimev1.WatchRunsResponse) error) *watcher {
	return &watcher{
		engine: s.engine, metrics: s.metrics, log: s.log, namespace: namespaceOf(ctx), admit: s.admitAgain, send: send,
		open: map[string]context.CancelFunc{}, updates: make(chan *agentruntimev1.RunWatchUpdate),
	}
}

// admitAgain admits a call that was admitted when it began as it would be now.
func (s *agentService) admitAgain(ctx context.Context) error {
	again := call{method: callOf(ctx).method, started: time.Now()}
	return s.guard.admit(ctx, &again)
}

// serve does what the client asks for until ctx ends or a request makes no
// sense, which is an error of the whole stream. A client that has nothing more
// to ask goes on receiving.
func (w *watcher) serve(ctx context.Context, requests <-chan *agentruntimev1.WatchRunsRequest) error {
	return serveMany(ctx, &w.wait, requests, w.handle, w.updates, func(first *agentruntimev1.RunWatchUpdate) error {
		return w.send(w.gather(first))
	})
}

// gather returns a message with an update and those that wait to be sent now, as
// far as they go into one.
func (w *watcher) gather(first *agentruntimev1.RunWatchUpdate) *agentruntimev1.WatchRunsResponse {
	message := &agentruntimev1.WatchRunsResponse{}
	for size, update := 0, first; ; {
		if update.GetEnded() != nil {
			delete(w.open, update.GetWatchId())
		}
		message.Updates = append(message.Updates, update)
		size += proto.Size(update)
		if size >= maxFrameBytes || len(message.GetUpdates()) >= maxFrameItems {
			return message
		}
		select {
		case update = <-w.updates:
		default:
			return message
		}
	}
}

func (w *watcher) handle(ctx context.Context, request *agentruntimev1.WatchRunsRequest) error {
	switch r := request.GetRequest().(type) {
	case *agentruntimev1.WatchRunsRequest_Add:
		return w.add(ctx, r.Add)
	case *agentruntimev1.WatchRunsRequest_Remove:
		w.remove(r.Remove.GetWatchId())
		return nil
	default:
		return violation.New("request", "must add or remove a watch")
	}
}

func (w *watcher) add(ctx context.Context, request *agentruntimev1.AddRunWatch) error {
	id, wanted := request.GetWatchId(), request.GetWatch()
	if id == "" || len(id) > maxWatchIDBytes {
		return violation.New("add.watch_id", "must be 1 to %d bytes", maxWatchIDBytes)
	}
	if w.open[id] != nil {
		return violation.New("add.watch_id", "%q is open on this stream already", id)
	}
	if len(w.open) >= maxWatches {
		return w.send(&agentruntimev1.WatchRunsResponse{Updates: []*agentruntimev1.RunWatchUpdate{
			endedUpdate(id, errTooManyWatches),
		}})
	}
	if wanted == nil {
		wanted = &agentruntimev1.WatchRunRequest{}
	}
	ctx, cancel := context.WithCancel(ctx)
	w.open[id] = cancel
	w.metrics.watches.Inc()
	w.wait.Go(func() {
		defer w.metrics.watches.Dec()
		defer cancel()
		err := w.follow(ctx, id, wanted)
		if ctx.Err() != nil {
			// It was removed, or the stream has ended.
			return
		}
		_ = w.put(ctx, endedUpdate(id, err))
	})
	return nil
}

// remove ends a watch, unless it has ended.
func (w *watcher) remove(id string) {
	if cancel := w.open[id]; cancel != nil {
		delete(w.open, id)
		cancel()
	}
}

// follow sends the events of a run until it has ended or ctx has. What passes, it
// waits for: no other watch is to notice.
func (w *watcher) follow(ctx context.Context, id string, wanted *agentruntimev1.WatchRunRequest) error {
	send := func(events []*agentruntimev1.RunEvent, position uint64) error {
		if len(events) == 0 {
			return nil
		}
		if err := w.put(ctx, &agentruntimev1.RunWatchUpdate{WatchId: id, Events: events, Position: position}); err != nil {
			return err
		}
		wanted.AfterSequence = position
		return nil
	}
	for pause := firstWatchPause; ; pause = min(2*pause, lastWatchPause) {
		err := w.admit(ctx)
		if err == nil {
			err = watchRun(ctx, w.engine, w.namespace, wanted, send)
		}
		if !passes(err) {
			return err
		}
		w.log.WarnContext(ctx, "watch interrupted", "run_id", wanted.GetRunId(), "err", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// put hands an update to serve.
func (w *watcher) put(ctx context.Context, update *agentruntimev1.RunWatchUpdate) error {
	select {
	case w.updates <- update:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// watchRun hands the events that a request asks for to send, as Engine.WatchRun
// does, in batches that go into one message.
func watchRun(
	ctx context.Context, e *engine.Engine, namespace string, wanted *agentruntimev1.WatchRunRequest,
	send func(events []*agentruntimev1.RunEvent, position uint64) error,
) error {
	least, err := visibilityFromWire("visibility", wanted.GetVisibility(), engine.Internal)
	if err != nil {
		return err
	}
	return e.WatchRun(ctx, namespace, wanted.GetRunId(), wanted.GetAfterSequence(), least,
		func(events []engine.Event, position uint64) error {
			return sendEvents(events, position, func(wire []*agentruntimev1.RunEvent, position uint64) error {
				for _, ev := range wire {
					ev.Run = nil
				}
				return send(wire, position)
			})
		})
}

// endedUpdate says that nothing more follows for a watch, and why: nil if its
// run has ended.
func endedUpdate(id string, why error) *agentruntimev1.RunWatchUpdate {
	ended := &agentruntimev1.RunWatchEnded{}
	if why != nil {
		r := describe(why)
		ended.Reason, ended.Message, ended.Metadata = r.reason, r.message, r.metadata
	}
	return &agentruntimev1.RunWatchUpdate{WatchId: id, Ended: ended}
}
