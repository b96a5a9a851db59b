package definition

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// followAgainAfter is the pause before the journal is read again from its beginning.
const followAgainAfter = time.Second

// Store keeps definitions in the journal. Its methods are safe for concurrent use
// between Start and Stop. Callers pass namespaces that are valid.
//
// Besides the errors each method names, those that change something return the journal's.
type Store struct {
	journal *journal.Journal
	log     *slog.Logger
	now     func() time.Time
	stream  *journal.Stream
	catalog catalog
	// builtIn are the documents of the runtime's own that are in its binary.
	builtIn []Definition

	// maxDefinitions and maxVersions are the limits of these names, lower in tests.
	maxDefinitions, maxVersions int

	// changes is held by whoever changes definitions.
	changes sync.Mutex

	subscribers []func(namespace string, kind Kind, name string)
	work        context.Context //nolint:containedctx // the lifetime of what Start began, ended by Stop
	endWork     context.CancelFunc
	running     sync.WaitGroup
}

// New returns a store in the journal, which must be started before the store. now is the
// wall clock; nil: time.Now.
func New(j *journal.Journal, now func() time.Time, log *slog.Logger) *Store {
	if now == nil {
		now = time.Now
	}
	s := &Store{
		journal: j, log: log, now: now, catalog: catalog{names: map[key]*entry{}, own: map[key]Definition{}},
		maxDefinitions: MaxDefinitions, maxVersions: MaxVersions,
	}
	s.work, s.endWork = context.WithCancel(context.Background())
	return s
}

// AddBuiltIn adds a document that is part of the runtime, before Start.
func (s *Store) AddBuiltIn(d Definition) { s.builtIn = append(s.builtIn, d) }

// OnChange has fn called after another version of a name became current, or none, here or
// in another runtime on the same journal. For documents of the runtime's own the namespace
// is empty. It is added before Start, and must return soon.
func (s *Store) OnChange(fn func(namespace string, kind Kind, name string)) {
	s.subscribers = append(s.subscribers, fn)
}

// Start reads what is kept and notes versions of built-in documents that are new. It
// returns when definitions can be read and registered.
func (s *Store) Start(ctx context.Context) error {
	stream, err := s.journal.OpenStream(ctx, journal.StreamConfig{
		Name: streamName, Subjects: []string{subjectPrefix + ">"}, LastPerSubject: true,
	})
	if err != nil {
		return fmt.Errorf("open stream of definitions: %w", err)
	}
	return s.begin(ctx, stream)
}

func (s *Store) begin(ctx context.Context, stream *journal.Stream) error {
	s.stream = stream
	position, err := s.scan(ctx, "")
	if err != nil {
		return err
	}
	if err := s.Provide(ctx, nil); err != nil {
		return err
	}
	s.running.Go(func() { s.follow(position) })
	return nil
}

// Stop ends what the store does in the background. It is safe twice and before Start.
func (s *Store) Stop(ctx context.Context) error {
	s.endWork()
	finished := make(chan struct{})
	go func() {
		s.running.Wait()
		close(finished)
	}()
	select {
	case <-finished:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop definitions: %w", context.Cause(ctx))
	}
}

// Get returns a version of a name that a namespace sees, be the name deleted or not;
// version "": the current one, which is in memory. Errors: *NotFoundError, the journal's.
func (s *Store) Get(ctx context.Context, namespace string, kind Kind, name, version string) (Definition, error) {
	k := key{namespace, kind, name}
	d, found := s.catalog.current(k)
	if found && (version == "" || version == d.Version) {
		return d, nil
	}
	missing := &NotFoundError{Kind: kind, Name: name, Version: version}
	if version == "" {
		return Definition{}, missing
	}
	for _, owner := range []string{namespace, ""} {
		k.namespace = owner
		if e := s.catalog.read(k); e.versions[version].sequence > 0 {
			return s.readVersion(ctx, k, version)
		}
	}
	return Definition{}, missing
}

func (s *Store) readVersion(ctx context.Context, k key, name string) (Definition, error) {
	var v version
	rec, err := s.stream.Last(ctx, k.subject(name))
	if err == nil && !rec.Expired {
		err = json.Unmarshal(rec.Data, &v)
	}
	switch {
	case errors.Is(err, journal.ErrNotFound), err == nil && (rec.Expired || v.Gone):
		return Definition{}, &NotFoundError{Kind: k.kind, Name: k.name, Version: name}
	case err != nil:
		return Definition{}, fmt.Errorf("read version %s of %s %s: %w", name, k.kind, k.name, err)
	}
	return v.definition(k, name), nil
}

// List returns what is current of a kind and a namespace sees, by name.
func (s *Store) List(namespace string, kind Kind) []Definition {
	return s.catalog.list(namespace, kind)
}

// Versions returns the versions of a name without their texts, the newest first.
// Errors: *NotFoundError, for one that was deleted too.
func (s *Store) Versions(namespace string, kind Kind, name string) ([]Definition, error) {
	k := key{namespace, kind, name}
	current, found := s.catalog.current(k)
	if !found {
		return nil, &NotFoundError{Kind: kind, Name: name}
	}
	k.namespace = current.Namespace
	e := s.catalog.read(k)
	versions := make([]Definition, 0, len(e.versions))
	for name, v := range e.versions {
		versions = append(versions, v.definition(k, name))
	}
	slices.SortFunc(versions, func(a, b Definition) int { return cmp.Compare(b.Number, a.Number) })
	return versions, nil
}

// scan takes in what is kept of a name, or of all; it returns up to where.
func (s *Store) scan(ctx context.Context, filter string) (uint64, error) {
	position, err := s.stream.Scan(ctx, 0, false, []string{cmp.Or(filter, subjectPrefix+">")}, func(rec journal.Record) error {
		s.take(ctx, rec)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read definitions: %w", err)
	}
	return position, nil
}

// take takes a record in. One that cannot be read is left out: it must not keep the others away.
func (s *Store) take(ctx context.Context, rec journal.Record) {
	k, changed, err := s.catalog.apply(rec)
	if err != nil {
		s.log.ErrorContext(ctx, "definition unreadable", "subject", rec.Subject, "sequence", rec.Sequence, "err", err)
	} else if changed && k.namespace != "" {
		s.tell(k)
	}
}

func (s *Store) tell(k key) {
	for _, fn := range s.subscribers {
		fn(k.namespace, k.kind, k.name)
	}
}

// follow takes in what other runtimes on the journal change, until the store stops.
func (s *Store) follow(position uint64) {
	for {
		err := s.stream.Follow(s.work, position, nil, func(batch []journal.Record, to uint64) error {
			for _, rec := range batch {
				s.take(s.work, rec)
			}
			position = to
			return nil
		})
		if s.work.Err() != nil {
			return
		}
		s.log.Warn("definitions not followed", "err", err)
		select {
		case <-time.After(followAgainAfter):
		case <-s.work.Done():
			return
		}
		if to, err := s.scan(s.work, ""); err == nil {
			position = to
		}
	}
}
