// Package recent keeps in memory what was used last, up to a number of bytes.
package recent

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// overhead is about what an entry takes besides its key and value.
const overhead = 200

// Cache holds values until others that were used later need the room. Its
// methods are safe for concurrent use.
type Cache[K comparable, V any] struct {
	limit int
	size  func(K, V) int

	mu      sync.Mutex
	bytes   int
	entries *simplelru.LRU[K, V]
}

// New returns a cache of at most limit bytes, where size says how many a key and
// its value take. What takes more than a sixteenth of the limit is not kept.
func New[K comparable, V any](limit int, size func(K, V) int) *Cache[K, V] {
	c := &Cache[K, V]{limit: limit, size: size}
	// The only error is a size below 1. The bytes, not the number, are the bound.
	c.entries, _ = simplelru.NewLRU(limit/overhead+1, func(key K, value V) { c.bytes -= c.cost(key, value) })
	return c
}

func (c *Cache[K, V]) cost(key K, value V) int { return overhead + c.size(key, value) }

// Get returns the value of a key, if it is there.
func (c *Cache[K, V]) Get(key K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries.Get(key)
}

// Add keeps a value, in place of the one the key has.
func (c *Cache[K, V]) Add(key K, value V) {
	cost := c.cost(key, value)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries.Remove(key)
	if cost > c.limit/16 {
		return
	}
	c.bytes += cost
	c.entries.Add(key, value)
	for c.bytes > c.limit {
		c.entries.RemoveOldest()
	}
}

// Remove forgets a key.
func (c *Cache[K, V]) Remove(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries.Remove(key)
}

// Clear forgets every key.
func (c *Cache[K, V]) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries.Purge()
}

// Bytes is about how much memory the entries take.
func (c *Cache[K, V]) Bytes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}
