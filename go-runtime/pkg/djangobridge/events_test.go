package djangobridge_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
)

// subscriber is the client's side of one Subscribe stream.
type subscriber struct {
	t      *testing.T
	stream agentruntimev1.EventService_SubscribeClient
}

func subscribe(ctx context.Context, t *testing.T, sys *system) *subscriber {
	t.Helper()
	stream, err := sys.events.Subscribe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &subscriber{t, stream}
}

func (s *subscriber) request(r *agentruntimev1.SubscribeRequest) {
	s.t.Helper()
	if err := s.stream.Send(r); err != nil {
		s.t.Fatal(err)
	}
}

func (s *subscriber) add(id string, types ...string) {
	s.t.Helper()
	s.request(&agentruntimev1.SubscribeRequest{Request: &agentruntimev1.SubscribeRequest_Add{
		Add: &agentruntimev1.AddSubscription{SubscriptionId: id, Types: types},
	}})
}

func (s *subscriber) remove(id string) {
	s.t.Helper()
	s.request(&agentruntimev1.SubscribeRequest{Request: &agentruntimev1.SubscribeRequest_Remove{
		Remove: &agentruntimev1.RemoveSubscription{SubscriptionId: id},
	}})
}

// next returns the next frame that says more than a position.
func (s *subscriber) next() *agentruntimev1.SubscribeResponse {
	s.t.Helper()
	for {
		frame, err := s.stream.Recv()
		if err != nil {
			s.t.Fatal(err)
		}
		if frame.GetBatch() == nil || len(frame.GetBatch().GetEvents()) > 0 {
			return frame
		}
	}
}

func (s *subscriber) nextAdded(id string) {
	s.t.Helper()
	if frame := s.next(); frame.GetAdded() == nil || frame.GetSubscriptionId() != id {
		s.t.Fatalf("frame = %v, want %s added", frame, id)
	}
}

// events collects n events of a subscription, in order.
func (s *subscriber) events(id string, n int) []*agentruntimev1.Event {
	s.t.Helper()
	var events []*agentruntimev1.Event
	for len(events) < n {
		frame := s.next()
		if frame.GetSubscriptionId() != id || frame.GetBatch() == nil {
			s.t.Fatalf("frame = %v, want a batch of %s", frame, id)
		}
		batch := frame.GetBatch()
		if last := batch.GetEvents()[len(batch.GetEvents())-1]; batch.GetSequence() < last.GetSequence() {
			s.t.Fatalf("a batch up to %d holds event %d", batch.GetSequence(), last.GetSequence())
		}
		events = append(events, batch.GetEvents()...)
	}
	return events
}

func publish(t *testing.T, sys *system, types ...string) []*agentruntimev1.PublishedEvent {
	t.Helper()
	request := &agentruntimev1.PublishEventsRequest{}
	for i, kind := range types {
		request.Events = append(request.Events, &agentruntimev1.Event{
			Type: kind, Data: fmt.Appendf(nil, `{"i":%d}`, i), Source: "test", Metadata: []byte(`{"m":1}`),
		})
	}
	response, err := sys.events.PublishEvents(testContext(t), request)
	if err != nil {
		t.Fatal(err)
	}
	return response.GetEvents()
}

func TestSubscriptionsGetTheirEvents(t *testing.T) {
	t.Parallel()
	sys := start(t)
	sub := subscribe(testContext(t), t, sys)
	sub.add("orders", "order.*")
	sub.nextAdded("orders")

	published := publish(t, sys, "order.created", "user.created", "order.paid")
	events := sub.events("orders", 2)
	for i, want := range []struct {
		kind string
		at   int
	}{{"order.created", 0}, {"order.paid", 2}} {
		e := events[i]
		if e.GetType() != want.kind || e.GetSequence() != published[want.at].GetSequence() || e.GetEventId() != published[want.at].GetEventId() ||
			string(e.GetData()) != fmt.Sprintf(`{"i":%d}`, want.at) || e.GetSource() != "test" || string(e.GetMetadata()) != `{"m":1}` || e.GetPublishTime() == nil {
			t.Errorf("event %d = %v", i, e)
		}
	}

	sub.remove("orders")
	if frame := sub.next(); frame.GetEnded() == nil || frame.GetEnded().GetReason() != "" {
		t.Fatalf("frame = %v, want the end without a reason", frame)
	}
	// The name is free again, and a start after a sequence gets exactly what follows.
	sub.request(&agentruntimev1.SubscribeRequest{Request: &agentruntimev1.SubscribeRequest_Add{Add: &agentruntimev1.AddSubscription{
		SubscriptionId: "orders", Types: []string{"*"},
		Start: &agentruntimev1.AddSubscription_AfterSequence{AfterSequence: published[0].GetSequence()},
	}}})
	sub.nextAdded("orders")
	if events := sub.events("orders", 2); events[0].GetType() != "user.created" || events[1].GetType() != "order.paid" {
		t.Errorf("events = %v", events)
	}
}

func TestOneStreamCarriesManySubscriptions(t *testing.T) {
	t.Parallel()
	sys := start(t)
	publish(t, sys, "a", "b")
	sub := subscribe(testContext(t), t, sys)
	for _, kind := range []string{"a", "b"} {
		sub.request(&agentruntimev1.SubscribeRequest{Request: &agentruntimev1.SubscribeRequest_Add{Add: &agentruntimev1.AddSubscription{
			SubscriptionId: "of-" + kind, Types: []string{kind}, Start: &agentruntimev1.AddSubscription_FromBeginning{FromBeginning: true},
		}}})
		sub.nextAdded("of-" + kind)
		if events := sub.events("of-"+kind, 1); events[0].GetType() != kind {
			t.Errorf("events = %v", events)
		}
	}
	// A subscription that makes no sense ends alone.
	sub.add("broken", strings.Repeat("x", 300))
	if frame := sub.next(); frame.GetSubscriptionId() != "broken" || frame.GetEnded().GetReason() != "INVALID_ARGUMENT" || frame.GetEnded().GetMessage() == "" {
		t.Fatalf("frame = %v, want the end of broken", frame)
	}
	publish(t, sys, "a")
	sub.events("of-a", 1)
	// A client that has nothing more to ask goes on receiving.
	if err := sub.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	publish(t, sys, "b")
	sub.events("of-b", 1)
}

func TestBigBacklogComesInBoundedFrames(t *testing.T) {
	t.Parallel()
	sys := start(t)
	const total = 2000
	kinds := make([]string, 1000)
	for i := range kinds {
		kinds[i] = "tick"
	}
	var last uint64
	for range total / len(kinds) {
		published := publish(t, sys, kinds...)
		last = published[len(published)-1].GetSequence()
	}
	sub := subscribe(testContext(t), t, sys)
	sub.request(&agentruntimev1.SubscribeRequest{Request: &agentruntimev1.SubscribeRequest_Add{Add: &agentruntimev1.AddSubscription{
		SubscriptionId: "all", Types: []string{"tick"}, Start: &agentruntimev1.AddSubscription_FromBeginning{FromBeginning: true},
	}}})
	sub.nextAdded("all")
	for count, previous := 0, uint64(0); count < total; {
		batch := sub.next().GetBatch()
		if len(batch.GetEvents()) > 512 {
			t.Fatalf("a frame holds %d events", len(batch.GetEvents()))
		}
		for _, e := range batch.GetEvents() {
			if e.GetSequence() <= previous {
				t.Fatalf("event %d came after %d", e.GetSequence(), previous)
			}
			previous = e.GetSequence()
		}
		if count += len(batch.GetEvents()); count == total && previous != last {
			t.Errorf("the last event is %d, want %d", previous, last)
		}
	}
}

func TestRequestsThatMakeNoSenseEndTheStream(t *testing.T) {
	t.Parallel()
	sys := start(t)
	tests := map[string]func(*subscriber){
		"nothing":   func(s *subscriber) { s.request(&agentruntimev1.SubscribeRequest{}) },
		"no name":   func(s *subscriber) { s.add("", "a") },
		"long name": func(s *subscriber) { s.add(strings.Repeat("n", 65), "a") },
		"name in use": func(s *subscriber) {
			s.add("twice", "a")
			s.nextAdded("twice")
			s.add("twice", "b")
		},
	}
	for name, ask := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sub := subscribe(testContext(t), t, sys)
			ask(sub)
			_, err := sub.stream.Recv()
			refused(t, err, codes.InvalidArgument, "INVALID_ARGUMENT")
		})
	}
}

func TestPublishRefusals(t *testing.T) {
	t.Parallel()
	sys := start(t)
	tests := map[string]*agentruntimev1.PublishEventsRequest{
		"none":      {},
		"own id":    {Events: []*agentruntimev1.Event{{Type: "a", Data: []byte("1"), EventId: "mine"}}},
		"no type":   {Events: []*agentruntimev1.Event{{Data: []byte("1")}}},
		"no JSON":   {Events: []*agentruntimev1.Event{{Type: "a", Data: []byte("{")}}},
		"one wrong": {Events: []*agentruntimev1.Event{{Type: "a", Data: []byte("1")}, {Type: "b", Data: []byte("{")}}},
	}
	for name, request := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := sys.events.PublishEvents(testContext(t), request)
			refused(t, err, codes.InvalidArgument, "INVALID_ARGUMENT")
		})
	}
}
