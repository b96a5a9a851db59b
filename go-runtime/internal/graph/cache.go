package graph

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/recent"
)

// CachePolicy says what a node's result depends on, and for how long it holds.
type CachePolicy struct {
	// Key names what the result depends on, of what the node reads; nil: all of it.
	Key func(context.Context, State) (string, error)
	// TTL is for how long the result holds; 0: for as long as the cache keeps it.
	TTL time.Duration
}

// Cache keeps what nodes came to. One that fails is a cache that has nothing: it is its
// own to say so. It is safe for concurrent use.
type Cache interface {
	Get(ctx context.Context, key string) (value []byte, found bool)
	// Set keeps a value; a ttl of 0 has no end.
	Set(ctx context.Context, key string, value []byte, ttl time.Duration)
}

// cacheKey is what a node's result is kept under; empty: it is not kept.
func (r *run) cacheKey(ctx context.Context, task Task, node *Node, state State) (string, error) {
	if node.Cache == nil || r.options.Cache == nil {
		return "", nil
	}
	var depends string
	if node.Cache.Key != nil {
		var err error
		if depends, err = node.Cache.Key(ctx, state); err != nil {
			return "", fmt.Errorf("key of its cache: %w", err)
		}
	} else {
		text, err := json.Marshal(state)
		if err != nil {
			return "", fmt.Errorf("key of its cache: %w", err)
		}
		depends = string(text)
	}
	sum := sha256.Sum256([]byte(r.graph.name + "\x00" + task.Node + "\x00" + depends))
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// recall returns what a node came to before.
func (r *run) recall(ctx context.Context, key string) (command Command, found bool) {
	if key == "" {
		return Command{}, false
	}
	text, found := r.options.Cache.Get(ctx, key)
	if !found {
		return Command{}, false
	}
	kept := &Command{}
	if json.Unmarshal(text, kept) != nil {
		return Command{}, false
	}
	restoreOverwrites(kept.Update)
	return *kept, true
}

// remember keeps what a node came to.
func (r *run) remember(ctx context.Context, key string, command Command, ttl time.Duration) error {
	if key == "" {
		return nil
	}
	text, err := json.Marshal(command)
	if err != nil {
		return fmt.Errorf("encode for its cache: %w", err)
	}
	r.options.Cache.Set(ctx, key, text, ttl)
	return nil
}

// MemoryCache is a Cache of the process, which forgets what was used least recently.
type MemoryCache struct {
	values *recent.Cache[string, cached]
}

type cached struct {
	value   []byte
	expires time.Time
}

// NewMemoryCache returns a cache of about so many bytes.
func NewMemoryCache(bytes int) *MemoryCache {
	return &MemoryCache{recent.New(bytes, func(key string, c cached) int { return len(key) + len(c.value) })}
}

// Get implements Cache.
func (m *MemoryCache) Get(_ context.Context, key string) (value []byte, found bool) {
	c, found := m.values.Get(key)
	if !found {
		return nil, false
	}
	if !c.expires.IsZero() && !time.Now().Before(c.expires) {
		m.values.Remove(key)
		return nil, false
	}
	return c.value, true
}

// Set implements Cache.
func (m *MemoryCache) Set(_ context.Context, key string, value []byte, ttl time.Duration) {
	c := cached{value: value}
	if ttl > 0 {
		c.expires = time.Now().Add(ttl)
	}
	m.values.Add(key, c)
}
