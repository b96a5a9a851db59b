"""The agents that are measured."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from django_agent_runtime.runtime.interfaces import AgentRuntime, EventType, RunContext, RunResult
from django_agent_runtime.runtime.registry import register_runtime

ECHO = "bench-echo"
TOKENS = "bench-tokens"

_LOOK_SECONDS = 0.1


class EchoAgent(AgentRuntime):
    """Returns its parameters at once, as the tasks do that it is held against."""

    key = ECHO

    async def run(self, ctx: RunContext) -> RunResult:
        """Return them."""
        return RunResult(final_output=ctx.input["params"])


class TokenAgent(AgentRuntime):
    """Emits tokens at a steady pace, each with its number and the time at which it was emitted.

    It begins at a time that all processes of the machine agree on (CLOCK_MONOTONIC), once a file names it: so that
    every reader is there before the first token, and hundreds of runs do not speak in chorus.
    """

    key = TOKENS

    async def run(self, ctx: RunContext) -> RunResult:
        """Emit `tokens` of them, one each `interval` seconds, `offset` seconds after the time in the file `gate`."""
        params = ctx.input["params"]
        gate = Path(params["gate"])
        # Other processes open it: there is no event to wait for.
        while not gate.exists():  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(_LOOK_SECONDS)
        due = float(gate.read_text()) + params["offset"]  # noqa: ASYNC240
        for number in range(params["tokens"]):
            await asyncio.sleep(max(due - time.monotonic(), 0))
            await ctx.emit(EventType.ASSISTANT_DELTA, {"content": f"{number}:{time.monotonic_ns()} "})
            due += params["interval"]
        return RunResult(final_output={"late_seconds": max(time.monotonic() - due, 0)})


def register_agents() -> None:
    """What RUNTIME_REGISTRY of the settings calls."""
    register_runtime(EchoAgent())
    register_runtime(TokenAgent())
