package djangobridge

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/test/bufconn"

	"github.com/djangobridge/djangobridge/go-runtime/internal/telemetry"
)

// TestIdleClientsMayPing keeps a connection without a call for half an hour of
// the bubble's clock, with pings as often as the contract allows. A server that
// minds them answers GOAWAY too_many_pings, which takes the connection away.
func TestIdleClientsMayPing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tracing, err := telemetry.New("test", func(string) string { return "" }, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		server, _ := newServer(&edge{
			metrics: newMetrics("test", "os"), log: slog.New(slog.DiscardHandler),
			timeout: time.Minute, waitTimeout: time.Minute, observers: t.Context(),
		}, nil, 1<<20, tracing)
		listener := bufconn.Listen(1 << 16)
		served := make(chan error, 1)
		go func() { served <- server.Serve(listener) }()

		conn, err := grpc.NewClient("passthrough:///bubble",
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: minClientPing, Timeout: 5 * time.Second, PermitWithoutStream: true}),
			grpc.WithIdleTimeout(0),
		)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
		defer cancel()
		if conn.WaitForStateChange(ctx, connectivity.Ready) {
			t.Errorf("the connection is %s after pings every %s", conn.GetState(), minClientPing)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}
