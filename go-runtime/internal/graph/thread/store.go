package thread

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Config says how much of threads is kept. What the latest checkpoint of a thread is made
// of always is, so that somewhat more is kept than asked for.
type Config struct {
	// MaxCheckpoints is how many checkpoints of a thread are kept at least before older
	// ones are removed; 0: all.
	MaxCheckpoints int
	// MaxAge is after what time checkpoints are removed; 0: never.
	MaxAge time.Duration
	// MaxIdle is after what time without a new checkpoint a thread is deleted, whether it
	// is done or waits; 0: never.
	MaxIdle time.Duration
	// SweepInterval is how often ages are looked at; 0: every hour.
	SweepInterval time.Duration
	// Now is the clock for ages; nil: time.Now.
	Now func() time.Time
}

const (
	defaultSweepInterval = time.Hour
	maxPage              = 100
)

func (c Config) validate() error {
	var wrong []error
	for _, field := range []struct {
		name     string
		negative bool
	}{
		{"max_checkpoints", c.MaxCheckpoints < 0},
		{"max_age", c.MaxAge < 0},
		{"max_idle", c.MaxIdle < 0},
		{"sweep_interval", c.SweepInterval < 0},
	} {
		if field.negative {
			wrong = append(wrong, violation.New(field.name, "must not be negative"))
		}
	}
	return violation.Join(wrong...)
}

// Store keeps threads. Its methods are safe for concurrent use between Start and Stop.
//
// Besides the errors that methods name, all return those of the journal:
// journal.ErrNoSpace, and journal.ErrUnavailable after which the outcome is unknown.
type Store struct {
	cfg     Config
	journal *journal.Journal
	log     *slog.Logger
	stream  *journal.Stream

	sweeping sync.WaitGroup
	stop     context.CancelFunc
}

// New validates the configuration; its error is a *violation.Error.
func New(cfg Config, j *journal.Journal, log *slog.Logger) (*Store, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.SweepInterval == 0 {
		cfg.SweepInterval = defaultSweepInterval
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Store{cfg: cfg, journal: j, log: log}, nil
}

// Start opens the stream. The journal has to be started.
func (s *Store) Start(ctx context.Context) error {
	stream, err := s.journal.OpenStream(ctx, journal.StreamConfig{Name: streamName, Subjects: []string{subjectPrefix + ">"}})
	if err != nil {
		return fmt.Errorf("open stream of threads: %w", err)
	}
	s.stream = stream
	if s.cfg.MaxAge == 0 && s.cfg.MaxIdle == 0 {
		return nil
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.sweeping.Go(func() { s.sweepAlways(work) })
	return nil
}

// Stop ends what Start began. Savers have to be closed before. It is safe to call twice
// and before Start.
func (s *Store) Stop(context.Context) error {
	if s.stop != nil {
		s.stop()
	}
	s.sweeping.Wait()
	return nil
}

// Thread is how a thread stands.
type Thread struct {
	ID string `json:"id"`
	// Graph is the name of the graph that ran it last.
	Graph  string       `json:"graph"`
	Status graph.Status `json:"status"`
	// Revision is that of its latest checkpoint.
	Revision   uint64            `json:"-"`
	Interrupts []graph.Interrupt `json:"interrupts,omitempty"`
	Error      string            `json:"error,omitempty"`
	Updated    time.Time         `json:"-"`
	// Position rises with each change of any thread.
	Position uint64 `json:"-"`
}

var errFull = errors.New("the page is full")

// List returns threads of a namespace, those that changed last at the end, and limit of
// them at most: those that changed behind a position. The next page is behind the last
// one's Position. 0 as the limit, and more than 100, is 100. Each page reads the last
// record of each thread of the namespace up to its end.
func (s *Store) List(ctx context.Context, namespace string, after uint64, limit int) ([]Thread, error) {
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	var threads []Thread
	filter := subjectPrefix + journal.EncodeToken(namespace) + ".*"
	_, err := s.stream.Scan(ctx, after, true, []string{filter}, func(r journal.Record) error {
		if len(threads) == limit {
			return errFull
		}
		t, err := describe(r)
		if err == nil && t.Revision > 0 {
			threads = append(threads, t)
		}
		return err
	})
	if err != nil && !errors.Is(err, errFull) {
		return nil, fmt.Errorf("list threads: %w", err)
	}
	return threads, nil
}

// Get returns one thread, or graph.ErrUnknownThread.
func (s *Store) Get(ctx context.Context, namespace, thread string) (Thread, error) {
	last, err := s.stream.Last(ctx, rootSubject(namespace, thread))
	if errors.Is(err, journal.ErrNotFound) {
		return Thread{}, fmt.Errorf("thread %s: %w", thread, graph.ErrUnknownThread)
	}
	if err != nil {
		return Thread{}, err
	}
	t, err := describe(last)
	if err == nil && t.Revision == 0 {
		err = fmt.Errorf("thread %s: %w", thread, graph.ErrUnknownThread)
	}
	return t, err
}

func describe(r journal.Record) (Thread, error) {
	_, root, _, err := parseSubject(r.Subject)
	if err != nil {
		return Thread{}, err
	}
	d, err := decode(r)
	if err != nil || d.revision == 0 {
		return Thread{}, err
	}
	var t Thread
	if err := json.Unmarshal(d.texts[len(d.texts)-1], &t); err != nil {
		return Thread{}, fmt.Errorf("%w: sequence %d: %w", errBadRecord, r.Sequence, err)
	}
	t.ID, t.Revision, t.Position, t.Updated = root, d.revision, r.Sequence, r.Time
	return t, nil
}

// Bytes is how many the records of a thread have, without those of its subgraphs. It
// reads them.
func (s *Store) Bytes(ctx context.Context, namespace, thread string) (int64, error) {
	var bytes int64
	_, err := s.stream.Scan(ctx, 0, false, []string{rootSubject(namespace, thread)}, func(r journal.Record) error {
		bytes += int64(len(r.Data))
		return nil
	})
	return bytes, err
}

// Delete removes a thread with all its checkpoints and those of its subgraphs; one that
// there is not is no error. A run of it that is under way ends with graph.ErrConflict.
func (s *Store) Delete(ctx context.Context, namespace, thread string) error {
	subject := rootSubject(namespace, thread)
	for _, each := range []string{subject, subject + ".>"} {
		if err := s.stream.Purge(ctx, each); err != nil {
			return fmt.Errorf("delete thread %s: %w", thread, err)
		}
	}
	return nil
}
