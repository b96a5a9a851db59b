package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// listAll follows the page tokens and returns what the pages have together.
func listAll(tb testing.TB, s *Store, namespace string, r ListRequest) (entries []Entry, pages int) {
	tb.Helper()
	for {
		page, next, err := s.List(testContext(tb), namespace, r)
		if err != nil {
			tb.Fatal(err)
		}
		pages++
		entries = append(entries, page...)
		if next == "" {
			return entries, pages
		}
		r.PageToken = next
	}
}

func keysOf(entries []Entry) []string {
	keys := make([]string, len(entries))
	for i, e := range entries {
		keys[i] = e.Key
	}
	return keys
}

func TestListByPrefix(t *testing.T) {
	t.Parallel()

	all := []string{"\x00", " ", "a", "a.", "a.b", "a.c", "a/b", "ab", "b", "user:1", "user:10", "user:2", "Ω", "ü", "👩‍🚀"}
	namespace := newNamespace()
	for _, i := range rand.Perm(len(all)) {
		set(t, shared, namespace, all[i], strconv.Itoa(i))
		set(t, shared, newNamespace(), all[i], `"another namespace's"`)
	}
	for _, prefix := range []string{"", "a", "a.", "a.b", "user:1", "ü", "\xc3", "nothing", "zz", "\xff", strings.Repeat("a", 600)} {
		for _, size := range []int{0, 1, 3, len(all), 5000} {
			t.Run(fmt.Sprintf("%.10q in pages of %d", prefix, size), func(t *testing.T) {
				t.Parallel()

				var want []string
				for _, key := range all {
					if strings.HasPrefix(key, prefix) {
						want = append(want, key)
					}
				}
				slices.Sort(want)
				got, pages := listAll(t, shared, namespace, ListRequest{Prefix: prefix, PageSize: size})
				if !slices.Equal(keysOf(got), want) {
					t.Errorf("List() = %q, want %q", keysOf(got), want)
				}
				if size > 0 && pages != max(1, (len(want)+size-1)/size) {
					t.Errorf("%d keys came in %d pages", len(want), pages)
				}
				for _, e := range got {
					if entry, _, err := shared.Get(testContext(t), namespace, e.Key); err != nil || fmt.Sprint(entry) != fmt.Sprint(e) {
						t.Errorf("List() = %v, Get() = %v, %v", e, entry, err)
					}
				}
			})
		}
	}
}

func TestListOfKeysLeavesValuesOut(t *testing.T) {
	t.Parallel()

	namespace := newNamespace()
	_, err := shared.Set(testContext(t), namespace, SetRequest{Key: "k", Value: []byte("1"), TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	want, _, err := shared.Get(testContext(t), namespace, "k")
	if err != nil {
		t.Fatal(err)
	}
	want.Value = nil
	got, _ := listAll(t, shared, namespace, ListRequest{KeysOnly: true})
	if len(got) != 1 || got[0].Value != nil || got[0].Key != "k" || got[0].Revision != want.Revision ||
		!got[0].UpdatedAt.Equal(want.UpdatedAt) || !got[0].ExpiresAt.Equal(want.ExpiresAt) {
		t.Errorf("List() = %v, want %v", got, want)
	}
}

func TestListCutsPagesOfLargeValues(t *testing.T) {
	t.Parallel()

	namespace := newNamespace()
	value := `"` + strings.Repeat("x", DefaultMaxValueBytes-2) + `"`
	for i := range 9 {
		set(t, shared, namespace, strconv.Itoa(i), value)
	}
	if got, pages := listAll(t, shared, namespace, ListRequest{}); len(got) != 9 || pages != 3 {
		t.Errorf("9 values of 1 MiB came as %d in %d pages, want 3 pages", len(got), pages)
	}
	if got, pages := listAll(t, shared, namespace, ListRequest{KeysOnly: true}); len(got) != 9 || pages != 1 {
		t.Errorf("9 keys came as %d in %d pages, want 1 page", len(got), pages)
	}
}

func TestListSeesWhatWasWrittenBefore(t *testing.T) {
	t.Parallel()

	namespace := newNamespace()
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			prefix := fmt.Sprint(w, "/")
			for i := range 20 {
				set(t, shared, namespace, prefix+strconv.Itoa(i), "1")
				if i%2 == 1 {
					if _, err := shared.Delete(testContext(t), namespace, prefix+strconv.Itoa(i), nil, ""); err != nil {
						t.Error(err)
					}
				}
				got, _, err := shared.List(testContext(t), namespace, ListRequest{Prefix: prefix, KeysOnly: true})
				if err != nil || len(got) != i/2+1 {
					t.Errorf("after %d changes List() = %q, %v", i, keysOf(got), err)
				}
			}
		})
	}
	all.Wait()
}

func TestListIndexIsDroppedWhenIdleAndBuiltAgain(t *testing.T) {
	t.Parallel()

	store, stop := openFor(t, t.TempDir(), Config{})
	set(t, store, "ns", "a", "1")
	for range 3 {
		set(t, store, "ns", "b", "1")
		if got, _ := listAll(t, store, "ns", ListRequest{}); !slices.Equal(keysOf(got), []string{"a", "b"}) {
			t.Fatalf("List() = %q", keysOf(got))
		}
		store.index.mu.Lock()
		v := store.index.view
		// The time is up.
		v.unused.Reset(0)
		store.index.mu.Unlock()
		<-v.done
		if !errors.Is(v.err, errIdle) {
			t.Fatalf("the index ended with %v", v.err)
		}
	}
	stop()
	if _, _, err := store.List(testContext(t), "ns", ListRequest{}); !errors.Is(err, journal.ErrUnavailable) {
		t.Errorf("List() after Stop() = %v, want journal.ErrUnavailable", err)
	}
}

func TestListIsCancelled(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	if _, _, err := shared.List(ctx, newNamespace(), ListRequest{}); !errors.Is(err, context.Canceled) {
		t.Errorf("List() = %v, want context.Canceled", err)
	}
}

func TestStopIsSafeTwiceAndBeforeStart(t *testing.T) {
	t.Parallel()

	store, err := New(Config{}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := store.Stop(testContext(t)); err != nil {
			t.Error(err)
		}
	}
}

func TestNewRefusesANegativeLimit(t *testing.T) {
	t.Parallel()

	if _, err := New(Config{MaxValueBytes: -1}, nil, nil); err == nil {
		t.Error("New() took a negative limit")
	}
}
