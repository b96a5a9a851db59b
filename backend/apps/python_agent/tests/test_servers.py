"""The event stream under real servers: uvicorn (ASGI) and gunicorn (WSGI)."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest

from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.testing import FakeGoRuntime
from django_agent_runtime.types import NewEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_agent_runtime.testing import GoRuntimeProcess

ROOT = Path(__file__).resolve().parents[4]
MANAGE = [sys.executable, str(ROOT / "backend" / "manage.py")]
MAKE_TOKEN = """
from django.contrib.auth.models import User
from rest_framework.authtoken.models import Token
print(Token.objects.create(user=User.objects.create_user("ada")).key)
"""
PATIENCE_SECONDS = 60.0
# Open streams would hold uvicorn back for as long as they last, so a stop has a limit there.
SERVERS = {
    "uvicorn": "uvicorn backend.config.asgi:application --fd={fd} --lifespan=off --timeout-graceful-shutdown=1",
    "gunicorn": "gunicorn backend.config.wsgi:application --bind=fd://{fd} --threads=4 --graceful-timeout=1",
}


@dataclass
class Site:
    """A running server with a user's token, and a client of the runtime it uses."""

    port: int
    token: str
    runtime: GoRuntimeIntegration

    def open_stream(self, **headers: str) -> Stream:
        """Ask for the stream of one type; the answer has begun when this returns."""
        return Stream(self, headers)


class Stream:
    """One reader of the event stream, on a connection of its own."""

    def __init__(self, site: Site, headers: dict[str, str], event_type: str = "") -> None:
        self.event_type = event_type or f"test.{uuid4()}"
        self.connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE_SECONDS)
        authorization = {"Authorization": f"Token {site.token}", "Accept": "text/event-stream"}
        query = urlencode({"event_type": f"{self.event_type}*"})
        self.connection.request("GET", f"/api/events/stream/?{query}", headers=authorization | headers)
        self.response = self.connection.getresponse()
        assert self.response.status == 200, self.response.read()
        opening = self.read_block()
        assert opening.keys() == {"retry", "id"}
        self.began_at = opening["id"]

    def read_block(self) -> dict[str, str]:
        """The fields of the next block, once it is there."""
        fields: dict[str, str] = {}
        while line := self.response.readline().decode().rstrip("\n"):
            name, value = line.split(": ", 1)
            fields[name] = value
        return fields

    def close(self) -> None:
        self.response.close()
        self.connection.close()


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], str]:
    """A database with one user: the environment that names it, and the user's token."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("GO_RUNTIME_", "DJANGO_"))}
    environment["DATABASE_URL"] = f"sqlite:///{tmp_path_factory.mktemp('site') / 'db.sqlite3'}"
    subprocess.run([*MANAGE, "migrate", "--verbosity=0"], env=environment, check=True)
    command = [*MANAGE, "shell", "--verbosity=0", "--command", MAKE_TOKEN]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return environment, done.stdout.strip()


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    """Which server serves the site."""
    name: str = request.param
    return name


@contextmanager
def serve(server: str, account: tuple[dict[str, str], str], setting: dict[str, Any]) -> Iterator[Site]:
    environment, token = account
    environment = environment | {"GO_RUNTIME_HOST": setting["host"], "GO_RUNTIME_PORT": str(setting["port"])}
    with socket.create_server(("127.0.0.1", 0)) as listener, GoRuntimeIntegration(**setting) as runtime:
        fd = listener.fileno()
        command = [sys.executable, "-m", *SERVERS[server].format(fd=fd).split()]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[fd])
        try:
            yield Site(listener.getsockname()[1], token, runtime)
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def site(server: str, account: tuple[dict[str, str], str], go_runtime_process: GoRuntimeProcess) -> Iterator[Site]:
    """The site over the real runtime."""
    with serve(server, account, go_runtime_process.settings) as site:
        yield site


def publish(site: Site, event_type: str, numbers: range) -> list[int]:
    published = site.runtime.publish_events([NewEvent(event_type, {"number": number}) for number in numbers])
    return [event.sequence for event in published]


def test_events_arrive_while_the_stream_is_open(site: Site) -> None:
    stream = site.open_stream()
    for number in range(3):
        [sequence] = publish(site, stream.event_type, range(number, number + 1))
        block = stream.read_block()
        assert (int(block["id"]), block["event"]) == (sequence, stream.event_type)
        assert json.loads(block["data"])["data"] == {"number": number}
    stream.close()


def test_reader_that_reconnects_gets_what_follows_and_nothing_twice(site: Site) -> None:
    stream = site.open_stream()
    sequences = publish(site, stream.event_type, range(10))
    seen = [int(stream.read_block()["id"]) for _ in range(4)]
    stream.close()
    sequences += publish(site, stream.event_type, range(10, 15))
    again = Stream(site, {"Last-Event-ID": str(seen[-1])}, stream.event_type)
    seen += [int(again.read_block()["id"]) for _ in range(11)]
    again.close()
    assert seen == sequences


def test_reader_that_drops_before_its_first_event_misses_nothing(site: Site) -> None:
    stream = site.open_stream()
    stream.close()
    sequences = publish(site, stream.event_type, range(3))
    again = Stream(site, {"Last-Event-ID": stream.began_at}, stream.event_type)
    assert [int(again.read_block()["id"]) for _ in range(3)] == sequences
    again.close()


def test_open_stream_goes_on_when_the_runtime_was_killed(site: Site, go_runtime_process: GoRuntimeProcess) -> None:
    stream = site.open_stream()
    sequences = publish(site, stream.event_type, range(5))
    go_runtime_process.kill()
    go_runtime_process.start()
    sequences += publish(site, stream.event_type, range(5, 10))
    assert [int(stream.read_block()["id"]) for _ in range(10)] == sequences
    stream.close()


def test_path_that_is_no_text_is_refused(site: Site) -> None:
    for raw, status in {"%ff": 400, "%fe": 400, "%c3%bf": 201}.items():
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE_SECONDS)
        headers = {"Authorization": f"Token {site.token}", "Content-Type": "application/json"}
        connection.request("PUT", f"/api/state/{uuid4()}{raw}", '{"value": 1}', headers)
        with connection.getresponse() as response:
            response.read()
        connection.close()
        assert response.status == status


def test_reader_that_leaves_frees_its_subscription(server: str, account: tuple[dict[str, str], str]) -> None:
    with FakeGoRuntime() as runtime, serve(server, account, runtime.settings) as site:
        stream = site.open_stream()
        assert runtime.wait_for_subscriptions(1)
        stream.close()
        # A WSGI server learns that the reader left when it writes to it, so give it something to write.
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not runtime.wait_for_subscriptions(0, timeout_seconds=0.2):
            assert time.monotonic() < deadline
            publish(site, stream.event_type, range(1))


def test_server_stops_while_a_stream_is_open(server: str, account: tuple[dict[str, str], str]) -> None:
    with FakeGoRuntime() as runtime:
        with serve(server, account, runtime.settings) as site:
            stream = site.open_stream()
        stream.close()
        assert runtime.wait_for_subscriptions(0)
