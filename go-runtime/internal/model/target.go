package model

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

const (
	// Two retries, so three requests, each after at most ten seconds: longer
	// waits belong to the run's own retries, which hold no slot meanwhile.
	maxRetries    = 2
	maxRetryDelay = 10 * time.Second
	firstDelay    = 500 * time.Millisecond

	// tolerated is how many calls in a row may fail before the circuit opens, for openFor.
	tolerated = 5
	openFor   = 30 * time.Second
)

// errSlow is why a request ends that takes longer than it may.
var errSlow = errors.New("the request took too long")

// asker asks one provider's models, one request for each call.
type asker interface {
	// ask fails with an *Error, or as request.Pieces does. constrained has the
	// provider hold the answer to request.Schema, by whatever means it has.
	ask(ctx context.Context, model string, request Request, constrained bool) (Response, error)
}

// target is one model of one provider, and how it has been answering.
type target struct {
	reference
	*provider

	breaker *gobreaker.CircuitBreaker[Response]
	// opened is when the circuit did, in Unix nanoseconds.
	opened atomic.Int64
	// unconstrained is set once the model has refused to be held to a schema:
	// without tools, and with them.
	unconstrained [2]atomic.Bool
	log           *slog.Logger
}

func newTarget(asked reference, p *provider, log *slog.Logger) *target {
	t := &target{reference: asked, provider: p, log: log}
	t.breaker = gobreaker.NewCircuitBreaker[Response](gobreaker.Settings{
		MaxRequests:  1,
		Timeout:      openFor,
		ReadyToTrip:  func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= tolerated },
		IsSuccessful: func(err error) bool { return !isOutage(err) },
		// How somebody's context or reader ends says nothing about the model.
		IsExcluded: func(err error) bool {
			_, failed := errors.AsType[*Error](err)
			return err != nil && !failed
		},
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				t.opened.Store(time.Now().UnixNano())
			}
			log.Warn("circuit of a model changed", slog.String("model", asked.String()), slog.String("state", to.String()))
		},
	})
	return t
}

// isOutage reports whether a failure is a reason to leave a model alone for a time.
func isOutage(err error) bool {
	failure, failed := errors.AsType[*Error](err)
	return failed && (failure.Kind == Unavailable || failure.Kind == RateLimited)
}

// complete asks the model, and again where that helps. begun reports whether the
// request's pieces were given a beginning of an answer.
func (t *target) complete(ctx context.Context, request Request) (_ Response, begun bool, _ error) {
	// Whoever waits for a slot learns that the circuit is open only then.
	if t.breaker.State() == gobreaker.StateOpen {
		return Response{}, false, t.shut()
	}
	if err := t.slots.Acquire(ctx, 1); err != nil {
		return Response{}, false, fmt.Errorf("wait to ask model %s: %w", t, ended(ctx))
	}
	defer t.slots.Release(1)
	a := attempts{target: t, request: request}
	if request.Pieces != nil {
		a.request.Pieces = a.give
		a.reader = request.Pieces
	}
	response, err := t.breaker.Execute(func() (Response, error) { return a.run(ctx) })
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		err = t.shut()
	}
	return response, a.begun, err
}

// shut is what a call fails with while the circuit is open, or one request tries
// whether it can be closed.
func (t *target) shut() *Error {
	opened := time.Unix(0, t.opened.Load())
	until := opened.Add(openFor)
	return &Error{
		Kind: Unavailable, Model: t.String(), RetryAfter: max(time.Until(until), time.Second).Round(time.Second),
		detail: fmt.Sprintf("is not asked from %s until %s, because it kept failing",
			opened.UTC().Format(time.RFC3339), until.UTC().Format(time.RFC3339)),
	}
}

// attempts are the requests of one call.
type attempts struct {
	*target

	request Request
	// reader is whom the pieces of the answer are for, unread what it failed with.
	reader func(string) error
	unread error
	begun  bool
}

func (a *attempts) give(text string) error {
	a.begun = true
	a.unread = a.reader(text)
	return a.unread
}

func (a *attempts) run(ctx context.Context) (Response, error) {
	for n := 0; ; n++ {
		response, err := a.once(ctx)
		delay, again := patience(err, n)
		if !again || a.begun {
			return response, err
		}
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return Response{}, fmt.Errorf("ask model %s: %w", a, ended(ctx))
		}
	}
}

// once makes one request, and a second where only the schema was refused:
// endpoints differ in what they say when they cannot be held to one, so the
// proof is that the same request is taken without it.
func (a *attempts) once(ctx context.Context) (Response, error) {
	withTools := 0
	if len(a.request.Tools) > 0 {
		withTools = 1
	}
	refused := &a.unconstrained[withTools]
	constrained := a.request.Schema != nil && !refused.Load()
	response, err := a.send(ctx, constrained)
	if failure, failed := errors.AsType[*Error](err); failed && constrained && failure.Kind == Rejected && !a.begun {
		response, err = a.send(ctx, false)
		if err == nil && !refused.Swap(true) {
			a.log.WarnContext(ctx, "model cannot be held to a schema, asking for JSON in the prompt only",
				slog.String("model", a.String()))
		}
	}
	return response, err
}

func (a *attempts) send(ctx context.Context, constrained bool) (Response, error) {
	limited, cancel := context.WithTimeoutCause(ctx, a.timeout, errSlow)
	defer cancel()
	response, err := a.asker.ask(limited, a.model, a.request, constrained)
	cause := ended(ctx)
	switch {
	case err == nil:
		return a.finish(response)
	case a.unread != nil:
		return Response{}, a.unread
	case cause != nil:
		return Response{}, fmt.Errorf("ask model %s: %w", a, cause)
	case limited.Err() != nil:
		return Response{}, &Error{Kind: Unavailable, Model: a.String(), Cause: errSlow}
	}
	if failure, failed := errors.AsType[*Error](err); failed {
		failure.Model = a.String()
	}
	return Response{}, err
}

// finish completes an answer by what every provider's needs. Without the name of
// a tool there is no call.
func (a *attempts) finish(response Response) (Response, error) {
	response.Provider = a.answers(a.reference.provider)
	for i := range response.ToolCalls {
		call := &response.ToolCalls[i]
		if call.Name == "" {
			return Response{}, &Error{Kind: Malformed, Model: a.String()}
		}
		call.ID = cmp.Or(call.ID, newCallID())
	}
	if a.request.Schema != nil && response.Text != "" {
		response.Text = findObject(response.Text)
	}
	if cost, known := a.prices.Cost(priceName(response.Provider), response.Model, tokens(response.Usage), time.Now()); known {
		response.Cost = &cost
	}
	return response, nil
}

// patience returns how long to wait before a request that failed for the nth
// time is made again, if it is.
func patience(err error, n int) (time.Duration, bool) {
	failure, failed := errors.AsType[*Error](err)
	if !failed || n >= maxRetries || !isOutage(err) || errors.Is(err, errSlow) || failure.RetryAfter > maxRetryDelay {
		return 0, false
	}
	if failure.RetryAfter > 0 {
		return failure.RetryAfter, true
	}
	delay := firstDelay << n
	return delay - rand.N(delay/4), true //nolint:gosec // spreads requests, keeps no secret
}
