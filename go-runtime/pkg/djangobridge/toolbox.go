package djangobridge

import (
	"context"
	"path/filepath"

	"github.com/djangobridge/djangobridge/go-runtime/internal/config"
	"github.com/djangobridge/djangobridge/go-runtime/internal/sandbox"
	"github.com/djangobridge/djangobridge/go-runtime/internal/sandbox/check"
)

// toolbox is what agents run commands with: the programs of the machine, and
// the sandbox that shows them to commands.
type toolbox struct {
	cfg      config.Config
	getenv   func(string) string
	programs *check.Programs
	sandbox  *sandbox.Sandbox
}

func newToolbox(cfg config.Config, getenv func(string) string) *toolbox {
	return &toolbox{cfg: cfg, getenv: getenv, programs: &check.Programs{}}
}

// start looks for the programs, and tries whether commands can be isolated. A
// *sandbox.UnavailableError says that they cannot although they must.
func (t *toolbox) start(ctx context.Context) (err error) {
	cfg := sandbox.Config{Mode: sandbox.Mode(t.cfg.Sandbox), Launcher: t.cfg.SandboxLauncher}
	if cfg.Mode != sandbox.Off && len(cfg.Launcher) > 0 {
		t.programs = check.Find(ctx, t.getenv("PATH"))
		cfg.ReadOnly = t.programs.ReadOnly()
		if cfg.Hidden, err = t.hidden(); err != nil {
			return err
		}
	}
	if t.sandbox, err = sandbox.New(cfg); err != nil {
		return err
	}
	return t.sandbox.Start(ctx)
}

// hidden are the files of the runtime itself, wherever they are.
func (t *toolbox) hidden() (paths []string, err error) {
	for _, path := range []string{t.cfg.DataDir, t.cfg.TokensFile, t.cfg.TLSKey, t.cfg.Socket} {
		if path == "" {
			continue
		}
		absolute, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		if absolute != "/" {
			paths = append(paths, absolute)
		}
	}
	return paths, nil
}

// String says what isolates commands.
func (t *toolbox) String() string { return t.sandbox.Capabilities().String() }
