package mcp

import (
	"context"
	"testing"
)

// TestWhatHasEndedIsNotForgotten has calls that return because their time is over, while
// others who wait for that are still being told: the order in which they are is any.
func TestWhatHasEndedIsNotForgotten(t *testing.T) {
	t.Parallel()
	for call := range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		asking, done := context.WithCancel(ctx)
		told := make(chan struct{})
		forget := whenOver(ctx, func() { close(told) })
		for range 1000 {
			defer context.AfterFunc(ctx, func() {})()
		}
		go cancel()
		<-asking.Done()
		forget()
		done()
		select {
		case <-told:
		case <-t.Context().Done():
			t.Fatalf("call %d was forgotten", call)
		}
	}
}

func TestWhatGoesOnIsForgotten(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	forget := whenOver(ctx, func() { t.Error("told of a call that was over before") })
	forget()
	cancel()
}
