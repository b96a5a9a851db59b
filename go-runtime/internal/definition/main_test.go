package definition

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience fails a test that waits in vain.
const patience = 30 * time.Second

// ticking is a clock that is a second later at each look.
func ticking() func() time.Time {
	var mu sync.Mutex
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Second)
		return now
	}
}

// store is a store on a journal of its own.
type store struct {
	*Store

	t *testing.T
	j *journal.Journal
	// told has a namespace, kind and name for each change.
	told chan string
}

func newStore(t *testing.T, j *journal.Journal) *store {
	t.Helper()
	s := &store{Store: New(j, ticking(), slog.New(slog.DiscardHandler)), t: t, j: j, told: make(chan string, 1000)}
	s.OnChange(func(namespace string, kind Kind, name string) { s.told <- namespace + " " + string(kind) + " " + name })
	return s
}

// wantTold waits for a change.
func (s *store) wantTold(want string) {
	s.t.Helper()
	select {
	case got := <-s.told:
		if got != want {
			s.t.Errorf("told of %q, want %q", got, want)
		}
	case <-time.After(patience):
		s.t.Fatal("nothing was told")
	}
}

func open(t *testing.T, dir string, builtIn ...Definition) *store {
	t.Helper()
	j, err := journal.New(journal.Config{DataDir: dir, Durability: journal.OS}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, j)
	for _, d := range builtIn {
		s.AddBuiltIn(d)
	}
	t.Cleanup(s.close)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// close ends the store and its journal; a second time, nothing.
func (s *store) close() {
	ctx := context.Background()
	if err := errors.Join(s.Stop(ctx), s.j.Stop(ctx)); err != nil {
		s.t.Error(err)
	}
}

// beside is another store on the same journal, as another runtime has it.
func (s *store) beside() *store {
	s.t.Helper()
	other := newStore(s.t, s.j)
	s.t.Cleanup(func() {
		if err := other.Stop(context.Background()); err != nil {
			s.t.Error(err)
		}
	})
	if err := other.begin(s.t.Context(), s.stream); err != nil {
		s.t.Fatal(err)
	}
	return other
}

func graphOf(name, text string) Definition {
	return Definition{Kind: Graph, Name: name, Text: []byte(text), Description: "about " + text}
}

func (s *store) register(namespace, name, text string) Definition {
	s.t.Helper()
	d, _, err := s.Register(s.t.Context(), namespace, graphOf(name, text), "")
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// text returns that of a version, or the error's.
func (s *store) text(namespace, name, version string) string {
	d, err := s.Get(s.t.Context(), namespace, Graph, name, version)
	if err != nil {
		return err.Error()
	}
	return string(d.Text)
}

// numbers are those of the versions that namespace a sees of a name.
func (s *store) numbers(name string) string {
	versions, err := s.Versions("a", Graph, name)
	if err != nil {
		return err.Error()
	}
	var numbers []int
	for _, d := range versions {
		numbers = append(numbers, d.Number)
	}
	return fmt.Sprint(numbers)
}
