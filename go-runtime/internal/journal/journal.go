package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Journal is a set of streams, either in this process's own store or on an
// external cluster. Its methods are safe for concurrent use.
type Journal struct {
	cfg Config
	log *slog.Logger

	// failed is closed by the first unrecoverable fault; failure is set before.
	failed   chan struct{}
	failOnce sync.Once
	failure  error

	mu       sync.Mutex
	started  bool
	stopped  bool
	problems []Problem
	streams  map[string]*Stream

	// closing refuses appends from the moment Stop begins.
	closing atomic.Bool

	// appends counts the records that this process appended.
	appends atomic.Uint64

	backend backend
	conn    *nats.Conn
	js      jetstream.JetStream
	barrier *barrier // nil in a cluster
	space   *space   // nil in a cluster
}

// backend is where the records live: the embedded server or a cluster.
type backend interface {
	// connect opens a connection; the caller closes it.
	connect(opts ...nats.Option) (*nats.Conn, error)
	// configure adjusts a stream's configuration to the backend.
	configure(cfg *jetstream.StreamConfig)
	// stop ends what the backend started, after the connection is closed.
	stop(ctx context.Context) error
}

// New validates the configuration; every mistake is in the error.
func New(cfg Config, log *slog.Logger) (*Journal, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("journal configuration: %w", err)
	}
	return &Journal{
		cfg:     cfg,
		log:     log,
		failed:  make(chan struct{}),
		streams: make(map[string]*Stream),
	}, nil
}

// Start opens the store or connects to the cluster. It returns when the
// journal is ready, and a *LockedError when another runtime owns it.
func (j *Journal) Start(ctx context.Context) (err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.started || j.stopped {
		return errors.New("start journal: it was started or stopped before")
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start journal: %w", err), j.release(context.WithoutCancel(ctx)))
		}
	}()
	if err := j.open(ctx); err != nil {
		return err
	}
	if j.conn, err = j.backend.connect(
		nats.Name("agent-runtime"),
		nats.MaxReconnects(-1),
		nats.NoEcho(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			j.log.Warn("journal connection reported an error", "err", err)
		}),
	); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if j.js, err = jetstream.New(j.conn); err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	j.started = true
	return nil
}

// open opens the backend. Only the embedded one needs the barrier: in a
// cluster, the acknowledgement of an append says that a quorum has it.
func (j *Journal) open(ctx context.Context) error {
	if j.cfg.NATSURL != "" {
		cluster, err := openExternal(ctx, j.cfg, j.log, j.fail)
		if err != nil {
			return err
		}
		j.backend = cluster
		return nil
	}
	store, err := openEmbedded(ctx, j.cfg, j.log, j.fail, j.failed)
	if err != nil {
		return err
	}
	j.backend, j.space, j.problems = store, store.space, store.problems
	if j.cfg.Durability == Fsync {
		j.barrier = newBarrier(newSync(store.folder), j.fail)
	} else {
		j.barrier = newBarrier(nil, j.fail)
	}
	return nil
}

// Stop makes what was appended durable and closes the journal. It returns
// when every goroutine of it is gone; it is safe twice and before Start.
func (j *Journal) Stop(ctx context.Context) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.stopped {
		return nil
	}
	j.stopped = true
	if !j.started {
		return nil
	}
	if err := j.release(ctx); err != nil {
		return fmt.Errorf("stop journal: %w", err)
	}
	return nil
}

// release undoes Start, as far as it came.
func (j *Journal) release(ctx context.Context) error {
	j.closing.Store(true)
	for _, s := range j.streams {
		s.stop()
	}
	var errs []error
	if j.barrier != nil {
		errs = append(errs, j.barrier.stop())
	}
	if j.conn != nil {
		j.conn.Close()
	}
	if j.backend != nil {
		errs = append(errs, j.backend.stop(ctx))
	}
	return errors.Join(errs...)
}

// Failed is closed on an unrecoverable fault: the disk is full or broken, a
// sync failed, or the lease on a cluster was lost. Nothing appended from then
// on is kept; the process must exit.
func (j *Journal) Failed() <-chan struct{} { return j.failed }

// Err says why Failed is closed; nil while it is open.
func (j *Journal) Err() error {
	select {
	case <-j.failed:
		return j.failure
	default:
		return nil
	}
}

func (j *Journal) fail(err error) {
	j.failOnce.Do(func() {
		j.log.Error("journal failed", "err", err)
		j.failure = err
		close(j.failed)
	})
}

// Full says why new records are refused, the largest of them at least: an
// ErrNoSpace, nil while there is room. Records that finish or release something
// may go on. A cluster says so only when it refuses a record.
func (j *Journal) Full() error {
	j.mu.Lock()
	space, running := j.space, j.started && !j.stopped
	j.mu.Unlock()
	if space == nil || !running {
		return nil
	}
	return space.full()
}

// Problems lists the ranges of records that were lost and other lasting faults,
// until an operator acknowledges them (AcknowledgeDamage) or, found at a start,
// retention has passed them.
func (j *Journal) Problems() []Problem {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.problems)
}

// Stats counts what the journal has done since Start.
type Stats struct {
	// Appends are the records that were appended.
	Appends uint64
	// Syncs are the syncs that made them durable, SyncTime is what those took in
	// all. Both stay 0 in a cluster and with Durability OS.
	Syncs    uint64
	SyncTime time.Duration
}

// Stats returns the counts as they are.
func (j *Journal) Stats() Stats {
	stats := Stats{Appends: j.appends.Load()}
	if j.barrier != nil {
		stats.Syncs, stats.SyncTime = j.barrier.syncs.Load(), time.Duration(j.barrier.syncTime.Load())
	}
	return stats
}

// Durability names what an append that was committed can survive: "quorum"
// (a cluster), "fsync" or "os".
func (j *Journal) Durability() string {
	if j.cfg.NATSURL != "" && j.cfg.Replicas > 1 {
		return "quorum"
	}
	return string(j.cfg.Durability)
}
