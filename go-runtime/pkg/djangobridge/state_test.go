package djangobridge_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
)

func TestStateIsWrittenReadAndDeleted(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), testContext(t)
	value := []byte(`{"n": 9223372036854775807, "z": -0.0}`)

	set, err := sys.state.SetState(ctx, &agentruntimev1.SetStateRequest{Key: "k", Value: value, Ttl: durationpb.New(time.Hour)})
	if err != nil || set.GetRevision() == 0 {
		t.Fatalf("set: %v, %v", set, err)
	}
	got, err := sys.state.GetState(ctx, &agentruntimev1.GetStateRequest{Key: "k"})
	if err != nil || string(got.GetEntry().GetValue()) != string(value) || got.GetEntry().GetRevision() != set.GetRevision() ||
		got.GetEntry().GetUpdateTime() == nil || got.GetEntry().GetExpireTime() == nil {
		t.Errorf("get: %v, %v", got, err)
	}
	other, err := sys.state.GetState(in(t, "other"), &agentruntimev1.GetStateRequest{Key: "k"})
	if err != nil || other.GetEntry() != nil {
		t.Errorf("another namespace sees the key: %v, %v", other, err)
	}
	for _, want := range []bool{true, false} {
		deleted, err := sys.state.DeleteState(ctx, &agentruntimev1.DeleteStateRequest{Key: "k"})
		if err != nil || deleted.GetExisted() != want {
			t.Errorf("delete: %v, %v; want existed %t", deleted, err, want)
		}
	}
}

func TestStateIsListedAndTransacted(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), testContext(t)
	set := func(key string) *agentruntimev1.StateOperation {
		return &agentruntimev1.StateOperation{Operation: &agentruntimev1.StateOperation_Set_{
			Set: &agentruntimev1.StateOperation_Set{Key: key, Value: []byte("1")},
		}}
	}
	done, err := sys.state.TransactState(ctx, &agentruntimev1.TransactStateRequest{Operations: []*agentruntimev1.StateOperation{
		set("p.a"), set("p.b"), set("q"),
		{Operation: &agentruntimev1.StateOperation_Delete_{Delete: &agentruntimev1.StateOperation_Delete{Key: "absent"}}},
	}})
	if err != nil || len(done.GetResults()) != 4 || done.GetResults()[0].GetRevision() == 0 || done.GetResults()[3].GetExisted() {
		t.Fatalf("transact: %v, %v", done, err)
	}
	first, err := sys.state.ListState(ctx, &agentruntimev1.ListStateRequest{Prefix: "p.", PageSize: 1})
	if err != nil || len(first.GetEntries()) != 1 || first.GetEntries()[0].GetKey() != "p.a" || first.GetNextPageToken() == "" {
		t.Fatalf("first page: %v, %v", first, err)
	}
	second, err := sys.state.ListState(ctx, &agentruntimev1.ListStateRequest{Prefix: "p.", PageSize: 1, PageToken: first.GetNextPageToken(), KeysOnly: true})
	if err != nil || len(second.GetEntries()) != 1 || second.GetEntries()[0].GetKey() != "p.b" || second.GetEntries()[0].GetValue() != nil {
		t.Errorf("second page: %v, %v", second, err)
	}

	guarded := set("p.a")
	guarded.ExpectedRevision = proto.Uint64(0)
	_, err = sys.state.TransactState(ctx, &agentruntimev1.TransactStateRequest{Operations: []*agentruntimev1.StateOperation{set("new"), guarded}})
	if about := refused(t, err, codes.AlreadyExists, "KEY_EXISTS"); about["key"] != "p.a" {
		t.Errorf("metadata = %v", about)
	}
	if got, err := sys.state.GetState(ctx, &agentruntimev1.GetStateRequest{Key: "new"}); err != nil || got.GetEntry() != nil {
		t.Errorf("half a transaction was kept: %v, %v", got, err)
	}
	_, err = sys.state.TransactState(ctx, &agentruntimev1.TransactStateRequest{Operations: []*agentruntimev1.StateOperation{{}}})
	if about := refused(t, err, codes.InvalidArgument, "INVALID_ARGUMENT"); about["field"] != "operations[0]" {
		t.Errorf("metadata = %v", about)
	}
}

func TestStateRefusals(t *testing.T) {
	t.Parallel()
	sys := start(t, "--max-value-bytes=1KiB")
	if _, err := sys.state.SetState(testContext(t), &agentruntimev1.SetStateRequest{Key: "k", Value: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		request *agentruntimev1.SetStateRequest
		code    codes.Code
		reason  string
	}{
		"no key":      {&agentruntimev1.SetStateRequest{Value: []byte("1")}, codes.InvalidArgument, "INVALID_ARGUMENT"},
		"no JSON":     {&agentruntimev1.SetStateRequest{Key: "k", Value: []byte("{")}, codes.InvalidArgument, "INVALID_ARGUMENT"},
		"zero ttl":    {&agentruntimev1.SetStateRequest{Key: "k", Value: []byte("1"), Ttl: durationpb.New(0)}, codes.InvalidArgument, "INVALID_ARGUMENT"},
		"exists":      {&agentruntimev1.SetStateRequest{Key: "k", Value: []byte("1"), ExpectedRevision: proto.Uint64(0)}, codes.AlreadyExists, "KEY_EXISTS"},
		"other":       {&agentruntimev1.SetStateRequest{Key: "k", Value: []byte("1"), ExpectedRevision: proto.Uint64(1 << 40)}, codes.Aborted, "REVISION_MISMATCH"},
		"above limit": {&agentruntimev1.SetStateRequest{Key: "k", Value: make([]byte, 1025)}, codes.ResourceExhausted, "TOO_LARGE"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := sys.state.SetState(testContext(t), test.request)
			refused(t, err, test.code, test.reason)
		})
	}
}

func TestWatchStateSendsCurrentEntriesThenChanges(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), testContext(t)
	if _, err := sys.state.SetState(ctx, &agentruntimev1.SetStateRequest{Key: "w.1", Value: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	watch, err := sys.state.WatchState(ctx, &agentruntimev1.WatchStateRequest{Prefix: "w.", IncludeCurrent: true})
	if err != nil {
		t.Fatal(err)
	}
	var seen []*agentruntimev1.StateChange
	next := func(until func(*agentruntimev1.WatchStateResponse) bool) uint64 {
		for {
			frame, err := watch.Recv()
			if err != nil {
				t.Fatal(err)
			}
			seen = append(seen, frame.GetChanges()...)
			if until(frame) {
				return frame.GetRevision()
			}
		}
	}
	next((*agentruntimev1.WatchStateResponse).GetCurrentSent)
	if len(seen) != 1 || seen[0].GetEntry().GetKey() != "w.1" {
		t.Fatalf("current = %v", seen)
	}
	if _, err := sys.state.SetState(ctx, &agentruntimev1.SetStateRequest{Key: "elsewhere", Value: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	if _, err := sys.state.DeleteState(ctx, &agentruntimev1.DeleteStateRequest{Key: "w.1"}); err != nil {
		t.Fatal(err)
	}
	revision := next(func(*agentruntimev1.WatchStateResponse) bool { return len(seen) > 1 })
	if seen[1].GetKind() != agentruntimev1.StateChange_KIND_DELETED || seen[1].GetEntry().GetKey() != "w.1" || revision < seen[1].GetEntry().GetRevision() {
		t.Errorf("change = %v at %d", seen[1], revision)
	}
}

func TestWatchStateGoesOnAfterARevision(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), testContext(t)
	var revisions []uint64
	for _, value := range []string{"1", "2", "3"} {
		set, err := sys.state.SetState(ctx, &agentruntimev1.SetStateRequest{Key: "w." + value, Value: []byte(value)})
		if err != nil {
			t.Fatal(err)
		}
		revisions = append(revisions, set.GetRevision())
	}
	watch, err := sys.state.WatchState(ctx, &agentruntimev1.WatchStateRequest{Prefix: "w.", AfterRevision: &revisions[0]})
	if err != nil {
		t.Fatal(err)
	}
	var seen []uint64
	for len(seen) < 2 {
		frame, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range frame.GetChanges() {
			seen = append(seen, change.GetEntry().GetRevision())
		}
	}
	if seen[0] != revisions[1] || seen[1] != revisions[2] {
		t.Errorf("revisions %v, want those of %v after the first", seen, revisions)
	}
}
