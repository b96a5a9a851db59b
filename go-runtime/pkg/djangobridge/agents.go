package djangobridge

import (
	"context"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/agent"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Page sizes of ListRuns.
const (
	defaultRunsPage = 50
	maxRunsPage     = 500
)

// Limits of BatchCreateRuns and WaitRuns. The answer to a batch is larger than
// the batch without its inputs, but by far less than what the largest message leaves.
const (
	maxBatchRuns  = 1000
	maxBatchBytes = 12 << 20
)

// agentService answers the rpcs of runs and of what can be run.
type agentService struct {
	agentruntimev1.UnimplementedAgentServiceServer

	engine  *engine.Engine
	agents  *agent.Registry
	streams *streams
	// describe fills in everything of the answer but the namespace.
	describe func() *agentruntimev1.GetServerInfoResponse
}

func (s *agentService) CreateRun(
	ctx context.Context, request *agentruntimev1.CreateRunRequest,
) (*agentruntimev1.CreateRunResponse, error) {
	r, err := createFromWire(request)
	if err != nil {
		return nil, err
	}
	run, created, err := s.engine.CreateRun(ctx, namespaceOf(ctx), r)
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.CreateRunResponse{Run: runToWire(run), Created: created}, nil
}

func (s *agentService) BatchCreateRuns(
	ctx context.Context, request *agentruntimev1.BatchCreateRunsRequest,
) (*agentruntimev1.BatchCreateRunsResponse, error) {
	if err := checkBatch("requests", len(request.GetRequests())); err != nil {
		return nil, err
	}
	if size := proto.Size(request); size > maxBatchBytes {
		return nil, &violation.TooLargeError{Field: "requests", Size: size, Limit: maxBatchBytes}
	}
	batch := make([]engine.CreateRequest, len(request.GetRequests()))
	var mistakes []error
	for i, wire := range request.GetRequests() {
		r, err := createFromWire(wire)
		if wire.GetWait() {
			err = violation.Join(err, violation.New("wait", "must not be set in a batch"))
		}
		if names, moved := violation.In(fmt.Sprintf("requests[%d]", i), err); names {
			mistakes = append(mistakes, moved)
		}
		batch[i] = r
	}
	if err := violation.Join(mistakes...); err != nil {
		return nil, err
	}
	created, err := s.engine.CreateRuns(ctx, namespaceOf(ctx), batch)
	if err != nil {
		return nil, err
	}
	response := &agentruntimev1.BatchCreateRunsResponse{
		Responses: make([]*agentruntimev1.CreateRunResponse, 0, len(created)),
	}
	for _, c := range created {
		response.Responses = append(response.Responses,
			&agentruntimev1.CreateRunResponse{Run: runToWire(c.Run), Created: c.New})
	}
	return response, nil
}

func checkBatch(field string, size int) error {
	if size == 0 || size > maxBatchRuns {
		return violation.New(field, "must be 1 to %d, is %d", maxBatchRuns, size)
	}
	return nil
}

func createFromWire(wire *agentruntimev1.CreateRunRequest) (engine.CreateRequest, error) {
	target, errTarget := targetFromWire(wire.GetTarget())
	deadline, errDeadline := duration("deadline", wire.GetDeadline())
	runTimeout, errTimeout := duration("run_timeout", wire.GetRunTimeout())
	return engine.CreateRequest{
		RunID:          wire.GetRunId(),
		IdempotencyKey: wire.GetIdempotencyKey(),
		RequestID:      wire.GetRequestId(),
		Target:         target,
		AgentID:        wire.GetAgentId(),
		TaskType:       wire.GetTaskType(),
		Description:    wire.GetDescription(),
		Input:          wire.GetInput(),
		Metadata:       wire.GetMetadata(),
		Deadline:       deadline,
		RunTimeout:     runTimeout,
		Wait:           wire.GetWait(),
	}, violation.Join(errTarget, errDeadline, errTimeout)
}

func (s *agentService) GetRun(ctx context.Context, request *agentruntimev1.GetRunRequest) (*agentruntimev1.GetRunResponse, error) {
	run, err := s.engine.GetRun(ctx, namespaceOf(ctx), request.GetRunId())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.GetRunResponse{Run: runToWire(run)}, nil
}

func (s *agentService) WaitRun(ctx context.Context, request *agentruntimev1.WaitRunRequest) (*agentruntimev1.WaitRunResponse, error) {
	maxWait, err := duration("max_wait", request.GetMaxWait())
	if err != nil {
		return nil, err
	}
	run, err := s.engine.WaitRun(ctx, namespaceOf(ctx), request.GetRunId(), maxWait)
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.WaitRunResponse{Run: runToWire(run)}, nil
}

func (s *agentService) WaitRuns(request *agentruntimev1.WaitRunsRequest, stream agentruntimev1.AgentService_WaitRunsServer) error {
	if err := checkBatch("run_ids", len(request.GetRunIds())); err != nil {
		return err
	}
	maxWait := time.Duration(math.MaxInt64)
	if given := request.GetMaxWait(); given != nil {
		if maxWait = given.AsDuration(); given.CheckValid() != nil || maxWait < 0 {
			return violation.New("max_wait", "must be a duration, at least zero")
		}
	}
	return pump(s.streams, stream, func(ctx context.Context, send func(*agentruntimev1.WaitRunsResponse) error) error {
		frame, bytes := &agentruntimev1.WaitRunsResponse{}, 0
		flush := func() error {
			full := frame
			frame, bytes = &agentruntimev1.WaitRunsResponse{}, 0
			return send(full)
		}
		return s.engine.WaitRuns(ctx, namespaceOf(ctx), request.GetRunIds(), maxWait, func(run engine.Run, more bool) error {
			wire := runToWire(run)
			size := proto.Size(wire)
			if len(frame.GetRuns()) == maxFrameItems || (bytes > 0 && bytes+size > maxFrameBytes) {
				if err := flush(); err != nil {
					return err
				}
			}
			frame.Runs = append(frame.Runs, wire)
			bytes += size
			if more {
				return nil
			}
			return flush()
		})
	})
}

func (s *agentService) CancelRun(
	ctx context.Context, request *agentruntimev1.CancelRunRequest,
) (*agentruntimev1.CancelRunResponse, error) {
	run, err := s.engine.CancelRun(ctx, namespaceOf(ctx), request.GetRunId(), request.GetReason())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.CancelRunResponse{Run: runToWire(run)}, nil
}

func (s *agentService) ListRuns(ctx context.Context, request *agentruntimev1.ListRunsRequest) (*agentruntimev1.ListRunsResponse, error) {
	size, err := pageSize(request.GetPageSize(), defaultRunsPage, maxRunsPage)
	if err != nil {
		return nil, err
	}
	states := make([]engine.State, 0, len(request.GetStates()))
	for _, asked := range request.GetStates() {
		state, known := stateFromWire(asked)
		if !known {
			return nil, violation.New("states", "%s is no state of a run", asked)
		}
		states = append(states, state)
	}
	runs, next, err := s.engine.ListRuns(ctx, namespaceOf(ctx), engine.ListRequest{
		States:    states,
		AgentID:   request.GetAgentId(),
		TaskType:  request.GetTaskType(),
		PageSize:  size,
		PageToken: request.GetPageToken(),
	})
	if err != nil {
		return nil, err
	}
	response := &agentruntimev1.ListRunsResponse{NextPageToken: next}
	for _, run := range runs {
		response.Runs = append(response.Runs, runToWire(run))
	}
	return response, nil
}

func (s *agentService) ListAgents(
	_ context.Context, request *agentruntimev1.ListAgentsRequest,
) (*agentruntimev1.ListAgentsResponse, error) {
	size, err := pageSize(request.GetPageSize(), defaultCatalogPage, maxCatalogPage)
	if err != nil {
		return nil, err
	}
	agents, next := page(s.agents.Agents(), func(a agent.Agent) string { return a.ID }, request.GetPageToken(), size)
	response := &agentruntimev1.ListAgentsResponse{NextPageToken: next}
	for _, a := range agents {
		response.Agents = append(response.Agents, &agentruntimev1.Agent{
			AgentId:     a.ID,
			Description: a.Description,
			TaskTypes:   taskTypesToWire(a.TaskTypes),
			Model:       a.Model,
		})
	}
	return response, nil
}

func (s *agentService) ListTaskTypes(
	_ context.Context, request *agentruntimev1.ListTaskTypesRequest,
) (*agentruntimev1.ListTaskTypesResponse, error) {
	size, err := pageSize(request.GetPageSize(), defaultCatalogPage, maxCatalogPage)
	if err != nil {
		return nil, err
	}
	types, next := page(s.agents.TaskTypes(), func(t agent.TaskType) string { return t.Name }, request.GetPageToken(), size)
	return &agentruntimev1.ListTaskTypesResponse{TaskTypes: taskTypesToWire(types), NextPageToken: next}, nil
}

func (s *agentService) GetServerInfo(
	ctx context.Context, _ *agentruntimev1.GetServerInfoRequest,
) (*agentruntimev1.GetServerInfoResponse, error) {
	info := s.describe()
	info.Namespace = namespaceOf(ctx)
	return info, nil
}

func taskTypesToWire(types []agent.TaskType) []*agentruntimev1.TaskType {
	wire := make([]*agentruntimev1.TaskType, 0, len(types))
	for _, t := range types {
		wire = append(wire, &agentruntimev1.TaskType{TaskType: t.Name, Description: t.Description, InputSchema: t.InputSchema})
	}
	return wire
}

func runToWire(run engine.Run) *agentruntimev1.Run {
	wire := &agentruntimev1.Run{
		RunId:       run.ID,
		Target:      targetToWire(run.Target),
		AgentId:     run.AgentID,
		TaskType:    run.TaskType,
		Description: run.Description,
		State:       stateToWire(run.State),
		Attempt:     int32(run.Attempt),
		MaxAttempts: int32(run.MaxAttempts),
		Input:       run.Input,
		Output:      run.Output,
		Metadata:    run.Metadata,
		CreateTime:  timestamp(run.CreatedAt),
		StartTime:   timestamp(run.StartedAt),
		EndTime:     timestamp(run.EndedAt),
		Deadline:    timestamp(run.Deadline),
		Sequence:    run.Sequence,
	}
	if run.Error != nil {
		wire.Error = &agentruntimev1.RunError{
			Reason: string(run.Error.Reason), Message: run.Error.Message, Retryable: run.Error.Retryable,
		}
	}
	return wire
}

func targetFromWire(target agentruntimev1.RunTarget) (engine.Target, error) {
	switch target {
	case agentruntimev1.RunTarget_RUN_TARGET_UNSPECIFIED, agentruntimev1.RunTarget_RUN_TARGET_TASK:
		return engine.TaskTarget, nil
	case agentruntimev1.RunTarget_RUN_TARGET_AGENT:
		return engine.AgentTarget, nil
	default:
		return "", violation.New("target", "%s is no target", target)
	}
}

func targetToWire(target engine.Target) agentruntimev1.RunTarget {
	switch target {
	case engine.TaskTarget:
		return agentruntimev1.RunTarget_RUN_TARGET_TASK
	case engine.AgentTarget:
		return agentruntimev1.RunTarget_RUN_TARGET_AGENT
	default:
		return agentruntimev1.RunTarget_RUN_TARGET_UNSPECIFIED
	}
}

func stateFromWire(wire agentruntimev1.RunState) (engine.State, bool) {
	for _, state := range []engine.State{
		engine.Queued, engine.Running, engine.Waiting, engine.Succeeded, engine.Failed, engine.Cancelled, engine.TimedOut,
	} {
		if stateToWire(state) == wire {
			return state, true
		}
	}
	return "", false
}

func stateToWire(state engine.State) agentruntimev1.RunState {
	switch state {
	case engine.Queued:
		return agentruntimev1.RunState_RUN_STATE_QUEUED
	case engine.Running:
		return agentruntimev1.RunState_RUN_STATE_RUNNING
	case engine.Waiting:
		return agentruntimev1.RunState_RUN_STATE_WAITING
	case engine.Succeeded:
		return agentruntimev1.RunState_RUN_STATE_SUCCEEDED
	case engine.Failed:
		return agentruntimev1.RunState_RUN_STATE_FAILED
	case engine.Cancelled:
		return agentruntimev1.RunState_RUN_STATE_CANCELLED
	case engine.TimedOut:
		return agentruntimev1.RunState_RUN_STATE_TIMED_OUT
	default:
		return agentruntimev1.RunState_RUN_STATE_UNSPECIFIED
	}
}
