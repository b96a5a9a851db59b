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

// enter waits until the turns of all keys are free and takes them at once; they
// end with a call of leave.
func (t *turns) enter(ctx context.Context, keys ...string) (leave func(), err error) {
	for {
		t.mu.Lock()
		before := t.busy(keys)
		if before == nil {
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
	for _, key := range keys {
		t.taken[key] = over
	}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, key := range keys {
			delete(t.taken, key)
		}
		close(over)
	}, nil
}

// busy returns what ends with the turn of one of the keys, nil when all are free.
func (t *turns) busy(keys []string) <-chan struct{} {
	for _, key := range keys {
		if over := t.taken[key]; over != nil {
			return over
		}
	}
	return nil
}
