"""What the client sends, made from what callers pass; the same for threads and asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration

from . import _messages
from ._arguments import (
    check_concurrency,
    check_event,
    check_items,
    check_priority,
    check_retry,
    check_seconds,
    check_target,
    check_task,
    check_time,
    check_visibilities,
    check_visibility,
    duration,
    patience,
)
from ._channel import new_request_id
from ._codec import check_event_pattern, check_event_type, check_text, encode, encode_object
from .exceptions import InvalidRequest, InvalidValue
from .grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from .grpc_client.agentruntime.v1 import event_service_pb2 as event_pb
from .types import Concurrency, EventVisibility, NewEvent, NewTask, PublishedEvent, RetryPolicy, Run

__all__ = [
    "BATCH_ITEMS",
    "add_published",
    "add_runs",
    "batch_requests",
    "check_event_types",
    "check_one_start",
    "create_request",
    "named_as_asked",
    "publish_requests",
    "schedule_run",
    "visibility_number",
]

# The most events, tasks or runs of one call; a longer batch takes several.
BATCH_ITEMS = 1000
_BATCH_BYTES = 8 << 20


def create_request(
    task: NewTask,
    *,
    wait: bool = False,
    agent_name: str = "agent_id",
    input_name: str = "input_data",
) -> agent_pb.CreateRunRequest:
    """The request that hands over `task`, with a name of its own. The names are those its caller knows its fields by.

    Raises:
        InvalidValue: A field cannot be sent.
    """
    request = schedule_run(task, agent_name=agent_name, input_name=input_name)
    request.run_id = check_text("run_id", task.run_id or "")
    request.idempotency_key = check_text("idempotency_key", task.idempotency_key or "")
    request.request_id = new_request_id()
    request.wait = wait
    delay, run_at = check_seconds("delay", task.delay), check_time("run_at", task.run_at)
    if delay and run_at:
        raise InvalidValue("delay and run_at contradict each other")
    if delay:
        request.delay.CopyFrom(patience(delay))
    if run_at:
        request.run_at.FromDatetime(run_at)
    return request


def schedule_run(
    task: NewTask, *, agent_name: str = "agent_id", input_name: str = "input_data"
) -> agent_pb.CreateRunRequest:
    """What each run of a schedule is: a request without what makes it this one run.

    Raises:
        InvalidValue: A field cannot be sent.
    """
    visibilities = check_visibilities("event_visibility", task.event_visibility)
    return agent_pb.CreateRunRequest(
        target=_messages.RUN_TARGET_NUMBERS[check_target("target", task.target)],
        agent_id=check_text(agent_name, task.agent_id or ""),
        task_type=check_text("task_type", task.task_type),
        description=check_text("description", task.description),
        input=encode_object(task.input_data, input_name),
        metadata=encode_object(task.metadata, "metadata"),
        deadline=duration("deadline", task.deadline),
        run_timeout=duration("run_timeout", task.run_timeout),
        priority=check_priority("priority", task.priority),
        concurrency=None if task.concurrency is None else _concurrency(task.concurrency),
        queue_timeout=duration("queue_timeout", task.queue_timeout),
        step_timeout=duration("step_timeout", task.step_timeout),
        retry=None if task.retry is None else _retry_policy(task.retry),
        event_visibility={name: _messages.VISIBILITY_NUMBERS[value] for name, value in visibilities.items()},
    )


def _concurrency(given: Concurrency | Mapping[str, Any]) -> agent_pb.Concurrency:
    concurrency = check_concurrency("concurrency", given)
    return agent_pb.Concurrency(
        key=concurrency.key,
        limit=concurrency.limit,
        strategy=_messages.STRATEGY_NUMBERS[concurrency.strategy],
    )


def _retry_policy(given: RetryPolicy | Mapping[str, Any]) -> agent_pb.RetryPolicy:
    policy = check_retry("retry", given)
    return agent_pb.RetryPolicy(
        max_attempts=policy.max_attempts,
        initial_backoff=_pause(policy.initial_backoff),
        max_backoff=_pause(policy.max_backoff),
        multiplier=policy.multiplier,
    )


def _pause(seconds: float | None) -> Duration | None:
    # Not 0, which the runtime takes for its default.
    return None if seconds is None else patience(max(seconds, 1e-6))


def visibility_number(name: str, visibility: EventVisibility | str | None) -> agent_pb.EventVisibility | None:
    """`visibility` for the wire; None: what stands for none.

    Raises:
        InvalidValue: It is none.
    """
    return None if visibility is None else _messages.VISIBILITY_NUMBERS[check_visibility(name, visibility)]


def batch_requests(
    tasks: Iterable[NewTask | Mapping[str, Any]],
) -> Iterator[tuple[agent_pb.BatchCreateRunsRequest, bool]]:
    """The requests that hand over `tasks`, each with whether another one follows."""
    batch, size = agent_pb.BatchCreateRunsRequest(), 0
    for index, item in enumerate(check_items("tasks", tasks)):
        task = check_task(f"tasks[{index}]", item)
        try:
            request = create_request(task)
        except InvalidValue as error:
            raise error.within(f"tasks[{index}]") from error
        added = len(request.input) + len(request.metadata)
        size += added
        if len(batch.requests) == BATCH_ITEMS or (batch.requests and size > _BATCH_BYTES):
            yield batch, True
            batch, size = agent_pb.BatchCreateRunsRequest(), added
        batch.requests.append(request)
    if batch.requests:
        yield batch, False


def add_runs(runs: list[Run], response: agent_pb.BatchCreateRunsResponse) -> None:
    runs.extend(_messages.to_run(item.run) for item in response.responses)


def check_event_types(event_type: str | Sequence[str]) -> tuple[str, ...]:
    types = (event_type,) if isinstance(event_type, str) else tuple(check_items("event_type", event_type))
    if not types:
        raise InvalidValue("event_type must be a non-empty string, or a non-empty sequence of such")
    return tuple(check_event_pattern(item) for item in types)


def check_one_start(name: str, sequence: int | None, from_beginning: bool) -> None:
    if from_beginning and sequence is not None:
        raise InvalidValue(f"{name} and from_beginning contradict each other")


def named_as_asked(error: InvalidRequest, from_sequence: int | None) -> InvalidRequest:
    """What the runtime says of `after_sequence`, said of the `from_sequence` that was asked for."""
    if from_sequence is None or error.metadata.get("field") != "after_sequence":
        return error
    return InvalidRequest.of("from_sequence", f"is {from_sequence}, beyond the next event there will be")


def add_published(published: list[PublishedEvent], response: event_pb.PublishEventsResponse) -> None:
    published.extend(PublishedEvent(item.event_id, item.sequence) for item in response.events)


def publish_requests(
    events: Iterable[NewEvent | Mapping[str, Any]],
) -> Iterator[tuple[event_pb.PublishEventsRequest, bool]]:
    """The requests that publish `events`, each with whether another one follows."""
    request, size = event_pb.PublishEventsRequest(request_id=new_request_id()), 0
    for index, item in enumerate(check_items("events", events)):
        event = check_event(f"events[{index}]", item)
        event_type = check_event_type(event.event_type)
        data = encode(event.data, "data")
        metadata = encode_object(event.metadata, "metadata")
        size += len(data) + len(metadata)
        if len(request.events) == BATCH_ITEMS or (request.events and size > _BATCH_BYTES):
            yield request, True
            request = event_pb.PublishEventsRequest(request_id=new_request_id())
            size = len(data) + len(metadata)
        request.events.add(
            type=event_type, data=data, source=check_text("source", event.source or ""), metadata=metadata
        )
    if request.events:
        yield request, False
