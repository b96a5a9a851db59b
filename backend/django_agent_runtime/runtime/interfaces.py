"""What an agent is, and what it is given: the names that agents import.

from django_agent_runtime.runtime.interfaces import AgentRuntime, EventType, RunContext, RunResult

class Echo(AgentRuntime):
    key = "echo"

    async def run(self, ctx: RunContext) -> RunResult:
        text = ctx.input_messages[-1]["content"]
        await ctx.emit(EventType.ASSISTANT_MESSAGE, {"content": text})
        return RunResult(final_output={"response": text})
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypedDict, TypeVar, overload

from django_agent_runtime.exceptions import InvalidValue
from django_agent_runtime.runtime.errors import (
    AgentError,
    ControlFlow,
    DoNotRetry,
    Parked,
    RetryAfter,
    RunInterrupted,
    SubRunFailed,
    ToolArgumentsError,
    ToolError,
    ToolNotFound,
)
from django_agent_runtime.runtime.tools import Tool, ToolRegistry

__all__ = [
    "AgentError",
    "AgentRuntime",
    "ControlFlow",
    "DoNotRetry",
    "EventType",
    "Message",
    "Parked",
    "RetryAfter",
    "RetryPolicy",
    "RunContext",
    "RunInterrupted",
    "RunResult",
    "SubRunFailed",
    "Tool",
    "ToolArgumentsError",
    "ToolError",
    "ToolNotFound",
    "ToolRegistry",
    "Visibility",
]

T = TypeVar("T")


class _Text(str, Enum):
    """An enum whose members are their texts, also where they are formatted."""

    def __str__(self) -> str:
        return str.__str__(self)

    def __format__(self, format_spec: str) -> str:
        return str.__format__(self, format_spec)


class EventType(_Text):
    """The types of event that everybody knows; an agent may emit any other text as well.

    Those that begin with `run.` are made by the runtime.
    """

    RUN_QUEUED = "run.queued"
    RUN_STARTED = "run.started"
    RUN_SUCCEEDED = "run.succeeded"
    RUN_FAILED = "run.failed"
    RUN_CANCELLED = "run.cancelled"
    RUN_TIMED_OUT = "run.timed_out"
    RUN_HEARTBEAT = "run.heartbeat"
    """Never emitted: leases are renewed beside the log."""
    RUN_RETRYING = "run.retrying"
    RUN_INTERRUPTED = "run.interrupted"
    RUN_RESUMED = "run.resumed"
    RUN_WAITING = "run.waiting"
    TOOL_CALL = "tool.call"
    TOOL_RESULT = "tool.result"
    ASSISTANT_MESSAGE = "assistant.message"
    ASSISTANT_DELTA = "assistant.delta"
    STATE_CHECKPOINT = "state.checkpoint"
    STEP_COMPLETED = "step.completed"
    ERROR = "error"


class Visibility(_Text):
    """Who gets to see an event."""

    INTERNAL = "internal"
    """Nobody in a user interface."""
    DEBUG = "debug"
    """Those who debug."""
    USER = "user"
    """Everybody who may see the run."""


class Message(TypedDict, total=False):
    """One message of a conversation, in a format of no framework's own; each has at least a role."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: Any
    """The text; None beside tool calls; a list of parts where the provider takes those."""
    tool_calls: list[dict[str, Any]]
    """Of an assistant, as OpenAI writes them: `{"id", "type": "function", "function": {"name", "arguments"}}`."""
    tool_call_id: str
    """Of a tool's result: the call that it answers."""
    name: str


@dataclass(frozen=True)
class RetryPolicy:
    """When and how often to try again. What is None is as the runtime has it."""

    max_attempts: int | None = None
    """In all, 1 to 100."""
    initial_backoff: float | None = None
    """Seconds before the second attempt."""
    max_backoff: float | None = None
    """Seconds, the longest wait."""
    multiplier: float | None = None
    """Each wait is so many times the one before; at least 1."""


@dataclass
class RunResult:
    """What a run comes to. All of it must be JSON."""

    final_output: dict[str, Any] = field(default_factory=dict)
    final_messages: list[Any] = field(default_factory=list)
    """What this run adds to the conversation, or the whole of it."""
    usage: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The run's output as it is recorded; `metadata` is in it only where there is some."""
        output: dict[str, Any] = {}
        output["final_output"] = self.final_output
        output["final_messages"] = self.final_messages
        output["usage"] = self.usage
        if self.metadata:
            output["metadata"] = self.metadata
        return output


class RunContext(ABC):
    """One attempt of one run, as its agent sees it.

    Its methods may be called by several tasks at once. Once the run is cancelled, or its lease is lost, the agent's
    task is cancelled and every method raises `asyncio.CancelledError`. A plain function gets a
    `runtime.sync.SyncRunContext`, with the same names and no `await`.
    """

    @property
    @abstractmethod
    def run_id(self) -> str:
        """The run's UUID, the same in every attempt."""

    @property
    @abstractmethod
    def agent_key(self) -> str:
        """The agent that was asked for."""

    @property
    @abstractmethod
    def attempt(self) -> int:
        """1 in the first attempt."""

    @property
    @abstractmethod
    def input(self) -> dict[str, Any]:
        """The run's whole input, with `messages` and `params` in it."""

    @property
    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """What the run was created with beside its input."""

    @property
    @abstractmethod
    def conversation_id(self) -> str | None:
        """The conversation that the run belongs to, if any."""

    @property
    @abstractmethod
    def is_cancelled(self) -> bool:
        """Whether this attempt is over for the runtime: cancelled, timed out, or given to another worker."""

    @property
    def input_messages(self) -> list[Message]:
        """The conversation so far, oldest first."""
        messages = self.input.get("messages")
        return list(messages) if isinstance(messages, Sequence) and not isinstance(messages, str) else []

    @property
    def params(self) -> dict[str, Any]:
        """What the caller set for this run."""
        params = self.input.get("params")
        return dict(params) if isinstance(params, Mapping) else {}

    def cancelled(self) -> bool:
        """As `is_cancelled`, for code that calls it."""
        return self.is_cancelled

    def raise_if_cancelled(self) -> None:
        """For code that computes for long without an `await`.

        Raises:
            asyncio.CancelledError: This attempt is over.
        """
        if self.is_cancelled:
            raise asyncio.CancelledError("the run is over")

    @abstractmethod
    async def emit(
        self,
        event_type: EventType | str,
        payload: Mapping[str, Any] | None = None,
        *,
        visibility: Visibility | str | None = None,
    ) -> None:
        """Add an event to the run's log; events keep their order.

        Returns when the event is on its way. All events of an attempt are kept before its end is.

        Args:
            event_type: At most 200 bytes; none of the runtime's own, which begin with `run.`.
            payload: A JSON object.
            visibility: None: what the settings say for the type.

        Raises:
            ValueError: The type or the payload cannot be sent.
        """

    async def emit_user_message(self, content: str) -> None:
        """Show a message of the assistant to everybody who may see the run."""
        await self.emit(EventType.ASSISTANT_MESSAGE, {"content": content}, visibility=Visibility.USER)

    async def emit_error(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        """Show an error that does not end the run.

        Args:
            message: One sentence for a person: the payload's `error`.
            details: A JSON object, the payload's `details`.

        Raises:
            ValueError: The details cannot be sent.
        """
        payload: dict[str, Any] = {"error": message}
        if details is not None:
            if not isinstance(details, Mapping):
                raise InvalidValue.of("details", f"must be a dict, not {type(details).__name__}")
            payload["details"] = dict(details)
        await self.emit(EventType.ERROR, payload, visibility=Visibility.USER)

    @abstractmethod
    async def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Keep `state`, a JSON object, in place of what was kept before; `get_state` returns it."""

    @abstractmethod
    async def get_state(self) -> dict[str, Any] | None:
        """A copy of the latest checkpoint of any attempt; None before the first."""

    @overload
    async def step(self, name: str, fn: Callable[[], Awaitable[T]], *, timeout: float | None = None) -> T: ...

    @overload
    async def step(self, name: str, fn: Callable[[], T], *, timeout: float | None = None) -> T: ...

    @abstractmethod
    async def step(self, name: str, fn: Callable[[], Any], *, timeout: float | None = None) -> Any:
        """What `fn` returns, recorded so that later attempts get the record instead of calling it again.

        Returns once the record is kept. Steps of the same name are told apart by their count, so an attempt must
        reach them in the same order. What runs for the second time is only a step whose record could not be kept.

        Args:
            name: Any text of at most 200 bytes.
            fn: A coroutine function is awaited; a plain one is called in a thread, so that it may block.
            timeout: Seconds, for what `fn` takes; None: as the agent or the settings say.

        Returns:
            The result as JSON has it, in the first attempt as in later ones: tuples become lists.

        Raises:
            TimeoutError: `fn` took longer.
            ValueError: What it returned is not JSON.
            Exception: Whatever `fn` raises; nothing is recorded then.
        """

    @abstractmethod
    async def interrupt(self, payload: Any = None, *, name: str | None = None) -> Any:
        """Ask whoever watches the run, and return the answer.

        The first time, the run is parked: this raises `Parked`, and once `resume` has brought the answer the code runs
        again from its top, where this returns it. Do what must not be repeated in a `step`, and so what the question is
        made of: an answer is for the question it was given to, and another question is asked.

        Args:
            payload: JSON: what is asked.
            name: Tells this question from others whatever its payload, such as one that has a time in it.
        """

    @abstractmethod
    async def run_agent(
        self,
        agent_key: str,
        messages: Sequence[Any] | None = None,
        *,
        input: Mapping[str, Any] | None = None,  # noqa: A002  # the run's own name for it
        params: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        name: str | None = None,
    ) -> dict[str, Any]:
        """Have another agent run, and return its output.

        The run is parked meanwhile, as in `interrupt`; several at once (`asyncio.gather`) are waited for together.
        A later attempt joins the sub-run that an earlier one has created. Cancelling this run cancels it.

        Args:
            messages: The sub-run's conversation.
            input: Its whole input, in place of messages and params.
            params: Its parameters.
            metadata: Its metadata.
            timeout: Seconds that one of its attempts may take; None: as its agent says.
            name: What it is told apart by among this run's sub-runs; None: the agent's key. Those of the same name
                are counted, so an attempt must reach them in the same order.

        Returns:
            The sub-run's output: for agents in Python, that of `RunResult.to_dict`.

        Raises:
            SubRunFailed: It ended in another way than success.
        """


class AgentRuntime(ABC):
    """An agent. One instance serves all runs of its process, many at a time: keep what belongs to a run in `run`."""

    description: str = ""
    """For people."""
    max_attempts: int | None = None
    """In all, for runs that do not say; None: MAX_RETRIES of the settings. `retry`, if set, goes before it."""
    run_timeout: float | None = None
    """Seconds for one attempt; None: RUN_TIMEOUT_SECONDS of the settings."""
    step_timeout: float | None = None
    """Seconds for a `ctx.step` that does not say; None: STEP_TIMEOUT_SECONDS of the settings."""
    retry: RetryPolicy | None = None
    """When to try again; None: as the settings have it."""

    @property
    @abstractmethod
    def key(self) -> str:
        """What runs name the agent by: 1 to 200 bytes. A class attribute will do."""

    @abstractmethod
    async def run(self, ctx: RunContext) -> RunResult:
        """Do one attempt of one run.

        A failure is an exception: it is retried unless it is an `AgentError` that says otherwise. Code may be run more
        than once (after a crash, or an interrupt), so put what must not be repeated into `ctx.step`.
        """
