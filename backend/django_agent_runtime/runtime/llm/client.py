"""The client's interface, and what every provider's client shares: streaming to the run, and the neutral format."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django_agent_runtime._spans import begin_model, is_traced, span_model
from django_agent_runtime.runtime.current import current_context
from django_agent_runtime.runtime.interfaces import EventType
from django_agent_runtime.runtime.tools import Tool

if TYPE_CHECKING:
    from django_agent_runtime.runtime.interfaces import Message, RunContext

__all__ = ["LLMChunk", "LLMClient", "LLMRequest", "LLMResponse", "LLMStream", "make_message", "make_usage", "text_of"]

Tools = Sequence[Tool | Mapping[str, Any]]


@dataclass
class LLMResponse:
    """A model's whole answer."""

    message: Any
    """The assistant's message, to be added to the conversation as it is.

    Anthropic's has `thinking_blocks` where the model thought, which its API wants back before a tool's result.
    """
    usage: dict[str, int] = field(default_factory=dict)
    """`input_tokens`, `output_tokens` and `total_tokens`; 0 where the provider does not say."""
    model: str = ""
    """The model that answered, as its provider names it; `offline` when none did."""
    finish_reason: str = "stop"
    """`stop`, `tool_calls`, `length` or `content_filter`, or another word of the provider's."""
    raw: Any = field(default=None, repr=False)
    """The SDK's own object, where there is one."""

    @property
    def content(self) -> str:
        """The message's text; empty beside tool calls."""
        return self.message.get("content") or ""

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The tools to call: `{"id", "type": "function", "function": {"name", "arguments"}}`, arguments in JSON."""
        return self.message.get("tool_calls") or []


@dataclass(frozen=True)
class LLMChunk:
    """A part of an answer that is being given."""

    delta: str = ""
    """The text that this adds."""
    response: LLMResponse | None = None
    """In the last chunk: the whole answer."""


@dataclass(frozen=True)
class LLMRequest:
    """What a provider is asked."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    """In OpenAI's format."""
    model: str
    temperature: float | None
    max_tokens: int | None
    options: dict[str, Any]


class LLMStream(AsyncIterator[LLMChunk]):
    """An answer while it is being given: `async for chunk in llm.stream(messages)`.

    The last chunk has the whole answer, which `response` is from then on. Leaving early wants `aclose`, or
    `contextlib.aclosing` around the loop.
    """

    def __init__(self, chunks: AsyncIterator[str | LLMResponse], ctx: RunContext | None) -> None:
        self._chunks = chunks
        self._ctx = ctx
        self.response: LLMResponse | None = None

    async def __anext__(self) -> LLMChunk:
        chunk = await self._chunks.__anext__()
        if isinstance(chunk, LLMResponse):
            self.response = chunk
            return LLMChunk(response=chunk)
        if self._ctx is not None:
            await self._ctx.emit(EventType.ASSISTANT_DELTA, {"content": chunk})
        return LLMChunk(delta=chunk)

    def __await__(self) -> Generator[Any, None, LLMStream]:
        """For code that awaits a stream before it reads it."""
        yield from ()
        return self

    async def get_response(self) -> LLMResponse:
        """Read what is left, and return the whole answer."""
        async for _ in self:
            pass
        assert self.response is not None, "every provider ends with the whole"
        return self.response

    async def aclose(self) -> None:
        """Stop reading, and close what it holds."""
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()


class LLMClient(ABC):
    """Asks one provider. May be kept, shared between runs and used on several event loops.

    Attributes:
        provider: `openai`, `anthropic`, `litellm` or `offline`.
        model: The model that is asked when a call names none.
    """

    provider: str

    def __init__(self, model: str) -> None:
        self.model = model

    async def generate(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        *,
        tools: Tools | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        ctx: RunContext | None = None,
        stream: bool = False,
        **kwargs: Any,
    ) -> LLMResponse:
        """The model's answer to a conversation.

        Args:
            messages: In the framework-neutral format.
            tools: `ToolRegistry.to_openai_format()`, or tools themselves.
            model: None: the client's.
            temperature: None: the provider's default.
            max_tokens: The longest answer; None: the provider's default.
            ctx: The run that the text is emitted to while it comes, as `assistant.delta` with `content`.
            stream: Emit it to the run that is going on here, where `ctx` is not given.
            **kwargs: Passed to the SDK, such as `tool_choice` and `response_format`.

        Raises:
            ModelError: There is no answer; its class says whether to try again.
        """
        request = self._make_request(messages, tools, model, temperature, max_tokens, kwargs)
        ctx = ctx or (current_context() if stream else None)
        if ctx is None:
            with span_model(self.provider, request) as span:
                response = await self._complete(request)
                span.answered(response)
                return response
        async with aclosing(LLMStream(self._begin_stream(request), ctx)) as answer:
            return await answer.get_response()

    def stream(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        *,
        tools: Tools | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        ctx: RunContext | None = None,
        **kwargs: Any,
    ) -> LLMStream:
        """The model's answer piece by piece; the arguments are those of `generate`.

        Nothing is asked before the first piece is. Only with `ctx` is it emitted too.

        Raises:
            ModelError: While it is read: as in `generate`.
        """
        request = self._make_request(messages, tools, model, temperature, max_tokens, kwargs)
        return LLMStream(self._begin_stream(request), ctx)

    @abstractmethod
    async def _complete(self, request: LLMRequest) -> LLMResponse:
        """The whole answer at once."""

    @abstractmethod
    def _stream(self, request: LLMRequest) -> AsyncIterator[str | LLMResponse]:
        """Pieces of text, none of them empty, and then the whole answer."""

    def _begin_stream(self, request: LLMRequest) -> AsyncIterator[str | LLMResponse]:
        chunks = self._stream(request)
        return _span_stream(self.provider, request, chunks) if is_traced() else chunks

    def _make_request(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        tools: Tools | None,
        model: str | None,
        temperature: float | None,
        max_tokens: int | None,
        options: Mapping[str, Any],
    ) -> LLMRequest:
        given: Any = messages
        if isinstance(given, (str, bytes)) or not all(isinstance(message, Mapping) for message in given):
            raise TypeError("messages must be a list of dicts such as {'role': 'user', 'content': 'Hello'}")
        return LLMRequest(
            messages=[dict(message) for message in messages],
            tools=[_format_tool(tool) for tool in tools or ()],
            model=model or self.model,
            temperature=temperature,
            max_tokens=max_tokens,
            options=dict(options),
        )


async def _span_stream(
    provider: str, request: LLMRequest, chunks: AsyncIterator[str | LLMResponse]
) -> AsyncIterator[str | LLMResponse]:
    """`chunks` in a span, which is not the active one: whoever reads them does other things between two."""
    span = begin_model(provider, request)
    try:
        async for chunk in chunks:
            if isinstance(chunk, LLMResponse):
                span.answered(chunk)
            yield chunk
    except BaseException as error:
        span.fail(error)
        raise
    finally:
        span.end()
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()


def make_message(content: str | None, tool_calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An assistant's message: its text, which is None beside tool calls where there is none, and those calls."""
    message: dict[str, Any] = {"role": "assistant", "content": content or (None if tool_calls else "")}
    if tool_calls:
        message["tool_calls"] = [dict(call) for call in tool_calls]
    return message


def make_usage(input_tokens: int | None, output_tokens: int | None) -> dict[str, int]:
    """Tokens, counted."""
    read, written = input_tokens or 0, output_tokens or 0
    return {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}


def text_of(content: Any) -> str:
    """The text of a message's content: of a tool's result that is no text, its JSON."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, list) and all(isinstance(part, Mapping) and "type" in part for part in content):
        return "\n".join(str(part.get("text", "")) for part in content if part.get("type") == "text")
    return json.dumps(content, ensure_ascii=False, default=str)


def _format_tool(tool: Tool | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(tool, Tool):
        return tool.to_openai_format()
    if "input_schema" in tool:
        # Anthropic's format.
        function = {
            "name": tool["name"],
            "description": tool.get("description", ""),
            "parameters": tool["input_schema"],
        }
        return {"type": "function", "function": function}
    return dict(tool)
