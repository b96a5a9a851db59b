package state

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const (
	// maxPageBytes is about how many bytes of values one page has; the first entry always fits.
	maxPageBytes = 4 << 20
	// readers is how many keys of one call are read at a time.
	readers = 16
)

// ListRequest selects keys of a namespace.
type ListRequest struct {
	// Prefix is what the keys begin with, any string; empty: every key.
	Prefix string
	// PageToken is what the page before returned; empty: the first page.
	PageToken string
	// PageSize is the most entries to return; 0: 100; above 1000: 1000.
	PageSize int
	// KeysOnly leaves the values out.
	KeysOnly bool
}

// Get reads a key; found is false when there is no such key. A JSON null is a
// value like any other.
//
// Errors: *violation.Error.
func (s *Store) Get(ctx context.Context, namespace, key string) (entry Entry, found bool, err error) {
	if err := checkKey("key", key); err != nil {
		return Entry{}, false, err
	}
	newest, err := s.lastOf(ctx, keySubject(namespace, key))
	if err != nil {
		return Entry{}, false, fmt.Errorf("get state: %w", err)
	}
	if !newest.exists(s.cfg.Now()) {
		return Entry{}, false, nil
	}
	return newest.entry, true, nil
}

// List returns a page of the keys that begin with a prefix, in byte order, and
// the token of the next page, empty on the last. It shows at least what was
// durable when it was called. A page may have fewer entries than asked for, even
// none, and still not be the last.
//
// The first List after a while reads the keys of all namespaces to put them in
// order, some hundred thousand a second. When ctx ends before that is done it goes
// on for the next call's sake.
//
// Errors: *violation.Error.
func (s *Store) List(ctx context.Context, namespace string, r ListRequest) ([]Entry, string, error) {
	size, err := pageSize(r.PageSize)
	if err != nil {
		return nil, "", err
	}
	after, err := r.after()
	if err != nil {
		return nil, "", err
	}
	want := selection{namespace: namespace, prefix: r.Prefix, after: after, entries: size, now: s.cfg.Now()}
	if !r.KeysOnly {
		want.bytes = maxPageBytes
	}
	entries, more, err := s.index.page(ctx, s.stream, want)
	if err != nil {
		return nil, "", fmt.Errorf("list state: %w", err)
	}
	next := ""
	if more {
		next = pageToken(entries[len(entries)-1].Key)
	}
	if r.KeysOnly {
		return entries, next, nil
	}
	if entries, err = s.withValues(ctx, namespace, entries); err != nil {
		return nil, "", fmt.Errorf("list state: %w", err)
	}
	return entries, next, nil
}

// withValues reads the entries' keys anew and leaves those out that are gone by now.
func (s *Store) withValues(ctx context.Context, namespace string, entries []Entry) ([]Entry, error) {
	subjects := make([]string, len(entries))
	for i, e := range entries {
		subjects[i] = keySubject(namespace, e.Key)
	}
	newest, err := s.last(ctx, subjects)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Now()
	entries = entries[:0]
	for _, r := range newest {
		if r.exists(now) {
			entries = append(entries, r.entry)
		}
	}
	return entries, nil
}

// A page token is the last key of the page before.
func pageToken(key string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(key))
}

// after is the key after which the page begins.
func (r ListRequest) after() (string, error) {
	key, err := base64.RawURLEncoding.DecodeString(r.PageToken)
	if err != nil {
		return "", violation.New("page_token", "is not a token that a list returned")
	}
	if r.PageToken != "" && !strings.HasPrefix(string(key), r.Prefix) {
		return "", violation.New("page_token", "belongs to a list with another prefix")
	}
	return string(key), nil
}

// last reads the newest records of several subjects, nil where there is none.
func (s *Store) last(ctx context.Context, subjects []string) ([]*record, error) {
	records := make([]*record, len(subjects))
	errs := make([]error, len(subjects))
	read := func(start int) {
		for i := start; i < len(subjects); i += readers {
			records[i], errs[i] = s.lastOf(ctx, subjects[i])
		}
	}
	if len(subjects) == 1 {
		read(0)
	} else {
		var all sync.WaitGroup
		for start := range min(readers, len(subjects)) {
			all.Go(func() { read(start) })
		}
		all.Wait()
	}
	return records, errors.Join(errs...)
}

func (s *Store) lastOf(ctx context.Context, subject string) (*record, error) {
	newest, err := s.stream.Last(ctx, subject)
	if errors.Is(err, journal.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return decode(newest)
}
