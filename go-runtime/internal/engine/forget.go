package engine

import (
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
		ent := e.index.oldestEnded(e.cfg.KeepEnded, before)
		if ent == nil {
			return
		}
		run := ent.snapshot()
		if err := e.purge(&run); err != nil {
			e.log.Warn("ended run not removed from the journal", "run_id", run.ID, "err", err)
		}
	}
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
