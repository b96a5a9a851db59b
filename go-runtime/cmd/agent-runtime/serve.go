package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/djangobridge/djangobridge/go-runtime/internal/config"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/pkg/djangobridge"
)

const serveUsage = `Usage: agent-runtime serve [flags]

Takes calls until SIGTERM or SIGINT, then drains: calls and runs in flight have
--drain-timeout to end; a second signal ends at once. SIGHUP reads the tokens
file and the folder of definitions again. Exit code: 0 after a stop, 1 when it failed, 2 when the
configuration has mistakes.

A flag goes before its environment variable, that before the configuration
file, that before the default. OPENAI_API_KEY, ANTHROPIC_API_KEY and
GEMINI_API_KEY give the keys of the models' providers, or the same with _FILE
name files that hold them; the OTEL_* variables of OpenTelemetry turn on
tracing.

Flags:
`

func serve(ctx context.Context, args []string, getenv func(string) string, to streams) int {
	cfg, code, done := configure("serve", serveUsage, args, getenv, to)
	if done {
		return code
	}
	cfg.SandboxLauncher = []string{launcherCommand}
	log := newLogger(cfg, to.err)

	// Signals are taken before anything is opened, so that none is missed.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)

	runtime, err := djangobridge.New(cfg, version, getenv, log) //nolint:contextcheck // it opens nothing yet
	if err != nil {
		return fail(to, err)
	}
	startCtx, cancelStart := context.WithCancel(ctx)
	defer cancelStart()
	started := make(chan error, 1)
	go func() { started <- runtime.Start(startCtx) }()
	for {
		select {
		case err := <-started:
			if err != nil {
				return fail(to, err)
			}
			started = nil
		case <-runtime.Failed():
			return fail(to, errors.Join(runtime.Err(), drain(ctx, cfg, runtime, signals)))
		case <-ctx.Done():
			return finish(to, drain(ctx, cfg, runtime, signals))
		case s := <-signals:
			if s == syscall.SIGHUP {
				reload(ctx, runtime, log)
				continue
			}
			if started != nil {
				cancelStart()
				return fail(to, errors.Join(errors.New("stopped while starting"), <-started))
			}
			log.Info("runtime drains", "signal", s.String(), "drain_timeout", cfg.DrainTimeout.String())
			return finish(to, drain(ctx, cfg, runtime, signals))
		}
	}
}

// drain stops the runtime within the time to drain. On a further signal it does
// not wait for that: what was accepted is in the store.
func drain(ctx context.Context, cfg config.Config, runtime *djangobridge.Integration, signals <-chan os.Signal) error {
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.DrainTimeout)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- runtime.Stop(stopCtx) }()
	for {
		select {
		case err := <-stopped:
			return err
		case s := <-signals:
			if s != syscall.SIGHUP {
				return fmt.Errorf("ended at once by a second signal (%s)", s)
			}
		}
	}
}

func reload(ctx context.Context, runtime *djangobridge.Integration, log *slog.Logger) {
	if err := runtime.Reload(ctx); err != nil {
		log.Error("files not read again", "err", err)
		return
	}
	log.Info("files read again")
}

func finish(to streams, err error) int {
	if err != nil {
		return fail(to, err)
	}
	return exitOK
}

// fail says why the command failed, in one sentence where the cause is known.
func fail(to streams, err error) int {
	if locked, found := errors.AsType[*journal.LockedError](err); found {
		err = locked
	}
	to.complainf("agent-runtime: %v\n", err)
	return exitFailed
}

func newLogger(cfg config.Config, to io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "text" || (cfg.LogFormat == "auto" && isTerminal(to)) {
		return slog.New(slog.NewTextHandler(to, options))
	}
	return slog.New(slog.NewJSONHandler(to, options))
}

func isTerminal(to io.Writer) bool {
	file, isFile := to.(*os.File)
	if !isFile {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
