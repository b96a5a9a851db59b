package gateway

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Event is an event of a run as its readers see it.
type Event struct {
	RunID string
	// Sequence rises with every event, and is what a reader resumes by.
	Sequence   uint64
	Type       string
	Visibility string
	Time       time.Time
	// Payload is a JSON object; empty counts as {}.
	Payload []byte
}

// envelopeKeys are the members that every event's data has of its own; they go
// before the payload's.
func envelopeKeys() [6]string {
	return [...]string{"type", "seq", "run_id", "ts", "visibility", "payload"}
}

// appendFrame appends an event as one block of a stream of Server-Sent Events.
// Its id is the sequence; its data is a JSON object with the envelope, the
// payload's own members beside it, and the whole payload once more. A named block
// says the type, so that listeners for all types do not get it.
func appendFrame(to []byte, ev *Event, named bool) []byte {
	to = append(to, "id: "...)
	to = strconv.AppendUint(to, ev.Sequence, 10)
	if named {
		to = append(to, "\nevent: "...)
		// A line end would begin another field; the data has the type as it is.
		to = append(to, oneLine(ev.Type)...)
	}
	to = append(to, "\ndata: {\"type\":"...)
	to = appendText(to, ev.Type)
	to = append(to, `,"seq":`...)
	to = strconv.AppendUint(to, ev.Sequence, 10)
	to = append(to, `,"run_id":`...)
	to = appendText(to, ev.RunID)
	to = append(to, `,"ts":"`...)
	to = appendTime(to, ev.Time)
	to = append(to, `","visibility":`...)
	to = appendText(to, ev.Visibility)
	// In a JSON text, line ends are white space: within strings they are escaped.
	payload := bytes.TrimSpace(ev.Payload)
	if bytes.ContainsAny(payload, "\r\n") {
		payload = []byte(oneLine(string(payload)))
	}
	if len(payload) == 0 {
		payload = []byte("{}")
	}
	to = appendMembers(to, payload)
	to = append(to, `,"payload":`...)
	to = append(to, payload...)
	return append(to, "}\n\n"...)
}

// oneLine returns text with spaces for its line ends.
func oneLine(text string) string {
	if !strings.ContainsAny(text, "\r\n") {
		return text
	}
	return strings.NewReplacer("\r", " ", "\n", " ").Replace(text)
}

// appendMembers appends the members of a JSON object that the envelope does not
// have, each behind a comma.
func appendMembers(to, object []byte) []byte {
	if !mayCollide(object) {
		members := bytes.TrimSpace(object[1 : len(object)-1])
		if len(members) == 0 {
			return to
		}
		return append(append(to, ','), members...)
	}
	before := len(to)
	own := envelopeKeys()
	decoder := json.NewDecoder(bytes.NewReader(object))
	if _, err := decoder.Token(); err != nil {
		return to
	}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return to[:before]
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return to[:before]
		}
		key, isText := name.(string)
		if !isText || slices.Contains(own[:], key) {
			continue
		}
		to = append(to, ',')
		to = appendText(to, key)
		to = append(to, ':')
		to = append(to, value...)
	}
	return to
}

// mayCollide reports whether one of the object's members could have the name of
// one of the envelope's. It errs on the side of true: most events have no such
// word in them, and need not be taken apart.
func mayCollide(object []byte) bool {
	if bytes.Contains(object, []byte(`\u`)) {
		return true
	}
	for _, key := range envelopeKeys() {
		if bytes.Contains(object, []byte(key+`"`)) {
			return true
		}
	}
	return false
}

// appendText appends a JSON string.
func appendText(to []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			// A string can always be encoded.
			quoted, _ := json.Marshal(text) //nolint:errchkjson // see above
			return append(to, quoted...)
		}
	}
	to = append(to, '"')
	to = append(to, text...)
	return append(to, '"')
}

// appendTime appends a time in UTC with microseconds, which are left out where
// they are none, as Python writes it.
func appendTime(to []byte, at time.Time) []byte {
	at = at.UTC()
	if at.Nanosecond()/int(time.Microsecond) == 0 {
		return at.AppendFormat(to, "2006-01-02T15:04:05Z")
	}
	return at.AppendFormat(to, "2006-01-02T15:04:05.000000Z")
}
