package djangobridge

import (
	"context"
	"errors"
	"net/url"
	"time"
	"unicode/utf8"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/gateway"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/ticket"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const (
	// maxPrincipalBytes is the longest name of a reader.
	maxPrincipalBytes = 200
	// ticketMargin is how long a ticket outlives its run: a browser that lost its
	// stream comes again with the same address.
	ticketMargin = time.Hour
)

func (s *agentService) CreateStreamTicket(
	ctx context.Context, request *agentruntimev1.CreateStreamTicketRequest,
) (*agentruntimev1.CreateStreamTicketResponse, error) {
	least, errVisibility := visibilityFromWire("visibility", request.GetVisibility(), engine.User)
	if err := violation.Join(checkPrincipal(request.GetPrincipal()), errVisibility); err != nil {
		return nil, err
	}
	namespace := namespaceOf(ctx)
	run, err := s.engine.PeekRun(ctx, namespace, request.GetRunId())
	if err != nil {
		return nil, err
	}
	text, expires, err := s.tickets.Mint(ctx, ticket.Ticket{
		Namespace: namespace, RunID: run.ID, Principal: request.GetPrincipal(), Least: string(least),
		Expires: s.ticketEnd(run, time.Now()),
	})
	if err != nil {
		return nil, err
	}
	query := url.Values{"ticket": {text}}
	return &agentruntimev1.CreateStreamTicketResponse{
		Path: gateway.StreamPath(run.ID) + "?" + query.Encode(), ExpireTime: timestamp(expires),
	}, nil
}

// ticketEnd is when a ticket for a run is over: an hour after the run's deadline,
// or after what one attempt may take from now on, or after now.
func (s *agentService) ticketEnd(run engine.Run, now time.Time) time.Time {
	end := run.Deadline
	if end.IsZero() {
		end = now.Add(max(s.runTimeout, run.RunTimeout))
	}
	if end.Before(now) {
		end = now
	}
	return end.Add(ticketMargin)
}

func checkPrincipal(principal string) error {
	switch {
	case len(principal) > maxPrincipalBytes:
		return violation.New("principal", "is %d bytes long, at most %d are allowed", len(principal), maxPrincipalBytes)
	case !utf8.ValidString(principal):
		return violation.New("principal", "is not valid UTF-8")
	}
	return nil
}

// streamConfig says how the gateway serves the events of runs.
func (i *Integration) streamConfig(m *metrics) *gateway.StreamConfig {
	return &gateway.StreamConfig{
		Runs: runEvents{i.engine}, Tickets: i.tickets, Origins: i.cfg.StreamOrigins,
		Limit: i.cfg.StreamLimit, LimitPerUser: i.cfg.StreamLimitPerUser, SendTimeout: i.cfg.SendTimeout,
		Metrics: m.streams,
	}
}

// runEvents shows the gateway the engine's runs.
type runEvents struct{ engine *engine.Engine }

// EndOfRun implements gateway.Runs.
func (r runEvents) EndOfRun(ctx context.Context, namespace, runID string) (uint64, error) {
	run, err := r.engine.PeekRun(ctx, namespace, runID)
	if err != nil || !run.State.Ended() {
		return 0, gatewayError(err)
	}
	return run.Sequence, nil
}

// WatchRun implements gateway.Runs.
func (r runEvents) WatchRun(
	ctx context.Context, namespace, runID string, after uint64, least string, send func([]gateway.Event) error,
) error {
	return gatewayError(r.engine.WatchRun(ctx, namespace, runID, after, engine.Visibility(least),
		func(events []engine.Event, _ uint64) error {
			if len(events) == 0 {
				return nil
			}
			shown := make([]gateway.Event, len(events))
			for i := range events {
				ev := &events[i]
				shown[i] = gateway.Event{
					RunID: ev.RunID, Sequence: ev.Sequence, Type: ev.Type, Visibility: string(ev.Visibility),
					Time: ev.Time, Payload: ev.Payload,
				}
			}
			return send(shown)
		}))
}

// gatewayError says an error of the engine's in the gateway's words.
func gatewayError(err error) error {
	if _, found := errors.AsType[*engine.RunNotFoundError](err); found {
		return gateway.ErrRunNotFound
	}
	if e, found := errors.AsType[*journal.TruncatedError](err); found {
		return &gateway.TruncatedError{Oldest: e.Oldest}
	}
	return err
}
