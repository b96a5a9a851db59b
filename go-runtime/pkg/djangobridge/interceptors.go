package djangobridge

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
)

// requestIDKey names a call in metadata and in the log: the client's own name for
// it, or one made here, which comes back in the trailer.
const (
	requestIDKey      = "x-request-id"
	maxRequestIDBytes = 64
)

// call is what the edge knows of the call under way; see callOf.
type call struct {
	method    string
	requestID string
	// named says that the request id was made here.
	named     bool
	namespace string
	// tokenName is empty when no token was needed.
	tokenName string
	started   time.Time
}

type callKey struct{}

// callOf returns the call that ctx belongs to.
func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// namespaceOf returns the namespace of the call that ctx belongs to.
func namespaceOf(ctx context.Context) string { return callOf(ctx).namespace }

// edge stands around every rpc: it names the call, bounds its time, asks who
// calls and whether they may, and turns errors and panics into statuses, log
// lines and metrics. Handlers return plain errors.
type edge struct {
	guard   guard
	metrics *metrics
	log     *slog.Logger
	// strangers bounds the log lines about refused access.
	strangers logLimit
	// timeout is the deadline of calls that have none; waitTimeout that of calls that wait for a run.
	timeout     time.Duration
	waitTimeout time.Duration
	// observers ends streams that have no end of their own and carry nothing of
	// the runtime's: watches of health, and reflection.
	observers context.Context //nolint:containedctx // their lifetime, ended by Stop
}

func (e *edge) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (response any, err error) {
	ctx, c := e.begin(ctx, info.FullMethod)
	defer func() { err = e.end(ctx, c, recovered(recover(), err)) }()
	if c.named {
		if err := grpc.SetTrailer(ctx, metadata.Pairs(requestIDKey, c.requestID)); err != nil {
			return nil, err
		}
	}
	if err := e.guard.admit(ctx, c); err != nil {
		return nil, err
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, e.timeoutOf(info.FullMethod))
		defer cancel()
	}
	return handle(ctx, request)
}

func (e *edge) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	ctx, c := e.begin(stream.Context(), info.FullMethod)
	defer func() { err = e.end(ctx, c, recovered(recover(), err)) }()
	if c.named {
		stream.SetTrailer(metadata.Pairs(requestIDKey, c.requestID))
	}
	if err := e.guard.admit(ctx, c); err != nil {
		return err
	}
	if observes(info.FullMethod) {
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(e.observers, func() { cancel(errDraining) })()
	}
	err = handle(server, &namedStream{ServerStream: stream, ctx: ctx})
	if cause := context.Cause(ctx); errors.Is(cause, errDraining) {
		return cause
	}
	return err
}

// namedStream is a stream whose context knows its call.
type namedStream struct {
	grpc.ServerStream

	ctx context.Context //nolint:containedctx // grpc.ServerStream hands its context out this way
}

// Context implements grpc.ServerStream.
func (s *namedStream) Context() context.Context { return s.ctx }

// observes reports whether a method is one of gRPC's own services.
func observes(method string) bool { return strings.HasPrefix(method, "/grpc.") }

// timeoutOf returns the deadline of a call whose client set none.
func (e *edge) timeoutOf(method string) time.Duration {
	switch method {
	case agentruntimev1.AgentService_CreateRun_FullMethodName, agentruntimev1.AgentService_WaitRun_FullMethodName:
		return e.waitTimeout
	default:
		return e.timeout
	}
}

func (e *edge) begin(ctx context.Context, method string) (context.Context, *call) {
	c := &call{method: method, started: time.Now()}
	if given := metadata.ValueFromIncomingContext(ctx, requestIDKey); len(given) > 0 && printable(given[0]) {
		c.requestID = given[0]
	} else {
		c.requestID, c.named = uuid.NewString(), true
	}
	return context.WithValue(withCaller(ctx), callKey{}, c), c
}

// printable reports whether a request id may stand in a log line.
func printable(s string) bool {
	if s == "" || len(s) > maxRequestIDBytes {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// recovered turns a panic into an error.
func recovered(panicked any, err error) error {
	if panicked == nil {
		return err
	}
	return &panicError{Value: panicked, Stack: debug.Stack()}
}

// end records how a call ended and returns its error as a status.
func (e *edge) end(ctx context.Context, c *call, err error) error {
	took := time.Since(c.started)
	if err == nil {
		e.metrics.observe(c.method, codeOK, took)
		if e.log.Enabled(ctx, slog.LevelDebug) {
			e.write(ctx, slog.LevelDebug, c, took, slog.String("code", codeOK))
		}
		return nil
	}
	r := describe(err)
	if cause := context.Cause(ctx); cause != nil && fromGRPC(err) {
		// To a caller who has gone gRPC can send nothing, and says so with errors of its own.
		r = describe(cause)
	}
	e.metrics.observe(c.method, r.code.String(), took)
	shown := slog.String("err", r.message)
	if r.unforeseen() {
		shown = slog.Any("err", err)
	}
	attrs := []slog.Attr{slog.String("code", r.code.String()), slog.String("reason", r.reason), shown}
	level := r.level()
	if level == slog.LevelWarn {
		suppressed, allowed := e.strangers.allow(c.started)
		if !allowed {
			return r.status().Err()
		}
		if suppressed > 0 {
			attrs = append(attrs, slog.Int("suppressed", suppressed))
		}
	}
	e.write(ctx, level, c, took, attrs...)
	return r.status().Err()
}

func (e *edge) write(ctx context.Context, level slog.Level, c *call, took time.Duration, more ...slog.Attr) {
	attrs := []slog.Attr{
		slog.String("method", c.method),
		slog.String("request_id", c.requestID),
		slog.String("namespace", c.namespace),
		slog.String("token", c.tokenName),
		slog.Float64("duration_ms", float64(took)/float64(time.Millisecond)),
	}
	if p, found := peer.FromContext(ctx); found {
		attrs = append(attrs, slog.String("peer", p.Addr.String()))
	}
	e.log.LogAttrs(ctx, level, "rpc ended", append(attrs, more...)...)
}
