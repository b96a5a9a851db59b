"""The site under a real server, with the real runtime, for tests that look at it from outside."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django_agent_runtime.testing import GoRuntimeProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[4]
MANAGE = [sys.executable, str(ROOT / "backend" / "manage.py")]
MAKE_TOKENS = """
from django.contrib.auth.models import User
from rest_framework.authtoken.models import Token
for name in ("ada", "bob"):
    print(Token.objects.create(user=User.objects.create_user(name, password=name)).key)
User.objects.create_superuser("root", password="root")
"""
PATIENCE_SECONDS = 60.0
# Open streams would hold uvicorn back for as long as they last, so a stop has a limit there.
SERVERS = {
    "uvicorn": "uvicorn backend.config.asgi:application --fd={fd} --lifespan=off --timeout-graceful-shutdown=1",
    "gunicorn": "gunicorn backend.config.wsgi:application --bind=fd://{fd} --threads=16 --graceful-timeout=1",
}
BODY = {"agent_key": "chat-agent", "messages": [{"role": "user", "content": "Hello!"}]}


@dataclass
class Site:
    """A served site with its runtime, and what else runs beside it."""

    port: int
    tokens: list[str]
    environment: dict[str, str]
    runtime: GoRuntimeProcess
    pid: int
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

    def count_threads(self) -> int:
        """How many threads the server has, on Linux."""
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def shell(self, code: str) -> list[str]:
        """The lines that Python code of the site writes."""
        return run_code(code, self.environment)


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


@dataclass(frozen=True)
class Accounts:
    """A database with two users and the superuser `root`, to be copied, and the tokens of the two."""

    database: Path
    tokens: list[str]


def make_environment(database: Path) -> dict[str, str]:
    """The environment of a site's processes; no paid model is in it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GO_RUNTIME_", "DJANGO_"))}
    kept = {key: value for key, value in kept.items() if not key.endswith("_API_KEY")}
    return kept | {"DATABASE_URL": f"sqlite:///{database}"}


def make_accounts(folder: Path) -> Accounts:
    database = folder / "db.sqlite3"
    environment = make_environment(database)
    subprocess.run([*MANAGE, "migrate", "--verbosity=0"], env=environment, check=True)
    return Accounts(database, run_code(MAKE_TOKENS, environment))


@contextmanager
def serve(server: str, folder: Path, accounts: Accounts, **variables: str) -> Iterator[Site]:
    """The site, with a runtime that has not been started, and with more variables in its environment."""
    runtime = GoRuntimeProcess(folder)
    environment = make_environment(shutil.copyfile(accounts.database, folder / "db.sqlite3"))
    environment |= {"GO_RUNTIME_HOST": runtime.host, "GO_RUNTIME_PORT": str(runtime.port)} | variables
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        fd = listener.fileno()
        command = [sys.executable, "-m", *SERVERS[server].format(fd=fd).split()]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[fd])
        stack.callback(process.wait, PATIENCE_SECONDS)
        stack.callback(process.terminate)
        site = Site(listener.getsockname()[1], accounts.tokens, environment, runtime, process.pid)
        try:
            yield site
        finally:
            for other in site.processes.values():
                other.send_signal(signal.SIGTERM)
            for other in site.processes.values():
                other.wait(PATIENCE_SECONDS)
            runtime.stop()
