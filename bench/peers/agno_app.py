"""An AgentOS with a durable queue, whose only agent returns what it is told: no model is asked."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

from agno.agent import Agent
from agno.db.postgres import AsyncPostgresDb
from agno.job_queue import QueueConfig
from agno.models.base import Model
from agno.models.response import ModelResponse
from agno.os import AgentOS


class EchoModel(Model):  # type: ignore[misc] # agno is not installed where this is checked
    """Answers with the last message."""

    def invoke(self, messages: list[Any], **_: Any) -> ModelResponse:
        """Answer at once."""
        return ModelResponse(role="assistant", content=messages[-1].content)

    async def ainvoke(self, messages: list[Any], **_: Any) -> ModelResponse:
        """Answer at once."""
        return self.invoke(messages)

    def invoke_stream(self, messages: list[Any], **_: Any) -> Iterator[ModelResponse]:
        """Answer in one piece."""
        yield self.invoke(messages)

    async def ainvoke_stream(self, messages: list[Any], **_: Any) -> AsyncIterator[ModelResponse]:
        """Answer in one piece."""
        yield self.invoke(messages)

    def _parse_provider_response(self, response: Any, **_: Any) -> ModelResponse:
        return response

    def _parse_provider_response_delta(self, response: Any) -> ModelResponse:
        return response


database = AsyncPostgresDb(db_url=os.environ["BENCH_DATABASE_URL"])
agent = Agent(id="bench-echo", model=EchoModel(id="echo"), db=database, telemetry=False)
app = AgentOS(
    agents=[agent],
    db=database,
    telemetry=False,
    queue=QueueConfig(durable=True, max_concurrency=20, max_queue_depth=1_000_000),
).get_app()
