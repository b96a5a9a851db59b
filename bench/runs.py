"""Runs of agents in Python: one at a time, and thousands queued, beside what peers do with the same work."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from celery import group
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.types import NewTask, Run, RunTarget

from bench.child import ChildFailed
from bench.measurement import Contender, Measurement, compare_latency, compare_rate, timed
from bench.peer import AGNO, PROCRASTINATE, Peer, PeerMissing, start_peer
from bench.postgresql import find_postgresql, start_postgresql
from bench.project import Project, start_workers
from bench.rates import batch_per_second, tasks_per_second
from bench.site.agents import ECHO
from bench.sizes import Sizes
from bench.stand import VALUE, Stand, open_runtime

_RUN_SECONDS = 120.0
_LABELS = {
    PROCRASTINATE.name: ("procrastinate defer, status asked for", "procrastinate batch_defer, status asked for"),
    AGNO.name: ("agno durable queue, status asked for", "agno durable queue, status asked for"),
}


@dataclass(slots=True)
class RunFigures:
    """What was measured of runs."""

    latency: list[Measurement] = field(default_factory=list)
    """Microseconds from submitting to holding the output."""
    queue: list[Measurement] = field(default_factory=list)
    """Runs a second, from handing over the first to holding the last output."""
    skipped: list[str] = field(default_factory=list)
    """Why peers did not take part."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of those that did."""


def measure_runs(stand: Stand, project: Project, sizes: Sizes, say: Callable[[str], None]) -> RunFigures:
    """Measure both, with two worker processes on each side."""
    figures = RunFigures()
    with ExitStack() as stack:
        client = stack.enter_context(open_runtime(project.runtime))
        stack.enter_context(start_workers(project))
        peers = _start_peers(stack, stand, sizes, figures)
        say("runs of Python agents, one at a time")
        figures.latency = _measure_latency(client, stand, peers, sizes)
        say(f"{sizes.queued_tasks:,} queued runs")
        figures.queue = _measure_queue(client, stand, peers, sizes)
    return figures


def make_task(key: str, params: dict[str, Any]) -> NewTask:
    """A run of an agent in Python."""
    return NewTask(
        "agent.run", {"messages": [], "params": params}, agent_id=key, target=RunTarget.WORKER, run_timeout=600
    )


def _start_peers(stack: ExitStack, stand: Stand, sizes: Sizes, figures: RunFigures) -> list[Peer]:
    programs = find_postgresql()
    if programs is None:
        figures.skipped.append("procrastinate and agno are left out: there is no PostgreSQL server to run")
        return []
    peers = []
    for kind in (PROCRASTINATE, AGNO):
        try:
            # A cluster for each, so that none waits for another's transactions.
            url = stack.enter_context(start_postgresql(programs))
            peer = stack.enter_context(start_peer(kind, stand.folder, url, install=sizes.install_peers))
        except (PeerMissing, ChildFailed) as error:
            figures.skipped.append(f"{kind.name} is left out: {str(error).splitlines()[0]}")
        else:
            peers.append(peer)
            figures.versions |= peer.versions
    return peers


def _measure_latency(client: GoRuntimeIntegration, stand: Stand, peers: list[Peer], sizes: Sizes) -> list[Measurement]:
    def execute() -> None:
        request = {"messages": [], "params": VALUE}
        output = client.execute_run(ECHO, request, target=RunTarget.WORKER, run_timeout=600)
        assert output["final_output"] == VALUE

    contenders = [Contender("run", "run of a Python agent, durability fsync", timed(execute), slow=True)]
    if stand.peers:
        task = stand.peers.task
        contenders.append(
            Contender("run_celery", "Celery delay().get()", timed(lambda: task.delay(VALUE).get()), slow=True)
        )
    contenders += [
        Contender(f"run_{peer.name}", _LABELS[peer.name][0], partial(peer.call, VALUE), slow=True) for peer in peers
    ]
    return compare_latency(
        contenders,
        rounds=sizes.run_rounds,
        calls=0,
        slow_calls=sizes.run_calls,
        warmup_calls=sizes.warmup_calls,
    )


def _measure_queue(client: GoRuntimeIntegration, stand: Stand, peers: list[Peer], sizes: Sizes) -> list[Measurement]:
    def read_outputs(runs: list[Run]) -> list[Any]:
        waited = client.wait_runs((run.run_id for run in runs), timeout=_RUN_SECONDS)
        return [run.output and run.output["final_output"] for run in waited]

    contenders = [
        Contender(
            "run_queue",
            "runs of a Python agent, submit_tasks, wait_runs; durability fsync",
            lambda: batch_per_second(
                lambda: client.submit_tasks(make_task(ECHO, VALUE) for _ in range(sizes.queued_tasks)),
                read_outputs,
                sizes,
            ),
        )
    ]
    if stand.peers:
        task = stand.peers.task
        contenders += [
            Contender(
                "run_queue_celery",
                "Celery delay(), get()",
                lambda: tasks_per_second(
                    lambda: task.delay(VALUE), lambda result: result.get(timeout=_RUN_SECONDS), sizes
                ),
            ),
            Contender(
                "run_queue_celery_group",
                "Celery group(), get()",
                lambda: batch_per_second(
                    lambda: group(task.s(VALUE) for _ in range(sizes.queued_tasks)).apply_async(),
                    lambda results: results.get(timeout=_RUN_SECONDS),
                    sizes,
                ),
            ),
        ]
    for peer in peers:
        count = sizes.agno_tasks if peer.name == AGNO.name else sizes.queued_tasks
        label = f"{_LABELS[peer.name][1]}, {count:,} of them"
        contenders.append(Contender(f"run_queue_{peer.name}", label, partial(peer.drain, VALUE, count)))
    return compare_rate(contenders, rounds=sizes.queue_rounds)
