package engine

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

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
