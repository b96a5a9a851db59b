package model

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestRetriesWaitAsTheyAreToldAndNotTooLong(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		kind         Kind
		after        time.Duration
		requests     int
		atLeast, max time.Duration
	}{
		"not told":       {Unavailable, 0, 3, 1100 * time.Millisecond, 1500 * time.Millisecond},
		"told":           {RateLimited, 4 * time.Second, 3, 8 * time.Second, 8 * time.Second},
		"told too long":  {RateLimited, 11 * time.Second, 1, 0, 0},
		"does not pass":  {Unauthorized, time.Second, 1, 0, 0},
		"would not help": {Refused, time.Second, 1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				first := failing(test.kind, test.after)
				router := scriptedRouter(t, Config{Models: []string{"gpt-5"}}, first, nil, quiet)
				began := time.Now()
				_, err := router.Complete(t.Context(), ask(nil))
				took := time.Since(began)
				if err == nil || first.count() != test.requests || took < test.atLeast || took > test.max {
					t.Errorf("Complete error = %v after %d requests in %s", err, first.count(), took)
				}
			})
		})
	}
}

func TestWaitingForARetryEndsWithTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		router := scriptedRouter(t, Config{Models: []string{"gpt-5"}}, failing(Unavailable, 10*time.Second), nil, quiet)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := router.Complete(ctx, ask(nil)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Complete error = %v, want the context's", err)
		}
	})
}

func TestTheCircuitOpensAndIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken, released := true, make(chan struct{})
		first := &scripted{}
		first.reply = func(context.Context, int, string, Request) (Response, error) {
			if broken {
				return Response{}, &Error{Kind: RateLimited, RetryAfter: time.Minute}
			}
			<-released
			return Response{Text: "Back."}, nil
		}
		var logged lockedBuffer
		router := scriptedRouter(t, Config{}, first, nil, slog.New(slog.NewTextHandler(&logged, nil)))
		call := func() (Response, error) { return router.Complete(t.Context(), ask(nil)) }
		for range tolerated {
			if _, err := call(); err == nil {
				t.Fatal("the model answered")
			}
		}
		_, err := call()
		failure, failed := errors.AsType[*Error](err)
		if !failed || failure.Kind != Unavailable || failure.RetryAfter != openFor || !failure.Retryable() || first.count() != tolerated {
			t.Fatalf("Complete error = %#v after %d requests, want an open circuit", err, first.count())
		}
		since, until := time.Now().UTC().Format(time.RFC3339), time.Now().Add(openFor).UTC().Format(time.RFC3339)
		if !strings.Contains(err.Error(), "from "+since+" until "+until) {
			t.Errorf("%v does not say since when and until when", err)
		}
		// Another model of the same provider is asked all the same.
		request := ask(nil)
		request.Model = "gpt-5"
		if _, err := router.Complete(t.Context(), request); err == nil || first.count() != tolerated+1 {
			t.Errorf("Complete error = %v after %d requests", err, first.count())
		}

		// One request tries, and fails; then one succeeds, while others are refused.
		<-time.After(openFor + time.Second)
		if _, err := call(); err == nil || first.count() != tolerated+2 {
			t.Errorf("Complete error = %v after %d requests", err, first.count())
		}
		if _, err := call(); err == nil || first.count() != tolerated+2 {
			t.Errorf("Complete error = %v after %d requests", err, first.count())
		}
		broken = false
		<-time.After(openFor + time.Second)
		var probe sync.WaitGroup
		probe.Go(func() {
			if response, err := call(); err != nil || response.Text != "Back." {
				t.Errorf("Complete = %+v, %v", response, err)
			}
		})
		synctest.Wait()
		_, err = call()
		if failure, failed := errors.AsType[*Error](err); !failed || failure.Kind != Unavailable || failure.RetryAfter <= 0 {
			t.Errorf("Complete error = %v while one request tries", err)
		}
		close(released)
		probe.Wait()
		for range tolerated {
			if _, err := call(); err != nil {
				t.Errorf("Complete error = %v after the circuit closed", err)
			}
		}
		for _, state := range []string{"state=open", "state=half-open", "state=closed"} {
			if !strings.Contains(logged.String(), state) {
				t.Errorf("logged %q, without %s", logged.String(), state)
			}
		}
	})
}

func TestTheCircuitStaysClosedForWhatIsNoOutage(t *testing.T) {
	t.Parallel()
	reader := errors.New("enough")
	for name, reply := range map[string]func(ctx context.Context, n int, model string, request Request) (Response, error){
		"refusals": func(context.Context, int, string, Request) (Response, error) {
			return Response{}, &Error{Kind: Refused}
		},
		"readers": func(_ context.Context, _ int, _ string, request Request) (Response, error) {
			return Response{}, request.Pieces("x")
		},
		"not in a row": func(_ context.Context, n int, _ string, _ Request) (Response, error) {
			if n%tolerated == 0 {
				return Response{}, nil
			}
			return Response{}, &Error{Kind: Unavailable, RetryAfter: time.Minute}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := &scripted{reply: reply}
			router := scriptedRouter(t, Config{}, first, nil, quiet)
			request := ask(nil)
			request.Pieces = func(string) error { return reader }
			for range 4 * tolerated {
				_, _ = router.Complete(t.Context(), request)
			}
			if first.count() != 4*tolerated {
				t.Errorf("asked %d times, want each", first.count())
			}
		})
	}
}

func TestAProviderIsSentSoManyRequestsAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		first := &scripted{reply: func(context.Context, int, string, Request) (Response, error) {
			<-release
			return Response{Text: "Here."}, nil
		}}
		router := scriptedRouter(t, Config{Concurrency: 2}, first, answering("There."), quiet)
		var asking sync.WaitGroup
		for i := range 5 {
			asking.Go(func() {
				request := ask(nil)
				request.Model = fmt.Sprintf("gpt-%d", i)
				if response, err := router.Complete(t.Context(), request); err != nil || response.Text != "Here." {
					t.Errorf("Complete = %+v, %v", response, err)
				}
			})
		}
		synctest.Wait()
		if first.count() != 2 {
			t.Errorf("%d requests at a time, want 2", first.count())
		}
		// The other provider has its own, and who waits does so no longer than its context.
		request := ask(nil)
		request.Model = "claude-opus-5"
		if response, err := router.Complete(t.Context(), request); err != nil || response.Text != "There." {
			t.Errorf("Complete = %+v, %v", response, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := router.Complete(ctx, ask(nil))
		if _, failed := errors.AsType[*Error](err); failed || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Complete error = %v, want the context's", err)
		}
		close(release)
		asking.Wait()
		if first.count() != 5 {
			t.Errorf("%d requests, want 5", first.count())
		}
	})
}
