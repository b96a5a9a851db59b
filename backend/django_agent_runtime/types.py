"""What the client hands out: frozen dataclasses, never protobuf messages. Times are aware datetimes in UTC."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

__all__ = [
    "TASK_TYPE",
    "Agent",
    "AgentDefinition",
    "Concurrency",
    "ConnectionState",
    "Definition",
    "DeleteOperation",
    "DocumentProblem",
    "DocumentProblems",
    "Event",
    "EventGap",
    "EventVisibility",
    "GraphDefinition",
    "GraphInterrupt",
    "Interrupt",
    "MessageChunk",
    "NewEvent",
    "NewTask",
    "OperationResult",
    "PublishedEvent",
    "RetryPolicy",
    "Run",
    "RunError",
    "RunEvent",
    "RunEventBatch",
    "RunFile",
    "RunState",
    "RunTarget",
    "Schedule",
    "ServerInfo",
    "SetOperation",
    "StateChange",
    "StateChangeKind",
    "StateEntry",
    "Strategy",
    "StreamMode",
    "StreamTicket",
    "TaskType",
    "Thread",
    "ThreadInterrupt",
    "ThreadSource",
    "ThreadState",
    "ThreadStatus",
]

TASK_TYPE = "agent.run"
"""What every agent does, whatever other task types it has: take messages and answer them."""


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
    """What executes a run.

    `task`: the task type itself. `agent`: a registered agent, of the runtime's own or of a worker that it has seen.
    `worker`: the agent of a worker, whether or not one was seen that serves it; the run waits for it.
    """

    TASK = "task"
    AGENT = "agent"
    WORKER = "worker"

    def __str__(self) -> str:
        return self.value


class EventVisibility(str, enum.Enum):
    """Who gets to see an event of a run, from the fewest to all."""

    INTERNAL = "internal"
    """Never shown in a user interface."""
    DEBUG = "debug"
    """Shown in debug mode."""
    USER = "user"
    """Shown always."""

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
    type: str = ""
    """The agent's own name for the failure, such as the exception's class, or empty."""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """A question at which a run is parked until `resume_run` answers it."""

    interrupt_id: str
    payload: Any
    """What the run asks, any JSON value; None where there are many runs, which leave it out."""


Strategy = Literal["queue", "reject", "cancel_running"]


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many runs with the same key may be under way at a time.

    A run holds its key from when it may begin until it ends or waits for an answer, also between two attempts.
    """

    key: str
    """1 to 255 bytes of UTF-8."""
    limit: int = 1
    """The newest run's limit is the one that holds."""
    strategy: Strategy = "queue"
    """What becomes of a run whose key is taken: it waits, is refused with `ConcurrencyLimit`, or has the runs that
    hold the key or wait for it cancelled."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a run is begun, and how long it waits between attempts. None: the runtime's default.

    The wait is `initial_backoff`, times `multiplier` for each further one, at most `max_backoff`; of that a random
    part between a half and all.
    """

    max_attempts: int | None = None
    """In all, 1 to 100."""
    initial_backoff: float | None = None
    """Seconds; 0: none."""
    max_backoff: float | None = None
    """Seconds; 0: none."""
    multiplier: float | None = None
    """At least 1."""


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
    """Why the run ended in another way than success or, while it waits for its next attempt, why the latest failed."""
    metadata: dict[str, Any]
    create_time: datetime | None
    start_time: datetime | None
    """When the latest attempt began."""
    end_time: datetime | None
    deadline: datetime | None
    """When the run is cancelled if it has not ended by then; None: never."""
    sequence: int
    """Rises with every change of the run."""
    priority: int = 0
    """Runs with a higher one begin before others of the namespace."""
    not_before: datetime | None = None
    """A queued run does not begin before; None: it may begin."""
    parent_run_id: str = ""
    """The run that created this one, or empty."""
    retry_of: str = ""
    """The run that this one does again, or empty."""
    schedule_id: str = ""
    """The schedule that created it, or empty."""
    interrupt: Interrupt | None = None
    """What a waiting run asks; None when it waits for sub-runs."""
    waiting_for: tuple[str, ...] = ()
    """The sub-runs that a waiting run waits for."""
    concurrency_key: str = ""
    worker: str = ""
    """The worker that executes it, as it calls itself; empty when none does."""
    trace_id: str = ""
    """The id of its OpenTelemetry trace, 32 hexadecimal digits; empty when it is in none that is sampled."""
    trace_url: str = ""
    """Where that trace is shown, if the runtime was told (`--trace-url`); else empty."""


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
    target: RunTarget | str = RunTarget.TASK
    """`RunTarget.AGENT`: for the registered agent `agent_id`, as in `submit_agent_task`."""
    priority: int = 0
    delay: float | None = None
    run_at: datetime | None = None
    concurrency: Concurrency | Mapping[str, Any] | None = None
    queue_timeout: float | None = None
    step_timeout: float | None = None
    retry: RetryPolicy | Mapping[str, Any] | None = None
    event_visibility: Mapping[str, EventVisibility | str] | None = None


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that happened in a run.

    The runtime's own types are `run.queued`, `run.started`, `run.retrying`, `run.interrupted`, `run.resumed`,
    `run.waiting` (for sub-runs) and the ends `run.succeeded`, `run.failed`, `run.cancelled` and `run.timed_out`.
    All others are the agent's.
    """

    run_id: str
    sequence: int
    """Rises with every event, and skips numbers; pass it as `after_sequence` to resume."""
    type: str
    visibility: EventVisibility
    time: datetime
    attempt: int
    """The attempt it belongs to; 0 before the first."""
    payload: dict[str, Any]
    run: Run | None = None
    """The run as it was from then on, without input and output: of the runtime's own types, in `follow_runs` only."""

    @property
    def ends_run(self) -> bool:
        """Whether it is the last event of its run."""
        return self.type in ENDS


# The types of the events that are the last of their run.
ENDS = frozenset(f"run.{state}" for state in _ENDED)


@dataclass(frozen=True, slots=True)
class RunEventBatch:
    """Events of many runs, in order."""

    events: Sequence[RunEvent]
    """Empty where there was nothing but events that were left out. Each is decoded when it is looked at."""
    position: int
    """Everything up to it was handed out: pass it as `after_sequence` to go on behind this batch."""
    run_ids: Sequence[str]
    """Whose each event is, in the same order: who looks here first decodes only the events of its own runs."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Something that creates a run at each time of a cron expression."""

    schedule_id: str
    cron: str
    time_zone: str
    """An IANA name such as `Europe/Berlin`; empty: UTC."""
    run: NewTask
    """What each run is."""
    paused: bool
    create_time: datetime | None
    next_time: datetime | None
    """When the next run is created; None while paused."""
    last_time: datetime | None
    """When the latest run was created by a time of the schedule; None: none."""
    last_run_id: str
    last_error: str
    """Why the latest time made no run; empty when it did."""


@dataclass(frozen=True, slots=True)
class StreamTicket:
    """A signed address at which anybody who has it can read the events of one run."""

    path: str
    """Path and query, to be put behind the public address of the runtime's HTTP port."""
    expire_time: datetime


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
    """The model that answers; `offline` when none is configured, empty where the runtime does not know."""
    by_worker: bool = False
    """Whether workers execute it; it has no task types then."""
    workers: int = 0
    """How many workers serve it at present."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A version of a document that describes a graph or an agent."""

    name: str
    version: str
    """Made of the document: the first 16 hex digits of its SHA-256."""
    number: int
    """Counts the versions of the name from 1, in the order in which they came."""
    current: bool
    """Whether new runs use it."""
    description: str
    """What the document says of itself."""
    create_time: datetime | None
    """When the version was first registered."""
    built_in: bool
    """Whether it is the runtime's own, and so can be neither replaced nor deleted."""
    document: str = ""
    """The document, YAML or JSON, as it came; empty in lists."""
    created: bool = False
    """Of a registration: whether it made the version."""
    warnings: tuple[DocumentProblem, ...] = ()
    """Of a registration: the graphs and agents that the document names and that there are not yet."""


@dataclass(frozen=True, slots=True)
class GraphDefinition(Definition):
    """A version of a graph."""


@dataclass(frozen=True, slots=True)
class AgentDefinition(Definition):
    """A version of an agent that is data."""


@dataclass(frozen=True, slots=True)
class DocumentProblem:
    """A mistake in a document, or what may be one."""

    place: str
    """Where it is, such as `nodes.plan.with.prompt`; `graph` or `agent` where the document cannot be read."""
    description: str
    """What is wrong there: it completes the sentence that the place begins."""

    def __str__(self) -> str:
        return f"{self.place}: {self.description}"


class DocumentProblems(list[DocumentProblem]):
    """The mistakes of a document; none: it can be registered."""

    def __init__(self, mistakes: Iterable[DocumentProblem] = (), warnings: Iterable[DocumentProblem] = ()) -> None:
        """Have the mistakes as members."""
        super().__init__(mistakes)
        self.warnings = tuple(warnings)
        """The graphs and agents that it names and that there are not yet; none where there are mistakes."""


StreamMode = Literal["values", "updates", "messages", "custom", "debug"]
"""What `stream_graph` yields, by LangGraph's names."""


@dataclass(frozen=True, slots=True)
class GraphInterrupt:
    """A question that `stream_graph` yields: `resume_run(run_id, answer, interrupt_id=interrupt_id)` answers it."""

    interrupt_id: str
    node: str
    """The node; of a subgraph, `node/node`."""
    value: Any
    """What is asked, any JSON value."""
    run_id: str
    """The run that asks: that of the graph, or one that a node of it has work for it."""


@dataclass(frozen=True, slots=True)
class MessageChunk:
    """A piece of the text that a model is writing."""

    content: str


class ThreadStatus(str, enum.Enum):
    """How a thread of a graph stands."""

    RUNNING = "running"
    """It has something to do, be a turn under way or not."""
    WAITING = "waiting"
    """Questions are open, or runs are waited for."""
    DONE = "done"
    FAILED = "failed"
    """A node failed; a turn without values calls it again."""

    def __str__(self) -> str:
        return self.value


class ThreadSource(str, enum.Enum):
    """What a checkpoint of a thread was saved for.

    `input`: a turn began with values. `resume`: a turn goes on with what was left. `step`: a step is done, waits or
    failed. `update` and `fork`: `update_thread_state` and `fork_thread`.
    """

    INPUT = "input"
    RESUME = "resume"
    STEP = "step"
    UPDATE = "update"
    FORK = "fork"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class ThreadInterrupt:
    """What a node of a thread waits for: an answer, or the end of another run."""

    interrupt_id: str
    node: str
    """The node; of a subgraph, `node/node`."""
    value: Any
    """What is asked, any JSON value."""
    run_id: str
    """The run that is waited for; empty for a question."""


@dataclass(frozen=True, slots=True)
class ThreadState:
    """How a thread of a graph stands, or stood: a checkpoint."""

    thread_id: str
    graph_id: str
    revision: int
    """Numbers the checkpoints of the thread from 1."""
    parent: int
    """Of a fork: the revision that it was made of. Else 0."""
    status: ThreadStatus
    source: ThreadSource
    step: int
    """Numbers the steps of the thread; it only ever rises."""
    time: datetime | None
    values: dict[str, Any]
    """What the channels have."""
    next: tuple[str, ...]
    """The nodes of the step to be done."""
    interrupts: tuple[ThreadInterrupt, ...]
    """What of them waits."""
    error: str
    """Why the thread failed; else empty."""


@dataclass(frozen=True, slots=True)
class Thread:
    """How a thread of a graph stands, without its values."""

    thread_id: str
    graph_id: str
    revision: int
    """That of its latest checkpoint."""
    status: ThreadStatus
    update_time: datetime | None
    """When it last changed."""
    error: str
    """Why it failed; else empty."""


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
class RunFile:
    """A file that a run left in its workspace."""

    path: str
    """Relative, with slashes: `src/main.py`."""
    size: int
    """In bytes."""
    sha256: str
    """Of the content, in hex."""
    executable: bool = False


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
