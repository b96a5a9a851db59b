package state

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func FuzzKeySubject(f *testing.F) {
	for _, key := range []string{"a", "a.b", "*", ">", "=2E", "\x00\r\n ", "👩‍🚀", "\xff"} {
		f.Add(key)
	}

	f.Fuzz(func(t *testing.T, key string) {
		if key == "" {
			return
		}
		subject := keySubject("ns", key)
		token := strings.TrimPrefix(subject, "state.ns.")
		if token == "" || strings.ContainsAny(token, ".*> \t\r\n\x00") {
			t.Fatalf("key %q makes the subject %q", key, subject)
		}
		if namespace, got, err := splitSubject(subject); err != nil || namespace != "ns" || got != key {
			t.Errorf("key %q came back as %q of %q, %v", key, got, namespace, err)
		}
	})
}

func FuzzSplitSubject(f *testing.F) {
	for _, subject := range []string{"state.ns.a", "state.ns", "state.", "", "event.ns.a", "state.ns.=", "state.ns.=2", "state.ns.=41", "state.ns.a.b"} {
		f.Add(subject)
	}

	f.Fuzz(func(t *testing.T, subject string) {
		if namespace, key, err := splitSubject(subject); err == nil && keySubject(namespace, key) != subject {
			t.Errorf("subject %q was read as key %q of %q", subject, key, namespace)
		}
	})
}

// FuzzSet checks requests against a second opinion, and that what is let
// through is kept as it was given.
func FuzzSet(f *testing.F) {
	f.Add("key", []byte(`{"a": [1, -0.0]}`), int64(0), "")
	f.Add("", []byte(`NaN`), int64(1), "\xff")
	f.Add(strings.Repeat("ü", 256), []byte(`"\ud800"`), int64(time.Hour), "\r\n")
	f.Add(strings.Repeat("k", 513), []byte("\"\xff\""), int64(-1), strings.Repeat("r", 65))
	f.Add("*.>", []byte(strings.Repeat("[", 201)+strings.Repeat("]", 201)), int64(1500*time.Millisecond), " ")

	f.Fuzz(func(t *testing.T, key string, value []byte, ttl int64, requestID string) {
		lives := time.Duration(ttl)
		valid := len(key) >= 1 && len(key) <= 512 && utf8.ValidString(key) &&
			json.Valid(value) && utf8.Valid(value) && strings.Count(string(value), "[")+strings.Count(string(value), "{") <= 200 &&
			lives >= 0 && lives == lives.Truncate(time.Second) && lives <= maxTTL &&
			len(requestID) <= 64 && utf8.ValidString(requestID)

		namespace := newNamespace()
		_, err := shared.Set(testContext(t), namespace, SetRequest{Key: key, Value: value, TTL: lives, RequestID: requestID})
		if (err == nil) != valid && strings.Count(string(value), "[")+strings.Count(string(value), "{") <= 200 {
			t.Fatalf("Set(%q, %q, %s, %q) = %v, want valid %v", key, value, lives, requestID, err, valid)
		}
		if err != nil || lives == time.Second {
			return // a second may have passed
		}
		entry, found, err := shared.Get(testContext(t), namespace, key)
		if err != nil || !found || string(entry.Value) != string(value) {
			t.Errorf("Get(%q) = %q, %v, %v, want %q", key, entry.Value, found, err, value)
		}
		if lives > 0 && entry.ExpiresAt.Sub(entry.UpdatedAt) != lives {
			t.Errorf("it lives for %s, want %s", entry.ExpiresAt.Sub(entry.UpdatedAt), lives)
		}
	})
}

// FuzzTrace makes sure that no trace in a record, however damaged, is taken for
// a call of another shape.
func FuzzTrace(f *testing.F) {
	f.Add("0:01", 0)
	f.Add("1:01", 1)
	f.Add(":", 0)
	f.Add("1:011", 1)
	f.Add("0:02", 0)

	f.Fuzz(func(t *testing.T, trace string, at int) {
		ops := []Operation{{Key: "a", Value: []byte("1")}, {Key: "b", Delete: true}}
		if at < 0 || at >= len(ops) {
			return
		}
		current := make([]*record, len(ops))
		current[at] = &record{kind: Set, entry: Entry{Revision: 7}, requestID: "request", trace: trace}
		results, newest, ok := earlier(ops, current, "request")
		if !ok {
			return
		}
		if len(results) != len(ops) || newest < results[0].Revision || makeTrace(at, results) != trace {
			t.Errorf("trace %q became %v up to %d", trace, results, newest)
		}
	})
}
