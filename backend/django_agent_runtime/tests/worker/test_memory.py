"""A worker that lives for long: what it holds does not grow with what it has done."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from django_agent_runtime.runtime.interfaces import AgentRuntime, RetryAfter, RunContext

BATCH = 500


class Busy(AgentRuntime):
    """Uses most of what a context has."""

    key = "busy"

    async def run(self, ctx: RunContext) -> dict[str, Any]:  # type: ignore[override]
        async def work() -> str:
            return "x" * 100

        await ctx.emit("assistant.delta", {"content": "a"})
        await ctx.emit("assistant.delta", {"content": "b"})
        await ctx.step("work", work)
        await ctx.checkpoint({"text": "x" * 500})
        if ctx.input_messages[0]["content"] == "fail" and ctx.attempt == 1:
            raise RetryAfter(0, "once")
        return {"text": "x" * 500}


def do_runs(runtime: Any, agent: str, count: int) -> None:
    """Have runs executed, and forget them, so that the runtime in this process does not grow either."""
    for start in range(0, count, BATCH):
        runs = [runtime.submit(agent, "fail" if n % 10 == 0 else "") for n in range(start, min(start + BATCH, count))]
        for run in runs:
            assert runtime.wait_for(run).state == "succeeded"
        runtime.forget_ended()


def test_nothing_is_left_of_runs(
    runtime: Any, start_worker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest keeps what is logged, which is a lot where the settings ask for INFO.
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    worker = start_worker(runtime, Busy(), concurrency=20)

    def settle(count: int) -> None:
        do_runs(runtime, "busy", count)
        # The last acknowledgements come after the results are there.
        runtime.wait_until(lambda: (worker.size, worker.ledger.size) == (0, 0), "all acknowledged")
        gc.collect()

    settle(500)
    tracemalloc.start()
    try:
        settle(200)
        before = tracemalloc.take_snapshot()
        settle(1500)
        after = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    only = [tracemalloc.Filter(True, "*/django_agent_runtime/*"), tracemalloc.Filter(False, "*/tests/*")]
    grown = after.filter_traces(only).compare_to(before.filter_traces(only), "lineno")
    # Less than the size of one object for a run.
    assert sum(difference.size_diff for difference in grown) < 1500 * 40, grown[:10]


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_process_stays_as_large_over_100_000_runs(runtime: Any, make_site: Callable[..., Any]) -> None:
    process = make_site(runtime.port).start("--noreload", "--concurrency", "50")
    sizes = []
    for _ in range(10):
        do_runs(runtime, "quick", 10_000)
        sizes.append(_resident_bytes(process.pid))
    print(json.dumps(sizes))  # noqa: T201 - for whoever looks at a failure
    assert sizes[-1] < sizes[1] * 1.05 + (4 << 20)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
