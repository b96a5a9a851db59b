package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/spf13/pflag"

	"github.com/djangobridge/djangobridge/go-runtime/internal/config"
	checks "github.com/djangobridge/djangobridge/go-runtime/internal/sandbox/check"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// launcherCommand makes this program the launcher of a sandbox; the runtime
// calls it, people do not.
const launcherCommand = "sandbox-exec"

const usage = `agent-runtime runs the agents, tasks, shared state and events of a Django project.

Usage: agent-runtime COMMAND [flags]

Commands:
  serve    take calls until told to stop (SIGTERM, SIGINT)
  check    say every mistake in the configuration, or show it
  token    make access tokens
  damage   show or acknowledge what a damaged disk lost
  version  say which version this is
  help     show this

agent-runtime COMMAND --help says more about each.
`

// streams are where a command writes. A reader that went away is its own affair.
type streams struct{ out, err io.Writer }

// sayf writes what was asked for.
func (s streams) sayf(format string, values ...any) { _, _ = fmt.Fprintf(s.out, format, values...) }

// complainf writes what went wrong, and what is for people alone.
func (s streams) complainf(format string, values ...any) {
	_, _ = fmt.Fprintf(s.err, format, values...)
}

// run executes one command and returns the exit code of the process: 0, 1 when
// it failed, 2 when it was called or configured wrongly.
func run(
	ctx context.Context, args []string, getenv func(string) string, environ []string, stdout, stderr io.Writer,
) int {
	to := streams{stdout, stderr}
	if len(args) == 0 {
		to.complainf("%s", usage)
		return exitUsage
	}
	if args[0] == "serve" || args[0] == "check" {
		for _, name := range config.UnknownVariables(environ) {
			to.complainf("agent-runtime: %s is in the environment and is no setting\n", name)
		}
	}
	switch args[0] {
	case "serve":
		return serve(ctx, args[1:], getenv, to)
	case "check":
		return check(args[1:], getenv, to)
	case "token":
		return tokens(args[1:], to)
	case "damage":
		return damage(args[1:], getenv, to)
	case launcherCommand:
		return checks.Launch(args[1:], to.out, to.err)
	case "version":
		to.sayf("agent-runtime %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return exitOK
	case "help", "-h", "--help":
		to.sayf("%s", usage)
		return exitOK
	default:
		to.complainf("agent-runtime: there is no command %q\n\n%s", args[0], usage)
		return exitUsage
	}
}

const checkUsage = `Usage: agent-runtime check [flags]

Reads the configuration as serve does and says every mistake in it at once,
with where each came from; also whether certificates pair, the tokens file
parses and folders can be written. Without a mistake it shows the settings in
effect, secrets left out. Exit code: 0, or 2 when there are mistakes.

Flags:
`

func check(args []string, getenv func(string) string, to streams) int {
	cfg, code, done := configure("check", checkUsage, args, getenv, to)
	if done {
		return code
	}
	if _, err := cfg.WriteTo(to.out); err != nil {
		return exitFailed
	}
	return exitOK
}

// configure reads the configuration of a command. With done, the command is
// over, with this exit code: help was asked for, or there are mistakes.
func configure(command, help string, args []string, getenv func(string) string, to streams) (cfg config.Config, code int, done bool) {
	flags := config.Flags(command)
	if code, done := parse(flags, help, args, to); done {
		return config.Config{}, code, true
	}
	cfg, err := config.Load(flags, getenv)
	if err == nil {
		return cfg, exitOK, false
	}
	to.complainf("agent-runtime: the configuration has mistakes:\n")
	for line := range strings.SplitSeq(err.Error(), "\n") {
		to.complainf("  %s\n", line)
	}
	return config.Config{}, exitUsage, true
}

// parse reads flags, which stand alone. With done, the command is over.
func parse(flags *pflag.FlagSet, help string, args []string, to streams) (code int, done bool) {
	flags.Usage = func() {}
	err := flags.Parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		to.sayf("%s%s", help, flags.FlagUsages())
		return exitOK, true
	}
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err != nil {
		to.complainf("agent-runtime %s: %v; see agent-runtime %s --help\n", flags.Name(), err, flags.Name())
		return exitUsage, true
	}
	return exitOK, false
}
