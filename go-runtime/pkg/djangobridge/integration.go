package djangobridge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/agent"
	"github.com/djangobridge/djangobridge/go-runtime/internal/config"
	"github.com/djangobridge/djangobridge/go-runtime/internal/definition"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/event"
	"github.com/djangobridge/djangobridge/go-runtime/internal/gateway"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/store"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph/thread"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/mcp"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
	"github.com/djangobridge/djangobridge/go-runtime/internal/schedule"
	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
	"github.com/djangobridge/djangobridge/go-runtime/internal/state"
	"github.com/djangobridge/djangobridge/go-runtime/internal/telemetry"
	"github.com/djangobridge/djangobridge/go-runtime/internal/ticket"
	"github.com/djangobridge/djangobridge/go-runtime/internal/token"
	"github.com/djangobridge/djangobridge/go-runtime/internal/workspace"
)

// recordOverhead is what a record of the journal may hold beside its value:
// headers, and what a run or an event has beside its input or data.
const recordOverhead = 128 << 10

// maxClientMessageBytes is the largest message that a Python client takes.
const maxClientMessageBytes = 16 << 20

// keepCheckpoints is how many checkpoints of a thread are kept at least.
const keepCheckpoints = 100

// phase is where an Integration stands in its life.
type phase int

const (
	starting phase = iota
	serving
	stopping
)

// Integration is the runtime: everything of one process, put together.
type Integration struct {
	cfg     config.Config
	version string
	log     *slog.Logger

	tracing     *telemetry.Tracing
	tokens      *token.Set
	journal     *journal.Journal
	state       *state.Store
	events      *event.Log
	definitions *definition.Store
	threads     *thread.Store
	checker     definition.Checker
	engine      *engine.Engine
	tickets     *ticket.Office
	toolbox     *toolbox
	handler     *mcp.Handler
	schedules   *schedule.Store
	files       *workspace.Store
	workshop    *workshop
	gateway     *gateway.Server
	server      *grpc.Server
	health      *health.Server
	streams     *streams
	newcomers   newcomers
	// endObservers ends the streams of gRPC's own services.
	endObservers context.CancelFunc

	// background counts the goroutines of Start.
	background sync.WaitGroup
	// stopped is closed when Stop begins.
	stopped  chan struct{}
	stopOnce sync.Once
	stopErr  error

	// failed is closed, with err set, when the runtime cannot go on.
	failed   chan struct{}
	failOnce sync.Once

	mu        sync.Mutex
	phase     phase
	startTime time.Time
	addr      net.Addr
	err       error
}

// New puts a runtime together; it neither listens nor opens the store before
// Start. getenv is os.Getenv, for the standard variables of OpenTelemetry.
func New(cfg config.Config, version string, getenv func(string) string, log *slog.Logger) (*Integration, error) {
	i := &Integration{
		cfg: cfg, version: version, log: log,
		streams: newStreams(cfg.SendTimeout),
		stopped: make(chan struct{}),
		failed:  make(chan struct{}),
	}
	tlsConfig, err := cfg.TLS()
	if err != nil {
		return nil, err
	}
	if cfg.TokensFile != "" {
		if i.tokens, err = token.Load(cfg.TokensFile); err != nil {
			return nil, err
		}
	}
	if i.tracing, err = telemetry.New(version, getenv, log); err != nil {
		return nil, err
	}
	if i.toolbox, err = newToolbox(cfg, version, getenv, i.tracing, log); err != nil {
		return nil, errors.Join(err, i.tracing.Stop(context.Background()))
	}
	registry, err := i.newStores(i.newTracer(getenv), getenv)
	if err != nil {
		return nil, errors.Join(err, i.tracing.Stop(context.Background()))
	}
	i.newEdge(registry, tlsConfig)
	return i, nil
}

// newStores makes what keeps and does the work, and returns what can be run.
func (i *Integration) newStores(tracer *span.Tracer, getenv func(string) string) (*agent.Registry, error) {
	var err error
	i.journal, err = journal.New(journal.Config{
		DataDir:         i.cfg.DataDir,
		NATSURL:         i.cfg.NATSURL,
		Replicas:        i.cfg.Replicas,
		Durability:      journal.Durability(i.cfg.Durability),
		MaxStoreBytes:   i.cfg.MaxStoreBytes,
		MaxMessageBytes: i.cfg.MaxValueBytes + recordOverhead,
	}, i.log)
	if err != nil {
		return nil, err
	}
	i.state, err = state.New(state.Config{MaxValueBytes: i.cfg.MaxValueBytes}, i.journal, i.log)
	if err != nil {
		return nil, err
	}
	i.events, err = event.New(event.Config{
		MaxAge: i.cfg.EventMaxAge, MaxBytes: i.cfg.EventMaxBytes, MaxValueBytes: i.cfg.MaxValueBytes,
	}, i.journal, i.log)
	if err != nil {
		return nil, err
	}
	i.tickets = ticket.New(i.journal, nil, i.log)
	registry, err := i.newRegistry(getenv)
	if err != nil {
		return nil, err
	}
	i.engine, err = engine.New(engine.Config{
		MaxConcurrent: i.cfg.MaxConcurrentRuns,
		MaxQueued:     i.cfg.MaxQueuedRuns,
		MaxAttempts:   i.cfg.MaxAttempts,
		RunTimeout:    i.cfg.RunTimeout,
		MaxInputBytes: i.cfg.MaxValueBytes,
		// Clients take no larger messages, whatever the runtime's own limit; what is accepted fits in any case.
		MaxAssignmentBytes: max(min(i.cfg.MaxMessageBytes, maxClientMessageBytes)-recordOverhead, i.cfg.MaxValueBytes),

		KeepEnded:    i.cfg.KeepRuns,
		KeepEndedFor: i.cfg.KeepRunsFor,
		Tracer:       tracer,
	}, i.journal, registry, i.log)
	if err != nil {
		return nil, err
	}
	i.schedules = schedule.New(i.journal, i.engine, nil, i.log)
	return registry, nil
}

// newRegistry makes what can be run, and what that works with.
func (i *Integration) newRegistry(getenv func(string) string) (*agent.Registry, error) {
	provider, err := model.New(model.Config{
		OpenAI:      model.Endpoint{APIKey: i.cfg.OpenAIAPIKey, BaseURL: i.cfg.OpenAIBaseURL},
		Anthropic:   model.Endpoint{APIKey: i.cfg.AnthropicAPIKey, BaseURL: i.cfg.AnthropicBaseURL},
		Gemini:      model.Endpoint{APIKey: i.cfg.GeminiAPIKey, BaseURL: i.cfg.GeminiBaseURL},
		Models:      i.cfg.Models,
		Timeout:     i.cfg.ModelTimeout,
		Concurrency: i.cfg.ModelConcurrency,
	}, i.log)
	if err != nil {
		return nil, err
	}
	i.files, err = workspace.New(workspace.Config{
		Dir:      filepath.Join(i.cfg.DataDir, "workspaces"),
		MaxFiles: i.cfg.WorkspaceMaxFiles, MaxFileBytes: i.cfg.WorkspaceMaxFileBytes, MaxBytes: i.cfg.WorkspaceMaxBytes,
		PackBytes: min(i.cfg.MaxValueBytes, maxChunkBytes), KeepFor: i.cfg.KeepFilesFor,
	}, i.journal, runStatus(func() *engine.Engine { return i.engine }), i.log)
	if err != nil {
		return nil, err
	}
	i.workshop = newWorkshop(i.cfg, i.files, getenv)
	i.definitions = definition.New(i.journal, nil, i.log)
	kept := thread.Config{MaxCheckpoints: keepCheckpoints, MaxIdle: i.cfg.KeepThreadsFor}
	if i.threads, err = thread.New(kept, i.journal, i.log); err != nil {
		return nil, err
	}
	registry, err := agent.New(agent.Config{
		Provider: provider, Endpoints: endpoints(i.cfg.HTTPAgents), Definitions: i.definitions, Threads: i.threads,
		Tooling: agent.Tooling{
			Runner: i.toolbox.runner, Web: i.toolbox.web, MCP: i.toolbox.servers, Workshop: i.workshop,
			Store: func(namespace string) graph.Store { return store.New(i.state, namespace) },
		},
	})
	if err != nil {
		return nil, err
	}
	for _, d := range registry.BuiltIn() {
		i.definitions.AddBuiltIn(d)
	}
	i.checker = registry
	return registry, nil
}

// endpoints are the HTTP agents of a configuration.
func endpoints(configured map[string]config.HTTPAgent) map[string]agent.Endpoint {
	described := make(map[string]agent.Endpoint, len(configured))
	for id, a := range configured {
		described[id] = agent.Endpoint{URL: a.URL, RunDefaults: engine.RunDefaults{
			RunTimeout: a.RunTimeout,
			Retry: &engine.RetryPolicy{
				MaxAttempts: a.MaxAttempts, InitialBackoff: a.InitialBackoff, MaxBackoff: a.MaxBackoff, Multiplier: a.Multiplier,
			},
		}}
	}
	return described
}

// newEdge makes the two servers around the stores.
func (i *Integration) newEdge(registry *agent.Registry, tlsConfig *tls.Config) {
	m := newMetrics(i.version, i.journal.Durability(), newFigures(i.engine, i.journal), spanFigures{i.tracing}, i.toolbox.figure())
	access := guard{tokens: i.tokens}
	observers, endObservers := context.WithCancel(context.Background())
	i.endObservers = endObservers
	i.server, i.health = newServer(&edge{
		guard: access, metrics: m, log: i.log, observers: observers,
		timeout: i.cfg.RPCTimeout, waitTimeout: i.cfg.RPCTimeout + i.cfg.RunTimeout,
	}, tlsConfig, i.cfg.MaxMessageBytes, i.tracing)
	agentruntimev1.RegisterAgentServiceServer(i.server, &agentService{
		engine: i.engine, schedules: i.schedules, agents: registry, streams: i.streams, metrics: m,
		guard: access, log: i.log, describe: i.describe, tickets: i.tickets, runTimeout: i.cfg.RunTimeout,
	})
	agentruntimev1.RegisterStateServiceServer(i.server, &stateService{store: i.state, streams: i.streams})
	agentruntimev1.RegisterEventServiceServer(i.server, &eventService{events: i.events, streams: i.streams, metrics: m})
	agentruntimev1.RegisterWorkerServiceServer(i.server, &workerService{engine: i.engine, streams: i.streams})
	agentruntimev1.RegisterDefinitionServiceServer(i.server, &definitionService{
		store: i.definitions, checker: i.checker, engine: i.engine,
	})
	agentruntimev1.RegisterThreadServiceServer(i.server, &threadService{threads: registry, engine: i.engine})
	agentruntimev1.RegisterWorkspaceServiceServer(i.server, &workspaceService{engine: i.engine, files: i.files, streams: i.streams})
	i.setHealth(healthv1.HealthCheckResponse_NOT_SERVING)
	if i.cfg.HTTP == "" {
		return
	}
	cfg := gateway.Config{Address: i.cfg.HTTP, Readiness: i.readiness, Metrics: m.registry, Streams: i.streamConfig(m)}
	if i.cfg.HTTPExposed() {
		cfg.TLS, cfg.Authorize = tlsConfig, access.mayReadMetrics
	}
	if i.cfg.MCP {
		i.handler = i.newHandler(registry, access)
		cfg.MCP = i.handler
	}
	i.gateway = gateway.New(cfg, i.log)
}

// Start opens the store and listens, and returns once the runtime takes work. A
// *journal.LockedError says that another process uses the data folder. After an
// error Stop has nothing to do.
func (i *Integration) Start(ctx context.Context) error {
	if err := i.start(ctx); err != nil {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), i.cfg.DrainTimeout)
		defer cancel()
		return errors.Join(err, i.Stop(stopCtx))
	}
	return nil
}

func (i *Integration) start(ctx context.Context) error {
	// The gateway answers while the store is opened, which may take seconds. A
	// second runtime finds both its port and its folder taken: the folder says more.
	var gatewayErr error
	if i.gateway != nil {
		gatewayErr = i.gateway.Start(ctx)
	}
	if err := i.journal.Start(ctx); err != nil {
		return err
	}
	if gatewayErr != nil {
		return gatewayErr
	}
	for _, start := range []func(context.Context) error{
		i.workshop.start, i.state.Start, i.events.Start, i.tickets.Start, i.definitions.Start, i.readDefinitions, i.files.Start,
		i.threads.Start, i.engine.Start, i.schedules.Start,
	} {
		if err := start(ctx); err != nil {
			return err
		}
	}
	if err := i.listen(ctx); err != nil {
		return err
	}
	i.background.Go(func() {
		select {
		case <-i.journal.Failed():
			i.fail(fmt.Errorf("the journal failed: %w", i.journal.Err()))
		case <-i.stopped:
		}
	})
	i.mu.Lock()
	i.phase, i.startTime = serving, time.Now()
	i.mu.Unlock()
	i.setHealth(healthv1.HealthCheckResponse_SERVING)
	i.log.Info("runtime serves", "version", i.version, "listen", i.Addr(), "socket", i.cfg.Socket,
		"http", i.HTTPAddr(), "data_dir", i.cfg.DataDir, "durability", i.journal.Durability(), "sandbox", i.workshop.String())
	return nil
}

// listen begins to take calls.
func (i *Integration) listen(ctx context.Context) error {
	var listeners []net.Listener
	if i.cfg.Listen != "" {
		listener, err := listenTCP(ctx, i.cfg.Listen)
		if err != nil {
			return err
		}
		listeners = append(listeners, listener)
		i.mu.Lock()
		i.addr = listener.Addr()
		i.mu.Unlock()
	}
	if i.cfg.Socket != "" {
		listener, err := listenUnix(ctx, i.cfg.Socket)
		if err != nil {
			for _, open := range listeners {
				err = errors.Join(err, open.Close())
			}
			return err
		}
		listeners = append(listeners, listener)
	}
	for _, listener := range listeners {
		i.background.Go(func() {
			if err := i.server.Serve(i.newcomers.listener(listener)); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				i.fail(fmt.Errorf("serve on %s: %w", listener.Addr(), err))
			}
		})
	}
	return nil
}

// Stop drains: it tells health checks, takes no more work, ends streams, lets
// calls and runs in flight finish until ctx ends, cancels the rest, and closes
// the store. It may be called twice and before Start.
func (i *Integration) Stop(ctx context.Context) error {
	i.stopOnce.Do(func() { i.stopErr = i.stop(ctx) })
	return i.stopErr
}

func (i *Integration) stop(ctx context.Context) error {
	i.mu.Lock()
	i.phase = stopping
	i.mu.Unlock()
	close(i.stopped)
	i.health.Shutdown()
	i.streams.drain()
	if i.gateway != nil {
		i.gateway.Drain()
	}
	if i.handler != nil {
		i.handler.Drain()
	}

	i.newcomers.turnAway()
	ended := make(chan struct{})
	i.background.Go(func() {
		i.server.GracefulStop()
		close(ended)
	})
	errs := []error{i.schedules.Stop(ctx), i.engine.Stop(ctx)}
	// Watches of health have had the time to tell that the runtime stops.
	i.endObservers()
	select {
	case <-ended:
	case <-ctx.Done():
		i.server.Stop()
		<-ended
	}
	i.streams.wait()

	// What is left is flushed and closed even when the time to drain is over.
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	for _, stop := range []func(context.Context) error{
		i.toolbox.stop, i.threads.Stop, i.files.Stop, i.definitions.Stop, i.events.Stop, i.state.Stop, i.journal.Stop, i.tracing.Stop,
	} {
		errs = append(errs, stop(closing))
	}
	if i.gateway != nil {
		errs = append(errs, i.gateway.Stop(closing))
	}
	i.background.Wait()
	return errors.Join(errs...)
}

// closeTimeout bounds the closing of what has nothing left to wait for but the disk and a collector.
const closeTimeout = 10 * time.Second

// fail records why the runtime cannot go on.
func (i *Integration) fail(err error) {
	i.failOnce.Do(func() {
		i.mu.Lock()
		i.err = err
		i.mu.Unlock()
		i.setHealth(healthv1.HealthCheckResponse_NOT_SERVING)
		i.log.Error("runtime failed", "err", err)
		close(i.failed)
	})
}

// Failed is closed when the runtime cannot go on: the process must stop it and exit.
func (i *Integration) Failed() <-chan struct{} { return i.failed }

// Err says why Failed was closed, or nil.
func (i *Integration) Err() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.err
}

// Reload reads the tokens file and the folder of definitions again. What has a mistake
// stays as it was.
func (i *Integration) Reload(ctx context.Context) error {
	var errs []error
	if i.tokens != nil {
		errs = append(errs, i.tokens.Reload())
	}
	i.mu.Lock()
	serves := i.phase == serving
	i.mu.Unlock()
	if serves {
		errs = append(errs, i.readDefinitions(ctx))
	}
	return errors.Join(errs...)
}

// readDefinitions makes what the folder has the runtime's own.
func (i *Integration) readDefinitions(ctx context.Context) error {
	if i.cfg.DefinitionsDir == "" {
		return nil
	}
	found, err := definition.ReadFolder(i.cfg.DefinitionsDir, i.checker)
	if err != nil {
		return err
	}
	return i.definitions.Provide(ctx, found)
}

// Addr is the TCP address that takes calls, or "" when there is none.
func (i *Integration) Addr() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.addr == nil {
		return ""
	}
	return i.addr.String()
}

// HTTPAddr is the address of health, metrics and streams with a ticket, or "" when there is none.
func (i *Integration) HTTPAddr() string {
	if i.gateway == nil {
		return ""
	}
	return i.gateway.Addr()
}

func (i *Integration) setHealth(status healthv1.HealthCheckResponse_ServingStatus) {
	for _, name := range serviceNames() {
		i.health.SetServingStatus(name, status)
	}
}

// readiness is what /readyz says.
func (i *Integration) readiness() gateway.Readiness {
	i.mu.Lock()
	phase, err := i.phase, i.err
	i.mu.Unlock()
	r := gateway.Readiness{Reasons: []string{}, Warnings: []string{}}
	if phase != starting {
		// Before, the journal would answer once it is open.
		r.Warnings = i.warnings()
	}
	switch {
	case err != nil:
		r.Reasons = append(r.Reasons, err.Error())
	case phase == starting:
		r.Reasons = append(r.Reasons, "the runtime is starting")
	case phase == stopping:
		r.Reasons = append(r.Reasons, "the runtime is draining")
	default:
		r.Serving = true
		r.Reasons = append(r.Reasons, i.shortages()...)
	}
	r.Ready = len(r.Reasons) == 0
	return r
}

// shortages say, in a sentence each, why nothing new is kept although calls are answered.
func (i *Integration) shortages() []string {
	if err := i.journal.Full(); err != nil {
		return []string{err.Error() + "; reads and deletions go on"}
	}
	return nil
}

// warnings are the journal's lasting faults, a sentence each.
func (i *Integration) warnings() []string {
	sentences := []string{}
	for _, problem := range i.journal.Problems() {
		sentences = append(sentences, problem.Message)
	}
	return sentences
}

// describe answers GetServerInfo, but for the namespace.
func (i *Integration) describe() *agentruntimev1.GetServerInfoResponse {
	i.mu.Lock()
	started := i.startTime
	i.mu.Unlock()
	return &agentruntimev1.GetServerInfoResponse{
		Version:         i.version,
		Durability:      i.journal.Durability(),
		StartTime:       timestamppb.New(started),
		MaxValueBytes:   int64(i.cfg.MaxValueBytes),
		MaxMessageBytes: int64(i.cfg.MaxMessageBytes),
		Warnings:        append(i.warnings(), i.shortages()...),
	}
}
