// Command loader fills a running agent-runtime with state keys and events.
//
// The curve of the benchmarks needs a million of each, which one Python process
// would take too long to write. Keys are `load/<number>`, events are of type
// `load.event`; numbers begin where the last call ended (-first).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
)

// The most events a PublishEvents call takes.
const eventBatch = 1000

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "loader:", err)
		os.Exit(1)
	}
}

// run writes what the flags ask for and returns when all of it is acknowledged.
func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("loader", flag.ContinueOnError)
	address := flags.String("address", "", "gRPC target of the runtime")
	first := flags.Int("first", 0, "number of the first key")
	keys := flags.Int("keys", 0, "keys to set")
	events := flags.Int("events", 0, "events to publish")
	writers := flags.Int("writers", 128, "calls in flight")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("read the flags: %w", err)
	}
	connection, err := grpc.NewClient(*address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("open a channel to %s: %w", *address, err)
	}
	setKeys := inParallel(ctx, *writers, *keys, func(ctx context.Context, number int) error {
		return setKey(ctx, agentruntimev1.NewStateServiceClient(connection), *first+number)
	})
	publish := inParallel(ctx, min(*writers, 8), (*events+eventBatch-1)/eventBatch, func(ctx context.Context, batch int) error {
		size := min(eventBatch, *events-batch*eventBatch)
		return publishEvents(ctx, agentruntimev1.NewEventServiceClient(connection), size)
	})
	return errors.Join(setKeys, publish, connection.Close())
}

// inParallel calls work with 0 to count-1 from several goroutines and returns
// the first error, after which it hands out no more.
func inParallel(ctx context.Context, workers, count int, work func(ctx context.Context, number int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for ctx.Err() == nil {
				number := int(next.Add(1)) - 1
				if number >= count {
					return
				}
				if err := work(ctx, number); err != nil {
					cancel(err)
				}
			}
		})
	}
	running.Wait()
	return context.Cause(ctx)
}

func setKey(ctx context.Context, client agentruntimev1.StateServiceClient, number int) error {
	_, err := client.SetState(ctx, &agentruntimev1.SetStateRequest{
		Key:   fmt.Sprintf("load/%07d", number),
		Value: fmt.Appendf(nil, `{"number":%d,"theme":"dark","language":"en","note":%q}`, number, note),
	})
	if err != nil {
		return fmt.Errorf("set key %d: %w", number, err)
	}
	return nil
}

func publishEvents(ctx context.Context, client agentruntimev1.EventServiceClient, size int) error {
	events := make([]*agentruntimev1.Event, size)
	for i := range events {
		events[i] = &agentruntimev1.Event{
			Type:   "load.event",
			Source: "loader",
			Data:   fmt.Appendf(nil, `{"number":%d,"note":%q}`, i, note),
		}
	}
	if _, err := client.PublishEvents(ctx, &agentruntimev1.PublishEventsRequest{Events: events}); err != nil {
		return fmt.Errorf("publish %d events: %w", size, err)
	}
	return nil
}

// note brings a value to about 256 bytes, the size the other benchmarks use.
const note = "The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. " +
	"The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog."
