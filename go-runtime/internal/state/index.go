package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/tidwall/btree"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

var (
	errIdle    = errors.New("index was not used for a while")
	errStopped = fmt.Errorf("state is stopped: %w", journal.ErrUnavailable)
)

// index keeps the keys of all namespaces in order, from its first use until it
// has not been used for a while.
type index struct {
	idle time.Duration
	log  *slog.Logger

	mu      sync.Mutex
	view    *view // nil: none is being kept
	stopped bool
	done    chan struct{} // of the latest view; nil: there was none
}

func newIndex(idle time.Duration, log *slog.Logger) *index {
	return &index{idle: idle, log: log}
}

// view is one life of the index, kept by one goroutine.
type view struct {
	cancel context.CancelCauseFunc
	unused *time.Timer   // cancels the view
	done   chan struct{} // closed when nobody keeps the view any more
	err    error         // why; set before done is closed

	mu       sync.RWMutex
	position uint64        // everything up to this sequence is in keys
	moved    chan struct{} // closed when position moves
	keys     map[string]*btree.Map[string, indexed]
}

// indexed is what is kept of a key: enough for a list without values, and to
// bound a page before its values are read.
type indexed struct {
	revision   uint64
	updatedAt  int64 // Unix nanoseconds
	size       uint32
	ttlSeconds uint32
}

// selection is what a page consists of.
type selection struct {
	namespace, prefix string
	after             string // keys greater than this; empty: all
	entries           int
	bytes             int // of values; 0: no limit
	now               time.Time
}

// page returns the first entries of a selection, without values, and whether
// more follow. Everything that was durable at the time of the call is in it.
func (x *index) page(ctx context.Context, stream *journal.Stream, want selection) (entries []Entry, more bool, err error) {
	_, newest, err := stream.Bounds(ctx)
	if err != nil {
		return nil, false, err
	}
	for {
		v, err := x.use(ctx, stream)
		if err != nil {
			return nil, false, err
		}
		err = v.reach(ctx, newest)
		switch {
		case err == nil:
			entries, more = v.page(want)
			return entries, more, nil
		case !errors.Is(err, errIdle):
			return nil, false, err
		}
	}
}

// use returns the view that is being kept, or begins one.
func (x *index) use(ctx context.Context, stream *journal.Stream) (*view, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.stopped {
		return nil, errStopped
	}
	if x.view != nil {
		x.view.unused.Reset(x.idle)
		return x.view, nil
	}
	// The view outlives the call that needed it first.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	v := &view{
		cancel: cancel,
		unused: time.AfterFunc(x.idle, func() { cancel(errIdle) }),
		done:   make(chan struct{}),
		moved:  make(chan struct{}),
		keys:   make(map[string]*btree.Map[string, indexed]),
	}
	x.view, x.done = v, v.done
	go x.keep(ctx, v, stream)
	return v, nil
}

// keep fills a view and keeps it current until it is cancelled or fails.
func (x *index) keep(ctx context.Context, v *view, stream *journal.Stream) {
	defer close(v.done)
	err := v.follow(ctx, stream)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	} else {
		x.log.WarnContext(ctx, "state index failed", "err", err)
	}
	v.err = err
	v.unused.Stop()
	v.cancel(err)

	x.mu.Lock()
	defer x.mu.Unlock()
	x.view = nil
}

// stop ends the view, waits for it, and refuses further use.
func (x *index) stop(ctx context.Context) error {
	x.mu.Lock()
	x.stopped = true
	if x.view != nil {
		x.view.cancel(errStopped)
	}
	done := x.done
	x.mu.Unlock()
	if done == nil {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (v *view) follow(ctx context.Context, stream *journal.Stream) error {
	// No filter: the stream has nothing else, and the server need not match every subject.
	upTo, err := stream.Scan(ctx, 0, false, nil, func(r journal.Record) error {
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.apply(r)
	})
	if err != nil {
		return err
	}
	v.move(upTo)
	return stream.Follow(ctx, upTo, nil, func(batch []journal.Record, position uint64) error {
		v.mu.Lock()
		for _, r := range batch {
			if err := v.apply(r); err != nil {
				v.mu.Unlock()
				return err
			}
		}
		v.mu.Unlock()
		v.move(position)
		return nil
	})
}

// apply takes one record in. The caller holds the lock.
func (v *view) apply(r journal.Record) error {
	change, err := decode(r)
	if err != nil {
		return err
	}
	keys := v.keys[change.namespace]
	if change.kind != Set {
		if keys == nil {
			return nil
		}
		keys.Delete(change.entry.Key)
		if keys.Len() == 0 {
			delete(v.keys, change.namespace)
		}
		return nil
	}
	if keys == nil {
		keys = new(btree.Map[string, indexed])
		v.keys[change.namespace] = keys
	}
	keys.Set(change.entry.Key, indexed{
		revision:   r.Sequence,
		updatedAt:  r.Time.UnixNano(),
		size:       uint32(len(r.Data)),
		ttlSeconds: ttlSeconds(change.entry),
	})
	return nil
}

// move tells those who wait that everything up to position is in the view.
func (v *view) move(position uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.position = position
	close(v.moved)
	v.moved = make(chan struct{})
}

// reach returns when everything up to sequence is in the view.
func (v *view) reach(ctx context.Context, sequence uint64) error {
	for {
		v.mu.RLock()
		position, moved := v.position, v.moved
		v.mu.RUnlock()
		if position >= sequence {
			return nil
		}
		select {
		case <-moved:
		case <-v.done:
			return v.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (v *view) page(want selection) (entries []Entry, more bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	keys := v.keys[want.namespace]
	if keys == nil {
		return nil, false
	}
	size := 0
	keys.Ascend(max(want.prefix, want.after), func(key string, known indexed) bool {
		entry := known.entry(key)
		switch {
		case !strings.HasPrefix(key, want.prefix):
			return false
		case key == want.after, !entry.ExpiresAt.IsZero() && !want.now.Before(entry.ExpiresAt):
			return true
		}
		size += int(known.size)
		if len(entries) == want.entries || want.bytes > 0 && size > want.bytes && len(entries) > 0 {
			more = true
			return false
		}
		entries = append(entries, entry)
		return true
	})
	return entries, more
}

func (i indexed) entry(key string) Entry {
	e := Entry{Key: key, Revision: i.revision, UpdatedAt: time.Unix(0, i.updatedAt).UTC()}
	if i.ttlSeconds > 0 {
		e.ExpiresAt = e.UpdatedAt.Add(time.Duration(i.ttlSeconds) * time.Second)
	}
	return e
}
