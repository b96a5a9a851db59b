"""Agents that the site under test has beside its own."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from django_agent_runtime.runtime.interfaces import EventType, RetryPolicy
from django_agent_runtime.runtime.registry import agent

if TYPE_CHECKING:
    from django_agent_runtime.runtime.interfaces import RunContext


@agent(key="flaky-agent", retry=RetryPolicy(max_attempts=3, initial_backoff=0.01))
async def fail_then_wait(ctx: RunContext) -> None:
    """Fails twice, and then says nothing until it is cancelled."""
    if ctx.attempt < 3:
        raise ConnectionError("not yet")
    await asyncio.Event().wait()


@agent(key="delegating-agent")
async def ask_then_delegate(ctx: RunContext) -> None:
    """Asks, and then waits for a sub-run that does not end by itself."""
    await ctx.interrupt("Shall another agent do it?")
    await ctx.run_agent("flaky-agent")


@agent(key="front-desk-agent")
async def have_another_refund(ctx: RunContext) -> dict[str, object]:
    """Has another agent do it, which asks before."""
    return await ctx.run_agent("refund-agent", [{"role": "user", "content": "Refund order 7"}])


@agent(key="endless-agent")
async def tell_until_enough(ctx: RunContext) -> None:
    """Tells a story word by word, until the test has had enough: then there is a file."""
    enough = Path(os.environ["ENOUGH"])
    words = ["Once"]
    while words[-1] != " end.":
        await ctx.emit(EventType.ASSISTANT_DELTA, {"content": words[-1]})
        await asyncio.sleep(0.04)
        words.append(" end." if await asyncio.to_thread(enough.exists) else " upon")
    await ctx.emit(EventType.ASSISTANT_MESSAGE, {"content": "".join(words)})


@agent(key="parts-agent")
async def speak_in_parts(ctx: RunContext) -> None:
    """Speaks as models do that call tools, and as those do whose content is a list of parts."""
    for word in ("Let ", "me ", "look."):
        await ctx.emit(EventType.ASSISTANT_DELTA, {"content": word})
    for _ in range(2):
        await ctx.emit(EventType.ASSISTANT_MESSAGE, {"content": None})
    image = {"type": "image_url", "image_url": {"url": "sun.png"}}
    texts = [{"type": "text", "text": text} for text in ("It is ", "sunny.")]
    await ctx.emit(EventType.ASSISTANT_MESSAGE, {"content": [image, *texts]})
