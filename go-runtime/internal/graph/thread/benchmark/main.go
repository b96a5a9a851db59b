// Command benchmark runs the graphs of bench/ with the runtime's engine: bench/peer.py
// says what it reads and writes. It lies here because only this module may import the
// engine.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/thread"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) //nolint:forbidigo // this is main
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	flags := flag.NewFlagSet("benchmark", flag.ContinueOnError)
	folder := flags.String("data-dir", "", "folder of the journal")
	err := flags.Parse(args)
	if err == nil {
		err = serve(ctx, *folder, stdin, stdout)
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "benchmark:", err)
		return 1
	}
	return 0
}

// order is what is to be run.
type order struct {
	Value struct {
		Graph string `json:"graph"`
		// Steps is how many nodes are called, one after the other or side by side.
		Steps int `json:"steps"`
		// Saver is `none`, or the durability of the journal's.
		Saver string `json:"saver"`
	} `json:"value"`
}

// serve answers orders until stdin ends.
func serve(ctx context.Context, folder string, stdin io.Reader, stdout io.Writer) error {
	log := slog.New(slog.DiscardHandler)
	j, err := journal.New(journal.Config{DataDir: folder}, log)
	if err != nil {
		return err
	}
	if err := j.Start(ctx); err != nil {
		return err
	}
	defer func() { _ = j.Stop(context.WithoutCancel(ctx)) }()
	threads, err := thread.New(thread.Config{}, j, log)
	if err != nil {
		return err
	}
	if err := threads.Start(ctx); err != nil {
		return err
	}
	answer := json.NewEncoder(stdout)
	if err := answer.Encode(map[string]any{"versions": map[string]string{"Go": runtime.Version()}}); err != nil {
		return err
	}
	lines := bufio.NewScanner(stdin)
	for lines.Scan() {
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return err
		}
		measured, err := measure(ctx, threads, &o)
		if err != nil {
			return err
		}
		if err := answer.Encode(measured); err != nil {
			return err
		}
	}
	return lines.Err()
}

// measured is what a run took.
type measured struct {
	Seconds float64 `json:"seconds"`
	// Between is from the call of the first node to that of the last; 0 where they are
	// called side by side.
	Between float64 `json:"between"`
	// Processor is the processor time of the whole process meanwhile.
	Processor float64 `json:"processor"`
	// Bytes is what was written to the journal.
	Bytes int64 `json:"bytes"`
}

// measure runs a graph once, in a thread of its own.
func measure(ctx context.Context, threads *thread.Store, o *order) (measured, error) {
	var c clock
	g, err := graphOf(o.Value.Graph, o.Value.Steps, &c)
	if err != nil {
		return measured{}, err
	}
	options := graph.Options{RecursionLimit: o.Value.Steps + 2}
	id := uuid.NewString()
	begin, before := time.Now(), processor()
	var saver *thread.Saver
	if o.Value.Saver != "none" {
		saver = threads.Saver("default", graph.Durability(o.Value.Saver))
		options.Saver = saver
	}
	state, err := g.Run(ctx, graph.Request{Thread: id, Input: graph.State{}}, options)
	if saver != nil && err == nil {
		err = saver.Close(ctx)
	}
	m := measured{
		Seconds: time.Since(begin).Seconds(), Between: c.last.Sub(c.first).Seconds(), Processor: processor() - before,
	}
	if err == nil && state["n"] != float64(o.Value.Steps) {
		err = fmt.Errorf("%s made %v steps of %d", o.Value.Graph, state["n"], o.Value.Steps)
	}
	if saver != nil && err == nil {
		m.Bytes, err = threads.Bytes(ctx, "default", id)
	}
	return m, err
}

// processor is the processor time of the process so far, in seconds.
func processor() float64 {
	var used syscall.Rusage
	// The only errors are of arguments that are not these.
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
}
