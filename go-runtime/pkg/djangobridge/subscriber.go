package djangobridge

import (
	"context"
	"errors"
	"sync"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/event"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Limits of one Subscribe stream.
const (
	maxSubscriptions       = 1000
	maxSubscriptionIDBytes = 64
)

// errRemoved ends a subscription that its client removed.
var errRemoved = errors.New("the client removed the subscription")

// subscriber serves the subscriptions of one stream. Each follows the log at
// its own pace, in its own goroutine; serve alone keeps the list of them.
type subscriber struct {
	events    *event.Log
	metrics   *metrics
	namespace string
	send      func(*agentruntimev1.SubscribeResponse) error

	open map[string]*subscription
	// ended carries subscriptions that ended by themselves.
	ended chan *subscription
	wait  sync.WaitGroup
}

// subscription is one of them. err is set once done is closed.
type subscription struct {
	id     string
	cancel context.CancelCauseFunc
	done   chan struct{}
	err    error
}

func newSubscriber(events *event.Log, m *metrics, namespace string, send func(*agentruntimev1.SubscribeResponse) error) *subscriber {
	return &subscriber{
		events: events, metrics: m, namespace: namespace, send: send,
		open: map[string]*subscription{}, ended: make(chan *subscription),
	}
}

// serve does what the client asks for until ctx ends or a request makes no
// sense, which is an error of the whole stream. A client that has nothing more
// to ask goes on receiving.
func (s *subscriber) serve(ctx context.Context, requests <-chan *agentruntimev1.SubscribeRequest) error {
	return serveMany(ctx, &s.wait, requests, s.handle, s.ended, func(sub *subscription) error {
		if s.open[sub.id] != sub {
			return nil
		}
		delete(s.open, sub.id)
		return s.sendEnded(sub.id, sub.err)
	})
}

func (s *subscriber) handle(ctx context.Context, request *agentruntimev1.SubscribeRequest) error {
	switch r := request.GetRequest().(type) {
	case *agentruntimev1.SubscribeRequest_Add:
		return s.add(ctx, r.Add)
	case *agentruntimev1.SubscribeRequest_Remove:
		return s.remove(r.Remove.GetSubscriptionId())
	default:
		return violation.New("request", "must add or remove a subscription")
	}
}

func (s *subscriber) add(ctx context.Context, request *agentruntimev1.AddSubscription) error {
	id := request.GetSubscriptionId()
	if id == "" || len(id) > maxSubscriptionIDBytes {
		return violation.New("add.subscription_id", "must be 1 to %d bytes", maxSubscriptionIDBytes)
	}
	if s.open[id] != nil {
		return violation.New("add.subscription_id", "%q is open on this stream already", id)
	}
	if len(s.open) >= maxSubscriptions {
		return s.sendEnded(id, violation.New("add", "a stream has at most %d subscriptions", maxSubscriptions))
	}
	subCtx, cancel := context.WithCancelCause(ctx)
	sub := &subscription{id: id, cancel: cancel, done: make(chan struct{})}
	s.open[id] = sub
	s.metrics.subscriptions.Inc()
	s.wait.Go(func() {
		defer s.metrics.subscriptions.Dec()
		defer cancel(nil)
		sub.err = s.follow(subCtx, id, request)
		close(sub.done)
		select {
		case s.ended <- sub:
		case <-ctx.Done():
		}
	})
	return nil
}

// remove ends a subscription and says so; nothing of it is sent afterwards. One
// that is not open has ended before, which is what was wanted.
func (s *subscriber) remove(id string) error {
	if sub := s.open[id]; sub != nil {
		delete(s.open, id)
		sub.cancel(errRemoved)
		<-sub.done
	}
	return s.sendEnded(id, errRemoved)
}

// follow sends a subscription's events until ctx ends.
func (s *subscriber) follow(ctx context.Context, id string, request *agentruntimev1.AddSubscription) error {
	send := func(frame *agentruntimev1.SubscribeResponse) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return s.send(frame)
	}
	added := func(after uint64) error {
		return send(&agentruntimev1.SubscribeResponse{
			SubscriptionId: id,
			Response: &agentruntimev1.SubscribeResponse_Added{
				Added: &agentruntimev1.SubscriptionAdded{AfterSequence: after},
			},
		})
	}
	batch := func(events []event.Event, position uint64) error { return sendBatch(id, events, position, send) }
	return s.events.Subscribe(ctx, s.namespace, request.GetTypes(), startOf(request), added, batch)
}

func startOf(request *agentruntimev1.AddSubscription) event.Start {
	switch start := request.GetStart().(type) {
	case *agentruntimev1.AddSubscription_AfterSequence:
		return event.Start{After: &start.AfterSequence}
	case *agentruntimev1.AddSubscription_FromBeginning:
		return event.Start{Beginning: start.FromBeginning}
	default:
		return event.Start{}
	}
}

// sendBatch sends events in as many frames as their size asks for. A frame
// before the last carries the sequence of its own last event.
func sendBatch(id string, events []event.Event, position uint64, send func(*agentruntimev1.SubscribeResponse) error) error {
	for {
		n := frameLength(events, func(e event.Event) int { return len(e.Data) + len(e.Metadata) + len(e.Type) + len(e.Source) })
		batch := &agentruntimev1.EventBatch{Sequence: position, Events: make([]*agentruntimev1.Event, 0, n)}
		for _, e := range events[:n] {
			batch.Events = append(batch.Events, eventToWire(e))
		}
		if n < len(events) {
			batch.Sequence = events[n-1].Sequence
		}
		frame := &agentruntimev1.SubscribeResponse{
			SubscriptionId: id,
			Response:       &agentruntimev1.SubscribeResponse_Batch{Batch: batch},
		}
		if err := send(frame); err != nil || n == len(events) {
			return err
		}
		events = events[n:]
	}
}

// sendEnded says that nothing more follows for a subscription, and why.
func (s *subscriber) sendEnded(id string, why error) error {
	ended := &agentruntimev1.SubscriptionEnded{}
	if !errors.Is(why, errRemoved) {
		r := describe(why)
		ended.Reason, ended.Message, ended.Metadata = r.reason, r.message, r.metadata
	}
	return s.send(&agentruntimev1.SubscribeResponse{
		SubscriptionId: id,
		Response:       &agentruntimev1.SubscribeResponse_Ended{Ended: ended},
	})
}
