package graph

import (
	"context"
	"time"
)

// Store is the memory that threads share, such as what is known of a user. It is safe for
// concurrent use. Values are those of JSON. It finds by name, and not by meaning: there
// is no vector search.
type Store interface {
	// Get returns an item; nil: there is none.
	Get(ctx context.Context, namespace []string, key string) (*Item, error)
	// Put sets an item; a ttl of 0 has no end.
	Put(ctx context.Context, namespace []string, key string, value map[string]any, ttl time.Duration) error
	// Delete removes an item, if it is there.
	Delete(ctx context.Context, namespace []string, key string) error
	// Search returns items whose namespaces begin with a prefix, limit of them at most, in
	// the order of their namespaces and keys. 0 as the limit is 10.
	Search(ctx context.Context, prefix []string, limit int) ([]Item, error)
}

// Item is what a Store keeps under a key of a namespace, such as `preferences` of
// `users, 42`.
type Item struct {
	Namespace []string       `json:"namespace"`
	Key       string         `json:"key"`
	Value     map[string]any `json:"value"`
}
