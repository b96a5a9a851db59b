package graph

import (
	"context"
	"fmt"
	"sync"
)

// Memory keeps checkpoints for as long as the process lives. The zero value is ready.
type Memory struct {
	mu      sync.Mutex
	threads map[string]*Log
}

// Load implements Saver.
func (m *Memory) Load(_ context.Context, g *Graph, thread string) (*Checkpoint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.threads[thread].Latest(g)
}

// List implements Saver.
func (m *Memory) List(_ context.Context, g *Graph, thread string, before uint64, limit int) ([]*Checkpoint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.threads[thread].List(g, before, limit)
}

// Save implements Saver.
func (m *Memory) Save(_ context.Context, thread string, c *Checkpoint) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.threads[thread].Revision() != c.Revision {
		return ErrConflict
	}
	text, err := c.Pack()
	if err != nil {
		return fmt.Errorf("thread %s: %w", thread, err)
	}
	if m.threads == nil {
		m.threads = map[string]*Log{}
	}
	if m.threads[thread] == nil {
		m.threads[thread] = &Log{}
	}
	m.threads[thread].Add(text)
	c.Revision++
	return nil
}
