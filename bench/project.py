"""The measured Django project at work: its runtime and database, worker processes and web servers."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.child import Child, ChildFailed, free_port
from bench.postgresql import find_postgresql, start_postgresql
from bench.servers import HERE, Runtime, start_runtime

WebServer = Literal["uvicorn", "gunicorn"]
WEB_SERVERS: tuple[WebServer, ...] = ("uvicorn", "gunicorn")

WORKER_PROCESSES = 2
_START_SECONDS = 60.0
_GUNICORN_THREADS = 8
# More than anything here opens.
_MOST_STREAMS = 20_000
_USER = "bench"


@dataclass(frozen=True, slots=True)
class Project:
    """A project whose runtime and database are up."""

    runtime: Runtime
    database_url: str
    folder: Path
    token: str
    """With which its only user calls the API."""

    @property
    def database(self) -> str:
        """What keeps its rows, for people."""
        return "PostgreSQL" if self.database_url.startswith("postgresql") else "SQLite"

    @property
    def environment(self) -> dict[str, str]:
        """The variables of its processes."""
        return _environment(self.runtime.port, self.database_url, self.folder)


@contextmanager
def start_project(folder: Path, sockets: Path, *, most_queued: int, name: str = "project") -> Iterator[Project]:
    """Start a runtime with durability fsync and a database, PostgreSQL where there is one, in the folder `name`."""
    home = folder / name
    home.mkdir()
    with ExitStack() as stack:
        programs = find_postgresql()
        url = (
            f"sqlite:///{home / 'project.sqlite3'}"
            if programs is None
            # As docs/how-to/deploy.md has it.
            else f"{stack.enter_context(start_postgresql(programs))}?pool=20"
        )
        limits = (
            *("--stream-limit", str(_MOST_STREAMS), "--stream-limit-per-user", str(_MOST_STREAMS)),
            *("--max-queued-runs", str(most_queued)),
        )
        runtime = stack.enter_context(start_runtime(folder, sockets, durability="fsync", name=name, arguments=limits))
        environment = _environment(runtime.port, url, home)
        _manage(environment, "migrate", "--verbosity=0")
        _manage(environment, "createsuperuser", "--noinput", f"--username={_USER}", "--email=bench@example.com")
        token = _manage(environment, "drf_create_token", _USER).split()[2]
        yield Project(runtime, url, home, token)


@contextmanager
def start_workers(
    project: Project, *, processes: int = WORKER_PROCESSES, concurrency: int = 20, name: str = "workers"
) -> Iterator[Child]:
    """Run `manage.py runagent`; each process has said that it is connected when this begins."""
    command: list[str] = [
        *(sys.executable, "-m", "django", "runagent", "--noreload"),
        *("--processes", str(processes), "--concurrency", str(concurrency), "--grace", "1"),
    ]
    environment = {**project.environment, "BENCH_LOG_LEVEL": "INFO"}
    with Child(command, project.folder / f"{name}.log", environment=environment, folder=HERE.parent) as child:
        child.wait_for(
            lambda: child.log.read_text().count("connected to the agent runtime") >= processes, _START_SECONDS
        )
        yield child


@contextmanager
def start_web(project: Project, server: WebServer) -> Iterator[tuple[Child, int]]:
    """Serve the project with one process: the process that answers, and its port."""
    port = free_port()
    command = [sys.executable, "-m"]
    if server == "uvicorn":
        command += ["uvicorn", "--port", str(port), "--log-level", "warning", "--timeout-graceful-shutdown", "1"]
        command += ["--backlog", "8192", "bench.site.servers:asgi"]
    else:
        command += ["gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--workers", "1"]
        command += ["--threads", str(_GUNICORN_THREADS), "--keep-alive", "60", "--log-level", "warning"]
        command += ["--graceful-timeout", "1", "bench.site.servers:wsgi"]
    log = project.folder / f"{server}.log"
    with Child(command, log, environment=project.environment, folder=HERE.parent) as child:
        child.wait_for(lambda: _responds(f"http://127.0.0.1:{port}/health/runtime/"), _START_SECONDS)
        yield child, port


def _environment(port: int, database_url: str, folder: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "DJANGO_ALLOWED_HOSTS": "127.0.0.1",
        "DJANGO_DEBUG": "0",
        "DJANGO_SECRET_KEY": "only for the length of a benchmark on loopback, 0123456789abcdef",
        "DJANGO_SETTINGS_MODULE": "bench.site.settings",
        "DJANGO_SSL_REDIRECT": "0",
        "DJANGO_SUPERUSER_PASSWORD": "bench",
        "GO_RUNTIME_HOST": "127.0.0.1",
        "GO_RUNTIME_PORT": str(port),
        "GO_RUNTIME_SOCKET": "",
        "GO_RUNTIME_TOKEN": "",
        "GO_RUNTIME_NAMESPACE": "",
        "PYTHONPATH": str(HERE.parent),
        "PYTHONUNBUFFERED": "1",
        "VAR_DIR": str(folder / "var"),
    }


def _manage(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - commands of Django
        [sys.executable, "-m", "django", *arguments],
        cwd=HERE.parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ChildFailed(f"{arguments[0]} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def _responds(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - always http on loopback
            return True
    except urllib.error.HTTPError:
        return True
