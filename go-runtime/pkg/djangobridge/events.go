package djangobridge

import (
	"context"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/event"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// eventService answers the rpcs of events.
type eventService struct {
	agentruntimev1.UnsafeEventServiceServer

	events  *event.Log
	streams *streams
	metrics *metrics
}

func (s *eventService) PublishEvents(
	ctx context.Context, request *agentruntimev1.PublishEventsRequest,
) (*agentruntimev1.PublishEventsResponse, error) {
	events := make([]event.Event, 0, len(request.GetEvents()))
	for _, wire := range request.GetEvents() {
		if wire.GetEventId() != "" || wire.GetSequence() != 0 || wire.GetPublishTime() != nil {
			return nil, violation.New("events", "event_id, sequence and publish_time are given by the runtime")
		}
		events = append(events, event.Event{
			Type: wire.GetType(), Source: wire.GetSource(), Data: wire.GetData(), Metadata: wire.GetMetadata(),
		})
	}
	published, err := s.events.Publish(ctx, namespaceOf(ctx), events, request.GetRequestId())
	if err != nil {
		return nil, err
	}
	response := &agentruntimev1.PublishEventsResponse{Events: make([]*agentruntimev1.PublishedEvent, 0, len(published))}
	for _, e := range published {
		response.Events = append(response.Events, &agentruntimev1.PublishedEvent{EventId: e.ID, Sequence: e.Sequence})
	}
	return response, nil
}

func (s *eventService) Subscribe(stream agentruntimev1.EventService_SubscribeServer) error {
	return pump(s.streams, stream, func(ctx context.Context, send func(*agentruntimev1.SubscribeResponse) error) error {
		return newSubscriber(s.events, s.metrics, namespaceOf(ctx), send).serve(ctx, receive(ctx, s.streams, stream))
	})
}

// eventToWire puts an event on the wire.
func eventToWire(e event.Event) *agentruntimev1.Event {
	return &agentruntimev1.Event{
		EventId:     e.ID,
		Type:        e.Type,
		Data:        e.Data,
		Source:      e.Source,
		Metadata:    e.Metadata,
		Sequence:    e.Sequence,
		PublishTime: timestamp(e.PublishedAt),
	}
}
