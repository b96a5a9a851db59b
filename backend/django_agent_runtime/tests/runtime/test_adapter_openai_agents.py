from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from agents import Agent, Model, ModelResponse, RunContextWrapper, Usage, function_tool
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
)

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
        text = ResponseOutputText(annotations=[], text="It shines too.", type="output_text")
        yield completed(
            ResponseOutputMessage(id="m", content=[text], role="assistant", status="completed", type="message")
        )


def completed(item: Any) -> ResponseCompletedEvent:
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
        "output": [item],
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
