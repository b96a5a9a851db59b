"""Agents of Pydantic AI."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import (
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    PartDeltaEvent,
    PartStartEvent,
    RetryPromptPart,
    SystemPromptPart,
    TextPart,
    TextPartDelta,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from django_agent_runtime.adapters._base import AdaptedAgent, Narrator, to_json
from django_agent_runtime.runtime.interfaces import Message, RunContext, RunResult
from django_agent_runtime.runtime.llm.client import make_message, make_usage, text_of

__all__ = ["PydanticAIRuntime"]


class PydanticAIRuntime(AdaptedAgent):
    """Runs an agent of Pydantic AI; its tools get the `RunContext` as `ctx.deps`.

    Text becomes `assistant.delta` and `assistant.message`, tools `tool.call` and `tool.result`. Another attempt
    begins anew: what a tool must not do twice it does in `ctx.deps.step`. The agent's system prompts come before those
    of the conversation.
    """

    def __init__(
        self,
        key: str,
        agent: Agent[Any, Any],
        *,
        description: str = "",
        max_attempts: int | None = None,
        make_deps: Callable[[RunContext], Any] | None = None,
    ) -> None:
        """Adapt `agent`.

        Args:
            key: What runs name it by.
            agent: The agent.
            description: For people.
            max_attempts: As in `AgentRuntime`.
            make_deps: Makes the agent's dependencies of the context; None: they are the context.
        """
        super().__init__(key, agent, description=description, max_attempts=max_attempts)
        self._agent = agent
        self._make_deps = make_deps

    async def run(self, ctx: RunContext) -> RunResult:
        """Run the agent to its end."""
        narrator = Narrator(ctx)

        async def tell(_: Any, events: AsyncIterable[Any]) -> None:
            await _narrate(events, narrator)

        deps = ctx if self._make_deps is None else self._make_deps(ctx)
        messages = ctx.input_messages
        # Pydantic AI writes its system prompts only where there is no history.
        prompts = await self._agent.system_prompt_parts(
            deps=deps,
            message_history=_to_history(messages),
            prompt=next((text_of(said.get("content")) for said in reversed(messages) if said["role"] == "user"), None),
        )
        result = await self._agent.run(
            # With their references it would write the dynamic ones a second time.
            message_history=_to_history(messages, [replace(prompt, dynamic_ref=None) for prompt in prompts]),
            deps=deps,
            event_stream_handler=tell,
        )
        # Before version 2 it is a method; since then, calling it is deprecated.
        usage: Any = result.usage
        usage = usage if hasattr(usage, "input_tokens") else usage()
        output = to_json(result.output)
        new = _to_messages(result.new_messages())
        if isinstance(result.output, str):
            await narrator.finish_message(result.output)
        return RunResult(
            final_output=output if isinstance(output, dict) else {"response": output},
            final_messages=new,
            usage=make_usage(usage.input_tokens, usage.output_tokens),
        )


async def _narrate(events: AsyncIterable[Any], narrator: Narrator) -> None:
    event: Any
    async for event in events:
        if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
            await narrator.add_text(event.part.content)
        elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
            await narrator.add_text(event.delta.content_delta)
        elif isinstance(event, FunctionToolCallEvent):
            await narrator.call_tool(event.part.tool_name, event.part.args_as_json_str(), event.part.tool_call_id)
        elif isinstance(event, FunctionToolResultEvent):
            # Before version 2 it is called `result`.
            part = getattr(event, "part", None) or getattr(event, "result", None)
            await narrator.finish_tool(getattr(part, "tool_call_id", ""), getattr(part, "content", None))


def _to_history(messages: Iterable[Message], prompts: Sequence[SystemPromptPart] = ()) -> list[ModelMessage]:
    """The conversation as requests and responses by turns, after the agent's system prompts."""
    history: list[ModelMessage] = [ModelRequest(parts=prompts)] if prompts else []
    names: dict[str, str] = {}
    for message in messages:
        text = text_of(message.get("content"))
        if message["role"] == "assistant":
            said: list[ModelResponsePart] = [TextPart(text)] if text else []
            for call in message.get("tool_calls") or ():
                names[call["id"]] = call["function"]["name"]
                said.append(ToolCallPart(call["function"]["name"], call["function"]["arguments"], call["id"]))
            history.append(ModelResponse(parts=said))
            continue
        asked: ModelRequestPart
        if message["role"] == "tool":
            call_id = message.get("tool_call_id", "")
            asked = ToolReturnPart(names.get(call_id, message.get("name", "")), text, call_id)
        elif message["role"] == "user":
            asked = UserPromptPart(text)
        else:
            asked = SystemPromptPart(text)
        if history and isinstance(history[-1], ModelRequest):
            history[-1] = ModelRequest(parts=[*history[-1].parts, asked])
        else:
            history.append(ModelRequest(parts=[asked]))
    return history


def _to_messages(history: Iterable[ModelMessage]) -> list[Any]:
    """What the agent has added: its responses, and what its tools returned."""
    messages: list[Any] = []
    for message in history:
        if isinstance(message, ModelResponse):
            text = "".join(part.content for part in message.parts if isinstance(part, TextPart))
            calls = [
                {
                    "id": part.tool_call_id,
                    "type": "function",
                    "function": {"name": part.tool_name, "arguments": part.args_as_json_str()},
                }
                for part in message.parts
                if isinstance(part, ToolCallPart)
            ]
            if text or calls:
                messages.append(make_message(text, calls))
            continue
        for part in message.parts:
            if isinstance(part, (ToolReturnPart, RetryPromptPart)):
                content = text_of(to_json(part.content))
                messages.append({"role": "tool", "tool_call_id": part.tool_call_id, "content": content})
    return messages
