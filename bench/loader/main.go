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
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
)

// The most that one call takes.
const (
	keyBatch   = 100
	eventBatch = 1000
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stderr)) //nolint:forbidigo // this is main
}

// run loads until it is done or a signal ends it, and returns the exit code.
func run(ctx context.Context, args []string, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := load(ctx, args); err != nil {
		_, _ = fmt.Fprintln(stderr, "loader:", err)
		return 1
	}
	return 0
}

// load writes what the flags ask for and returns when all of it is acknowledged.
func load(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("loader", flag.ContinueOnError)
	address := flags.String("address", "", "gRPC target of the runtime")
	first := flags.Int("first", 0, "number of the first key")
	keys := flags.Int("keys", 0, "keys to set")
	events := flags.Int("events", 0, "events to publish")
	writers := flags.Int("writers", 8, "calls in flight")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("read the flags: %w", err)
	}
	connection, err := grpc.NewClient(*address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("open a channel to %s: %w", *address, err)
	}
	setKeys := inBatches(ctx, *writers, *keys, keyBatch, func(ctx context.Context, begin, size int) error {
		return setState(ctx, agentruntimev1.NewStateServiceClient(connection), *first+begin, size)
	})
	publish := inBatches(ctx, *writers, *events, eventBatch, func(ctx context.Context, _, size int) error {
		return publishEvents(ctx, agentruntimev1.NewEventServiceClient(connection), size)
	})
	return errors.Join(setKeys, publish, connection.Close())
}

// inBatches calls work with the begin and size of each batch, from several
// goroutines, and returns the first error, after which it hands out no more.
func inBatches(ctx context.Context, workers, count, batch int, work func(ctx context.Context, begin, size int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for ctx.Err() == nil {
				begin := int(next.Add(int64(batch))) - batch
				if begin >= count {
					return
				}
				if err := work(ctx, begin, min(batch, count-begin)); err != nil {
					cancel(err)
				}
			}
		})
	}
	running.Wait()
	return context.Cause(ctx)
}

func setState(ctx context.Context, client agentruntimev1.StateServiceClient, begin, size int) error {
	operations := make([]*agentruntimev1.StateOperation, size)
	for i := range operations {
		operations[i] = &agentruntimev1.StateOperation{
			Operation: &agentruntimev1.StateOperation_Set_{Set: &agentruntimev1.StateOperation_Set{
				Key:   fmt.Sprintf("load/%07d", begin+i),
				Value: fmt.Appendf(nil, `{"number":%d,"theme":"dark","language":"en","note":%q}`, begin+i, note),
			}},
		}
	}
	if _, err := client.TransactState(ctx, &agentruntimev1.TransactStateRequest{Operations: operations}); err != nil {
		return fmt.Errorf("set %d keys from %d: %w", size, begin, err)
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
