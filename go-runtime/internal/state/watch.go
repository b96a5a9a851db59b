package state

import (
	"context"
	"fmt"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const (
	// maxBatchChanges and maxPageBytes bound one batch of the entries that a watch begins with.
	maxBatchChanges = 256
)

// WatchRequest selects the keys of a namespace to watch, and from when.
type WatchRequest struct {
	// Prefix is what the keys begin with, any string; empty: every key.
	Prefix string
	// Key is the one key to watch; Prefix is then ignored.
	Key string
	// IncludeCurrent starts with the entries as they are.
	IncludeCurrent bool
	// After is the revision after which the changes begin; nil: with those from now on.
	After *uint64
}

// Change is one change of one key.
type Change struct {
	Kind Kind
	// Entry has a value only when the kind is Set. Its Revision is that of the
	// change, UpdatedAt when it happened.
	Entry Entry
}

// Batch is what a watch hands over at a time.
type Batch struct {
	// Changes are in revision order; none in the first batch and in those that only move Revision.
	Changes []Change
	// Revision resumes the watch: everything up to it has been handed over.
	Revision uint64
	// CurrentSent is true once, when everything IncludeCurrent asked for has been handed over.
	CurrentSent bool
}

// Watch calls fn with the changes of the selected keys until ctx ends or fn
// returns an error, which is returned as is. The first batch is empty and says
// where the watch begins. Several changes of one key before the watch read them
// may show as the last one alone. Watch reads at fn's pace and holds nobody up.
//
// Deletions and expiries are remembered for a limited time, a deletion for a
// day: a watch that resumes later than that starts over with IncludeCurrent.
//
// Errors: *violation.Error, also for a revision that is still to come, and
// *journal.TruncatedError when After is from before a damaged disk lost changes: values
// that the watch has seen may be gone, so it starts over with IncludeCurrent too.
func (s *Store) Watch(ctx context.Context, namespace string, r WatchRequest, fn func(Batch) error) error {
	if err := r.check(); err != nil {
		return err
	}
	filter := []string{namespaceSubject(namespace) + "*"}
	if r.Key != "" {
		filter[0] = keySubject(namespace, r.Key)
	}
	w := watch{store: s, request: r, filter: filter, fn: fn}
	after, err := w.begin(ctx)
	if err != nil {
		return err
	}
	return w.follow(ctx, after)
}

func (r WatchRequest) check() error {
	var key, start error
	if r.Key != "" {
		key = checkKey("key", r.Key)
	}
	if r.IncludeCurrent && r.After != nil {
		start = violation.New("after_revision", "cannot be combined with include_current")
	}
	return violation.Join(key, start)
}

// watch is one call of Watch.
type watch struct {
	store   *Store
	request WatchRequest
	filter  []string
	fn      func(Batch) error
}

// begin hands over what comes before the changes and returns the revision after
// which they begin.
func (w *watch) begin(ctx context.Context) (uint64, error) {
	if w.request.IncludeCurrent {
		return w.current(ctx)
	}
	newest, err := w.newest(ctx)
	if err != nil {
		return 0, fmt.Errorf("watch state: %w", err)
	}
	after := newest
	if w.request.After != nil {
		if after = *w.request.After; after > newest {
			return 0, violation.New("after_revision", "is %d, but the newest revision is %d", after, newest)
		}
	}
	return after, w.fn(Batch{Revision: after})
}

// newest is the newest sequence that is durable: what a scan reaches, here of a
// subject that has no records, as no key is empty.
func (w *watch) newest(ctx context.Context) (uint64, error) {
	nothing := []string{subjectRoot + "-." + journal.EncodeToken("")}
	return w.store.stream.Scan(ctx, 0, false, nothing, func(journal.Record) error { return nil })
}

// current hands the entries over as they are.
func (w *watch) current(ctx context.Context) (uint64, error) {
	if err := w.fn(Batch{}); err != nil {
		return 0, err
	}
	var (
		batch Batch
		size  int
		ended error // what fn returned
	)
	upTo, err := w.store.stream.Scan(ctx, 0, true, w.filter, func(r journal.Record) error {
		change, err := w.change(r)
		if err != nil || change == nil || !change.exists(w.store.cfg.Now()) {
			return err
		}
		batch.Changes = append(batch.Changes, Change{Kind: Set, Entry: change.entry})
		batch.Revision = r.Sequence
		size += len(r.Data)
		if len(batch.Changes) < maxBatchChanges && size < maxPageBytes {
			return nil
		}
		ended = w.fn(batch)
		batch, size = Batch{}, 0
		return ended
	})
	if ended != nil {
		return 0, ended
	}
	if err != nil {
		return 0, fmt.Errorf("watch state: %w", err)
	}
	batch.Revision = upTo
	batch.CurrentSent = true
	return upTo, w.fn(batch)
}

// follow hands the changes over.
func (w *watch) follow(ctx context.Context, after uint64) error {
	var ended error // what fn returned
	err := w.store.stream.Follow(ctx, after, w.filter, func(records []journal.Record, position uint64) error {
		batch := Batch{Revision: position}
		for _, r := range records {
			change, err := w.change(r)
			if err != nil {
				return err
			}
			if change != nil {
				batch.Changes = append(batch.Changes, Change{Kind: change.kind, Entry: change.entry})
			}
		}
		if len(batch.Changes) == 0 && len(records) > 0 {
			return journal.Skip
		}
		ended = w.fn(batch)
		return ended
	})
	if ended != nil {
		return ended
	}
	return fmt.Errorf("watch state: %w", err)
}

// change decodes a record, nil when its key is not asked for.
func (w *watch) change(r journal.Record) (*record, error) {
	change, err := decode(r)
	if err != nil {
		return nil, err
	}
	if w.request.Key == "" && !strings.HasPrefix(change.entry.Key, w.request.Prefix) {
		return nil, nil
	}
	return change, nil
}
