package journal

import (
	"context"
	"errors"
	"testing"
)

// TestWhoseDeadlinePassedIsTold tells the deadline that the NATS client puts on
// its own requests, which a journal that stalls does not keep, from the caller's.
func TestWhoseDeadlinePassedIsTold(t *testing.T) {
	t.Parallel()
	s := &Stream{}
	if err := s.requestError(t.Context(), context.DeadlineExceeded); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a request without an answer is %v", err)
	}
	over, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	<-over.Done()
	if err := s.requestError(over, context.DeadlineExceeded); errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a caller whose time is up gets %v", err)
	}
}
