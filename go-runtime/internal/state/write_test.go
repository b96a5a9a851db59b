package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

func set(tb testing.TB, s *Store, namespace, key, value string) uint64 {
	tb.Helper()
	revision, err := s.Set(testContext(tb), namespace, SetRequest{Key: key, Value: []byte(value)})
	if err != nil {
		tb.Fatal(err)
	}
	return revision
}

// get returns a key's value, "" when there is no such key.
func get(tb testing.TB, s *Store, namespace, key string) string {
	tb.Helper()
	entry, _, err := s.Get(testContext(tb), namespace, key)
	if err != nil {
		tb.Fatal(err)
	}
	return string(entry.Value)
}

func TestSetKeepsValuesByteForByte(t *testing.T) {
	t.Parallel()

	tests := map[string]string{
		"null":                  `null`,
		"2**63 - 1":             `9223372036854775807`,
		"negative zero":         `-0.0`,
		"1e308":                 `1e308`,
		"emoji":                 `{"👩‍🚀": "\ud83d\ude00 😀"}`,
		"200 levels":            strings.Repeat("[", 200) + strings.Repeat("]", 200),
		"white space and order": "{ \"b\":1,\n\t\"a\" : [ ] }",
		"repeated keys":         `{"a":1,"a":2}`,
		"empty string":          `""`,
		"limit":                 `"` + strings.Repeat("x", DefaultMaxValueBytes-2) + `"`,
	}
	namespace := newNamespace()
	for name, value := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			before := time.Now()
			revision := set(t, shared, namespace, name, value)
			entry, found, err := shared.Get(testContext(t), namespace, name)
			if err != nil || !found {
				t.Fatalf("Get() = %v, %v, want an entry", found, err)
			}
			if string(entry.Value) != value || entry.Key != name || entry.Revision != revision {
				t.Errorf("Get() = %.100q at revision %d, want %.100q at %d", entry.Value, entry.Revision, value, revision)
			}
			if entry.UpdatedAt.Before(before.Add(-time.Second)) || entry.UpdatedAt.After(time.Now().Add(time.Second)) {
				t.Errorf("UpdatedAt = %s, want the moment of the call", entry.UpdatedAt)
			}
			if !entry.ExpiresAt.IsZero() {
				t.Errorf("ExpiresAt = %s, want none", entry.ExpiresAt)
			}
		})
	}
}

func TestKeysAreAnyText(t *testing.T) {
	t.Parallel()

	keys := []string{"a", "A", "a.b", "a b", "*", ">", ".", "=", "=2E", "\x00", "\n", "ключ", "🔑", strings.Repeat("é", 256), " ", "a/", "$"}
	namespace := newNamespace()
	for i, key := range keys {
		set(t, shared, namespace, key, strconv.Itoa(i))
	}
	for i, key := range keys {
		if got := get(t, shared, namespace, key); got != strconv.Itoa(i) {
			t.Errorf("value of key %q = %s, want %d", key, got, i)
		}
	}
}

func TestGetTellsNullFromMissing(t *testing.T) {
	t.Parallel()

	namespace := newNamespace()
	set(t, shared, namespace, "null", "null")
	for key, want := range map[string]bool{"null": true, "missing": false} {
		if _, found, err := shared.Get(testContext(t), namespace, key); err != nil || found != want {
			t.Errorf("Get(%q) found = %v, %v, want %v", key, found, err, want)
		}
	}
}

func TestNamespacesAreSeparate(t *testing.T) {
	t.Parallel()

	one, two := newNamespace(), newNamespace()
	set(t, shared, one, "key", "1")
	if got := get(t, shared, two, "key"); got != "" {
		t.Errorf("the other namespace has %s, want nothing", got)
	}
}

func TestInvalidRequestsAreRefusedWithEveryMistake(t *testing.T) {
	t.Parallel()

	expect := func(revision uint64) *uint64 { return &revision }
	setting := func(r SetRequest) func(context.Context) error {
		return func(ctx context.Context) error { _, err := shared.Set(ctx, "invalid", r); return err }
	}
	transacting := func(ops ...Operation) func(context.Context) error {
		return func(ctx context.Context) error { _, err := shared.Transact(ctx, "invalid", ops, ""); return err }
	}
	listing := func(r ListRequest) func(context.Context) error {
		return func(ctx context.Context) error { _, _, err := shared.List(ctx, "invalid", r); return err }
	}
	watching := func(r WatchRequest) func(context.Context) error {
		return func(ctx context.Context) error {
			return shared.Watch(ctx, "invalid", r, func(Batch) error { return errors.New("watch began") })
		}
	}
	value := []byte("1")
	tests := map[string]struct {
		call func(context.Context) error
		want string
	}{
		"no key":          {setting(SetRequest{Value: value}), "key: is required"},
		"long key":        {setting(SetRequest{Key: strings.Repeat("k", 513), Value: value}), "key: is 513 bytes long, at most 512 are allowed"},
		"key not UTF-8":   {setting(SetRequest{Key: "\xff", Value: value}), "key: is not valid UTF-8"},
		"no value":        {setting(SetRequest{Key: "k"}), "value: must be a JSON text, but is empty"},
		"value no JSON":   {setting(SetRequest{Key: "k", Value: []byte("NaN")}), "value: is not a JSON text: invalid character 'N' looking for beginning of value at byte 0"},
		"negative ttl":    {setting(SetRequest{Key: "k", Value: value, TTL: -time.Second}), "ttl: must be at least one second, but is -1s"},
		"short ttl":       {setting(SetRequest{Key: "k", Value: value, TTL: time.Millisecond}), "ttl: must be at least one second, but is 1ms"},
		"broken ttl":      {setting(SetRequest{Key: "k", Value: value, TTL: 1500 * time.Millisecond}), "ttl: must be whole seconds, but is 1.5s"},
		"endless ttl":     {setting(SetRequest{Key: "k", Value: value, TTL: maxTTL + time.Second}), "ttl: must be at most 100 years"},
		"long request id": {setting(SetRequest{Key: "k", Value: value, RequestID: strings.Repeat("r", 65)}), "request_id: is 65 bytes long, at most 64 are allowed"},
		"odd request id":  {setting(SetRequest{Key: "k", Value: value, RequestID: "\xff"}), "request_id: is not valid UTF-8"},
		"all at once":     {setting(SetRequest{TTL: 1, Value: value, RequestID: "\xff"}), "key: is required; ttl: must be at least one second, but is 1ns; request_id: is not valid UTF-8"},
		"delete without key": {func(ctx context.Context) error {
			_, err := shared.Delete(ctx, "invalid", "", nil, "")
			return err
		}, "key: is required"},
		"delete of nothing": {func(ctx context.Context) error {
			_, err := shared.Delete(ctx, "invalid", "k", expect(0), "")
			return err
		}, "expected_revision: must not be 0 for a deletion: there would be nothing to delete"},
		"get without key": {func(ctx context.Context) error {
			_, _, err := shared.Get(ctx, "invalid", "")
			return err
		}, "key: is required"},
		"no operations":       {transacting(), "operations: must be 1 to 100, but are 0"},
		"too many operations": {transacting(make([]Operation, 101)...), "operations: must be 1 to 100, but are 101"},
		"bad operations": {
			transacting(Operation{Key: "k", Value: value}, Operation{Delete: true}, Operation{Key: "k", Value: []byte("x")}),
			"operations[1].key: is required; operations[2].value: is not a JSON text: invalid character 'x' looking for beginning of value at byte 0; operations[2].key: occurs in operations[0] already",
		},
		"negative page size": {listing(ListRequest{PageSize: -1}), "page_size: must not be negative"},
		"odd page token":     {listing(ListRequest{PageToken: "!"}), "page_token: is not a token that a list returned"},
		"foreign page token": {listing(ListRequest{Prefix: "a", PageToken: pageToken("b")}), "page_token: belongs to a list with another prefix"},
		"watch of two kinds": {watching(WatchRequest{IncludeCurrent: true, After: expect(1)}), "after_revision: cannot be combined with include_current"},
		"watch of a long key": {
			watching(WatchRequest{Key: strings.Repeat("k", 513)}), "key: is 513 bytes long, at most 512 are allowed",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			err := test.call(testContext(t))
			var v *violation.Error
			if !errors.As(err, &v) || err.Error() != test.want {
				t.Errorf("got %v, want the violation %q", err, test.want)
			}
		})
	}
}

func TestValuesAboveTheLimitAreTooLarge(t *testing.T) {
	t.Parallel()

	value := make([]byte, DefaultMaxValueBytes+1)
	_, setErr := shared.Set(testContext(t), newNamespace(), SetRequest{Key: "k", Value: value})
	_, transactErr := shared.Transact(testContext(t), newNamespace(), []Operation{{Key: "a", Value: []byte("1")}, {Key: "k", Value: value}}, "")
	for field, err := range map[string]error{"value": setErr, "operations[1].value": transactErr} {
		var tooLarge *violation.TooLargeError
		if !errors.As(err, &tooLarge) || tooLarge.Field != field || tooLarge.Size != len(value) || tooLarge.Limit != DefaultMaxValueBytes {
			t.Errorf("got %v, want a TooLargeError of %s", err, field)
		}
	}
}

func TestExpectations(t *testing.T) {
	t.Parallel()

	type keyState int
	const (
		missing keyState = iota
		present
		deleted
	)
	const wrong = 1 // the first revision of the store belongs to another test, or to none
	current := func(revision uint64) uint64 { return revision }
	zero := func(uint64) uint64 { return 0 }
	other := func(uint64) uint64 { return wrong << 40 }

	tests := map[string]struct {
		key    keyState
		expect func(current uint64) uint64
		want   *RevisionError // its revision is taken from the key
	}{
		"create a missing key":       {missing, zero, nil},
		"create a deleted key":       {deleted, zero, nil},
		"create an existing key":     {present, zero, &RevisionError{CreateOnly: true}},
		"update at the revision":     {present, current, nil},
		"update at another revision": {present, other, &RevisionError{}},
		"update a missing key":       {missing, other, &RevisionError{}},
		"update a deleted key":       {deleted, current, &RevisionError{}},
	}
	namespace := newNamespace()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			ctx := testContext(t)
			var revision uint64
			if test.key != missing {
				revision = set(t, shared, namespace, name, `"before"`)
			}
			want := test.want
			if want != nil {
				want.Key = name
			}
			if test.key == present && want != nil {
				want.Revision = revision
			}
			if test.key == deleted {
				if _, err := shared.Delete(ctx, namespace, name, nil, ""); err != nil {
					t.Fatal(err)
				}
			}

			expect := test.expect(revision)
			written, err := shared.Set(ctx, namespace, SetRequest{Key: name, Value: []byte(`"after"`), Expect: &expect})
			if want == nil {
				if err != nil || written <= revision || get(t, shared, namespace, name) != `"after"` {
					t.Errorf("Set() = %d, %v, want a revision above %d", written, err, revision)
				}
				return
			}
			var got *RevisionError
			if !errors.As(err, &got) || *got != *want {
				t.Errorf("Set() = %v, want %v", err, want)
			}
			if got := get(t, shared, namespace, name); got == `"after"` {
				t.Error("the refused write happened")
			}
		})
	}
}

func TestRevisionErrorSaysHowTheKeyStands(t *testing.T) {
	t.Parallel()

	for want, err := range map[string]RevisionError{
		`key "k" exists already, at revision 7`: {Key: "k", Revision: 7, CreateOnly: true},
		`key "k" does not exist`:                {Key: "k"},
		`key "k" is at revision 7`:              {Key: "k", Revision: 7},
	} {
		if got := err.Error(); got != want {
			t.Errorf("Error() = %q, want %q", got, want)
		}
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()

	ctx := testContext(t)
	namespace := newNamespace()
	revision := set(t, shared, namespace, "k", "1")
	above := revision + 1

	var mismatch *RevisionError
	if _, err := shared.Delete(ctx, namespace, "k", &above, ""); !errors.As(err, &mismatch) || *mismatch != (RevisionError{Key: "k", Revision: revision}) {
		t.Fatalf("Delete() at another revision = %v, want the revision %d", err, revision)
	}
	for i, want := range []bool{true, false} {
		if existed, err := shared.Delete(ctx, namespace, "k", nil, ""); err != nil || existed != want {
			t.Errorf("Delete() number %d = %v, %v, want %v", i, existed, err, want)
		}
	}
	if _, err := shared.Delete(ctx, namespace, "k", &revision, ""); !errors.As(err, &mismatch) || *mismatch != (RevisionError{Key: "k"}) {
		t.Errorf("Delete() of a deleted key at its old revision = %v, want no such key", err)
	}
	if got := get(t, shared, namespace, "k"); got != "" {
		t.Errorf("the deleted key has %s", got)
	}
	revision = set(t, shared, namespace, "k", "2")
	if existed, err := shared.Delete(ctx, namespace, "k", &revision, ""); err != nil || !existed {
		t.Errorf("Delete() at the revision = %v, %v, want true", existed, err)
	}
}

func TestDeleteOfAMissingKeyWritesNothing(t *testing.T) {
	t.Parallel()

	store, _ := openFor(t, t.TempDir(), Config{})
	ctx := testContext(t)
	set(t, store, "one", "k", "1")
	_, before, err := store.stream.Bounds(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Delete(ctx, "one", "other", nil, "request"); err != nil {
		t.Fatal(err)
	}
	if _, after, err := store.stream.Bounds(ctx); err != nil || after != before {
		t.Errorf("the newest sequence went from %d to %d, %v", before, after, err)
	}
}

func TestTransact(t *testing.T) {
	t.Parallel()

	ctx := testContext(t)
	namespace := newNamespace()
	kept := set(t, shared, namespace, "kept", "1")
	set(t, shared, namespace, "removed", "1")

	results, err := shared.Transact(ctx, namespace, []Operation{
		{Key: "kept", Value: []byte("2"), Expect: &kept},
		{Key: "absent", Delete: true},
		{Key: "removed", Delete: true},
		{Key: "created", Value: []byte("2"), Expect: new(uint64)},
		{Key: "written", Value: []byte("2"), TTL: time.Hour},
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	first := results[0].Revision
	want := []Result{{first, true}, {0, false}, {0, true}, {first + 2, false}, {first + 3, false}}
	if fmt.Sprint(results) != fmt.Sprint(want) || first <= kept {
		t.Errorf("Transact() = %v, want %v", results, want)
	}
	for key, value := range map[string]string{"kept": "2", "removed": "", "created": "2", "written": "2"} {
		if got := get(t, shared, namespace, key); got != value {
			t.Errorf("key %s = %q, want %q", key, got, value)
		}
	}
	if entry, _, err := shared.Get(ctx, namespace, "written"); err != nil || entry.ExpiresAt.Sub(entry.UpdatedAt) != time.Hour {
		t.Errorf("written expires %s after its update, %v, want 1h", entry.ExpiresAt.Sub(entry.UpdatedAt), err)
	}
}

func TestTransactIsAllOrNothing(t *testing.T) {
	t.Parallel()

	namespace := newNamespace()
	existing := set(t, shared, namespace, "existing", "1")
	wrong := existing + 1
	tests := map[string]struct {
		op   Operation
		want RevisionError
	}{
		"create":  {Operation{Key: "existing", Value: []byte("2"), Expect: new(uint64)}, RevisionError{Key: "existing", Revision: existing, CreateOnly: true}},
		"update":  {Operation{Key: "existing", Value: []byte("2"), Expect: &wrong}, RevisionError{Key: "existing", Revision: existing}},
		"delete":  {Operation{Key: "existing", Delete: true, Expect: &wrong}, RevisionError{Key: "existing", Revision: existing}},
		"missing": {Operation{Key: "missing", Delete: true, Expect: &wrong}, RevisionError{Key: "missing"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			_, err := shared.Transact(testContext(t), namespace, []Operation{{Key: "new " + name, Value: []byte("2")}, test.op}, "")
			var got *RevisionError
			if !errors.As(err, &got) || *got != test.want {
				t.Errorf("Transact() = %v, want %v", err, &test.want)
			}
			if got := get(t, shared, namespace, "new "+name); got != "" {
				t.Errorf("the refused transaction wrote %s", got)
			}
			if got := get(t, shared, namespace, "existing"); got != "1" {
				t.Errorf("existing = %q, want 1", got)
			}
		})
	}
}

func TestTransactTakesAHundredOperations(t *testing.T) {
	t.Parallel()

	namespace := newNamespace()
	ops := make([]Operation, 100)
	for i := range ops {
		ops[i] = Operation{Key: strconv.Itoa(i), Value: []byte(strconv.Itoa(i))}
	}
	results, err := shared.Transact(testContext(t), namespace, ops, "request")
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r != (Result{Revision: results[0].Revision + uint64(i)}) {
			t.Errorf("result %d = %v", i, r)
		}
		if got := get(t, shared, namespace, strconv.Itoa(i)); got != strconv.Itoa(i) {
			t.Errorf("key %d = %q", i, got)
		}
	}
}

func TestConcurrentIncrementsLoseNone(t *testing.T) {
	t.Parallel()

	const writers, increments = 6, 15
	ctx := testContext(t)
	namespace := newNamespace()

	increment := func() error {
		for {
			entry, found, err := shared.Get(ctx, namespace, "counter")
			if err != nil {
				return err
			}
			count := 0
			if found {
				if err := json.Unmarshal(entry.Value, &count); err != nil {
					return err
				}
			}
			_, err = shared.Set(ctx, namespace, SetRequest{Key: "counter", Value: fmt.Append(nil, count+1), Expect: &entry.Revision})
			if mismatch := new(RevisionError); !errors.As(err, &mismatch) {
				return err
			}
		}
	}
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range increments {
				if err := increment(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if got := get(t, shared, namespace, "counter"); got != strconv.Itoa(writers*increments) {
		t.Errorf("counter = %s, want %d", got, writers*increments)
	}
}

func TestConcurrentDeletesSucceedOnce(t *testing.T) {
	t.Parallel()

	ctx := testContext(t)
	namespace := newNamespace()
	for round := range 10 {
		set(t, shared, namespace, "k", "1")
		existed := make(chan bool, 8)
		var all sync.WaitGroup
		for range cap(existed) {
			all.Go(func() {
				did, err := shared.Delete(ctx, namespace, "k", nil, "")
				if err != nil {
					t.Error(err)
				}
				existed <- did
			})
		}
		all.Wait()
		close(existed)
		count := 0
		for did := range existed {
			if did {
				count++
			}
		}
		if count != 1 {
			t.Errorf("round %d: %d deletions found the key, want 1", round, count)
		}
	}
}

func TestConcurrentTransactionsDoNotMix(t *testing.T) {
	t.Parallel()

	const writers, rounds = 4, 5
	ctx := testContext(t)
	namespace := newNamespace()
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range rounds {
				value := fmt.Appendf(nil, "%d", w*rounds+i)
				if _, err := shared.Transact(ctx, namespace, []Operation{{Key: "a", Value: value}, {Key: "b", Value: value}}, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if a, b := get(t, shared, namespace, "a"), get(t, shared, namespace, "b"); a != b || a == "" {
		t.Errorf("a = %s, b = %s, want the same", a, b)
	}
}
