package djangobridge

import (
	"sync"
	"time"
)

// How many lines about refused access there are in a window; more are counted.
const (
	refusalLines  = 20
	refusalWindow = 10 * time.Second
)

// logLimit bounds the log lines that strangers can cause. The zero value is ready.
type logLimit struct {
	mu         sync.Mutex
	opened     time.Time // when the window began
	lines      int       // in this window
	suppressed int       // since the last line
}

// allow reports whether a line may be written now, and how many were not since
// the last one.
func (l *logLimit) allow(now time.Time) (suppressed int, allowed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.opened) >= refusalWindow {
		l.opened, l.lines = now, 0
	}
	if l.lines == refusalLines {
		l.suppressed++
		return 0, false
	}
	l.lines++
	suppressed, l.suppressed = l.suppressed, 0
	return suppressed, true
}
