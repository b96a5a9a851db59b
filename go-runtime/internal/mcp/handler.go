package mcp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"go.opentelemetry.io/otel/propagation"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
)

// maxCalls is how many requests are answered at a time; one more is refused.
const maxCalls = 1024

// retrySeconds is when to come again to a runtime that takes no request now.
const retrySeconds = "1"

// errDraining ends requests when the runtime stops.
var errDraining = errors.New("the runtime is stopping")

// Agent is an agent of the runtime, as a client is told of it.
type Agent struct {
	ID          string
	Description string
	// TaskTypes are the tasks that it takes; none: any.
	TaskTypes []TaskType
}

// TaskType is a task of an agent.
type TaskType struct {
	Name        string
	Description string
	// InputSchema is a JSON Schema of an object.
	InputSchema []byte
}

// Runs is what makes runs and tells of them, *engine.Engine; its methods are documented there.
type Runs interface {
	CreateRun(ctx context.Context, namespace string, r engine.CreateRequest) (engine.Run, bool, error)
	WatchRun(ctx context.Context, namespace, runID string, after uint64, least engine.Visibility,
		send func(events []engine.Event, position uint64) error) error
	GetRun(ctx context.Context, namespace, runID string) (engine.Run, error)
	CancelRun(ctx context.Context, namespace, runID, reason string) (engine.Run, error)
}

// Caller is who sent a request.
type Caller struct {
	Namespace string
	// Refusal says why the caller may make no runs; empty: they may.
	Refusal string
}

// HandlerConfig is what a Handler stands on.
type HandlerConfig struct {
	Version string
	Runs    Runs
	// Agents are those of a namespace.
	Agents func(namespace string) []Agent
	// Admit says who sent a request, or answers it and returns false.
	Admit func(w http.ResponseWriter, r *http.Request) (Caller, bool)
	// Serving says whether runs can be made.
	Serving func() bool
	// Explain is what a caller is told of an error of Runs.
	Explain func(error) string
	// MaxRequestBytes bounds a request.
	MaxRequestBytes int64
	Propagator      propagation.TextMapPropagator
}

// Handler makes an MCP server of the runtime, over streamable HTTP. Each agent is a
// tool whose call makes a run, and each run a resource. It keeps no sessions, so that
// clients of the stateless protocol and older ones are served alike.
type Handler struct {
	cfg      HandlerConfig
	log      *slog.Logger
	protocol http.Handler
	calls    atomic.Int64
	// running ends when the runtime stops.
	running context.Context //nolint:containedctx // the lifetime of all requests, ended by Drain
	end     context.CancelCauseFunc
}

// NewHandler returns a Handler.
func NewHandler(cfg HandlerConfig, log *slog.Logger) *Handler {
	h := &Handler{cfg: cfg, log: log}
	h.running, h.end = context.WithCancelCause(context.Background())
	streamable := sdk.NewStreamableHTTPHandler(func(r *http.Request) *sdk.Server {
		server, _ := r.Context().Value(serverKey{}).(*sdk.Server)
		return server
	}, &sdk.StreamableHTTPOptions{Stateless: true, PropagateRequestCancellation: true, MaxRequestBodyBytes: cfg.MaxRequestBytes})
	// Pages of other sites may make a browser send requests.
	h.protocol = http.NewCrossOriginProtection().Handler(streamable)
	return h
}

// serverKey is that of the server for a request, in its context.
type serverKey struct{}

// Drain ends requests, now and from now on; the runs that they made go on. It may be
// called twice.
func (h *Handler) Drain() { h.end(errDraining) }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.running.Err() != nil || !h.cfg.Serving() {
		refuse(w, http.StatusServiceUnavailable, "the runtime takes no requests now")
		return
	}
	if h.calls.Add(1) > maxCalls {
		h.calls.Add(-1)
		refuse(w, http.StatusServiceUnavailable, "too many requests are under way")
		return
	}
	defer h.calls.Add(-1)
	caller, admitted := h.cfg.Admit(w, r)
	if !admitted {
		return
	}
	// The times of the server are for the request; the answer takes as long as a run.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.cfg.MaxRequestBytes))
	if tooLarge, found := errors.AsType[*http.MaxBytesError](err); found {
		http.Error(w, tooLarge.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	if err != nil {
		http.Error(w, "the request did not come in time", http.StatusBadRequest)
		return
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{})
	_ = control.SetWriteDeadline(time.Time{})
	ctx := h.cfg.Propagator.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	c := &calls{Handler: h, caller: caller, request: ctx}
	r = r.WithContext(context.WithValue(ctx, serverKey{}, c.server()))
	r.Body = io.NopCloser(bytes.NewReader(body))
	h.protocol.ServeHTTP(w, r)
}

// refuse asks a client to come again.
func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Retry-After", retrySeconds)
	http.Error(w, why, status)
}
