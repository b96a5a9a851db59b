package djangobridge_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
)

const talking = `
name: talk
state: {said: {reducer: append}, turns: {reducer: add, initial: 0}}
nodes:
  listen: {kind: transform, set: {turns: "1"}}
  ask: {kind: human, with: {ask: "More?"}, set: {said: "[out]"}}
  end: {kind: transform}
edges: [[START, listen], [ask, end]]
branches: {listen: [{when: 'state.said[size(state.said) - 1] == "ask me"', to: ask}, {to: end}]}
`

func threadsOf(sys *system) agentruntimev1.ThreadServiceClient {
	return agentruntimev1.NewThreadServiceClient(sys.conn)
}

// say has a turn of a thread that says something, to its end.
func say(t *testing.T, sys *system, threadID, text string) *agentruntimev1.Run {
	t.Helper()
	response, err := sys.agents.CreateRun(testContext(t), &agentruntimev1.CreateRunRequest{
		TaskType: "langgraph_task", Input: fmt.Appendf(nil, `{"graph_id": "talk", "thread_id": %q, "said": [%q]}`, threadID, text), Wait: true,
	})
	if err != nil || response.GetRun().GetState() != agentruntimev1.RunState_RUN_STATE_SUCCEEDED {
		t.Fatalf("%v, %v", response.GetRun().GetError(), err)
	}
	return response.GetRun()
}

func said(t *testing.T, state *agentruntimev1.ThreadState) string {
	t.Helper()
	var values struct {
		Said []string `json:"said"`
	}
	if err := json.Unmarshal(state.GetValues(), &values); err != nil {
		t.Fatal(err)
	}
	return strings.Join(values.Said, " ")
}

func TestThreadsAreLookedAtChangedAndForked(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), testContext(t)
	threads := threadsOf(sys)
	register(t, sys, []byte(talking))
	say(t, sys, "ada", "one")
	say(t, sys, "ada", "two")
	got, err := threads.GetThreadState(ctx, &agentruntimev1.GetThreadStateRequest{ThreadId: "ada"})
	latest := got.GetState()
	if err != nil || said(t, latest) != "one two" || latest.GetGraphId() != "talk" || latest.GetTime() == nil ||
		latest.GetStatus() != agentruntimev1.ThreadStatus_THREAD_STATUS_DONE ||
		latest.GetSource() != agentruntimev1.ThreadSource_THREAD_SOURCE_STEP {
		t.Fatalf("%v, %v", got, err)
	}

	var history []*agentruntimev1.ThreadState
	request := &agentruntimev1.ListThreadHistoryRequest{ThreadId: "ada", PageSize: 2}
	for {
		page, err := threads.ListThreadHistory(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		history = append(history, page.GetStates()...)
		if request.Before = page.GetNextBefore(); request.GetBefore() == 0 {
			break
		}
	}
	var first *agentruntimev1.ThreadState
	for i, state := range history {
		if want := latest.GetRevision() - uint64(i); state.GetRevision() != want {
			t.Errorf("revision %d, want %d", state.GetRevision(), want)
		}
		if first == nil && said(t, state) == "one" {
			first = state
		}
	}
	if len(history) != int(latest.GetRevision()) || !proto.Equal(history[0], latest) {
		t.Errorf("%v", history)
	}
	got, err = threads.GetThreadState(ctx, &agentruntimev1.GetThreadStateRequest{ThreadId: "ada", Revision: first.GetRevision()})
	if err != nil || !proto.Equal(got.GetState(), first) {
		t.Errorf("%v, %v", got, err)
	}

	fork := &agentruntimev1.ForkThreadRequest{ThreadId: "ada", Revision: first.GetRevision(), ToThreadId: "bob", RequestId: "r1"}
	forked, err := threads.ForkThread(ctx, fork)
	if err != nil || forked.GetState().GetThreadId() != "bob" || forked.GetState().GetParent() != first.GetRevision() {
		t.Fatalf("%v, %v", forked, err)
	}
	if again, err := threads.ForkThread(ctx, fork); err != nil || !proto.Equal(again, forked) {
		t.Errorf("repeat: %v, %v", again, err)
	}
	fork.RequestId = "r2"
	_, err = threads.ForkThread(ctx, fork)
	refused(t, err, codes.Aborted, "THREAD_BUSY")
	if output := string(say(t, sys, "bob", "else").GetOutput()); !strings.Contains(output, `["one","else"]`) {
		t.Errorf("%s", output)
	}

	update := &agentruntimev1.UpdateThreadStateRequest{ThreadId: "ada", AsNode: "START", Values: []byte(`{"said": ["ask me"]}`), RequestId: "r1"}
	updated, err := threads.UpdateThreadState(ctx, update)
	if err != nil || said(t, updated.GetState()) != "one two ask me" || !reflect.DeepEqual(updated.GetState().GetNext(), []string{"listen"}) {
		t.Fatalf("%v, %v", updated, err)
	}
	if again, err := threads.UpdateThreadState(ctx, update); err != nil || !proto.Equal(again, updated) {
		t.Errorf("repeat: %v, %v", again, err)
	}
	begun, err := threads.UpdateThreadState(ctx, &agentruntimev1.UpdateThreadStateRequest{
		ThreadId: "cleo", GraphId: "talk", AsNode: "END", Values: []byte(`{"said": ["before"]}`),
	})
	if err != nil || begun.GetState().GetStatus() != agentruntimev1.ThreadStatus_THREAD_STATUS_DONE {
		t.Errorf("%v, %v", begun, err)
	}

	var listed []string
	list := &agentruntimev1.ListThreadsRequest{PageSize: 2}
	for {
		page, err := threads.ListThreads(ctx, list)
		if err != nil {
			t.Fatal(err)
		}
		for _, thread := range page.GetThreads() {
			if thread.GetGraphId() != "talk" || thread.GetRevision() == 0 || thread.GetUpdateTime() == nil {
				t.Errorf("%v", thread)
			}
			listed = append(listed, thread.GetThreadId()+" "+thread.GetStatus().String())
		}
		if list.PageToken = page.GetNextPageToken(); list.GetPageToken() == "" {
			break
		}
	}
	want := []string{"bob THREAD_STATUS_DONE", "ada THREAD_STATUS_RUNNING", "cleo THREAD_STATUS_DONE"}
	if !reflect.DeepEqual(listed, want) {
		t.Errorf("there are %v", listed)
	}
	for range 2 {
		if _, err := threads.DeleteThread(ctx, &agentruntimev1.DeleteThreadRequest{ThreadId: "ada"}); err != nil {
			t.Error(err)
		}
	}
	_, err = threads.GetThreadState(ctx, &agentruntimev1.GetThreadStateRequest{ThreadId: "ada"})
	if about := refused(t, err, codes.NotFound, "THREAD_NOT_FOUND"); about["thread_id"] != "ada" {
		t.Errorf("%v", about)
	}
}

func TestCallsAboutThreadsThatDoNotFitAreRefused(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), t.Context()
	threads := threadsOf(sys)
	register(t, sys, []byte(talking))
	turn := say(t, sys, "ada", "one")
	long := strings.Repeat("r", 65)
	tests := map[string]struct {
		call   func() error
		code   codes.Code
		reason string
		field  string
	}{
		"no thread": {func() error {
			_, err := threads.ListThreadHistory(ctx, &agentruntimev1.ListThreadHistoryRequest{ThreadId: "bob"})
			return err
		}, codes.NotFound, "THREAD_NOT_FOUND", ""},
		"no revision": {func() error {
			_, err := threads.GetThreadState(ctx, &agentruntimev1.GetThreadStateRequest{ThreadId: "ada", Revision: 1000})
			return err
		}, codes.NotFound, "THREAD_NOT_FOUND", ""},
		"no run": {func() error {
			_, err := threads.GetThreadState(ctx, &agentruntimev1.GetThreadStateRequest{RunId: "0198c0de-0000-7000-8000-000000000000"})
			return err
		}, codes.NotFound, "RUN_NOT_FOUND", ""},
		"a run beside a thread": {func() error {
			_, err := threads.ListThreadHistory(ctx, &agentruntimev1.ListThreadHistoryRequest{ThreadId: "ada", RunId: turn.GetRunId()})
			return err
		}, codes.InvalidArgument, "INVALID_ARGUMENT", "run_id"},
		"another namespace's run": {func() error {
			_, err := threads.GetThreadState(as(t, "", "other"), &agentruntimev1.GetThreadStateRequest{RunId: turn.GetRunId()})
			return err
		}, codes.NotFound, "RUN_NOT_FOUND", ""},
		"another namespace": {func() error {
			_, err := threads.GetThreadState(as(t, "", "other"), &agentruntimev1.GetThreadStateRequest{ThreadId: "ada"})
			return err
		}, codes.NotFound, "THREAD_NOT_FOUND", ""},
		"id": {func() error {
			_, err := threads.GetThreadState(ctx, &agentruntimev1.GetThreadStateRequest{ThreadId: "a.b"})
			return err
		}, codes.InvalidArgument, "INVALID_ARGUMENT", "thread_id"},
		"id of a fork": {func() error {
			_, err := threads.ForkThread(ctx, &agentruntimev1.ForkThreadRequest{ThreadId: "ada"})
			return err
		}, codes.InvalidArgument, "INVALID_ARGUMENT", "to_thread_id"},
		"id of what is deleted": {func() error {
			_, err := threads.DeleteThread(ctx, &agentruntimev1.DeleteThreadRequest{ThreadId: "*"})
			return err
		}, codes.InvalidArgument, "INVALID_ARGUMENT", "thread_id"},
		"request of a fork": {func() error {
			_, err := threads.ForkThread(ctx, &agentruntimev1.ForkThreadRequest{ThreadId: "ada", ToThreadId: "bob", RequestId: long})
			return err
		}, codes.InvalidArgument, "INVALID_ARGUMENT", "request_id"},
		"page": {func() error {
			_, err := threads.ListThreads(ctx, &agentruntimev1.ListThreadsRequest{PageToken: "x"})
			return err
		}, codes.InvalidArgument, "INVALID_ARGUMENT", "page_token"},
		"page of history": {func() error {
			_, err := threads.ListThreadHistory(ctx, &agentruntimev1.ListThreadHistoryRequest{ThreadId: "ada", PageSize: -1})
			return err
		}, codes.InvalidArgument, "INVALID_ARGUMENT", "page_size"},
	}
	for field, request := range map[string]*agentruntimev1.UpdateThreadStateRequest{
		"values":     {ThreadId: "ada", Values: []byte(`[1]`)},
		"values.x":   {ThreadId: "ada", Values: []byte(`{"x": 1}`)},
		"as_node":    {ThreadId: "ada", AsNode: "nobody"},
		"graph_id":   {ThreadId: "ada", GraphId: "reasoning_graph"},
		"request_id": {ThreadId: "ada", RequestId: long},
	} {
		test := tests["id"]
		test.field = field
		test.call = func() error { _, err := threads.UpdateThreadState(ctx, request); return err }
		tests["update: "+field] = test
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if about := refused(t, test.call(), test.code, test.reason); about["field"] != test.field {
				t.Errorf("%v", about)
			}
		})
	}
}

func TestReadersOfThreadsWriteNone(t *testing.T) {
	t.Parallel()
	sys := start(t, "--tokens-file="+writeTokens(t))
	reader := as(t, "Bearer reader-secret", "default")
	for _, method := range agentruntimev1.ThreadService_ServiceDesc.Methods {
		name := method.MethodName
		err := sys.conn.Invoke(reader, "/agentruntime.v1.ThreadService/"+name, &agentruntimev1.GetThreadStateRequest{}, &agentruntimev1.DeleteThreadResponse{})
		reads := status.Code(err) != codes.PermissionDenied
		if want := strings.HasPrefix(name, "Get") || strings.HasPrefix(name, "List"); reads != want {
			t.Errorf("a reader may call %s: %v", name, reads)
		}
	}
}

// TestPagesOfLargeHistoriesAreShort has states of which few fit into a message.
func TestPagesOfLargeHistoriesAreShort(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), testContext(t)
	register(t, sys, []byte(talking))
	for range 6 {
		say(t, sys, "ada", strings.Repeat("x", 150_000))
	}
	seen := 0
	request := &agentruntimev1.ListThreadHistoryRequest{ThreadId: "ada", PageSize: 100}
	for pages := 0; ; pages++ {
		page, err := threadsOf(sys).ListThreadHistory(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		if proto.Size(page) > 5<<20 {
			t.Errorf("a page of %d bytes", proto.Size(page))
		}
		seen += len(page.GetStates())
		if request.Before = page.GetNextBefore(); request.GetBefore() == 0 {
			if pages == 0 {
				t.Error("it was one page")
			}
			break
		}
	}
	latest, err := threadsOf(sys).GetThreadState(ctx, &agentruntimev1.GetThreadStateRequest{ThreadId: "ada"})
	if err != nil || seen != int(latest.GetState().GetRevision()) {
		t.Errorf("%d of %d, %v", seen, latest.GetState().GetRevision(), err)
	}
}
