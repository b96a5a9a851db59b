"""Anthropic, whose messages are made of blocks: both ways between those and the neutral format."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from django_agent_runtime.runtime.llm.client import (
    LLMClient,
    LLMRequest,
    LLMResponse,
    LLMStream,
    make_message,
    make_usage,
    text_of,
)
from django_agent_runtime.runtime.llm.errors import ModelRejected, translate_errors

__all__ = ["AnthropicClient", "read_message", "write_messages"]

# The API wants a limit in each request.
_MAX_TOKENS = 4096
_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "refusal": "content_filter",
}
_THINKING = {"thinking", "redacted_thinking"}


class AnthropicClient(LLMClient):
    """Asks through `anthropic.AsyncAnthropic`."""

    provider = "anthropic"

    def __init__(self, model: str, get_sdk: Callable[[], Any]) -> None:
        """`get_sdk` gives the SDK's client of the running event loop."""
        super().__init__(model)
        self._get_sdk = get_sdk

    async def _complete(self, request: LLMRequest) -> LLMResponse:
        # The SDK refuses to wait for an answer that may be long, unless it comes as a stream.
        async with aclosing(LLMStream(self._stream(request), None)) as answer:
            return await answer.get_response()

    async def _stream(self, request: LLMRequest) -> AsyncIterator[str | LLMResponse]:
        message = None
        with translate_errors(self.provider, request.model):
            async with self._get_sdk().messages.stream(**_write_request(request)) as stream:
                async for event in stream:
                    if event.type == "text" and event.text:
                        yield event.text
                    elif event.type == "message_stop":
                        message = event.message
            if message is None:
                raise EOFError("the stream ended before the answer did")
            yield read_message(message)


def read_message(message: Any) -> LLMResponse:
    """An answer in the neutral format."""
    text = "".join(block.text for block in message.content if block.type == "text")
    calls = [
        {
            "id": block.id,
            "type": "function",
            "function": {"name": block.name, "arguments": json.dumps(block.input, ensure_ascii=False)},
        }
        for block in message.content
        if block.type == "tool_use"
    ]
    made = make_message(text, calls)
    if thinking := [block.to_dict(mode="json") for block in message.content if block.type in _THINKING]:
        made["thinking_blocks"] = thinking
    return LLMResponse(
        made,
        make_usage(message.usage.input_tokens, message.usage.output_tokens),
        message.model,
        _FINISH_REASONS.get(message.stop_reason or "end_turn", message.stop_reason),
        message,
    )


def write_messages(messages: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The system's text, and the messages as Anthropic wants them: user and assistant by turns."""
    system: list[str] = []
    written: list[dict[str, Any]] = []
    for message in messages:
        role = message.get("role")
        if role in {"system", "developer"}:
            system.append(text_of(message.get("content")))
            continue
        blocks = _write_blocks(message)
        if not blocks:
            continue
        speaker = "assistant" if role == "assistant" else "user"
        if written and written[-1]["role"] == speaker:
            # Such as the results of several tools, which answer one message.
            written[-1]["content"].extend(blocks)
        else:
            written.append({"role": speaker, "content": blocks})
    return "\n\n".join(filter(None, system)), written


def _write_request(request: LLMRequest) -> dict[str, Any]:
    system, messages = write_messages(request.messages)
    options: dict[str, Any] = {
        "model": request.model,
        "messages": messages,
        "max_tokens": request.max_tokens or _MAX_TOKENS,
    }
    if system:
        options["system"] = system
    if request.tools:
        options["tools"] = [_write_tool(tool["function"]) for tool in request.tools]
    options.update(request.options)
    if request.temperature is not None:
        # The SDK no longer has a name for it, and models before Claude 5 take it.
        options["extra_body"] = {"temperature": request.temperature, **options.get("extra_body", {})}
    if "tool_choice" in options:
        options["tool_choice"] = _write_tool_choice(options["tool_choice"])
    if "stop" in options:
        stop = options.pop("stop")
        options["stop_sequences"] = [stop] if isinstance(stop, str) else list(stop)
    return options


def _write_tool(function: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": function["name"],
        "description": function.get("description", ""),
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }


def _write_tool_choice(choice: Any) -> Any:
    if isinstance(choice, str):
        return {"type": {"required": "any"}.get(choice, choice)}
    if isinstance(choice, Mapping) and choice.get("type") == "function":
        return {"type": "tool", "name": choice["function"]["name"]}
    return choice


def _write_blocks(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    if message.get("role") == "tool":
        return [{"type": "tool_result", "tool_use_id": message.get("tool_call_id", ""), "content": text_of(content)}]
    blocks = _write_content(content)
    for call in message.get("tool_calls") or ():
        function = call["function"]
        arguments = _read_arguments(function.get("arguments"), function["name"])
        blocks.append({"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments})
    # What was thought comes first, as it is signed; the API refuses it with nothing after it.
    return [*(message.get("thinking_blocks") or ()), *blocks] if blocks else []


def _read_arguments(arguments: Any, name: str) -> Any:
    if not isinstance(arguments, str):
        return arguments or {}
    try:
        return json.loads(arguments) if arguments.strip() else {}
    except ValueError as error:
        raise ModelRejected(f"the conversation has a call of tool {name!r} whose arguments are not JSON") from error


def _write_content(content: Any) -> list[dict[str, Any]]:
    if not isinstance(content, list):
        text = text_of(content)
        # An empty block is refused.
        return [{"type": "text", "text": text}] if text else []
    return [_write_part(part) for part in content]


def _write_part(part: Any) -> dict[str, Any]:
    """A part of a message: OpenAI's images become Anthropic's, and what is Anthropic's already stays."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if part.get("type") != "image_url":
        return dict(part)
    image = part["image_url"]
    url = image if isinstance(image, str) else image["url"]
    if not url.startswith("data:"):
        return {"type": "image", "source": {"type": "url", "url": url}}
    kind, _, data = url.removeprefix("data:").partition(",")
    source = {"type": "base64", "media_type": kind.removesuffix(";base64"), "data": data}
    return {"type": "image", "source": source}
