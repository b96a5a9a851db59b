"""A hundred thousand queued runs: what taking them in, keeping them and doing them costs as there are more."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.project import start_project, start_workers
from bench.runs import make_task
from bench.site.agents import ECHO
from bench.sizes import Sizes
from bench.stand import VALUE, open_runtime

_NAME = "backlog"
_DRAIN_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class BacklogPoint:
    """One step of many runs, with durability fsync."""

    runs: int
    """How many there are, or are done, with this step."""
    submitted_per_second: float
    """While this step was handed over; no worker was there."""
    queued_bytes: int
    """Resident memory of the runtime after that."""
    drained_per_second: float
    """While this step was done, oldest first, by two worker processes."""
    drained_bytes: int
    """Resident memory of the runtime after that."""


def measure_backlog(folder: Path, sockets: Path, sizes: Sizes, say: Callable[[str], None]) -> list[BacklogPoint]:
    """Hand over all runs, then begin to do them; in steps of the same size."""
    step = sizes.backlog_runs // sizes.backlog_steps
    with (
        start_project(folder, sockets, most_queued=sizes.backlog_runs, name=_NAME) as project,
        open_runtime(project.runtime) as client,
    ):
        process = project.runtime.child
        run_ids: list[list[str]] = []
        queued: list[tuple[float, int]] = []
        say(f"handing over {sizes.backlog_runs:,} runs")
        for _ in range(sizes.backlog_steps):
            begin = time.perf_counter()
            runs = client.submit_tasks(make_task(ECHO, VALUE) for _ in range(step))
            queued.append((step / (time.perf_counter() - begin), process.resident_bytes()))
            run_ids.append([run.run_id for run in runs])
        say("doing them")
        drained: list[tuple[float, int]] = []
        with start_workers(project):
            # The start of their processes is not what is measured.
            client.wait_runs(run_ids[0][:1], timeout=_DRAIN_SECONDS)
            begin = time.perf_counter()
            for ids in run_ids:
                done = client.wait_runs(ids, timeout=_DRAIN_SECONDS)
                assert all(run.output and run.output["final_output"] == VALUE for run in done)
                now = time.perf_counter()
                drained.append((step / (now - begin), process.resident_bytes()))
                begin = now
    return [
        BacklogPoint(step * (number + 1), *queued[number], *drained[number]) for number in range(sizes.backlog_steps)
    ]
