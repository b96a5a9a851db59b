package event

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

const (
	maxEvents         = 1000
	maxTypeBytes      = 200
	maxSourceBytes    = 200
	maxRequestIDBytes = 64
)

// Publish keeps 1 to 1,000 events, in order, and returns them with ID and
// Sequence filled in. The batch is checked as a whole before the first event is
// kept; when the journal then fails, some of them may have been kept.
//
// A repeat with the same requestID (at most 64 bytes; empty: none) within a
// minute keeps only what the first call did not get to, and returns the same sequences.
//
// Errors: *violation.Error, *violation.TooLargeError.
func (l *Log) Publish(ctx context.Context, namespace string, events []Event, requestID string) ([]Event, error) {
	if err := l.checkPublish(events, requestID); err != nil {
		return nil, err
	}
	call := callID(namespace, requestID)
	messages := make([]journal.Message, len(events))
	for i, e := range events {
		dedupeID := ""
		if call != "" {
			dedupeID = call + "-" + strconv.Itoa(i)
		}
		messages[i] = message(namespace, e, dedupeID)
	}
	sequences, err := l.append(ctx, messages)
	if err != nil {
		return nil, fmt.Errorf("publish events: %w", err)
	}
	published := slices.Clone(events)
	for i, sequence := range sequences {
		published[i].ID, published[i].Sequence = eventID(sequence), sequence
	}
	return published, nil
}

// append returns when the records are durable.
func (l *Log) append(ctx context.Context, messages []journal.Message) ([]uint64, error) {
	if len(messages) == 1 {
		sequence, err := l.stream.Append(ctx, messages[0])
		if err != nil {
			return nil, err
		}
		return []uint64{sequence}, l.stream.Commit(ctx, sequence)
	}
	sequences, err := l.stream.AppendAll(ctx, messages)
	if err != nil {
		return nil, err
	}
	// A repeat may find its last events kept before its first.
	return sequences, l.stream.Commit(ctx, slices.Max(sequences))
}

// callID names one call of Publish; empty without a request id.
func callID(namespace, requestID string) string {
	if requestID == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(namespace + "." + requestID))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

func (l *Log) checkPublish(events []Event, requestID string) error {
	if len(events) == 0 || len(events) > maxEvents {
		return violation.New("events", "must be 1 to %d, but are %d", maxEvents, len(events))
	}
	var checks []error
	for i := range events {
		if err := l.checkEvent(&events[i]); err != nil {
			_, err = violation.In(fmt.Sprintf("events[%d]", i), err)
			checks = append(checks, err)
		}
	}
	checks = append(checks, checkText("request_id", requestID, maxRequestIDBytes))
	return violation.Join(checks...)
}

// checkEvent refuses an event that does not fit, with a *violation.Error or a *violation.TooLargeError.
func (l *Log) checkEvent(e *Event) error {
	if size := len(e.Data) + len(e.Metadata); size > l.cfg.MaxValueBytes {
		larger := "data"
		if len(e.Metadata) > len(e.Data) {
			larger = "metadata"
		}
		return &violation.TooLargeError{Field: larger, Size: size, Limit: l.cfg.MaxValueBytes}
	}
	var given, metadata error
	if e.ID != "" || e.Sequence != 0 || !e.PublishedAt.IsZero() {
		given = violation.New("event_id", "is given by the runtime, as are sequence and publish_time")
	}
	if len(e.Metadata) > 0 {
		metadata = jsonvalue.ValidateObject("metadata", e.Metadata)
	}
	return violation.Join(
		checkType("type", e.Type),
		jsonvalue.Validate("data", e.Data),
		checkText("source", e.Source, maxSourceBytes),
		metadata,
		given,
	)
}

// checkType refuses what no event can have as its type.
func checkType(field, eventType string) error {
	if strings.Contains(eventType, "*") {
		return violation.New(field, "has a `*`, which is for subscriptions")
	}
	return checkName(field, eventType)
}

// checkPattern refuses what no subscription can ask for.
func checkPattern(field, s string) error {
	if strings.Contains(strings.TrimSuffix(s, "*"), "*") {
		return violation.New(field, "has a `*` before its end")
	}
	return checkName(field, s)
}

func checkName(field, name string) error {
	if name == "" {
		return violation.New(field, "is required")
	}
	return checkText(field, name, maxTypeBytes)
}

func checkText(field, text string, limit int) error {
	switch {
	case len(text) > limit:
		return violation.New(field, "is %d bytes long, at most %d are allowed", len(text), limit)
	case !utf8.ValidString(text):
		return violation.New(field, "is not valid UTF-8")
	}
	return nil
}
