"""Agents of the OpenAI Agents SDK."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from agents import Agent, ItemHelpers, RunConfig, Runner
from agents.items import MessageOutputItem, ToolCallItem, ToolCallOutputItem

from django_agent_runtime.adapters._base import AdaptedAgent, Narrator, to_json
from django_agent_runtime.runtime.interfaces import Message, RunContext, RunResult
from django_agent_runtime.runtime.llm.client import make_message, make_usage, text_of

__all__ = ["OpenAIAgentsRuntime"]


class OpenAIAgentsRuntime(AdaptedAgent):
    """Runs an agent with `Runner.run_streamed`; its tools get the `RunContext` as the SDK's context.

    Text becomes `assistant.delta` and `assistant.message`, tools `tool.call` and `tool.result`. Another attempt
    begins anew: what a tool must not do twice it does in `context.step`.
    """

    def __init__(
        self,
        key: str,
        agent: Agent[Any],
        *,
        description: str = "",
        max_attempts: int | None = None,
        max_turns: int = 10,
        run_config: RunConfig | None = None,
    ) -> None:
        """Adapt `agent`.

        Args:
            key: What runs name it by.
            agent: The SDK's agent, from which a run may be handed to others.
            description: For people.
            max_attempts: As in `AgentRuntime`.
            max_turns: How often the model is asked at most.
            run_config: The SDK's. None: its traces are not sent to OpenAI.
        """
        super().__init__(key, agent, description=description, max_attempts=max_attempts)
        self._agent = agent
        self._max_turns = max_turns
        self._run_config = run_config or RunConfig(tracing_disabled=True)

    async def run(self, ctx: RunContext) -> RunResult:
        """Stream the agent until its end."""
        result = Runner.run_streamed(
            self._agent,
            _to_items(ctx.input_messages),
            context=ctx,
            max_turns=self._max_turns,
            run_config=self._run_config,
        )
        try:
            await _narrate(result, Narrator(ctx))
        except BaseException:
            # Its loop is a task of its own, which would go on.
            result.cancel()
            raise
        usage = result.context_wrapper.usage
        output = to_json(result.final_output)
        return RunResult(
            final_output=output if isinstance(output, dict) else {"response": output},
            final_messages=_to_messages(result.new_items),
            usage=make_usage(usage.input_tokens, usage.output_tokens),
        )


async def _narrate(result: Any, narrator: Narrator) -> None:
    async for event in result.stream_events():
        if event.type == "raw_response_event":
            if event.data.type == "response.output_text.delta":
                await narrator.add_text(event.data.delta)
        elif event.type == "run_item_stream_event":
            item = event.item
            if isinstance(item, MessageOutputItem):
                await narrator.finish_message(ItemHelpers.text_message_output(item))
            elif isinstance(item, ToolCallItem):
                await narrator.call_tool(*_read_call(item))
            elif isinstance(item, ToolCallOutputItem):
                await narrator.finish_tool(_get(item.raw_item, "call_id"), item.output)


def _to_items(messages: Iterable[Message]) -> list[Any]:
    """The conversation as the Responses API has it: calls and results are items beside the messages."""
    items: list[Any] = []
    for message in messages:
        content = message.get("content")
        if message["role"] == "tool":
            call_id = message.get("tool_call_id", "")
            items.append({"type": "function_call_output", "call_id": call_id, "output": text_of(content)})
            continue
        if content:
            items.append({"role": message["role"], "content": text_of(content)})
        for call in message.get("tool_calls") or ():
            function = call["function"]
            arguments = function["arguments"]
            text = arguments if isinstance(arguments, str) else json.dumps(arguments)
            items.append({"type": "function_call", "call_id": call["id"], "name": function["name"], "arguments": text})
    return items


def _to_messages(items: Iterable[Any]) -> list[Any]:
    """The messages, and the functions that were called; of the SDK's own tools some have no result to add."""
    messages: list[Any] = []
    for item in items:
        if isinstance(item, MessageOutputItem):
            messages.append(make_message(ItemHelpers.text_message_output(item), []))
        elif isinstance(item, ToolCallItem) and _get(item.raw_item, "type") == "function_call":
            name, arguments, call_id = _read_call(item)
            call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
            if messages and messages[-1].get("tool_calls"):
                # Calls that the model made at once are one message.
                messages[-1]["tool_calls"].append(call)
            else:
                messages.append(make_message(None, [call]))
        elif isinstance(item, ToolCallOutputItem) and _get(item.raw_item, "type") == "function_call_output":
            content = text_of(to_json(item.output))
            messages.append({"role": "tool", "tool_call_id": _get(item.raw_item, "call_id"), "content": content})
    return messages


def _read_call(item: ToolCallItem) -> tuple[str, str, str]:
    """Name, arguments and id of a call; the SDK's own tools have a type for a name."""
    raw = item.raw_item
    name = _get(raw, "name") or _get(raw, "type")
    return name, _get(raw, "arguments") or "{}", _get(raw, "call_id") or _get(raw, "id")


def _get(raw: Any, name: str) -> str:
    return str((raw.get(name) if isinstance(raw, Mapping) else getattr(raw, name, None)) or "")
