package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
)

// runSaver keeps the checkpoints of the graphs of one run as recorded steps of the run,
// so that the run's own lease keeps others out, and a later attempt goes on with them. It
// implements graph.Saver.
//
// A state is written as a whole when what was written since it last was comes to as many
// bytes; between these, what the steps wrote.
type runSaver struct {
	record func(ctx context.Context, key string, result []byte) error
	// commit is called behind each record; nil: they become durable by themselves, soon.
	commit func(ctx context.Context) error

	mu      sync.Mutex
	threads map[string]*savedThread
}

// savedThread is a thread's checkpoints from the last whole one on.
type savedThread struct {
	revision uint64
	whole    []byte
	deltas   [][]byte
	// written is how many bytes the deltas have.
	written int
}

// What is recorded is called by its kind, its thread and its number there.
const (
	wholeKind = "checkpoint"
	deltaKind = "checkpoint delta"
)

// newRunSaver takes up what earlier calls with the run recorded.
func newRunSaver(call engine.Call) *runSaver {
	s := &runSaver{record: call.Record, threads: map[string]*savedThread{}}
	for _, step := range call.Steps {
		kind, name, _ := strings.Cut(step.Key, ": ")
		thread, _, numbered := strings.Cut(name, "#")
		if numbered && (kind == wholeKind || kind == deltaKind) {
			s.thread(thread).take(kind, step.Result)
		}
	}
	return s
}

func (s *runSaver) thread(name string) *savedThread {
	t := s.threads[name]
	if t == nil {
		t = &savedThread{}
		s.threads[name] = t
	}
	return t
}

func (t *savedThread) take(kind string, text []byte) {
	t.revision++
	if kind == wholeKind {
		t.whole, t.deltas, t.written = text, nil, 0
		return
	}
	t.deltas = append(t.deltas, text)
	t.written += len(text)
}

// Load implements graph.Saver.
func (s *runSaver) Load(_ context.Context, g *graph.Graph, name string) (*graph.Checkpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.threads[name]
	if t == nil {
		return nil, nil
	}
	latest, err := graph.DecodeCheckpoint(t.whole, t.revision)
	if err != nil {
		return nil, err
	}
	state := latest.State
	for _, text := range t.deltas {
		if latest, err = graph.DecodeCheckpoint(text, t.revision); err != nil {
			return nil, err
		}
		if state, err = g.Replay(state, latest.Folded); err != nil {
			return nil, fmt.Errorf("replay thread %s: %w", name, err)
		}
		latest.State = state
	}
	return latest, nil
}

// Save implements graph.Saver.
func (s *runSaver) Save(ctx context.Context, name string, c *graph.Checkpoint) error {
	kind, text, err := s.write(name, c)
	if err != nil {
		return err
	}
	key := kind + ": " + name + "#" + strconv.FormatUint(c.Revision, 10)
	if err := s.record(ctx, key, text); err != nil {
		return err
	}
	if s.commit == nil {
		return nil
	}
	return s.commit(ctx)
}

// write makes a checkpoint a thread's latest.
func (s *runSaver) write(name string, c *graph.Checkpoint) (kind string, text []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.thread(name)
	if t.revision != c.Revision {
		return "", nil, graph.ErrConflict
	}
	kind, written := wholeKind, *c
	if t.whole != nil && t.written < len(t.whole) {
		kind, written.State = deltaKind, nil
	} else {
		written.Folded = nil
	}
	if text, err = json.Marshal(&written); err != nil {
		return "", nil, fmt.Errorf("encode checkpoint of thread %s: %w", name, err)
	}
	t.take(kind, text)
	c.Revision = t.revision
	return kind, text, nil
}
