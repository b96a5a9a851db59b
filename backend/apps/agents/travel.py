"""An agent that streams its answer and uses tools."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Literal

from django_agent_runtime.runtime.interfaces import (
    AgentRuntime,
    EventType,
    RunContext,
    RunResult,
    ToolError,
    ToolRegistry,
)
from django_agent_runtime.runtime.llm import get_llm_client
from django_agent_runtime.runtime.registry import register_runtime

if TYPE_CHECKING:
    from django_agent_runtime.runtime.interfaces import Message
    from django_agent_runtime.runtime.llm import LLMClient, LLMResponse

City = Literal["Rome", "Oslo", "Lima"]
WEATHER = {"Rome": "sunny, 24 °C", "Oslo": "snow, -3 °C", "Lima": "fog, 17 °C"}
TRAINS = {"Rome": "09:12, 11:40 and 16:05", "Oslo": "07:30 and 19:00", "Lima": "none: take a bus"}
# The offline model has its whole answer at once; a real one takes about as long for a word.
OFFLINE_WORD_SECONDS = 0.04
MAX_TURNS = 8


def get_weather(city: City) -> str:
    """Get the weather of a city.

    Args:
        city: Where.
    """
    return f"{city}: {WEATHER[city]}"


def find_trains(city: City) -> str:
    """Find the trains to a city that leave today.

    Args:
        city: Where to.
    """
    return f"Trains to {city}: {TRAINS[city]}"


class TravelAgent(AgentRuntime):
    """Streams what the model says, word by word, and makes the calls that it asks for."""

    description = "Streams its answer and uses tools. Offline, it calls the tool you name: try “get weather”."

    def __init__(self) -> None:
        self.tools = ToolRegistry()
        self.tools.register(get_weather)
        self.tools.register(find_trains)

    @property
    def key(self) -> str:
        """Its name in requests."""
        return "travel-agent"

    async def run(self, ctx: RunContext) -> RunResult:
        """Ask the model until it wants no more tools."""
        llm = get_llm_client()
        messages = list(ctx.input_messages)
        for _ in range(MAX_TURNS):
            response = await self._stream(ctx, llm, messages)
            messages.append(response.message)
            if not response.tool_calls:
                await ctx.emit(EventType.ASSISTANT_MESSAGE, {"content": response.content})
                break
            messages += [await self._call_tool(ctx, call["id"], **call["function"]) for call in response.tool_calls]
        return RunResult(final_output={"response": messages[-1]["content"]}, final_messages=messages)

    async def _stream(self, ctx: RunContext, llm: LLMClient, messages: list[Message]) -> LLMResponse:
        async with aclosing(llm.stream(messages, tools=self.tools.to_openai_format(), ctx=ctx)) as stream:
            async for _ in stream:
                if llm.provider == "offline":
                    await asyncio.sleep(OFFLINE_WORD_SECONDS)
            return await stream.get_response()

    async def _call_tool(self, ctx: RunContext, tool_call_id: str, name: str, arguments: str) -> Message:
        await ctx.emit(EventType.TOOL_CALL, {"tool": name, "arguments": arguments, "tool_call_id": tool_call_id})
        try:
            result = str(await self.tools.execute(name, arguments))
        except ToolError as error:
            # The model may do better when it is told.
            result = f"Error: {error}"
        await ctx.emit(EventType.TOOL_RESULT, {"tool": name, "result": result, "tool_call_id": tool_call_id})
        return {"role": "tool", "tool_call_id": tool_call_id, "content": result}


def register_agents() -> None:
    """What RUNTIME_REGISTRY of the settings calls."""
    register_runtime(TravelAgent())
