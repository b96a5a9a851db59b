package agent

import (
	"context"
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
type runSaver struct {
	record func(ctx context.Context, key string, result []byte) error
	// commit is called behind each record; nil: they become durable by themselves, soon.
	commit func(ctx context.Context) error

	mu      sync.Mutex
	threads map[string]*graph.Log
}

// checkpointKind is what the keys of the records begin with; the thread follows, and the
// checkpoint's number there.
const checkpointKind = "checkpoint: "

// newRunSaver takes up what earlier calls with the run recorded.
func newRunSaver(call engine.Call) *runSaver {
	s := &runSaver{record: call.Record, threads: map[string]*graph.Log{}}
	for _, step := range call.Steps {
		name, isCheckpoint := strings.CutPrefix(step.Key, checkpointKind)
		if thread, _, numbered := strings.Cut(name, "#"); isCheckpoint && numbered {
			s.thread(thread).Add(step.Result)
		}
	}
	return s
}

func (s *runSaver) thread(name string) *graph.Log {
	log := s.threads[name]
	if log == nil {
		log = &graph.Log{}
		s.threads[name] = log
	}
	return log
}

// Load implements graph.Saver.
func (s *runSaver) Load(_ context.Context, g *graph.Graph, thread string) (*graph.Checkpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.threads[thread].Latest(g)
}

// List implements graph.Saver.
func (s *runSaver) List(
	_ context.Context, g *graph.Graph, thread string, before uint64, limit int,
) ([]*graph.Checkpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.threads[thread].List(g, before, limit)
}

// Save implements graph.Saver.
func (s *runSaver) Save(ctx context.Context, thread string, c *graph.Checkpoint) error {
	text, err := s.add(thread, c)
	if err != nil {
		return err
	}
	key := checkpointKind + thread + "#" + strconv.FormatUint(c.Revision, 10)
	if err := s.record(ctx, key, text); err != nil {
		return err
	}
	if s.commit == nil {
		return nil
	}
	return s.commit(ctx)
}

// add makes a checkpoint a thread's latest.
func (s *runSaver) add(thread string, c *graph.Checkpoint) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.thread(thread)
	if log.Revision() != c.Revision {
		return nil, graph.ErrConflict
	}
	text, err := c.Pack()
	if err != nil {
		return nil, fmt.Errorf("thread %s: %w", thread, err)
	}
	log.Add(text)
	c.Revision = log.Revision()
	return text, nil
}
