package agent

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestDeltasAreEmittedAtOnceOrJoined(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var got []string
		began := time.Now()
		d := newDeltas(func(text string) error {
			got = append(got, text)
			return nil
		})
		say := func(pieces ...string) {
			for _, piece := range pieces {
				if err := d.add(piece); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		}
		say("a")
		if !slices.Equal(got, []string{"a"}) {
			t.Fatalf("emitted %q of the first piece", got)
		}
		say("b", "", "c")
		<-time.After(joinTime)
		synctest.Wait()
		say("d")
		if err := d.close(); err != nil {
			t.Fatal(err)
		}
		if want := []string{"a", "bc", "d"}; !slices.Equal(got, want) {
			t.Errorf("emitted %q, want %q", got, want)
		}
		// The end waits for no time to pass.
		if took := time.Since(began); took != joinTime {
			t.Errorf("it took %s", took)
		}
	})
}

func TestDeltasEndWithTheFirstThatIsNotTaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		full, calls := errors.New("full"), 0
		d := newDeltas(func(string) error {
			calls++
			return full
		})
		if err := d.add("a"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := d.add("b"); !errors.Is(err, full) {
			t.Errorf("add = %v", err)
		}
		if err := d.close(); !errors.Is(err, full) || calls != 1 {
			t.Errorf("close = %v after %d calls", err, calls)
		}
	})
}
