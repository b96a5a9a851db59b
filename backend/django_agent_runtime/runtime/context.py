"""The context that a worker gives to an agent: what earlier attempts recorded, and reports of what is new."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, TypeVar, cast

from google.protobuf.duration_pb2 import Duration

from django_agent_runtime._codec import check_event_type, decode, decode_object, encode, encode_object
from django_agent_runtime._spans import span_step
from django_agent_runtime.conf import MAX_SECONDS
from django_agent_runtime.exceptions import AgentNotFound, InvalidValue, TooLarge
from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from django_agent_runtime.grpc_client.agentruntime.v1 import worker_service_pb2 as worker_pb
from django_agent_runtime.runtime._threads import call_within
from django_agent_runtime.runtime.current import enclosing_steps, use_step
from django_agent_runtime.runtime.errors import Parked, SubRunFailed
from django_agent_runtime.runtime.interfaces import EventType, RunContext, Visibility
from django_agent_runtime.runtime.registry import list_runtimes
from django_agent_runtime.types import TASK_TYPE

__all__ = [
    "MOST_PAYLOAD_BYTES",
    "Reporter",
    "WorkerRunContext",
    "check_name",
    "check_payload",
    "from_duration",
    "to_duration",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Where the runtime names no limit: a message may be at most 16 MiB, with room for what is around a payload.
MOST_PAYLOAD_BYTES = 12 << 20
_MOST_NAME_BYTES = 200
# Longer text is an event of its own.
_MOST_JOINED_CHARACTERS = 100_000
# Turns of the event loop that the tasks of an agent get to start their own sub-runs before the run is parked.
_TURNS_BEFORE_PARKING = 5

_VISIBILITIES: dict[str, agent_pb.EventVisibility] = {
    Visibility.INTERNAL.value: agent_pb.EVENT_VISIBILITY_INTERNAL,
    Visibility.DEBUG.value: agent_pb.EVENT_VISIBILITY_DEBUG,
    Visibility.USER.value: agent_pb.EVENT_VISIBILITY_USER,
}
_END_STATES = {
    agent_pb.RUN_STATE_SUCCEEDED: "succeeded",
    agent_pb.RUN_STATE_FAILED: "failed",
    agent_pb.RUN_STATE_CANCELLED: "cancelled",
    agent_pb.RUN_STATE_TIMED_OUT: "timed_out",
}
_DELTA = EventType.ASSISTANT_DELTA.value
_DELTA_KEYS = {"content"}


class Reporter(Protocol):
    """Where a context says what has happened. Its methods raise `asyncio.CancelledError` once the run is over."""

    @property
    def is_over(self) -> bool:
        """Whether the attempt is over for the runtime, or is to end."""

    @property
    def most_payload_bytes(self) -> int:
        """How large a payload, a step's result or the input of a sub-run may be."""

    async def emit(self, event_type: str, visibility: agent_pb.EventVisibility, payload: bytes) -> None:
        """Add an event, behind those of earlier calls. Waits only while too many are on their way."""

    async def emit_delta(self, visibility: agent_pb.EventVisibility, content: str) -> None:
        """Add a piece of text to what is streamed; pieces may be joined."""

    async def record_step(self, key: str, result: bytes) -> None:
        """Record a step, and return once the record is durable."""

    async def start_run(self, key: str, run: agent_pb.CreateRunRequest) -> agent_pb.Run:
        """Create a sub-run, or join the one that an earlier attempt created: the run as it is."""


class WorkerRunContext(RunContext):
    """The context of one assignment."""

    def __init__(
        self,
        reporter: Reporter,
        assignment: worker_pb.Assignment,
        *,
        visibility_of: Callable[[str], str],
        step_timeout: float | None = None,
    ) -> None:
        """`visibility_of` says who gets to see events of a type; `step_timeout` is the agent's own, in seconds."""
        self._reporter = reporter
        self._assignment = assignment
        self._visibility_of = visibility_of
        self._step_timeout = step_timeout
        if assignment.HasField("step_timeout"):
            self._step_timeout = from_duration(assignment.step_timeout)
        self._counts: dict[str, int] = {}
        self._recorded = {step.key: step.result for step in assignment.steps}
        self._answers = {answer.interrupt_id: answer for answer in assignment.answers}
        self._state = assignment.checkpoint
        self._busy = 0
        self._left = 0
        self._rested: asyncio.Event | None = None
        self._children: list[str] = []
        self.park: worker_pb.Park | None = None
        """What the run is to wait for once its code is gone."""

    @property
    def run_id(self) -> str:
        """See RunContext."""
        return self._assignment.run.run_id

    @property
    def agent_key(self) -> str:
        """See RunContext."""
        return self._assignment.run.agent_id

    @property
    def attempt(self) -> int:
        """See RunContext."""
        return self._assignment.run.attempt

    @cached_property
    def input(self) -> dict[str, Any]:
        """See RunContext."""
        return decode_object(self._assignment.run.input)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """See RunContext."""
        return decode_object(self._assignment.run.metadata)

    @property
    def conversation_id(self) -> str | None:
        """See RunContext."""
        conversation_id = self.metadata.get("conversation_id")
        return None if conversation_id is None else str(conversation_id)

    @property
    def is_cancelled(self) -> bool:
        """See RunContext."""
        return self._reporter.is_over

    async def emit(
        self,
        event_type: EventType | str,
        payload: Mapping[str, Any] | None = None,
        *,
        visibility: Visibility | str | None = None,
    ) -> None:
        """See RunContext."""
        self._check()
        name = _check_type(event_type)
        if name == _DELTA and visibility is None and type(payload) is dict and payload.keys() == _DELTA_KEYS:
            content = payload["content"]
            if type(content) is str and len(content) <= _MOST_JOINED_CHARACTERS:
                await self._reporter.emit_delta(_to_visibility(self._visibility_of(name)), content)
                return
        seen_by = _to_visibility(self._visibility_of(name) if visibility is None else visibility)
        await self._reporter.emit(
            name, seen_by, self._check_size(encode_object(payload, "payload") or b"{}", "payload")
        )

    async def checkpoint(self, state: Mapping[str, Any]) -> None:
        """See RunContext."""
        self._check()
        text = self._check_size(encode_object(state, "state") or b"{}", "state")
        self._state = text
        await self._reporter.emit(EventType.STATE_CHECKPOINT.value, agent_pb.EVENT_VISIBILITY_INTERNAL, text)

    async def get_state(self) -> dict[str, Any] | None:
        """See RunContext."""
        self._check()
        return decode_object(self._state) if self._state else None

    async def step(self, name: str, fn: Callable[[], T | Awaitable[T]], *, timeout: float | None = None) -> T:
        """See RunContext."""
        self._check()
        key = self._count(name)
        recorded = self._recorded.get(key)
        if recorded is not None:
            return cast("T", decode(recorded))
        self._busy += 1
        try:
            with use_step(self), span_step(name, key) as span:
                result = await call_within(fn, self._step_timeout if timeout is None else timeout, f"step {name}")
                span.output(result)
            text = self._check_size(encode(result, f"step {name}"), f"step {name}")
            await self._reporter.record_step(key, text)
        finally:
            self._rest()
        return cast("T", decode(text))

    async def interrupt(self, payload: Any = None, *, name: str | None = None) -> Any:
        """See RunContext."""
        self._check()
        text = self._check_size(encode(payload, "payload"), "payload")
        interrupt_id = self._count("interrupt" if name is None else name)
        while (answer := self._answers.get(interrupt_id)) is not None:
            if name is not None or decode(answer.question or text) == decode(text):
                return decode(answer.payload) if answer.payload else None
            # Somebody said yes to something else.
            logger.warning(
                "the code asks another question than before",
                extra={"run_id": self.run_id, "agent": self.agent_key, "interrupt_id": interrupt_id},
            )
            interrupt_id = self._count("interrupt")
        await self._park(worker_pb.Park(interrupt=agent_pb.Interrupt(interrupt_id=interrupt_id, payload=text)))
        raise Parked("the run waits for an answer")

    async def run_agent(
        self,
        agent_key: str,
        messages: Sequence[Any] | None = None,
        *,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the run's own name for it
        params: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        name: str | None = None,
    ) -> dict[str, Any]:
        """See RunContext."""
        self._check()
        key = self._count(agent_key if name is None else name)
        recorded = self._recorded.get(key)
        if recorded is not None:
            return _to_output(agent_key, decode_object(recorded))
        request = agent_pb.CreateRunRequest(
            # One of this project's may wait for a worker; of others the runtime says whether it knows them.
            target=agent_pb.RUN_TARGET_WORKER if agent_key in list_runtimes() else agent_pb.RUN_TARGET_AGENT,
            agent_id=agent_key,
            task_type=TASK_TYPE,
            input=self._check_size(_encode_input(messages, input, params), "input"),
            metadata=encode_object(metadata, "metadata"),
        )
        if timeout is not None:
            if not 0 < timeout <= MAX_SECONDS:
                raise InvalidValue(f"timeout must be a number of seconds above 0, not {timeout!r}")
            request.run_timeout.CopyFrom(to_duration(timeout))
        self._busy += 1
        try:
            try:
                run = await self._reporter.start_run(key, request)
            except AgentNotFound as error:
                own = ", ".join(sorted(list_runtimes())) or "none"
                raise AgentNotFound(f"{error}; agents of this project: {own}", metadata=error.metadata) from error
            if run.state in _END_STATES:
                outcome = _describe_end(run)
                await self._reporter.record_step(key, encode(outcome, "outcome"))
                return _to_output(agent_key, outcome)
            self._children.append(run.run_id)
        finally:
            self._rest()
        await self._park(worker_pb.Park())
        raise Parked("the run waits for sub-runs")

    def _check(self) -> None:
        if self.park is not None:
            raise Parked("the run is parked")
        if self._reporter.is_over:
            raise asyncio.CancelledError("the run is over")

    def _count(self, name: str) -> str:
        self._counts[check_name(name)] = count = self._counts.get(name, 0) + 1
        return f"{name}#{count}"

    def _rest(self) -> None:
        self._busy -= 1
        if self._rested is not None:
            self._rested.set()

    def _check_size(self, text: bytes, name: str) -> bytes:
        return check_payload(text, name, self._reporter.most_payload_bytes)

    async def _park(self, park: worker_pb.Park) -> None:
        """Have the run park once what other tasks of the agent are recording is recorded.

        The steps inside of which this is called are left, not waited for: the next attempt does them from their top.
        """
        for _ in range(_TURNS_BEFORE_PARKING):
            await asyncio.sleep(0)
        self._left += enclosing_steps(self)
        if self._rested is not None:
            self._rested.set()
        while self._busy > self._left:
            if self._rested is None:
                self._rested = asyncio.Event()
            self._rested.clear()
            await self._rested.wait()
        if self.park is None:
            if not park.HasField("interrupt"):
                park.wait_for.extend(self._children)
            self.park = park


def _check_type(event_type: EventType | str) -> str:
    name = event_type.value if isinstance(event_type, EventType) else check_event_type(event_type)
    if name.startswith("run."):
        raise InvalidValue(f"event_type is {name!r}; types that begin with 'run.' are the runtime's own")
    return name


def _to_visibility(visibility: str) -> agent_pb.EventVisibility:
    try:
        # An enum's member has the hash of its name.
        return _VISIBILITIES[str(visibility)]
    except KeyError:
        raise InvalidValue(f"visibility is {visibility!r}, must be one of {', '.join(_VISIBILITIES)}") from None


def check_name(name: str) -> str:
    """`name`, if a step, a question or a sub-run can have it.

    Raises:
        InvalidValue: It is empty, or too long.
    """
    if not 0 < len(name.encode(errors="surrogatepass")) <= _MOST_NAME_BYTES:
        raise InvalidValue(f"name must be a text of 1 to {_MOST_NAME_BYTES} bytes, not {name!r}")
    return name


def check_payload(text: bytes, name: str, most_bytes: int) -> bytes:
    """`text`, if it is not too large for a message.

    Raises:
        TooLarge: It is.
    """
    if len(text) > most_bytes:
        raise TooLarge(
            f"{name} is {len(text)} bytes long, the limit is {most_bytes}",
            metadata={"field": name, "size": str(len(text)), "limit": str(most_bytes)},
        )
    return text


def to_duration(seconds: float) -> Duration:
    """`seconds` as the runtime takes it: not nothing, and not for ever."""
    seconds = min(max(seconds, 0.001), MAX_SECONDS)
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


def from_duration(duration: Duration) -> float:
    """The seconds of what the runtime says."""
    return duration.seconds + duration.nanos / 1e9


def _encode_input(
    messages: Sequence[Any] | None, whole: Mapping[str, Any] | None, params: Mapping[str, Any] | None
) -> bytes:
    if whole is not None:
        if messages is not None or params is not None:
            raise InvalidValue("input takes the place of messages and params")
        return encode_object(whole, "input") or b"{}"
    return encode({"messages": list(messages or ()), "params": dict(params or {})}, "input")


def _describe_end(run: agent_pb.Run) -> dict[str, Any]:
    """How a sub-run ended, as it is recorded."""
    if run.state == agent_pb.RUN_STATE_SUCCEEDED:
        return {"run_id": run.run_id, "state": "succeeded", "output": decode_object(run.output)}
    error = {"message": run.error.message, "reason": run.error.reason}
    return {"run_id": run.run_id, "state": _END_STATES[run.state], "error": error}


def _to_output(agent_key: str, outcome: Mapping[str, Any]) -> dict[str, Any]:
    if outcome["state"] == "succeeded":
        output: dict[str, Any] = outcome["output"]
        return output
    message = outcome["error"].get("message") or f"it ended as {outcome['state']}"
    raise SubRunFailed(
        f"the sub-run of {agent_key} did not succeed: {message}",
        run_id=outcome["run_id"],
        agent_key=agent_key,
        state=outcome["state"],
        error=outcome["error"],
    )
