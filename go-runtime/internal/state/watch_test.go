package state

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var errEnough = errors.New("enough")

// watchUntil watches until enough is true, and returns what was seen, as text.
func watchUntil(tb testing.TB, s *Store, namespace string, r WatchRequest, enough func(Batch) bool) []string {
	tb.Helper()
	var seen []string
	err := s.Watch(testContext(tb), namespace, r, func(b Batch) error {
		for _, c := range b.Changes {
			seen = append(seen, describe(c))
		}
		if enough(b) {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		tb.Fatalf("watch ended with %v after %q", err, seen)
	}
	return seen
}

func describe(c Change) string {
	switch c.Kind {
	case Set:
		return c.Entry.Key + "=" + string(c.Entry.Value)
	case Deleted:
		return "-" + c.Entry.Key + string(c.Entry.Value)
	case Expired:
		return "~" + c.Entry.Key + string(c.Entry.Value)
	}
	return fmt.Sprintf("kind %d of %s", c.Kind, c.Entry.Key)
}

// upTo is enough once the watch has reached a revision.
func upTo(revision *uint64) func(Batch) bool {
	return func(b Batch) bool { return *revision != 0 && b.Revision >= *revision }
}

func TestWatch(t *testing.T) {
	t.Parallel()

	tests := map[string]struct {
		request WatchRequest
		resume  bool // after the first of the writes before
		want    string
	}{
		"from now":             {WatchRequest{}, false, `a=2 -b ab=1 c=1`},
		"after a revision":     {WatchRequest{}, true, `b=1 c.d=1 -gone a=2 -b ab=1 c=1`},
		"with current":         {WatchRequest{IncludeCurrent: true}, false, `a=1 b=1 c.d=1 a=2 -b ab=1 c=1`},
		"prefix":               {WatchRequest{Prefix: "a"}, false, `a=2 ab=1`},
		"prefix with current":  {WatchRequest{Prefix: "c", IncludeCurrent: true}, false, `c.d=1 c=1`},
		"prefix of none":       {WatchRequest{Prefix: "zz", IncludeCurrent: true}, false, ``},
		"key":                  {WatchRequest{Key: "a"}, false, `a=2`},
		"key over prefix":      {WatchRequest{Key: "c", Prefix: "a"}, false, `c=1`},
		"key with current":     {WatchRequest{Key: "b", IncludeCurrent: true}, false, `b=1 -b`},
		"key after a revision": {WatchRequest{Key: "gone"}, true, `-gone`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			namespace := newNamespace()
			ctx := testContext(t)
			remove := func(key string) {
				if _, err := shared.Delete(ctx, namespace, key, nil, ""); err != nil {
					t.Error(err)
				}
			}
			first := set(t, shared, namespace, "gone", "1")
			set(t, shared, namespace, "a", "0")
			after := set(t, shared, namespace, "a", "1")
			set(t, shared, namespace, "b", "1")
			set(t, shared, namespace, "c.d", "1")
			remove("gone")
			if test.resume {
				test.request.After = &after
			}

			var last uint64
			begun, current := false, 0
			seen := watchUntil(t, shared, namespace, test.request, func(b Batch) bool {
				if !begun && len(b.Changes) > 0 {
					t.Errorf("the first batch has %d changes", len(b.Changes))
				}
				if begun && b.Revision < first {
					t.Errorf("a batch has the revision %d", b.Revision)
				}
				if b.CurrentSent {
					current++
				}
				ready := b.CurrentSent || !test.request.IncludeCurrent
				if ready && last == 0 {
					set(t, shared, namespace, "a", "2")
					remove("b")
					set(t, shared, namespace, "ab", "1")
					last = set(t, shared, namespace, "c", "1")
				}
				begun = true
				return upTo(&last)(b)
			})
			if got := strings.Join(seen, " "); got != test.want {
				t.Errorf("watch saw %q, want %q", got, test.want)
			}
			if want := map[bool]int{true: 1}[test.request.IncludeCurrent]; current != want {
				t.Errorf("CurrentSent came %d times, want %d", current, want)
			}
		})
	}
}

func TestWatchSendsManyCurrentEntriesInBatches(t *testing.T) {
	t.Parallel()

	const keys = 3*maxBatchChanges + 1
	namespace := newNamespace()
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := w; i < keys; i += 8 {
				set(t, shared, namespace, strconv.Itoa(i), "1")
			}
		})
	}
	all.Wait()

	count, batches := 0, 0
	newest := uint64(0)
	watchUntil(t, shared, namespace, WatchRequest{IncludeCurrent: true}, func(b Batch) bool {
		batches++
		count += len(b.Changes)
		for _, c := range b.Changes {
			if c.Entry.Revision <= newest || c.Entry.Revision > b.Revision {
				t.Errorf("revision %d follows %d in a batch up to %d", c.Entry.Revision, newest, b.Revision)
			}
			newest = c.Entry.Revision
		}
		return b.CurrentSent
	})
	if count != keys || batches != 5 {
		t.Errorf("%d entries came in %d batches, want %d in 5", count, batches, keys)
	}
}

// TestWatchResumesAnywhere cuts a watch at random points, while keys are being
// written, and resumes it at the revision it had reached.
func TestWatchResumesAnywhere(t *testing.T) {
	t.Parallel()

	const writes = 300
	namespace := newNamespace()
	var last uint64
	var writer sync.WaitGroup
	written := make(chan struct{})
	writer.Go(func() {
		defer close(written)
		for i := range writes {
			// Each key is written once, so a watch must show every write.
			last = set(t, shared, namespace, fmt.Sprint("k", i), strconv.Itoa(i))
			set(t, shared, namespace, "other", "1")
		}
	})
	defer writer.Wait()

	request := WatchRequest{Prefix: "k", IncludeCurrent: true}
	next := 0
	for cuts := 0; next < writes; cuts++ {
		reached := uint64(0)
		until := next + 1 + rand.IntN(writes/10)
		err := shared.Watch(testContext(t), namespace, request, func(b Batch) error {
			for _, c := range b.Changes {
				if describe(c) != fmt.Sprintf("k%d=%d", next, next) {
					return fmt.Errorf("after %d cuts got %s, want k%d", cuts, describe(c), next)
				}
				next++
			}
			reached = b.Revision
			if next >= min(until, writes) {
				return errEnough
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			t.Fatal(err)
		}
		request = WatchRequest{Prefix: "k", After: &reached}
	}
	<-written
	if request.After == nil || *request.After < last-1 {
		t.Errorf("the watch ended at %d, the last write was %d", *request.After, last)
	}
}

func TestWatchRefusesARevisionToCome(t *testing.T) {
	t.Parallel()

	future := uint64(1 << 62)
	err := shared.Watch(testContext(t), newNamespace(), WatchRequest{After: &future}, func(Batch) error { return errEnough })
	if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("after_revision: is %d, but the newest revision is ", future)) {
		t.Errorf("Watch() = %v", err)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithCancel(testContext(t))
	err := shared.Watch(ctx, newNamespace(), WatchRequest{}, func(Batch) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Watch() = %v, want context.Canceled", err)
	}
}

// TestExpiry waits for the journal to remove a key and looks at it from everywhere.
func TestExpiry(t *testing.T) {
	t.Parallel()

	ctx := testContext(t)
	namespace := newNamespace()
	set(t, shared, namespace, "kept", "1")
	var revision uint64
	seen := watchUntil(t, shared, namespace, WatchRequest{}, func(b Batch) bool {
		if revision == 0 {
			var err error
			if revision, err = shared.Set(ctx, namespace, SetRequest{Key: "k", Value: []byte("1"), TTL: time.Second}); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range b.Changes {
			if c.Kind == Expired {
				if c.Entry.Revision <= revision {
					t.Errorf("it expired at revision %d, written at %d", c.Entry.Revision, revision)
				}
				return true
			}
		}
		return false
	})
	if got := strings.Join(seen, " "); got != "k=1 ~k" {
		t.Errorf("watch saw %q, want the key set and expired", got)
	}
	if _, found, err := shared.Get(ctx, namespace, "k"); found || err != nil {
		t.Errorf("Get() = %v, %v, want no such key", found, err)
	}
	if got, _ := listAll(t, shared, namespace, ListRequest{}); len(got) != 1 || got[0].Key != "kept" {
		t.Errorf("List() = %v, want kept alone", got)
	}
	watchUntil(t, shared, namespace, WatchRequest{IncludeCurrent: true}, func(b Batch) bool {
		for _, c := range b.Changes {
			if c.Entry.Key != "kept" {
				t.Errorf("a new watch begins with %s", describe(c))
			}
		}
		return b.CurrentSent
	})
	if existed, err := shared.Delete(ctx, namespace, "k", nil, ""); existed || err != nil {
		t.Errorf("Delete() = %v, %v, want no such key", existed, err)
	}
	again, err := shared.Set(ctx, namespace, SetRequest{Key: "k", Value: []byte("2"), Expect: new(uint64)})
	if err != nil || again <= revision {
		t.Errorf("Set() of an expired key = %d, %v, want a revision above %d", again, err, revision)
	}
}

// TestExpiryGoesByTheClock covers the time until the journal removes the key.
func TestExpiryGoesByTheClock(t *testing.T) {
	t.Parallel()

	var (
		mu   sync.Mutex
		step time.Duration
	)
	store, _ := openFor(t, t.TempDir(), Config{Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return time.Now().Add(step)
	}})
	revision, err := store.Set(testContext(t), "ns", SetRequest{Key: "k", Value: []byte("1"), TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	look := func() string {
		t.Helper()
		_, found, err := store.Get(testContext(t), "ns", "k")
		if err != nil {
			t.Fatal(err)
		}
		listed, _ := listAll(t, store, "ns", ListRequest{})
		watched := watchUntil(t, store, "ns", WatchRequest{IncludeCurrent: true}, func(b Batch) bool { return b.CurrentSent })
		return fmt.Sprint(found, len(listed), len(watched))
	}
	if got := look(); got != "true 1 1" {
		t.Errorf("before the time Get, List and Watch see %s", got)
	}
	mu.Lock()
	step = time.Hour
	mu.Unlock()
	if got := look(); got != "false 0 0" {
		t.Errorf("after the time Get, List and Watch see %s", got)
	}
	if again, err := store.Set(testContext(t), "ns", SetRequest{Key: "k", Value: []byte("2"), Expect: new(uint64)}); err != nil || again <= revision {
		t.Errorf("Set() of the expired key = %d, %v", again, err)
	}
}

// TestSetWithoutTTLKeepsAKeyThatWouldExpire also covers that a deletion is
// forgotten in silence. A key of their age that expires says when they would have.
func TestSetWithoutTTLKeepsAKeyThatWouldExpire(t *testing.T) {
	t.Parallel()

	ctx := testContext(t)
	namespace := newNamespace()
	lives := func(key string, ttl time.Duration) {
		if _, err := shared.Set(ctx, namespace, SetRequest{Key: key, Value: []byte("1"), TTL: ttl}); err != nil {
			t.Fatal(err)
		}
	}
	lives("kept", time.Second)
	lives("kept", 0)
	deletion := message(namespace, Operation{Key: "deleted", Delete: true}, "", "")
	deletion.TTL = time.Second
	if _, err := shared.stream.Append(ctx, deletion); err != nil {
		t.Fatal(err)
	}
	lives("later", 2*time.Second)

	start := uint64(0)
	seen := watchUntil(t, shared, namespace, WatchRequest{After: &start}, func(b Batch) bool {
		return len(b.Changes) > 0 && b.Changes[len(b.Changes)-1].Kind == Expired && b.Changes[len(b.Changes)-1].Entry.Key == "later"
	})
	if got := strings.Join(seen, " "); got != "kept=1 -deleted later=1 ~later" {
		t.Errorf("watch saw %q", got)
	}
	if got := get(t, shared, namespace, "kept"); got != "1" {
		t.Errorf("kept = %q, want 1", got)
	}
}
