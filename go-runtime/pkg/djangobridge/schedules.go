package djangobridge

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/schedule"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

func (s *agentService) CreateSchedule(
	ctx context.Context, request *agentruntimev1.CreateScheduleRequest,
) (*agentruntimev1.CreateScheduleResponse, error) {
	wire := request.GetSchedule()
	run, err := createFromWire(wire.GetRun())
	if err != nil {
		if names, moved := violation.In("schedule.run", err); names {
			err = moved
		}
		return nil, err
	}
	created, err := s.schedules.Create(ctx, schedule.Schedule{
		ID: wire.GetScheduleId(), Namespace: namespaceOf(ctx), Cron: wire.GetCron(), TimeZone: wire.GetTimeZone(),
		Run: run, Paused: wire.GetPaused(),
	}, request.GetReplace())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.CreateScheduleResponse{Schedule: scheduleToWire(created)}, nil
}

func (s *agentService) ListSchedules(
	ctx context.Context, request *agentruntimev1.ListSchedulesRequest,
) (*agentruntimev1.ListSchedulesResponse, error) {
	size, err := pageSize(request.GetPageSize(), defaultCatalogPage, maxCatalogPage)
	if err != nil {
		return nil, err
	}
	schedules, next := page(s.schedules.List(namespaceOf(ctx)),
		func(one schedule.Schedule) string { return one.ID }, request.GetPageToken(), size)
	response := &agentruntimev1.ListSchedulesResponse{NextPageToken: next}
	for _, one := range schedules {
		response.Schedules = append(response.Schedules, scheduleToWire(one))
	}
	return response, nil
}

func (s *agentService) PauseSchedule(
	ctx context.Context, request *agentruntimev1.PauseScheduleRequest,
) (*agentruntimev1.PauseScheduleResponse, error) {
	paused, err := s.schedules.Pause(ctx, namespaceOf(ctx), request.GetScheduleId(), request.GetPaused())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.PauseScheduleResponse{Schedule: scheduleToWire(paused)}, nil
}

func (s *agentService) DeleteSchedule(
	ctx context.Context, request *agentruntimev1.DeleteScheduleRequest,
) (*agentruntimev1.DeleteScheduleResponse, error) {
	if err := s.schedules.Delete(ctx, namespaceOf(ctx), request.GetScheduleId()); err != nil {
		return nil, err
	}
	return &agentruntimev1.DeleteScheduleResponse{}, nil
}

func (s *agentService) TriggerSchedule(
	ctx context.Context, request *agentruntimev1.TriggerScheduleRequest,
) (*agentruntimev1.TriggerScheduleResponse, error) {
	run, err := s.schedules.Trigger(ctx, namespaceOf(ctx), request.GetScheduleId(), request.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.TriggerScheduleResponse{Run: runToWire(run)}, nil
}

func scheduleToWire(s schedule.Schedule) *agentruntimev1.Schedule {
	return &agentruntimev1.Schedule{
		ScheduleId: s.ID, Cron: s.Cron, TimeZone: s.TimeZone, Run: createToWire(s.Run), Paused: s.Paused,
		CreateTime: timestamp(s.CreatedAt), NextTime: timestamp(s.NextTime), LastTime: timestamp(s.LastTime),
		LastRunId: s.LastRunID, LastError: s.LastError,
	}
}

// createToWire puts the request of a schedule's runs on the wire.
func createToWire(r engine.CreateRequest) *agentruntimev1.CreateRunRequest {
	wire := &agentruntimev1.CreateRunRequest{
		Target: targetToWire(r.Target), AgentId: r.AgentID, TaskType: r.TaskType, Description: r.Description,
		Input: r.Input, Metadata: r.Metadata, Priority: int32(r.Options.Priority),
	}
	if r.Deadline > 0 {
		wire.Deadline = durationpb.New(r.Deadline)
	}
	if r.RunTimeout > 0 {
		wire.RunTimeout = durationpb.New(r.RunTimeout)
	}
	if r.Options.QueueTimeout > 0 {
		wire.QueueTimeout = durationpb.New(r.Options.QueueTimeout)
	}
	if r.Options.StepTimeout > 0 {
		wire.StepTimeout = durationpb.New(r.Options.StepTimeout)
	}
	if c := r.Options.Concurrency; c != nil {
		wire.Concurrency = &agentruntimev1.Concurrency{Key: c.Key, Limit: int32(c.Limit), Strategy: strategyToWire(c.Strategy)}
	}
	if p := r.Options.Retry; p != nil {
		wire.Retry = &agentruntimev1.RetryPolicy{MaxAttempts: int32(p.MaxAttempts), Multiplier: p.Multiplier}
		if p.InitialBackoff > 0 {
			wire.Retry.InitialBackoff = durationpb.New(p.InitialBackoff)
		}
		if p.MaxBackoff > 0 {
			wire.Retry.MaxBackoff = durationpb.New(p.MaxBackoff)
		}
	}
	for eventType, v := range r.Options.Visibility {
		if wire.EventVisibility == nil {
			wire.EventVisibility = map[string]agentruntimev1.EventVisibility{}
		}
		wire.EventVisibility[eventType] = visibilityToWire(v)
	}
	return wire
}

func strategyToWire(s engine.Strategy) agentruntimev1.ConcurrencyStrategy {
	switch s {
	case engine.RejectWhenTaken:
		return agentruntimev1.ConcurrencyStrategy_CONCURRENCY_STRATEGY_REJECT
	case engine.CancelWhoHasTaken:
		return agentruntimev1.ConcurrencyStrategy_CONCURRENCY_STRATEGY_CANCEL_RUNNING
	case engine.QueueWhenTaken:
		return agentruntimev1.ConcurrencyStrategy_CONCURRENCY_STRATEGY_QUEUE
	default:
		return agentruntimev1.ConcurrencyStrategy_CONCURRENCY_STRATEGY_UNSPECIFIED
	}
}
