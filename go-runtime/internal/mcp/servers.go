package mcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/propagation"

	"github.com/djangobridge/djangobridge/go-runtime/internal/tool"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// ErrStopped is returned once Stop was called.
var ErrStopped = errors.New("mcp servers are stopping")

// Servers are the MCP servers that agents use. Each is connected when it is first
// needed, and again when its connection has died; what is wrong with one is felt by
// calls of its own tools alone.
type Servers struct {
	upstreams map[string]*upstream
	// life ends with Stop, and with it every session; kill ends when Stop may wait no longer.
	life, kill    context.Context //nolint:containedctx // the lifetimes of sessions and their processes
	end, endGrace context.CancelFunc

	mu      sync.Mutex
	stopped bool
	// background counts the goroutines of all sessions.
	background sync.WaitGroup
}

// Options are what Servers have of the runtime.
type Options struct {
	// Version is the runtime's own.
	Version string
	// Getenv is os.Getenv: commands are given a few of its variables.
	Getenv func(string) string
	// Propagator carries a call's span to the server.
	Propagator propagation.TextMapPropagator
}

// NewServers returns servers that are not connected yet.
func NewServers(cfg Config, options Options, log *slog.Logger) *Servers {
	s := &Servers{upstreams: make(map[string]*upstream, len(cfg.Servers))}
	s.life, s.end = context.WithCancel(context.Background())
	s.kill, s.endGrace = context.WithCancel(context.Background())
	for name, server := range cfg.Servers {
		s.upstreams[name] = &upstream{
			name: name, cfg: server, options: options, servers: s, log: log.With("mcp_server", name),
		}
	}
	return s
}

// Stop ends every session and the processes that they began: those that do not end
// by themselves are killed, at once when ctx ends. It may be called twice.
func (s *Servers) Stop(ctx context.Context) error {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.end()
	defer context.AfterFunc(ctx, s.endGrace)()
	s.background.Wait()
	s.endGrace()
	return nil
}

// spawn runs work in the background, or returns ErrStopped.
func (s *Servers) spawn(work func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return ErrStopped
	}
	s.background.Go(work)
	return nil
}

// Names are those of the servers, sorted.
func (s *Servers) Names() []string { return slices.Sorted(maps.Keys(s.upstreams)) }

// Tools returns what agents may use of a server, as it offers it now, sorted by
// name: its tools as server__tool, and server__read_resource and server__get_prompt
// where it has resources and prompts. It connects the server when it must.
//
// Errors: *UnknownServerError, ErrStopped, and why the server does not answer.
func (s *Servers) Tools(ctx context.Context, server string) ([]tool.Tool, error) {
	u, known := s.upstreams[server]
	if !known {
		return nil, &UnknownServerError{Name: server, Known: s.Names()}
	}
	return u.tools(ctx)
}

// UnknownServerError is returned for a server that the configuration does not name.
type UnknownServerError struct {
	Name string
	// Known are those it names, sorted.
	Known []string
}

func (e *UnknownServerError) Error() string {
	name := violation.Clip(e.Name, maxNameBytes)
	if len(e.Known) == 0 {
		return fmt.Sprintf("no MCP server is called %q; there are none: the setting mcp-servers names a file of them", name)
	}
	return fmt.Sprintf("no MCP server is called %q; there are %s", name, strings.Join(e.Known, ", "))
}
