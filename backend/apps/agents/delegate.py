"""An agent that hands its message to one of the runtime's own agents, which take tasks instead of conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django_agent_runtime.go_integration import get_go_runtime_integration
from django_agent_runtime.runtime.interfaces import AgentRuntime, DoNotRetry, RunContext, RunResult
from django_agent_runtime.runtime.registry import register_runtime

if TYPE_CHECKING:
    from django_agent_runtime.types import TaskType

DELEGATE_KEY = "runtime-agent"


def find_text_field(task_type: TaskType) -> str | None:
    """The one field that the task type's input must have, if that is a text: a message can stand in for it."""
    required = task_type.input_schema.get("required") or []
    if len(required) != 1:
        return None
    field: str = required[0]
    described = (task_type.input_schema.get("properties") or {}).get(field) or {}
    return field if described.get("type") == "string" and "enum" not in described else None


class DelegateAgent(AgentRuntime):
    """Gives the last message to the agent and the task type that the parameters name."""

    description = "Hands the message to an agent of the runtime."

    @property
    def key(self) -> str:
        """Its name in requests."""
        return DELEGATE_KEY

    async def run(self, ctx: RunContext) -> RunResult:
        """Have the task executed once, whatever becomes of this worker, and show what came of it."""
        agent_id, task_type, field = (ctx.params.get(name) for name in ("agent_id", "task_type", "field"))
        if not (agent_id and task_type and field and ctx.input_messages):
            raise DoNotRetry("Name agent_id, task_type and field in the parameters, and send a message.")
        asked = ctx.input_messages[-1]["content"]

        async def execute() -> dict[str, Any]:
            result: dict[str, Any] = await get_go_runtime_integration().aexecute_agent_task(
                agent_id,
                task_type,
                {field: asked},
                # A repeat of this step, after a crash before its record, gets the same answer.
                idempotency_key=f"{ctx.run_id}:execute",
            )
            return result

        result = await ctx.step("execute", execute)
        parts = [result["summary"], *(f"{file['path']}\n{file['content']}" for file in result["files"])]
        if result["offline"]:
            parts.insert(0, "This is an offline stand-in for a language model, because none is configured.")
        text = "\n\n".join(parts)
        await ctx.emit_user_message(text)
        return RunResult(final_output=result, final_messages=[{"role": "assistant", "content": text}])


def register_agents() -> None:
    """What RUNTIME_REGISTRY of the settings calls."""
    register_runtime(DelegateAgent())
