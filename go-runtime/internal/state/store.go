package state

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

const (
	// DefaultMaxValueBytes is the largest value unless configured.
	DefaultMaxValueBytes = 1 << 20
	// dedupeWindow is how long a repeated write is recognised whatever was
	// written in between; each write with a request id takes memory for that long.
	dedupeWindow = time.Minute
	// indexIdle is how long the index of keys outlives its last use.
	indexIdle = 5 * time.Minute
)

// Config is what a Store can be told.
type Config struct {
	// MaxValueBytes is the largest value; 0: DefaultMaxValueBytes.
	MaxValueBytes int
	// Now is the clock that says whether a key has expired; nil: time.Now.
	Now func() time.Time
}

// Store is the shared state of every namespace. Its methods are safe for
// concurrent use between Start and Stop. Callers pass namespaces that are valid.
//
// Besides the errors each method names, all return those of the journal:
// journal.ErrNoSpace, and journal.ErrUnavailable after which the outcome of a
// change is unknown until it is repeated.
type Store struct {
	cfg     Config
	journal *journal.Journal
	stream  *journal.Stream
	index   *index
	turn    chan struct{} // held by a change that tries again
}

// Entry is a key with its value.
type Entry struct {
	Key string
	// Value is a JSON text, byte for byte as it was set; nil where it was left out.
	Value    []byte
	Revision uint64
	// UpdatedAt is when the key was last set.
	UpdatedAt time.Time
	// ExpiresAt is when the key is removed; zero: never.
	ExpiresAt time.Time
}

// RevisionError reports that a key is not at the revision that a change expected.
type RevisionError struct {
	Key string
	// Revision is the key's current one; 0 when there is no such key.
	Revision uint64
	// CreateOnly is true when the key was expected not to exist.
	CreateOnly bool
}

func (e *RevisionError) Error() string {
	switch {
	case e.CreateOnly:
		return fmt.Sprintf("key %q exists already, at revision %d", e.Key, e.Revision)
	case e.Revision == 0:
		return fmt.Sprintf("key %q does not exist", e.Key)
	default:
		return fmt.Sprintf("key %q is at revision %d", e.Key, e.Revision)
	}
}

// New returns a store in the journal, which must be started before the store.
func New(cfg Config, j *journal.Journal, log *slog.Logger) (*Store, error) {
	if cfg.MaxValueBytes < 0 {
		return nil, fmt.Errorf("state: the largest value cannot be %d bytes", cfg.MaxValueBytes)
	}
	if cfg.MaxValueBytes == 0 {
		cfg.MaxValueBytes = DefaultMaxValueBytes
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Store{cfg: cfg, journal: j, index: newIndex(indexIdle, log), turn: make(chan struct{}, 1)}, nil
}

// Start opens the store's stream and returns when the store can be used.
func (s *Store) Start(ctx context.Context) error {
	stream, err := s.journal.OpenStream(ctx, journal.StreamConfig{
		Name:           streamName,
		Subjects:       []string{subjectRoot + ">"},
		LastPerSubject: true,
		DedupeWindow:   dedupeWindow,
	})
	if err != nil {
		return fmt.Errorf("start state: %w", err)
	}
	s.stream = stream
	return nil
}

// Stop ends what the store does in the background. It is safe twice and before
// Start; watches end with their own contexts.
func (s *Store) Stop(ctx context.Context) error {
	if err := s.index.stop(ctx); err != nil {
		return fmt.Errorf("stop state: %w", err)
	}
	return nil
}
