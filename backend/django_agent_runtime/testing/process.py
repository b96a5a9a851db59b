"""The real runtime as a child process, for tests that need what a fake cannot show."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from django_agent_runtime.binary import find_binary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

READY_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 30.0
PROBE_INTERVAL_SECONDS = 0.02
# Below those that systems give to outgoing connections. One of theirs could be taken before it is listened on, or
# between `kill()` and `start()`.
PORTS = range(20_000, 32_000)


class GoRuntimeProcess:
    """`agent-runtime serve` on free loopback ports, with its data in a folder of its own.

    The ports stay the same over `kill()` and `start()`, so that a client can be seen to
    reconnect. The log goes to `agent-runtime.log` in the data folder's parent.
    """

    def __init__(
        self,
        folder: Path,
        *,
        binary: Path | None = None,
        arguments: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`folder` is where data, socket and log go; `arguments` are added to `serve`, `environment` to its variables.

        Raises:
            FileNotFoundError: No binary was given, and there is none where one is looked for.
        """
        self.binary = binary or find_binary()
        self.data_dir = folder / "data"
        self.socket = folder / "agent-runtime.sock"
        self.log_path = folder / "agent-runtime.log"
        self.host = "127.0.0.1"
        self.port, self.http_port = free_ports(2)
        self._arguments = arguments
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """A `GO_RUNTIME` setting that points to this process."""
        return {
            "host": self.host,
            "port": self.port,
            "timeout": 30,
            "reconnection_attempts": 5,
            "reconnection_delay": 0.2,
        }

    def start(self) -> Self:
        """Start it and wait until `/readyz` says that it answers calls, if only reads because its store is full.

        Raises:
            ChildProcessError: It ended, or was not ready within 30 seconds; the message ends with its log.
        """
        command = [
            str(self.binary),
            "serve",
            *("--listen", f"{self.host}:{self.port}"),
            *("--socket", str(self.socket)),
            *("--http", f"{self.host}:{self.http_port}"),
            *("--data-dir", str(self.data_dir)),
            *self._arguments,
        ]
        # What configures the runtime a developer uses must not reach the test's: it asks no paid model.
        prefixes = ("AGENT_RUNTIME_", "LANGSMITH_", "OPENAI_", "OTEL_")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(prefixes)}
        environment |= self._environment
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)  # noqa: S603
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while not self._is_serving():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                log_tail = self.log_path.read_text(errors="replace")[-2000:]
                raise ChildProcessError(f"{self.binary} was not ready; its log ends with:\n{log_tail}")
            time.sleep(PROBE_INTERVAL_SECONDS)
        return self

    def stop(self) -> None:
        """Ask it to drain and wait for its end; a second call does nothing.

        Raises:
            subprocess.TimeoutExpired: It was still there after 30 seconds; it was killed then.
        """
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def _is_serving(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self.http_port}/readyz", timeout=1) as response:
                return bool(response.status == 200)  # noqa: PLR2004
        except urllib.error.HTTPError as refusal:
            return bool(json.load(refusal).get("serving"))
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


def free_ports(count: int) -> list[int]:
    """Loopback ports that nothing listens on, picked at random; held until the last is known, so that they differ."""
    dice, ports = random.SystemRandom(), list[int]()
    with ExitStack() as stack:
        while len(ports) < count:
            port, probe = dice.choice(PORTS), stack.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
    return ports
