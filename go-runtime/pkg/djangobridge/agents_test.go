package djangobridge_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
)

func TestCreateRunWaitsForItsOutput(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), testContext(t)

	response, err := sys.agents.CreateRun(ctx, &agentruntimev1.CreateRunRequest{
		TaskType: "example_task", AgentId: "agent1", Description: "an example",
		Input: []byte(`{"param1":"value1"}`), Metadata: []byte(`{"trace":true}`), RequestId: "r-1", Wait: true,
		Deadline: durationpb.New(time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	run := response.GetRun()
	if !response.GetCreated() || run.GetState() != agentruntimev1.RunState_RUN_STATE_SUCCEEDED {
		t.Fatalf("created %t, run %v", response.GetCreated(), run)
	}
	if !json.Valid(run.GetOutput()) || !bytes.Contains(run.GetOutput(), []byte("value1")) {
		t.Errorf("output = %s, want the input with what was done to it", run.GetOutput())
	}
	if run.GetAgentId() != "agent1" || run.GetAttempt() != 1 || run.GetSequence() == 0 ||
		run.GetTarget() != agentruntimev1.RunTarget_RUN_TARGET_TASK ||
		run.GetCreateTime() == nil || run.GetStartTime() == nil || run.GetEndTime() == nil || run.GetDeadline() == nil {
		t.Errorf("run lacks something: %v", run)
	}

	again, err := sys.agents.CreateRun(ctx, &agentruntimev1.CreateRunRequest{
		TaskType: "example_task", AgentId: "agent1", Description: "an example",
		Input: []byte(`{"param1":"value1"}`), Metadata: []byte(`{"trace":true}`), RequestId: "r-1", Wait: true,
		Deadline: durationpb.New(time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	if again.GetCreated() || again.GetRun().GetRunId() != run.GetRunId() {
		t.Errorf("a repeat made another run: %v", again)
	}
}

func TestRunsAreReadListedAndNotCancelledOnceEnded(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), testContext(t)
	created, err := sys.agents.CreateRun(ctx, &agentruntimev1.CreateRunRequest{TaskType: "example_task", Wait: true})
	if err != nil {
		t.Fatal(err)
	}
	id := created.GetRun().GetRunId()

	got, err := sys.agents.GetRun(ctx, &agentruntimev1.GetRunRequest{RunId: id})
	if err != nil || got.GetRun().GetState() != agentruntimev1.RunState_RUN_STATE_SUCCEEDED {
		t.Errorf("get: %v, %v", got, err)
	}
	waited, err := sys.agents.WaitRun(ctx, &agentruntimev1.WaitRunRequest{RunId: id, MaxWait: durationpb.New(time.Minute)})
	if err != nil || waited.GetRun().GetRunId() != id {
		t.Errorf("wait: %v, %v", waited, err)
	}
	list, err := sys.agents.ListRuns(ctx, &agentruntimev1.ListRunsRequest{
		TaskType: "example_task", States: []agentruntimev1.RunState{agentruntimev1.RunState_RUN_STATE_SUCCEEDED},
	})
	if err != nil || len(list.GetRuns()) != 1 || list.GetRuns()[0].GetOutput() != nil {
		t.Errorf("list: %v, %v; want the run without its output", list, err)
	}
	_, err = sys.agents.CancelRun(ctx, &agentruntimev1.CancelRunRequest{RunId: id})
	about := refused(t, err, codes.FailedPrecondition, "RUN_ENDED")
	if about["run_id"] != id || about["state"] != "succeeded" {
		t.Errorf("metadata = %v", about)
	}
	_, err = sys.agents.GetRun(in(t, "other"), &agentruntimev1.GetRunRequest{RunId: id})
	if about := refused(t, err, codes.NotFound, "RUN_NOT_FOUND"); about["run_id"] != id {
		t.Errorf("metadata = %v", about)
	}
}

// begin creates a run that sleeps, and returns when it is running.
func begin(t *testing.T, sys *system, seconds string) (runID string) {
	t.Helper()
	ctx := testContext(t)
	created, err := sys.agents.CreateRun(ctx, &agentruntimev1.CreateRunRequest{TaskType: "sleep", Input: []byte(`{"seconds":` + seconds + `}`)})
	if err != nil {
		t.Fatal(err)
	}
	for run := created.GetRun(); run.GetState() != agentruntimev1.RunState_RUN_STATE_RUNNING; {
		got, err := sys.agents.GetRun(ctx, &agentruntimev1.GetRunRequest{RunId: run.GetRunId()})
		if err != nil {
			t.Fatal(err)
		}
		run = got.GetRun()
	}
	return created.GetRun().GetRunId()
}

func TestCancelEndsARunningRunForThoseWhoWait(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), testContext(t)
	id := begin(t, sys, "600")
	waited := make(chan *agentruntimev1.Run, 1)
	go func() {
		response, err := sys.agents.WaitRun(ctx, &agentruntimev1.WaitRunRequest{RunId: id})
		if err != nil {
			t.Errorf("wait: %v", err)
		}
		waited <- response.GetRun()
	}()
	cancelled, err := sys.agents.CancelRun(ctx, &agentruntimev1.CancelRunRequest{RunId: id, Reason: "enough"})
	if err != nil || cancelled.GetRun().GetState() != agentruntimev1.RunState_RUN_STATE_CANCELLED {
		t.Fatalf("cancel: %v, %v", cancelled, err)
	}
	if run := <-waited; run.GetState() != agentruntimev1.RunState_RUN_STATE_CANCELLED || run.GetError().GetMessage() == "" {
		t.Errorf("the waiter got %v", run)
	}
}

func TestADrainLetsARunEndAndTellsItsWaiter(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), testContext(t)
	id := begin(t, sys, "1")
	wait, err := sys.conn.NewStream(ctx, new(grpc.StreamDesc), agentruntimev1.AgentService_WaitRun_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(wait.SendMsg(&agentruntimev1.WaitRunRequest{RunId: id}), wait.CloseSend()); err != nil {
		t.Fatal(err)
	}
	// What the connection carries next is answered, so the runtime has the wait.
	if _, err := sys.agents.GetServerInfo(ctx, new(agentruntimev1.GetServerInfoRequest)); err != nil {
		t.Fatal(err)
	}
	if err := sys.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
	var response agentruntimev1.WaitRunResponse
	if err := wait.RecvMsg(&response); err != nil || response.GetRun().GetState() != agentruntimev1.RunState_RUN_STATE_SUCCEEDED {
		t.Errorf("the waiter got %v, %v", response.GetRun(), err)
	}
}

func TestCreateRunRefusals(t *testing.T) {
	t.Parallel()
	sys := start(t)
	if _, err := sys.agents.CreateRun(testContext(t), &agentruntimev1.CreateRunRequest{TaskType: "example_task", RequestId: "taken", Wait: true}); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		request *agentruntimev1.CreateRunRequest
		code    codes.Code
		reason  string
	}{
		"no such task": {
			&agentruntimev1.CreateRunRequest{TaskType: "nonsense"}, codes.NotFound, "TASK_TYPE_NOT_FOUND",
		},
		"no such agent": {
			&agentruntimev1.CreateRunRequest{Target: agentruntimev1.RunTarget_RUN_TARGET_AGENT, AgentId: "nobody", TaskType: "x"},
			codes.NotFound, "AGENT_NOT_FOUND",
		},
		"no such target": {
			&agentruntimev1.CreateRunRequest{Target: 99, TaskType: "example_task"}, codes.InvalidArgument, "INVALID_ARGUMENT",
		},
		"input that is no object": {
			&agentruntimev1.CreateRunRequest{TaskType: "example_task", Input: []byte("[1]")}, codes.InvalidArgument, "INVALID_ARGUMENT",
		},
		"negative deadline": {
			&agentruntimev1.CreateRunRequest{TaskType: "example_task", Deadline: durationpb.New(-time.Second)},
			codes.InvalidArgument, "INVALID_ARGUMENT",
		},
		"timeout out of range": {
			&agentruntimev1.CreateRunRequest{TaskType: "example_task", RunTimeout: &durationpb.Duration{Seconds: 1 << 62}},
			codes.InvalidArgument, "INVALID_ARGUMENT",
		},
		"another payload": {
			&agentruntimev1.CreateRunRequest{TaskType: "example_task", RequestId: "taken", Input: []byte(`{"a":1}`)},
			codes.AlreadyExists, "IDEMPOTENCY_CONFLICT",
		},
		"input above the limit": {
			&agentruntimev1.CreateRunRequest{TaskType: "example_task", Input: []byte(`{"a":"` + string(bytes.Repeat([]byte("a"), 1<<20)) + `"}`)},
			codes.ResourceExhausted, "TOO_LARGE",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := sys.agents.CreateRun(testContext(t), test.request)
			refused(t, err, test.code, test.reason)
		})
	}
}

func TestCatalogComesInPages(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), testContext(t)
	var ids []string
	for token := ""; ; {
		page, err := sys.agents.ListAgents(ctx, &agentruntimev1.ListAgentsRequest{PageSize: 3, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page.GetAgents() {
			if a.GetDescription() == "" || a.GetModel() == "" || len(a.GetTaskTypes()) == 0 || !json.Valid(a.GetTaskTypes()[0].GetInputSchema()) {
				t.Errorf("agent lacks something: %v", a)
			}
			ids = append(ids, a.GetAgentId())
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	want := []string{"app_builder_agent", "codegen_agent", "frontend_agent", "software_engineering_agent"}
	if len(ids) != len(want) {
		t.Fatalf("agents = %v, want %v", ids, want)
	}
	for i := range want {
		if ids[i] != want[i] {
			t.Fatalf("agents = %v, want %v", ids, want)
		}
	}
	types, err := sys.agents.ListTaskTypes(ctx, &agentruntimev1.ListTaskTypesRequest{})
	if err != nil || len(types.GetTaskTypes()) == 0 || types.GetNextPageToken() != "" {
		t.Errorf("task types: %v, %v", types, err)
	}
	_, err = sys.agents.ListAgents(ctx, &agentruntimev1.ListAgentsRequest{PageSize: -1})
	refused(t, err, codes.InvalidArgument, "INVALID_ARGUMENT")
}

func TestGetServerInfo(t *testing.T) {
	t.Parallel()
	sys := start(t, "--max-value-bytes=2MiB")
	info, err := sys.agents.GetServerInfo(in(t, "shop"), &agentruntimev1.GetServerInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if info.GetVersion() != "1.2.3" || info.GetNamespace() != "shop" || info.GetDurability() != "os" ||
		info.GetMaxValueBytes() != 2<<20 || info.GetMaxMessageBytes() != 16<<20 || info.GetStartTime().AsTime().IsZero() {
		t.Errorf("info = %v", info)
	}
}
