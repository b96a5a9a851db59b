"""Stream tickets on the real runtime."""

from __future__ import annotations

import urllib.request
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest

from django_agent_runtime import exceptions

if TYPE_CHECKING:
    from django_agent_runtime.go_integration import GoRuntimeIntegration
    from django_agent_runtime.testing.process import GoRuntimeProcess


def test_a_ticket_reads_the_events_of_its_run(
    client: GoRuntimeIntegration, go_runtime_process: GoRuntimeProcess
) -> None:
    run = client.wait_run(client.submit_task("echo", {"n": 1}).run_id)
    ticket = client.create_stream_ticket(run.run_id, "user-1")
    assert ticket.expire_time > datetime.now(timezone.utc)
    address = f"http://{go_runtime_process.host}:{go_runtime_process.http_port}{ticket.path}"
    with urllib.request.urlopen(address, timeout=30) as response:
        assert b"run.succeeded" in response.read()
    with pytest.raises(exceptions.RunNotFound):
        client.create_stream_ticket("0192f0c0-0000-7000-8000-000000000001")
