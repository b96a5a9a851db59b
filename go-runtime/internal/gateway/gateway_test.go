package gateway_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/djangobridge/djangobridge/go-runtime/internal/gateway"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, cfg gateway.Config) *gateway.Server {
	t.Helper()
	cfg.Address, cfg.Metrics = "127.0.0.1:0", prometheus.NewRegistry()
	server := gateway.New(cfg, slog.New(slog.DiscardHandler))
	if server.Addr() != "" {
		t.Error("there is an address before Start")
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		for range 2 {
			if err := server.Stop(ctx); err != nil {
				t.Error(err)
			}
		}
	})
	return server
}

func request(t *testing.T, server *gateway.Server, method, path string) (code int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+server.Addr()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func TestPaths(t *testing.T) {
	t.Parallel()
	ready := start(t, gateway.Config{Readiness: func() gateway.Readiness {
		return gateway.Readiness{Ready: true, Serving: true, Reasons: []string{}, Warnings: []string{"look at the disk"}}
	}})
	starting := start(t, gateway.Config{
		Readiness: func() gateway.Readiness {
			return gateway.Readiness{Reasons: []string{"the runtime is starting"}, Warnings: []string{}}
		},
		Authorize: func(*http.Request) bool { return false },
	})
	tests := map[string]struct {
		server       *gateway.Server
		method, path string
		code         int
		body         string
	}{
		"alive":           {starting, http.MethodGet, "/healthz", http.StatusOK, `{"alive":true}`},
		"ready":           {ready, http.MethodGet, "/readyz", http.StatusOK, `{"ready":true,"serving":true,"reasons":[],"warnings":["look at the disk"]}`},
		"not ready":       {starting, http.MethodGet, "/readyz", http.StatusServiceUnavailable, `{"ready":false,"serving":false,"reasons":["the runtime is starting"],"warnings":[]}`},
		"metrics":         {ready, http.MethodGet, "/metrics", http.StatusOK, ""},
		"refused metrics": {starting, http.MethodGet, "/metrics", http.StatusUnauthorized, "a token is required"},
		"write":           {ready, http.MethodPost, "/readyz", http.StatusMethodNotAllowed, "Method Not Allowed"},
		"elsewhere":       {ready, http.MethodGet, "/debug/pprof/", http.StatusNotFound, "404 page not found"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, body := request(t, test.server, test.method, test.path)
			if code != test.code || strings.TrimSpace(body) != test.body {
				t.Errorf("%s = %d %q, want %d %q", test.path, code, body, test.code, test.body)
			}
		})
	}
}

func TestStartNamesATakenAddress(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	server := gateway.New(gateway.Config{Address: taken.Addr().String(), Metrics: prometheus.NewRegistry()}, slog.New(slog.DiscardHandler))
	if err := server.Start(t.Context()); err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("err = %v", err)
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}
