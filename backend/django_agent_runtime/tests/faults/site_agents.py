"""The agents of the site that faults befall. What they do to the world outside goes to files in the site's folder."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any

from django_agent_runtime.runtime.functions import function
from django_agent_runtime.runtime.interfaces import AgentRuntime, DoNotRetry, RetryAfter, RetryPolicy, RunContext
from django_agent_runtime.runtime.registry import register_runtime

# What a run's parameters are where they are left out; `Mixed` says what they do.
PLAN: dict[str, Any] = {
    "events": 0,
    "rounds": 0,
    "pause": 0.0,
    "questions": 0,
    "children": 0,
    "fails_until": 1,
    "refuses": False,
    "poison": False,
    "for_ever": False,
}


def get_folder() -> Path:
    return Path(os.environ["SITE_FOLDER"])


def append_line(name: str, *words: object) -> None:
    """One write, so that lines of several processes do not mix."""
    descriptor = os.open(get_folder() / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())
    os.close(descriptor)


async def until_file(name: str) -> None:
    path = get_folder() / name
    while not path.exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.01)


class Mixed(AgentRuntime):
    """Does what its parameters say, in the order of `PLAN`, and tells of everything by events and effects."""

    key = "mixed"
    retry = RetryPolicy(max_attempts=100, initial_backoff=0.05, max_backoff=0.5)

    async def run(self, ctx: RunContext) -> Any:
        plan = PLAN | ctx.params
        execution = uuid.uuid4().hex
        numbers = itertools.count()

        async def tell() -> None:
            await ctx.emit("progress", {"execution": execution, "n": next(numbers), "attempt": ctx.attempt})

        await tell()
        for number in range(plan["events"]):
            await tell()
            await ctx.emit("assistant.delta", {"content": f"{number} "})
            if number % 10 == 0:
                await asyncio.sleep(plan["pause"])
        tokens = []
        for number in range(1, plan["rounds"] + 1):

            def work(key: str = f"work#{number}") -> str:
                token = uuid.uuid4().hex
                append_line("effects", ctx.run_id, key, ctx.attempt, token)
                return token

            tokens.append(await ctx.step("work", work))
            await tell()
            await asyncio.sleep(plan["pause"])
        answers = [await ctx.interrupt({"question": number}) for number in range(plan["questions"])]
        child = {"rounds": 2, "pause": plan["pause"]}
        outputs = await asyncio.gather(*(ctx.run_agent("mixed", [], params=child) for _ in range(plan["children"])))
        if ctx.attempt < plan["fails_until"]:
            raise RetryAfter(0.05, "not yet")
        if plan["refuses"]:
            raise DoNotRetry("never")
        if plan["poison"]:
            os._exit(9)
        if plan["for_ever"]:
            await asyncio.sleep(3600)
        await tell()
        return {
            "tokens": tokens,
            "answers": answers,
            "children": [output["final_output"]["tokens"] for output in outputs],
            "told": next(numbers),
        }


class Gated(AgentRuntime):
    """Does a step, and then waits for a file that the test makes."""

    key = "gated"
    retry = RetryPolicy(max_attempts=3, initial_backoff=0.01)

    async def run(self, ctx: RunContext) -> Any:
        append_line("executions", ctx.run_id, ctx.attempt, os.getpid())
        await ctx.step("work", lambda: append_line("effects", ctx.run_id, "work#1", ctx.attempt, os.getpid()))
        await ctx.emit("begun", {"pid": os.getpid()})
        try:
            await until_file("go-on")
        except asyncio.CancelledError:
            append_line("cancelled", ctx.run_id, ctx.attempt, os.getpid())
            raise
        await ctx.emit("ending", {"pid": os.getpid()})
        return {"pid": os.getpid(), "attempt": ctx.attempt}


class Streaming(AgentRuntime):
    """Emits one event after another until there is a file."""

    key = "streaming"
    retry = RetryPolicy(max_attempts=3, initial_backoff=0.01)

    async def run(self, ctx: RunContext) -> Any:
        append_line("executions", ctx.run_id, ctx.attempt, os.getpid())
        path = get_folder() / "go-on"
        count = 0
        while not path.exists():
            await ctx.emit("number", {"n": count})
            count += 1
            await asyncio.sleep(0.002)
        append_line("returned", ctx.run_id)
        return {"count": count}


class Large(AgentRuntime):
    """Emits more than any buffer between it and a reader holds."""

    key = "large"

    async def run(self, ctx: RunContext) -> Any:
        for number in range(ctx.params["events"]):
            await ctx.emit("large", {"n": number, "text": "x" * 50_000})
        return {}


class Poison(AgentRuntime):
    """Ends the process it is in."""

    key = "poison"
    retry = RetryPolicy(max_attempts=3, initial_backoff=0.01)

    async def run(self, ctx: RunContext) -> Any:
        append_line("executions", ctx.run_id, ctx.attempt, os.getpid())
        if not (get_folder() / "cured").exists():
            os._exit(9)
        return {"attempt": ctx.attempt}


class Failing(AgentRuntime):
    """Fails as code does."""

    key = "failing"

    async def run(self, ctx: RunContext) -> Any:
        raise ValueError("it broke")


class Changed(AgentRuntime):
    """Ends its process in its first attempt, and is other code afterwards: a new step first, the old ones turned."""

    key = "changed"
    retry = RetryPolicy(max_attempts=2, initial_backoff=0.01)

    async def run(self, ctx: RunContext) -> Any:
        names = ["one", "two"] if ctx.attempt == 1 else ["new", "two", "one"]

        def work(name: str) -> str:
            append_line("effects", name, ctx.attempt)
            return f"{name} of attempt {ctx.attempt}"

        results = [await ctx.step(name, partial(work, name)) for name in names]
        if ctx.attempt == 1:
            os._exit(9)
        return {"results": results}


class Idle(AgentRuntime):
    """Waits for ever, and says when it is told to stop."""

    key = "idle"

    async def run(self, ctx: RunContext) -> Any:
        append_line("begun", ctx.run_id)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            append_line("cancelled", ctx.run_id, time.time())
            raise


@function(name="site.work", retry=RetryPolicy(max_attempts=100, initial_backoff=0.05, max_backoff=0.5))
async def work(key: str, ctx: RunContext) -> dict[str, str]:
    """Do something that shows; the token tells this time from others."""
    token = uuid.uuid4().hex
    append_line("effects", ctx.run_id, key, ctx.attempt, token)
    return {"token": token}


def register_agents() -> None:
    """Register all of them."""
    register_runtime(work)
    for kind in (Mixed, Gated, Streaming, Large, Poison, Failing, Changed, Idle):
        register_runtime(kind())
