package engine

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/span"
)

// record is one entry of a run's log: the run as it stands from then on, and
// the payload that came with the change.
type record struct {
	// ID tells a record from any other, so that an append whose answer was lost
	// is known again.
	ID  string
	Run Run
	// Created is the sequence of the run's first record; 0 in that record itself.
	Created uint64
	// Hash is that of the request's payload.
	Hash payloadHash
	// Trace is where the run stands in a trace.
	Trace span.Origin
	// Payload is the input in the first record, the output in that of a run that
	// succeeded, the question in that of one that began to wait for an answer, the
	// answer in that which ended this, and else empty.
	Payload []byte
}

// facts is a record without its payload, as it is kept: JSON, so that a log can
// be read by eye and later versions can add to it.
type facts struct {
	span.Origin

	ID          string          `json:"id"`
	Target      Target          `json:"target"`
	AgentID     string          `json:"agent_id,omitempty"`
	TaskType    string          `json:"task_type"`
	Description string          `json:"description,omitempty"`
	State       State           `json:"state"`
	Attempt     int             `json:"attempt,omitempty"`
	MaxAttempts int             `json:"max_attempts"`
	Metadata    json.RawMessage `json:"metadata,omitempty"`
	Error       *RunError       `json:"error,omitempty"`
	CreatedAt   time.Time       `json:"created_at"`
	StartedAt   time.Time       `json:"started_at,omitzero"`
	EndedAt     time.Time       `json:"ended_at,omitzero"`
	Deadline    time.Time       `json:"deadline,omitzero"`
	RunTimeout  time.Duration   `json:"run_timeout_ns"`
	Created     uint64          `json:"created,omitempty"`
	Hash        string          `json:"hash"`
	Options     *Options        `json:"options,omitempty"`
	NotBefore   time.Time       `json:"not_before,omitzero"`
	Wait        *Wait           `json:"wait,omitempty"`
	Lease       uint64          `json:"lease,omitempty"`
	Worker      *Worker         `json:"worker,omitempty"`
	Begun       int             `json:"begun,omitempty"`
	Continues   bool            `json:"continues,omitempty"`
	Cause       cause           `json:"cause,omitempty"`
	Answered    string          `json:"answered,omitempty"`
	Unnamed     bool            `json:"unnamed,omitempty"`
}

// encode returns the length of the facts as a uvarint, the facts, the payload.
func (r *record) encode() ([]byte, error) {
	run := &r.Run
	head, err := marshalPlain(facts{
		ID: r.ID, Target: run.Target, AgentID: run.AgentID, TaskType: run.TaskType,
		Description: run.Description, State: run.State, Attempt: run.Attempt,
		MaxAttempts: run.MaxAttempts, Metadata: run.Metadata, Error: run.Error,
		CreatedAt: run.CreatedAt, StartedAt: run.StartedAt, EndedAt: run.EndedAt,
		Deadline: run.Deadline, RunTimeout: run.RunTimeout, Created: r.Created,
		Hash: hex.EncodeToString(r.Hash[:]), Origin: r.Trace,
		Options: run.Options, NotBefore: run.NotBefore, Wait: run.Wait, Lease: run.Lease, Worker: run.Worker,
		Begun: run.begun, Continues: run.continues, Cause: run.cause, Answered: run.answered, Unnamed: !run.named,
	})
	if err != nil {
		return nil, fmt.Errorf("encode record of run %s: %w", run.ID, err)
	}
	return join(head, r.Payload), nil
}

// marshalPlain is json.Marshal without what that does for HTML, which can make
// metadata of six times its size.
func marshalPlain(value any) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), nil
}

var errBadRecord = errors.New("not a run record")

// placed completes a decoded record with what stands in the journal's own fields.
func (r *record) placed(namespace, runID string, seq uint64) {
	r.Run.Namespace, r.Run.ID, r.Run.Sequence = namespace, runID, seq
	if r.Run.begun > 0 && r.Run.Lease == 0 {
		r.Run.Lease = seq
	}
}

// decodeRecord reads what encode wrote. Run.ID, Namespace, Sequence, and Lease in
// the record that begins one, stand in the journal's own fields: see placed.
func decodeRecord(data []byte) (record, error) {
	head, payload, err := cut(data)
	if err != nil {
		return record{}, err
	}
	var f facts
	if err := json.Unmarshal(head, &f); err != nil {
		return record{}, fmt.Errorf("%w: %w", errBadRecord, err)
	}
	r := record{
		ID: f.ID, Created: f.Created, Trace: f.Origin, Payload: payload,
		Run: Run{
			Target: f.Target, AgentID: f.AgentID, TaskType: f.TaskType,
			Description: f.Description, State: f.State, Attempt: f.Attempt,
			MaxAttempts: f.MaxAttempts, Metadata: f.Metadata, Error: f.Error,
			CreatedAt: f.CreatedAt, StartedAt: f.StartedAt, EndedAt: f.EndedAt,
			Deadline: f.Deadline, RunTimeout: f.RunTimeout, TraceID: f.TraceID(), TraceURL: f.TraceURL,
			Options: f.Options, NotBefore: f.NotBefore, Wait: f.Wait, Lease: f.Lease, Worker: f.Worker,
			begun: f.Begun, continues: f.Continues, cause: f.Cause, answered: f.Answered, named: !f.Unnamed,
		},
	}
	hash, err := hex.DecodeString(f.Hash)
	if err != nil || len(hash) != len(r.Hash) {
		return record{}, fmt.Errorf("%w: bad hash", errBadRecord)
	}
	copy(r.Hash[:], hash)
	return r, nil
}
