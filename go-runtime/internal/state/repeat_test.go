package state

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// TestRepeatedCallsAnswerAsTheFirst makes each call twice, as a caller does that
// got no answer to the first, with what else happened in between.
func TestRepeatedCallsAnswerAsTheFirst(t *testing.T) {
	t.Parallel()

	type step func(t *testing.T, s *Store, namespace string) string
	setting := func(r SetRequest) step {
		return func(t *testing.T, s *Store, namespace string) string {
			t.Helper()
			revision, err := s.Set(testContext(t), namespace, r)
			return fmt.Sprint(revision, err)
		}
	}
	deleting := func(key, requestID string) step {
		return func(t *testing.T, s *Store, namespace string) string {
			t.Helper()
			existed, err := s.Delete(testContext(t), namespace, key, nil, requestID)
			return fmt.Sprint(existed, err)
		}
	}
	transacting := func(requestID string, ops ...Operation) step {
		return func(t *testing.T, s *Store, namespace string) string {
			t.Helper()
			results, err := s.Transact(testContext(t), namespace, ops, requestID)
			return fmt.Sprint(results, err)
		}
	}
	value, other := []byte(`"call"`), []byte(`"other"`)
	mixed := transacting("request",
		Operation{Key: "absent", Delete: true},
		Operation{Key: "k", Value: value},
		Operation{Key: "old", Delete: true},
		Operation{Key: "new", Value: value, Expect: new(uint64)},
	)

	tests := map[string]struct {
		call    step
		between []step
		want    string // the values of k, old and new at the end
	}{
		"set":               {setting(SetRequest{Key: "k", Value: value, RequestID: "request"}), nil, `"call" "old" `},
		"set, overwritten":  {setting(SetRequest{Key: "k", Value: value, RequestID: "request"}), []step{setting(SetRequest{Key: "k", Value: other})}, `"other" "old" `},
		"set, deleted":      {setting(SetRequest{Key: "k", Value: value, RequestID: "request"}), []step{deleting("k", "")}, ` "old" `},
		"odd request id":    {setting(SetRequest{Key: "k", Value: value, RequestID: " \r\nü:👩‍🚀"}), []step{setting(SetRequest{Key: "k", Value: other})}, `"other" "old" `},
		"create":            {setting(SetRequest{Key: "k", Value: value, Expect: new(uint64), RequestID: "request"}), nil, `"call" "old" `},
		"delete":            {deleting("old", "request"), nil, `  `},
		"delete, set again": {deleting("old", "request"), []step{setting(SetRequest{Key: "old", Value: other})}, ` "other" `},
		"transaction":       {mixed, nil, `"call"  "call"`},
		"transaction, one key left": {
			mixed, []step{setting(SetRequest{Key: "k", Value: other}), deleting("new", "")}, `"other"  `,
		},
		"transaction of one set": {transacting("request", Operation{Key: "old", Value: value}), nil, ` "call" `},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			namespace := newNamespace()
			set(t, shared, namespace, "old", `"old"`)
			first := test.call(t, shared, namespace)
			for _, step := range test.between {
				step(t, shared, namespace)
			}
			if again := test.call(t, shared, namespace); again != first || !strings.HasSuffix(first, "<nil>") {
				t.Errorf("the repeat answered %s, the first call %s", again, first)
			}
			got := get(t, shared, namespace, "k") + " " + get(t, shared, namespace, "old") + " " + get(t, shared, namespace, "new")
			if got != test.want {
				t.Errorf("the keys are %q, want %q", got, test.want)
			}
		})
	}
}

func TestRepeatedSetWithAnExpectationSeesOthersWrites(t *testing.T) {
	t.Parallel()

	ctx := testContext(t)
	namespace := newNamespace()
	r := SetRequest{Key: "k", Value: []byte("1"), Expect: new(uint64), RequestID: "request"}
	if _, err := shared.Set(ctx, namespace, r); err != nil {
		t.Fatal(err)
	}
	newest := set(t, shared, namespace, "k", "2")
	_, err := shared.Set(ctx, namespace, r)
	var mismatch *RevisionError
	if !errors.As(err, &mismatch) || mismatch.Revision != newest {
		t.Errorf("the repeat answered %v, want the revision %d", err, newest)
	}
}

func TestRequestIDsBelongToOneKeyOfOneNamespace(t *testing.T) {
	t.Parallel()

	ctx := testContext(t)
	one, two := newNamespace(), newNamespace()
	for _, place := range []struct{ namespace, key string }{{one, "a"}, {one, "b"}, {two, "a"}} {
		r := SetRequest{Key: place.key, Value: []byte(`"mine"`), RequestID: "request"}
		if _, err := shared.Set(ctx, place.namespace, r); err != nil {
			t.Fatal(err)
		}
		if got := get(t, shared, place.namespace, place.key); got != `"mine"` {
			t.Errorf("key %s of %s = %q", place.key, place.namespace, got)
		}
	}
}

func TestRepeatsAtTheSameTimeHaveOneEffect(t *testing.T) {
	t.Parallel()

	ctx := testContext(t)
	namespace := newNamespace()
	expect := set(t, shared, namespace, "guarded", "0")
	answers := make([]string, 8)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() {
			plain, err := shared.Set(ctx, namespace, SetRequest{Key: "plain", Value: []byte("1"), RequestID: "request"})
			if err != nil {
				t.Error(err)
			}
			guarded, err := shared.Set(ctx, namespace, SetRequest{Key: "guarded", Value: []byte("1"), Expect: &expect, RequestID: "request"})
			if err != nil {
				t.Error(err)
			}
			several, err := shared.Transact(ctx, namespace, []Operation{
				{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("1")},
			}, "request")
			if err != nil {
				t.Error(err)
			}
			answers[i] = fmt.Sprint(plain, guarded, several)
		})
	}
	all.Wait()
	for _, answer := range answers[1:] {
		if answer != answers[0] {
			t.Errorf("answers differ: %s and %s", answer, answers[0])
		}
	}
}

// TestRepeatsAfterARestart covers what is known of a call from the journal alone.
func TestRepeatsAfterARestart(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	calls := func(s *Store) string {
		ctx := testContext(t)
		plain, err := s.Set(ctx, "ns", SetRequest{Key: "plain", Value: []byte("1"), RequestID: "request"})
		if err != nil {
			t.Fatal(err)
		}
		created, err := s.Set(ctx, "ns", SetRequest{Key: "created", Value: []byte("1"), Expect: new(uint64), RequestID: "request"})
		if err != nil {
			t.Fatal(err)
		}
		existed, err := s.Delete(ctx, "ns", "old", nil, "request")
		if err != nil {
			t.Fatal(err)
		}
		several, err := s.Transact(ctx, "ns", []Operation{
			{Key: "a", Value: []byte("1")}, {Key: "older", Delete: true}, {Key: "b", Value: []byte("1")},
		}, "request")
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(plain, created, existed, several)
	}

	store, stop := openFor(t, dir, Config{})
	set(t, store, "ns", "old", "1")
	set(t, store, "ns", "older", "1")
	first := calls(store)
	set(t, store, "ns", "a", "2")
	stop()
	store, _ = openFor(t, dir, Config{})
	if again := calls(store); again != first {
		t.Errorf("after the restart the calls answered %s, before %s", again, first)
	}
	if got := get(t, store, "ns", "a"); got != "2" {
		t.Errorf("a = %s, want the other call's 2", got)
	}
}
