"""What the client hands out: frozen dataclasses, never protobuf messages. Times are aware datetimes in UTC."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

__all__ = [
    "Agent",
    "ConnectionState",
    "DeleteOperation",
    "Event",
    "EventGap",
    "NewEvent",
    "NewTask",
    "OperationResult",
    "PublishedEvent",
    "Run",
    "RunError",
    "RunState",
    "RunTarget",
    "ServerInfo",
    "SetOperation",
    "StateChange",
    "StateChangeKind",
    "StateEntry",
    "TaskType",
]


class RunState(str, enum.Enum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def ended(self) -> bool:
        """Whether nothing can happen to the run any more."""
        return self in _ENDED

    def __str__(self) -> str:
        return self.value


_ENDED = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.TIMED_OUT})


class RunTarget(str, enum.Enum):
    """What executes a run: the task type itself, or a registered agent."""

    TASK = "task"
    AGENT = "agent"

    def __str__(self) -> str:
        return self.value


class StateChangeKind(str, enum.Enum):
    """What happened to a key."""

    SET = "set"
    DELETED = "deleted"
    EXPIRED = "expired"

    def __str__(self) -> str:
        return self.value


class ConnectionState(str, enum.Enum):
    """How a client stands to the runtime.

    `closed`: nothing is open in this process; the next call opens it. `connected`: the runtime answered last.
    `reconnecting`: the last attempt did not reach it, and calls or subscriptions are trying again.
    """

    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class RunError:
    """Why a run ended in another way than success."""

    reason: str
    """Name of the runtime's ErrorReason, such as `AGENT_FAILED`."""
    message: str
    """One sentence for a person."""
    retryable: bool
    """Whether another attempt could succeed."""


@dataclass(frozen=True, slots=True)
class Run:
    """One task given to the runtime."""

    run_id: str
    target: RunTarget
    task_type: str
    agent_id: str
    """The agent that executes it, or with `RunTarget.TASK` the caller's label."""
    description: str
    state: RunState
    attempt: int
    """1 for the first attempt; 0 while none has begun."""
    max_attempts: int
    input: dict[str, Any] | None
    """None where there are many runs, which leave it out: of `list_runs`, `submit_tasks` and `wait_runs`."""
    output: dict[str, Any] | None
    """Set when the run succeeded; None in lists and of `submit_tasks`, which leave it out."""
    error: RunError | None
    metadata: dict[str, Any]
    create_time: datetime | None
    start_time: datetime | None
    """When the latest attempt began."""
    end_time: datetime | None
    deadline: datetime | None
    """When the run is cancelled if it has not ended by then; None: never."""
    sequence: int
    """Rises with every change of the run."""


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task to hand over; the fields are the arguments of `submit_task`."""

    task_type: str
    input_data: Mapping[str, Any] | None = None
    agent_id: str | None = None
    description: str = ""
    metadata: Mapping[str, Any] | None = None
    deadline: float | None = None
    run_timeout: float | None = None
    idempotency_key: str | None = None
    run_id: str | None = None
    target: RunTarget = RunTarget.TASK
    """`RunTarget.AGENT`: for the registered agent `agent_id`, as in `submit_agent_task`."""


@dataclass(frozen=True, slots=True)
class TaskType:
    """A kind of task with the input it takes."""

    task_type: str
    description: str
    input_schema: dict[str, Any]
    """JSON Schema (draft 2020-12); empty if the runtime gave none."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Something that can be given tasks."""

    agent_id: str
    description: str
    task_types: tuple[TaskType, ...]
    model: str
    """The model that answers; `offline` when none is configured."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Which runtime this is and what its limits are."""

    version: str
    namespace: str
    durability: str
    """`fsync`, `os` or `quorum`: when a change counts as kept."""
    start_time: datetime | None
    max_value_bytes: int
    max_message_bytes: int
    warnings: tuple[str, ...]
    """Empty when all is well; else what an operator must look at, a sentence each."""


@dataclass(frozen=True, slots=True)
class StateEntry:
    """One key of the shared state."""

    key: str
    value: Any
    """The JSON value; None in lists of keys only."""
    revision: int
    update_time: datetime | None
    expire_time: datetime | None
    """None: the key does not expire."""


@dataclass(frozen=True, slots=True)
class StateChange:
    """One change of one key."""

    kind: StateChangeKind
    key: str
    value: Any
    """The new value; None unless the kind is `set`."""
    revision: int
    update_time: datetime | None
    expire_time: datetime | None


@dataclass(frozen=True, slots=True)
class SetOperation:
    """A step of a transaction: set a key."""

    key: str
    value: Any
    ttl: float | None = None
    """Whole seconds after which the key is removed; None: kept."""
    expected_revision: int | None = None
    """Guards the whole transaction; 0: the key must not exist."""


@dataclass(frozen=True, slots=True)
class DeleteOperation:
    """A step of a transaction: delete a key; one that does not exist is no error."""

    key: str
    expected_revision: int | None = None
    """Guards the whole transaction."""


@dataclass(frozen=True, slots=True)
class OperationResult:
    """What one step of a transaction did."""

    revision: int
    """The new revision of a key that was set; 0 for one that was deleted."""
    existed: bool
    """Whether the key existed before."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to publish."""

    event_type: str
    data: Any
    source: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PublishedEvent:
    """What a published event became."""

    event_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, as a subscriber gets it."""

    type: str
    data: Any
    source: str
    metadata: dict[str, Any]
    event_id: str
    sequence: int
    """Rises over all events of the runtime; pass it as `after_sequence` to resume."""
    time: datetime
    """When the runtime kept it."""

    def __str__(self) -> str:
        origin = f" from {self.source}" if self.source else ""
        return f"{self.type} #{self.sequence}{origin}: {self.data!r}"


@dataclass(frozen=True, slots=True)
class EventGap:
    """Events that a subscription can no longer get: sequences `first` to `last`, both included."""

    subscription_id: str
    first: int
    last: int
