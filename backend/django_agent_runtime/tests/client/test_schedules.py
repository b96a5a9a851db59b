"""Schedules on the real runtime."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest

from django_agent_runtime import exceptions
from django_agent_runtime.types import NewTask, RetryPolicy, RunState, RunTarget

if TYPE_CHECKING:
    from django_agent_runtime.go_integration import GoRuntimeIntegration


def test_a_schedule_is_kept_as_it_was_given(client: GoRuntimeIntegration) -> None:
    retry = RetryPolicy(max_attempts=2)
    schedule = client.create_schedule(
        "nightly", "0 3 * * *", "writer", {"topic": "rain"}, time_zone="Europe/Berlin", target="worker", retry=retry
    )
    assert schedule.next_time is not None
    assert schedule.next_time > datetime.now(timezone.utc)
    assert (schedule.cron, schedule.time_zone, schedule.last_run_id) == ("0 3 * * *", "Europe/Berlin", "")
    assert schedule.run == NewTask(
        "agent.run", {"topic": "rain"}, "writer", metadata={}, target=RunTarget.WORKER, retry=retry
    )
    with pytest.raises(exceptions.ScheduleExists):
        client.create_schedule("nightly", "@daily", "writer", target="worker")
    replaced = client.create_schedule("nightly", "@daily", "writer", target="worker", replace=True, paused=True)
    assert (replaced.cron, replaced.paused, replaced.next_time) == ("@daily", True, None)
    assert client.pause_schedule("nightly", False).next_time is not None
    assert [listed.schedule_id for listed in client.list_schedules()] == ["nightly"]
    # What is refused is quoted, and may be longer than what headers hold.
    wrong = [("soon", "", "cron"), ("@daily", "Berlin/Europe", "time_zone"), ("é" * 6000, "", "cron")]
    for cron, time_zone, field in [*wrong, ("@daily", "a" * 6000, "time_zone")]:
        with pytest.raises(exceptions.InvalidRequest) as refused:
            client.create_schedule("other", cron, "writer", target="worker", time_zone=time_zone)
        assert [name.rpartition(".")[2] for name, _ in refused.value.violations] == [field]
    with pytest.raises(exceptions.RunNotFound):
        client.get_run("é" * 6000)
    assert client.delete_schedule("nightly") is True
    assert client.delete_schedule("nightly") is False
    with pytest.raises(exceptions.ScheduleNotFound):
        client.trigger_schedule("nightly")


def test_a_schedule_creates_runs(client: GoRuntimeIntegration) -> None:
    client.create_schedule("often", "@every 1s", "", {"n": 1}, target="task", task_type="echo")
    with client.follow_runs(without_types=["run.queued", "run.started"]) as batches:
        ends = (event for batch in batches for event in batch.events if event.ends_run)
        first = next(ends)
        client.pause_schedule("often")
    run = client.get_run(first.run_id)
    assert (run.schedule_id, run.output) == ("often", {"n": 1})
    triggered = client.wait_run(client.trigger_schedule("often").run_id)
    assert (triggered.schedule_id, triggered.state) == ("often", RunState.SUCCEEDED)
    assert {run.run_id, triggered.run_id} <= {listed.run_id for listed in client.list_runs(schedule_id="often")}
