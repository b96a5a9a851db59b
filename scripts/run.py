"""Run the reference site, its runtime and a worker for development, until Ctrl-C, SIGTERM or the end of one of them.

`make run` calls this with the Python of `.venv`. Site and runtime listen on loopback; the ports come from
`PORT`, `GO_RUNTIME_PORT` and `GO_RUNTIME_HTTP_PORT`, and `VAR_DIR` (by default `var/`) holds what
they keep. The worker executes the agents of the site, and writes what they did into its tables.

Exit code 0 after a stop that was asked for, 1 with one sentence otherwise.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
VAR = Path(os.environ.get("VAR_DIR") or ROOT / "var").absolute()
MANAGE = [sys.executable, str(ROOT / "backend" / "manage.py")]
RUNTIME_BINARY = ROOT / "go-runtime" / "bin" / "agent-runtime"

DEMO_USER = DEMO_PASSWORD = "demo"  # noqa: S105  development on loopback only
# Any one makes the runtime ask a provider instead of its offline model.
MODEL_VARIABLES = [
    *(
        prefix + name
        for prefix in ("", "AGENT_RUNTIME_")
        for name in (
            "OPENAI_API_KEY",
            "OPENAI_BASE_URL",
            "ANTHROPIC_API_KEY",
            "GEMINI_API_KEY",
        )
    )
]
STEPS = 6
READY_SECONDS = 60
POLL_SECONDS = 0.05
STOP_SECONDS = 30
MAX_PORT = 65535


class StopAskedError(BaseException):
    """Ctrl-C or SIGTERM arrived. Not an Exception, so that nothing on the way handles it."""


class RunFailedError(Exception):
    """What went wrong, as one sentence for a person."""


@dataclass(frozen=True)
class Ports:
    """Where the site and the runtime listen on loopback."""

    site: int
    grpc: int
    http: int

    @classmethod
    def from_environment(cls) -> Ports:
        """Read the ports, and check that nothing else listens there.

        Raises:
            RunFailedError: A port is no number, is in use, or is named twice.
        """
        names = {"PORT": 8000, "GO_RUNTIME_PORT": 50051, "GO_RUNTIME_HTTP_PORT": 8090}
        owners: dict[int, str] = {}
        for name, default in names.items():
            port = free_port(name, default)
            if port in owners:
                raise RunFailedError(f"{owners[port]} and {name} are both {port}: set one of them to another port.")
            owners[port] = name
        return cls(*owners)


class Child:
    """A process that runs until it is stopped; its own group, so that Ctrl-C reaches only this script."""

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        log: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        output = log.open("wb") if log else None
        try:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                start_new_session=True,
            )
        finally:
            if output:
                output.close()

    def report_end(self, ended: queue.SimpleQueue[Child]) -> None:
        """Put this child into the queue once its process is gone."""

        def wait() -> None:
            self.process.wait()
            ended.put(self)

        threading.Thread(target=wait, daemon=True).start()

    def wait_ready(self, url: str) -> None:
        """Return when the address answers without a server error.

        Raises:
            RunFailedError: The process ended first, or READY_SECONDS passed.
        """
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RunFailedError(self.describe_end())
            if answers(url):
                return
            time.sleep(POLL_SECONDS)
        raise RunFailedError(f"The {self.name} was not ready after {READY_SECONDS} seconds.{self.last_words()}")

    def stop(self) -> None:
        """Ask the process to end, and end it after STOP_SECONDS if it does not."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def describe_end(self) -> str:
        """Which process ended, how, and its last words."""
        code = self.process.returncode
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"The {self.name} stopped by itself ({how}).{self.last_words()}"

    def last_words(self) -> str:
        """The last line of its log and where to read the rest; nothing for one that logs to the terminal."""
        if self.log is None:
            return ""
        lines = self.log.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        return f" Its last words: {last} (all of them: {self.log})"


def main() -> int:
    """Set up, run until stopped, and stop everything; the exit code of the process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    children: list[Child] = []
    try:
        run(children)
    except StopAskedError:
        say("stopping")
        return 0
    except RunFailedError as error:
        print(f"run: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        stop(children)


def run(children: list[Child]) -> NoReturn:
    """Do every step, then wait for the end of a child; each child is added as soon as it exists.

    Raises:
        RunFailedError: A step failed, or a child ended by itself.
        StopAskedError: From the signal handler, at any point.
    """
    ports = Ports.from_environment()
    VAR.mkdir(parents=True, exist_ok=True)
    environment = site_environment(ports)
    step(1, "building the runtime")
    call(["make", "build"], environment, "The runtime could not be built.")
    step(2, "bringing the database up to date")
    call(
        [*MANAGE, "migrate", "--verbosity", "0"],
        environment,
        "The database could not be brought up to date.",
    )
    step(3, "looking for the demo user")
    demo = make_demo_user(environment)

    step(4, "starting the runtime")
    runtime = Child(
        "runtime",
        [
            str(RUNTIME_BINARY),
            "serve",
            f"--listen=127.0.0.1:{ports.grpc}",
            f"--http=127.0.0.1:{ports.http}",
            f"--data-dir={VAR / 'agent-runtime'}",
        ],
        environment,
        log=VAR / "agent-runtime.log",
    )
    children.append(runtime)
    runtime.wait_ready(f"http://127.0.0.1:{ports.http}/readyz")

    step(5, "starting a worker")
    # Nobody waits for it here: runs that come before it is ready wait in the runtime. It reloads code no more than the
    # site does, and on Ctrl-C gives back what it has not finished soon.
    command = [*MANAGE, "runagent", "--noreload", "--grace=2"]
    worker = Child("worker", command, environment, log=VAR / "worker.log")
    children.append(worker)

    step(6, "starting the site")
    # Open event streams would otherwise hold the server back for as long as they last.
    options = ["--lifespan=off", "--timeout-graceful-shutdown=3"]
    site = Child(
        "site",
        [
            sys.executable,
            "-m",
            "uvicorn",
            "backend.config.asgi:application",
            f"--port={ports.site}",
            *options,
        ],
        environment,
    )
    children.append(site)
    site.wait_ready(f"http://127.0.0.1:{ports.site}/")

    show_box(ports, demo=demo)
    ended: queue.SimpleQueue[Child] = queue.SimpleQueue()
    for child in children:
        child.report_end(ended)
    raise RunFailedError(ended.get().describe_end())


def stop(children: list[Child]) -> None:
    """Stop the site and the worker before the runtime they call; further signals wait until that is done."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for child in reversed(children):
        child.stop()
    if children:
        say("stopped")


def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
    """Handle a signal by unwinding to `main`."""
    raise StopAskedError


def site_environment(ports: Ports) -> dict[str, str]:
    """This process's environment, with the site pointed at the runtime that is started here."""
    environment = dict(
        os.environ,
        GO_RUNTIME_HOST="127.0.0.1",
        GO_RUNTIME_PORT=str(ports.grpc),
        PYTHONUNBUFFERED="1",
    )
    # A socket would win over host and port; make's own variables would upset the make called from here.
    for name in ("GO_RUNTIME_SOCKET", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        environment.pop(name, None)
    return environment


def free_port(variable: str, default: int) -> int:
    """The port that an environment variable names, once it is known to be free."""
    text = os.environ.get(variable, str(default))
    port = int(text) if text.isdecimal() else 0
    # For port 0 the system would choose one that nobody knows.
    if not 1 <= port <= MAX_PORT:
        raise RunFailedError(f"{variable}={text} is no port: set it to a number from 1 to {MAX_PORT}.")
    try:
        with socket.socket() as probe:
            # As servers do: a port in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise RunFailedError(f"Port {port} cannot be used ({reason}): set {variable} to another one.") from None
    return port


def make_demo_user(environment: dict[str, str]) -> bool:
    """Make the demo user where the site is the development one; whether it can sign in."""
    if {"DATABASE_URL", "DJANGO_DEBUG"} & environment.keys():
        return False
    account = {
        "DJANGO_SUPERUSER_PASSWORD": DEMO_PASSWORD,
        "DJANGO_SUPERUSER_EMAIL": "demo@example.com",
    }
    command = [*MANAGE, "createsuperuser", "--noinput", "--username", DEMO_USER]
    result = subprocess.run(
        command,
        env=environment | account,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if result.returncode != 0 and "already taken" not in result.stderr:
        raise RunFailedError(f"The demo user could not be made: {result.stderr.strip()}")
    return True


def call(command: list[str], environment: dict[str, str], failure: str) -> None:
    """Run a command that shows its own errors; raise RunFailedError with the sentence when it fails."""
    if subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode != 0:
        raise RunFailedError(failure)


def answers(url: str) -> bool:
    """Whether a GET is answered with anything but a server error; a runtime that is full serves all the same."""
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500 or b'"serving":true' in error.read()  # noqa: PLR2004
    except OSError:
        return False


def show_box(ports: Ports, *, demo: bool) -> None:
    """Print where everything is, so that it stands out from the log lines around it."""
    online = any(os.environ.get(name) for name in MODEL_VARIABLES)
    lines = [
        f"Site     http://127.0.0.1:{ports.site}/",
        f"Worker   runs the agents of the site; its log is {VAR / 'worker.log'}",
        f"Runtime  gRPC 127.0.0.1:{ports.grpc}, http://127.0.0.1:{ports.http}/readyz and /metrics",
        f"Model    {'as the environment says' if online else 'offline, until a key such as OPENAI_API_KEY is set'}",
        *([f"Sign in  {DEMO_USER} / {DEMO_PASSWORD} (made on the first run, for development only)"] if demo else []),
        "Stop     Ctrl-C",
    ]
    width = max(map(len, lines))
    edge = "─" * (width + 2)
    print(
        f"┌{edge}┐",
        *(f"│ {line:<{width}} │" for line in lines),
        f"└{edge}┘",
        sep="\n",
        flush=True,
    )


def step(number: int, text: str) -> None:
    """Say which step begins."""
    print(f"[{number}/{STEPS}] {text}", flush=True)


def say(text: str) -> None:
    """Say what happens after the last step."""
    print(f"run: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
