"""An agent that talks."""

from __future__ import annotations

from django_agent_runtime.runtime.interfaces import AgentRuntime, EventType, RunContext, RunResult
from django_agent_runtime.runtime.llm import get_llm_client
from django_agent_runtime.runtime.registry import register_runtime


class ChatAgent(AgentRuntime):
    """Answers a conversation with what the model says to it."""

    description = "Answers with what the model says, in one piece."

    @property
    def key(self) -> str:
        """Its name in requests."""
        return "chat-agent"

    async def run(self, ctx: RunContext) -> RunResult:
        """Ask the model once."""
        llm = get_llm_client()
        response = await llm.generate(ctx.input_messages)
        await ctx.emit(EventType.ASSISTANT_MESSAGE, {"content": response.message["content"]})
        return RunResult(
            final_output={"response": response.message["content"]},
            final_messages=[response.message],
        )


def register_agents() -> None:
    """What RUNTIME_REGISTRY of the settings calls."""
    register_runtime(ChatAgent())
