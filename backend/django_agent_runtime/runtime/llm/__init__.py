"""Language models for agents: one client over the providers' own SDKs, and an offline stand-in.

    llm = get_llm_client()
    response = await llm.generate(ctx.input_messages, ctx=ctx)

With `ctx=`, or `stream=True` inside a run, the answer's text is emitted as `assistant.delta` while it comes.
"""

from django_agent_runtime.runtime.llm.client import LLMChunk, LLMClient, LLMResponse, LLMStream
from django_agent_runtime.runtime.llm.errors import ModelError, ModelRateLimited, ModelRejected, ModelUnavailable
from django_agent_runtime.runtime.llm.factory import close_llm_clients, get_llm_client

__all__ = [
    "LLMChunk",
    "LLMClient",
    "LLMResponse",
    "LLMStream",
    "ModelError",
    "ModelRateLimited",
    "ModelRejected",
    "ModelUnavailable",
    "close_llm_clients",
    "get_llm_client",
]
