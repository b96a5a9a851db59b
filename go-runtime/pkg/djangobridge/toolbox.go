package djangobridge

import (
	"context"
	"errors"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/djangobridge/djangobridge/go-runtime/internal/config"
	"github.com/djangobridge/djangobridge/go-runtime/internal/mcp"
	"github.com/djangobridge/djangobridge/go-runtime/internal/telemetry"
	"github.com/djangobridge/djangobridge/go-runtime/internal/tool"
)

// toolbox is what agents do things with beside their models.
type toolbox struct {
	runner  *tool.Runner
	web     *tool.Web
	servers *mcp.Servers
}

func newToolbox(
	cfg config.Config, version string, getenv func(string) string, tracing *telemetry.Tracing, log *slog.Logger,
) (*toolbox, error) {
	web, err := tool.NewWeb(tool.WebConfig{
		Prefixes: cfg.HTTPTools, Secrets: cfg.ToolSecrets, Getenv: getenv, Propagator: tracing.Propagator(),
	})
	if err != nil {
		return nil, err
	}
	var servers mcp.Config
	if cfg.MCPServers != "" {
		if servers, err = mcp.Load(cfg.MCPServers, getenv); err != nil {
			return nil, err
		}
	}
	return &toolbox{
		runner: tool.NewRunner(tool.Config{}, log),
		web:    web,
		servers: mcp.NewServers(servers, mcp.Options{
			Version: version, Getenv: getenv, Propagator: tracing.Propagator(),
		}, log),
	}, nil
}

// figure shows the calls of tools that go on after their time.
func (b *toolbox) figure() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: metricNamespace, Name: "late_tool_calls", Help: "Calls of tools that go on although their time is over.",
	}, func() float64 { return float64(b.runner.Late()) })
}

// stop ends the servers, and what calls left behind.
func (b *toolbox) stop(ctx context.Context) error {
	err := b.servers.Stop(ctx)
	b.web.Stop()
	return errors.Join(err, b.runner.Stop(ctx))
}
