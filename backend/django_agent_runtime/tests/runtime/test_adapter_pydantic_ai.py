from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai import RunContext as PydanticContext
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

from django_agent_runtime.adapters import PydanticAIRuntime
from django_agent_runtime.runtime.interfaces import RunContext
from django_agent_runtime.testing import arun_agent_locally

# Frameworks warn of their own doings.
pytestmark = pytest.mark.filterwarnings("ignore")


async def test_agent_tells_the_story(story: Any) -> None:
    seen: list[list[Any]] = []

    async def respond(messages: list[Any], info: AgentInfo) -> AsyncIterator[Any]:
        seen.append(messages)
        if len(seen) == 1:
            yield {0: DeltaToolCall(name="look_up", json_args='{"word": ', tool_call_id="c1")}
            yield {0: DeltaToolCall(json_args='"sun"}')}
        else:
            for word in ("It ", "shines ", "too."):
                yield word

    agent = Agent(FunctionModel(stream_function=respond), deps_type=RunContext)

    @agent.tool
    async def look_up(ctx: PydanticContext[RunContext], word: str) -> str:
        await ctx.deps.emit("seen.by.the.tool", {})
        return f"{word} is bright"

    run = await arun_agent_locally(PydanticAIRuntime("p", agent, description="d"), story.earlier)
    story.check(run)
    kinds = [[part.part_kind for part in message.parts] for message in seen[0]]
    assert kinds == [["system-prompt", "user-prompt"], ["tool-call"], ["tool-return"], ["text"], ["user-prompt"]]
    assert run.result is not None
    assert run.result.usage["output_tokens"] > 0
