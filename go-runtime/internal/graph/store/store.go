// Package store keeps the memory that threads of graphs share in the runtime's shared
// state, where Django sees it too.
//
// An item is a key of the state: `store`, the parts of its namespace and its own key,
// with slashes between them; a part's own are escaped as in URLs. So all together are 500
// bytes at most, and a value has the limit of the state's. Items are found by their names
// alone: there is no search by meaning.
package store

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/state"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const (
	keyPrefix    = "store/"
	defaultLimit = 10
	maxLimit     = 1000
)

// Store implements graph.Store in one namespace of the state.
type Store struct {
	state     *state.Store
	namespace string
}

// New returns the store of a namespace of the state.
func New(s *state.Store, namespace string) *Store { return &Store{s, namespace} }

// Get implements graph.Store. Its error is a *violation.Error or the state's, as are those
// of the other methods.
func (s *Store) Get(ctx context.Context, namespace []string, key string) (*graph.Item, error) {
	name, err := nameOf(namespace, key)
	if err != nil {
		return nil, err
	}
	entry, found, err := s.state.Get(ctx, s.namespace, name)
	if err != nil || !found {
		return nil, err
	}
	return itemOf(entry)
}

// Put implements graph.Store. A ttl is of whole seconds.
func (s *Store) Put(ctx context.Context, namespace []string, key string, value map[string]any, ttl time.Duration) error {
	name, err := nameOf(namespace, key)
	if err != nil {
		return err
	}
	if value == nil {
		return violation.New("value", "must be an object")
	}
	text, err := json.Marshal(value)
	if err != nil {
		return violation.New("value", "is no JSON: %s", err)
	}
	_, err = s.state.Set(ctx, s.namespace, state.SetRequest{Key: name, Value: text, TTL: ttl})
	return err
}

// Delete implements graph.Store.
func (s *Store) Delete(ctx context.Context, namespace []string, key string) error {
	name, err := nameOf(namespace, key)
	if err != nil {
		return err
	}
	_, err = s.state.Delete(ctx, s.namespace, name, nil, "")
	return err
}

// Search implements graph.Store. More than 1,000 as the limit is 1,000.
func (s *Store) Search(ctx context.Context, prefix []string, limit int) ([]graph.Item, error) {
	path, err := pathOf(prefix)
	if err != nil {
		return nil, err
	}
	if limit <= 0 {
		limit = defaultLimit
	}
	limit = min(limit, maxLimit)
	var items []graph.Item
	request := state.ListRequest{Prefix: path}
	for len(items) < limit {
		request.PageSize = limit - len(items)
		entries, next, err := s.state.List(ctx, s.namespace, request)
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			item, err := itemOf(entry)
			if err != nil {
				return nil, err
			}
			items = append(items, *item)
		}
		if next == "" {
			break
		}
		request.PageToken = next
	}
	return items, nil
}

// pathOf is what the keys of a namespace, and of those below it, begin with.
func pathOf(namespace []string) (string, error) {
	var path strings.Builder
	path.WriteString(keyPrefix)
	for i, part := range namespace {
		if part == "" {
			return "", violation.New(fmt.Sprintf("namespace[%d]", i), "must not be empty")
		}
		path.WriteString(url.PathEscape(part) + "/")
	}
	return path.String(), nil
}

func nameOf(namespace []string, key string) (string, error) {
	path, err := pathOf(namespace)
	if len(namespace) == 0 {
		err = violation.New("namespace", "must have a part")
	}
	if key == "" {
		err = violation.Join(err, violation.New("key", "is required"))
	}
	return path + url.PathEscape(key), err
}

func itemOf(entry state.Entry) (*graph.Item, error) {
	parts := strings.Split(strings.TrimPrefix(entry.Key, keyPrefix), "/")
	for i, part := range parts {
		name, err := url.PathUnescape(part)
		if err != nil {
			return nil, fmt.Errorf("key %q of the state is no item: %w", entry.Key, err)
		}
		parts[i] = name
	}
	last := len(parts) - 1
	item := &graph.Item{Namespace: parts[:last:last], Key: parts[last]}
	if err := json.Unmarshal(entry.Value, &item.Value); err != nil {
		return nil, fmt.Errorf("key %q of the state is no item: %w", entry.Key, err)
	}
	return item, nil
}
