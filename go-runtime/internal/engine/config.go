package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
)

// Config sets an engine's limits. A zero field takes its default.
type Config struct {
	// MaxConcurrent is how many runs execute at once; default 100.
	MaxConcurrent int
	// MaxQueued is how many runs of a namespace may wait for a place while no other's
	// do; more are refused with a *QueueFullError. Of several namespaces each may have
	// one, and eight times as many as still find room, in a queue that is larger by an
	// eighth, so that none is refused because others fill it. Default 100,000.
	MaxQueued int
	// MaxAttempts is how often a run is begun, in all, before it fails, when neither its
	// request nor its agent says; default 3.
	MaxAttempts int
	// RunTimeout is the longest an attempt takes when neither its request nor its agent
	// says; default 900 s.
	RunTimeout time.Duration
	// MaxInputBytes limits a run's input and its output, each; default 1 MiB.
	MaxInputBytes int
	// MaxAssignmentBytes limits what a worker is given of a run at a time: its input and
	// what earlier attempts recorded; default 15 MiB.
	MaxAssignmentBytes int
	// KeepEnded is how many ended runs of a namespace are kept, the youngest: so many that
	// failed or timed out, and as many that ended otherwise; default 100,000.
	KeepEnded int
	// KeepEndedFor is how long an ended run is kept; default 30 days.
	KeepEndedFor time.Duration
	// Now is the wall clock; default time.Now.
	Now func() time.Time
	// Tracer makes the spans of runs; default none.
	Tracer *span.Tracer
}

func (c Config) withDefaults() Config {
	setDefault(&c.MaxConcurrent, 100)
	setDefault(&c.MaxQueued, 100_000)
	setDefault(&c.MaxAttempts, 3)
	setDefault(&c.RunTimeout, 900*time.Second)
	setDefault(&c.MaxInputBytes, 1<<20)
	setDefault(&c.MaxAssignmentBytes, 15<<20)
	setDefault(&c.KeepEnded, 100_000)
	setDefault(&c.KeepEndedFor, 30*24*time.Hour)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Tracer == nil {
		c.Tracer = span.New(span.Config{})
	}
	return c
}

func setDefault[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

func (c Config) validate() error {
	var mistakes []error
	positive := func(name string, value int64) {
		if value < 0 {
			mistakes = append(mistakes, fmt.Errorf("engine: %s must not be negative", name))
		}
	}
	positive("MaxConcurrent", int64(c.MaxConcurrent))
	positive("MaxQueued", int64(c.MaxQueued))
	positive("MaxAttempts", int64(c.MaxAttempts))
	positive("RunTimeout", int64(c.RunTimeout))
	positive("MaxInputBytes", int64(c.MaxInputBytes))
	positive("MaxAssignmentBytes", int64(c.MaxAssignmentBytes))
	positive("KeepEnded", int64(c.KeepEnded))
	positive("KeepEndedFor", int64(c.KeepEndedFor))
	return errors.Join(mistakes...)
}
