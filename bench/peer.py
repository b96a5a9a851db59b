"""Peers with dependencies of their own: each in a virtual environment, made on demand, and driven by a program in it.

The program is `peers/<name>_driver.py`. It starts the peer's workers, says `{"versions": {…}}` when one task has gone
through, and then answers each line on its stdin, `{"do": "call", "value": …}` or `{"do": "drain", "value": …,
"count": …}`, with `{"seconds": …}`: what it took from handing over to knowing that all was done. Who has more to tell
adds it. It ends with its stdin.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.child import ChildFailed, free_port
from bench.servers import HERE

_FOLDER = HERE / ".peers"
_INSTALL_SECONDS = 600.0
_STOP_SECONDS = 60.0


class PeerMissing(Exception):
    """A peer cannot be measured here; the message says why."""


@dataclass(frozen=True, slots=True)
class PeerKind:
    """A peer that can be installed."""

    name: str
    requirements: tuple[str, ...]


PROCRASTINATE = PeerKind("procrastinate", ("procrastinate>=3.5,<4", "psycopg[binary,pool]>=3.2"))
LANGGRAPH = PeerKind("langgraph", ("langgraph>=1.0,<2", "langgraph-checkpoint-sqlite>=3,<4"))
AGNO = PeerKind("agno", ("agno[os,postgres]>=3.1,<4", "httpx>=0.28", "uvicorn>=0.34"))


class Peer:
    """A peer at work."""

    def __init__(self, name: str, process: subprocess.Popen[str], log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log
        self.versions: dict[str, str] = self._read()["versions"]

    def call(self, value: object) -> float:
        """Hand over one task and wait for it: the seconds it took."""
        return self.measure(value)["seconds"]

    def measure(self, value: object) -> dict[str, float]:
        """Hand over one task and wait for it: the `seconds` it took, and what else the peer tells."""
        return {name: float(figure) for name, figure in self._ask({"do": "call", "value": value}).items()}

    def drain(self, value: object, count: int) -> float:
        """Hand over many, as the peer does it best, and wait for all: how many were done in a second."""
        return count / float(self._ask({"do": "drain", "value": value, "count": count})["seconds"])

    def _ask(self, order: dict[str, object]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChildFailed(f"{self.name} ended:\n{self._log.read_text(errors='replace')[-2000:]}")
        return json.loads(line)


@contextmanager
def start_peer(kind: PeerKind, folder: Path, database_url: str = "", *, install: bool) -> Iterator[Peer]:
    """Start a peer on an empty database, if it keeps one; without `install`, only one that was installed before.

    Raises:
        PeerMissing: It is not installed, or cannot be.
        ChildFailed: It did not start.
    """
    command = [_find_python(kind, install=install), HERE / "peers" / f"{kind.name}_driver.py"]
    environment = {
        "BENCH_DATABASE_URL": _dialect(kind, database_url),
        "BENCH_FOLDER": str(folder),
        "BENCH_PORT": str(free_port()),
        "PYTHONPATH": str(HERE / "peers"),
    }
    with drive(kind.name, command, folder, environment) as peer:
        yield peer


@contextmanager
def drive(
    name: str, command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Peer]:
    """Run a program that talks as a peer's driver does, with its log in `folder`.

    Raises:
        ChildFailed: It did not start.
    """
    log = folder / f"{name}.log"
    inherited = {variable: value for variable, value in os.environ.items() if variable != "PYTHONPATH"}
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603 - this package's own program
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            cwd=HERE / "peers",
            env={**inherited, **(environment or {})},
            start_new_session=True,
        )
    try:
        yield Peer(name, process, log)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _dialect(kind: PeerKind, database_url: str) -> str:
    """The URL as the peer's library wants it."""
    return database_url.replace("postgresql:", "postgresql+psycopg_async:", 1) if kind is AGNO else database_url


def _find_python(kind: PeerKind, *, install: bool) -> Path:
    """The interpreter of the peer's virtual environment, which is made if it is wanted and not there."""
    folder = _FOLDER / kind.name
    python, done = folder / "bin" / "python", folder / "installed.json"
    if done.exists() and json.loads(done.read_text()) == list(kind.requirements):
        return python
    if not install:
        raise PeerMissing(f"{kind.name} is not installed; a whole `make bench` does that")
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    steps: tuple[tuple[str | Path, ...], ...] = (
        (uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder),
        (uv, "pip", "install", "--quiet", "--python", python, *kind.requirements),
    )
    for step in steps:
        _install(kind, step)
    done.write_text(json.dumps(kind.requirements))
    return python


def _install(kind: PeerKind, command: tuple[str | Path, ...]) -> None:
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
    try:
        done = run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerMissing(f"{kind.name} cannot be installed: {error}") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason was given"]
        raise PeerMissing(f"{kind.name} cannot be installed: {lines[-1]}")
