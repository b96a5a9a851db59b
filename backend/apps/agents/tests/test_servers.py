"""Runs from a request to the last event: real servers, the real runtime, a worker and a projector."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from django_agent_runtime.testing import GoRuntimeProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[4]
MANAGE = [sys.executable, str(ROOT / "backend" / "manage.py")]
MAKE_TOKENS = """
from django.contrib.auth.models import User
from rest_framework.authtoken.models import Token
for name in ("ada", "bob"):
    print(Token.objects.create(user=User.objects.create_user(name)).key)
"""
MAKE_BARE_RUN = """
from django.contrib.auth.models import User
from django_agent_runtime.models import AgentRun
user = User.objects.get(username="ada")
print(AgentRun.objects.create(user=user, agent_key="chat-agent", input={"messages": []}).pk)
"""
PATIENCE_SECONDS = 60.0
# Open streams would hold uvicorn back for as long as they last, so a stop has a limit there.
SERVERS = {
    "uvicorn": "uvicorn backend.config.asgi:application --fd={fd} --lifespan=off --timeout-graceful-shutdown=1",
    "gunicorn": "gunicorn backend.config.wsgi:application --bind=fd://{fd} --threads=16 --graceful-timeout=1",
}
BODY = {"agent_key": "chat-agent", "messages": [{"role": "user", "content": "Hello!"}]}
ENDS = {"run.succeeded", "run.failed", "run.cancelled", "run.timed_out"}


@dataclass
class Site:
    """A served site with its runtime, and what else runs beside it."""

    port: int
    tokens: list[str]
    environment: dict[str, str]
    runtime: GoRuntimeProcess
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def call(self, method: str, path: str, body: Any = None, *, user: int = 0) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        headers = {"Authorization": f"Token {self.tokens[user]}", "Content-Type": "application/json"}
        text = None if body is None else json.dumps(body)
        connection.request(method, f"/api/agents/{path}", text, headers)
        with connection.getresponse() as response:
            content = response.read()
        connection.close()
        return response.status, json.loads(content) if content else None

    def create(self, **changes: Any) -> str:
        """The id of a new run."""
        status, created = self.call("POST", "runs/", BODY | changes)
        assert status == 201, created
        run_id: str = created["id"]
        return run_id

    def start(self, command: str) -> None:
        """Run a command of the site until the test ends, or until it is killed."""
        self.processes[command] = subprocess.Popen(
            [*MANAGE, *command.split()], cwd=ROOT, env=self.environment, stdout=subprocess.DEVNULL
        )

    def kill(self, command: str) -> None:
        process = self.processes.pop(command)
        process.kill()
        process.wait()

    def shell(self, code: str) -> list[str]:
        """The lines that Python code of the site writes."""
        return run_code(code, self.environment)


class Stream:
    """One reader of a run's events, on a connection of its own."""

    def __init__(self, site: Site, run_id: str, query: str = "", **headers: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE_SECONDS)
        headers = {"Authorization": f"Token {site.tokens[0]}", "Accept": "text/event-stream"} | headers
        self.connection.request("GET", f"/api/agents/runs/{run_id}/events/?{query}", headers=headers)
        self.response = self.connection.getresponse()
        assert self.response.status == 200, self.response.read()
        assert "retry" in self.read_block()

    def read_block(self) -> dict[str, Any]:
        """The fields of the next block; empty at the end."""
        fields: dict[str, Any] = {}
        while line := self.response.readline().decode().rstrip("\n"):
            name, value = line.split(": ", 1)
            fields[name] = json.loads(value) if name == "data" else value
        return fields

    def read_event(self) -> dict[str, Any]:
        """The next event, heartbeats left out; empty at the end."""
        while block := self.read_block():
            if "data" in block:
                return block
        return {}

    def read_all(self) -> list[dict[str, Any]]:
        """Every event until the stream ends."""
        events = []
        while event := self.read_event():
            events.append(event)
        self.close()
        return events

    def close(self) -> None:
        self.response.close()
        self.connection.close()


def run_code(code: str, environment: dict[str, str]) -> list[str]:
    command = [*MANAGE, "shell", "--verbosity=0", "--command", code]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.split()


def wait_until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return value


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@contextmanager
def serve(server: str, folder: Path) -> Iterator[Site]:
    """The site, with a runtime that has not been started."""
    runtime = GoRuntimeProcess(folder)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("GO_RUNTIME_", "DJANGO_"))}
    # No paid model.
    environment = {key: value for key, value in environment.items() if not key.endswith("_API_KEY")}
    environment["DATABASE_URL"] = f"sqlite:///{folder / 'db.sqlite3'}"
    environment |= {"GO_RUNTIME_HOST": runtime.host, "GO_RUNTIME_PORT": str(runtime.port)}
    subprocess.run([*MANAGE, "migrate", "--verbosity=0"], env=environment, check=True)
    tokens = run_code(MAKE_TOKENS, environment)
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        fd = listener.fileno()
        command = [sys.executable, "-m", *SERVERS[server].format(fd=fd).split()]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[fd])
        stack.callback(process.wait, PATIENCE_SECONDS)
        stack.callback(process.terminate)
        site = Site(listener.getsockname()[1], tokens, environment, runtime)
        try:
            yield site
        finally:
            for other in site.processes.values():
                other.send_signal(signal.SIGTERM)
            for other in site.processes.values():
                other.wait(PATIENCE_SECONDS)
            runtime.stop()


WORKER = "runagent --noreload"
PROJECTOR = "projectruns"


@pytest.fixture(scope="module")
def site(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site with all that belongs to it."""
    with serve(server, tmp_path_factory.mktemp("site")) as site:
        site.runtime.start()
        site.start(WORKER)
        site.start(PROJECTOR)
        yield site


def types_of(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


def test_run_is_done_streamed_and_kept(site: Site) -> None:
    status, conversation = site.call("POST", "conversations/", {"agent_key": "chat-agent", "title": "A chat"})
    assert status == 201
    run_id = site.create(conversation_id=conversation["id"])
    events = Stream(site, run_id).read_all()
    assert types_of(events)[-2:] == ["assistant.message", "run.succeeded"]
    assert events[-2]["data"]["content"]
    status, run = site.call("GET", f"runs/{run_id}/")
    assert (run["status"], run["stale"]) == ("succeeded", False)
    kept = wait_until(lambda: site.call("GET", f"runs/{run_id}/events/")[1]["results"])
    assert [event["type"] for event in kept][-1] == "run.succeeded"
    wait_until(lambda: len(site.call("GET", f"conversations/{conversation['id']}/messages/")[1]["messages"]) == 2)


def test_reader_resumes_anywhere_without_gap_or_repeat(site: Site) -> None:
    run_id = site.create()
    whole = Stream(site, run_id, "include_debug=true").read_all()
    assert types_of(whole)[-1] == "run.succeeded"
    for place, event in enumerate(whole[:-1]):
        rest = Stream(site, run_id, "include_debug=true", **{"Last-Event-ID": event["id"]}).read_all()
        assert rest == whole[place + 1 :]


def test_open_stream_goes_on_when_the_runtime_was_killed(site: Site) -> None:
    run_id = site.create(delay_seconds=1)
    stream = Stream(site, run_id)
    site.runtime.kill()
    site.runtime.start()
    assert types_of(stream.read_all())[-2:] == ["assistant.message", "run.succeeded"]


def test_other_users_see_nothing(site: Site) -> None:
    run_id = site.create()
    for path in (f"runs/{run_id}/", f"runs/{run_id}/events/", f"runs/{run_id}/events/stream/"):
        assert site.call("GET", path, user=1)[0] == 404


def test_streams_do_not_hold_up_other_requests(site: Site) -> None:
    streams = [Stream(site, site.create(delay_seconds=600)) for _ in range(3)]
    assert site.call("GET", "runs/")[0] == 200
    for stream in streams:
        stream.close()


def test_cancel_ends_the_run_and_its_stream(site: Site) -> None:
    run_id = site.create(delay_seconds=600)
    stream = Stream(site, run_id)
    assert site.call("POST", f"runs/{run_id}/cancel/")[0] == 200
    assert types_of(stream.read_all()) == ["run.cancelled"]
    wait_until(lambda: run_id in [run["id"] for run in site.call("GET", "runs/?status=cancelled")[1]["results"]])


def test_bare_row_is_sent_by_the_projector(site: Site) -> None:
    """As when Django was killed between commit and call."""
    [run_id] = site.shell(MAKE_BARE_RUN)
    assert types_of(Stream(site, run_id).read_all())[-1] == "run.succeeded"


def test_projector_that_was_killed_goes_on_where_it_was(site: Site) -> None:
    run_ids = [site.create() for _ in range(20)]
    site.kill(PROJECTOR)
    for run_id in run_ids:
        Stream(site, run_id).read_all()
    # The lease of the one that was killed has to lapse first.
    site.shell("from django_agent_runtime.models import *; ProjectorCursor.objects.update(lease_expires_at=None)")
    site.start(PROJECTOR)

    def find_ends(run_id: str) -> list[str]:
        _, page = site.call("GET", f"runs/{run_id}/events/?include_debug=true")
        return [event["type"] for event in page["results"] if event["type"] in ENDS]

    for run_id in run_ids:
        assert wait_until(partial(find_ends, run_id)) == ["run.succeeded"]


def test_run_that_was_created_without_a_runtime_is_done_when_there_is_one(server: str, tmp_path: Path) -> None:
    with serve(server, tmp_path) as site:
        site.start(PROJECTOR)
        status, created = site.call("POST", "runs/", BODY)
        assert (status, created["status"], created["submitted_at"]) == (201, "queued", None)
        stream = Stream(site, created["id"])
        waiting = stream.read_event()
        assert (waiting["event"], "id" in waiting) == ("run.waiting_for_runtime", False)
        site.runtime.start()
        site.start(WORKER)
        assert types_of(stream.read_all())[-2:] == ["assistant.message", "run.succeeded"]
