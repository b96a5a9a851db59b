package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/state"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Process-wide clocks of the NATS server and client, without an end.
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.init.0.func1"),
	)
}

var _ graph.Store = (*Store)(nil)

func open(t *testing.T) *state.Store {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	j, err := journal.New(journal.Config{DataDir: t.TempDir(), Durability: journal.OS}, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s, err := state.New(state.Config{}, j, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestItemsAreFoundByTheirNames(t *testing.T) {
	t.Parallel()
	kept := open(t)
	s := New(kept, "default")
	// Each of them is another item.
	names := [][]string{
		{"a", "b"}, {"a", "b", "c"}, {"a/b", "c"}, {"a%2Fb", "c"}, {"a", "b/c"}, {"ab", "c"}, {"ä", "ö ü"}, {".", ".."},
	}
	for i, name := range names {
		last := len(name) - 1
		if err := s.Put(t.Context(), name[:last], name[last], map[string]any{"i": float64(i)}, 0); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range names {
		last := len(name) - 1
		item, err := s.Get(t.Context(), name[:last], name[last])
		want := &graph.Item{Namespace: name[:last], Key: name[last], Value: map[string]any{"i": float64(i)}}
		if err != nil || !reflect.DeepEqual(item, want) {
			t.Errorf("%q is %+v, %v", name, item, err)
		}
	}
	find := func(s *Store, limit int, prefix ...string) (found []string) {
		t.Helper()
		items, err := s.Search(t.Context(), prefix, limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range items {
			found = append(found, strings.Join(append(item.Namespace, item.Key), "|"))
		}
		return found
	}
	if got := find(s, 0, "a"); !slices.Equal(got, []string{"a|b", "a|b/c", "a|b|c"}) && !slices.Equal(got, []string{"a|b", "a|b|c", "a|b/c"}) {
		t.Errorf("below a are %q", got)
	}
	if got := find(s, 0); len(got) != len(names) {
		t.Errorf("all are %q", got)
	}
	if got := find(New(kept, "other"), 0); len(got) != 0 {
		t.Errorf("another namespace has %q", got)
	}
	if err := errors.Join(s.Delete(t.Context(), []string{"a"}, "b"), s.Delete(t.Context(), []string{"a"}, "none")); err != nil {
		t.Fatal(err)
	}
	if item, err := s.Get(t.Context(), []string{"a"}, "b"); err != nil || item != nil {
		t.Errorf("%+v, %v", item, err)
	}
}

func TestSearchHasALimit(t *testing.T) {
	t.Parallel()
	s := New(open(t), "default")
	for i := range 30 {
		if err := s.Put(t.Context(), []string{"a"}, fmt.Sprintf("%02d", i), map[string]any{}, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	for limit, want := range map[int]int{0: 10, 7: 7, 30: 30, 5000: 30} {
		if items, err := s.Search(t.Context(), []string{"a"}, limit); err != nil || len(items) != want {
			t.Errorf("limit %d: %d items, %v", limit, len(items), err)
		}
	}
}

func TestMistakesAreNamed(t *testing.T) {
	t.Parallel()
	s := New(open(t), "default")
	for name, err := range map[string]error{
		"namespace":    s.Put(t.Context(), nil, "k", map[string]any{}, 0),
		"namespace[1]": s.Put(t.Context(), []string{"a", ""}, "k", map[string]any{}, 0),
		"key":          s.Delete(t.Context(), []string{"a"}, ""),
		"value":        s.Put(t.Context(), []string{"a"}, "k", nil, 0),
		"ttl":          s.Put(t.Context(), []string{"a"}, "k", map[string]any{}, time.Millisecond),
	} {
		var wrong *violation.Error
		if !errors.As(err, &wrong) || wrong.Violations[0].Field != name {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Get(t.Context(), []string{strings.Repeat("x", 600)}, "k"); !errors.As(err, new(*violation.Error)) {
		t.Error(err)
	}
}
