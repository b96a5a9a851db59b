package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
)

// pins are the versions of documents that a run uses: of each name the one that was current
// when the run first used it, also where several nodes do at the same time.
type pins struct {
	call engine.Call

	mu sync.Mutex
	// versions are those that this call with the run has looked up, by the keys of their steps.
	versions map[string]string
}

func newPins(call engine.Call) *pins { return &pins{call: call, versions: map[string]string{}} }

type pinsKey struct{}

// in has the nodes of a graph find the pins of their run, see pinsOf.
func (p *pins) in(ctx context.Context) context.Context { return context.WithValue(ctx, pinsKey{}, p) }

// pinsOf are those of the run that ctx is of.
func pinsOf(ctx context.Context) *pins {
	p, _ := ctx.Value(pinsKey{}).(*pins)
	return p
}

// pinned is what a step records of a name.
type pinned struct {
	Version string `json:"version"`
}

// version returns the one that the run has of a name; empty: none yet. The caller holds the lock.
func (p *pins) version(key string) (string, error) {
	if version, known := p.versions[key]; known {
		return version, nil
	}
	at := slices.IndexFunc(p.call.Steps, func(step engine.Step) bool { return step.Key == key })
	if at < 0 {
		return "", nil
	}
	var recorded pinned
	if err := json.Unmarshal(p.call.Steps[at].Result, &recorded); err != nil {
		return "", fmt.Errorf("read version of %s: %w", key, err)
	}
	p.versions[key] = recorded.Version
	return recorded.Version, nil
}

// set notes the version that the run has of a name, for later calls with it too. The caller holds the lock.
func (p *pins) set(ctx context.Context, key, version string) error {
	text, err := encode(pinned{version})
	if err != nil {
		return err
	}
	p.versions[key] = version
	return p.call.Record(ctx, key, text)
}

// pinKey is the key of the step that records which version a run has of a name.
func (c *compiled[T]) pinKey(name string) string { return string(c.kind) + ": " + name }

// pin returns the document that a run uses under a name.
func (c *compiled[T]) pin(ctx context.Context, p *pins, name string) (is T, err error) {
	key := c.pinKey(name)
	p.mu.Lock()
	defer p.mu.Unlock()
	version, err := p.version(key)
	if err != nil {
		return is, err
	}
	found, err := c.get(ctx, p.call.Namespace, name, version)
	if err != nil {
		return is, err
	}
	if version != "" {
		return found.is, nil
	}
	return found.is, p.set(ctx, key, found.name)
}
