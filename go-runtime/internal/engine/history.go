package engine

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// Event is something that happened in a run: a change of the run, or what its
// agent emitted.
type Event struct {
	RunID string
	// Sequence is that of the record in the journal: it rises with every event of
	// the runtime and is never reused.
	Sequence   uint64
	Type       string
	Visibility Visibility
	Time       time.Time
	// Attempt is 0 before the first.
	Attempt int
	// Payload is a JSON object.
	Payload []byte
	// Run is the run as it was from then on, without payloads; nil of what an agent emitted.
	Run *Run
}

// Visibility says who gets to see an event.
type Visibility string

// The visibilities, from the least to the most visible.
const (
	Internal Visibility = "internal"
	Debug    Visibility = "debug"
	User     Visibility = "user"
)

// covers reports whether a reader of events from the least visibility on sees
// those of another.
func (least Visibility) covers(v Visibility) bool {
	switch least {
	case User:
		return v == User
	case Debug:
		return v == User || v == Debug
	case Internal:
	}
	return true
}

// The types of events that the engine makes or knows.
const (
	eventQueued      = "run.queued"
	eventStarted     = "run.started"
	eventRetrying    = "run.retrying"
	eventInterrupted = "run.interrupted"
	eventResumed     = "run.resumed"
	eventWaiting     = "run.waiting"
	eventSucceeded   = "run.succeeded"
	eventFailed      = "run.failed"
	eventCancelled   = "run.cancelled"
	eventTimedOut    = "run.timed_out"

	// ownPrefix begins the types that agents may not emit.
	ownPrefix = "run."

	// reasonGivenBack stands where another run.retrying has the reason of a failure:
	// whoever executed the run stopped, and the same attempt goes on elsewhere.
	reasonGivenBack = "GIVEN_BACK"

	eventStep       = "step.completed"
	eventCheckpoint = "state.checkpoint"
)

// Ends reports whether the event is the one with which its run ended.
func (ev *Event) Ends() bool { return ev.Run != nil && ev.Run.State.Ended() }

// defaultVisibility is that of the run's own events.
func defaultVisibility(eventType string) Visibility {
	switch eventType {
	case eventRetrying, eventInterrupted, eventResumed, eventFailed, eventCancelled, eventTimedOut:
		return User
	default:
		return Internal
	}
}

// historySubjects are the subjects of a run: those of its own records and of
// the events that its agent emitted.
func historySubjects(namespace, runID string) []string {
	return []string{runSubject(namespace, runID), eventSubject(namespace, runID)}
}

// Those who read a run, or all of a namespace, have one filter for both kinds of
// subjects: for two, the server counts through all that the stream has each time
// that somebody begins to read.
const anyPrefix = "*."

func historyFilter(namespace, runID string) []string {
	return []string{anyPrefix + subjectEnd(namespace, runID)}
}

const eventPrefix = "ev."

func eventSubject(namespace, runID string) string {
	return eventPrefix + subjectEnd(namespace, runID)
}

// emitted is a record of what an agent emitted.
type emitted struct {
	Type       string     `json:"t"`
	Visibility Visibility `json:"v"`
	Attempt    int        `json:"a"`
	// Lease is that of the attempt: what a worker added whose lease was over does not count.
	Lease uint64 `json:"l"`
	// Report and Place say which event of which report of the lease it is, so that
	// a report that is sent again is not kept twice.
	Report  uint64 `json:"n"`
	Place   int    `json:"i,omitempty"`
	Payload []byte `json:"-"`
}

// eventPlace says which event of a run it is, in the order in which they are added.
type eventPlace struct {
	lease, report uint64
	place         int
}

func (m *emitted) place() eventPlace { return eventPlace{m.Lease, m.Report, m.Place} }

func (p eventPlace) compare(other eventPlace) int {
	return cmp.Or(cmp.Compare(p.lease, other.lease), cmp.Compare(p.report, other.report), cmp.Compare(p.place, other.place))
}

func (m *emitted) encode() ([]byte, error) {
	head, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode event %s: %w", m.Type, err)
	}
	return join(head, m.Payload), nil
}

func decodeEmitted(data []byte) (emitted, error) {
	head, payload, err := cut(data)
	if err != nil {
		return emitted{}, err
	}
	var m emitted
	if err := json.Unmarshal(head, &m); err != nil {
		return emitted{}, fmt.Errorf("%w: %w", errBadRecord, err)
	}
	m.Payload = payload
	return m, nil
}

// join returns the length of head as a uvarint, head, and payload.
func join(head, payload []byte) []byte {
	data := make([]byte, 0, binary.MaxVarintLen32+len(head)+len(payload))
	data = binary.AppendUvarint(data, uint64(len(head)))
	data = append(data, head...)
	return append(data, payload...)
}

// cut takes apart what join put together.
func cut(data []byte) (head, payload []byte, err error) {
	size, n := binary.Uvarint(data)
	if n <= 0 || size > uint64(len(data)-n) {
		return nil, nil, errBadRecord
	}
	return data[n : n+int(size)], data[n+int(size):], nil
}

// reader turns the records of one run or of many into events. What was emitted
// under a lease that was over is left out, and so is what was added twice: the
// leases of a run rise, and under one lease the places of its events.
type reader struct {
	// newest is where each run that has not ended has come to.
	newest map[string]eventPlace
}

func newReader() *reader { return &reader{newest: map[string]eventPlace{}} }

// begins notes the lease under which a run goes on.
func (r *reader) begins(runID string, lease uint64) {
	if r.newest[runID].lease != lease {
		r.newest[runID] = eventPlace{lease: lease}
	}
}

// errNoEvent means that a record is not an event that counts.
var errNoEvent = errors.New("no event")

// parseSubject tells which run a record is of, and whether its agent emitted it.
func parseSubject(subject string) (namespace, runID string, isEmitted bool, err error) {
	kind, rest, _ := strings.Cut(subject, ".")
	namespaceToken, idToken, ok := strings.Cut(rest, ".")
	if !ok {
		return "", "", false, fmt.Errorf("%w: subject %q", errBadRecord, subject)
	}
	if namespace, err = journal.DecodeToken(namespaceToken); err != nil {
		return "", "", false, err
	}
	if runID, err = journal.DecodeToken(idToken); err != nil {
		return "", "", false, err
	}
	return namespace, runID, kind+"." == eventPrefix, nil
}

// event returns what a record means; errNoEvent for one that does not count.
func (r *reader) event(rec journal.Record) (Event, error) {
	namespace, runID, isEmitted, err := parseSubject(rec.Subject)
	if err != nil {
		return Event{}, err
	}
	ev := Event{RunID: runID, Sequence: rec.Sequence, Time: rec.Time}
	if isEmitted {
		m, err := decodeEmitted(rec.Data)
		if err != nil {
			return Event{}, fmt.Errorf("sequence %d: %w", rec.Sequence, err)
		}
		if m.place().compare(r.newest[runID]) <= 0 {
			return Event{}, errNoEvent
		}
		r.newest[runID] = m.place()
		ev.Type, ev.Visibility, ev.Attempt, ev.Payload = m.Type, m.Visibility, m.Attempt, m.Payload
		return ev, nil
	}
	decoded, err := decodeRecord(rec.Data)
	if err != nil {
		return Event{}, fmt.Errorf("sequence %d: %w", rec.Sequence, err)
	}
	decoded.placed(namespace, runID, rec.Sequence)
	run := &decoded.Run
	if run.State.Ended() {
		delete(r.newest, runID)
	} else {
		r.begins(runID, run.Lease)
	}
	ev.Run, ev.Attempt = run, run.Attempt
	if ev.Type, ev.Payload, err = decoded.event(); err != nil {
		return Event{}, fmt.Errorf("sequence %d: %w", rec.Sequence, err)
	}
	if ev.Visibility = run.options().Visibility[ev.Type]; ev.Visibility == "" {
		ev.Visibility = defaultVisibility(ev.Type)
	}
	return ev, nil
}

// event says what a record of a run is for those who watch it.
func (r *record) event() (eventType string, payload []byte, err error) {
	run := &r.Run
	about := map[string]any{}
	switch run.State {
	case Queued:
		eventType = r.queuedEvent(about)
	case Running:
		eventType = eventStarted
		about["attempt"] = run.Attempt
	case Waiting:
		eventType = eventWaiting
		if run.Wait != nil && run.Wait.InterruptID != "" {
			eventType = eventInterrupted
			about["interrupt_id"] = run.Wait.InterruptID
			about["payload"] = json.RawMessage(orNull(r.Payload))
		} else if run.Wait != nil {
			about["run_ids"] = run.Wait.Runs
		}
	case Succeeded:
		eventType = eventSucceeded
		about["output"] = json.RawMessage(orNull(r.Payload))
	case Failed:
		eventType = eventFailed
	case Cancelled:
		eventType = eventCancelled
	case TimedOut:
		eventType = eventTimedOut
	}
	if run.Error != nil {
		about["error"] = run.Error.Message
		about["reason"] = run.Error.Reason
		if run.Error.Type != "" {
			about["error_type"] = run.Error.Type
		}
	}
	payload, err = json.Marshal(about)
	if err != nil {
		return "", nil, fmt.Errorf("%w: %w", errBadRecord, err)
	}
	return eventType, payload, nil
}

func (r *record) queuedEvent(about map[string]any) string {
	run := &r.Run
	switch run.cause {
	case causeAnswer:
		about["interrupt_id"] = run.answered
		return eventResumed
	case causeSubRuns:
		return eventResumed
	case causeCreated:
		if r.Created == 0 {
			if !run.NotBefore.IsZero() {
				about["not_before"] = run.NotBefore
			}
			return eventQueued
		}
	case causeGivenBack:
		about["reason"] = reasonGivenBack
	case causeRetry:
		about["retry_at"] = run.NotBefore
	case causeLost:
		// The run's error says why.
	}
	about["attempt"] = run.Attempt
	return eventRetrying
}

func orNull(text []byte) []byte {
	if len(text) == 0 {
		return []byte("null")
	}
	return text
}

// past is what earlier attempts of a run left for the next one.
type past struct {
	Steps      []Step
	Answers    []Answer
	Checkpoint []byte
}

// Step is a recorded step: its result is a JSON text.
type Step struct {
	Key    string          `json:"key"`
	Result json.RawMessage `json:"result"`
}

// Answer is an interrupt that was answered; what was asked and the answer's value are JSON texts.
type Answer struct {
	InterruptID     string
	Question, Value []byte
}

// size is how many bytes it has.
func (p *past) size() int {
	size := len(p.Checkpoint)
	for _, step := range p.Steps {
		size += len(step.Key) + len(step.Result)
	}
	for _, answer := range p.Answers {
		size += len(answer.InterruptID) + len(answer.Question) + len(answer.Value)
	}
	return size
}

// readPast reads what earlier attempts of a run left.
func (e *Engine) readPast(ctx context.Context, ent *entry) (past, error) {
	var p past
	run := ent.snapshot()
	r := newReader()
	var question []byte
	_, err := e.stream.Scan(ctx, ent.created-1, false, historyFilter(run.Namespace, run.ID), func(rec journal.Record) error {
		if strings.HasPrefix(rec.Subject, subjectPrefix) {
			decoded, err := decodeRecord(rec.Data)
			if err != nil {
				return err
			}
			switch {
			case decoded.Run.asks():
				question = decoded.Payload
			case decoded.Run.cause == causeAnswer && decoded.Run.State == Queued:
				p.Answers = append(p.Answers, Answer{decoded.Run.answered, question, decoded.Payload})
			}
		}
		ev, err := r.event(rec)
		switch {
		case errors.Is(err, errNoEvent):
		case err != nil:
			return err
		case ev.Type == eventStep:
			var step Step
			if err := json.Unmarshal(ev.Payload, &step); err != nil {
				return fmt.Errorf("%w: step at sequence %d: %w", errBadRecord, rec.Sequence, err)
			}
			p.Steps = append(p.Steps, step)
		case ev.Type == eventCheckpoint:
			p.Checkpoint = ev.Payload
		}
		return nil
	})
	if err != nil {
		return past{}, fmt.Errorf("read what earlier attempts of run %s left: %w", run.ID, err)
	}
	return p, nil
}
