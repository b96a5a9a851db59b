package event

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// Defaults of Config.
const (
	DefaultMaxAge        = 7 * 24 * time.Hour
	DefaultMaxBytes      = 1 << 30
	DefaultMaxValueBytes = 1 << 20
)

// dedupeWindow is how long a repeated Publish is recognised; each event with a
// request id costs memory that long.
const dedupeWindow = time.Minute

// Config is what a Log can be told. Zero values mean the defaults.
type Config struct {
	// MaxAge is how long events are kept.
	MaxAge time.Duration
	// MaxBytes is how many bytes of events, of all namespaces, are kept; the
	// oldest go first.
	MaxBytes int64
	// MaxValueBytes is the largest event, its data and metadata together.
	MaxValueBytes int
}

// Log is the events of every namespace. Its methods are safe for concurrent use
// once Start returned. Callers pass namespaces that are valid.
//
// Besides the errors each method names, all return those of the journal:
// journal.ErrNoSpace, and journal.ErrUnavailable after which the outcome of a
// Publish is unknown until it is repeated.
type Log struct {
	cfg     Config
	journal *journal.Journal
	log     *slog.Logger
	stream  *journal.Stream
}

// Event is something that happened.
type Event struct {
	// ID is "evt-" and the sequence.
	ID string
	// Type is 1 to 200 bytes of UTF-8, by convention words with dots between.
	Type string
	// Source is who published it, as they call themselves; at most 200 bytes of UTF-8.
	Source string
	// Data is a JSON text, byte for byte as it was published.
	Data []byte
	// Metadata is a JSON object, or empty.
	Metadata []byte
	// Sequence rises over all events; numbers may be skipped.
	Sequence uint64
	// PublishedAt is when the event was kept.
	PublishedAt time.Time
}

// New returns a log in the journal, which must be started before the log. It
// reports every mistake of the configuration at once.
func New(cfg Config, j *journal.Journal, log *slog.Logger) (*Log, error) {
	var mistakes []error
	if cfg.MaxAge < 0 {
		mistakes = append(mistakes, fmt.Errorf("event: the greatest age cannot be %s", cfg.MaxAge))
	}
	if cfg.MaxBytes < 0 {
		mistakes = append(mistakes, fmt.Errorf("event: the greatest size cannot be %d bytes", cfg.MaxBytes))
	}
	if cfg.MaxValueBytes < 0 {
		mistakes = append(mistakes, fmt.Errorf("event: the largest event cannot be %d bytes", cfg.MaxValueBytes))
	}
	if len(mistakes) > 0 {
		return nil, errors.Join(mistakes...)
	}
	cfg.MaxAge = cmp.Or(cfg.MaxAge, DefaultMaxAge)
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, DefaultMaxBytes)
	cfg.MaxValueBytes = cmp.Or(cfg.MaxValueBytes, DefaultMaxValueBytes)
	return &Log{cfg: cfg, journal: j, log: log}, nil
}

// Start opens the log's stream and returns when the log can be used.
func (l *Log) Start(ctx context.Context) error {
	stream, err := l.journal.OpenStream(ctx, journal.StreamConfig{
		Name:         streamName,
		Subjects:     []string{subjectRoot + ">"},
		MaxAge:       l.cfg.MaxAge,
		MaxBytes:     l.cfg.MaxBytes,
		DedupeWindow: min(dedupeWindow, l.cfg.MaxAge),
	})
	if err != nil {
		return fmt.Errorf("start event: %w", err)
	}
	l.stream = stream
	return nil
}

// Stop is safe twice and before Start. The log does nothing in the background;
// subscriptions end with their own contexts.
func (l *Log) Stop(context.Context) error { return nil }
