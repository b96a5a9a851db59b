"""Everything this package raises about the runtime.

Every class is also one of the built-ins that people already catch::

    AgentRuntimeError
    ├── RuntimeUnavailable    ConnectionError   cannot be reached, or is draining
    │   └── ClientClosed                        this client was disconnected, or belongs to another process
    ├── Overloaded            ConnectionError   refused for now; `retry_after` says when to call again
    │   ├── RateLimited                         the token's rate limit
    │   ├── QueueFull                           the queue of runs is full
    │   ├── StorageFull                         no room for new writes
    │   ├── DefinitionsFull                     the namespace has as many graphs and agents as it may
    │   └── ConcurrencyLimit                    the run's concurrency key is taken
    ├── CallTimedOut          TimeoutError      no answer within the call's timeout
    ├── NotFound              LookupError
    │   ├── RunNotFound
    │   ├── AgentNotFound
    │   ├── TaskTypeNotFound
    │   ├── GraphNotFound
    │   ├── RunFileNotFound
    │   ├── ThreadNotFound
    │   └── ScheduleNotFound
    ├── EventsTruncated       LookupError       events asked for are no longer kept
    ├── FilesDamaged          LookupError       files of a run were lost with a damaged disk
    ├── AccessDenied          PermissionError
    │   ├── Unauthenticated                     no token, or one that is not known
    │   └── PermissionDenied                    the token may not do this in this namespace
    ├── InvalidRequest        ValueError        a field of the request does not fit
    │   ├── InvalidValue                        found before sending: not JSON, or beyond a limit
    │   └── TooLarge                            above the runtime's size limit
    ├── Conflict              ValueError
    │   ├── RevisionMismatch                    the key is at another revision
    │   ├── KeyExists                           create-only, and the key exists
    │   ├── IdempotencyConflict                 the same id was used with another payload
    │   ├── RunEnded                            the run has already ended otherwise
    │   ├── RunNotWaiting                       the run waits for no such answer
    │   ├── RunNotEnded                         the run has not ended in a way to be done again
    │   ├── ThreadBusy                          the thread was changed meanwhile, or is there already
    │   ├── ScheduleExists                      there is a schedule with the id
    │   └── LeaseLost                           the worker no longer has the run
    ├── InternalError                           unforeseen; the cause is in the runtime's log
    └── RunFailed                               a run ended badly; carries it as `run`
        ├── RunTimedOut       TimeoutError      its deadline or run timeout passed
        └── RunCancelled                        it was cancelled on request
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from typing_extensions import Self

    from .types import PublishedEvent, Run

__all__ = [
    "AccessDenied",
    "AgentNotFound",
    "AgentRuntimeError",
    "CallTimedOut",
    "ClientClosed",
    "ConcurrencyLimit",
    "Conflict",
    "DefinitionsFull",
    "EventsTruncated",
    "FilesDamaged",
    "GraphNotFound",
    "IdempotencyConflict",
    "InternalError",
    "InvalidRequest",
    "InvalidValue",
    "KeyExists",
    "LeaseLost",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "QueueFull",
    "RateLimited",
    "RevisionMismatch",
    "RunCancelled",
    "RunEnded",
    "RunFailed",
    "RunFileNotFound",
    "RunNotEnded",
    "RunNotFound",
    "RunNotWaiting",
    "RunTimedOut",
    "RuntimeUnavailable",
    "ScheduleExists",
    "ScheduleNotFound",
    "StorageFull",
    "TaskTypeNotFound",
    "ThreadBusy",
    "ThreadNotFound",
    "TooLarge",
    "Unauthenticated",
]


class AgentRuntimeError(Exception):
    """Base of every error about the runtime.

    Attributes:
        reason: Name of the runtime's ErrorReason (`RUN_NOT_FOUND`), for programs to switch on. What the runtime gave
            none for, and what this client finds by itself, has that of its class (`default_reason`); where
            `error.proto` has no name for a class, gRPC's own name of the status.
        metadata: What the runtime says about this reason, such as `run_id`.
        request_id: Names the call in the runtime's log; empty for errors found before sending.
        retry_after: Seconds after which the runtime suggests to call again, or None.
        published: Of `publish_events` alone: the first of its events, which were published nevertheless.
        runs: Of `submit_tasks`: the runs of the first of its tasks, which were accepted nevertheless. Of a
            `wait_runs` that timed out: all runs as they are, in order.
    """

    default_reason: ClassVar[str] = "INTERNAL"
    """What `reason` is when nobody gave one."""

    published: tuple[PublishedEvent, ...] = ()
    runs: tuple[Run, ...] = ()

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})
        self.request_id = request_id
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call the class with its message alone, and lose or miss the keywords of subclasses.
        return _restore, (type(self), self.args, self.__dict__.copy())


def _restore(cls: type[AgentRuntimeError], args: tuple[Any, ...], attributes: dict[str, Any]) -> AgentRuntimeError:
    error = cls.__new__(cls, *args)
    Exception.__init__(error, *args)
    error.__dict__.update(attributes)
    return error


class RuntimeUnavailable(AgentRuntimeError, ConnectionError):
    """The runtime cannot be reached, or is draining."""

    default_reason = "UNAVAILABLE"


class ClientClosed(RuntimeUnavailable):
    """The client was disconnected while this was going on, or it is a stream of another process."""


class Overloaded(AgentRuntimeError, ConnectionError):
    """The runtime refuses this for now; `retry_after` says when to call again."""

    default_reason = "RESOURCE_EXHAUSTED"


class RateLimited(Overloaded):
    """The token's rate limit is used up."""

    default_reason = "RATE_LIMITED"


class QueueFull(Overloaded):
    """The queue of runs is full."""

    default_reason = "QUEUE_FULL"


class StorageFull(Overloaded):
    """The disk, or the store's own limit, has no room for new writes; reads and deletions go on."""

    default_reason = "STORAGE_FULL"


class DefinitionsFull(Overloaded):
    """The namespace has as many graphs and agents as it may: `metadata["limit"]`. Delete some."""

    default_reason = "DEFINITIONS_FULL"


class ConcurrencyLimit(Overloaded):
    """The run's concurrency key is taken, and its strategy is `reject`: `metadata["concurrency_key"]`."""

    default_reason = "CONCURRENCY_LIMIT"


class CallTimedOut(AgentRuntimeError, TimeoutError):
    """No answer came within the call's timeout. A change may have been made."""

    default_reason = "DEADLINE_EXCEEDED"


class NotFound(AgentRuntimeError, LookupError):
    """What was asked for does not exist."""

    default_reason = "NOT_FOUND"


class RunNotFound(NotFound):
    """There is no such run in this namespace."""

    default_reason = "RUN_NOT_FOUND"


class AgentNotFound(NotFound):
    """No agent with this id is registered; `metadata["known"]` names those that are."""

    default_reason = "AGENT_NOT_FOUND"


class TaskTypeNotFound(NotFound):
    """There is no such task type; `metadata["known"]` names those there are."""

    default_reason = "TASK_TYPE_NOT_FOUND"


class GraphNotFound(NotFound):
    """There is no such graph or chain; `metadata["known"]` names those there are."""

    default_reason = "GRAPH_NOT_FOUND"


class RunFileNotFound(NotFound):
    """The run left no such file: `metadata["path"]`."""

    default_reason = "FILE_NOT_FOUND"


class ThreadNotFound(NotFound):
    """There is no such thread of a graph in this namespace, or not that revision of it: `metadata["thread_id"]`."""

    default_reason = "THREAD_NOT_FOUND"


class ScheduleNotFound(NotFound):
    """There is no such schedule in this namespace: `metadata["schedule_id"]`."""

    default_reason = "SCHEDULE_NOT_FOUND"


class EventsTruncated(AgentRuntimeError, LookupError):
    """Events asked for were removed by retention, or lost with a damaged disk."""

    default_reason = "EVENTS_TRUNCATED"

    @property
    def oldest_sequence(self) -> int:
        """Sequence of the oldest event that can still be had; 0 if the runtime did not say."""
        return int(self.metadata.get("oldest_sequence", "0"))


class AccessDenied(AgentRuntimeError, PermissionError):
    """The caller is not known, or may not do this."""

    default_reason = "PERMISSION_DENIED"


class Unauthenticated(AccessDenied):
    """No token was sent, or one that the runtime does not know."""

    default_reason = "UNAUTHENTICATED"


class PermissionDenied(AccessDenied):
    """The token may not do this in this namespace."""


class InvalidRequest(AgentRuntimeError, ValueError):
    """A field of the request does not fit.

    Attributes:
        violations: Each field at fault with its reason, as `(field, description)`.
    """

    default_reason = "INVALID_ARGUMENT"

    def __init__(self, message: str, *, violations: Sequence[tuple[str, str]] = (), **details: Any) -> None:
        super().__init__(message, **details)
        self.violations = tuple(violations)

    @classmethod
    def of(cls, field: str, reason: str) -> Self:
        """The error about one field: the message is both."""
        return cls(f"{field} {reason}", violations=[(field, reason)])


class InvalidValue(InvalidRequest):
    """A value cannot be sent: it is not JSON, or beyond a limit. Nothing was sent."""

    def within(self, path: str) -> InvalidValue:
        """The same about a part of something larger: `path` is where the part is in that."""
        violations = [(f"{path}.{name}", reason) for name, reason in self.violations]
        return type(self)(f"{path}.{self}", violations=violations)


class TooLarge(InvalidRequest):
    """A value is above the runtime's size limit: `metadata` has `field`, `size` and `limit` in bytes."""

    default_reason = "TOO_LARGE"


class Conflict(AgentRuntimeError, ValueError):
    """The call does not fit what is there already."""

    default_reason = "ABORTED"


class RevisionMismatch(Conflict):
    """The key is at another revision than expected: `metadata["revision"]`, 0 if it does not exist."""

    default_reason = "REVISION_MISMATCH"


class KeyExists(Conflict):
    """The key was to be created, and exists."""

    default_reason = "KEY_EXISTS"


class IdempotencyConflict(Conflict):
    """The run id, idempotency key or request id was used before, with another payload."""

    default_reason = "IDEMPOTENCY_CONFLICT"


class RunEnded(Conflict):
    """The run has already ended otherwise: `metadata["state"]`."""

    default_reason = "RUN_ENDED"


class RunNotWaiting(Conflict):
    """The run waits for no such answer: `metadata["state"]`."""

    default_reason = "RUN_NOT_WAITING"


class RunNotEnded(Conflict):
    """The run has not ended in a way to be done again: `metadata["state"]`."""

    default_reason = "RUN_NOT_ENDED"


class ThreadBusy(Conflict):
    """The thread was changed by somebody else meanwhile, or is there already: `metadata["thread_id"]`."""

    default_reason = "THREAD_BUSY"


class ScheduleExists(Conflict):
    """There is a schedule with the id already: `metadata["schedule_id"]`."""

    default_reason = "SCHEDULE_EXISTS"


class LeaseLost(Conflict):
    """The worker no longer has the run: its lease lapsed, or the run ended."""

    default_reason = "LEASE_LOST"


class FilesDamaged(AgentRuntimeError, LookupError):
    """Files of the run were lost with a damaged disk."""

    default_reason = "FILES_DAMAGED"


class InternalError(AgentRuntimeError):
    """Unforeseen. The cause is in the runtime's log under `request_id`."""


class RunFailed(AgentRuntimeError):
    """A run ended badly.

    Attributes:
        run: The run as it ended; `run.error` says why.
    """

    default_reason = "AGENT_FAILED"

    def __init__(self, message: str, *, run: Run, **details: Any) -> None:
        super().__init__(message, **details)
        self.run = run


class RunTimedOut(RunFailed, TimeoutError):
    """The run's deadline or run timeout passed before it ended."""

    default_reason = "RUN_TIMED_OUT"


class RunCancelled(RunFailed):
    """The run was cancelled on request."""

    default_reason = "RUN_CANCELLED"
