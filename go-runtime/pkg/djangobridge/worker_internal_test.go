package djangobridge

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
)

// TestLargeOrdersGoInSeveralMessages has more be said to a worker at a time than a
// message may have.
func TestLargeOrdersGoInSeveralMessages(t *testing.T) {
	t.Parallel()
	large := bytes.Repeat([]byte("x"), 900<<10)
	var orders engine.Orders
	for i := range uint64(40) {
		orders.Assignments = append(orders.Assignments, engine.Assignment{Lease: i, Run: engine.Run{Input: large}})
		orders.Children = append(orders.Children, engine.ChildRun{Lease: i, Run: engine.Run{Output: large}})
		orders.Acks = append(orders.Acks, engine.HeldLease{Lease: i})
		orders.Cancellations = append(orders.Cancellations, engine.Cancellation{Lease: i})
	}
	var said []uint64
	messages, cancelled := 0, 0
	err := sendOrders(orders, func(message *agentruntimev1.WorkResponse) error {
		messages++
		if size := proto.Size(message); size > 2*maxFrameBytes {
			t.Errorf("a message of %d bytes", size)
		}
		for _, a := range message.GetAssignments() {
			said = append(said, a.GetLease())
		}
		if cancelled > 0 {
			t.Error("something comes behind the cancellations")
		}
		cancelled += len(message.GetCancellations())
		return nil
	})
	if err != nil || messages < 40 || cancelled != 40 || len(said) != 40 {
		t.Fatalf("%d messages with %d assignments and %d cancellations, %v", messages, len(said), cancelled, err)
	}
	for i, lease := range said {
		if lease != uint64(i) {
			t.Fatalf("assignments in the order %v", said)
		}
	}
}
