"""Readers of a run's events that do not read."""

from __future__ import annotations

import json
import socket
import urllib.request
from typing import TYPE_CHECKING

import pytest

from django_agent_runtime.tests.faults.processes import PATIENCE_SECONDS, read_history
from django_agent_runtime.types import RunState

if TYPE_CHECKING:
    from django_agent_runtime.go_integration import GoRuntimeIntegration
    from django_agent_runtime.testing import GoRuntimeProcess
    from django_agent_runtime.tests.faults.processes import Site

pytestmark = pytest.mark.faults

# Of 50 kB each: more than the buffers of two sockets and of a stream hold together.
EVENTS = 400


def test_reader_that_does_not_read_harms_nobody(
    client: GoRuntimeIntegration, runtime: GoRuntimeProcess, site: Site
) -> None:
    site.start_worker()
    run_input = {"messages": [], "params": {"events": EVENTS}}
    run_id = client.create_run("large", run_input, target="worker").run_id
    path = client.create_stream_ticket(run_id, "reader").path
    with socket.socket() as sse, client.watch_run(run_id) as late:
        sse.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sse.connect((runtime.host, runtime.http_port))
        sse.sendall(f"GET {path} HTTP/1.1\r\nHost: {runtime.host}\r\n\r\n".encode())
        assert next(late).type == "run.queued"

        with urllib.request.urlopen(
            f"http://{runtime.host}:{runtime.http_port}{path}", timeout=PATIENCE_SECONDS
        ) as response:
            datas = [json.loads(line[6:]) for line in response if line.startswith(b"data: ")]
        assert [data["n"] for data in datas if data["type"] == "large"] == list(range(EVENTS))
        assert client.wait_run(run_id).state is RunState.SUCCEEDED
        other = client.create_run("mixed", {"messages": [], "params": {}}, target="worker").run_id
        assert client.wait_run(other).state is RunState.SUCCEEDED
        # Who comes back to its stream late has missed nothing.
        history = read_history(client, run_id)
        assert list(late) == history[1:]
        # The socket was given what it has room for and no more.
        sse.settimeout(PATIENCE_SECONDS)
        assert sse.recv(15) == b"HTTP/1.1 200 OK"
