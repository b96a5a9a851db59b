package workspace

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// saveHelper makes the test binary a process that saves a workspace and says so.
const saveHelper = "TEST_WORKSPACE_SAVES"

func TestMain(m *testing.M) {
	if dir := os.Getenv(saveHelper); dir != "" {
		saveAndTell(dir)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m,
		// Process-wide clocks of the NATS server and client, without an end.
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.init.0.func1"),
	)
}

// saveAndTell saves rounds of files until it is killed, and writes a line when
// each is kept.
func saveAndTell(dir string) {
	ctx := context.Background()
	j, err := journal.New(journal.Config{DataDir: dir}, slog.New(slog.DiscardHandler))
	if err != nil || j.Start(ctx) != nil {
		return
	}
	s, err := New(Config{Dir: filepath.Join(dir, "workspaces")}, j, nil, slog.New(slog.DiscardHandler))
	if err != nil || s.Start(ctx) != nil {
		return
	}
	w, err := s.Open(ctx, "default", runID)
	if err != nil {
		return
	}
	for round := 1; ; round++ {
		for i := range 20 {
			if err := w.Write(fmt.Sprintf("src/%d.txt", i), roundText(round, i)); err != nil {
				return
			}
		}
		if err := w.Save(ctx); err != nil {
			return
		}
		fmt.Println("saved", round) //nolint:forbidigo // it tells its parent
	}
}

// roundText differs for even files from round to round.
func roundText(round, i int) []byte {
	if i%2 == 1 {
		round = 1
	}
	return []byte(strings.Repeat(fmt.Sprintf("file %d of round %d\n", i, round), 500))
}

const runID = "6a0cf2a4-1111-4222-8333-944444444444"

// fixture is a store on a journal of its own.
type fixture struct {
	*Store

	dir  string
	stop func()
}

func start(t *testing.T, dir string, change func(*Config, *journal.Config), runs Runs) *fixture {
	t.Helper()
	cfg := Config{Dir: filepath.Join(dir, "workspaces")}
	journalCfg := journal.Config{DataDir: dir, Durability: journal.OS}
	if change != nil {
		change(&cfg, &journalCfg)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	j, err := journal.New(journalCfg, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg, j, runs, log)
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if err := j.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	if err := s.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return &fixture{s, dir, stop}
}

func (f *fixture) workspace(t *testing.T) *Workspace {
	t.Helper()
	w, err := f.Open(t.Context(), "default", runID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func write(t *testing.T, w *Workspace, name, text string) {
	t.Helper()
	if err := w.Write(name, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func save(t *testing.T, w *Workspace) {
	t.Helper()
	if err := w.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// paths are those of files, with spaces between.
func paths(files []File) string {
	names := make([]string, len(files))
	for i, file := range files {
		names[i] = file.Path
	}
	return strings.Join(names, " ")
}

// saved returns the content of a saved file.
func (f *fixture) saved(t *testing.T, name string) string {
	t.Helper()
	_, content, err := f.Get(t.Context(), "default", runID, name)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(content)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
