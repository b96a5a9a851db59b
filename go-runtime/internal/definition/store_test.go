package definition

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

func TestTextsAreVersions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	steps := []struct {
		text    string
		number  int
		created bool
	}{{"one", 1, true}, {"one", 1, false}, {"two", 2, true}, {"one", 1, false}, {"three", 3, true}}
	for _, step := range steps {
		d, created, err := s.Register(t.Context(), "a", graphOf("g", step.text), "")
		if err != nil {
			t.Fatal(err)
		}
		if d.Number != step.number || created != step.created || d.Version != VersionOf([]byte(step.text)) ||
			string(d.Text) != step.text || d.Description != "about "+step.text || d.Namespace != "a" || d.CreatedAt.IsZero() {
			t.Errorf("Register(%s) = %+v, %v", step.text, d, created)
		}
		if now, err := s.Get(t.Context(), "a", Graph, "g", ""); err != nil || !reflect.DeepEqual(now, d) {
			t.Errorf("current after %s: %+v, %v, want %+v", step.text, now, err, d)
		}
	}
	before := s.List("a", Graph)
	for range 2 {
		if got := s.numbers("g"); got != "[3 2 1]" {
			t.Errorf("versions %s", got)
		}
		if got := s.List("a", Graph); !reflect.DeepEqual(got, before) || len(got) != 1 || string(got[0].Text) != "three" {
			t.Errorf("List() = %+v", got)
		}
		if got := s.text("a", "g", VersionOf([]byte("two"))); got != "two" {
			t.Errorf("version two: %s", got)
		}
		if got := s.text("b", "g", VersionOf([]byte("two"))); !strings.HasPrefix(got, `no version`) {
			t.Errorf("seen from elsewhere: %s", got)
		}
		if got := s.List("b", Graph); len(got) != 0 {
			t.Errorf("seen from elsewhere: %+v", got)
		}
		if got := s.List("a", Agent); len(got) != 0 {
			t.Errorf("agents: %+v", got)
		}
		// The same after a restart.
		s.close()
		s = open(t, dir)
	}
}

func TestDeletedNamesKeepTheirVersions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	one := s.register("a", "g", "one")
	s.register("a", "g", "two")
	if err := s.Delete(t.Context(), "a", Graph, "g", ""); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var missing *NotFoundError
		if err := s.Delete(t.Context(), "a", Graph, "g", ""); !errors.As(err, &missing) || missing.Name != "g" {
			t.Errorf("deleted twice: %v", err)
		}
		if _, err := s.Get(t.Context(), "a", Graph, "g", ""); !errors.As(err, &missing) {
			t.Errorf("Get() = %v", err)
		}
		if _, err := s.Versions("a", Graph, "g"); !errors.As(err, &missing) {
			t.Errorf("Versions() = %v", err)
		}
		if got := s.List("a", Graph); len(got) != 0 {
			t.Errorf("List() = %+v", got)
		}
		if got := s.text("a", "g", one.Version) + s.text("a", "g", VersionOf([]byte("two"))); got != "onetwo" {
			t.Errorf("versions are %s", got)
		}
		s.close()
		s = open(t, dir)
	}
	// The numbers go on.
	if d := s.register("a", "g", "three"); d.Number != 3 || s.numbers("g") != "[3 2 1]" {
		t.Errorf("%+v, %s", d, s.numbers("g"))
	}
}

func TestRepeatsOfACallHaveNoSecondEffect(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	ask := func(text, requestID string) (Definition, bool) {
		d, created, err := s.Register(t.Context(), "a", graphOf("g", text), requestID)
		if err != nil {
			t.Fatal(err)
		}
		return d, created
	}
	first, _ := ask("one", "r1")
	ask("two", "r2")
	if again, created := ask("one", "r1"); !created || !reflect.DeepEqual(again, first) || s.text("a", "g", "") != "two" {
		t.Errorf("repeat: %+v, %v; current is %s", again, created, s.text("a", "g", ""))
	}
	if _, created := ask("one", "r3"); created || s.text("a", "g", "") != "one" {
		t.Errorf("a call of its own: %v, current is %s", created, s.text("a", "g", ""))
	}
	remove := func() {
		if err := s.Delete(t.Context(), "a", Graph, "g", "r4"); err != nil {
			t.Error(err)
		}
	}
	remove()
	remove()
	ask("two", "r5")
	remove()
	if got := s.text("a", "g", ""); got != "two" {
		t.Errorf("current is %s", got)
	}
}

func TestStoresOnOneJournalAgree(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	other := s.beside()
	third := s.beside()
	const each = 20
	var racing sync.WaitGroup
	for i, at := range []*store{s, other} {
		for n := range each {
			racing.Go(func() { at.register("a", "g", fmt.Sprintf("%d of %d", n, i)) })
		}
	}
	racing.Wait()
	for _, at := range []*store{s, other, third} {
		// Who hears of a change hears of no older one.
		for {
			if current, err := at.Get(t.Context(), "a", Graph, "g", ""); err == nil && current.Number == 2*each {
				break
			}
			at.wantTold("a graph g")
		}
		versions, err := at.Versions("a", Graph, "g")
		if err != nil || len(versions) != 2*each {
			t.Fatalf("%d versions, %v", len(versions), err)
		}
		for i, d := range versions {
			if d.Number != 2*each-i {
				t.Errorf("version %d has number %d", 2*each-i, d.Number)
			}
		}
	}
}

func TestNamesThatAreGoneCanBeTakenAgain(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	s.register("a", "g", "one")
	k := key{"a", Graph, "g"}
	if err := s.change(t.Context(), k, func(*entry) (*change, error) { return &change{head: head{Gone: true}}, nil }); err != nil {
		t.Fatal(err)
	}
	if got := s.text("a", "g", VersionOf([]byte("one"))); !strings.HasPrefix(got, "no version") {
		t.Errorf("what is gone is %s", got)
	}
	if d := s.register("a", "g", "two"); d.Number != 1 || s.text("a", "g", "") != "two" || s.numbers("g") != "[1]" {
		t.Errorf("%+v, %s", d, s.numbers("g"))
	}
}

func TestOldVersionsGoFirst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const most = 5
	s := open(t, dir)
	s.maxVersions = most
	first := s.register("a", "g", "first")
	for n := range most - 1 {
		s.register("a", "g", strconv.Itoa(n))
	}
	// The first is current when one more comes.
	s.register("a", "g", "first")
	s.register("a", "g", "last")
	for range 2 {
		versions, err := s.Versions("a", Graph, "g")
		if err != nil || len(versions) != most || versions[0].Number != most+1 {
			t.Fatalf("%d versions, %v", len(versions), err)
		}
		if got := s.text("a", "g", first.Version); !strings.HasPrefix(got, "no version") {
			t.Errorf("the oldest is %s", got)
		}
		if got := s.text("a", "g", VersionOf([]byte("0"))); got != "0" {
			t.Errorf("the second is %s", got)
		}
		s.close()
		s = open(t, dir)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	const most = 5
	s := open(t, t.TempDir())
	s.maxDefinitions = most
	for n := range most {
		s.register("a", fmt.Sprintf("g%d", n), "text")
	}
	var limit *LimitError
	if _, _, err := s.Register(t.Context(), "a", graphOf("more", "text"), ""); !errors.As(err, &limit) || limit.Limit != most {
		t.Errorf("one more: %v", err)
	}
	s.register("b", "more", "text")
	s.register("a", "g3", "other text")
	// Of deleted names as many are kept, the oldest of which go.
	for n := range most {
		if err := s.Delete(t.Context(), "a", Graph, fmt.Sprintf("g%d", n), ""); err != nil {
			t.Fatal(err)
		}
	}
	s.register("a", "more", "text")
	if err := s.Delete(t.Context(), "a", Graph, "more", ""); err != nil {
		t.Fatal(err)
	}
	version := VersionOf([]byte("text"))
	if first, second := s.text("a", "g0", version), s.text("a", "g1", version); !strings.HasPrefix(first, "no version") || second != "text" {
		t.Errorf("deleted first %s, then %s", first, second)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), graphOf("mine", "x"))
	for name, test := range map[string]struct {
		given     Definition
		requestID string
		fields    []string
	}{
		"no kind":     {Definition{Name: "g", Text: []byte("x")}, "", []string{"kind"}},
		"all":         {Definition{Kind: "other"}, strings.Repeat("r", 65), []string{"kind", "name", "document", "request_id"}},
		"name":        {graphOf("a.b", "x"), "", []string{"name"}},
		"long name":   {graphOf(strings.Repeat("a", 101), "x"), "", []string{"name"}},
		"not UTF-8":   {graphOf("g", "\xff"), "", []string{"document"}},
		"built in":    {graphOf("mine", "y"), "", []string{"name"}},
		"its version": {graphOf("mine", "x"), "", []string{"name"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := s.Register(t.Context(), "a", test.given, test.requestID)
			var wrong *violation.Error
			if !errors.As(err, &wrong) {
				t.Fatalf("%v", err)
			}
			var fields []string
			for _, v := range wrong.Violations {
				fields = append(fields, v.Field)
			}
			if !reflect.DeepEqual(fields, test.fields) {
				t.Errorf("%v", err)
			}
		})
	}
	var large *violation.TooLargeError
	_, _, err := s.Register(t.Context(), "a", graphOf("g", strings.Repeat("x", MaxTextBytes+1)), "")
	if !errors.As(err, &large) || large.Limit != MaxTextBytes {
		t.Errorf("too large: %v", err)
	}
	if d := s.register("a", "g", strings.Repeat("x", MaxTextBytes)); len(d.Description) > 1010 {
		t.Errorf("the description has %d bytes", len(d.Description))
	}
}

// TestWhatWasAcceptedOutlivesACrash has the journal go away while texts are registered.
func TestWhatWasAcceptedOutlivesACrash(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	var (
		accepted []Definition
		racing   sync.WaitGroup
		some     = make(chan struct{})
	)
	racing.Go(func() {
		for n := 0; ; n++ {
			d, _, err := s.Register(t.Context(), "a", graphOf("g", strconv.Itoa(n)), "")
			if err != nil {
				return
			}
			if accepted = append(accepted, d); n == 20 {
				close(some)
			}
		}
	})
	<-some
	if err := s.j.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	racing.Wait()
	s.close()
	s = open(t, dir)
	for _, d := range accepted[max(0, len(accepted)-MaxVersions/2):] {
		if got := s.text("a", "g", d.Version); got != string(d.Text) {
			t.Errorf("version %d is %s", d.Number, got)
		}
	}
	// One more may have been kept whose answer was lost, and then all of it was.
	current, err := s.Get(t.Context(), "a", Graph, "g", "")
	if err != nil || current.Number < len(accepted) || current.Number > len(accepted)+1 {
		t.Fatalf("current is %+v, %v; %d were accepted", current, err, len(accepted))
	}
	if got := s.text("a", "g", current.Version); got != string(current.Text) {
		t.Errorf("current is %s", got)
	}
	if next := s.register("a", "g", "next"); next.Number != current.Number+1 {
		t.Errorf("the next has number %d after %d", next.Number, current.Number)
	}
}

// TestBrokenRecordsHideNoOthers has a record that nobody can read.
func TestBrokenRecordsHideNoOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	s.register("a", "g", "one")
	for _, subject := range []string{"definition.a", "definition.=zz.graph.g.head", "definition.a.graph.h.head", "definition.a.graph.g.0011223344556677"} {
		if _, err := s.stream.Append(t.Context(), journal.Message{Subject: subject, Data: []byte("{")}); err != nil {
			t.Fatal(err)
		}
	}
	s.close()
	s = open(t, dir)
	if got := s.text("a", "g", ""); got != "one" || len(s.List("a", Graph)) != 1 {
		t.Errorf("%s", got)
	}
}
