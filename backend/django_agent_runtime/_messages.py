"""From protobuf messages to the dataclasses that callers get."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, overload

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ._codec import decode, decode_object
from ._errors import output_of
from .grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from .grpc_client.agentruntime.v1 import event_service_pb2 as event_pb
from .grpc_client.agentruntime.v1 import state_service_pb2 as state_pb
from .grpc_client.agentruntime.v1 import workspace_service_pb2 as workspace_pb
from .types import (
    Agent,
    Concurrency,
    Event,
    EventVisibility,
    Interrupt,
    NewTask,
    RetryPolicy,
    Run,
    RunError,
    RunEvent,
    RunEventBatch,
    RunFile,
    RunState,
    RunTarget,
    Schedule,
    ServerInfo,
    StateChange,
    StateChangeKind,
    StateEntry,
    Strategy,
    StreamTicket,
    TaskType,
)

__all__ = [
    "RUN_STATE_NUMBERS",
    "RUN_TARGET_NUMBERS",
    "STRATEGY_NUMBERS",
    "VISIBILITY_NUMBERS",
    "to_agent",
    "to_change",
    "to_entry",
    "to_event",
    "to_output",
    "to_run",
    "to_run_event",
    "to_run_events",
    "to_run_file",
    "to_schedule",
    "to_server_info",
    "to_stream_ticket",
    "to_task_type",
]

RUN_STATE_NUMBERS: dict[RunState, agent_pb.RunState] = {
    RunState.QUEUED: agent_pb.RUN_STATE_QUEUED,
    RunState.RUNNING: agent_pb.RUN_STATE_RUNNING,
    RunState.WAITING: agent_pb.RUN_STATE_WAITING,
    RunState.SUCCEEDED: agent_pb.RUN_STATE_SUCCEEDED,
    RunState.FAILED: agent_pb.RUN_STATE_FAILED,
    RunState.CANCELLED: agent_pb.RUN_STATE_CANCELLED,
    RunState.TIMED_OUT: agent_pb.RUN_STATE_TIMED_OUT,
}
_RUN_STATES = {number: state for state, number in RUN_STATE_NUMBERS.items()}
RUN_TARGET_NUMBERS: dict[RunTarget, agent_pb.RunTarget] = {
    RunTarget.TASK: agent_pb.RUN_TARGET_TASK,
    RunTarget.AGENT: agent_pb.RUN_TARGET_AGENT,
    RunTarget.WORKER: agent_pb.RUN_TARGET_WORKER,
}
_RUN_TARGETS = {agent_pb.RUN_TARGET_UNSPECIFIED: RunTarget.TASK} | {
    number: target for target, number in RUN_TARGET_NUMBERS.items()
}
VISIBILITY_NUMBERS: dict[EventVisibility, agent_pb.EventVisibility] = {
    EventVisibility.INTERNAL: agent_pb.EVENT_VISIBILITY_INTERNAL,
    EventVisibility.DEBUG: agent_pb.EVENT_VISIBILITY_DEBUG,
    EventVisibility.USER: agent_pb.EVENT_VISIBILITY_USER,
}
_VISIBILITIES = {agent_pb.EVENT_VISIBILITY_UNSPECIFIED: EventVisibility.USER} | {
    number: visibility for visibility, number in VISIBILITY_NUMBERS.items()
}
STRATEGY_NUMBERS: dict[Strategy, agent_pb.ConcurrencyStrategy] = {
    "queue": agent_pb.CONCURRENCY_STRATEGY_QUEUE,
    "reject": agent_pb.CONCURRENCY_STRATEGY_REJECT,
    "cancel_running": agent_pb.CONCURRENCY_STRATEGY_CANCEL_RUNNING,
}
_STRATEGIES: dict[agent_pb.ConcurrencyStrategy, Strategy] = {agent_pb.CONCURRENCY_STRATEGY_UNSPECIFIED: "queue"}
_STRATEGIES |= {number: strategy for strategy, number in STRATEGY_NUMBERS.items()}
_CHANGE_KINDS = {
    state_pb.StateChange.KIND_SET: StateChangeKind.SET,
    state_pb.StateChange.KIND_DELETED: StateChangeKind.DELETED,
    state_pb.StateChange.KIND_EXPIRED: StateChangeKind.EXPIRED,
}
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def to_run(run: agent_pb.Run) -> Run:
    error = None
    if run.HasField("error"):
        error = RunError(run.error.reason, run.error.message, run.error.retryable, run.error.type)
    return Run(
        run_id=run.run_id,
        target=_RUN_TARGETS[run.target],
        task_type=run.task_type,
        agent_id=run.agent_id,
        description=run.description,
        state=_RUN_STATES[run.state],
        attempt=run.attempt,
        max_attempts=run.max_attempts,
        input=decode(run.input) if run.input else None,
        output=decode(run.output) if run.output else None,
        error=error,
        metadata=decode_object(run.metadata),
        create_time=_time_field(run, "create_time"),
        start_time=_time_field(run, "start_time"),
        end_time=_time_field(run, "end_time"),
        deadline=_time_field(run, "deadline"),
        sequence=run.sequence,
        priority=run.priority,
        not_before=_time_field(run, "not_before"),
        parent_run_id=run.parent_run_id,
        retry_of=run.retry_of,
        schedule_id=run.schedule_id,
        interrupt=_to_interrupt(run.interrupt) if run.HasField("interrupt") else None,
        waiting_for=tuple(run.waiting_for),
        concurrency_key=run.concurrency_key,
        worker=run.worker,
        trace_id=run.trace_id,
        trace_url=run.trace_url,
    )


def _to_interrupt(interrupt: agent_pb.Interrupt) -> Interrupt:
    return Interrupt(interrupt.interrupt_id, decode(interrupt.payload) if interrupt.payload else None)


def to_output(run: agent_pb.Run) -> dict[str, Any]:
    """The output of a run that was waited for, without the rest of it.

    Raises:
        RunFailed: As in `output_of`.
    """
    if run.state == agent_pb.RUN_STATE_SUCCEEDED:
        return decode_object(run.output) or {}
    return output_of(to_run(run))


def to_run_event(event: agent_pb.RunEvent) -> RunEvent:
    return RunEvent(
        run_id=event.run_id,
        sequence=event.sequence,
        type=event.type,
        visibility=_VISIBILITIES[event.visibility],
        time=_time(event.time),
        attempt=event.attempt,
        payload=decode_object(event.payload),
        run=to_run(event.run) if event.HasField("run") else None,
    )


def to_run_events(response: agent_pb.FollowRunsResponse) -> RunEventBatch:
    return RunEventBatch(_RunEvents(response.events), response.position, [event.run_id for event in response.events])


class _RunEvents(Sequence[RunEvent]):
    """Events of the wire, each decoded when it is looked at."""

    def __init__(self, events: Sequence[agent_pb.RunEvent]) -> None:
        self._events = events

    def __len__(self) -> int:
        return len(self._events)

    @overload
    def __getitem__(self, place: int) -> RunEvent: ...

    @overload
    def __getitem__(self, place: slice) -> _RunEvents: ...

    def __getitem__(self, place: int | slice) -> RunEvent | _RunEvents:
        if isinstance(place, slice):
            return _RunEvents(self._events[place])
        return to_run_event(self._events[place])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]  # as of any mutable sequence


def to_schedule(schedule: agent_pb.Schedule) -> Schedule:
    return Schedule(
        schedule_id=schedule.schedule_id,
        cron=schedule.cron,
        time_zone=schedule.time_zone,
        run=_to_task(schedule.run),
        paused=schedule.paused,
        create_time=_time_field(schedule, "create_time"),
        next_time=_time_field(schedule, "next_time"),
        last_time=_time_field(schedule, "last_time"),
        last_run_id=schedule.last_run_id,
        last_error=schedule.last_error,
    )


def to_stream_ticket(ticket: agent_pb.CreateStreamTicketResponse) -> StreamTicket:
    return StreamTicket(path=ticket.path, expire_time=_time(ticket.expire_time))


def _to_task(request: agent_pb.CreateRunRequest) -> NewTask:
    """What a schedule creates, as its creator gave it."""
    visibility = {name: _VISIBILITIES[number] for name, number in request.event_visibility.items()}
    return NewTask(
        task_type=request.task_type,
        input_data=decode_object(request.input),
        agent_id=request.agent_id,
        description=request.description,
        metadata=decode_object(request.metadata),
        deadline=_seconds_field(request, "deadline"),
        run_timeout=_seconds_field(request, "run_timeout"),
        target=_RUN_TARGETS[request.target],
        priority=request.priority,
        concurrency=_to_concurrency(request.concurrency) if request.HasField("concurrency") else None,
        queue_timeout=_seconds_field(request, "queue_timeout"),
        step_timeout=_seconds_field(request, "step_timeout"),
        retry=_to_retry_policy(request.retry) if request.HasField("retry") else None,
        event_visibility=visibility or None,
    )


def _to_concurrency(concurrency: agent_pb.Concurrency) -> Concurrency:
    return Concurrency(concurrency.key, concurrency.limit or 1, _STRATEGIES[concurrency.strategy])


def _to_retry_policy(policy: agent_pb.RetryPolicy) -> RetryPolicy:
    return RetryPolicy(
        max_attempts=policy.max_attempts or None,
        initial_backoff=_seconds_field(policy, "initial_backoff"),
        max_backoff=_seconds_field(policy, "max_backoff"),
        multiplier=policy.multiplier or None,
    )


def to_task_type(task_type: agent_pb.TaskType) -> TaskType:
    return TaskType(
        task_type=task_type.task_type,
        description=task_type.description,
        input_schema=decode_object(task_type.input_schema),
    )


def to_agent(agent: agent_pb.Agent) -> Agent:
    return Agent(
        agent_id=agent.agent_id,
        description=agent.description,
        task_types=tuple(to_task_type(item) for item in agent.task_types),
        model=agent.model,
        by_worker=agent.by_worker,
        workers=agent.workers,
    )


def to_server_info(info: agent_pb.GetServerInfoResponse) -> ServerInfo:
    return ServerInfo(
        version=info.version,
        namespace=info.namespace,
        durability=info.durability,
        start_time=_time_field(info, "start_time"),
        max_value_bytes=info.max_value_bytes,
        max_message_bytes=info.max_message_bytes,
        warnings=tuple(info.warnings),
    )


def to_entry(entry: state_pb.StateEntry) -> StateEntry:
    return StateEntry(
        key=entry.key,
        value=decode(entry.value) if entry.value else None,
        revision=entry.revision,
        update_time=_time_field(entry, "update_time"),
        expire_time=_time_field(entry, "expire_time"),
    )


def to_change(change: state_pb.StateChange) -> StateChange:
    entry = change.entry
    return StateChange(
        kind=_CHANGE_KINDS[change.kind],
        key=entry.key,
        value=decode(entry.value) if entry.value else None,
        revision=entry.revision,
        update_time=_time_field(entry, "update_time"),
        expire_time=_time_field(entry, "expire_time"),
    )


def to_event(event: event_pb.Event) -> Event:
    return Event(
        type=event.type,
        data=decode(event.data),
        source=event.source,
        metadata=decode_object(event.metadata),
        event_id=event.event_id,
        sequence=event.sequence,
        time=_time(event.publish_time),
    )


def _time(stamp: Timestamp) -> datetime:
    # Several times faster than Timestamp.ToDatetime, and once per event.
    return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)


def _time_field(message: Message, name: str) -> datetime | None:
    return _time(getattr(message, name)) if message.HasField(name) else None


def _seconds_field(message: Message, name: str) -> float | None:
    if not message.HasField(name):
        return None
    seconds: float = getattr(message, name).ToNanoseconds() / 1e9
    return seconds


def to_run_file(file: workspace_pb.RunFile) -> RunFile:
    """A file that a run left."""
    return RunFile(path=file.path, size=file.size, sha256=file.sha256, executable=file.executable)
