package definition

import (
	"errors"
	"slices"
	"testing"
)

func TestBuiltInVersionsOutliveTheBinary(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, graphOf("mine", "one"))
	first, err := s.Get(t.Context(), "a", Graph, "mine", "")
	if err != nil || first.Number != 1 || first.Namespace != "" || string(first.Text) != "one" {
		t.Fatalf("%+v, %v", first, err)
	}
	for range 2 {
		s.close()
		s = open(t, dir, graphOf("mine", "two"))
		if got := s.text("a", "mine", "") + s.text("b", "mine", first.Version); got != "twoone" {
			t.Errorf("current and first are %s", got)
		}
		if got := s.numbers("mine"); got != "[2 1]" {
			t.Errorf("versions %s", got)
		}
	}
	// The first again is what it was.
	s.close()
	s = open(t, dir, graphOf("mine", "one"))
	if again, err := s.Get(t.Context(), "a", Graph, "mine", ""); err != nil || again.Number != 1 || !again.CreatedAt.Equal(first.CreatedAt) {
		t.Errorf("%+v, %v", again, err)
	}
	// Nothing of it: its versions stay.
	s.close()
	s = open(t, dir)
	var missing *NotFoundError
	if _, err := s.Get(t.Context(), "a", Graph, "mine", ""); !errors.As(err, &missing) {
		t.Errorf("%v", err)
	}
	if got := s.text("a", "mine", first.Version); got != "one" {
		t.Errorf("the first is %s", got)
	}
}

func TestProvideReplacesWhatItGave(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), graphOf("mine", "one"))
	s.wantTold(" graph mine")
	provide := func(definitions ...Definition) {
		t.Helper()
		if err := s.Provide(t.Context(), definitions); err != nil {
			t.Fatal(err)
		}
	}
	provide(graphOf("a", "1"))
	s.wantTold(" graph a")
	provide(graphOf("c", "1"), graphOf("a", "1"))
	s.wantTold(" graph c")
	provide(graphOf("a", "2"), graphOf("c", "1"))
	s.wantTold(" graph a")
	provide(graphOf("a", "2"))
	s.wantTold(" graph c")
	provide(graphOf("a", "2"), graphOf("b", "1"))
	var names []string
	for _, d := range s.List("n", Graph) {
		names = append(names, d.Name+string(d.Text))
	}
	if want := []string{"a2", "b1", "mineone"}; !slices.Equal(names, want) {
		t.Errorf("there are %v", names)
	}
	if err := s.Provide(t.Context(), []Definition{graphOf("mine", "2"), graphOf("", "2")}); err == nil {
		t.Error("a name was given twice")
	}
	if got := s.text("n", "a", "") + s.text("n", "mine", ""); got != "2one" {
		t.Errorf("after a mistake: %s", got)
	}
	if err := s.Delete(t.Context(), "n", Graph, "mine", ""); err == nil {
		t.Error("what is built in was deleted")
	}
}

func TestNamespacesKeepWhatTheyHadBeforeItWasProvided(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	s.register("n", "g", "theirs")
	if err := s.Provide(t.Context(), []Definition{graphOf("g", "ours")}); err != nil {
		t.Fatal(err)
	}
	if got := s.text("n", "g", "") + s.text("other", "g", ""); got != "theirsours" {
		t.Errorf("%s", got)
	}
	if got := s.List("n", Graph); len(got) != 1 || string(got[0].Text) != "theirs" {
		t.Errorf("%+v", got)
	}
	s.register("n", "g", "theirs too")
	if err := s.Delete(t.Context(), "n", Graph, "g", ""); err != nil {
		t.Fatal(err)
	}
	if got := s.text("n", "g", "") + s.text("n", "g", VersionOf([]byte("theirs"))); got != "ourstheirs" {
		t.Errorf("%s", got)
	}
}
