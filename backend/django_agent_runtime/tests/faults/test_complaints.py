"""What users of other queues complain of, on a worker of a real project and the real runtime."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from django_agent_runtime.tests.faults.processes import read_history
from django_agent_runtime.types import RetryPolicy, RunState

if TYPE_CHECKING:
    from django_agent_runtime.go_integration import GoRuntimeIntegration
    from django_agent_runtime.tests.faults.processes import Site

pytestmark = pytest.mark.faults


def create_run(client: GoRuntimeIntegration, agent: str, **options: Any) -> str:
    return client.create_run(agent, {"messages": [], "params": {}}, target="worker", **options).run_id


def test_runs_begin_in_the_order_in_which_they_came(client: GoRuntimeIntegration, site: Site) -> None:
    site.touch("go-on")
    runs = [create_run(client, "gated") for _ in range(20)]
    site.start_worker("--concurrency", "1", lease=60)
    client.wait_runs(runs)
    assert [line[0] for line in site.read_lines("executions")] == runs


def test_runs_that_take_longer_than_their_lease_are_executed_once(client: GoRuntimeIntegration, site: Site) -> None:
    site.lease = 3
    site.start_worker()
    site.start_worker()
    # One that emits all the time, and one that says nothing.
    runs = [create_run(client, "streaming"), create_run(client, "gated")]
    with client.watch_run(runs[0]) as events:
        first = next(events).time
        next(event for event in events if event.time - first > timedelta(seconds=2 * site.lease))
    site.touch("go-on")
    for run in client.wait_runs(runs):
        assert (run.state, run.attempt) == (RunState.SUCCEEDED, 1)
    assert sorted(line[0] for line in site.read_lines("executions")) == sorted(runs)


def test_attempts_wait_for_each_other_and_are_as_many_as_the_run_says(client: GoRuntimeIntegration, site: Site) -> None:
    site.start_worker(lease=60)
    policy = RetryPolicy(max_attempts=5, initial_backoff=0.4, max_backoff=0.8)
    run_id = create_run(client, "failing", retry=policy)
    run = client.wait_run(run_id)
    assert (run.state, run.attempt, run.max_attempts) == (RunState.FAILED, 5, 5)
    changes = [event for event in read_history(client, run_id) if event.type in ("run.started", "run.retrying")]
    waits = [
        (failed, begun)
        for failed, begun in pairwise(changes)
        if (failed.type, begun.type) == ("run.retrying", "run.started")
    ]
    assert len(waits) == 4
    for number, (failed, begun) in enumerate(waits):
        assert begun.time >= datetime.fromisoformat(failed.payload["retry_at"].replace("Z", "+00:00"))
        assert begun.time - failed.time >= timedelta(seconds=min(0.4 * 2**number, 0.8) / 2)


def test_who_has_seen_the_end_reads_no_other_state(client: GoRuntimeIntegration, site: Site) -> None:
    site.start_worker(lease=60)
    for _ in range(30):
        run_id = create_run(client, "mixed")
        assert read_history(client, run_id)[-1].type == "run.succeeded"
        assert client.get_run(run_id).state is RunState.SUCCEEDED


def test_code_that_changed_between_two_attempts_finds_its_steps(client: GoRuntimeIntegration, site: Site) -> None:
    worker = site.start_worker()
    run_id = create_run(client, "changed")
    assert worker.wait(60) == 9
    site.start_worker(lease=60)
    run = client.wait_run(run_id)
    assert run.output
    assert run.output["final_output"]["results"] == ["new of attempt 2", "two of attempt 1", "one of attempt 1"]
    assert site.read_lines("effects") == [["one", "1"], ["two", "1"], ["new", "2"]]
