"""Django's own processes that die: between their transaction and the runtime, and in the midst of a projection."""

from __future__ import annotations

import json
import signal
import sqlite3
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from django_agent_runtime.tests.faults.processes import PATIENCE_SECONDS, read_history, wait_until

if TYPE_CHECKING:
    from django_agent_runtime.go_integration import GoRuntimeIntegration
    from django_agent_runtime.tests.faults.processes import Site

pytestmark = pytest.mark.faults

COMMANDS = ("-m", "django_agent_runtime.tests.faults.site_commands")
RUNS = 300
# In which of its batches each projector dies.
DEATHS = (1, 3, 1, 2)


def query(site: Site, statement: str, *parameters: Any) -> list[Any]:
    """Ask the site's database, as another process."""
    with closing(sqlite3.connect(site.database, timeout=PATIENCE_SECONDS)) as connection:
        return connection.execute(statement, parameters).fetchall()


@pytest.mark.parametrize("stage", ["commit", "call", "acknowledgement"])
def test_run_of_a_django_that_died_on_the_way_is_executed_once(
    client: GoRuntimeIntegration, site: Site, stage: str
) -> None:
    site.migrate()
    assert site.run(*COMMANDS, "die_creating", stage) == 9, site.read_log()
    rows = query(site, "select id, status, submitted_at from django_agent_runtime_agentrun")
    accepted = [run.run_id for run in client.list_runs()]
    if stage == "commit":
        # Nobody was answered, and nothing is left.
        assert (rows, accepted) == ([], [])
        return
    ((row_id, status, submitted_at),) = rows
    run_id = str(uuid.UUID(row_id))
    assert (status, submitted_at) == ("queued", None)
    assert accepted == ([run_id] if stage == "acknowledgement" else [])
    site.lease = 60
    site.start("-m", "django", "runagent", "--noreload")
    (row,) = wait_until(
        lambda: query(
            site,
            "select attempt, submitted_at from django_agent_runtime_agentrun where status = 'succeeded'",
        ),
        "the end in the row",
    )
    assert row[0] == 1
    assert row[1] is not None
    assert [run.run_id for run in client.list_runs()] == [run_id]
    assert [line[:3] for line in site.read_lines("effects")] == [[run_id, "work#1", "1"]]


def test_projector_that_is_killed_in_its_batches_writes_everything_once(
    client: GoRuntimeIntegration, site: Site
) -> None:
    site.migrate()
    site.start_worker("--concurrency", "20")
    creating = site.start(*COMMANDS, "create_runs", str(RUNS))
    for death in DEATHS:
        projector = site.start(*COMMANDS, "project", str(death))
        assert projector.wait(PATIENCE_SECONDS) == -signal.SIGKILL, site.read_log()
    site.touch("enough")
    assert creating.wait(PATIENCE_SECONDS) == 0, site.read_log()
    last = site.start(*COMMANDS, "project", "0")
    wait_until(
        lambda: not query(site, "select 1 from django_agent_runtime_agentrun where status <> 'succeeded' limit 1"),
        "the end of all rows",
    )
    last.terminate()
    assert last.wait(PATIENCE_SECONDS) == 0, site.read_log()
    runs = {run.run_id: run for run in client.wait_runs([run.run_id for run in client.list_runs(page_size=500)])}
    rows = query(site, "select id, status, attempt, output, last_sequence from django_agent_runtime_agentrun")
    assert {str(uuid.UUID(row[0])): (row[1], row[2], json.loads(row[3]), row[4]) for row in rows} == {
        run.run_id: (str(run.state), run.attempt, run.output, run.sequence) for run in runs.values()
    }
    assert len(runs) >= RUNS
    kept: dict[str, list[Any]] = {run_id: [] for run_id in runs}
    for run_id, *event in query(
        site,
        "select run_id, seq, event_type, attempt, visibility, payload from django_agent_runtime_agentevent order by id",
    ):
        kept[str(uuid.UUID(run_id))].append((*event[:4], json.loads(event[4])))
    for run_id, events in kept.items():
        assert events == [
            (event.sequence, event.type, event.attempt, str(event.visibility), event.payload)
            for event in read_history(client, run_id)
            if event.type != "assistant.delta"
        ]
