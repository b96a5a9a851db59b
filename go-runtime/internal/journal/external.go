package journal

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// external is a NATS cluster that others run.
type external struct{ cfg Config }

// openExternal checks that the cluster can keep the journal's promises.
func openExternal(_ context.Context, cfg Config, _ *slog.Logger) (*external, error) {
	e := &external{cfg: cfg}
	conn, err := e.connect(nats.Name("agent-runtime check"))
	if err != nil {
		return nil, fmt.Errorf("connect to the NATS cluster: %w", err)
	}
	defer conn.Close()
	if limit := conn.MaxPayload(); limit < int64(cfg.MaxMessageBytes) {
		return nil, fmt.Errorf("NATS server's max_payload of %d bytes is below the %d bytes a record may have", limit, cfg.MaxMessageBytes)
	}
	return e, nil
}

func (e *external) connect(opts ...nats.Option) (*nats.Conn, error) {
	return nats.Connect(e.cfg.NATSURL, opts...)
}

// configure turns direct reads off: any replica answers those, and one that
// lags would answer with something older than what was acknowledged.
func (e *external) configure(cfg *jetstream.StreamConfig) {
	cfg.Replicas = e.cfg.Replicas
	cfg.AllowDirect = false
}

func (*external) stop(context.Context) error { return nil }
