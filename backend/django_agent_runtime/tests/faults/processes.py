"""The processes of a Django project, and the network between them and the runtime."""

from __future__ import annotations

import http.client
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django_agent_runtime.testing import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from django_agent_runtime.go_integration import GoRuntimeIntegration
    from django_agent_runtime.types import Run, RunEvent

PATIENCE_SECONDS = 60.0
MAKE_USER = "from django.contrib.auth.models import User; User.objects.create_user('ada', password='ada')"
AUTHORIZATION = f"Basic {b64encode(b'ada:ada').decode()}"


def wait_until(condition: Callable[[], Any], what: str = "it", seconds: float = PATIENCE_SECONDS) -> Any:
    """The first true value of `condition`, which only other processes can bring about."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.01)
    return value


def read_history(client: GoRuntimeIntegration, run_id: str) -> list[RunEvent]:
    """All events of a run that has ended."""
    with client.watch_run(run_id) as events:
        return list(events)


@dataclass(frozen=True)
class Server:
    """The project under uvicorn; its one user signs in with `AUTHORIZATION`."""

    port: int
    pid: int

    def is_there(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return True

    def request(
        self, method: str, path: str, body: Any = None, *, room: int | None = None, **headers: str
    ) -> http.client.HTTPResponse:
        """The answer, to be read and closed; `room` is for how many bytes of it the system may keep unread."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.sock = socket.socket()
        connection.sock.settimeout(PATIENCE_SECONDS)
        if room is not None:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        connection.sock.connect(("127.0.0.1", self.port))
        # The answer then holds the socket alone.
        headers |= {"Authorization": AUTHORIZATION, "Content-Type": "application/json", "Connection": "close"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        return connection.getresponse()

    def create_run(self, agent_key: str, **params: Any) -> str:
        with self.request("POST", "/runs/", {"agent_key": agent_key, "messages": [], "params": params}) as response:
            created = json.load(response)
        assert response.status == HTTPStatus.CREATED, created
        run_id: str = created["id"]
        return run_id

    def read_peak_memory(self) -> int:
        """The most memory that the process has had, in kB, as Linux shows it."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(dict(line.split(":", 1) for line in status.splitlines())["VmHWM"].split()[0])

    def count_python_threads(self) -> int:
        """Its threads but for those of gRPC, which have names of their own and are as many as gRPC thinks best."""
        names = []
        for path in Path(f"/proc/{self.pid}/task").glob("*/comm"):
            with suppress(FileNotFoundError):
                names.append(path.read_text())
        own = Path(f"/proc/{self.pid}/comm").read_text()
        return names.count(own)


class Site:
    """A folder with the project's database and what its agents leave behind, and processes of the project.

    `lease` is what its workers ask for, in seconds. `template` is where the first site of a session keeps a copy of
    its new database for the others.
    """

    def __init__(self, folder: Path, port: int, template: Path, *, lease: float = 2) -> None:
        self.folder = folder
        self.lease = lease
        self._port = port
        self._template = template
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def database(self) -> Path:
        return self.folder / "db.sqlite3"

    def start(self, *command: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a process of Python's, in this environment beside the site's own."""
        whole = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "django_agent_runtime.tests.faults.site_settings",
            "PYTHONUNBUFFERED": "1",
            "SITE_FOLDER": str(self.folder),
            "SITE_LEASE": str(self.lease),
            "SITE_PORT": str(self._port),
            **(environment or {}),
        }
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen([sys.executable, *command], cwd=self.folder, env=whole, stdout=log, stderr=log)
        self._processes.append(process)
        return process

    def start_worker(
        self, *arguments: str, port: int | None = None, lease: float | None = None
    ) -> subprocess.Popen[bytes]:
        """Start `runagent` without a projector."""
        command = ("-m", "django", "runagent", "--noreload", "--no-projector", *arguments)
        environment = {"SITE_PORT": str(port or self._port), "SITE_LEASE": str(lease or self.lease)}
        return self.start(*command, environment=environment)

    def run(self, *command: str) -> int:
        """Run a process of Python's to its end, and return its exit code."""
        return self.start(*command).wait(PATIENCE_SECONDS)

    def migrate(self) -> None:
        """Make the database, which knows one user."""
        if self._template.exists():
            shutil.copyfile(self._template, self.database)
            return
        assert self.run("-m", "django", "migrate", "--verbosity", "0") == 0, self.read_log()
        assert self.run("-m", "django", "shell", "--command", MAKE_USER) == 0, self.read_log()
        shutil.copyfile(self.database, self._template)

    def serve(self) -> Server:
        """Start uvicorn with the project."""
        self.migrate()
        [port] = free_ports(1)
        application = ("--factory", "django.core.asgi:get_asgi_application")
        process = self.start("-m", "uvicorn", *application, "--port", str(port), "--lifespan", "off")
        server = Server(port, process.pid)
        wait_until(server.is_there, "uvicorn")
        return server

    def touch(self, name: str) -> None:
        (self.folder / name).touch()

    def read_lines(self, name: str) -> list[list[str]]:
        """What agents appended to a file, a list of words for each line."""
        path = self.folder / name
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def wait_for_lines(self, name: str, count: int) -> list[list[str]]:
        """`read_lines`, once there are so many."""
        wait_until(lambda: len(self.read_lines(name)) >= count, f"{count} lines in {name}")
        return self.read_lines(name)

    def read_log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def stop(self) -> None:
        """Kill what was started."""
        for process in self._processes:
            if process.poll() is None:
                # One that is frozen as well.
                process.kill()
                process.wait()


def settle(client: GoRuntimeIntegration) -> dict[str, Run]:
    """All runs there are, each with its output, once all have ended."""
    wait_until(lambda: all(run.state.ended for run in client.list_runs(page_size=500)), "the end of all runs")
    ids = [run.run_id for run in client.list_runs(page_size=500)]
    return {run.run_id: run for run in client.wait_runs(ids)}


def freeze(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)


def thaw(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGCONT)


class Network:
    """TCP connections to a port on loopback, which can be cut as a network is: silently, or with a reset.

    While it is `cut()`, nothing passes and no connection is made; what was under way arrives after `heal()`, as after
    retransmissions, unless the connections were reset.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open = threading.Event()
        self._open.set()
        self._closed = False
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def cut(self) -> None:
        self._open.clear()

    def heal(self, *, reset: bool = False) -> None:
        if reset:
            self.reset()
        self._open.set()

    def reset(self) -> None:
        """End all connections."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            _shut(pair)

    def close(self) -> None:
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._open.set()
        self.reset()
        self._acceptor.join()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(near,), daemon=True).start()

    def _relay(self, near: socket.socket) -> None:
        with near:
            self._open.wait()
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                return
            with far:
                far.settimeout(None)
                pair = (near, far)
                with self._lock:
                    self._pairs.add(pair)
                try:
                    self._pump(near, far)
                finally:
                    with self._lock:
                        self._pairs.discard(pair)
                    _shut(pair)

    def _pump(self, near: socket.socket, far: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(near, selectors.EVENT_READ, far)
            selector.register(far, selectors.EVENT_READ, near)
            while not self._closed:
                for key, _ in selector.select():
                    self._open.wait()
                    source = key.fileobj
                    assert isinstance(source, socket.socket)
                    try:
                        data = source.recv(1 << 16)
                        if not data:
                            return
                        self._open.wait()
                        key.data.sendall(data)
                    except OSError:
                        return


def _shut(pair: tuple[socket.socket, socket.socket]) -> None:
    for end in pair:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
