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
		old := e.index.takeOld(e.cfg.KeepEnded, before, e.followed.isBehind)
		if len(old) == 0 {
			return
		}
		for _, ent := range old {
			select {
			case <-e.stopping:
				return
			default:
			}
			run := ent.snapshot()
			if err := e.purge(&run); err != nil {
				e.log.Warn("ended run not removed from the journal", "run_id", run.ID, "err", err)
			}
		}
	}
}

// followers are those who keep rows of the named runs of a namespace, and follow
// with NamedOnly: more runs than otherwise are kept for one that is behind. Of one
// who has not followed since the engine was started nothing is known.
type followers struct {
	mu   sync.Mutex
	open map[*followerPlace]struct{}
	// left is where the latest to leave a namespace had come to.
	left map[string]*followerPlace
}

// followerPlace is what a follower has for certain, and what it was sent since.
type followerPlace struct {
	namespace string
	has, sent uint64
	sentAt    time.Time
	leftAt    time.Time
}

const (
	// writeTime is how long a follower may take to write down what it was sent. One
	// that ends before follows again from where it has come to.
	writeTime = time.Minute
	// awayTime is how long one who has left is waited for.
	awayTime = 24 * time.Hour
)

// begin notes that somebody follows a namespace who has everything up to a sequence.
func (f *followers) begin(namespace string, after uint64) *followerPlace {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		f.open, f.left = map[*followerPlace]struct{}{}, map[string]*followerPlace{}
	}
	// It is the one that left, until the contrary is known.
	delete(f.left, namespace)
	place := &followerPlace{namespace: namespace, has: after, sent: after, sentAt: time.Now()}
	f.open[place] = struct{}{}
	return place
}

// note notes that a follower was sent everything up to a sequence.
func (f *followers) note(place *followerPlace, position uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(place.sentAt) >= writeTime {
		place.has, place.sent, place.sentAt = place.sent, position, now
	}
}

// end notes that a follower has left.
func (f *followers) end(place *followerPlace) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, place)
	place.leftAt = time.Now()
	f.left[place.namespace] = place
}

// isBehind reports whether the end of a run may be missing from somebody's rows.
func (f *followers) isBehind(run *Run) bool {
	if !run.named {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for place := range f.open {
		if place.namespace == run.Namespace && place.has < run.Sequence {
			return true
		}
	}
	left := f.left[run.Namespace]
	return left != nil && left.has < run.Sequence && time.Since(left.leftAt) < awayTime
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
