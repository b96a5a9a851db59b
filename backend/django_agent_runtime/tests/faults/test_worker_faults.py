"""Workers of a real project that are killed, frozen, poisoned or cut off, and a runtime that dies under one."""

from __future__ import annotations

import itertools
import time
from statistics import median
from typing import TYPE_CHECKING

import pytest

from django_agent_runtime.exceptions import AgentRuntimeError
from django_agent_runtime.tests.faults.processes import freeze, read_history, thaw, wait_until
from django_agent_runtime.types import RetryPolicy, RunState

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_agent_runtime.go_integration import GoRuntimeIntegration
    from django_agent_runtime.testing import GoRuntimeProcess
    from django_agent_runtime.tests.faults.processes import Network, Site
    from django_agent_runtime.types import RunEvent

pytestmark = pytest.mark.faults

# The longest pause of a worker's.
HEARTBEAT_SECONDS = 5.0


def begin_run(client: GoRuntimeIntegration, agent: str = "gated") -> tuple[str, int]:
    """A run whose first step is recorded, and the process id of who executes it."""
    run_id = client.create_run(agent, {"messages": [], "params": {}}, target="worker").run_id
    return run_id, wait_for_event(client, run_id, "begun").payload["pid"]


def wait_for_event(client: GoRuntimeIntegration, run_id: str, event_type: str, attempt: int = 1) -> RunEvent:
    with client.watch_run(run_id) as events:
        return next(event for event in events if (event.type, event.attempt) == (event_type, attempt))


def count_workers(client: GoRuntimeIntegration, agent: str) -> int:
    return sum(known.workers for known in client.list_agents() if known.agent_id == agent)


def types_of(history: list[RunEvent]) -> list[tuple[str, int]]:
    return [(event.type, event.attempt) for event in history]


def test_killed_workers_run_goes_on_elsewhere_behind_its_recorded_steps(
    client: GoRuntimeIntegration, site: Site
) -> None:
    victim = site.start_worker()
    run_id, first_pid = begin_run(client)
    assert first_pid == victim.pid
    victim.kill()
    other = site.start_worker(lease=60)
    assert wait_for_event(client, run_id, "begun", attempt=2).payload == {"pid": other.pid}
    site.touch("go-on")
    run = client.wait_run(run_id)
    assert run.output
    assert run.output["final_output"] == {"pid": other.pid, "attempt": 2}
    assert [line[2:] for line in site.read_lines("effects")] == [["1", str(first_pid)]]
    history = read_history(client, run_id)
    assert types_of(history) == [
        ("run.queued", 0),
        ("run.started", 1),
        ("step.completed", 1),
        ("begun", 1),
        ("run.retrying", 1),
        ("run.started", 2),
        ("begun", 2),
        ("ending", 2),
        ("run.succeeded", 2),
    ]
    assert history[4].payload["reason"] == "LEASE_LOST"


def test_frozen_workers_late_result_is_refused(client: GoRuntimeIntegration, site: Site) -> None:
    frozen = site.start_worker()
    run_id, _ = begin_run(client)
    freeze(frozen)
    other = site.start_worker(lease=60)
    wait_for_event(client, run_id, "begun", attempt=2)
    freeze(other)
    # From here on both codes end as soon as their processes wake. The one that wakes first has lost its lease.
    site.touch("go-on")
    assert count_workers(client, "gated") == 1
    thaw(frozen)
    wait_until(lambda: count_workers(client, "gated") == 2, "the return of the frozen one")
    assert client.get_run(run_id).state is RunState.RUNNING
    thaw(other)
    run = client.wait_run(run_id)
    assert run.output
    assert run.output["final_output"] == {"pid": other.pid, "attempt": 2}
    assert types_of(read_history(client, run_id))[4:] == [
        ("run.retrying", 1),
        ("run.started", 2),
        ("begun", 2),
        ("ending", 2),
        ("run.succeeded", 2),
    ]
    # It is a worker like any other again.
    other.terminate()
    assert other.wait(30) == 0
    late = client.wait_run(client.create_run("gated", {"messages": [], "params": {}}, target="worker").run_id)
    assert late.output
    assert late.output["final_output"]["pid"] == frozen.pid
    assert client.get_run(run_id) == run


@pytest.mark.parametrize("reset", [False, True], ids=["silent", "reset"])
def test_cut_that_is_shorter_than_the_lease_delays_only(
    client: GoRuntimeIntegration, site: Site, network: Network, reset: bool
) -> None:
    site.lease = 20
    worker = site.start_worker(port=network.port)
    run_id = client.create_run("streaming", {"messages": [], "params": {}}, target="worker").run_id
    wait_for_event(client, run_id, "number")
    # It is free for the run all along, and must not get it.
    site.start_worker()
    wait_until(lambda: count_workers(client, "streaming") == 2, "the other worker")
    network.cut()
    if reset:
        network.reset()
    site.touch("go-on")
    site.wait_for_lines("returned", 1)
    assert client.get_run(run_id).state is RunState.RUNNING
    network.heal()
    run = client.wait_run(run_id)
    assert run.output
    count = run.output["final_output"]["count"]
    assert (run.state, run.attempt) == (RunState.SUCCEEDED, 1)
    assert [line[1:] for line in site.read_lines("executions")] == [["1", str(worker.pid)]]
    numbers = [event.payload["n"] for event in read_history(client, run_id) if event.type == "number"]
    assert numbers == list(range(count))


def test_cut_that_is_longer_than_the_lease_gives_the_run_to_another(
    client: GoRuntimeIntegration, site: Site, network: Network
) -> None:
    cut_off = site.start_worker(port=network.port)
    run_id, _ = begin_run(client)
    network.cut()
    other = site.start_worker(lease=60)
    wait_for_event(client, run_id, "begun", attempt=2)
    # It knows by itself that the run is no longer its own.
    assert site.wait_for_lines("cancelled", 1) == [[run_id, "1", str(cut_off.pid)]]
    site.touch("go-on")
    run = client.wait_run(run_id)
    assert run.output
    assert run.output["final_output"] == {"pid": other.pid, "attempt": 2}
    network.heal()
    other.terminate()
    assert other.wait(30) == 0
    late = client.wait_run(client.create_run("gated", {"messages": [], "params": {}}, target="worker").run_id)
    assert late.output
    assert late.output["final_output"]["pid"] == cut_off.pid
    assert client.get_run(run_id) == run


def test_poison_ends_as_a_dead_letter_that_can_be_put_back(client: GoRuntimeIntegration, site: Site) -> None:
    site.lease = 5
    site.start_worker("--processes", "2", "--concurrency", "10")
    # So many that both processes have some. Each attempt of the poison takes one of those beside it, at most.
    others = [
        client.create_run(
            "gated", {"messages": [], "params": {}}, target="worker", retry=RetryPolicy(max_attempts=4)
        ).run_id
        for _ in range(15)
    ]
    for run_id in others:
        wait_for_event(client, run_id, "begun")
    poison = client.create_run("poison", {"messages": [], "params": {}}, target="worker").run_id
    run = client.wait_run(poison)
    assert run.error
    assert (run.state, run.attempt, run.error.reason) == (RunState.FAILED, 3, "ATTEMPTS_EXHAUSTED")
    assert [line[1] for line in site.read_lines("executions") if line[0] == poison] == ["1", "2", "3"]
    site.touch("go-on")
    ended = client.wait_runs(others)
    assert {run.state for run in ended} == {RunState.SUCCEEDED}
    assert max(run.attempt for run in ended) > 1
    assert sorted(line[0] for line in site.read_lines("effects")) == sorted(others)
    assert [dead.run_id for dead in client.list_runs(dead_letters=True)] == [poison]
    site.touch("cured")
    again = client.retry_run(poison)
    assert again.retry_of == poison
    assert client.wait_run(again.run_id).state is RunState.SUCCEEDED
    assert list(client.list_runs(dead_letters=True)) == []
    assert client.get_run(poison).state is RunState.FAILED


def test_thousand_runs_cancelled_at_once(client: GoRuntimeIntegration, site: Site) -> None:
    # So long that what the code is told cannot be that its lease lapsed.
    site.lease = 600
    site.start_worker("--concurrency", "1000")
    runs = [
        client.create_run(
            "idle", {"messages": [], "params": {}}, target="worker", retry=RetryPolicy(max_attempts=1)
        ).run_id
        for _ in range(1000)
    ]
    site.wait_for_lines("begun", 1000)
    asked: dict[str, float] = {}
    for run_id in runs:
        asked[run_id] = time.time()
        client.cancel_run(run_id)
    assert {run.state for run in client.wait_runs(runs)} == {RunState.CANCELLED}
    told = {run_id: float(at) for run_id, at in site.wait_for_lines("cancelled", 1000)}
    assert told.keys() == asked.keys()
    # Pushed: what a worker learns with its next heartbeat takes half the pause between two of them.
    lags = [told[run_id] - asked[run_id] for run_id in runs]
    assert median(lags) < HEARTBEAT_SECONDS / 5
    for run_id in runs[::100]:
        history = read_history(client, run_id)
        assert [event.type for event in history if event.ends_run] == ["run.cancelled"]
        assert history[-1].type == "run.cancelled"
    free = client.create_run("mixed", {"messages": [], "params": {}}, target="worker").run_id
    assert client.wait_run(free).state is RunState.SUCCEEDED


def test_killed_runtime_comes_back_to_the_same_attempt(
    client: GoRuntimeIntegration, runtime: GoRuntimeProcess, site: Site
) -> None:
    site.lease = 20
    worker = site.start_worker()
    run_id = client.create_run("streaming", {"messages": [], "params": {}}, target="worker").run_id
    watched: list[RunEvent] = []
    with client.watch_run(run_id) as events:
        for _ in range(3):
            watched.extend(itertools.islice(events, 100))
            runtime.kill()
            runtime.start()
        watched.extend(itertools.islice(events, 100))
        site.touch("go-on")
        watched.extend(events)
    run = client.wait_run(run_id)
    assert run.output
    assert (run.state, run.attempt) == (RunState.SUCCEEDED, 1)
    assert [line[1:] for line in site.read_lines("executions")] == [["1", str(worker.pid)]]
    numbers = [event.payload["n"] for event in watched if event.type == "number"]
    assert numbers == list(range(run.output["final_output"]["count"]))
    assert watched == read_history(client, run_id)


def is_refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except AgentRuntimeError:
        return True
    return False


def test_a_run_that_has_ended_ends_no_second_time(client: GoRuntimeIntegration, site: Site) -> None:
    site.start_worker(lease=60)
    run_id = client.create_run("mixed", {"messages": [], "params": {}}, target="worker").run_id
    run = client.wait_run(run_id)
    assert is_refused(lambda: client.cancel_run(run_id))
    assert is_refused(lambda: client.resume_run(run_id, 1))
    assert is_refused(lambda: client.retry_run(run_id))
    assert client.get_run(run_id) == run
