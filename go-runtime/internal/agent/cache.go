package agent

import (
	"context"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
)

// defaultCacheBytes bounds what nodes came to, of all namespaces.
const defaultCacheBytes = 64 << 20

// nodeCache is what a run sees of what nodes came to: that of its own namespace. It
// implements graph.Cache.
type nodeCache struct {
	kept      *graph.MemoryCache
	namespace string
	spending  *ledger
}

// Get implements graph.Cache.
func (c nodeCache) Get(ctx context.Context, key string) (value []byte, found bool) {
	return c.kept.Get(ctx, c.name(key))
}

// Set implements graph.Cache. What a run comes to for which a stand-in answers is not kept:
// another run would take it for a model's.
func (c nodeCache) Set(ctx context.Context, key string, value []byte, ttl time.Duration) {
	if !c.spending.isOffline() {
		c.kept.Set(ctx, c.name(key), value, ttl)
	}
}

func (c nodeCache) name(key string) string { return c.namespace + "/" + key }
