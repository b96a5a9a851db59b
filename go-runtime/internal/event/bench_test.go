package event

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

var benchData = []byte(`{"order_id": 4711, "total": "12.50", "currency": "EUR"}`)

func BenchmarkPublish(b *testing.B) {
	for _, size := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			namespace := newNamespace()
			batch := make([]Event, size)
			for i := range batch {
				batch[i] = Event{Type: "order.created", Source: "shop", Data: benchData}
			}
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if _, err := shared.Publish(context.Background(), namespace, batch, fmt.Sprint(b.Name(), n)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkSubscribe reads 10,000 kept events.
func BenchmarkSubscribe(b *testing.B) {
	const events = 10_000
	namespace := newNamespace()
	batch := make([]Event, 1000)
	for i := range batch {
		batch[i] = Event{Type: "order.created", Source: "shop", Data: benchData}
	}
	for range events / len(batch) {
		publish(b, shared, namespace, "", batch...)
	}
	for name, pattern := range map[string]string{"server's filter": "order.*", "own filter": "ord*"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				count := 0
				err := shared.Subscribe(context.Background(), namespace, []string{pattern}, Start{Beginning: true}, noAdded, func(got []Event, _ uint64) error {
					if count += len(got); count == events {
						return errEnough
					}
					return nil
				})
				if !errors.Is(err, errEnough) {
					b.Fatal(err)
				}
			}
			b.ReportMetric(events*float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkPublishToSubscriber takes one event from its publisher to a subscriber.
func BenchmarkPublishToSubscriber(b *testing.B) {
	namespace := newNamespace()
	arrived := make(chan struct{}, 1)
	begun := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- shared.Subscribe(ctx, namespace, []string{"*"}, Start{}, func(uint64) error { close(begun); return nil }, func(events []Event, _ uint64) error {
			if len(events) > 0 {
				arrived <- struct{}{}
			}
			return nil
		})
	}()
	<-begun
	for b.Loop() {
		publish(b, shared, namespace, "", Event{Type: "order.created", Data: benchData})
		<-arrived
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		b.Error(err)
	}
}
