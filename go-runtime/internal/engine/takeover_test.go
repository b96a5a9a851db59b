package engine

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

func taking(key string) CreateRequest {
	r := chat()
	r.Options.Concurrency = &Concurrency{Key: key, Strategy: CancelWhoHasTaken}
	return r
}

// wantOneLeft checks that of runs that took a key from each other the last of the
// log is the only one that goes on.
func (b *bundle) wantOneLeft(ids []string) {
	b.t.Helper()
	first := func(id string) uint64 { return b.index.get("default", id).created }
	last := slices.MaxFunc(ids, func(a, c string) int { return int(first(a)) - int(first(c)) })
	for _, id := range ids {
		if id != last {
			b.wantEnd(id, Cancelled, ReasonCancelled)
		}
	}
	if state := b.GetState(last); state.Ended() {
		b.t.Fatalf("the last run is %s", state)
	}
}

func TestRunsThatTakeAKeyAtTheSameTimeLeaveTheLast(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	b.worker(10, 0)
	for round := range 20 {
		ids := make([]string, 8)
		var all sync.WaitGroup
		for i := range ids {
			all.Go(func() { ids[i] = b.create(taking(string(rune('a' + round)))).ID })
		}
		all.Wait()
		b.wantOneLeft(ids)
	}
	// As one batch.
	created := b.createAll([]CreateRequest{taking("batch"), taking("batch"), taking("batch")})
	b.wantOneLeft([]string{created[0].Run.ID, created[1].Run.ID, created[2].Run.ID})
}

func TestRunWhoseKeyWasTakenAsTheRuntimeDiedIsCancelled(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	b.fault(&faulty{refuse: func(m journal.Message) error {
		if strings.Contains(string(m.Data), `"state":"cancelled"`) {
			return errors.New("nothing more reaches the disk")
		}
		return nil
	}})
	queue := taking("key")
	queue.Options.Concurrency = &Concurrency{Key: "key"}
	held, waits := b.create(queue).ID, b.create(queue).ID
	other := b.create(taking("other")).ID
	taker := b.create(taking("key")).ID
	behind := b.create(queue).ID
	b.crash()
	again := openEngine(t, b.dir, Config{}, tasks{})
	again.wantEnd(held, Cancelled, ReasonCancelled)
	again.wantEnd(waits, Cancelled, ReasonCancelled)
	for _, id := range []string{other, taker, behind} {
		if state := again.GetState(id); state != Queued {
			t.Errorf("run %s is %s", id, state)
		}
	}
}

// TestRunsThatHadNoKeyAreNotOvertakenByARestart has a run wait for an answer, and
// another for its time, as a third takes the key of both: it takes it from neither.
func TestRunsThatHadNoKeyAreNotOvertakenByARestart(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	queue, delayed := chat(), chat()
	queue.Options.Concurrency = &Concurrency{Key: "key"}
	delayed.Options.Concurrency = &Concurrency{Key: "key"}
	delayed.Delay = time.Hour
	asks := b.create(queue).ID
	w.report(w.assignment(), 1, Report{Park: &Wait{InterruptID: "q#1"}})
	b.awaitWait(asks)
	later := b.create(delayed).ID
	taker := b.create(taking("key")).ID
	w.assignment()
	w.disconnect()
	b.crash()
	again := openEngine(t, b.dir, Config{}, tasks{})
	for id, state := range map[string]State{asks: Waiting, later: Queued, taker: Running} {
		if got := again.GetState(id); got != state {
			t.Errorf("run %s is %s, want %s", id, got, state)
		}
	}
}

// TestKeyIsKeptByRunsThatAreUnderWay has a run hold its key over a restart of the
// runtime while its worker goes on, and while it waits for a sub-run.
func TestKeyIsKeptByRunsThatAreUnderWay(t *testing.T) {
	t.Parallel()
	for name, waits := range map[string]bool{"running": false, "waiting for a sub-run": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, Config{}, tasks{})
			w := b.worker(5, 0)
			r := chat()
			r.Options.Concurrency = &Concurrency{Key: "key"}
			first := b.create(r).ID
			a := w.assignment()
			b.create(r)
			var held []HeldLease
			if waits {
				w.report(a, 1, Report{StartRun: &StartRun{Key: "helper#1", Request: chat()}})
				child := next(w, &w.children)
				a = w.assignment()
				w.report(Assignment{Run: Run{ID: first}, Lease: child.Lease}, 2, Report{Park: &Wait{Runs: []string{child.Run.ID}}})
				b.awaitWait(first)
				w.idle()
			}
			held = append(held, HeldLease{RunID: a.Run.ID, Lease: a.Lease})
			w.disconnect()
			b.crash()
			b = openEngine(t, b.dir, Config{}, tasks{})
			w.b = b
			w.connect(held...)
			w.idle()
			w.succeed(a, 3)
			if waits {
				if a = w.assignment(); a.Run.ID != first {
					t.Fatalf("run %s came before the one that holds the key", a.Run.ID)
				}
				w.idle()
				w.succeed(a, 1)
			}
			if second := w.assignment(); second.Run.ID == first {
				t.Fatal("the first run was begun again")
			}
			w.disconnect()
		})
	}
}

func TestDelayedRunTakesNoKeyBeforeItsTime(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(5, 0)
	rejecting := chat()
	rejecting.Options.Concurrency = &Concurrency{Key: "key", Strategy: RejectWhenTaken}
	delayed := rejecting
	delayed.Delay = time.Hour
	b.create(delayed)
	now := b.create(rejecting).ID
	if a := w.assignment(); a.Run.ID != now {
		t.Fatalf("run %s was assigned", a.Run.ID)
	}
	_, _, err := b.CreateRun(t.Context(), "default", rejecting)
	if _, taken := errors.AsType[*ConcurrencyLimitError](err); !taken {
		t.Errorf("a second run that is to be refused: %v", err)
	}
}

func TestWatchFromAPlaceOfAnotherJournalBeginsAnew(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{}, tasks{})
	w := b.worker(1, 0)
	id := b.create(chat()).ID
	w.succeed(w.assignment(), 1)
	b.wait(id)
	all := b.history(id, 0, 3)
	if again := b.history(id, 1_000_000, 1); len(again) != len(all) {
		t.Fatalf("%d of %d events", len(again), len(all))
	}
}
