package workspace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const (
	streamName  = "FILES"
	subjectRoot = "file."
	rootPrefix  = subjectRoot + "root."
	packPrefix  = subjectRoot + "pack."
)

// The quotas of a workspace and the retention of what was saved, by default.
const (
	DefaultMaxFiles     = 1000
	DefaultMaxFileBytes = 1 << 20
	DefaultMaxBytes     = 64 << 20
	DefaultKeepFor      = 7 * 24 * time.Hour
)

const (
	// maxPackBytes is the largest record of contents: who reads a small file
	// reads the pack that it is in.
	maxPackBytes = 256 << 10
	// minPackBytes is the smallest that a journal must take.
	minPackBytes = 1 << 10
	// sweepEvery is how often it is looked for what is too old.
	sweepEvery = 10 * time.Minute
	// unknownGrace is how long what was saved is kept for a run that nobody knows.
	unknownGrace = time.Hour
)

// Config says where workspaces are and what they may hold. Zero values mean the defaults.
type Config struct {
	// Dir is the folder that has the folders of open workspaces, of this process
	// alone, and nothing else. Start empties it; it is made when it is needed.
	Dir string
	// MaxFiles, MaxFileBytes and MaxBytes are the quotas of each workspace.
	MaxFiles     int
	MaxFileBytes int64
	MaxBytes     int64
	// PackBytes is the largest record of contents, at most 256 KiB: the journal
	// must take it with its headers.
	PackBytes int
	// KeepFor is how long what was saved is kept after the end of its run.
	KeepFor time.Duration
	// Now is the wall clock.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	if c.MaxFiles == 0 {
		c.MaxFiles = DefaultMaxFiles
	}
	if c.MaxFileBytes == 0 {
		c.MaxFileBytes = DefaultMaxFileBytes
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.PackBytes == 0 {
		c.PackBytes = maxPackBytes
	}
	if c.KeepFor == 0 {
		c.KeepFor = DefaultKeepFor
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("a folder for workspaces is required"))
	}
	if c.MaxFiles < 0 || c.MaxFileBytes < 0 || c.MaxBytes < 0 || c.KeepFor < 0 {
		errs = append(errs, errors.New("quotas and times must not be negative"))
	}
	if c.PackBytes < minPackBytes || c.PackBytes > maxPackBytes {
		errs = append(errs, fmt.Errorf("packs must be of %d to %d bytes, not %d", minPackBytes, maxPackBytes, c.PackBytes))
	}
	return errors.Join(errs...)
}

// RunStatus is where the run of a workspace stands.
type RunStatus struct {
	// Known is false of a run that never was, or is forgotten.
	Known bool
	// Ended is zero while the run goes on.
	Ended time.Time
}

// Runs tells where a run stands. An error leaves its files as they are.
type Runs func(ctx context.Context, namespace, runID string) (RunStatus, error)

// Store has the workspaces of all runs. Its methods are safe for concurrent use
// once Start returned.
type Store struct {
	cfg     Config
	journal *journal.Journal
	runs    Runs
	log     *slog.Logger
	stream  *journal.Stream

	cancel     context.CancelFunc // of what goes on in the background
	background sync.WaitGroup

	mu   sync.Mutex
	open map[place]*Workspace
}

// place is which run it is about.
type place struct{ namespace, runID string }

func (p place) String() string { return "run " + p.runID }

// subject is that of the run's records of one kind.
func (p place) subject(prefix string) string {
	return prefix + journal.EncodeToken(p.namespace) + "." + journal.EncodeToken(p.runID)
}

// newPlace refuses names that are not fit for folders: namespaces and run ids
// that the runtime made are.
func newPlace(namespace, runID string) (place, error) {
	var errs []error
	for _, part := range []struct{ field, value string }{{"namespace", namespace}, {"run_id", runID}} {
		unfit := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }
		if part.value == "" || len(part.value) > 63 || strings.ContainsFunc(part.value, unfit) {
			errs = append(errs, violation.New(part.field, "want 1 to 63 of a-z, 0-9 and dashes"))
		}
	}
	return place{namespace, runID}, violation.Join(errs...)
}

// New returns a store in the journal, which must be started before the store.
// runs is asked for the runs whose files may be too old.
func New(cfg Config, j *journal.Journal, runs Runs, log *slog.Logger) (*Store, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("workspace configuration: %w", err)
	}
	return &Store{cfg: cfg, journal: j, runs: runs, log: log, open: map[place]*Workspace{}}, nil
}

// Start opens the store and empties the folder of workspaces: none is open, and
// what was not saved is gone.
func (s *Store) Start(ctx context.Context) error {
	stream, err := s.journal.OpenStream(ctx, journal.StreamConfig{Name: streamName, Subjects: []string{subjectRoot + ">"}})
	if err != nil {
		return fmt.Errorf("start workspaces: %w", err)
	}
	if err := os.RemoveAll(s.cfg.Dir); err != nil {
		return fmt.Errorf("start workspaces: empty their folder: %w", err)
	}
	s.stream = stream
	ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.background.Go(func() { s.sweepUntil(ctx) })
	return nil
}

// Stop ends what goes on in the background. It is safe twice and before Start.
func (s *Store) Stop(context.Context) error {
	if s.cancel != nil {
		s.cancel()
	}
	s.background.Wait()
	return nil
}

// Open returns the workspace of a run, with the files that were saved last;
// each Open needs a Close. While somebody has it open, others get the same one
// as it is. Errors: *violation.Error, ErrDamaged, the journal's, the disk's.
func (s *Store) Open(ctx context.Context, namespace, runID string) (*Workspace, error) {
	at, err := newPlace(namespace, runID)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	w, found := s.open[at]
	if !found {
		w = &Workspace{store: s, at: at, dir: filepath.Join(s.cfg.Dir, namespace, runID)}
		s.open[at] = w
		w.mu.Lock()
	}
	w.opened++
	s.mu.Unlock()
	if found {
		w.mu.Lock()
	} else {
		w.err = w.begin(ctx)
	}
	err = w.err
	w.mu.Unlock()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the workspace of %s: %w", at, err), w.Close())
	}
	return w, nil
}

// release gives up one Open; the last one removes the folder.
func (s *Store) release(w *Workspace) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.opened == 0 {
		return nil
	}
	if w.opened--; w.opened > 0 {
		return nil
	}
	delete(s.open, w.at)
	if err := w.end(); err != nil {
		return fmt.Errorf("close the workspace of %s: %w", w.at, err)
	}
	return nil
}

// Delete removes what was saved of a run. A workspace that is open keeps its
// folder, and its next save is refused.
func (s *Store) Delete(ctx context.Context, namespace, runID string) error {
	at, err := newPlace(namespace, runID)
	if err != nil {
		return err
	}
	// The root last: as long as it is there, what is left is found again.
	for _, prefix := range []string{packPrefix, rootPrefix} {
		if err := s.stream.Purge(ctx, at.subject(prefix)); err != nil {
			return fmt.Errorf("delete the files of %s: %w", at, err)
		}
	}
	return nil
}

func (s *Store) sweepUntil(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("old files of runs not removed", "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// sweep deletes what was saved of runs that ended long ago, or are forgotten.
func (s *Store) sweep(ctx context.Context) error {
	var saved []place
	var at []time.Time
	_, err := s.stream.Scan(ctx, 0, true, []string{rootPrefix + ">"}, func(rec journal.Record) error {
		if p, ok := parseSubject(rec.Subject); ok {
			saved, at = append(saved, p), append(at, rec.Time)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for old files: %w", err)
	}
	for i, p := range saved {
		if s.isOpen(p) {
			continue
		}
		status, err := s.runs(ctx, p.namespace, p.runID)
		if err != nil {
			return fmt.Errorf("look for old files: %s: %w", p, err)
		}
		now := s.cfg.Now()
		old := status.Known && !status.Ended.IsZero() && now.Sub(status.Ended) > s.cfg.KeepFor ||
			!status.Known && now.Sub(at[i]) > unknownGrace
		if !old {
			continue
		}
		if err := s.Delete(ctx, p.namespace, p.runID); err != nil {
			return err
		}
		s.log.Debug("files of a run removed", "namespace", p.namespace, "run_id", p.runID)
	}
	return nil
}

func (s *Store) isOpen(p place) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[p] != nil
}

// parseSubject tells which run a root is of.
func parseSubject(subject string) (place, bool) {
	namespaceToken, idToken, found := strings.Cut(strings.TrimPrefix(subject, rootPrefix), ".")
	namespace, err1 := journal.DecodeToken(namespaceToken)
	runID, err2 := journal.DecodeToken(idToken)
	return place{namespace, runID}, found && err1 == nil && err2 == nil
}
