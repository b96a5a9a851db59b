"""A run in memory: the context that an agent gets where no runtime is, for tests of the agent itself."""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from django_agent_runtime._codec import check_event_type, decode, encode
from django_agent_runtime.runtime._threads import call_within
from django_agent_runtime.runtime.context import check_name
from django_agent_runtime.runtime.errors import Parked, SubRunFailed
from django_agent_runtime.runtime.execution import execute_agent
from django_agent_runtime.runtime.interfaces import AgentRuntime, EventType, RunContext, RunResult, Visibility
from django_agent_runtime.runtime.registry import get_runtime
from django_agent_runtime.runtime_conf import AgentRuntimeSettings, get_agent_runtime_settings, visibility_of

__all__ = ["LocalEvent", "LocalRun", "LocalRunContext"]


@dataclass(frozen=True)
class LocalEvent:
    """An event that an agent emitted."""

    type: str
    payload: dict[str, Any]
    visibility: Visibility


@dataclass
class LocalRun:
    """What became of an agent's code.

    Attributes:
        run_id: The run's UUID.
        state: `succeeded`, or `waiting` where it asked something that no answer was given for.
        result: What the agent returned; None while it waits.
        events: All that it emitted, in order.
        steps: What its steps recorded, by name and count: `charge#1`. A later run replays them.
        checkpoint: The latest state that it kept; None before the first.
        interrupt: What it asks, while it waits.
    """

    run_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: str = "succeeded"
    result: RunResult | None = None
    events: list[LocalEvent] = field(default_factory=list)
    steps: dict[str, Any] = field(default_factory=dict)
    checkpoint: dict[str, Any] | None = None
    interrupt: Any = None

    @property
    def output(self) -> dict[str, Any]:
        """The result's final output; empty while it waits."""
        return self.result.final_output if self.result else {}

    def get_payloads(self, event_type: EventType | str) -> list[dict[str, Any]]:
        """The payloads of all events of a type."""
        return [event.payload for event in self.events if event.type == str(event_type)]

    @property
    def streamed_text(self) -> str:
        """What `assistant.delta` events add up to."""
        return "".join(payload.get("content") or "" for payload in self.get_payloads(EventType.ASSISTANT_DELTA))


class LocalRunContext(RunContext):
    """A `RunContext` that keeps everything in `run`. It is as strict about JSON as a worker's."""

    def __init__(
        self,
        agent_key: str,
        input: Mapping[str, Any],  # noqa: A002  # the run's own name for it
        *,
        run: LocalRun | None = None,
        metadata: Mapping[str, Any] | None = None,
        conversation_id: str | None = None,
        attempt: int = 1,
        answers: Sequence[Any] = (),
        agents: Mapping[str, AgentRuntime] | None = None,
        settings: AgentRuntimeSettings | None = None,
    ) -> None:
        self.run = run or LocalRun()
        self._agent_key = agent_key
        self._input: dict[str, Any] = decode(encode(dict(input), "input"))
        self._metadata: dict[str, Any] = decode(encode(dict(metadata or {}), "metadata"))
        self._conversation_id = conversation_id
        self._attempt = attempt
        self._answers = [decode(encode(answer, "answers")) for answer in answers]
        self._agents = dict(agents or {})
        self._settings = settings or get_agent_runtime_settings()
        self._counts: Counter[str] = Counter()
        self._cancelled = False

    @property
    def run_id(self) -> str:
        """The run's UUID."""
        return self.run.run_id

    @property
    def agent_key(self) -> str:
        """The agent that was asked for."""
        return self._agent_key

    @property
    def attempt(self) -> int:
        """Which attempt the agent is told this is."""
        return self._attempt

    @property
    def input(self) -> dict[str, Any]:
        """The run's whole input."""
        return self._input

    @property
    def metadata(self) -> dict[str, Any]:
        """The run's metadata."""
        return self._metadata

    @property
    def conversation_id(self) -> str | None:
        """The conversation, if one was given."""
        return self._conversation_id

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """Have the context say that the run was cancelled."""
        self._cancelled = True

    async def emit(
        self,
        event_type: EventType | str,
        payload: Mapping[str, Any] | None = None,
        *,
        visibility: Visibility | str | None = None,
    ) -> None:
        """Keep the event in `run.events`."""
        self.raise_if_cancelled()
        name = check_event_type(str(event_type))
        if name.startswith("run."):
            raise ValueError(f"{name!r} is an event of the runtime's own; an agent's may not begin with 'run.'")
        if payload is not None and not isinstance(payload, Mapping):
            raise ValueError(f"the payload must be a dict, not {type(payload).__name__}")
        kept = decode(encode(dict(payload or {}), "payload"))
        level = Visibility(str(visibility)) if visibility else visibility_of(name, self._settings)
        self.run.events.append(LocalEvent(name, kept, level))
        if name == EventType.STATE_CHECKPOINT:
            self.run.checkpoint = kept

    async def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Keep the state in `run.checkpoint`."""
        await self.emit(EventType.STATE_CHECKPOINT, state)

    async def get_state(self) -> dict[str, Any] | None:
        """A copy of `run.checkpoint`."""
        self.raise_if_cancelled()
        return copy.deepcopy(self.run.checkpoint)

    async def step(self, name: str, fn: Callable[[], Any], *, timeout: float | None = None) -> Any:
        """The record in `run.steps`, or what `fn` returns, recorded there."""
        self.raise_if_cancelled()
        key = self._count(name)
        if key not in self.run.steps:
            result = await call_within(fn, timeout, f"step {name}")
            self.run.steps[key] = decode(encode(result, f"the result of step {name!r}"))
            record = LocalEvent(
                EventType.STEP_COMPLETED.value, {"key": key, "result": self.run.steps[key]}, Visibility.INTERNAL
            )
            self.run.events.append(record)
        return copy.deepcopy(self.run.steps[key])

    async def interrupt(self, payload: Any = None, *, name: str | None = None) -> Any:
        """The next of the answers; `Parked` where there is none left."""
        self.raise_if_cancelled()
        asked = decode(encode(payload, "payload"))
        self._count("interrupt" if name is None else name)
        if self._answers:
            return self._answers.pop(0)
        self.run.interrupt = asked
        raise Parked("no answer was given to this interrupt")

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
        """Have one of the given agents run here and now, or else a registered one."""
        self.raise_if_cancelled()
        key = self._count(agent_key if name is None else name)
        if key in self.run.steps:
            return cast("dict[str, Any]", copy.deepcopy(self.run.steps[key]))
        whole = dict(input) if input is not None else {"messages": list(messages or []), "params": dict(params or {})}
        child = LocalRunContext(agent_key, whole, metadata=metadata, agents=self._agents, settings=self._settings)
        found = self._agents.get(agent_key) or get_runtime(agent_key)
        try:
            result = await asyncio.wait_for(execute_agent(found, child), timeout)
        except Exception as error:
            state = "timed_out" if isinstance(error, (TimeoutError, asyncio.TimeoutError)) else "failed"
            raise SubRunFailed(
                f"the sub-run of {agent_key!r} {state.replace('_', ' ')}: {error}",
                run_id=child.run_id,
                agent_key=agent_key,
                state=state,
                error={"message": str(error), "reason": "RUN_TIMED_OUT" if state == "timed_out" else "AGENT_FAILED"},
            ) from error
        self.run.steps[key] = decode(encode(result.to_dict(), "output"))
        return cast("dict[str, Any]", copy.deepcopy(self.run.steps[key]))

    def _count(self, name: str) -> str:
        self._counts[check_name(name)] += 1
        return f"{name}#{self._counts[name]}"
