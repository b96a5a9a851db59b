package engine

import (
	"context"
	"sync"
)

// turns has those who are after the same thing go one after another. The zero
// value is ready.
type turns struct {
	mu    sync.Mutex
	taken map[string]chan struct{}
}

// enter waits for the key's turn, which ends with a call of leave.
func (t *turns) enter(ctx context.Context, key string) (leave func(), err error) {
	for {
		t.mu.Lock()
		before, busy := t.taken[key]
		if !busy {
			break
		}
		t.mu.Unlock()
		select {
		case <-before:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	defer t.mu.Unlock()
	if t.taken == nil {
		t.taken = map[string]chan struct{}{}
	}
	over := make(chan struct{})
	t.taken[key] = over
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.taken, key)
		close(over)
	}, nil
}
