package journal

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// markerTTL is how long a marker of an expired record stays for readers that
// were away.
const markerTTL = 24 * time.Hour

// ensureTry is how long a stream's configuration may take, ensureWithin how long
// it is tried.
const (
	ensureTry    = 3 * time.Second
	ensureWithin = 30 * time.Second
)

// Stream is an ordered log of records. Its methods are safe for concurrent
// use.
type Stream struct {
	journal *Journal
	cfg     StreamConfig
	log     jetstream.Stream
	tail    *tail
	mark    *markFile   // nil in a cluster
	newest  *newest     // nil in a cluster, and where subjects keep older records
	lost    []lostRange // what readers must not step over unawares

	// appended is the newest sequence known to be in the store, durable the
	// newest that may be shown.
	appended, durable atomic.Uint64
	// syncing is what will be durable when the running sync has ended. The
	// barrier's lock guards it; who syncs may read it.
	syncing uint64
	// thinned says that records may be removed from between others, see mark;
	// thinKnown says that a power cut cannot make the mark forget it.
	thinned, thinKnown atomic.Bool

	atomicSlots chan struct{}
}

// OpenStream creates the stream or changes it to the configuration. Call it
// between Start and Stop; a second call with the same name is an error.
func (j *Journal) OpenStream(ctx context.Context, cfg StreamConfig) (*Stream, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("open stream %q: %w", cfg.Name, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.started || j.stopped {
		return nil, fmt.Errorf("open stream %s: %w: journal is not running", cfg.Name, ErrUnavailable)
	}
	if _, ok := j.streams[cfg.Name]; ok {
		return nil, fmt.Errorf("open stream %s: it is open already", cfg.Name)
	}
	server := jetstream.StreamConfig{
		Name:               cfg.Name,
		Subjects:           slices.Clone(cfg.Subjects),
		MaxAge:             cfg.MaxAge,
		MaxBytes:           cmpZero(cfg.MaxBytes, -1),
		Discard:            jetstream.DiscardOld,
		Storage:            jetstream.FileStorage,
		Duplicates:         cfg.DedupeWindow,
		AllowMsgTTL:        true,
		AllowAtomicPublish: true,
	}
	if cfg.LastPerSubject {
		server.MaxMsgsPerSubject = 1
		server.SubjectDeleteMarkerTTL = markerTTL
		server.AllowRollup = true
	}
	j.backend.configure(&server)
	log, err := ensureStream(ctx, j.js, server)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", cfg.Name, err)
	}
	s := &Stream{journal: j, cfg: cfg, log: log, atomicSlots: make(chan struct{}, maxAtomicInFlight)}
	s.tail = newTail(s)
	if cfg.LastPerSubject && j.barrier != nil {
		s.newest = newNewest()
	}
	if err := s.begin(ctx); err != nil {
		return nil, fmt.Errorf("open stream %s: %w", cfg.Name, err)
	}
	j.streams[cfg.Name] = s
	return s, nil
}

// ensureStream makes a stream or changes it. A cluster that is electing leaders
// may give no answer, so it is asked again for a while.
func ensureStream(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, ensureWithin)
	defer cancel()
	for {
		try, cancel := context.WithTimeout(ctx, ensureTry)
		stream, err := js.CreateOrUpdateStream(try, cfg)
		passes := try.Err() != nil || maySettle(err)
		cancel()
		switch {
		case err == nil:
			return stream, nil
		case !passes:
			return nil, mapRequestError(err)
		case !pause(ctx, leaderRetry):
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
}

// maySettle reports whether a refusal is one that a cluster gives while its
// servers find each other.
func maySettle(err error) bool {
	if api, refused := errors.AsType[*jetstream.APIError](err); refused {
		return api.Code == http.StatusServiceUnavailable || api.ErrorCode == codeNoPeers
	}
	return errors.Is(err, nats.ErrNoResponders)
}

// begin finds where the stream stands. A stream whose folder is gone goes on
// above its mark.
func (s *Stream) begin(ctx context.Context) error {
	j := s.journal
	if j.barrier == nil {
		s.durable.Store(math.MaxUint64)
		return s.awaitLeader(ctx)
	}
	var err error
	if s.mark, err = openMark(j.cfg.DataDir, s.cfg.Name); err != nil {
		return err
	}
	last, err := s.beginLost(ctx)
	if err != nil {
		return errors.Join(err, s.mark.close())
	}
	s.appended.Store(last)
	s.thinned.Store(s.mark.last.thinned)
	j.barrier.add(s)
	if s.thinned.Load() || s.cfg.LastPerSubject {
		return s.thin(ctx)
	}
	return j.barrier.wait(ctx, s)
}

// beginLost finds what of the stream is lost, and the sequence above which it
// goes on. Where the stream's folder was there, the check of the store has
// found the most of it.
func (s *Stream) beginLost(ctx context.Context) (uint64, error) {
	j, name, mark := s.journal, s.cfg.Name, s.mark.last
	list, err := readLost(j.cfg.DataDir, name)
	if err != nil {
		return 0, err
	}
	state := s.log.CachedInfo().State
	changed := s.retains() && list.fallOff(state.FirstSeq)
	var gone Problem
	last := max(state.LastSeq, mark.issued)
	if state.LastSeq < mark.committed {
		if mark.thinned {
			last++ // as the check of the store does
		}
		r := lostRange{First: state.LastSeq + 1, Last: mark.committed, Renewed: last}
		gone = r.problem(name)
		changed = list.add(r) || changed
	}
	s.lost = list.forReaders(s.cfg.LastPerSubject)
	if changed {
		problems := list.problems(name)
		logProblems(j.log, problems, func(p Problem) bool { return p == gone })
		j.problems = append(slices.DeleteFunc(j.problems, func(p Problem) bool { return p.Stream == name }), problems...)
		if err := list.write(j.cfg.DataDir, name); err != nil {
			return 0, err
		}
	}
	if state.LastSeq < last {
		if err := s.log.Purge(ctx, jetstream.WithPurgeSequence(last+1)); err != nil {
			return 0, mapRequestError(err)
		}
	}
	return last, nil
}

// retains reports whether the oldest records leave the stream by themselves.
func (s *Stream) retains() bool {
	return !s.cfg.LastPerSubject && (s.cfg.MaxAge > 0 || s.cfg.MaxBytes > 0)
}

// awaitLeader returns when the stream takes messages, which a cluster's new
// stream does only a moment after it was made.
func (s *Stream) awaitLeader(ctx context.Context) error {
	probe := &nats.Msg{
		Subject: strings.NewReplacer("*", "_", ">", "_").Replace(s.cfg.Subjects[0]),
		// The stream refuses what is meant for another one.
		Header: nats.Header{headerExpectStream: []string{"not-" + s.cfg.Name}},
	}
	var api *jetstream.APIError
	if _, err := s.request(ctx, probe); err != nil && !errors.As(err, &api) {
		return err
	}
	return nil
}

// thin returns when it is noted, durably whatever the durability of records
// is, that records are about to be removed from between others: a removal
// that outlived the note would look like damage.
func (s *Stream) thin(ctx context.Context) error {
	if s.mark == nil || s.thinKnown.Load() {
		return nil
	}
	s.thinned.Store(true)
	if err := s.journal.barrier.wait(ctx, s); err != nil {
		return err
	}
	if s.journal.barrier.sync == nil {
		if err := s.mark.flush(); err != nil {
			return err
		}
	}
	s.thinKnown.Store(true)
	return nil
}

func cmpZero(v, whenZero int64) int64 {
	if v == 0 {
		return whenZero
	}
	return v
}

func (s *Stream) stop() { s.tail.stop() }

// noteAppended raises the newest sequence known to be in the store.
func (s *Stream) noteAppended(seq uint64) {
	for {
		old := s.appended.Load()
		if seq <= old || s.appended.CompareAndSwap(old, seq) {
			return
		}
	}
}

// Commit returns when everything up to seq is durable. An error that is not
// the context's is final: the journal has failed.
func (s *Stream) Commit(ctx context.Context, seq uint64) error {
	if s.durable.Load() >= seq {
		return nil
	}
	if appended := s.appended.Load(); seq > appended {
		return fmt.Errorf("commit %s: sequence %d was not appended (the newest is %d)", s.cfg.Name, seq, appended)
	}
	if err := s.journal.barrier.commit(ctx, s, seq); err != nil {
		return fmt.Errorf("commit %s: %w", s.cfg.Name, err)
	}
	return nil
}

// settle is Commit for a reader that found seq in the store: records that the
// server wrote by itself have no writer who commits them.
func (s *Stream) settle(ctx context.Context, seq uint64) error {
	s.noteAppended(seq)
	return s.Commit(ctx, seq)
}

// Newest returns the newest sequence that this process knows of; 0: none.
func (s *Stream) Newest() uint64 { return s.appended.Load() }

// Bounds returns the oldest sequence kept and the newest appended; 0 and 0
// when nothing was ever appended.
func (s *Stream) Bounds(ctx context.Context) (first, last uint64, err error) {
	info, err := ask(ctx, s, func(ctx context.Context) (*jetstream.StreamInfo, error) { return s.log.Info(ctx) })
	if err != nil {
		return 0, 0, fmt.Errorf("bounds of %s: %w", s.cfg.Name, err)
	}
	return info.State.FirstSeq, info.State.LastSeq, nil
}

// Purge removes all records of a subject, which may have wildcards. Sequences are not reused.
func (s *Stream) Purge(ctx context.Context, subject string) error {
	return s.purge(ctx, subject)
}

// PurgeBefore removes the records of a subject, which may have wildcards, that come before
// a sequence.
func (s *Stream) PurgeBefore(ctx context.Context, subject string, sequence uint64) error {
	return s.purge(ctx, subject, jetstream.WithPurgeSequence(sequence))
}

func (s *Stream) purge(ctx context.Context, subject string, options ...jetstream.StreamPurgeOpt) error {
	if err := s.thin(ctx); err != nil {
		return fmt.Errorf("purge %s of %s: %w", subject, s.cfg.Name, err)
	}
	if err := s.log.Purge(ctx, append(options, jetstream.WithPurgeSubject(subject))...); err != nil {
		return fmt.Errorf("purge %s of %s: %w", subject, s.cfg.Name, s.requestError(ctx, err))
	}
	s.newest.clear()
	return nil
}
