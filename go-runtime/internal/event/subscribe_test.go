package event

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

func TestSubscribeFiltersByType(t *testing.T) {
	t.Parallel()

	published := []string{"order.created", "order", "order.line.added", "user.created", "orders", "ü.x", "order."}
	tests := map[string]struct {
		types []string
		want  string
	}{
		"one type":        {[]string{"order.created"}, "order.created"},
		"several types":   {[]string{"order", "user.created"}, "order user.created"},
		"every type":      {[]string{"*"}, strings.Join(published, " ")},
		"words":           {[]string{"order.*"}, "order.created order.line.added order."},
		"part of a word":  {[]string{"ord*"}, "order.created order order.line.added orders order."},
		"late part":       {[]string{"order.l*"}, "order.line.added"},
		"overlapping":     {[]string{"order.*", "order.created", "ord*", "order.l*"}, "order.created order order.line.added orders order."},
		"encoded":         {[]string{"ü.*"}, "ü.x"},
		"prefix and type": {[]string{"us*", "order.created"}, "order.created user.created"},
	}
	namespace := newNamespace()
	for _, eventType := range published {
		publish(t, shared, namespace, "", Event{Type: eventType, Data: []byte("1")})
		publish(t, shared, newNamespace(), "", Event{Type: eventType, Data: []byte(`"another namespace's"`)})
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			want := strings.Fields(test.want)
			var got []string
			for _, e := range collect(t, shared, namespace, Start{Beginning: true}, len(want), test.types...) {
				got = append(got, e.Type)
				if string(e.Data) != "1" {
					t.Errorf("got %s", e.Data)
				}
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestSubscribeFromNow(t *testing.T) {
	t.Parallel()

	namespace := newNamespace()
	before := publish(t, shared, namespace, "", numbered("n", 0, 3)...)
	var (
		got   []Event
		begin uint64
	)
	err := shared.Subscribe(testContext(t), namespace, []string{"n"}, Start{},
		func(after uint64) error {
			begin = after
			publish(t, shared, namespace, "", numbered("n", 3, 5)...)
			return nil
		},
		func(events []Event, _ uint64) error {
			if got = append(got, events...); len(got) >= 2 {
				return errEnough
			}
			return nil
		})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	if begin < before[2].Sequence {
		t.Errorf("began after %d, want at least %d", begin, before[2].Sequence)
	}
	if string(got[0].Data) != "3" || string(got[1].Data) != "4" || got[0].Sequence <= begin {
		t.Errorf("got %s at %d and %s, want 3 and 4 after %d", got[0].Data, got[0].Sequence, got[1].Data, begin)
	}
}

func TestSubscribeAfterASequence(t *testing.T) {
	t.Parallel()

	namespace := newNamespace()
	published := publish(t, shared, namespace, "", numbered("n", 0, 5)...)
	got := collect(t, shared, namespace, Start{After: &published[2].Sequence}, 2, "n")
	if got[0].ID != published[3].ID || got[1].ID != published[4].ID {
		t.Errorf("got %s and %s, want %s and %s", got[0].ID, got[1].ID, published[3].ID, published[4].ID)
	}
}

func TestSubscribeEndsAsToldTo(t *testing.T) {
	t.Parallel()

	namespace := newNamespace()
	publish(t, shared, namespace, "", numbered("n", 0, 1)...)
	broken := errors.New("broken")
	tests := map[string]struct {
		added func(uint64) error
		fn    func(cancel func()) error
		want  error
	}{
		"added fails": {func(uint64) error { return broken }, nil, broken},
		"fn fails":    {noAdded, func(func()) error { return broken }, broken},
		"cancelled":   {noAdded, func(cancel func()) error { cancel(); return nil }, context.Canceled},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			ctx, cancel := context.WithCancel(testContext(t))
			err := shared.Subscribe(ctx, namespace, []string{"*"}, Start{Beginning: true}, test.added, func([]Event, uint64) error {
				return test.fn(cancel)
			})
			if !errors.Is(err, test.want) {
				t.Errorf("Subscribe() = %v, want %v", err, test.want)
			}
		})
	}
}

// TestSubscribeResumesAnywhere cuts a subscription at random points, while
// events are being published, and resumes it at the position it had reached.
func TestSubscribeResumesAnywhere(t *testing.T) {
	t.Parallel()

	const events = 3000
	tests := map[string][]string{
		"server's filter": {"wanted.*"},
		"own filter":      {"want*"},
		"every type":      {"*"},
	}
	for name, types := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			namespace := newNamespace()
			var writer sync.WaitGroup
			writer.Go(func() {
				for i := 0; i < events; i += 100 {
					publish(t, shared, namespace, "", numbered("wanted.n", i, i+100)...)
					if name != "every type" {
						publish(t, shared, namespace, "", numbered("wan", 0, 10)...)
					}
				}
			})
			defer writer.Wait()

			start := Start{Beginning: true}
			next := 0
			for cuts := 0; next < events; cuts++ {
				reached := uint64(0)
				until := next + 1 + rand.IntN(events/10)
				err := shared.Subscribe(testContext(t), namespace, types, start, noAdded, func(batch []Event, position uint64) error {
					for _, e := range batch {
						if string(e.Data) != strconv.Itoa(next) {
							return fmt.Errorf("after %d cuts got event %s, want %d", cuts, e.Data, next)
						}
						next++
					}
					reached = position
					if next >= min(until, events) {
						return errEnough
					}
					return nil
				})
				if !errors.Is(err, errEnough) {
					t.Fatal(err)
				}
				start = Start{After: &reached}
			}
		})
	}
}

func TestSubscribeMovesThePositionOverOtherTypes(t *testing.T) {
	t.Parallel()

	for name, wanted := range map[string]string{"server's filter": "wanted", "own filter": "want*"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			namespace := newNamespace()
			var skipped uint64
			// What was published before the subscription began comes to its own filter.
			start := Start{After: &publish(t, shared, namespace, "", Event{Type: "wanted", Data: []byte("1")})[0].Sequence}
			added := func(uint64) error {
				skipped = publish(t, shared, namespace, "", numbered("other", 0, 100)...)[99].Sequence
				return nil
			}
			err := shared.Subscribe(testContext(t), namespace, []string{wanted}, start, added, func(events []Event, position uint64) error {
				if len(events) > 0 {
					return fmt.Errorf("got %q", events[0].Type)
				}
				if position >= skipped {
					return errEnough
				}
				// Positions are worth a call once in a while only, hence more to skip.
				_, err := shared.Publish(testContext(t), namespace, numbered("other", 0, 1), "")
				return err
			})
			if !errors.Is(err, errEnough) {
				t.Fatal(err)
			}
		})
	}
}

func TestRetentionBySizeEndsASubscriptionThatMissesEvents(t *testing.T) {
	t.Parallel()

	events, _ := openFor(t, t.TempDir(), Config{MaxBytes: 256 << 10})
	namespace := newNamespace()
	data := []byte(`"` + strings.Repeat("x", 1000) + `"`)
	var last uint64
	for range 10 {
		batch := make([]Event, 100)
		for i := range batch {
			batch[i] = Event{Type: "n", Data: data}
		}
		last = publish(t, events, namespace, "", batch...)[99].Sequence
	}

	one := uint64(1)
	err := events.Subscribe(testContext(t), namespace, []string{"*"}, Start{After: &one}, noAdded, func([]Event, uint64) error {
		return errEnough
	})
	var truncated *journal.TruncatedError
	if !errors.As(err, &truncated) || !errors.Is(err, journal.ErrTruncated) || truncated.Oldest <= 1 {
		t.Fatalf("Subscribe() after a removed event = %v, want a TruncatedError", err)
	}

	count := last - truncated.Oldest + 1
	for _, start := range []Start{{Beginning: true}, {After: new(truncated.Oldest - 1)}} {
		got := collect(t, events, namespace, start, int(count), "*")
		if uint64(len(got)) != count || got[0].Sequence != truncated.Oldest {
			t.Errorf("got %d events from %d on, want %d from %d on", len(got), got[0].Sequence, count, truncated.Oldest)
		}
	}
}

func TestEventsSurviveARestart(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	events, stop := openFor(t, dir, Config{})
	first := publish(t, events, "ns", "request", numbered("n", 0, 3)...)
	stop()
	events, _ = openFor(t, dir, Config{})
	again := publish(t, events, "ns", "request", numbered("n", 0, 5)...)
	got := collect(t, events, "ns", Start{Beginning: true}, 5, "*")
	for i, e := range got {
		if string(e.Data) != strconv.Itoa(i) || e.ID != again[i].ID || i < 3 && e.ID != first[i].ID {
			t.Errorf("event %d is %s with %s, published as %s", i, e.ID, e.Data, again[i].ID)
		}
	}
}

// A lost range may have held events of any type, so everybody who comes to it is
// told, once, and goes on behind it.
func TestADamagedDiskEndsASubscriptionThatMissesEvents(t *testing.T) {
	t.Parallel()

	const batches, size = 30, 100
	dir := t.TempDir()
	events, stop := openFor(t, dir, Config{})
	data := []byte(`"` + strings.Repeat("x", 8000) + `"`)
	for range batches {
		batch := make([]Event, size)
		for i := range batch {
			batch[i] = Event{Type: "wanted", Data: data}
		}
		publish(t, events, "ns", "", batch...)
	}
	stop()
	block := filepath.Join(dir, "store", "jetstream", "$G", "streams", streamName, "msgs", "2.blk")
	content, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 0x10
	if err := os.WriteFile(block, content, 0o600); err != nil {
		t.Fatal(err)
	}

	events, _ = openFor(t, dir, Config{})
	for _, wanted := range []string{"*", "want*", "wanted", "other", "oth*"} {
		var seen []uint64
		reached, start := uint64(0), Start{Beginning: true}
		take := func(batch []Event, position uint64) error {
			for _, e := range batch {
				seen = append(seen, e.Sequence)
			}
			if reached = position; position >= batches*size {
				return errEnough
			}
			return nil
		}
		err := events.Subscribe(testContext(t), "ns", []string{wanted}, start, noAdded, take)
		var truncated *journal.TruncatedError
		if !errors.As(err, &truncated) || !truncated.Damaged || truncated.Oldest <= reached+1 {
			t.Fatalf("%s: Subscribe() over a lost range = %v at %d, want a TruncatedError", wanted, err, reached)
		}
		if strings.HasPrefix(wanted, "oth") {
			continue
		}
		lost := int(truncated.Oldest - 1 - reached)
		start = Start{After: new(truncated.Oldest - 1)}
		if err := events.Subscribe(testContext(t), "ns", []string{wanted}, start, noAdded, take); !errors.Is(err, errEnough) {
			t.Fatalf("%s: Subscribe() behind the lost range = %v", wanted, err)
		}
		if len(seen) != batches*size-lost || !slices.IsSorted(seen) {
			t.Errorf("%s: got %d events, want %d less %d that are lost", wanted, len(seen), batches*size, lost)
		}
	}
}
