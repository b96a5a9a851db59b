"""OpenAI, and whatever speaks its chat completions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from django_agent_runtime.runtime.llm.client import (
    LLMClient,
    LLMRequest,
    LLMResponse,
    make_message,
    make_usage,
    text_of,
)
from django_agent_runtime.runtime.llm.errors import translate_errors

__all__ = ["Assembler", "OpenAIClient", "read_completion", "write_messages"]

_MESSAGE_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id")


class OpenAIClient(LLMClient):
    """Asks through `openai.AsyncOpenAI`."""

    provider = "openai"

    def __init__(self, model: str, get_sdk: Callable[[], Any]) -> None:
        """`get_sdk` gives the SDK's client of the running event loop."""
        super().__init__(model)
        self._get_sdk = get_sdk

    async def _complete(self, request: LLMRequest) -> LLMResponse:
        sdk = self._get_sdk()
        with translate_errors(self.provider, request.model):
            return read_completion(await sdk.chat.completions.create(**_write_request(request, sdk)))

    async def _stream(self, request: LLMRequest) -> AsyncIterator[str | LLMResponse]:
        sdk = self._get_sdk()
        whole = Assembler(request.model)
        with translate_errors(self.provider, request.model):
            options = {"stream_options": {"include_usage": True}, **_write_request(request, sdk)}
            stream = await sdk.chat.completions.create(stream=True, **options)
            async with stream:
                async for chunk in stream:
                    if text := whole.add(chunk):
                        yield text
            yield whole.finish()


class Assembler:
    """An answer put together from chunks, each of which has the next of several things."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._text: list[str] = []
        self._calls: list[dict[str, str]] = []
        # The call that a piece goes on with, by the piece's index.
        self._latest: dict[int | None, dict[str, str]] = {}
        self._finish_reason = ""
        self._usage = make_usage(0, 0)
        self._is_whole = False

    def add(self, chunk: Any) -> str:
        """The text that a chunk adds."""
        self._model = getattr(chunk, "model", None) or self._model
        usage = getattr(chunk, "usage", None)
        if usage is not None:
            self._usage = make_usage(usage.prompt_tokens, usage.completion_tokens)
            # Some servers give no reason, but the count without a choice is the last that any sends.
            self._is_whole = self._is_whole or not chunk.choices
        for choice in chunk.choices or ():
            if choice.index:
                continue
            self._finish_reason = choice.finish_reason or self._finish_reason
            delta = choice.delta
            for part in getattr(delta, "tool_calls", None) or ():
                self._add_call(part)
            text = getattr(delta, "content", None) or getattr(delta, "refusal", None) or ""
            if text:
                self._text.append(text)
            return text
        return ""

    def finish(self) -> LLMResponse:
        """The whole of it.

        Raises:
            EOFError: It was broken off: neither a reason to finish nor the closing usage has come. The SDK keeps
                `[DONE]` to itself, so a server that sends nothing else at the end cannot be told from one that broke.
        """
        if not (self._finish_reason or self._is_whole):
            raise EOFError("the stream ended before the answer did")
        calls = [
            _make_call(position, call["id"], call["name"], call["arguments"])
            for position, call in enumerate(self._calls)
        ]
        reason = self._finish_reason or ("tool_calls" if calls else "stop")
        return LLMResponse(make_message("".join(self._text), calls), self._usage, self._model, reason)

    def _add_call(self, part: Any) -> None:
        """Add a piece to its call. Not every server numbers its calls or gives them ids."""
        index = getattr(part, "index", None)
        name = getattr(part.function, "name", None) or ""
        call = self._latest.get(index)
        # Another id with a name is another call; without an id, so is a name after arguments.
        is_other = part.id != call["id"] if call and part.id else bool(call and call["arguments"])
        if call is None or (name and is_other):
            call = {"id": part.id or "", "name": "", "arguments": ""}
            self._calls.append(call)
        self._latest[index] = self._latest[None] = call
        call["name"] += name
        call["arguments"] += getattr(part.function, "arguments", None) or ""


def read_completion(completion: Any) -> LLMResponse:
    """An answer that came at once."""
    choice = completion.choices[0]
    calls = [
        _make_call(position, call.id, call.function.name, call.function.arguments)
        for position, call in enumerate(choice.message.tool_calls or ())
        if getattr(call, "function", None) is not None
    ]
    text = choice.message.content or getattr(choice.message, "refusal", None)
    usage = completion.usage
    return LLMResponse(
        make_message(text, calls),
        make_usage(getattr(usage, "prompt_tokens", 0), getattr(usage, "completion_tokens", 0)),
        completion.model or "",
        choice.finish_reason or "stop",
        completion,
    )


def write_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages with nothing that the API would refuse."""
    written = []
    for message in messages:
        known = {key: message[key] for key in _MESSAGE_KEYS if message.get(key) is not None}
        known.setdefault("content", None)
        if message.get("role") == "tool":
            known["content"] = text_of(message.get("content"))
        elif message.get("role") != "assistant" and known["content"] is None:
            known["content"] = ""
        if known.get("tool_calls"):
            known["tool_calls"] = [_write_call(call) for call in known["tool_calls"]]
        else:
            known.pop("tool_calls", None)
        written.append(known)
    return written


def write_options(request: LLMRequest) -> dict[str, Any]:
    """What all of OpenAI's kin take by the same name."""
    options: dict[str, Any] = {"model": request.model, "messages": write_messages(request.messages)}
    if request.tools:
        options["tools"] = request.tools
    if request.temperature is not None:
        options["temperature"] = request.temperature
    return options


def _make_call(position: int, call_id: str | None, name: str, arguments: str | None) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments or "{}"}
    return {"id": call_id or f"call_{position}", "type": "function", "function": function}


def _write_request(request: LLMRequest, sdk: Any) -> dict[str, Any]:
    options = write_options(request)
    if request.max_tokens is not None:
        # OpenAI's newer models take the new name only, and others' servers know the old one.
        is_openai = (urlsplit(str(sdk.base_url)).hostname or "").endswith("api.openai.com")
        options["max_completion_tokens" if is_openai else "max_tokens"] = request.max_tokens
    return {**options, **request.options}


def _write_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
    return {
        "id": call.get("id", ""),
        "type": "function",
        "function": {"name": function.get("name", ""), "arguments": text or "{}"},
    }
