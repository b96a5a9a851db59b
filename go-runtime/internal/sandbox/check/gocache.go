package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/sandbox"
)

// goCache is the standard library as the go command compiled it, in a folder
// that commands may read: only the runtime fills it, so that no command can put
// something there for the next.
type goCache struct {
	dir, tool string
	// filling is held by who looks whether it is full, and fills it.
	filling chan struct{}
}

func newGoCache(dir, tool string) *goCache {
	return &goCache{dir: dir, tool: tool, filling: make(chan struct{}, 1)}
}

const (
	// goCachePlace is where commands find the cache.
	goCachePlace = "/go-cache"
	// fillTime bounds the compilation of the standard library.
	fillTime = 15 * time.Minute
	// fullFor is the file that says of which Go the cache is full.
	fullFor = "full-for"
)

// goEnvironment is what the go command gets wherever it runs: what it compiles is
// found again only if nothing of this differs.
func goEnvironment() []string {
	return []string{
		"GOPROXY=off", "GOSUMDB=off", "GOFLAGS=-mod=mod", "GOTOOLCHAIN=local", "GOTELEMETRY=off", "GOENV=off", "CGO_ENABLED=0",
	}
}

// mount returns the cache for a command, after it was filled, which takes some
// minutes and is done once for each version of Go. Others wait meanwhile.
func (c *goCache) mount(ctx context.Context) (sandbox.Mount, error) {
	select {
	case c.filling <- struct{}{}:
		defer func() { <-c.filling }()
	case <-ctx.Done():
		return sandbox.Mount{}, context.Cause(ctx)
	}
	if err := c.fill(ctx); err != nil {
		return sandbox.Mount{}, fmt.Errorf("compile the standard library of Go: %w", err)
	}
	return sandbox.Mount{From: c.dir, At: goCachePlace}, nil
}

func (c *goCache) fill(ctx context.Context) error {
	version, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(c.tool)), "VERSION"))
	if err != nil {
		return err
	}
	marker := filepath.Join(c.dir, fullFor)
	if full, err := os.ReadFile(marker); err == nil && bytes.Equal(full, version) {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, fillTime, errors.New("it takes too long"))
	defer cancel()
	cmd := exec.CommandContext(ctx, c.tool, "build", "std") //nolint:gosec // what the operator has in PATH is trusted
	cmd.Env = append(goEnvironment(), "PATH=/usr/bin:/bin", "HOME=/nonexistent", "GOPATH=/nonexistent", "GOCACHE="+c.dir)
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second
	if said, err := cmd.CombinedOutput(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("%w: %s", err, firstLine(said))
	}
	if err := readableToAll(c.dir); err != nil {
		return err
	}
	return os.WriteFile(marker, version, 0o600) //nolint:gosec // the folder is the runtime's own
}

// readableToAll lets the user that commands run as read the cache, whatever the
// umask is. The folder that it is in keeps others out.
func readableToAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return os.Chmod(path, 0o755) //nolint:gosec // see above
		default:
			return os.Chmod(path, 0o644) //nolint:gosec // see above
		}
	})
}
