package djangobridge

import (
	"context"
	"sync"
	"time"
)

// Limits of one message of a stream.
const (
	maxFrameItems = 512
	maxFrameBytes = 1 << 20
)

// frameLength returns how many of items go into one message: at least one of
// those that there are, else as many as the limits allow.
func frameLength[T any](items []T, size func(T) int) int {
	total := 0
	for i, item := range items {
		total += size(item)
		if i == maxFrameItems || (i > 0 && total > maxFrameBytes) {
			return i
		}
	}
	return len(items)
}

// streams is what all long-lived streams share: how long their readers may
// take, and the word that ends them when the runtime stops.
type streams struct {
	sendTimeout time.Duration
	// running ends, with errDraining, when the runtime stops.
	running context.Context //nolint:containedctx // the lifetime of all streams, ended by drain
	end     context.CancelCauseFunc
	// left counts goroutines that a handler leaves behind in Send or Recv, for
	// gRPC to end with the call.
	left sync.WaitGroup
}

func newStreams(sendTimeout time.Duration) *streams {
	s := &streams{sendTimeout: sendTimeout}
	s.running, s.end = context.WithCancelCause(context.Background())
	return s
}

// drain ends every stream with errDraining, now and from now on.
func (s *streams) drain() { s.end(errDraining) }

// wait returns when nothing of any stream is left; the calls must have ended.
func (s *streams) wait() { s.left.Wait() }

// serverStream is the sending side of a stream.
type serverStream[T any] interface {
	Context() context.Context
	Send(message *T) error
}

// pump runs produce, whose messages one goroutine sends on the stream, and
// returns why it ended: produce's error, errDraining, errSlowReader when one
// message could not be sent for the send timeout, or the end of the call.
//
// A send that blocks holds up produce alone, and is given up with the call:
// gRPC ends it once the handler has returned.
func pump[T any](s *streams, stream serverStream[T], produce func(ctx context.Context, send func(*T) error) error) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer context.AfterFunc(s.running, func() { cancel(errDraining) })()

	frames, sent, stuck := make(chan *T), make(chan struct{}), make(chan struct{})
	s.left.Go(func() {
		defer close(sent)
		slow := time.AfterFunc(s.sendTimeout, sync.OnceFunc(func() {
			cancel(errSlowReader)
			close(stuck)
		}))
		slow.Stop()
		for frame := range frames {
			slow.Reset(s.sendTimeout)
			err := stream.Send(frame)
			slow.Stop()
			if err != nil {
				cancel(sendError(err))
				return
			}
		}
	})
	err := produce(ctx, func(frame *T) error {
		select {
		case frames <- frame:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	close(frames)
	select {
	case <-sent:
	case <-stuck:
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// receive returns what the client asks for on a stream; it is closed when the
// client has nothing more to ask, or the call has ended.
func receive[T any](ctx context.Context, s *streams, stream interface{ Recv() (*T, error) }) <-chan *T {
	requests := make(chan *T)
	s.left.Go(func() {
		defer close(requests)
		for {
			request, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case requests <- request:
			case <-ctx.Done():
				return
			}
		}
	})
	return requests
}

// serveMany is the loop of a stream that carries many of a kind, each in a
// goroutine counted by wait, which its context ends: it handles what the client
// asks for and takes what the goroutines have to say, one at a time, until ctx
// ends or one of the two is an error. A client that has nothing more to ask goes
// on receiving.
func serveMany[Q, U any](
	ctx context.Context, wait *sync.WaitGroup,
	requests <-chan *Q, handle func(context.Context, *Q) error, updates <-chan *U, take func(*U) error,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer wait.Wait()
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case request, more := <-requests:
			if !more {
				requests = nil
				continue
			}
			if err := handle(ctx, request); err != nil {
				return err
			}
		case update := <-updates:
			if err := take(update); err != nil {
				return err
			}
		}
	}
}
