package djangobridge_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/config"
	"github.com/djangobridge/djangobridge/go-runtime/pkg/djangobridge"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testTimeout fails a call that hangs; no test waits for it.
const testTimeout = 30 * time.Second

// system is a running runtime with a client for each service.
type system struct {
	*djangobridge.Integration

	conn   *grpc.ClientConn
	agents agentruntimev1.AgentServiceClient
	state  agentruntimev1.StateServiceClient
	events agentruntimev1.EventServiceClient
}

// load reads a configuration for tests: free ports, a folder of its own, and
// the given flags.
func load(t *testing.T, flags ...string) config.Config {
	t.Helper()
	set := config.Flags("test")
	args := append([]string{"--listen=127.0.0.1:0", "--http=127.0.0.1:0", "--durability=os", "--data-dir=" + t.TempDir()}, flags...)
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(set, noEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func noEnvironment(string) string { return "" }

// assemble puts a runtime together and stops it when the test ends.
func assemble(t *testing.T, cfg config.Config) *djangobridge.Integration {
	t.Helper()
	rt, err := djangobridge.New(cfg, "1.2.3", noEnvironment, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, rt)
	return rt
}

func stopAtEnd(t *testing.T, rt *djangobridge.Integration) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		defer cancel()
		if err := rt.Stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
}

// logBuffer collects log lines of any goroutine.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// logger logs everything into the buffer.
func (b *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// start runs a runtime with the given flags and connects to it.
func start(t *testing.T, flags ...string) *system {
	t.Helper()
	rt := assemble(t, load(t, flags...))
	if err := rt.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return connect(t, rt, rt.Addr())
}

func connect(t *testing.T, rt *djangobridge.Integration, target string, options ...grpc.DialOption) *system {
	t.Helper()
	if len(options) == 0 {
		options = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &system{
		Integration: rt,
		conn:        conn,
		agents:      agentruntimev1.NewAgentServiceClient(conn),
		state:       agentruntimev1.NewStateServiceClient(conn),
		events:      agentruntimev1.NewEventServiceClient(conn),
	}
}

// testContext ends with the test, or before if it hangs.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// in returns a context whose calls are made in namespace.
func in(t *testing.T, namespace string) context.Context {
	t.Helper()
	return metadata.AppendToOutgoingContext(testContext(t), "agent-runtime-namespace", namespace)
}

// refused checks how a call was refused and returns the reason's metadata.
func refused(t *testing.T, err error, code codes.Code, reason string) map[string]string {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != code {
		t.Fatalf("code = %s (%v), want %s", s.Code(), err, code)
	}
	for _, detail := range s.Details() {
		if info, found := detail.(*errdetails.ErrorInfo); found {
			if info.GetReason() != reason || info.GetDomain() != "agentruntime" {
				t.Fatalf("reason = %s of %s (%v), want %s", info.GetReason(), info.GetDomain(), err, reason)
			}
			return info.GetMetadata()
		}
	}
	t.Fatalf("%v carries no ErrorInfo", err)
	return nil
}
