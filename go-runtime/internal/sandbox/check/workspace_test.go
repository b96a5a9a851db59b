package check

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/workspace"
)

// openWorkspace opens the workspace of a run on a journal of its own.
func openWorkspace(t *testing.T) *workspace.Workspace {
	t.Helper()
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	j, err := journal.New(journal.Config{DataDir: dir, Durability: journal.OS}, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	store, err := workspace.New(workspace.Config{Dir: filepath.Join(dir, "workspaces")}, j, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := store.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	w, err := store.Open(t.Context(), "default", "run")
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
