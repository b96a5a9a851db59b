package event

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// shared is one log on a real journal; each test works in a namespace of its own.
var shared *Log

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	dir, err := os.MkdirTemp("", "event")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}()
	events, stop, err := open(dir, Config{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	shared = events
	code = m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// open starts a log on a journal in dir and returns what stops both.
func open(dir string, cfg Config) (*Log, func() error, error) {
	ctx := context.Background()
	log := slog.New(slog.DiscardHandler)
	j, err := journal.New(journal.Config{DataDir: dir}, log)
	if err != nil {
		return nil, nil, err
	}
	if err := j.Start(ctx); err != nil {
		return nil, nil, err
	}
	events, err := New(cfg, j, log)
	if err != nil {
		return nil, nil, err
	}
	if err := events.Start(ctx); err != nil {
		return nil, nil, err
	}
	stop := func() error {
		if err := events.Stop(ctx); err != nil {
			return err
		}
		return j.Stop(ctx)
	}
	return events, stop, nil
}

// openFor is open for one test.
func openFor(tb testing.TB, dir string, cfg Config) (*Log, func()) {
	tb.Helper()
	events, stop, err := open(dir, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	stopped := false
	once := func() {
		if stopped {
			return
		}
		stopped = true
		if err := stop(); err != nil {
			tb.Error(err)
		}
	}
	tb.Cleanup(once)
	return events, once
}

var namespaces atomic.Int64

// newNamespace returns a namespace that nobody else uses.
func newNamespace() string {
	return "test-" + strconv.FormatInt(namespaces.Add(1), 10)
}

// testContext ends a test that hangs.
func testContext(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	tb.Cleanup(cancel)
	return ctx
}
