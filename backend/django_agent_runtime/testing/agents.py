"""Run an agent where no runtime is: for unit tests of the agent's own code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django_agent_runtime._codec import encode
from django_agent_runtime.runtime.decorators import FunctionAgent
from django_agent_runtime.runtime.errors import Parked
from django_agent_runtime.runtime.execution import execute_agent
from django_agent_runtime.runtime.interfaces import AgentRuntime
from django_agent_runtime.runtime.local import LocalEvent, LocalRun, LocalRunContext

__all__ = ["LocalEvent", "LocalRun", "arun_agent_locally", "run_agent_locally"]

Agent = AgentRuntime | type[AgentRuntime] | Callable[[Any], Any]


def run_agent_locally(agent: Agent, messages: Sequence[Any] | str = (), **options: Any) -> LocalRun:
    """As `arun_agent_locally`, for tests that are no coroutines."""
    return asyncio.run(arun_agent_locally(agent, messages, **options))


async def arun_agent_locally(
    agent: Agent,
    messages: Sequence[Any] | str = (),
    *,
    params: Mapping[str, Any] | None = None,
    input: Mapping[str, Any] | None = None,  # noqa: A002  # the run's own name for it
    metadata: Mapping[str, Any] | None = None,
    conversation_id: str | None = None,
    attempt: int = 1,
    answers: Sequence[Any] = (),
    steps: Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
    agents: Mapping[str, Agent] | None = None,
    run_id: str | None = None,
    run: LocalRun | None = None,
) -> LocalRun:
    """Do one attempt of a run in this process, in memory, and return all that the agent did.

    Nothing is queued, leased, retried or timed out here: `GoRuntimeProcess` and a worker show that.

    Args:
        agent: An agent, a class of agents, or a function of the context.
        messages: The conversation; a text is what the user says.
        params: The run's parameters.
        input: Its whole input, in place of messages and params.
        metadata: Its metadata.
        conversation_id: Its conversation.
        attempt: What the agent is told.
        answers: To the questions of `ctx.interrupt`, in order. With one too few the run ends as `waiting`.
        steps: Records of an earlier run (`LocalRun.steps`), which are replayed as after a crash or an interrupt.
        state: The checkpoint of an earlier run.
        agents: Those that `ctx.run_agent` finds, by key, before the registered ones.
        run_id: That of an earlier attempt; None: a new one.
        run: Where to keep what happens, for a test that needs it when the agent raises.

    Raises:
        Exception: Whatever the agent raises.
        ValueError: What it returned or emitted is not JSON.
    """
    made = _make_agent(agent)
    said: list[Any] = [{"role": "user", "content": messages}] if isinstance(messages, str) else [*messages]
    run = LocalRun() if run is None else run
    run.run_id = run_id or run.run_id
    run.steps.update(steps or {})
    run.checkpoint = dict(state) if state is not None else run.checkpoint
    ctx = LocalRunContext(
        made.key,
        {"messages": said, "params": dict(params or {})} if input is None else input,
        run=run,
        metadata=metadata,
        conversation_id=conversation_id,
        attempt=attempt,
        answers=answers,
        agents={key: _make_agent(other, key) for key, other in (agents or {}).items()},
    )
    try:
        run.result = await execute_agent(made, ctx)
    except Parked:
        run.state = "waiting"
    else:
        # What a worker could not report must fail here too.
        encode(run.result.to_dict(), "output")
    return run


def _make_agent(given: Agent, key: str | None = None) -> AgentRuntime:
    if isinstance(given, AgentRuntime):
        return given
    return given() if isinstance(given, type) else FunctionAgent(given, key=key)
