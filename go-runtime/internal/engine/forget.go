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

// followers is how far those who keep rows of the named runs of a namespace have come,
// who follow with NamedOnly: an ended run is kept until they have its end. Of those
// who have not followed since the engine was started nothing is known.
type followers struct {
	mu     sync.Mutex
	newest map[string]uint64
}

// note notes that a follower of a namespace has everything up to a sequence.
func (p *followers) note(namespace string, sequence uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.newest == nil {
		p.newest = map[string]uint64{}
	}
	p.newest[namespace] = max(p.newest[namespace], sequence)
}

// isBefore reports whether followers have yet to hear how a run ended.
func (p *followers) isBefore(run *Run) bool {
	if !run.named {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	place, found := p.newest[run.Namespace]
	return found && place < run.Sequence
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
