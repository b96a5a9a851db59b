package agent

import (
	"strings"
	"sync"
	"time"
)

// joinTime is how long pieces of a text are gathered to one event behind the one before.
const joinTime = 10 * time.Millisecond

// deltas emits a text piece by piece. What comes while a piece is emitted, or soon
// behind it, is joined: whoever writes the text waits for neither.
type deltas struct {
	emit func(text string) error

	mu   sync.Mutex
	text strings.Builder
	err  error

	some    chan struct{} // capacity 1: there is text
	closing chan struct{} // closed when no more text comes
	done    chan struct{} // closed when all of it is emitted
}

func newDeltas(emit func(text string) error) *deltas {
	d := &deltas{emit: emit, some: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{})}
	go d.emitAll()
	return d
}

// add takes a piece. Its error is that of an earlier one.
func (d *deltas) add(text string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.text.WriteString(text)
	select {
	case d.some <- struct{}{}:
	default:
	}
	return d.err
}

// close waits until everything is emitted, or one piece was not.
func (d *deltas) close() error {
	close(d.closing)
	<-d.done
	return d.err
}

func (d *deltas) emitAll() {
	defer close(d.done)
	for open := true; open; {
		select {
		case <-d.some:
		case <-d.closing:
			open = false
		}
		if !d.emitGathered() {
			return
		}
		select {
		case <-time.After(joinTime):
		case <-d.closing:
		}
	}
}

// emitGathered emits the text there is, and reports whether that worked.
func (d *deltas) emitGathered() bool {
	d.mu.Lock()
	text := d.text.String()
	d.text.Reset()
	d.mu.Unlock()
	if text == "" {
		return true
	}
	err := d.emit(text)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
	return err == nil
}
