"""The servers that are measured: each starts on loopback, on a free port, and is ready when its context begins."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import redis
from django_agent_runtime.binary import find_binary
from django_agent_runtime.go_integration import GoRuntimeIntegration

from bench import celery_app
from bench.child import Child, free_port

if TYPE_CHECKING:
    from celery import Task

HERE = Path(__file__).resolve().parent
_START_SECONDS = 120.0


# The last needs what only the runtime's own module may import.
_PROGRAMS = {"echo": "./echo", "loader": "./loader", "benchmark": "../go-runtime/internal/graph/thread/benchmark"}


def build(program: Literal["echo", "loader", "benchmark"], folder: Path) -> Path:
    """Compile one of the Go programs, with the versions go-runtime names, and say where it is."""
    binary = folder / program
    subprocess.run(  # noqa: S603 - a fixed command
        ["go", "build", "-o", str(binary), _PROGRAMS[program]],  # noqa: S607 - the user's Go
        cwd=HERE,
        check=True,
    )
    return binary


@dataclass(frozen=True, slots=True)
class Echo:
    """The floor, over TCP and over a Unix socket."""

    address: str
    socket: Path


@contextmanager
def start_echo(binary: Path, folder: Path, sockets: Path) -> Iterator[Echo]:
    """Run the bare gRPC server that `build` made."""
    socket = sockets / "echo.sock"
    with Child([binary, "-socket", socket], folder / "echo.log") as child:
        address = child.wait_for(lambda: _first_line(child.log), _START_SECONDS)
        yield Echo(address, socket)


@dataclass(frozen=True, slots=True)
class Runtime:
    """A running agent-runtime."""

    child: Child
    port: int
    http_port: int
    """Where streams with a ticket are read."""
    socket: Path
    start_seconds: float
    """From its start until GET /readyz answered 200."""

    def connect(self, *, over_socket: bool = False) -> GoRuntimeIntegration:
        """A new client of it, connected."""
        client = (
            GoRuntimeIntegration(socket=str(self.socket))
            if over_socket
            else GoRuntimeIntegration(host="127.0.0.1", port=self.port)
        )
        client.wait_ready()
        return client


@contextmanager
def start_runtime(
    folder: Path,
    sockets: Path,
    *,
    durability: Literal["fsync", "os"],
    name: str | None = None,
    arguments: Sequence[str] = (),
) -> Iterator[Runtime]:
    """Run the runtime on the data folder `folder/name`, which is kept; the name is its durability unless given.

    `arguments` are added to `serve`.
    """
    name = name or durability
    socket = sockets / f"{name}.sock"
    command: list[str | Path] = [
        *(find_binary(), "serve", "--durability", durability, "--data-dir", folder / name),
        *("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--socket", socket, "--log-format", "json"),
        *arguments,
    ]
    begin = time.perf_counter()
    with Child(command, folder / f"{name}.log") as child:
        facts = child.wait_for(lambda: _serving(child.log), _START_SECONDS)
        child.wait_for(lambda: _answers(f"http://{facts['http']}/readyz"), _START_SECONDS)
        start_seconds = time.perf_counter() - begin
        port, http_port = (int(facts[name].rpartition(":")[2]) for name in ("listen", "http"))
        yield Runtime(child, port, http_port, socket, start_seconds)


def find_redis() -> str | None:
    """The Redis server of this machine, if it has one."""
    return shutil.which("redis-server")


@contextmanager
def start_redis(binary: str, folder: Path, *, fsync: bool) -> Iterator[redis.Redis]:
    """Run Redis with its default configuration, or with every write on the disk before it is acknowledged."""
    name = "redis-fsync" if fsync else "redis"
    data = folder / name
    data.mkdir()
    port = free_port()
    command: list[str | Path] = [binary, "--bind", "127.0.0.1", "--port", str(port), "--dir", data]
    if fsync:
        command += ["--appendonly", "yes", "--appendfsync", "always"]
    with Child(command, folder / f"{name}.log") as child, redis.Redis(host="127.0.0.1", port=port) as client:
        child.wait_for(lambda: _pings(client), _START_SECONDS)
        yield client


@contextmanager
def start_celery(broker_port: int, folder: Path) -> Iterator[Task[[dict[str, object]], dict[str, object]]]:
    """Run a Celery worker with two prefork processes on a Redis broker; gives the task to call."""
    url = f"redis://127.0.0.1:{broker_port}/0"
    celery_app.app.conf.update(broker_url=url, result_backend=url.removesuffix("0") + "1")
    command = [
        *(sys.executable, "-m", "celery", "--app", "bench.celery_app", "worker"),
        *("--pool", "prefork", "--concurrency", "2", "--loglevel", "WARNING"),
    ]
    with Child(command, folder / "celery.log", environment={celery_app.BROKER_VARIABLE: url}, folder=HERE.parent):
        celery_app.echo.delay({}).get(timeout=_START_SECONDS)
        yield celery_app.echo
        # A result that is collected later, from a cycle, would look for Redis without end.
        gc.collect()
        celery_app.app.close()


def _first_line(log: Path) -> str:
    line, end, _ = log.read_text().partition("\n")
    return line if end else ""


def _serving(log: Path) -> dict[str, str] | None:
    """The fields of the line with which the runtime says that it serves."""
    for line in log.read_text().splitlines():
        if line.endswith("}"):
            record: dict[str, str] = json.loads(line)
            if record.get("msg") == "runtime serves":
                return record
    return None


def _answers(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310 - always http on loopback
        return bool(response.status == HTTPStatus.OK)


def _pings(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
