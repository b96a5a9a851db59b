package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// readyWithin bounds the start of the embedded server once its store is
// recovered.
const readyWithin = 30 * time.Second

const (
	// roomInterval is how often the reserve and the room are looked after.
	roomInterval = time.Second
	// sealedInterval is how often blocks that have become full are noted.
	sealedInterval = 5 * time.Second
)

// embedded is a NATS server in this process, reachable from this process only.
type embedded struct {
	log     *slog.Logger
	server  *server.Server
	lock    *folderLock
	folder  *os.File
	space   *space
	reserve *reserve
	limit   int64 // bytes the store may take
	// problems is what the check of the store found.
	problems []Problem
	dataDir  string
	failed   <-chan struct{}

	// quit ends the watch of the store, done is closed when it has ended; nil
	// until the server runs.
	quit, done chan struct{}
}

// openEmbedded locks the data folder, repairs the store and opens it. fail is
// told of errors that the server cannot recover from; failed is closed when the
// store cannot be trusted any more.
func openEmbedded(
	ctx context.Context, cfg Config, log *slog.Logger, fail func(error), failed <-chan struct{},
) (_ *embedded, err error) {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	e := &embedded{log: log, dataDir: cfg.DataDir, failed: failed}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.stop(ctx))
		}
	}()
	if e.lock, err = lockFolder(cfg.DataDir); err != nil {
		return nil, err
	}
	total, free, err := disk(e.lock.file)
	if err != nil {
		return nil, err
	}
	// Everything from here on needs some room.
	e.reserve = newReserve(cfg.DataDir, cfg.MinFreeBytes, total, log)
	if err := errors.Join(e.reserve.giveUp(free), e.lock.sign()); err != nil {
		return nil, err
	}
	store := filepath.Join(cfg.DataDir, "store")
	if err := os.MkdirAll(store, 0o700); err != nil {
		return nil, fmt.Errorf("make the store: %w", err)
	}
	if e.folder, err = os.Open(store); err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	if e.problems, err = repairStore(cfg.DataDir, log); err != nil {
		return nil, err
	}
	if e.limit = cfg.MaxStoreBytes; e.limit == 0 {
		e.limit = total
	}
	e.space = newSpace(e.folder, cfg, e.limit, e.reserve.size)
	e.server, err = server.NewServer(&server.Options{
		ServerName:             "agent-runtime",
		DontListen:             true,
		NoSigs:                 true,
		JetStream:              true,
		StoreDir:               store,
		JetStreamMaxStore:      e.space.maxUsed[Release],
		JetStreamMaxMemory:     1 << 20,
		DisableJetStreamBanner: true,
		MaxPayload:             int32(cfg.MaxMessageBytes),
		MaxControlLine:         server.MAX_CONTROL_LINE_SIZE,
	})
	if err != nil {
		return nil, fmt.Errorf("create the embedded server: %w", err)
	}
	e.server.SetLoggerV2(&serverLog{log: log, fail: fail}, false, false, false)
	e.server.Start()
	if !e.server.ReadyForConnections(readyWithin) || !e.server.JetStreamEnabled() {
		return nil, errors.New("the embedded server did not get ready: its log says why")
	}
	e.space.used = func() int64 { return int64(e.server.GlobalAccount().JetStreamUsage().Store) }
	e.fillReserve(free - cfg.MinFreeBytes)
	e.quit, e.done = make(chan struct{}), make(chan struct{})
	go e.watch()
	return e, nil
}

// watch says when the store fills up and when it has room again, makes the
// reserve that a start gave up, and notes the blocks that have become full.
func (e *embedded) watch() {
	defer close(e.done)
	room, blocks := time.NewTicker(roomInterval), time.NewTicker(sealedInterval)
	defer room.Stop()
	defer blocks.Stop()
	wasFull := false
	for {
		err := e.space.full()
		if full := err != nil; full != wasFull {
			wasFull = full
			if full {
				e.log.Warn("journal takes nothing new", "err", err)
			} else {
				e.log.Info("journal has room again")
			}
		}
		e.fillReserve(e.space.free.Load() - e.space.minFree[Accept])
		select {
		case <-room.C:
		case <-blocks.C:
			if err := noteAllSealed(e.dataDir, false, false); err != nil {
				e.log.Warn("noting full blocks failed", "err", err)
			}
		case <-e.quit:
			return
		}
	}
}

// fillReserve goes on without a reserve where none can be made.
func (e *embedded) fillReserve(spare int64) {
	if err := e.reserve.fill(spare); err != nil {
		e.log.Warn("disk has no reserve", "err", err)
	}
}

func (e *embedded) connect(opts ...nats.Option) (*nats.Conn, error) {
	return nats.Connect("", append(opts, nats.InProcessServer(e.server))...)
}

// configure also bounds what a stream may take: the server reserves it, and would
// refuse a stream that reserves more than the store has.
func (e *embedded) configure(cfg *jetstream.StreamConfig) {
	cfg.MaxBytes = min(cfg.MaxBytes, e.limit/2)
	cfg.Replicas = 1
	cfg.AllowDirect = true
}

func (e *embedded) stop(context.Context) error {
	if e.quit != nil {
		close(e.quit)
		<-e.done
	}
	if e.server != nil {
		e.server.Shutdown()
		e.server.WaitForShutdown()
	}
	errs := []error{e.seal()}
	if e.folder != nil {
		errs = append(errs, e.folder.Close())
	}
	return errors.Join(append(errs, e.lock.release())...)
}

// seal notes what the blocks look like at rest. The note must not outlive
// something that it describes, so all of that goes to the disk before.
func (e *embedded) seal() error {
	select {
	case <-e.failed:
		return nil
	default:
	}
	if e.quit == nil {
		return nil
	}
	if err := newSync(e.folder)(); err != nil {
		return err
	}
	return noteAllSealed(e.dataDir, true, true)
}
