package schedule

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Runs is what accepts runs: the engine.
type Runs interface {
	// CheckRun refuses a request that CreateRun would refuse whatever the load.
	CheckRun(namespace string, r engine.CreateRequest) error
	CreateRun(ctx context.Context, namespace string, r engine.CreateRequest) (run engine.Run, created bool, err error)
}

// Store keeps schedules and creates their runs. Its methods are safe for
// concurrent use.
type Store struct {
	journal *journal.Journal
	runs    Runs
	log     *slog.Logger
	now     func() time.Time
	stream  *journal.Stream

	// changes is held by whoever changes schedules.
	changes sync.Mutex

	mu     sync.Mutex
	byName map[name]*kept
	// changed carries one token when the next time may be another.
	changed chan struct{}

	stopping chan struct{}
	stopOnce sync.Once
	work     context.Context //nolint:containedctx // the lifetime of what Start began, ended by Stop
	endWork  context.CancelFunc
	running  sync.WaitGroup
	// creating says that a run is being created.
	creating atomic.Bool
}

type name struct{ namespace, id string }

// kept is a schedule and the sequence of its record.
type kept struct {
	schedule Schedule
	table    timetable
	sequence uint64
}

const (
	streamName    = "SCHEDULES"
	subjectPrefix = "schedule."
	// deletedTTL is how long the mark of a deleted schedule is kept.
	deletedTTL = 24 * time.Hour
	// longestSleep bounds how late a step of the wall clock is noticed.
	longestSleep = 10 * time.Second
	// retryAfter is the pause after a run could not be created.
	retryAfter = 5 * time.Second
)

// New returns a store of schedules whose runs are created by runs. now is the
// wall clock; nil: time.Now.
func New(j *journal.Journal, runs Runs, now func() time.Time, log *slog.Logger) *Store {
	if now == nil {
		now = time.Now
	}
	s := &Store{
		journal: j, runs: runs, log: log, now: now, byName: map[name]*kept{},
		changed: make(chan struct{}, 1), stopping: make(chan struct{}),
	}
	s.work, s.endWork = context.WithCancel(context.Background())
	return s
}

// Start reads the schedules that are kept and begins to create their runs. The
// journal and the engine have to be started.
func (s *Store) Start(ctx context.Context) error {
	stream, err := s.journal.OpenStream(ctx, journal.StreamConfig{
		Name: streamName, Subjects: []string{subjectPrefix + ">"}, LastPerSubject: true,
	})
	if err != nil {
		return fmt.Errorf("open stream of schedules: %w", err)
	}
	s.stream = stream
	_, err = stream.Scan(ctx, 0, false, []string{subjectPrefix + ">"}, func(rec journal.Record) error {
		of, err := parseSubject(rec.Subject)
		var k *kept
		if err == nil {
			k, err = decode(rec, of)
		}
		switch {
		case err != nil:
			s.log.ErrorContext(ctx, "schedule unreadable", "subject", rec.Subject, "sequence", rec.Sequence, "err", err)
		case k != nil:
			s.byName[of] = k
		default:
			// A server that lagged behind may have given an older record before.
			delete(s.byName, of)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read schedules: %w", err)
	}
	s.running.Go(s.run)
	return nil
}

// Stop creates no more runs, and waits for the one that is being created until ctx
// ends. It is safe to call twice and before Start.
func (s *Store) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() {
		close(s.stopping)
		s.endWork()
	})
	finished := make(chan struct{})
	go func() {
		s.running.Wait()
		close(finished)
	}()
	select {
	case <-finished:
		return nil
	case <-ctx.Done():
		if !s.creating.Load() {
			// It only has to be told.
			<-finished
			return nil
		}
		return fmt.Errorf("a scheduled run is still being created: %w", context.Cause(ctx))
	}
}

// Create keeps a schedule, in place of the one that has its id if replace is set,
// and returns it once it is durable.
// Errors: *ExistsError, *violation.Error, those of the engine for its run, the journal's.
func (s *Store) Create(ctx context.Context, schedule Schedule, replace bool) (Schedule, error) {
	table, err := schedule.check()
	if err != nil {
		return Schedule{}, err
	}
	if err := s.runs.CheckRun(schedule.Namespace, schedule.Run); err != nil {
		if names, moved := violation.In("schedule.run", err); names {
			err = moved
		}
		return Schedule{}, err
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	now := s.now().UTC()
	schedule.CreatedAt, schedule.ResumedAt = now, now
	before := s.get(schedule.Namespace, schedule.ID)
	if before != nil {
		if !replace {
			return Schedule{}, &ExistsError{ID: schedule.ID}
		}
		old := &before.schedule
		schedule.CreatedAt = old.CreatedAt
		schedule.LastTime, schedule.LastRunID, schedule.LastError = old.LastTime, old.LastRunID, old.LastError
	}
	return s.keep(ctx, &kept{schedule: schedule, table: table}, journal.Accept)
}

// List returns the schedules of a namespace, by id.
func (s *Store) List(namespace string) []Schedule {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []Schedule
	for n, k := range s.byName {
		if n.namespace == namespace {
			found = append(found, k.shown())
		}
	}
	slices.SortFunc(found, func(a, b Schedule) int { return cmp.Compare(a.ID, b.ID) })
	return found
}

// Pause stops a schedule, or lets it go on from now. Errors: *NotFoundError, the journal's.
func (s *Store) Pause(ctx context.Context, namespace, id string, paused bool) (Schedule, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	k := s.get(namespace, id)
	if k == nil {
		return Schedule{}, &NotFoundError{ID: id}
	}
	if k.schedule.Paused == paused {
		return k.shown(), nil
	}
	next := *k
	next.schedule.Paused = paused
	next.schedule.ResumedAt = s.now().UTC()
	return s.keep(ctx, &next, journal.Finish)
}

// Delete removes a schedule. Errors: *NotFoundError, the journal's.
func (s *Store) Delete(ctx context.Context, namespace, id string) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	k := s.get(namespace, id)
	if k == nil {
		return &NotFoundError{ID: id}
	}
	mark := kept{schedule: Schedule{ID: id, Namespace: namespace, Deleted: true}}
	if _, err := s.append(ctx, &mark, deletedTTL, journal.Release); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.byName, name{namespace, id})
	s.mu.Unlock()
	return nil
}

// Trigger creates a schedule's run now, beside its times; with a requestID a
// repeat joins the same run. Errors: *NotFoundError, those of the engine.
func (s *Store) Trigger(ctx context.Context, namespace, id, requestID string) (engine.Run, error) {
	k := s.get(namespace, id)
	if k == nil {
		return engine.Run{}, &NotFoundError{ID: id}
	}
	if requestID == "" {
		requestID = uuid.NewString()
	}
	run, _, err := s.runs.CreateRun(ctx, namespace, k.schedule.request(k.schedule.runID("request\x00"+requestID)))
	return run, err
}

func (s *Store) get(namespace, id string) *kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byName[name{namespace, id}]
}

// keep makes a schedule durable, and then the one that counts.
func (s *Store) keep(ctx context.Context, k *kept, purpose journal.Purpose) (Schedule, error) {
	seq, err := s.append(ctx, k, 0, purpose)
	if err != nil {
		return Schedule{}, err
	}
	k.sequence = seq
	s.mu.Lock()
	s.byName[name{k.schedule.Namespace, k.schedule.ID}] = k
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return k.shown(), nil
}

func (s *Store) append(ctx context.Context, k *kept, ttl time.Duration, purpose journal.Purpose) (uint64, error) {
	data, err := json.Marshal(k.schedule)
	if err != nil {
		return 0, fmt.Errorf("encode schedule %s: %w", k.schedule.ID, err)
	}
	subject := subjectPrefix + journal.EncodeToken(k.schedule.Namespace) + "." + journal.EncodeToken(k.schedule.ID)
	seq, err := s.stream.Append(ctx, journal.Message{Subject: subject, Data: data, TTL: ttl, Purpose: purpose})
	if err == nil {
		err = s.stream.Commit(ctx, seq)
	}
	if err != nil {
		return 0, fmt.Errorf("keep schedule %s: %w", k.schedule.ID, err)
	}
	return seq, nil
}

func parseSubject(subject string) (name, error) {
	namespaceToken, idToken, ok := strings.Cut(strings.TrimPrefix(subject, subjectPrefix), ".")
	if !ok {
		return name{}, fmt.Errorf("subject %q names no schedule", subject)
	}
	namespace, errNamespace := journal.DecodeToken(namespaceToken)
	id, errID := journal.DecodeToken(idToken)
	return name{namespace, id}, errors.Join(errNamespace, errID)
}

// decode reads a record; nil for one that marks a schedule as gone.
func decode(rec journal.Record, of name) (*kept, error) {
	if rec.Expired {
		return nil, nil //nolint:nilnil // the schedule is gone
	}
	k := &kept{sequence: rec.Sequence}
	if err := json.Unmarshal(rec.Data, &k.schedule); err != nil {
		return nil, fmt.Errorf("decode schedule: %w", err)
	}
	if k.schedule.Deleted {
		return nil, nil //nolint:nilnil // the schedule is gone
	}
	k.schedule.Namespace, k.schedule.ID = of.namespace, of.id
	var err error
	k.table, err = parse(&k.schedule)
	return k, err
}

// base is since when the times of a schedule count.
func (k *kept) base() time.Time {
	if k.schedule.LastTime.After(k.schedule.ResumedAt) {
		return k.schedule.LastTime
	}
	return k.schedule.ResumedAt
}

// shown is the schedule with its next time.
func (k *kept) shown() Schedule {
	schedule := k.schedule
	if !schedule.Paused {
		schedule.NextTime = k.table.next(k.base())
	}
	return schedule
}

// due returns the latest time up to now that has had no run; zero: none.
func (k *kept) due(now time.Time) time.Time {
	if k.schedule.Paused {
		return time.Time{}
	}
	var latest time.Time
	next := k.table.next(k.base())
	for n := 0; !next.IsZero() && !next.After(now); n++ {
		latest = next
		if n == mostMissed {
			// So many have passed that one by one is no way to the latest.
			next = k.table.next(now.Add(-longestPeriod(k.table, now)))
			continue
		}
		next = k.table.next(next)
	}
	return latest
}

// mostMissed is how many times that passed are gone through one by one.
const mostMissed = 1000

// longestPeriod is how long before now a time of the table lies, at most.
func longestPeriod(table timetable, now time.Time) time.Duration {
	for period := time.Minute; ; period *= 2 {
		if next := table.next(now.Add(-period)); !next.After(now) {
			return period
		}
	}
}

// run creates the runs that are due until the store stops.
func (s *Store) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.changed:
		case <-s.stopping:
			return
		}
		timer.Reset(s.createDue())
	}
}

// createDue creates the runs that are due and returns how long to sleep.
func (s *Store) createDue() time.Duration {
	s.changes.Lock()
	defer s.changes.Unlock()
	now := s.now()
	s.mu.Lock()
	all := make([]*kept, 0, len(s.byName))
	for _, k := range s.byName {
		all = append(all, k)
	}
	s.mu.Unlock()
	sleep := longestSleep
	for _, k := range all {
		if s.work.Err() != nil {
			return longestSleep
		}
		if due := k.due(now); !due.IsZero() {
			if !s.create(k, due) {
				sleep = min(sleep, retryAfter)
				continue
			}
			k = s.get(k.schedule.Namespace, k.schedule.ID)
		}
		if next := k.shown().NextTime; !next.IsZero() {
			sleep = min(sleep, max(time.Millisecond, next.Sub(now)))
		}
	}
	return sleep
}

// create creates the run of a time, and reports whether the time is done with.
func (s *Store) create(k *kept, due time.Time) bool {
	s.creating.Store(true)
	defer s.creating.Store(false)
	next := *k
	run, _, err := s.runs.CreateRun(s.work, k.schedule.Namespace, k.schedule.request(k.schedule.runID(due.Format(time.RFC3339))))
	switch {
	case s.work.Err() != nil:
		return false
	case err != nil && !refused(err):
		s.log.Warn("scheduled run not created yet", "schedule_id", k.schedule.ID, "namespace", k.schedule.Namespace, "err", err)
		// In memory only: it is found again by each try, which may be many.
		next.schedule.LastError = err.Error()
		s.mu.Lock()
		s.byName[name{k.schedule.Namespace, k.schedule.ID}] = &next
		s.mu.Unlock()
		return false
	case err != nil:
		s.log.Error("scheduled run refused", "schedule_id", k.schedule.ID, "namespace", k.schedule.Namespace, "err", err)
		next.schedule.LastTime, next.schedule.LastError = due, err.Error()
	default:
		next.schedule.LastTime, next.schedule.LastRunID, next.schedule.LastError = due, run.ID, ""
		s.log.Info("scheduled run created", "schedule_id", k.schedule.ID, "namespace", k.schedule.Namespace, "run_id", run.ID)
	}
	if _, err := s.keep(s.work, &next, journal.Finish); err != nil {
		s.log.Warn("schedule not kept", "schedule_id", k.schedule.ID, "namespace", k.schedule.Namespace, "err", err)
		return false
	}
	return true
}
