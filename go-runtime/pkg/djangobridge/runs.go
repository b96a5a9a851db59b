package djangobridge

import (
	"time"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

func createFromWire(wire *agentruntimev1.CreateRunRequest) (engine.CreateRequest, error) {
	target, errTarget := targetFromWire(wire.GetTarget())
	deadline, errDeadline := duration("deadline", wire.GetDeadline())
	runTimeout, errTimeout := duration("run_timeout", wire.GetRunTimeout())
	delay, errDelay := duration("delay", wire.GetDelay())
	options, errOptions := optionsFromWire(wire)
	var runAt time.Time
	var errRunAt error
	if at := wire.GetRunAt(); at != nil {
		if runAt = at.AsTime(); at.CheckValid() != nil {
			errRunAt = violation.New("run_at", "must be a time")
		}
	}
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
		Delay:          delay,
		RunAt:          runAt,
		Options:        options,
		Wait:           wire.GetWait(),
	}, violation.Join(errTarget, errDeadline, errTimeout, errDelay, errRunAt, errOptions)
}

func optionsFromWire(wire *agentruntimev1.CreateRunRequest) (engine.Options, error) {
	queueTimeout, errQueue := duration("queue_timeout", wire.GetQueueTimeout())
	stepTimeout, errStep := duration("step_timeout", wire.GetStepTimeout())
	retry, errRetry := retryFromWire("retry", wire.GetRetry())
	options := engine.Options{
		Priority: int(wire.GetPriority()), QueueTimeout: queueTimeout, StepTimeout: stepTimeout, Retry: retry,
	}
	var errStrategy, errVisibility error
	if c := wire.GetConcurrency(); c != nil {
		options.Concurrency = &engine.Concurrency{Key: c.GetKey(), Limit: int(c.GetLimit())}
		switch c.GetStrategy() {
		case agentruntimev1.ConcurrencyStrategy_CONCURRENCY_STRATEGY_UNSPECIFIED,
			agentruntimev1.ConcurrencyStrategy_CONCURRENCY_STRATEGY_QUEUE:
			options.Concurrency.Strategy = engine.QueueWhenTaken
		case agentruntimev1.ConcurrencyStrategy_CONCURRENCY_STRATEGY_REJECT:
			options.Concurrency.Strategy = engine.RejectWhenTaken
		case agentruntimev1.ConcurrencyStrategy_CONCURRENCY_STRATEGY_CANCEL_RUNNING:
			options.Concurrency.Strategy = engine.CancelWhoHasTaken
		default:
			errStrategy = violation.New("concurrency.strategy", "%s is no strategy", c.GetStrategy())
		}
	}
	for eventType, v := range wire.GetEventVisibility() {
		if options.Visibility == nil {
			options.Visibility = map[string]engine.Visibility{}
		}
		visibility, err := visibilityFromWire("event_visibility", v, "")
		if err != nil {
			errVisibility = err
		} else if visibility != "" {
			options.Visibility[eventType] = visibility
		}
	}
	return options, violation.Join(errQueue, errStep, errRetry, errStrategy, errVisibility)
}

func retryFromWire(field string, wire *agentruntimev1.RetryPolicy) (*engine.RetryPolicy, error) {
	if wire == nil {
		return nil, nil //nolint:nilnil // none was given
	}
	initial, errInitial := duration(field+".initial_backoff", wire.GetInitialBackoff())
	longest, errLongest := duration(field+".max_backoff", wire.GetMaxBackoff())
	return &engine.RetryPolicy{
		MaxAttempts: int(wire.GetMaxAttempts()), InitialBackoff: initial, MaxBackoff: longest, Multiplier: wire.GetMultiplier(),
	}, violation.Join(errInitial, errLongest)
}

// visibilityFromWire reads a visibility; unset gives the fallback.
func visibilityFromWire(field string, wire agentruntimev1.EventVisibility, fallback engine.Visibility) (engine.Visibility, error) {
	switch wire {
	case agentruntimev1.EventVisibility_EVENT_VISIBILITY_UNSPECIFIED:
		return fallback, nil
	case agentruntimev1.EventVisibility_EVENT_VISIBILITY_INTERNAL:
		return engine.Internal, nil
	case agentruntimev1.EventVisibility_EVENT_VISIBILITY_DEBUG:
		return engine.Debug, nil
	case agentruntimev1.EventVisibility_EVENT_VISIBILITY_USER:
		return engine.User, nil
	default:
		return "", violation.New(field, "%s is no visibility", wire)
	}
}

func visibilityToWire(v engine.Visibility) agentruntimev1.EventVisibility {
	switch v {
	case engine.Internal:
		return agentruntimev1.EventVisibility_EVENT_VISIBILITY_INTERNAL
	case engine.Debug:
		return agentruntimev1.EventVisibility_EVENT_VISIBILITY_DEBUG
	case engine.User:
		return agentruntimev1.EventVisibility_EVENT_VISIBILITY_USER
	default:
		return agentruntimev1.EventVisibility_EVENT_VISIBILITY_UNSPECIFIED
	}
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
		TraceId:     run.TraceID,
		TraceUrl:    run.TraceURL,
	}
	if run.Error != nil {
		wire.Error = &agentruntimev1.RunError{
			Reason: string(run.Error.Reason), Message: run.Error.Message, Retryable: run.Error.Retryable, Type: run.Error.Type,
		}
	}
	wire.NotBefore = timestamp(run.NotBefore)
	if run.Worker != nil {
		wire.Worker = run.Worker.Name
	}
	if w := run.Wait; w != nil && w.InterruptID != "" {
		wire.Interrupt = &agentruntimev1.Interrupt{InterruptId: w.InterruptID, Payload: w.Payload}
	} else if w != nil {
		wire.WaitingFor = w.Runs
	}
	if o := run.Options; o != nil {
		wire.Priority = int32(o.Priority)
		wire.ParentRunId, wire.RetryOf, wire.ScheduleId = o.ParentID, o.RetryOf, o.ScheduleID
		if o.Concurrency != nil {
			wire.ConcurrencyKey = o.Concurrency.Key
		}
	}
	return wire
}

// sendEvents sends events in as many messages as their size asks for. A message
// before the last carries the sequence of its own last event as its position.
func sendEvents(
	events []engine.Event, position uint64, send func(wire []*agentruntimev1.RunEvent, position uint64) error,
) error {
	for {
		n := frameLength(events, func(ev engine.Event) int { return len(ev.Payload) + len(ev.Type) })
		wire := make([]*agentruntimev1.RunEvent, 0, n)
		for _, ev := range events[:n] {
			wire = append(wire, runEventToWire(ev))
		}
		at := position
		if n < len(events) {
			at = events[n-1].Sequence
		}
		if err := send(wire, at); err != nil || n == len(events) {
			return err
		}
		events = events[n:]
	}
}

func runEventToWire(ev engine.Event) *agentruntimev1.RunEvent {
	wire := &agentruntimev1.RunEvent{
		RunId: ev.RunID, Sequence: ev.Sequence, Type: ev.Type, Visibility: visibilityToWire(ev.Visibility),
		Time: timestamp(ev.Time), Attempt: int32(ev.Attempt), Payload: ev.Payload,
	}
	if ev.Run != nil {
		wire.Run = runToWire(*ev.Run)
	}
	return wire
}

func targetFromWire(target agentruntimev1.RunTarget) (engine.Target, error) {
	switch target {
	case agentruntimev1.RunTarget_RUN_TARGET_UNSPECIFIED, agentruntimev1.RunTarget_RUN_TARGET_TASK:
		return engine.TaskTarget, nil
	case agentruntimev1.RunTarget_RUN_TARGET_AGENT:
		return engine.AgentTarget, nil
	case agentruntimev1.RunTarget_RUN_TARGET_WORKER:
		return engine.WorkerTarget, nil
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
	case engine.WorkerTarget:
		return agentruntimev1.RunTarget_RUN_TARGET_WORKER
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
