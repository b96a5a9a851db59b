package djangobridge_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
)

func echoes(count int, input string) *agentruntimev1.BatchCreateRunsRequest {
	batch := &agentruntimev1.BatchCreateRunsRequest{}
	for i := range count {
		batch.Requests = append(batch.Requests, &agentruntimev1.CreateRunRequest{
			TaskType: "echo", RequestId: fmt.Sprint("r-", i), Input: fmt.Appendf(nil, `{"n":%d,"text":%q}`, i, input),
		})
	}
	return batch
}

// receiveAll returns the frames of a stream and why it ended.
func receiveAll(stream agentruntimev1.AgentService_WaitRunsClient) (frames [][]*agentruntimev1.Run, err error) {
	for {
		frame, err := stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return frames, err
		}
		frames = append(frames, frame.GetRuns())
	}
}

func TestManyRunsAreCreatedAndWaitedForAtOnce(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), testContext(t)
	// Outputs that do not fit into one frame.
	batch := echoes(1000, strings.Repeat("x", 3000))
	created, err := sys.agents.BatchCreateRuns(ctx, batch)
	if err != nil {
		t.Fatal(err)
	}
	wait := &agentruntimev1.WaitRunsRequest{}
	inputs := map[string]string{}
	for i, response := range created.GetResponses() {
		run := response.GetRun()
		if !response.GetCreated() || run.GetTaskType() != "echo" || run.GetInput() != nil || run.GetSequence() == 0 {
			t.Fatalf("response %d: %v", i, response)
		}
		wait.RunIds = append(wait.RunIds, run.GetRunId())
		inputs[run.GetRunId()] = string(batch.GetRequests()[i].GetInput())
	}
	stream, err := sys.agents.WaitRuns(ctx, wait)
	if err != nil {
		t.Fatal(err)
	}
	frames, err := receiveAll(stream)
	if err != nil || len(frames) < 3 {
		t.Fatalf("%d frames, %v", len(frames), err)
	}
	for _, frame := range frames {
		for _, run := range frame {
			if run.GetState() != agentruntimev1.RunState_RUN_STATE_SUCCEEDED || string(run.GetOutput()) != inputs[run.GetRunId()] || run.GetInput() != nil {
				t.Fatalf("run %v", run)
			}
			delete(inputs, run.GetRunId())
		}
	}
	if len(inputs) > 0 {
		t.Errorf("%d runs were not sent", len(inputs))
	}
	again, err := sys.agents.BatchCreateRuns(ctx, batch)
	if err != nil {
		t.Fatal(err)
	}
	for i, response := range again.GetResponses() {
		if response.GetCreated() || response.GetRun().GetRunId() != wait.GetRunIds()[i] || response.GetRun().GetOutput() != nil {
			t.Fatalf("repeated request %d: %v", i, response)
		}
	}
}

func TestWaitRunsSendsWhatHasNotEndedOnceItsTimeIsOver(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), testContext(t)
	id := begin(t, sys, "600")
	stream, err := sys.agents.WaitRuns(ctx, &agentruntimev1.WaitRunsRequest{RunIds: []string{id}, MaxWait: durationpb.New(0)})
	if err != nil {
		t.Fatal(err)
	}
	frames, err := receiveAll(stream)
	if err != nil || len(frames) != 1 || len(frames[0]) != 1 || frames[0][0].GetState() != agentruntimev1.RunState_RUN_STATE_RUNNING {
		t.Errorf("frames %v, %v", frames, err)
	}
	if _, err := sys.agents.CancelRun(ctx, &agentruntimev1.CancelRunRequest{RunId: id}); err != nil {
		t.Error(err)
	}
}

func TestBatchesThatDoNotFitAreRefused(t *testing.T) {
	t.Parallel()
	sys, ctx := start(t), testContext(t)
	create := func(batch *agentruntimev1.BatchCreateRunsRequest) error {
		_, err := sys.agents.BatchCreateRuns(ctx, batch)
		return err
	}
	wait := func(request *agentruntimev1.WaitRunsRequest) error {
		stream, err := sys.agents.WaitRuns(ctx, request)
		if err != nil {
			return err
		}
		_, err = receiveAll(stream)
		return err
	}

	for name, err := range map[string]error{
		"requests": create(&agentruntimev1.BatchCreateRunsRequest{}),
		"run_ids":  wait(&agentruntimev1.WaitRunsRequest{}),
		"max_wait": wait(&agentruntimev1.WaitRunsRequest{RunIds: []string{"r"}, MaxWait: durationpb.New(-1)}),
	} {
		if about := refused(t, err, codes.InvalidArgument, "INVALID_ARGUMENT"); about["field"] != name {
			t.Errorf("%v is about %s, want %s", err, about["field"], name)
		}
	}
	refused(t, create(echoes(1001, "")), codes.InvalidArgument, "INVALID_ARGUMENT")
	large := create(echoes(13, strings.Repeat("x", 1<<20)))
	if about := refused(t, large, codes.ResourceExhausted, "TOO_LARGE"); about["field"] != "requests" {
		t.Errorf("metadata = %v", about)
	}
	unknown := wait(&agentruntimev1.WaitRunsRequest{RunIds: []string{"r"}})
	if about := refused(t, unknown, codes.NotFound, "RUN_NOT_FOUND"); about["run_id"] != "r" {
		t.Errorf("metadata = %v", about)
	}
	noTask := echoes(3, "")
	noTask.Requests[2].TaskType = "none"
	if about := refused(t, create(noTask), codes.NotFound, "TASK_TYPE_NOT_FOUND"); about["request"] != "2" {
		t.Errorf("metadata = %v", about)
	}

	// As many mistakes as fit into the headers are named.
	mistaken := echoes(1000, "")
	for _, r := range mistaken.GetRequests() {
		r.Wait, r.Deadline = true, durationpb.New(-1)
	}
	err := create(mistaken)
	if about := refused(t, err, codes.InvalidArgument, "INVALID_ARGUMENT"); about["field"] != "requests[0].deadline" {
		t.Errorf("metadata = %v", about)
	}
	fields := map[string]bool{}
	for _, detail := range status.Convert(err).Details() {
		if bad, found := detail.(*errdetails.BadRequest); found {
			for _, v := range bad.GetFieldViolations() {
				fields[v.GetField()] = true
			}
		}
	}
	if len(fields) != 20 || !fields["requests[9].wait"] {
		t.Errorf("named: %v", fields)
	}
	if list, err := sys.agents.ListRuns(ctx, &agentruntimev1.ListRunsRequest{}); err != nil || len(list.GetRuns()) > 0 {
		t.Errorf("accepted %v, %v", list.GetRuns(), err)
	}
}
