package agent

import (
	"io/fs"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/model"
)

// overlay is the catalog with files in place of its own, or besides.
type overlay struct {
	fs.FS

	files fstest.MapFS
}

func (o overlay) Open(name string) (fs.File, error) {
	if _, found := o.files[name]; found {
		return o.files.Open(name)
	}
	return o.FS.Open(name)
}

// loadWithDefaults loads an agent of the catalog with a file of defaults.
func loadWithDefaults(t *testing.T, text string) (*agent, error) {
	t.Helper()
	provider, err := model.New(model.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	files, err := fs.Sub(catalogFiles, "catalog")
	if err != nil {
		t.Fatal(err)
	}
	added := fstest.MapFS{"codegen_agent/defaults.yaml": {Data: []byte(text)}}
	return catalogLoader{overlay{files, added}, &Registry{provider: provider}}.agent("codegen_agent")
}

func TestAgentsSayWhatHoldsForTheirRuns(t *testing.T) {
	t.Parallel()
	loaded, err := loadWithDefaults(t, "run_timeout: 1m30s\nretry:\n  max_attempts: 5\n  initial_backoff: 1s\n  max_backoff: 10s\n  multiplier: 1.5\n")
	if err != nil {
		t.Fatal(err)
	}
	want := engine.RunDefaults{
		RunTimeout: 90 * time.Second,
		Retry:      &engine.RetryPolicy{MaxAttempts: 5, InitialBackoff: time.Second, MaxBackoff: 10 * time.Second, Multiplier: 1.5},
	}
	remote := engine.RunDefaults{Retry: &engine.RetryPolicy{MaxAttempts: 2}}
	registry := newRegistry(t)
	registry.agents["codegen_agent"] = loaded
	registry.endpoints = map[string]*endpoint{"support": newEndpoint("support", Endpoint{RunDefaults: remote})}
	for name, tc := range map[string]struct {
		target  engine.Target
		agentID string
		want    engine.RunDefaults
	}{
		"of the catalog": {engine.AgentTarget, "codegen_agent", want},
		"says nothing":   {engine.AgentTarget, "frontend_agent", engine.RunDefaults{}},
		"behind HTTP":    {engine.AgentTarget, "support", remote},
		"of a worker":    {engine.WorkerTarget, "support", engine.RunDefaults{}},
		"a task's label": {engine.TaskTarget, "support", engine.RunDefaults{}},
		"nobody's":       {engine.AgentTarget, "nobody", engine.RunDefaults{}},
	} {
		if got := registry.Defaults("default", tc.target, tc.agentID); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}

func TestDefaultsThatDoNotFit(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"retry: {max_attempts: 101}": "codegen_agent/defaults.yaml.retry.max_attempts: must be 1 to 100",
		"run_timeout: -1s":           "codegen_agent/defaults.yaml.run_timeout: must be positive",
		"run_timeout: 30":            "parse codegen_agent/defaults.yaml",
		"timeout: 30s":               "parse codegen_agent/defaults.yaml",
	} {
		if _, err := loadWithDefaults(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if loaded, err := loadWithDefaults(t, "# nothing yet"); err != nil || loaded.defaults != (engine.RunDefaults{}) {
		t.Errorf("%+v, %v", loaded.defaults, err)
	}
	provider, err := model.New(model.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	_, err = New(Config{Provider: provider, Endpoints: map[string]Endpoint{"support": {RunDefaults: engine.RunDefaults{Retry: &engine.RetryPolicy{Multiplier: -1}}}}})
	if err == nil || !strings.Contains(err.Error(), "support.retry.multiplier") {
		t.Errorf("err = %v", err)
	}
}
