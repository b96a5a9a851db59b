"""What the adapters share: one name for each event, whatever the framework calls it."""

from __future__ import annotations

import json
from abc import abstractmethod
from typing import Any

from pydantic_core import to_jsonable_python

from django_agent_runtime.runtime.interfaces import AgentRuntime, EventType, RunContext, RunResult

__all__ = ["AdaptedAgent", "Narrator", "to_json"]


class AdaptedAgent(AgentRuntime):
    """An agent of another framework under a key of this one's."""

    def __init__(self, key: str, adapted: object, *, description: str = "", max_attempts: int | None = None) -> None:
        self._key = key
        self._adapted = adapted
        self.description = description
        self.max_attempts = max_attempts

    @property
    def key(self) -> str:
        """What runs name the agent by."""
        return self._key

    @property
    def identity(self) -> object:
        """What tells it from another agent of the same class."""
        return id(self._adapted)

    @abstractmethod
    async def run(self, ctx: RunContext) -> RunResult:
        """Have the framework do the run, and tell what it does as events."""


class Narrator:
    """Emits what a framework's agent does, each thing once."""

    def __init__(self, ctx: RunContext) -> None:
        self._ctx = ctx

    async def add_text(self, text: str) -> None:
        """A part of what the assistant says."""
        if text:
            await self._ctx.emit(EventType.ASSISTANT_DELTA, {"content": text})

    async def finish_message(self, text: str) -> None:
        """All of what it said."""
        if text:
            await self._ctx.emit(EventType.ASSISTANT_MESSAGE, {"content": text})

    async def call_tool(self, name: str, arguments: Any, call_id: str) -> None:
        """A tool is called."""
        text = arguments if isinstance(arguments, str) else json.dumps(to_json(arguments), ensure_ascii=False)
        payload = {"tool": name, "arguments": text, "tool_call_id": call_id}
        await self._ctx.emit(EventType.TOOL_CALL, payload)

    async def finish_tool(self, call_id: str, result: Any) -> None:
        """A tool has returned."""
        await self._ctx.emit(EventType.TOOL_RESULT, {"tool_call_id": call_id, "result": to_json(result)})


def to_json(value: Any) -> Any:
    """`value` as JSON; what is none becomes its text."""
    return to_jsonable_python(value, fallback=str, inf_nan_mode="null")
