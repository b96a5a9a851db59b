"""Processes that a run starts, and stops again by their own ids."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.005


class ChildFailed(Exception):
    """A process did not do what it was started for; the message ends with what it printed last."""


class Child:
    """A running process. Use it in a `with` block, which stops it."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Start it.

        Args:
            command: The program and its arguments.
            log: Where its output goes.
            environment: Variables on top of this process's own.
            folder: Where it runs; None: here.
        """
        self.log = log
        self._name = Path(command[0]).name
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - the commands are this package's own
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=folder,
                # A Ctrl-C is for this process, which then stops its children in order.
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask it to end, and make it end if it does not; safe to call twice."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def resident_bytes(self) -> int:
        """The memory it occupies now."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise self._failure("ended")

    def wait_for(self, ready: Callable[[], Any], seconds: float) -> Any:
        """Ask until `ready` gives something true, and return that. OSError counts as not yet.

        Raises:
            ChildFailed: The process ended first, or the time was up.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                answer = ready()
            except OSError:
                answer = None
            if answer:
                return answer
            if self._process.poll() is not None:
                raise self._failure(f"ended with exit code {self._process.returncode}")
            time.sleep(_POLL_SECONDS)
        raise self._failure(f"was not ready after {seconds:.0f} s")

    def _failure(self, what: str) -> ChildFailed:
        return ChildFailed(f"{self._name} {what}:\n{self.log.read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
