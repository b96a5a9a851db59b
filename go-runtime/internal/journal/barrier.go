package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// barrier makes appends durable in groups: a writer waits for the next sync
// that starts after its append, and one sync serves every writer that waits.
// While no sync is under way a writer does it itself, which saves two switches
// between goroutines; what gathers meanwhile is left to a goroutine.
type barrier struct {
	// sync makes what was written durable. It is nil with Durability OS:
	// a commit then only notes the stream's mark.
	sync func() error
	fail func(error)

	turn chan struct{} // capacity 1: taken by who syncs
	kick chan struct{} // capacity 1: somebody waits
	quit chan struct{}
	done chan struct{}

	// syncs and syncTime (in nanoseconds) are of the syncs that succeeded.
	syncs    atomic.Uint64
	syncTime atomic.Int64

	mu sync.Mutex
	// running is the round whose sync is under way, nil while none is.
	running *round
	next    *round
	streams []*Stream
	err     error
}

// round is one sync and those who wait for it.
type round struct {
	awaited bool // under the barrier's mutex
	done    chan struct{}
	err     error // set before done is closed
}

func newBarrier(sync func() error, fail func(error)) *barrier {
	b := &barrier{
		sync: sync,
		fail: fail,
		turn: make(chan struct{}, 1),
		kick: make(chan struct{}, 1),
		quit: make(chan struct{}),
		done: make(chan struct{}),
		next: &round{done: make(chan struct{})},
	}
	go b.run()
	return b
}

// add makes the barrier move the stream's watermark.
func (b *barrier) add(s *Stream) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.streams = append(b.streams, s)
}

// commit returns when what the stream has up to seq, which it has appended, may
// be shown: when a sync that started after that has ended, the one under way or
// the next.
func (b *barrier) commit(ctx context.Context, s *Stream, seq uint64) error {
	b.mu.Lock()
	r := b.running
	covered := r != nil && s.syncing >= seq
	b.mu.Unlock()
	if covered {
		return r.wait(ctx)
	}
	return b.wait(ctx, s)
}

// await waits a while for syncs that others need, until one has made what the
// stream has up to seq durable. It needs none itself.
func (b *barrier) await(ctx context.Context, s *Stream, seq uint64, patience time.Duration) {
	if b.sync == nil {
		return
	}
	over := time.NewTimer(patience)
	defer over.Stop()
	for {
		b.mu.Lock()
		r := b.next
		if b.running != nil && s.syncing >= seq {
			r = b.running
		}
		failed := b.err != nil
		b.mu.Unlock()
		if failed || s.durable.Load() >= seq {
			return
		}
		select {
		case <-r.done:
		case <-over.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// wait returns when a sync that started after the call has ended, or with
// Durability OS when the stream's mark is noted.
func (b *barrier) wait(ctx context.Context, s *Stream) error {
	if b.sync == nil {
		return b.note(s)
	}
	b.mu.Lock()
	if b.err != nil {
		defer b.mu.Unlock()
		return b.err
	}
	r := b.next
	r.awaited = true
	b.mu.Unlock()
	select {
	case b.turn <- struct{}{}:
		b.flush()
		<-b.turn
	default:
		select {
		case b.kick <- struct{}{}:
		default:
		}
	}
	return r.wait(ctx)
}

func (r *round) wait(ctx context.Context) error {
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("wait for the sync: %w", context.Cause(ctx))
	}
}

// note notes the mark of one stream. It is all that Durability OS needs.
func (b *barrier) note(s *Stream) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	target := s.appended.Load()
	if b.err != nil || s.durable.Load() >= target && s.mark.last.thinned == s.thinned.Load() {
		return b.err
	}
	if err := s.mark.write(mark{committed: target, issued: target, thinned: s.thinned.Load()}); err != nil {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		b.err = err
		b.fail(err)
		return err
	}
	s.durable.Store(target)
	return nil
}

func (b *barrier) run() {
	defer close(b.done)
	for {
		select {
		case <-b.kick:
			b.turn <- struct{}{}
			b.flush()
			<-b.turn
		case <-b.quit:
			b.turn <- struct{}{} // and nobody gets it any more
			b.flush()
			return
		}
	}
}

// flush is one round, for who has the turn; none if nobody waits for it. A
// failed one is final: the kernel may have dropped the pages it could not
// write, so a second try would report a success that lies.
func (b *barrier) flush() {
	b.mu.Lock()
	r := b.next
	if !r.awaited {
		b.mu.Unlock()
		return
	}
	b.running, b.next = r, &round{done: make(chan struct{})}
	streams := b.streams
	for _, s := range streams {
		s.syncing = s.appended.Load()
	}
	err := b.err
	b.mu.Unlock()

	if err == nil {
		if err = b.syncStreams(streams); err != nil {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
			b.fail(err)
			b.mu.Lock()
			b.err = err
			b.mu.Unlock()
		}
	}
	b.mu.Lock()
	b.running = nil
	b.mu.Unlock()
	r.err = err
	close(r.done)
}

// syncStreams notes the marks, syncs, and moves the watermarks.
func (b *barrier) syncStreams(streams []*Stream) error {
	for _, s := range streams {
		if err := s.mark.write(mark{committed: s.durable.Load(), issued: s.syncing, thinned: s.thinned.Load()}); err != nil {
			return err
		}
	}
	if b.sync != nil {
		begun := time.Now()
		if err := b.sync(); err != nil {
			return err
		}
		b.syncTime.Add(int64(time.Since(begun)))
		b.syncs.Add(1)
	}
	for _, s := range streams {
		s.durable.Store(s.syncing)
		// This write may reach the disk later: it only tells, after a crash,
		// what was acknowledged from what was about to be.
		if err := s.mark.write(mark{committed: s.syncing, issued: s.syncing, thinned: s.thinned.Load()}); err != nil {
			return err
		}
	}
	return nil
}

// stop syncs once more and ends the barrier. Nobody may append any more.
func (b *barrier) stop() error {
	b.mu.Lock()
	b.next.awaited = true
	b.mu.Unlock()
	close(b.quit)
	<-b.done
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.err
	b.err = errStopped
	b.next.err = errStopped
	close(b.next.done)
	for _, s := range b.streams {
		err = errors.Join(err, s.mark.close())
	}
	return err
}
