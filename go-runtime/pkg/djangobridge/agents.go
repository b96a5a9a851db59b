package djangobridge

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/agent"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/schedule"
	"github.com/djangobridge/djangobridge/go-runtime/internal/ticket"
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

// maxFollowInterval is the longest that a reader of all runs may have events wait.
const maxFollowInterval = 10 * time.Second

// agentService answers the rpcs of runs and of what can be run.
type agentService struct {
	agentruntimev1.UnimplementedAgentServiceServer

	engine    *engine.Engine
	schedules *schedule.Store
	agents    *agent.Registry
	streams   *streams
	metrics   *metrics
	guard     guard
	log       *slog.Logger
	tickets   *ticket.Office
	// runTimeout is the longest an attempt takes unless its run says otherwise.
	runTimeout time.Duration
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

func (s *agentService) ResumeRun(
	ctx context.Context, request *agentruntimev1.ResumeRunRequest,
) (*agentruntimev1.ResumeRunResponse, error) {
	run, err := s.engine.ResumeRun(ctx, namespaceOf(ctx), request.GetRunId(), request.GetInterruptId(), request.GetValue())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.ResumeRunResponse{Run: runToWire(run)}, nil
}

func (s *agentService) RetryRun(ctx context.Context, request *agentruntimev1.RetryRunRequest) (*agentruntimev1.RetryRunResponse, error) {
	run, err := s.engine.RetryRun(ctx, namespaceOf(ctx), request.GetRunId(), request.GetNewRunId(), request.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.RetryRunResponse{Run: runToWire(run)}, nil
}

func (s *agentService) WatchRun(request *agentruntimev1.WatchRunRequest, stream agentruntimev1.AgentService_WatchRunServer) error {
	return pump(s.streams, stream, func(ctx context.Context, send func(*agentruntimev1.WatchRunResponse) error) error {
		return watchRun(ctx, s.engine, namespaceOf(ctx), request, func(events []*agentruntimev1.RunEvent, position uint64) error {
			return send(&agentruntimev1.WatchRunResponse{Events: events, Position: position})
		})
	})
}

func (s *agentService) WatchRuns(stream agentruntimev1.AgentService_WatchRunsServer) error {
	return pump(s.streams, stream, func(ctx context.Context, send func(*agentruntimev1.WatchRunsResponse) error) error {
		return s.newWatcher(ctx, send).serve(ctx, receive(ctx, s.streams, stream))
	})
}

func (s *agentService) FollowRuns(request *agentruntimev1.FollowRunsRequest, stream agentruntimev1.AgentService_FollowRunsServer) error {
	interval, err := duration("min_interval", request.GetMinInterval())
	if err != nil {
		return err
	}
	if interval > maxFollowInterval {
		return violation.New("min_interval", "must be at most %s", maxFollowInterval)
	}
	return pump(s.streams, stream, func(ctx context.Context, send func(*agentruntimev1.FollowRunsResponse) error) error {
		follow := engine.FollowRequest{
			After: request.GetAfterSequence(), WithoutTypes: request.GetWithoutTypes(), NamedOnly: request.GetNamedOnly(),
			MinInterval: interval,
		}
		return s.engine.FollowRuns(ctx, namespaceOf(ctx), follow, func(events []engine.Event, position uint64) error {
			return sendEvents(events, position, func(wire []*agentruntimev1.RunEvent, position uint64) error {
				return send(&agentruntimev1.FollowRunsResponse{Events: wire, Position: position})
			})
		})
	})
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
		States:   states,
		AgentID:  request.GetAgentId(),
		TaskType: request.GetTaskType(),
		ParentID: request.GetParentRunId(), ScheduleID: request.GetScheduleId(),
		ConcurrencyKey: request.GetConcurrencyKey(), DeadLetters: request.GetDeadLetters(),
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
	ctx context.Context, request *agentruntimev1.ListAgentsRequest,
) (*agentruntimev1.ListAgentsResponse, error) {
	size, err := pageSize(request.GetPageSize(), defaultCatalogPage, maxCatalogPage)
	if err != nil {
		return nil, err
	}
	var all []*agentruntimev1.Agent
	own := map[string]bool{}
	for _, a := range s.agents.Agents(namespaceOf(ctx)) {
		own[a.ID] = true
		all = append(all, &agentruntimev1.Agent{
			AgentId:     a.ID,
			Description: a.Description,
			TaskTypes:   taskTypesToWire(a.TaskTypes),
			Model:       a.Model,
		})
	}
	for _, a := range s.engine.WorkerAgents(namespaceOf(ctx)) {
		if !own[a.ID] && !agent.IsFunction(a.ID) {
			all = append(all, &agentruntimev1.Agent{AgentId: a.ID, Description: a.Description, ByWorker: true, Workers: int32(a.Workers)})
		}
	}
	slices.SortFunc(all, func(a, b *agentruntimev1.Agent) int { return strings.Compare(a.GetAgentId(), b.GetAgentId()) })
	agents, next := page(all, (*agentruntimev1.Agent).GetAgentId, request.GetPageToken(), size)
	return &agentruntimev1.ListAgentsResponse{Agents: agents, NextPageToken: next}, nil
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
