package gateway

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

var (
	// errDraining ends streams when the runtime stops.
	errDraining = errors.New("the runtime is stopping")
	// errSlow ends a stream whose reader took nothing for the send timeout.
	errSlow = errors.New("the reader did not keep up")
	// errLeft ends a stream whose reader is gone.
	errLeft = errors.New("the reader left")
)

// hurryTimeout is how long a write may still take once the stream is to end.
const hurryTimeout = time.Second

// reader is the writing side of one open stream. Events and heartbeats take
// turns; between them it holds no buffer and no goroutine.
type reader struct {
	//nolint:containedctx // the lifetime of the stream, ended by whoever finds that it is over
	ctx       context.Context
	cancel    context.CancelCauseFunc
	w         http.ResponseWriter
	control   *http.ResponseController
	timeout   time.Duration
	heartbeat time.Duration
	unhurry   func() bool

	// turn is held while something is written, beat is reset under it.
	turn   sync.Mutex
	beat   *time.Timer
	closed bool
	// broken is why a write failed.
	broken error

	// limit guards the write deadline: a write that is stuck must not keep it.
	limit   sync.Mutex
	hurried bool
	over    bool
}

// newReader begins a stream. It must be closed before the handler returns.
func newReader(w http.ResponseWriter, request *http.Request, timeout, heartbeat time.Duration) *reader {
	r := &reader{w: w, control: http.NewResponseController(w), timeout: timeout, heartbeat: heartbeat}
	r.ctx, r.cancel = context.WithCancelCause(request.Context())
	// The server's own limit is for requests that end; a reader that is gone fails the first write.
	_ = r.control.SetReadDeadline(time.Time{})
	r.unhurry = context.AfterFunc(r.ctx, r.hurry)
	r.turn.Lock()
	r.beat = time.AfterFunc(heartbeat, func() { _ = r.write([]byte(": heartbeat\n\n")) })
	r.turn.Unlock()
	w.WriteHeader(http.StatusOK)
	return r
}

// write sends a part of the stream at once. Its error is why the stream is over.
func (r *reader) write(part []byte) error {
	r.turn.Lock()
	defer r.turn.Unlock()
	if r.closed || r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	begun := time.Now()
	r.allow(begun.Add(r.timeout))
	_, err := r.w.Write(part) //nolint:gosec // an event stream is no page
	if err == nil {
		err = r.control.Flush()
	}
	if err != nil {
		r.broken = errLeft
		if time.Since(begun) >= r.timeout {
			r.broken = errSlow
		}
		r.cancel(r.broken)
		return r.broken
	}
	// Over HTTP/2 the time would end a stream on which nothing is written, too.
	r.allow(time.Time{})
	r.beat.Reset(r.heartbeat)
	return nil
}

// allow gives what is written its time; zero: without end.
func (r *reader) allow(until time.Time) {
	r.limit.Lock()
	defer r.limit.Unlock()
	if !r.hurried {
		// It fails with a connection that is closed, as the write will.
		_ = r.control.SetWriteDeadline(until)
	}
}

// hurry gives a write that is stuck little time: the stream is to end.
func (r *reader) hurry() {
	r.limit.Lock()
	defer r.limit.Unlock()
	if r.over {
		return
	}
	r.hurried = true
	_ = r.control.SetWriteDeadline(time.Now().Add(hurryTimeout))
}

// close returns when nothing writes any more, and says why the stream is over;
// nil when nothing but the end of its events ended it.
func (r *reader) close() error {
	r.unhurry()
	r.turn.Lock()
	r.closed = true
	r.beat.Stop()
	// The server ends the request's context when a write fails, before that is known here.
	why := r.broken
	if why == nil {
		why = context.Cause(r.ctx)
	}
	r.turn.Unlock()
	// The server still writes the end of the answer.
	r.allow(time.Now().Add(r.timeout))
	r.limit.Lock()
	r.over = true
	r.limit.Unlock()
	r.cancel(nil)
	return why
}
