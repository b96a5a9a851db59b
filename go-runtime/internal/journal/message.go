package journal

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Headers of the server's that the journal sets or reads.
const (
	reservedPrefix      = "Nats-"
	headerExpectStream  = "Nats-Expected-Stream"
	headerExpectSubject = "Nats-Expected-Last-Subject-Sequence"
	headerTTL           = "Nats-TTL"
	headerDedupe        = "Nats-Msg-Id"
	headerMarker        = "Nats-Marker-Reason"
	headerBatchID       = "Nats-Batch-Id"
	headerBatchSequence = "Nats-Batch-Sequence"
	headerBatchCommit   = "Nats-Batch-Commit"
)

// Message is a record to append.
type Message struct {
	// Subject must belong to the stream and be without wildcards.
	Subject string
	// Header has a few small values of the caller's own; names that begin
	// with "Nats-" are refused.
	Header map[string]string
	// Data is the content, opaque here.
	Data []byte
	// Expect, when set, lets the append happen only if the last record of
	// Subject has this sequence; a pointer to 0 means Subject has none.
	Expect *uint64
	// TTL is after what time the record is removed, in whole seconds; 0 means
	// never.
	TTL time.Duration
	// DedupeID makes a second append with it within StreamConfig.DedupeWindow
	// return the sequence of the first.
	DedupeID string
	// Purpose decides how full the store may be.
	Purpose Purpose
}

// Record is what was appended.
type Record struct {
	Subject  string
	Header   map[string]string // nil when it had none
	Data     []byte
	Sequence uint64
	Time     time.Time // when it was appended, by the server's clock
	// Expired marks that Subject's record reached its TTL; there is no data.
	Expired bool
}

// encode makes the message that goes to the server.
func (m Message) encode() (*nats.Msg, error) {
	if m.Subject == "" || strings.ContainsAny(m.Subject, "*> \t\r\n") {
		return nil, fmt.Errorf("subject %q cannot be appended to", m.Subject)
	}
	msg := &nats.Msg{Subject: m.Subject, Data: m.Data}
	if len(m.Header) > 0 || m.Expect != nil || m.TTL != 0 || m.DedupeID != "" {
		msg.Header = make(nats.Header, len(m.Header)+3)
	}
	for name, value := range m.Header {
		if err := checkHeader(name, value); err != nil {
			return nil, err
		}
		msg.Header[name] = []string{value}
	}
	if m.Expect != nil {
		msg.Header[headerExpectSubject] = []string{strconv.FormatUint(*m.Expect, 10)}
	}
	if m.TTL != 0 {
		if m.TTL < time.Second || m.TTL%time.Second != 0 {
			return nil, fmt.Errorf("TTL %s is not a whole number of seconds", m.TTL)
		}
		msg.Header[headerTTL] = []string{strconv.FormatInt(int64(m.TTL/time.Second), 10)}
	}
	if m.DedupeID != "" {
		if err := checkHeader("DedupeID", m.DedupeID); err != nil {
			return nil, err
		}
		msg.Header[headerDedupe] = []string{m.DedupeID}
	}
	return msg, nil
}

// checkHeader refuses what would not come back as it was given.
func checkHeader(name, value string) error {
	if strings.HasPrefix(name, reservedPrefix) {
		return fmt.Errorf("header %q: names that begin with %q are reserved", name, reservedPrefix)
	}
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r > 0x7f || !isPlain(byte(r)) }) {
		return fmt.Errorf("header name %q must be of letters, digits, _ and -", name)
	}
	if strings.ContainsAny(value, "\r\n\x00") || strings.Trim(value, " \t") != value {
		return fmt.Errorf("header %q: a value has neither line breaks nor spaces at its ends", name)
	}
	return nil
}

// decodeRaw makes a record of the answer to a read.
func decodeRaw(raw *jetstream.RawStreamMsg) Record {
	return newRecord(raw.Subject, raw.Header, raw.Data, raw.Sequence, raw.Time)
}

// decodeDelivered makes a record of what a consumer delivered.
func decodeDelivered(msg *nats.Msg, meta *nats.MsgMetadata) Record {
	return newRecord(msg.Subject, msg.Header, msg.Data, meta.Sequence.Stream, meta.Timestamp)
}

func newRecord(subject string, header nats.Header, data []byte, seq uint64, at time.Time) Record {
	r := Record{Subject: subject, Data: data, Sequence: seq, Time: at, Expired: len(header[headerMarker]) > 0}
	for name, values := range header {
		if strings.HasPrefix(name, reservedPrefix) || len(values) == 0 {
			continue
		}
		if r.Header == nil {
			r.Header = make(map[string]string, len(header))
		}
		r.Header[name] = values[0]
	}
	return r
}

// appendAck is the server's answer to an append.
type appendAck struct {
	Sequence uint64              `json:"seq"`
	Error    *jetstream.APIError `json:"error"`
}

// The server's error codes that callers can act on.
const (
	codeWrongLastSequence    = 10071
	codeWrongLastSequenceAny = 10164
	codeMessageTooLarge      = 10054
	codeStoreFailed          = 10077
	codeInsufficient         = 10023
	codeStorageExceeded      = 10047
	codeAccountExceeded      = 10002
	codeNoPeers              = 10005
)

// mapAppendError turns an answer of the server's into the journal's errors.
func mapAppendError(api *jetstream.APIError) error {
	switch api.ErrorCode {
	case codeWrongLastSequence, codeWrongLastSequenceAny:
		return fmt.Errorf("%w: %s", ErrConflict, api.Description)
	case codeMessageTooLarge:
		return fmt.Errorf("%w: %s", ErrTooLarge, api.Description)
	case codeInsufficient, codeStorageExceeded, codeAccountExceeded:
		return fmt.Errorf("%w: %s", ErrNoSpace, api.Description)
	default:
		return fmt.Errorf("%w: %w", ErrUnavailable, api)
	}
}

// mapRequestError turns a failed request into the journal's errors. A deadline
// that passed is the client library's own, not the caller's: see requestError.
func mapRequestError(err error) error {
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return ErrNotFound
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrTimeout),
		errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrDisconnected),
		errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionReconnecting),
		errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	default:
		return err
	}
}
