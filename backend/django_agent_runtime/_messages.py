"""From protobuf messages to the dataclasses that callers get."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ._codec import decode, decode_object
from ._errors import output_of
from .grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from .grpc_client.agentruntime.v1 import event_service_pb2 as event_pb
from .grpc_client.agentruntime.v1 import state_service_pb2 as state_pb
from .types import (
    Agent,
    Event,
    Run,
    RunError,
    RunState,
    RunTarget,
    ServerInfo,
    StateChange,
    StateChangeKind,
    StateEntry,
    TaskType,
)

__all__ = [
    "RUN_STATE_NUMBERS",
    "to_agent",
    "to_change",
    "to_entry",
    "to_event",
    "to_output",
    "to_run",
    "to_server_info",
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
_CHANGE_KINDS = {
    state_pb.StateChange.KIND_SET: StateChangeKind.SET,
    state_pb.StateChange.KIND_DELETED: StateChangeKind.DELETED,
    state_pb.StateChange.KIND_EXPIRED: StateChangeKind.EXPIRED,
}
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def to_run(run: agent_pb.Run) -> Run:
    error = None
    if run.HasField("error"):
        error = RunError(reason=run.error.reason, message=run.error.message, retryable=run.error.retryable)
    return Run(
        run_id=run.run_id,
        target=RunTarget.AGENT if run.target == agent_pb.RUN_TARGET_AGENT else RunTarget.TASK,
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
    )


def to_output(run: agent_pb.Run) -> dict[str, Any]:
    """The output of a run that was waited for, without the rest of it.

    Raises:
        RunFailed: As in `output_of`.
    """
    if run.state == agent_pb.RUN_STATE_SUCCEEDED:
        return decode_object(run.output) or {}
    return output_of(to_run(run))


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
