package journal

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server/gsl"
)

const (
	// ringRecords and ringBytes bound the recent records kept in memory.
	ringRecords = 4096
	ringBytes   = 8 << 20
	// followerPending is how many records may wait for a follower before it
	// has to catch up by itself.
	followerPending = 1024
	// followBatch bounds one call of a follower.
	followBatch = 256
	// diskReaders bounds how many followers of a stream catch up from disk at
	// a time; the others wait their turn.
	diskReaders = 16
	// positionInterval is how often a follower hears of a moved position.
	positionInterval = time.Second
	// tailLinger is how long the tail outlives its last follower.
	tailLinger = time.Minute
	// tailPatience is how long records that can wait are left to a sync that
	// somebody else needs.
	tailPatience = 10 * time.Millisecond
	// tailRetry is the pause after a failed read.
	tailRetry = 200 * time.Millisecond
)

var errStopped = fmt.Errorf("%w: journal is stopped", ErrUnavailable)

// tail reads the stream's new records once for all followers and keeps the
// recent ones in a ring. A record is handed only to the followers whose
// filters it matches, as a reference into the ring: a follower that does not
// keep up loses its references and reads from disk, so it costs neither
// memory nor anybody's time.
type tail struct {
	stream *Stream
	disk   chan struct{} // slots of disk readers

	mu        sync.Mutex
	followers map[*follower]struct{}
	interest  *gsl.GenericSublist[*follower]
	stopped   bool
	cancel    context.CancelFunc // of run; nil while it does not run
	done      chan struct{}      // closed when run has ended
	linger    *time.Timer

	ring  []Record
	start uint64 // number of ring[0]; numbers count every record that passed
	size  int    // bytes in the ring
	// The ring has every record with a sequence above base and up to head.
	base, head uint64
}

// follower is one call of Follow.
type follower struct {
	filters []string
	patient bool          // its records can wait a little
	wake    chan struct{} // capacity 1
	cursor  *cursor       // open while it catches up from disk

	// Guarded by tail.mu.
	position uint64   // everything up to it was handed over
	attached bool     // the tail refers new records to it
	pending  []uint64 // numbers of records in the ring
	skipped  bool     // the latest batch was skipped, its position is still to be told
	due      bool     // it is time to tell it
}

func newTail(s *Stream) *tail {
	return &tail{
		stream:    s,
		disk:      make(chan struct{}, diskReaders),
		followers: make(map[*follower]struct{}),
		interest:  gsl.NewSublist[*follower](),
	}
}

// Follow calls fn with batches of durable records with a sequence above after
// that match the filters (NATS wildcards; none means all), in order, without
// gap or repeat, until ctx ends or fn returns an error, which is returned as
// is. Records are shared with other followers: fn must not change them. fn
// returns Skip for a batch that has nothing for it.
//
// position is the sequence up to which everything was handed over. fn also
// gets an empty batch when only the position moved, about once a second.
//
// Follow reads at fn's pace: a slow fn blocks neither writers nor other
// followers, and catches up from disk. It ends with a *TruncatedError when
// retention (MaxAge, MaxBytes) removed records before they could be handed
// over, and in front of a range that was lost with a damaged disk, whatever the
// filters: nobody knows what it held. On a LastPerSubject stream superseded
// records are no truncation, and a loss is told also to those who had read
// past it before it was found: what they saw last may be gone.
func (s *Stream) Follow(
	ctx context.Context, after uint64, filters []string, fn func(batch []Record, position uint64) error, options ...FollowOption,
) error {
	if len(filters) == 0 {
		filters = []string{">"}
	}
	var o followOptions
	for _, option := range options {
		option(&o)
	}
	f := &follower{filters: filters, position: after, patient: o.minInterval > 0, wake: make(chan struct{}, 1)}
	f.cursor = newCursor(s, after, filters)
	defer f.cursor.close()
	if err := s.tail.add(ctx, f); err != nil {
		return fmt.Errorf("follow %s: %w", s.cfg.Name, err)
	}
	defer s.tail.remove(f)
	for {
		batch, position, err := s.tail.next(ctx, f)
		if err != nil {
			return fmt.Errorf("follow %s: %w", s.cfg.Name, err)
		}
		err = fn(batch, position)
		if errors.Is(err, Skip) {
			err = nil
			if s.tail.skip(f) {
				err = fn(nil, position)
			}
		} else {
			s.tail.told(f)
		}
		if err != nil {
			return err
		}
		if o.minInterval > 0 && len(batch) < followBatch && !pause(ctx, o.minInterval) {
			return context.Cause(ctx)
		}
	}
}

// FollowOption is how one call of Follow differs from others.
type FollowOption func(*followOptions)

type followOptions struct{ minInterval time.Duration }

// Every has fn called at most once in an interval, so that records which come
// meanwhile are handed over together; a follower that lags behind does not wait.
func Every(interval time.Duration) FollowOption {
	return func(o *followOptions) { o.minInterval = interval }
}

// skip notes that a follower skipped a batch, and reports whether it is time to
// tell it its position.
func (t *tail) skip(f *follower) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	due := f.due
	f.skipped, f.due = !due, false
	return due
}

// told notes that a follower knows its position.
func (t *tail) told(f *follower) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f.skipped, f.due = false, false
}

// add registers a follower and starts the tail when it is the first.
func (t *tail) add(ctx context.Context, f *follower) error {
	_, last, err := t.stream.Bounds(ctx)
	if err != nil {
		return err
	}
	if err := t.stream.settle(ctx, last); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return errStopped
	}
	for i, filter := range f.filters {
		if err := t.interest.Insert(filter, f); err != nil {
			for _, inserted := range f.filters[:i] {
				_ = t.interest.Remove(inserted, f)
			}
			return fmt.Errorf("filter %q: %w", filter, err)
		}
	}
	t.followers[f] = struct{}{}
	if t.linger != nil {
		t.linger.Stop()
		t.linger = nil
	}
	if t.cancel == nil {
		t.ring, t.size, t.base, t.head = nil, 0, last, last
		run, cancel := context.WithCancel(context.Background())
		t.cancel, t.done = cancel, make(chan struct{})
		go t.run(run, last, t.done)
	}
	return nil
}

// remove forgets a follower; the tail ends a while after the last one.
func (t *tail) remove(f *follower) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, filter := range f.filters {
		// It was inserted, so it can be removed.
		_ = t.interest.Remove(filter, f)
	}
	delete(t.followers, f)
	if len(t.followers) == 0 && !t.stopped {
		t.linger = time.AfterFunc(tailLinger, t.rest)
	}
}

// rest ends the tail unless a follower came back.
func (t *tail) rest() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.followers) == 0 && t.cancel != nil {
		t.cancel()
		t.cancel, t.ring = nil, nil
	}
}

// stop ends the tail and every Follow; it returns when run has ended.
func (t *tail) stop() {
	t.mu.Lock()
	t.stopped = true
	if t.linger != nil {
		t.linger.Stop()
	}
	if t.cancel != nil {
		t.cancel()
		t.cancel = nil
	}
	for f := range t.followers {
		f.signal()
	}
	done := t.done
	t.mu.Unlock()
	if done != nil {
		<-done
	}
}

func (f *follower) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// run reads the stream and feeds the ring.
func (t *tail) run(ctx context.Context, after uint64, done chan struct{}) {
	defer close(done)
	ticks := make(chan struct{})
	go func() {
		defer close(ticks)
		t.announce(ctx)
	}()
	defer func() { <-ticks }()

	c := newCursor(t.stream, after, nil)
	c.waiting = true
	defer c.close()
	for ctx.Err() == nil {
		records, err := c.next(ctx)
		if err == nil {
			err = t.settle(ctx, records)
		}
		if err != nil {
			t.pause(ctx, err)
			continue
		}
		t.push(ctx, records)
	}
}

// settle makes records durable that were read. Where nobody is in a hurry for
// them it leaves that to a sync which somebody else needs soon, if one comes.
func (t *tail) settle(ctx context.Context, records []Record) error {
	last := records[len(records)-1].Sequence
	t.stream.noteAppended(last)
	if b := t.stream.journal.barrier; b != nil && t.canWait(records) {
		b.await(ctx, t.stream, last, tailPatience)
	}
	return t.stream.settle(ctx, last)
}

// canWait reports whether only patient followers want any of the records.
func (t *tail) canWait(records []Record) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	patient := true
	for _, r := range records {
		t.interest.Match(r.Subject, func(f *follower) { patient = patient && f.patient })
	}
	return patient
}

// pause waits before the next try of a read that failed; false means that
// there shall be none.
func (t *tail) pause(ctx context.Context, err error) bool {
	t.mu.Lock()
	stopped := t.stopped
	t.mu.Unlock()
	if stopped || ctx.Err() != nil {
		return false
	}
	t.stream.journal.log.Warn("reading new records failed", "stream", t.stream.cfg.Name, "err", err)
	return pause(ctx, tailRetry)
}

// announce wakes followers whose position fell behind without a record of
// theirs, and those who skipped what they got.
func (t *tail) announce(ctx context.Context) {
	ticker := time.NewTicker(positionInterval)
	defer ticker.Stop()
	var announced uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		t.mu.Lock()
		for f := range t.followers {
			f.due = f.due || f.skipped
			if f.due || t.head != announced {
				f.signal()
			}
		}
		announced = t.head
		t.mu.Unlock()
	}
}

// push adds durable records to the ring and refers them to who wants them, unless
// another run feeds it by now, whose ctx has not ended.
func (t *tail) push(ctx context.Context, records []Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	for _, r := range records {
		if t.stream.retains() && r.Sequence > t.head+1 {
			t.forget(r.Sequence - 1)
		}
		number := t.start + uint64(len(t.ring))
		t.ring = append(t.ring, r)
		t.size += len(r.Data)
		t.head = r.Sequence
		t.interest.Match(r.Subject, func(f *follower) { f.offer(number, r.Sequence) })
	}
	for len(t.ring) > ringRecords || t.size > ringBytes && len(t.ring) > 1 {
		t.base = t.ring[0].Sequence
		t.size -= len(t.ring[0].Data)
		t.ring[0] = Record{}
		t.ring = t.ring[1:]
		t.start++
	}
}

// forget begins the ring anew behind a sequence, up to which retention has passed
// the tail: every follower finds out for itself what it has missed. The lock is held.
func (t *tail) forget(base uint64) {
	t.start += uint64(len(t.ring))
	t.ring, t.size, t.base, t.head = nil, 0, base, base
	for f := range t.followers {
		f.attached, f.pending = false, nil
		f.signal()
	}
}

// offer refers a record to a follower. The tail's lock is held.
func (f *follower) offer(number, sequence uint64) {
	if !f.attached || sequence <= f.position {
		return
	}
	if n := len(f.pending); n > 0 && f.pending[n-1] == number {
		return // it matched another of the follower's filters
	}
	if len(f.pending) == followerPending {
		f.attached, f.pending = false, nil
	} else {
		f.pending = append(f.pending, number)
	}
	f.signal()
}

// next returns a follower's next batch and the position after it.
func (t *tail) next(ctx context.Context, f *follower) ([]Record, uint64, error) {
	for {
		t.mu.Lock()
		if t.stopped {
			t.mu.Unlock()
			return nil, 0, errStopped
		}
		if !f.attached || len(f.pending) > 0 && f.pending[0] < t.start {
			t.attach(f)
		}
		attached, before, head := f.attached, f.position, t.head
		batch := t.take(f)
		position := f.position
		due := f.due
		t.mu.Unlock()
		switch {
		case !attached:
			return t.catchUp(ctx, f, before, head)
		case len(batch) > 0 || position > before || due:
			f.cursor.close()
			return batch, position, nil
		}
		select {
		case <-f.wake:
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		}
	}
}

// attach refers a follower to what the ring has for it, if the ring reaches
// back to its position. The lock is held.
func (t *tail) attach(f *follower) {
	f.pending = nil
	if f.attached = f.position >= t.base; !f.attached {
		return
	}
	wanted := newMatcher(f.filters)
	for i, r := range t.ring {
		if r.Sequence > f.position && wanted.HasInterest(r.Subject) {
			f.pending = append(f.pending, t.start+uint64(i))
		}
	}
}

// take removes one batch from a follower's pending records and moves its
// position. The lock is held.
func (t *tail) take(f *follower) []Record {
	if !f.attached {
		return nil
	}
	batch := make([]Record, min(len(f.pending), followBatch))
	for i := range batch {
		batch[i] = t.ring[f.pending[i]-t.start]
	}
	f.pending = f.pending[len(batch):]
	if len(f.pending) > 0 {
		f.position = batch[len(batch)-1].Sequence
	} else {
		f.pending = nil
		f.position = max(f.position, t.head)
	}
	return batch
}

// catchUp returns a follower's next batch from disk, or that there is nothing
// for it up to head.
func (t *tail) catchUp(ctx context.Context, f *follower, before, head uint64) ([]Record, uint64, error) {
	select {
	case t.disk <- struct{}{}:
		defer func() { <-t.disk }()
	case <-ctx.Done():
		return nil, 0, context.Cause(ctx)
	}
	if err := t.stream.checkLost(ctx, before); err != nil {
		return nil, 0, err
	}
	records, drained, err := t.readDisk(ctx, f, before)
	for errors.Is(err, ErrUnavailable) && t.pause(ctx, err) {
		records, drained, err = t.readDisk(ctx, f, before)
	}
	if err != nil {
		return nil, 0, err
	}
	// The server has only so many consumers: who has read all keeps none, nor do
	// readers who take turns.
	if drained || len(t.disk) == cap(t.disk) {
		f.cursor.close()
	}
	position := before
	if n := len(records); n > 0 {
		position = records[n-1].Sequence
	}
	if drained || len(records) == 0 {
		position = max(position, min(head, t.stream.nextLost(before)-1))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f.position = position
	return records, position, nil
}

// readDisk returns the durable records that follow before, up to a lost range,
// and whether there were no more. Where there are few it finds that out at once,
// so that most followers need one turn.
func (t *tail) readDisk(ctx context.Context, f *follower, before uint64) (records []Record, drained bool, err error) {
	f.cursor.moveTo(before)
	records, err = f.cursor.next(ctx)
	if err == nil && len(records) < followBatch {
		var more []Record
		more, err = f.cursor.next(ctx)
		records = append(records, more...)
	}
	drained = errors.Is(err, errDrained)
	if err != nil && !drained {
		return nil, false, err
	}
	if n := len(records); n > 0 {
		if err := t.stream.settle(ctx, records[n-1].Sequence); err != nil {
			return nil, false, err
		}
	}
	if i := slices.IndexFunc(records, func(r Record) bool { return r.Sequence >= t.stream.nextLost(before) }); i >= 0 {
		records = records[:i]
	}
	return records, drained, t.stream.checkTruncated(ctx, before, records)
}

// nextLost returns the first sequence above after that was lost;
// math.MaxUint64 when none was.
func (s *Stream) nextLost(after uint64) uint64 {
	for _, lost := range s.lost {
		if after < lost.Last {
			return max(lost.First, after+1)
		}
	}
	return math.MaxUint64
}

// checkLost reports a *TruncatedError when the record that follows after was
// lost.
func (s *Stream) checkLost(ctx context.Context, after uint64) error {
	for _, lost := range s.lost {
		if after >= lost.Last || after+1 < lost.First {
			continue
		}
		// Retention may have come further than the damage: one gap is told once.
		if err := s.checkTruncated(ctx, lost.Last, nil); err != nil {
			return err
		}
		return &TruncatedError{Oldest: lost.Last + 1, Damaged: true}
	}
	return nil
}

// checkTruncated reports a *TruncatedError when retention may have removed
// records above after before they were read. What is asked after the read
// holds for the time of the read: retention only goes on.
func (s *Stream) checkTruncated(ctx context.Context, after uint64, read []Record) error {
	if !s.retains() {
		return nil
	}
	first, _, err := s.Bounds(ctx)
	if err == nil && !coversRemoved(after, first, read) {
		err = &TruncatedError{Oldest: first}
	}
	return err
}

// coversRemoved reports whether the records read are all that were between
// after and first. A record that is neither there nor read may have been one
// that the reader's filters match.
func coversRemoved(after, first uint64, read []Record) bool {
	for _, r := range read {
		if after+1 >= first || r.Sequence != after+1 {
			break
		}
		after = r.Sequence
	}
	return after+1 >= first
}
