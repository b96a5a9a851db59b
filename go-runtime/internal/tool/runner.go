package tool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Limits of a Runner that are 0 in its Config.
const (
	DefaultMaxTextBytes  = 64 << 10
	DefaultMaxImageBytes = 8 << 20
	DefaultMaxLate       = 16
)

// Config bounds what a Runner lets through.
type Config struct {
	// MaxTextBytes bounds a result's text, and apart its structured form; 0: DefaultMaxTextBytes.
	MaxTextBytes int
	// MaxImageBytes bounds a result's images together; 0: DefaultMaxImageBytes.
	MaxImageBytes int
	// MaxLate is how many calls of one tool may go on after their time is over before
	// further calls of it are refused; 0: DefaultMaxLate.
	MaxLate int
}

// Runner does calls of tools. A tool that ignores the end of its context is left
// behind: its call returns in time, and the work that goes on is counted, see Late.
type Runner struct {
	cfg Config
	log *slog.Logger

	// left counts the goroutines of calls.
	left sync.WaitGroup
	mu   sync.Mutex
	// late counts the calls that go on after their time, by tool.
	late map[string]int
}

// NewRunner returns a Runner. Stop waits for what its calls left behind.
func NewRunner(cfg Config, log *slog.Logger) *Runner {
	cfg.MaxTextBytes = cmp.Or(cfg.MaxTextBytes, DefaultMaxTextBytes)
	cfg.MaxImageBytes = cmp.Or(cfg.MaxImageBytes, DefaultMaxImageBytes)
	cfg.MaxLate = cmp.Or(cfg.MaxLate, DefaultMaxLate)
	return &Runner{cfg: cfg, log: log, late: map[string]int{}}
}

// Error is a failure of a tool's machinery. Its text may be shown to the model.
type Error struct {
	Tool   string
	Reason Reason
	Err    error
}

// Reason says how a tool failed.
type Reason string

// What Do fails with.
const (
	// Broken tools returned an error, or panicked.
	Broken Reason = "broken"
	// TimedOut calls took longer than the tool's timeout.
	TimedOut Reason = "timed_out"
	// Overrun tools have too many calls that go on after their time.
	Overrun Reason = "overrun"
)

func (e *Error) Error() string { return fmt.Sprintf("tool %s: %v", e.Tool, e.Err) }

// Unwrap returns what the tool failed with.
func (e *Error) Unwrap() error { return e.Err }

// errPanicked is all that a caller learns of a panic; the log has the rest.
var errPanicked = errors.New("it panicked")

// grace is how long a tool has to return once its context has ended.
const grace = 250 * time.Millisecond

// flight is a call under way. Its fields but done are guarded by Runner.mu.
type flight struct {
	// done gets what the call came to.
	done chan outcome
	over bool
	// late is set when the call was left behind.
	late bool
}

type outcome struct {
	result Result
	err    error
}

// Do does one call, whose arguments Set.Prepare has checked, within the tool's
// timeout, and bounds its result: what is cut says so. The end of ctx is returned as
// its cause, wrapped; every other error is an *Error.
func (r *Runner) Do(ctx context.Context, t Tool, call Call) (Result, error) {
	if !r.admits(t.Name) {
		return Result{}, &Error{t.Name, Overrun, fmt.Errorf("%d calls of it go on although their time is over", r.cfg.MaxLate)}
	}
	timeout := cmp.Or(t.Timeout, DefaultTimeout)
	callCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	f := &flight{done: make(chan outcome, 1)}
	r.left.Go(func() {
		f.done <- r.invoke(callCtx, t, call)
		r.land(t.Name, f)
	})
	o, landed := r.await(callCtx, f)
	if landed && o.err == nil {
		return bound(o.result, r.cfg), nil
	}
	if !landed && r.leaveBehind(t.Name, f) {
		r.log.Warn("tool goes on after its time", "tool", t.Name, "run_id", call.RunID, "call_id", call.ID)
	}
	var err error
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("call tool %s: %w", t.Name, context.Cause(ctx))
	case callCtx.Err() != nil:
		err = &Error{t.Name, TimedOut, fmt.Errorf("no result within %s: %w", timeout, context.DeadlineExceeded)}
	default:
		err = &Error{t.Name, Broken, o.err}
	}
	return Result{}, err
}

// await returns what a call came to, or false once its context has ended and the
// grace is over.
func (r *Runner) await(ctx context.Context, f *flight) (o outcome, landed bool) {
	select {
	case o := <-f.done:
		return o, true
	case <-ctx.Done():
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case o := <-f.done:
		return o, true
	case <-timer.C:
		return outcome{}, false
	}
}

func (r *Runner) invoke(ctx context.Context, t Tool, call Call) (o outcome) {
	defer func() {
		if panicked := recover(); panicked != nil {
			r.log.Error("tool panicked", "tool", t.Name, "run_id", call.RunID,
				"panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
			o = outcome{err: errPanicked}
		}
	}()
	result, err := t.Call(ctx, call)
	return outcome{result, err}
}

func (r *Runner) admits(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.late[name] < r.cfg.MaxLate
}

// leaveBehind counts a call as late until it ends, and reports whether it goes on.
func (r *Runner) leaveBehind(name string, f *flight) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.over {
		return false
	}
	f.late = true
	r.late[name]++
	return true
}

// land ends a flight.
func (r *Runner) land(name string, f *flight) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.over = true
	if !f.late {
		return
	}
	if r.late[name]--; r.late[name] == 0 {
		delete(r.late, name)
	}
}

// Late is how many calls go on although their time is over.
func (r *Runner) Late() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	late := 0
	for _, n := range r.late {
		late += n
	}
	return late
}

// Stop waits until what calls left behind has ended, or ctx. No call may begin after it.
func (r *Runner) Stop(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		r.left.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop tools: %d calls go on: %w", r.Late(), context.Cause(ctx))
	}
}

// bound cuts a result to what cfg allows.
func bound(result Result, cfg Config) Result {
	if result.Text == "" && len(result.Images) == 0 {
		result.Text = string(result.Structured)
	}
	if len(result.Structured) > cfg.MaxTextBytes {
		result.Structured = nil
	}
	kept, size := result.Images[:0:0], 0
	for _, image := range result.Images {
		if size += len(image.Data) + len(image.URL); size <= cfg.MaxImageBytes {
			kept = append(kept, image)
		}
	}
	note := ""
	if left := len(result.Images) - len(kept); left > 0 {
		note = fmt.Sprintf("\n[left out: %d images, larger than %d bytes together]", left, cfg.MaxImageBytes)
	}
	result.Images = kept
	result.Text = strings.ToValidUTF8(cut(result.Text, cfg.MaxTextBytes), "\uFFFD") + note
	return result
}

// cut keeps the beginning of a text, and says that there was more.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	kept := violation.Clip(text, most)
	return fmt.Sprintf("%s\n[cut: the first %d bytes]", kept, most)
}
