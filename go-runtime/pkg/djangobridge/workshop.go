package djangobridge

import (
	"context"
	"path/filepath"

	"github.com/djangobridge/djangobridge/go-runtime/internal/config"
	"github.com/djangobridge/djangobridge/go-runtime/internal/sandbox"
	"github.com/djangobridge/djangobridge/go-runtime/internal/sandbox/check"
	"github.com/djangobridge/djangobridge/go-runtime/internal/workspace"
)

// workshop is where agents build: the folders of runs, the programs of the machine that
// check what is in them, and the sandbox that shows those to commands.
type workshop struct {
	*workspace.Store

	cfg      config.Config
	getenv   func(string) string
	programs *check.Programs
	sandbox  *sandbox.Sandbox
}

func newWorkshop(cfg config.Config, files *workspace.Store, getenv func(string) string) *workshop {
	return &workshop{Store: files, cfg: cfg, getenv: getenv, programs: &check.Programs{}}
}

// start looks for the programs, and tries whether commands can be isolated. A
// *sandbox.UnavailableError says that they cannot although they must.
func (w *workshop) start(ctx context.Context) (err error) {
	cfg := sandbox.Config{Mode: sandbox.Mode(w.cfg.Sandbox), Launcher: w.cfg.SandboxLauncher}
	if cfg.Mode != sandbox.Off && len(cfg.Launcher) > 0 {
		w.programs = check.Find(ctx, check.Config{
			Path: w.getenv("PATH"), Launcher: cfg.Launcher, CacheDir: filepath.Join(w.cfg.DataDir, "go-build"),
		})
		cfg.ReadOnly = w.programs.ReadOnly()
		if cfg.Hidden, err = w.hidden(); err != nil {
			return err
		}
	}
	if w.sandbox, err = sandbox.New(cfg); err != nil {
		return err
	}
	return w.sandbox.Start(ctx)
}

// hidden are the files of the runtime itself, wherever they are.
func (w *workshop) hidden() (paths []string, err error) {
	for _, path := range []string{w.cfg.DataDir, w.cfg.TokensFile, w.cfg.TLSKey, w.cfg.Socket} {
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
func (w *workshop) String() string { return w.sandbox.Capabilities().String() }

// Check runs the checks that fit the files.
func (w *workshop) Check(ctx context.Context, files *workspace.Workspace) ([]check.Result, error) {
	return check.Run(ctx, w.programs, w.sandbox, files)
}
