"""The stand-in where no provider is configured: it answers from what it is asked, the same each time, and says so."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from django_agent_runtime.runtime.llm.client import (
    LLMClient,
    LLMRequest,
    LLMResponse,
    make_message,
    make_usage,
    text_of,
)

__all__ = ["OfflineClient"]

_SHOWN = 500


class OfflineClient(LLMClient):
    """Answers without a model.

    Where tools are offered and what the user said last names one, it calls that once, and then reports the result.
    """

    provider = "offline"

    def __init__(self, missing: str = "") -> None:
        """`missing` says what to set to get a model."""
        super().__init__("offline")
        self._missing = missing

    async def _complete(self, request: LLMRequest) -> LLMResponse:
        return self._answer(request)

    async def _stream(self, request: LLMRequest) -> AsyncIterator[str | LLMResponse]:
        response = self._answer(request)
        for word in re.findall(r"\s*\S+\s*?", response.content):
            # As a provider would, leave the others their turn.
            await asyncio.sleep(0)
            yield word
        yield response

    def _answer(self, request: LLMRequest) -> LLMResponse:
        said, results = _read_turn(request.messages)
        tool = None if results else _find_tool(request.tools, said)
        if tool is None:
            return LLMResponse(make_message(self._write(said, results), []), make_usage(0, 0), self.model)
        arguments = _make_value(tool.get("parameters") or {}, said)
        function = {"name": tool["name"], "arguments": json.dumps(arguments, ensure_ascii=False)}
        call = {"id": f"call_offline_{len(request.messages)}", "type": "function", "function": function}
        return LLMResponse(make_message(None, [call]), make_usage(0, 0), self.model, "tool_calls")

    def _write(self, said: str, results: list[str]) -> str:
        parts = ["This is an offline stand-in for a language model, because none is configured."]
        if self._missing:
            parts.append(self._missing)
        if said:
            parts.append(f"You said: {_shorten(said)}")
        parts.extend(f"The tool returned: {_shorten(result)}" for result in results)
        return "\n\n".join(parts)


def _read_turn(messages: list[dict[str, Any]]) -> tuple[str, list[str]]:
    """What the user said last, and what tools have returned since."""
    results: list[str] = []
    for message in reversed(messages):
        if message.get("role") == "user":
            return text_of(message.get("content")), results[::-1]
        if message.get("role") == "tool":
            results.append(text_of(message.get("content")))
    return "", results[::-1]


def _find_tool(tools: list[dict[str, Any]], said: str) -> dict[str, Any] | None:
    words = _plain(said)
    functions = [tool.get("function") or {} for tool in tools]
    return next((f for f in functions if f.get("name") and f" {_plain(f['name'])} " in f" {words} "), None)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def _make_value(schema: Mapping[str, Any], said: str) -> Any:
    """A value that fits simple schemas; of an object, what is required."""
    if "default" in schema:
        return schema["default"]
    for key in ("enum", "examples"):
        if schema.get(key):
            return schema[key][0]
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        return {name: _make_value(properties.get(name, {}), said) for name in schema.get("required", ())}
    if kind in {"integer", "number"}:
        return int(next(iter(re.findall(r"\d{1,9}", said)), 1))
    return {"boolean": True, "array": [], "null": None}.get(str(kind), said)


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
