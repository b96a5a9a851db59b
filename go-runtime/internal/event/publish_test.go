package event

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

var errEnough = errors.New("enough")

// collect returns the first count events of a subscription.
func collect(tb testing.TB, l *Log, namespace string, start Start, count int, types ...string) []Event {
	tb.Helper()
	var got []Event
	err := l.Subscribe(testContext(tb), namespace, types, start, noAdded, func(events []Event, _ uint64) error {
		got = append(got, events...)
		if len(got) >= count {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		tb.Fatalf("subscription ended with %v after %d of %d events", err, len(got), count)
	}
	return got
}

func noAdded(uint64) error { return nil }

func publish(tb testing.TB, l *Log, namespace, requestID string, events ...Event) []Event {
	tb.Helper()
	published, err := l.Publish(testContext(tb), namespace, events, requestID)
	if err != nil {
		tb.Fatal(err)
	}
	return published
}

func numbered(eventType string, from, to int) []Event {
	var events []Event
	for i := from; i < to; i++ {
		events = append(events, Event{Type: eventType, Data: fmt.Append(nil, i)})
	}
	return events
}

func TestPublishedEventsComeBackAsTheyWere(t *testing.T) {
	t.Parallel()

	tests := map[string]Event{
		"plain":          {Type: "order.created", Data: []byte(`{"id": 7}`)},
		"everything":     {Type: "order.created", Source: "shop", Data: []byte(` 1`), Metadata: []byte(`{"a": "b"}`)},
		"odd type":       {Type: ".a b.>.ü.\x00.", Data: []byte("null")},
		"odd source":     {Type: "a", Source: " \r\n\x00ü👩‍🚀: ", Data: []byte("1")},
		"longest":        {Type: strings.Repeat(".", 200), Source: strings.Repeat("é", 100), Data: []byte("1")},
		"exact numbers":  {Type: "a", Data: []byte(`[9223372036854775807, -0.0, 1e308, "👩‍🚀 \ud83d\ude00"]`)},
		"200 levels":     {Type: "a", Data: []byte(strings.Repeat("[", 200) + strings.Repeat("]", 200))},
		"largest":        {Type: "a", Data: []byte(`"` + strings.Repeat("x", DefaultMaxValueBytes-4) + `"`), Metadata: []byte("{}")},
		"large metadata": {Type: "a", Data: []byte("1"), Metadata: []byte(`{"a":"` + strings.Repeat("x", 100_000) + `"}`)},
	}
	for name, event := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			namespace := newNamespace()
			published := publish(t, shared, namespace, "", event)[0]
			if published.ID != fmt.Sprintf("evt-%d", published.Sequence) || published.Sequence == 0 {
				t.Errorf("published as %q, sequence %d", published.ID, published.Sequence)
			}
			got := collect(t, shared, namespace, Start{Beginning: true}, 1, "*")[0]
			if age := time.Since(got.PublishedAt); age < -time.Minute || age > time.Minute {
				t.Errorf("published %s ago", age)
			}
			got.PublishedAt = time.Time{}
			want := event
			want.ID, want.Sequence = published.ID, published.Sequence
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %.200v, want %.200v", got, want)
			}
		})
	}
}

func TestPublishKeepsTheOrderOfABatch(t *testing.T) {
	t.Parallel()

	namespace := newNamespace()
	published := publish(t, shared, namespace, "", numbered("n", 0, 1000)...)
	got := collect(t, shared, namespace, Start{Beginning: true}, 1000, "n")
	for i, e := range got {
		if string(e.Data) != strconv.Itoa(i) || e.ID != published[i].ID || e.Sequence != published[i].Sequence {
			t.Fatalf("event %d is %s with %s, want %s with %d", i, e.ID, e.Data, published[i].ID, i)
		}
	}
}

func TestPublishRepeatedKeepsEventsOnce(t *testing.T) {
	t.Parallel()

	namespace, other := newNamespace(), newNamespace()
	first := publish(t, shared, namespace, "request", numbered("n", 0, 3)...)
	// As after a crash in the middle of the batch: the repeat has more to do.
	again := publish(t, shared, namespace, "request", numbered("n", 0, 5)...)
	for i, e := range first {
		if again[i].Sequence != e.Sequence || again[i].ID != e.ID {
			t.Errorf("event %d was repeated as %s, want %s", i, again[i].ID, e.ID)
		}
	}
	publish(t, shared, namespace, "", Event{Type: "n", Data: []byte(`"end"`)})
	var got []string
	for _, e := range collect(t, shared, namespace, Start{Beginning: true}, 6, "n") {
		got = append(got, string(e.Data))
	}
	if want := `0 1 2 3 4 "end"`; strings.Join(got, " ") != want {
		t.Errorf("kept %s, want %s", got, want)
	}

	// The request id is the caller's own in its namespace.
	if elsewhere := publish(t, shared, other, "request", numbered("n", 0, 1)...); elsewhere[0].Sequence <= first[2].Sequence {
		t.Errorf("the other namespace's event is %s of this one", elsewhere[0].ID)
	}
}

func TestPublishRepeatedAtTheSameTimeKeepsEventsOnce(t *testing.T) {
	t.Parallel()

	namespace := newNamespace()
	answers := make([][]Event, 4)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() {
			var err error
			if answers[i], err = shared.Publish(testContext(t), namespace, numbered("n", 0, 20), "request"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, answer := range answers[1:] {
		if fmt.Sprint(answer) != fmt.Sprint(answers[0]) {
			t.Errorf("answers differ: %v and %v", answer, answers[0])
		}
	}
}

func TestInvalidRequestsAreRefusedWithEveryMistake(t *testing.T) {
	t.Parallel()

	after := uint64(1)
	ok := Event{Type: "a", Data: []byte("1")}
	publishing := func(requestID string, events ...Event) func(context.Context, string) error {
		return func(ctx context.Context, namespace string) error {
			_, err := shared.Publish(ctx, namespace, events, requestID)
			return err
		}
	}
	subscribing := func(start Start, types ...string) func(context.Context, string) error {
		return func(ctx context.Context, namespace string) error {
			return shared.Subscribe(ctx, namespace, types, start,
				func(uint64) error { return errors.New("subscription began") },
				func([]Event, uint64) error { return nil })
		}
	}
	future := uint64(1 << 62)
	tests := map[string]struct {
		call func(ctx context.Context, namespace string) error
		want string
	}{
		"no events":       {publishing(""), "events: must be 1 to 1000, but are 0"},
		"too many events": {publishing("", make([]Event, 1001)...), "events: must be 1 to 1000, but are 1001"},
		"no type":         {publishing("", Event{Data: []byte("1")}), "events[0].type: is required"},
		"long type":       {publishing("", Event{Type: strings.Repeat("t", 201), Data: []byte("1")}), "events[0].type: is 201 bytes long, at most 200 are allowed"},
		"type not UTF-8":  {publishing("", Event{Type: "\xff", Data: []byte("1")}), "events[0].type: is not valid UTF-8"},
		"type with star":  {publishing("", Event{Type: "a*", Data: []byte("1")}), "events[0].type: has a `*`, which is for subscriptions"},
		"only a star":     {publishing("", Event{Type: "*", Data: []byte("1")}), "events[0].type: has a `*`, which is for subscriptions"},
		"stars inside":    {subscribing(Start{}, "*.a", "a*b", "a**", "ok*"), "types[0]: has a `*` before its end; types[1]: has a `*` before its end; types[2]: has a `*` before its end"},
		"no data":         {publishing("", Event{Type: "a"}), "events[0].data: must be a JSON text, but is empty"},
		"metadata list":   {publishing("", Event{Type: "a", Data: []byte("1"), Metadata: []byte("[]")}), "events[0].metadata: must be a JSON object, but is an array"},
		"long source":     {publishing("", Event{Type: "a", Data: []byte("1"), Source: strings.Repeat("s", 201)}), "events[0].source: is 201 bytes long, at most 200 are allowed"},
		"given id":        {publishing("", Event{Type: "a", Data: []byte("1"), ID: "mine"}), "events[0].event_id: is given by the runtime, as are sequence and publish_time"},
		"long request id": {publishing(strings.Repeat("r", 65), ok), "request_id: is 65 bytes long, at most 64 are allowed"},
		"all at once":     {publishing("\xff", ok, Event{Data: []byte("x")}), "events[1].type: is required; events[1].data: is not a JSON text: invalid character 'x' looking for beginning of value at byte 0; request_id: is not valid UTF-8"},
		"no types":        {subscribing(Start{}), "types: must be 1 to 100, but are 0"},
		"too many types":  {subscribing(Start{}, make([]string, 101)...), "types: must be 1 to 100, but are 101"},
		"odd types":       {subscribing(Start{}, "", "\xff"), "types[0]: is required; types[1]: is not valid UTF-8"},
		"two starts":      {subscribing(Start{After: &after, Beginning: true}, "a"), "after_sequence: cannot be combined with from_beginning"},
		"future start":    {subscribing(Start{After: &future}, "a"), fmt.Sprintf("after_sequence: is %d, but the newest sequence is ", future)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			namespace := newNamespace()
			err := test.call(testContext(t), namespace)
			var v *violation.Error
			if !errors.As(err, &v) || !strings.HasPrefix(err.Error(), test.want) {
				t.Fatalf("got %v, want the violation %q", err, test.want)
			}
			publish(t, shared, namespace, "", Event{Type: "end", Data: []byte("1")})
			if got := collect(t, shared, namespace, Start{Beginning: true}, 1, "*"); got[0].Type != "end" {
				t.Errorf("the refused call kept %q", got[0].Type)
			}
		})
	}
}

func TestEventsAboveTheLimitAreTooLarge(t *testing.T) {
	t.Parallel()

	const half = DefaultMaxValueBytes / 2
	tests := map[string]struct {
		data, metadata int
		field          string
	}{
		"data":            {DefaultMaxValueBytes + 1, 0, "events[1].data"},
		"metadata":        {1, DefaultMaxValueBytes, "events[1].metadata"},
		"together":        {DefaultMaxValueBytes, 1, "events[1].data"},
		"mostly metadata": {half, half + 1, "events[1].metadata"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			event := Event{Type: "a", Data: make([]byte, test.data), Metadata: make([]byte, test.metadata)}
			_, err := shared.Publish(testContext(t), newNamespace(), []Event{{Type: "a", Data: []byte("1")}, event}, "")
			var tooLarge *violation.TooLargeError
			if !errors.As(err, &tooLarge) || tooLarge.Field != test.field || tooLarge.Size != DefaultMaxValueBytes+1 || tooLarge.Limit != DefaultMaxValueBytes {
				t.Errorf("got %v, want a TooLargeError of %s", err, test.field)
			}
		})
	}
}

func TestNewReportsEveryMistake(t *testing.T) {
	t.Parallel()

	_, err := New(Config{MaxAge: -1, MaxBytes: -1, MaxValueBytes: -1}, nil, nil)
	want := "event: the greatest age cannot be -1ns\nevent: the greatest size cannot be -1 bytes\nevent: the largest event cannot be -1 bytes"
	if err == nil || err.Error() != want {
		t.Errorf("New() = %v, want %q", err, want)
	}
}
