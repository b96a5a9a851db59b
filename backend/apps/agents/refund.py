"""An agent that asks before it pays."""

from __future__ import annotations

import re
from typing import Any

from django_agent_runtime.runtime.interfaces import AgentRuntime, RunContext, RunResult
from django_agent_runtime.runtime.registry import register_runtime

APPROVE, DECLINE = "Approve", "Decline"


class RefundAgent(AgentRuntime):
    """Looks an order up, asks whether to refund it, and does so: both as recorded steps.

    While it waits, no worker holds the run; after the answer the code begins again, and the steps are replayed.
    """

    description = "Asks for your approval, by an interrupt, between two recorded steps: try “Refund order 7”."

    @property
    def key(self) -> str:
        """Its name in requests."""
        return "refund-agent"

    async def run(self, ctx: RunContext) -> RunResult:
        """Refund the order whose number the last message has."""
        asked = str(ctx.input_messages[-1]["content"]) if ctx.input_messages else ""

        async def look_up() -> dict[str, Any]:
            number = int(next(iter(re.findall(r"\d{1,6}", asked)), 1))
            # Here, so that it is said once: what stands outside of steps is done again after the answer.
            await ctx.emit_user_message(f"I found order {number}. Before I refund it, I need your approval.")
            return {"order": number, "amount": 25 * number}

        order = await ctx.step("look up the order", look_up)
        question = f"Refund {order['amount']} € for order {order['order']}?"
        answer = await ctx.interrupt({"question": question, "choices": [APPROVE, DECLINE]})
        if answer == APPROVE:
            receipt = await ctx.step("pay back", lambda: f"R-{ctx.run_id[:8]}")
            text = f"Refunded {order['amount']} €. The receipt is {receipt}."
        else:
            text = "Nothing was refunded."
        await ctx.emit_user_message(text)
        return RunResult(final_output={"response": text}, final_messages=[{"role": "assistant", "content": text}])


def register_agents() -> None:
    """What RUNTIME_REGISTRY of the settings calls."""
    register_runtime(RefundAgent())
