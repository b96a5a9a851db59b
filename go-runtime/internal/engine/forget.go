package engine

import (
	"sync"
	"time"
)

// forgetEvery is how often ended runs are looked through for what is too old.
const forgetEvery = 10 * time.Second

// forget removes ended runs beyond those to keep, until the engine stops.
func (e *Engine) forget() {
	ticker := time.NewTicker(forgetEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			e.forgetOld()
		case <-e.stopping:
			return
		}
	}
}

func (e *Engine) forgetOld() {
	before := e.cfg.Now().Add(-e.cfg.KeepEndedFor)
	for {
		select {
		case <-e.stopping:
			return
		default:
		}
		ent := e.index.oldestEnded(e.cfg.KeepEnded, before, e.followed.isBefore)
		if ent == nil {
			return
		}
		run := ent.snapshot()
		if err := e.purge(&run); err != nil {
			e.log.Warn("ended run not removed from the journal", "run_id", run.ID, "err", err)
		}
	}
}

// followers is how far whoever keeps rows of the named runs of a namespace has come,
// who follows with NamedOnly: an ended run is kept until its end is in the rows. Of
// one who has not followed since the engine was started nothing is known.
type followers struct {
	mu     sync.Mutex
	places map[string]followerPlace
}

// followerPlace is what a follower has for certain, and what it was sent since.
type followerPlace struct {
	has, sent uint64
	sentAt    time.Time
}

// writeTime is how long a follower may take to write down what it was sent. One
// that ends before follows again from where it has come to.
const writeTime = time.Minute

// begin notes that a follower of a namespace has everything up to a sequence.
func (f *followers) begin(namespace string, after uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.places == nil {
		f.places = map[string]followerPlace{}
	}
	f.places[namespace] = followerPlace{has: after, sent: after, sentAt: time.Now()}
}

// note notes that a follower was sent everything up to a sequence.
func (f *followers) note(namespace string, position uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	place := f.places[namespace]
	if now := time.Now(); now.Sub(place.sentAt) >= writeTime {
		place.has, place.sent, place.sentAt = place.sent, position, now
	}
	f.places[namespace] = place
}

// isBefore reports whether the end of a run may be missing from the rows.
func (f *followers) isBefore(run *Run) bool {
	if !run.named {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	place, found := f.places[run.Namespace]
	return found && place.has < run.Sequence
}

// purge removes a run from the journal, its own records last: as long as they are
// there the next start finds it, and what is left of it is removed then.
func (e *Engine) purge(run *Run) error {
	for _, subject := range []string{eventSubject(run.Namespace, run.ID), runSubject(run.Namespace, run.ID)} {
		if err := e.stream.Purge(e.work, subject); err != nil {
			return err
		}
	}
	return nil
}
