package event

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

const (
	streamName  = "EVENTS"
	subjectRoot = "event."

	// headerSource has the source, encoded as a token.
	headerSource = "S"
	// headerData has the length of the data when metadata comes after it.
	headerData = "D"
)

// namespaceSubject is what the subjects of all events of a namespace begin with.
func namespaceSubject(namespace string) string {
	return subjectRoot + namespace + "."
}

// typeSubject is the subject of a namespace's events of one type.
func typeSubject(namespace, eventType string) string {
	return namespaceSubject(namespace) + encodeType(eventType)
}

// encodeType makes each word of a type one token of a subject.
func encodeType(eventType string) string {
	words := strings.Split(eventType, ".")
	for i, word := range words {
		words[i] = journal.EncodeToken(word)
	}
	return strings.Join(words, ".")
}

// decodeType is the inverse of encodeType.
func decodeType(tokens string) (string, error) {
	words := strings.Split(tokens, ".")
	for i, token := range words {
		word, err := journal.DecodeToken(token)
		if err != nil {
			return "", fmt.Errorf("event type: %w", err)
		}
		words[i] = word
	}
	return strings.Join(words, "."), nil
}

// message is the record of an event: its data, then its metadata, as they came.
func message(namespace string, e Event, dedupeID string) journal.Message {
	m := journal.Message{Subject: typeSubject(namespace, e.Type), Data: e.Data, DedupeID: dedupeID}
	if e.Source == "" && len(e.Metadata) == 0 {
		return m
	}
	m.Header = make(map[string]string, 2)
	if e.Source != "" {
		m.Header[headerSource] = journal.EncodeToken(e.Source)
	}
	if len(e.Metadata) > 0 {
		m.Header[headerData] = strconv.Itoa(len(e.Data))
		m.Data = append(append(make([]byte, 0, len(e.Data)+len(e.Metadata)), e.Data...), e.Metadata...)
	}
	return m
}

// decode reads what message wrote.
func decode(r journal.Record) (Event, error) {
	e := Event{ID: eventID(r.Sequence), Data: r.Data, Sequence: r.Sequence, PublishedAt: r.Time}
	rest, _ := strings.CutPrefix(r.Subject, subjectRoot)
	_, tokens, _ := strings.Cut(rest, ".")
	var err error
	if e.Type, err = decodeType(tokens); err != nil {
		return Event{}, fmt.Errorf("record %d: %w", r.Sequence, err)
	}
	if token := r.Header[headerSource]; token != "" {
		if e.Source, err = journal.DecodeToken(token); err != nil {
			return Event{}, fmt.Errorf("record %d: source: %w", r.Sequence, err)
		}
	}
	if length := r.Header[headerData]; length != "" {
		n, err := strconv.Atoi(length)
		if err != nil || n < 0 || n > len(r.Data) {
			return Event{}, fmt.Errorf("record %d: data of %q bytes in a record of %d", r.Sequence, length, len(r.Data))
		}
		// The capacity ends with the data, or an append by the caller would
		// write into the metadata.
		e.Data, e.Metadata = r.Data[:n:n], r.Data[n:]
	}
	return e, nil
}

func eventID(sequence uint64) string {
	return "evt-" + strconv.FormatUint(sequence, 10)
}
