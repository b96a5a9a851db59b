package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/recent"
)

// Engine runs what it accepts. All methods are safe for concurrent use.
type Engine struct {
	cfg      Config
	journal  *journal.Journal
	registry Registry
	log      *slog.Logger

	stream stream
	index  *index
	sched  *scheduler
	// payloads are inputs and outputs of late, by the sequence of their record.
	payloads *recent.Cache[uint64, []byte]
	// executing counts the places whose run has been found.
	executing atomic.Int64
	// lost, retried, stopped and stopTime (ns) are what Stats says of them.
	lost, retried, stopped atomic.Uint64
	stopTime               atomic.Int64
	// accepts lets one caller at a time create a run with a certain id.
	accepts turns
	// followed is how far the followers of named runs have come.
	followed followers
	// due brings what timers call for.
	due chan func()

	// sessions are the workers by namespace and id.
	sessionsMu sync.Mutex
	sessions   map[string]*Session

	// stopping is closed when no more work is taken, work ends when what is
	// under way must stop.
	stopping chan struct{}
	work     context.Context //nolint:containedctx // the lifetime of all attempts, ended by Stop
	endWork  context.CancelCauseFunc
	// accepting is held by those who may begin a run, and taken to begin the stop.
	accepting sync.RWMutex
	stopOnce  sync.Once
	running   sync.WaitGroup
}

// stream is what the engine needs of the *journal.Stream that its runs are kept in.
type stream interface {
	Append(ctx context.Context, m journal.Message) (uint64, error)
	AppendEach(ctx context.Context, ms []journal.Message) ([]journal.AppendResult, error)
	Commit(ctx context.Context, seq uint64) error
	Newest() uint64
	Last(ctx context.Context, subject string) (journal.Record, error)
	Get(ctx context.Context, seq uint64) (journal.Record, error)
	Scan(ctx context.Context, after uint64, lastOnly bool, filters []string, fn func(journal.Record) error) (uint64, error)
	Follow(
		ctx context.Context, after uint64, filters []string,
		fn func(batch []journal.Record, position uint64) error, options ...journal.FollowOption,
	) error
	Purge(ctx context.Context, subject string) error
}

// payloadBytes bounds the inputs and outputs that are kept in memory.
const payloadBytes = 8 << 20

// New returns an engine that keeps its runs in the journal and takes their tasks
// from the registry. It reports every mistake of cfg at once.
func New(cfg Config, j *journal.Journal, registry Registry, log *slog.Logger) (*Engine, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	e := &Engine{
		cfg: cfg, journal: j, registry: registry, log: log,
		index: newIndex(), sessions: map[string]*Session{},
		payloads: recent.New(payloadBytes, func(_ uint64, payload []byte) int { return len(payload) }),
		due:      make(chan func()),
		stopping: make(chan struct{}),
	}
	e.work, e.endWork = context.WithCancelCause(context.Background())
	e.sched = newScheduler(cfg.MaxQueued, cfg.MaxConcurrent, e.startAll, func(ent *entry) {
		e.later(func() { e.leaveQueue(ent) })
	})
	return e, nil
}

// Start reads the runs that are kept, queues again those that were queued or
// running when the process ended, and begins to execute. The journal has to be started.
func (e *Engine) Start(ctx context.Context) error {
	stream, err := e.journal.OpenStream(ctx, journal.StreamConfig{
		Name: streamName, Subjects: []string{subjectPrefix + ">", eventPrefix + ">"},
	})
	if err != nil {
		return fmt.Errorf("open stream of runs: %w", err)
	}
	e.stream = stream
	// What is due while runs are taken up waits for them, not they for it.
	e.running.Go(e.doDue)
	if err := e.recover(ctx); err != nil {
		return err
	}
	e.running.Go(e.forget)
	e.sched.begin()
	return nil
}

// Stop takes no more work, lets what is under way finish until ctx ends, gives
// the rest back to the queue, and returns when every goroutine is gone. Runs that
// workers execute stay theirs. Whoever
// waits for a run that will not end here gets ErrStopped. It is safe to call twice and before Start.
// The error says that tasks did not heed their context in time.
func (e *Engine) Stop(ctx context.Context) error {
	e.stopOnce.Do(func() {
		// Who accepts a run may wait for the journal, for as long as there is work.
		defer context.AfterFunc(ctx, func() { e.endWork(ErrStopped) })()
		e.accepting.Lock()
		defer e.accepting.Unlock()
		e.sched.stop()
		e.sessionsMu.Lock()
		close(e.stopping)
		e.sessionsMu.Unlock()
	})
	finished := make(chan struct{})
	go func() {
		e.running.Wait()
		close(finished)
	}()
	select {
	case <-finished:
		e.endWork(ErrStopped)
		return nil
	case <-ctx.Done():
	}
	e.endWork(ErrStopped)
	select {
	case <-finished:
		return nil
	case <-time.After(stopGrace):
		return errors.New("engine: tasks are still running after they were told to stop")
	}
}

func (e *Engine) isStopping() bool {
	select {
	case <-e.stopping:
		return true
	default:
		return false
	}
}

// stopGrace is how long tasks have to heed their context.
const stopGrace = 5 * time.Second

// Stats is a picture of the engine's load.
type Stats struct {
	// Queued runs wait for a place; Executing ones have one.
	Queued, Executing int
	// MaxQueued and MaxConcurrent are their limits.
	MaxQueued, MaxConcurrent int
	// States counts the runs that are kept by state.
	States map[State]int
	// Workers are connected; Leased runs are theirs, or of workers that may come back.
	Workers, Leased int
	// Lost counts attempts whose worker or runtime was lost, Retried those that failed
	// and were followed by another.
	Lost, Retried uint64
	// Stopped counts the runs whose code a worker stopped because they had ended;
	// StopTime is what it took in all until the code was gone.
	Stopped  uint64
	StopTime time.Duration
}

// Stats returns the engine's load as it is.
func (e *Engine) Stats() Stats {
	workers, leased := e.countWorkers()
	return Stats{
		Queued: e.sched.length(), Executing: int(e.executing.Load()),
		MaxQueued: e.cfg.MaxQueued, MaxConcurrent: e.cfg.MaxConcurrent,
		States:  e.index.stateCounts(),
		Workers: workers, Leased: leased,
		Lost: e.lost.Load(), Retried: e.retried.Load(),
		Stopped: e.stopped.Load(), StopTime: time.Duration(e.stopTime.Load()),
	}
}
