package journal

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever waits is served by a sync that began after it began to wait.
func TestBarrierServesEveryWaiterWithALaterSync(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var written, durable int
	b := newBarrier(func() error {
		mu.Lock()
		begun := written
		mu.Unlock()
		mu.Lock()
		defer mu.Unlock()
		durable = begun
		return nil
	}, func(err error) { t.Error(err) })
	var writers sync.WaitGroup
	for range 16 {
		writers.Go(func() {
			for range 300 {
				mu.Lock()
				written++
				mine := written
				mu.Unlock()
				if err := b.wait(t.Context(), nil); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if durable < mine {
					t.Errorf("write %d was acknowledged when %d were durable", mine, durable)
				}
				mu.Unlock()
			}
		})
	}
	writers.Wait()
	if err := b.stop(); err != nil {
		t.Error(err)
	}
	if err := b.wait(t.Context(), nil); !errors.Is(err, errStopped) {
		t.Errorf("after stop: %v", err)
	}
}

// Who comes while a sync is under way that has what it waits for needs no other one.
func TestCommitJoinsTheSyncThatCoversIt(t *testing.T) {
	t.Parallel()
	file, err := openMark(t.TempDir(), "LOG")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		syncs := make(chan struct{}, 3)
		release := make(chan struct{})
		b := newBarrier(func() error { syncs <- struct{}{}; <-release; return nil }, func(err error) { t.Error(err) })
		s := &Stream{mark: file}
		b.add(s)
		results := make(chan error, 3)
		commit := func(seq uint64) {
			go func() { results <- b.commit(t.Context(), s, seq) }()
			synctest.Wait()
		}
		s.noteAppended(2)
		commit(1)
		commit(2)
		s.noteAppended(3)
		commit(3)
		release <- struct{}{}
		synctest.Wait()
		if len(results) != 2 || s.durable.Load() != 2 {
			t.Errorf("after the first sync %d of 3 went on, %d durable", len(results), s.durable.Load())
		}
		close(release)
		for range 3 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if len(syncs) != 2 || s.durable.Load() != 3 {
			t.Errorf("%d syncs, %d durable", len(syncs), s.durable.Load())
		}
		if err := b.stop(); err != nil {
			t.Error(err)
		}
	})
}

// Who can wait needs no sync while others need one soon, and does not wait for ever.
func TestAwaitLeavesTheSyncToOthers(t *testing.T) {
	t.Parallel()
	file, err := openMark(t.TempDir(), "LOG")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		b := newBarrier(func() error { return nil }, func(err error) { t.Error(err) })
		s := &Stream{mark: file}
		b.add(s)
		s.noteAppended(1)
		begun := time.Now()
		b.await(t.Context(), s, 1, time.Second)
		if passed := time.Since(begun); passed != time.Second || b.syncs.Load() != 0 {
			t.Errorf("waited %s for nobody, %d syncs", passed, b.syncs.Load())
		}
		waited := make(chan struct{})
		go func() {
			b.await(t.Context(), s, 1, time.Hour)
			close(waited)
		}()
		synctest.Wait()
		if err := b.commit(t.Context(), s, 1); err != nil {
			t.Error(err)
		}
		<-waited
		if passed := time.Since(begun); passed != time.Second || b.syncs.Load() != 1 {
			t.Errorf("the other's sync ended it after %s, %d syncs", passed, b.syncs.Load())
		}
		if err := b.stop(); err != nil {
			t.Error(err)
		}
	})
}

// A sync that takes long holds up neither those whose context ends nor, once it
// has ended, those who came meanwhile; stop waits for all of it.
func TestBarrierWithASlowSync(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := newBarrier(func() error { <-release; return nil }, func(err error) { t.Error(err) })
		results := make(chan error, 3)
		for range 2 {
			go func() { results <- b.wait(t.Context(), nil) }()
			synctest.Wait()
		}
		gone := errors.New("caller has gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(gone)
		if err := b.wait(ctx, nil); !errors.Is(err, gone) {
			t.Errorf("with a context that has ended: %v", err)
		}
		stopped := make(chan error)
		go func() { stopped <- b.stop() }()
		synctest.Wait()
		close(release)
		for range 2 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}
