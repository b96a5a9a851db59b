// Package gateway is the runtime's HTTP server: health for whatever supervises
// the process, metrics for Prometheus, and the events of runs for browsers.
//
//	/healthz                  200 while the process lives
//	/readyz                   200 while it takes new work, else 503; JSON: {"ready", "serving", "reasons", "warnings"}
//	/metrics                  Prometheus text
//	/v1/runs/{run_id}/events  Server-Sent Events, for whoever has a ticket
//	/mcp                      the runtime as an MCP server
//
// Queries are never logged: a ticket is as good as a password.
package gateway

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Readiness is what /readyz says.
type Readiness struct {
	Ready bool `json:"ready"`
	// Serving is whether calls are answered: a full store serves reads and
	// deletions and is not ready.
	Serving bool `json:"serving"`
	// Reasons say why the runtime takes no new work.
	Reasons []string `json:"reasons"`
	// Warnings are faults that somebody must look at but that stop no work.
	Warnings []string `json:"warnings"`
}

// Config says where to listen and what to show.
type Config struct {
	// Address is a TCP host:port; port 0 takes a free one.
	Address string
	// TLS, when set, makes it HTTPS.
	TLS *tls.Config
	// Readiness is asked at each /readyz, from any goroutine.
	Readiness func() Readiness
	// Metrics is what /metrics shows.
	Metrics prometheus.Gatherer
	// Authorize says whether a request may read the metrics; nil: all may.
	Authorize func(*http.Request) bool
	// Streams says how the events of runs are served; nil: they are not.
	Streams *StreamConfig
	// MCP answers MCP clients, and sets the times that they may take; nil: nobody does.
	MCP http.Handler
}

// Times that a client may take, unless its handler sets others: requests have no body and answers are small.
const (
	readTimeout  = 10 * time.Second
	writeTimeout = 30 * time.Second
	idleTimeout  = 2 * time.Minute
	maxHeader    = 16 << 10
)

// Server serves the paths of the package.
type Server struct {
	address  string
	tls      *tls.Config
	http     *http.Server
	streams  *streams
	log      *slog.Logger
	listener net.Listener
	done     sync.WaitGroup
}

// New returns a server that is not listening yet.
func New(cfg Config, log *slog.Logger) *Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, []byte(`{"alive":true}`))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		readiness := cfg.Readiness()
		body, err := json.Marshal(readiness)
		if err != nil {
			http.Error(w, "readiness cannot be told", http.StatusInternalServerError)
			return
		}
		code := http.StatusOK
		if !readiness.Ready {
			code = http.StatusServiceUnavailable
		}
		writeJSON(w, code, body)
	})
	metrics := promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if cfg.Authorize != nil && !cfg.Authorize(r) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "a token is required", http.StatusUnauthorized)
			return
		}
		metrics.ServeHTTP(w, r)
	})
	if cfg.TLS != nil {
		// Over HTTP/1.1 a browser opens no more than six streams to one host.
		cfg.TLS = cfg.TLS.Clone()
		cfg.TLS.NextProtos = []string{"h2", "http/1.1"}
	}
	var runs *streams
	if cfg.Streams != nil {
		runs = newStreams(*cfg.Streams, func() bool { return cfg.Readiness().Serving }, log)
		mux.Handle("/v1/runs/{run_id}/events", runs)
	}
	if cfg.MCP != nil {
		mux.Handle("/mcp", cfg.MCP)
	}
	return &Server{
		address: cfg.Address,
		tls:     cfg.TLS,
		log:     log,
		streams: runs,
		http: &http.Server{
			Handler:           mux,
			ReadTimeout:       readTimeout,
			ReadHeaderTimeout: readTimeout,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeader,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		},
	}
}

// writeJSON answers with a JSON text. A client that went away is no one's concern.
func writeJSON(w http.ResponseWriter, code int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n'))
}

// Start listens, and returns once connections are taken.
func (s *Server) Start(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("the http address %s is in use by another process", s.address)
	}
	if err != nil {
		return fmt.Errorf("listen for http on %s: %w", s.address, err)
	}
	s.listener = listener
	served := listener
	if s.tls != nil {
		served = tls.NewListener(listener, s.tls)
	}
	s.done.Go(func() {
		if err := s.http.Serve(served); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("http server failed", "err", err)
		}
	})
	return nil
}

// Addr is the address listened on, or "" before Start.
func (s *Server) Addr() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Drain ends the streams, and every one that is still to come at once: browsers
// come again, and find the runtime that runs then. It is safe twice and before Start.
func (s *Server) Drain() {
	if s.streams != nil {
		s.streams.drain()
	}
}

// Stop answers the requests in flight as long as ctx allows, then closes. It may
// be called twice and before Start.
func (s *Server) Stop(ctx context.Context) error {
	s.Drain()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	s.done.Wait()
	return err
}
