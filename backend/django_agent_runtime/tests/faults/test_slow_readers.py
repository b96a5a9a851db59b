"""Readers of a run's events that do not read."""

from __future__ import annotations

import json
import socket
import urllib.request
from contextlib import ExitStack
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from django_agent_runtime.testing import GoRuntimeProcess
from django_agent_runtime.tests.faults.processes import PATIENCE_SECONDS, read_history, wait_until
from django_agent_runtime.types import RunState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.client import HTTPResponse

    from django_agent_runtime.go_integration import GoRuntimeIntegration
    from django_agent_runtime.tests.faults.processes import Site

pytestmark = pytest.mark.faults

# Of 50 kB each, and in a stream twice that: far more than the buffers of two sockets and of a stream hold together.
EVENTS = 400
HELD_BYTES = 10_000_000

# Of the site: readers that do not read, and events of which each would take 50 MB if they were not held back.
SLOW = 6
EVENTS_OF_SITE = 1000
# A mailbox of 8 MiB for each, and what is on the way to it and from it.
HELD_KILOBYTES = 25_000


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[GoRuntimeProcess]:
    """A runtime that soon gives up a reader that takes nothing."""
    with GoRuntimeProcess(tmp_path, arguments=("--send-timeout", "5s")) as process:
        yield process


def is_cut_off(runtime: GoRuntimeProcess) -> bool:
    """Whether one reader of a stream with a ticket was too slow."""
    with urllib.request.urlopen(f"http://{runtime.host}:{runtime.http_port}/metrics") as response:
        return b'agent_runtime_http_streams_ended_total{reason="slow"} 1\n' in response.read()


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
        # The other was given what there is room for and no more.
        wait_until(lambda: is_cut_off(runtime), "the end of the reader's stream")
        sse.settimeout(PATIENCE_SECONDS)
        given = b"".join(iter(lambda: sse.recv(1 << 16), b""))
        assert given.startswith(b"HTTP/1.1 200 OK")
        assert b"event: large" in given
        assert len(given) < HELD_BYTES


def read_events(response: HTTPResponse) -> Iterator[tuple[str, int]]:
    """Id and number of each large event of a stream."""
    place = ""
    for line in response:
        if line.startswith(b"id: "):
            place = line[4:].decode().strip()
        elif line.startswith(b'data: {"n": '):
            yield place, json.loads(line[6:])["n"]


def read_numbers(response: HTTPResponse) -> list[int]:
    with response:
        return [number for _, number in read_events(response)]


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="looks at a process as Linux shows it")
def test_readers_of_the_site_that_do_not_read_harm_nobody_and_are_held_back(
    client: GoRuntimeIntegration, site: Site
) -> None:
    server = site.serve()
    site.start_worker()
    run_id = server.create_run("large", events=EVENTS_OF_SITE)
    everything = list(range(EVENTS_OF_SITE))

    def open_stream(room: int | None = None, last_event_id: str = "0") -> HTTPResponse:
        headers = {"Last-Event-ID": last_event_id}
        response = server.request("GET", f"/runs/{run_id}/events/stream/", room=room, **headers)
        assert response.status == HTTPStatus.OK, response.read()
        return response

    assert read_numbers(open_stream()) == everything
    assert client.wait_run(run_id).state is RunState.SUCCEEDED
    threads, memory = server.count_python_threads(), server.read_peak_memory()
    with ExitStack() as stack:
        slow = [stack.enter_context(open_stream(room=4096)) for _ in range(SLOW)]
        for _ in range(3):
            assert read_numbers(open_stream()) == everything
        assert server.read_peak_memory() - memory <= SLOW * HELD_KILOBYTES
        # One reads on late, as if nothing had been; one comes back to where it was.
        assert read_numbers(slow[0]) == everything
        seen = list(islice(read_events(slow[1]), 10))
        assert [number for _, number in seen] == everything[:10]
        slow[1].close()
        assert read_numbers(open_stream(last_event_id=seen[-1][0])) == everything[10:]
    wait_until(lambda: server.count_python_threads() <= threads, "the readers are gone")
