package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The oldest nats-server with every feature the journal uses.
const (
	oldestMajor = 2
	oldestMinor = 14
)

// external is a NATS cluster that others run, owned by lease.
type external struct {
	cfg   Config
	lease *lease
}

// openExternal checks that the cluster can keep the journal's promises and
// takes the lease on it. fail is told when the lease is lost.
func openExternal(ctx context.Context, cfg Config, log *slog.Logger, fail func(error)) (*external, error) {
	e := &external{cfg: cfg}
	conn, err := e.connect(nats.Name("agent-runtime lease"), nats.MaxReconnects(-1))
	if err != nil {
		return nil, fmt.Errorf("connect to the NATS cluster: %w", err)
	}
	if err := checkServer(conn, cfg.MaxMessageBytes); err != nil {
		conn.Close()
		return nil, err
	}
	if e.lease, err = takeLease(ctx, conn, cfg, log, fail); err != nil {
		conn.Close()
		return nil, err
	}
	return e, nil
}

// checkServer refuses a server that cannot keep the journal's promises.
func checkServer(conn *nats.Conn, maxMessage int) error {
	var errs []error
	version := conn.ConnectedServerVersion()
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		errs = append(errs, fmt.Errorf("NATS server has the version %q, which cannot be compared", version))
	} else if major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		errs = append(errs, fmt.Errorf("NATS server %s is too old: %d.%d or newer is required", version, oldestMajor, oldestMinor))
	}
	if limit := conn.MaxPayload(); limit < int64(maxMessage) {
		errs = append(errs, fmt.Errorf("NATS server's max_payload of %d bytes is below the %d bytes a record may have", limit, maxMessage))
	}
	return errors.Join(errs...)
}

// connect keeps nothing for later while the cluster is away: an append that
// was given up must not happen afterwards.
func (e *external) connect(opts ...nats.Option) (*nats.Conn, error) {
	return nats.Connect(e.cfg.NATSURL, append(opts, nats.ReconnectBufSize(-1))...)
}

// configure turns direct reads off: any replica answers those, and one that
// lags would answer with something older than what was acknowledged.
func (e *external) configure(cfg *jetstream.StreamConfig) {
	cfg.Replicas = e.cfg.Replicas
	cfg.AllowDirect = false
}

func (e *external) stop(ctx context.Context) error { return e.lease.release(ctx) }
