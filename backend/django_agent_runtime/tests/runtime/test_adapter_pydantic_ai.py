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


async def test_system_prompt_reaches_the_model_in_every_turn() -> None:
    seen: list[list[Any]] = []

    async def respond(messages: list[Any], info: AgentInfo) -> AsyncIterator[Any]:
        seen.append([(part.part_kind, part.content) for message in messages for part in message.parts])
        yield "Aye."

    agent = Agent(FunctionModel(stream_function=respond), deps_type=RunContext, system_prompt="Talk like a pirate.")
    written: list[Any] = []

    @agent.system_prompt(dynamic=True)
    def name_the_run(ctx: PydanticContext[RunContext]) -> str:
        written.append(ctx.prompt)
        return f"This is {ctx.deps.run_id}, number {len(written)}."

    adapted = PydanticAIRuntime("p", agent)
    first = await arun_agent_locally(adapted, "Hello")
    prompts = [
        ("system-prompt", "Talk like a pirate."),
        ("system-prompt", f"This is {first.run_id}, number 1."),
    ]
    assert seen[0] == [*prompts, ("user-prompt", "Hello")]
    assert first.result is not None
    assert first.result.final_messages == [{"role": "assistant", "content": "Aye."}]

    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        *first.result.final_messages,
        {"role": "user", "content": [{"type": "text", "text": "Again"}]},
    ]
    second = await arun_agent_locally(adapted, said)
    prompts[1] = ("system-prompt", f"This is {second.run_id}, number 2.")
    assert seen[1] == [
        *prompts,
        ("system-prompt", "Be brief."),
        ("user-prompt", "Hello"),
        ("text", "Aye."),
        ("user-prompt", "Again"),
    ]
    assert written == ["Hello", "Again"]
    assert second.result is not None
    assert second.result.final_messages == [{"role": "assistant", "content": "Aye."}]


ASKED: dict[str, Any] = {"role": "user", "content": "Look it up."}
CALLED: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c0", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}],
}
RETURNED: dict[str, Any] = {"role": "tool", "tool_call_id": "c0", "content": "bright"}


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        ([], []),
        ([ASKED, CALLED, RETURNED], ["user-prompt", "tool-call", "tool-return"]),
        ([CALLED, RETURNED], ["tool-call", "tool-return"]),
    ],
)
async def test_system_prompt_comes_first_however_the_conversation_ends(said: list[Any], kinds: list[str]) -> None:
    seen: list[str] = []

    async def respond(messages: list[Any], info: AgentInfo) -> AsyncIterator[Any]:
        seen.extend(part.part_kind for message in messages for part in message.parts)
        yield "Bright."

    agent = Agent(FunctionModel(stream_function=respond), system_prompt="Be kind.")
    run = await arun_agent_locally(PydanticAIRuntime("p", agent), said)
    assert seen == ["system-prompt", *kinds]
    assert run.result is not None
    assert run.result.final_messages == [{"role": "assistant", "content": "Bright."}]
