"""Run an agent's code: the one way in for whoever has a context, be it a worker or a test."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from django_agent_runtime.runtime._threads import is_async, start_thread
from django_agent_runtime.runtime.current import use_context
from django_agent_runtime.runtime.errors import ControlFlow
from django_agent_runtime.runtime.interfaces import AgentRuntime, RunResult
from django_agent_runtime.runtime.sync import SyncRunContext

if TYPE_CHECKING:
    from django_agent_runtime.runtime.interfaces import RunContext

__all__ = ["execute_agent", "run_blocking", "to_run_result"]

# The first of each is what they nearly always are, and the quickest to tell.
_MEMBERS: dict[str, tuple[type, ...]] = {
    "final_output": (dict, Mapping),
    "final_messages": (list, tuple),
    "usage": (dict, Mapping),
    "metadata": (dict, Mapping),
}


async def execute_agent(agent: AgentRuntime, ctx: RunContext) -> RunResult:
    """Do one attempt of a run with `agent`, and return its result.

    `current_context` is `ctx` meanwhile. An agent whose `run` is a plain function runs in a thread of its own with a
    `SyncRunContext`. When this is cancelled it ends once the agent's code is gone: an `async` agent's at its next
    `await`, a plain one's at the next thing it asks of its context.

    Raises:
        ControlFlow: `Parked`, also where a task group of the agent has wrapped it.
        asyncio.CancelledError: The attempt is over for the runtime.
        TypeError: The agent returned what is no result.
        Exception: Whatever the agent raises: the attempt failed.
    """
    with use_context(ctx):
        try:
            if is_async(agent.run):
                result: Any = await agent.run(ctx)
            else:
                result = await run_blocking(agent.run, ctx)
        except BaseException as error:
            flow = find_control_flow(error)
            if flow is None or flow is error:
                raise
            raise flow from error
    return to_run_result(result, agent.key)


async def run_blocking(function: Callable[[Any], Any], ctx: RunContext) -> Any:
    """What a plain function of a context returns, in a thread of its own. Returns only once the thread is done."""
    sync_ctx = SyncRunContext(ctx, asyncio.get_running_loop())
    thread = start_thread(lambda: function(sync_ctx))
    try:
        result = await asyncio.shield(thread)
    except asyncio.CancelledError:
        # The code goes on until it asks for something, and until then the run's place is not free.
        sync_ctx.end()
        while not thread.done():
            try:
                await asyncio.wait([thread])
            except asyncio.CancelledError:
                continue
        thread.exception()
        raise
    # Such as a lambda that calls a coroutine function.
    return await result if inspect.isawaitable(result) else result


def to_run_result(value: Any, agent_key: str = "") -> RunResult:
    """The result that an agent means: a `RunResult`, a dict (the final output), a text (the answer), or None.

    Raises:
        TypeError: Anything else, or a `RunResult` one of whose members is another thing than it should be.
    """
    if isinstance(value, RunResult):
        empty: dict[str, Any] = {}
        for name, kinds in _MEMBERS.items():
            member = getattr(value, name)
            if member is None:
                empty[name] = kinds[0]()
            elif not isinstance(member, kinds):
                wanted = "a list" if list in kinds else "a dict"
                raise TypeError(
                    f"agent {agent_key!r} returned a RunResult whose {name} is {type(member).__name__}; "
                    f"it must be {wanted}"
                )
        return replace(value, **empty) if empty else value
    if value is None:
        return RunResult()
    if isinstance(value, str):
        return RunResult(final_output={"response": value}, final_messages=[{"role": "assistant", "content": value}])
    if isinstance(value, Mapping):
        return RunResult(final_output=dict(value))
    raise TypeError(
        f"agent {agent_key!r} returned {type(value).__name__}; it must be a RunResult, a dict, a str or None"
    )


def find_control_flow(error: BaseException) -> ControlFlow | None:
    """The `ControlFlow` that `error` is, or that is in it if it is an exception group."""
    if isinstance(error, ControlFlow):
        return error
    for part in getattr(error, "exceptions", ()):
        if isinstance(part, BaseException) and (found := find_control_flow(part)) is not None:
            return found
    return None
