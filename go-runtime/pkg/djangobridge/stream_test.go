package djangobridge

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// fakeStream is the sending side of a stream whose client reads from frames.
type fakeStream struct {
	ctx    context.Context //nolint:containedctx // as gRPC hands it out
	frames chan int
}

func (s *fakeStream) Context() context.Context { return s.ctx }

func (s *fakeStream) Send(frame *int) error {
	select {
	case s.frames <- *frame:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// openStream returns a stream and what gRPC does when its handler has returned.
func openStream(t *testing.T) (stream *fakeStream, hangUp context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	return &fakeStream{ctx: ctx, frames: make(chan int)}, cancel
}

// count produces numbers without end.
func count(_ context.Context, send func(*int) error) error {
	for n := 0; ; n++ {
		if err := send(&n); err != nil {
			return err
		}
	}
}

func TestPumpKeepsOrderAndReturnsTheProducersError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStreams(time.Minute)
		stream, hangUp := openStream(t)
		done := errors.New("done")
		ended := make(chan error, 1)
		go func() {
			ended <- pump(s, stream, func(_ context.Context, send func(*int) error) error {
				for n := range 3 {
					if err := send(&n); err != nil {
						return err
					}
				}
				return done
			})
		}()
		for want := range 3 {
			if got := <-stream.frames; got != want {
				t.Errorf("frame = %d, want %d", got, want)
			}
		}
		if err := <-ended; !errors.Is(err, done) {
			t.Errorf("err = %v, want the producer's", err)
		}
		hangUp()
		s.wait()
	})
}

func TestPumpEndsASlowReaderAndNobodyElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStreams(time.Minute)
		slow, hangUpSlow := openStream(t)
		quick, hangUpQuick := openStream(t)
		slowEnded, quickEnded := make(chan error, 1), make(chan error, 1)
		go func() { slowEnded <- pump(s, slow, count) }()
		go func() { quickEnded <- pump(s, quick, count) }()

		began := time.Now()
		for {
			select {
			case <-quick.frames:
				<-time.After(10 * time.Second) // a reader below the limit, on the bubble's clock
				continue
			case err := <-slowEnded:
				if !errors.Is(err, errSlowReader) || time.Since(began) < time.Minute {
					t.Errorf("the slow reader ended with %v after %s", err, time.Since(began))
				}
			}
			break
		}
		hangUpSlow()
		if len(quickEnded) > 0 {
			t.Error("the quick reader was ended too")
		}
		s.drain()
		for ended := false; !ended; {
			select {
			case <-quick.frames:
			case err := <-quickEnded:
				ended = true
				if !errors.Is(err, errDraining) {
					t.Errorf("drained with %v", err)
				}
			}
		}
		hangUpQuick()
		s.wait()
	})
}

func TestPumpDoesNotTireOfAnIdleStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStreams(time.Second)
		stream, hangUp := openStream(t)
		ended := make(chan error, 1)
		go func() {
			ended <- pump(s, stream, func(_ context.Context, send func(*int) error) error {
				<-time.After(time.Hour)
				n := 1
				return send(&n)
			})
		}()
		<-stream.frames
		if err := <-ended; err != nil {
			t.Errorf("err = %v", err)
		}
		hangUp()
		s.wait()
	})
}

func TestPumpEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStreams(time.Minute)
		stream, hangUp := openStream(t)
		ended := make(chan error, 1)
		go func() { ended <- pump(s, stream, count) }()
		<-stream.frames
		hangUp()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("err = %v", err)
		}
		s.wait()
	})
}

func TestFrameLength(t *testing.T) {
	t.Parallel()
	size := func(n int) int { return n }
	tests := map[string]struct {
		items []int
		want  int
	}{
		"none":            {nil, 0},
		"small":           {[]int{1, 1, 1}, 3},
		"one too large":   {[]int{2 << 20}, 1},
		"second too much": {[]int{1 << 20, 1}, 1},
		"exactly full":    {[]int{1 << 19, 1 << 19}, 2},
		"many":            {make([]int, 1000), maxFrameItems},
		"as many as go":   {make([]int, maxFrameItems), maxFrameItems},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := frameLength(test.items, size); got != test.want {
				t.Errorf("frameLength = %d, want %d", got, test.want)
			}
		})
	}
}
