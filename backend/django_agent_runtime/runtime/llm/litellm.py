"""Every provider that LiteLLM knows, as it speaks OpenAI's format for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from django_agent_runtime.runtime.llm.client import LLMClient, LLMRequest, LLMResponse
from django_agent_runtime.runtime.llm.errors import translate_errors
from django_agent_runtime.runtime.llm.openai import Assembler, read_completion, write_options

__all__ = ["LiteLLMClient"]


class LiteLLMClient(LLMClient):
    """Asks through `litellm.acompletion`."""

    provider = "litellm"

    def __init__(self, model: str, litellm: Any, options: Mapping[str, Any]) -> None:
        """`options` go into every call, such as `api_key` and `api_base`."""
        super().__init__(model)
        self._litellm = litellm
        self._options = dict(options)

    async def _complete(self, request: LLMRequest) -> LLMResponse:
        with translate_errors(self.provider, request.model):
            return read_completion(await self._litellm.acompletion(**self._write_request(request)))

    async def _stream(self, request: LLMRequest) -> AsyncIterator[str | LLMResponse]:
        whole = Assembler(request.model)
        with translate_errors(self.provider, request.model):
            options = {"stream_options": {"include_usage": True}, **self._write_request(request)}
            async for chunk in await self._litellm.acompletion(stream=True, **options):
                if text := whole.add(chunk):
                    yield text
            yield whole.finish()

    def _write_request(self, request: LLMRequest) -> dict[str, Any]:
        options = write_options(request)
        if request.max_tokens is not None:
            options["max_tokens"] = request.max_tokens
        return {**self._options, **options, **request.options}
