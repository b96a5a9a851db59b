from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from agents import Agent, LocalShellTool, Model, ModelResponse, RunContextWrapper, Usage, function_tool
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseFunctionWebSearch,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
)
from openai.types.responses.response_function_web_search import ActionSearch
from openai.types.responses.response_output_item import LocalShellCall, LocalShellCallAction

from django_agent_runtime.adapters import OpenAIAgentsRuntime
from django_agent_runtime.runtime.interfaces import RunContext
from django_agent_runtime.testing import arun_agent_locally

# Frameworks warn of their own doings.
pytestmark = pytest.mark.filterwarnings("ignore")


class Scripted(Model):
    def __init__(self) -> None:
        self.inputs: list[Any] = []

    async def get_response(self, *_: Any, **__: Any) -> ModelResponse:
        return ModelResponse(output=[], usage=Usage(), response_id=None)

    async def stream_response(self, *args: Any, **_: Any) -> AsyncIterator[Any]:
        self.inputs.append(args[1])
        if len(self.inputs) == 1:
            call = ResponseFunctionToolCall(
                arguments='{"word": "sun"}', call_id="c1", name="look_up", type="function_call", id="i1"
            )
            yield completed(call)
            return
        for number, word in enumerate(("It ", "shines ", "too.")):
            yield ResponseTextDeltaEvent(
                content_index=0,
                delta=word,
                item_id="m",
                output_index=0,
                sequence_number=number,
                type="response.output_text.delta",
                logprobs=[],
            )
        yield completed(say("It shines too."))


def say(text: str) -> ResponseOutputMessage:
    part = ResponseOutputText(annotations=[], text=text, type="output_text")
    return ResponseOutputMessage(id="m", content=[part], role="assistant", status="completed", type="message")


def completed(*items: Any) -> ResponseCompletedEvent:
    usage = {
        "input_tokens": 5,
        "output_tokens": 2,
        "total_tokens": 7,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    response = {
        "id": "r",
        "created_at": 1.0,
        "model": "x",
        "object": "response",
        "output": items,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }
    return ResponseCompletedEvent(
        response=Response.model_validate(response), sequence_number=9, type="response.completed"
    )


@function_tool
async def look_up(wrapper: RunContextWrapper[RunContext], word: str) -> str:
    await wrapper.context.emit("seen.by.the.tool", {})
    return f"{word} is bright"


async def test_agent_tells_the_story(story: Any) -> None:
    model = Scripted()
    agent = Agent(name="a", model=model, tools=[look_up])
    run = await arun_agent_locally(OpenAIAgentsRuntime("o", agent), story.earlier)
    story.check(run)
    kinds = [item.get("type") or item["role"] for item in model.inputs[0]]
    assert kinds == ["system", "user", "function_call", "function_call_output", "assistant", "user"]
    assert run.result is not None
    assert run.result.usage == {"input_tokens": 10, "output_tokens": 4, "total_tokens": 14}


class Searching(Scripted):
    async def stream_response(self, *args: Any, **_: Any) -> AsyncIterator[Any]:
        self.inputs.append(args[1])
        if len(self.inputs) > 1:
            yield completed(say("Found it."))
            return
        search = ActionSearch(query="sun", type="search")
        command = LocalShellCallAction(command=["ls"], env={}, type="exec")
        yield completed(
            ResponseFunctionWebSearch(id="ws_1", action=search, status="completed", type="web_search_call"),
            ResponseFunctionToolCall(arguments='{"word": "sun"}', call_id="c1", name="look_up", type="function_call"),
            LocalShellCall(id="sh_1", action=command, call_id="c2", status="completed", type="local_shell_call"),
        )


async def test_hosted_tools_are_told_but_leave_no_call_without_a_result() -> None:
    model = Searching()
    agent = Agent(name="a", model=model, tools=[look_up, LocalShellTool(executor=lambda _: "a file")])
    adapted = OpenAIAgentsRuntime("o", agent)
    run = await arun_agent_locally(adapted, "Search")
    assert [call["tool"] for call in run.get_payloads("tool.call")] == [
        "web_search_call",
        "look_up",
        "local_shell_call",
    ]
    assert run.result is not None
    added = run.result.final_messages
    assert [message["role"] for message in added] == ["assistant", "tool", "assistant"]
    assert [call["id"] for call in added[0]["tool_calls"]] == ["c1"]
    assert added[1] == {"role": "tool", "tool_call_id": "c1", "content": "sun is bright"}

    said = [{"role": "user", "content": "Search"}, *added, {"role": "user", "content": "Again"}]
    await arun_agent_locally(adapted, said)
    kinds = [item.get("type") or item["role"] for item in model.inputs[-1]]
    assert kinds == ["user", "function_call", "function_call_output", "assistant", "user"]
