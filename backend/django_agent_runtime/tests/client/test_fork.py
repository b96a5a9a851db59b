"""Every way people fork a process that uses the client: no call may fail or hang, in the parent or in a child.

The programs under `forks/` run as processes of their own: a test process with a gRPC server in it cannot be forked
safely, whatever the client does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from django_agent_runtime import _fork
from django_agent_runtime.go_integration import GoRuntimeIntegration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_agent_runtime._streams import Stream
    from django_agent_runtime.testing.process import GoRuntimeProcess
    from django_agent_runtime.types import StateChange

pytestmark = pytest.mark.faults

FORKS = Path(__file__).parent / "forks"
SECONDS = 120.0
REQUESTS = 200
WORKERS = 4
TASKS = 40


def run_program(runtime: GoRuntimeProcess, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, *arguments],
        env=make_environment(runtime),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def make_environment(runtime: GoRuntimeProcess) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    return inherited | {"GO_RUNTIME_HOST": runtime.host, "GO_RUNTIME_PORT": str(runtime.port)}


@contextmanager
def running(
    command: list[str], environment: dict[str, str], log: Path, changes: Stream[StateChange]
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that is stopped at the end; if it ends before, so do `changes`, which the test waits for."""

    def end_changes() -> None:
        process.wait()
        changes.close()

    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=FORKS, env=environment, stdout=output, stderr=output
        )
    watcher = threading.Thread(target=end_changes)
    watcher.start()
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) in {0, -signal.SIGTERM}, log.read_text()
    finally:
        process.kill()
        watcher.join()


def torture(runtime: GoRuntimeProcess, forks: int, *arguments: str) -> None:
    program = str(FORKS / "torture.py")
    report = run_program(runtime, program, runtime.host, str(runtime.port), str(forks), *arguments)
    assert report["failures"] == []
    assert report["forks"] == forks
    assert report["calls"] > 0
    assert report["events"] > 0


def test_forks_amid_calls_and_subscriptions(go_runtime_process: GoRuntimeProcess) -> None:
    torture(go_runtime_process, 60)


def test_forks_with_gevent(go_runtime_process: GoRuntimeProcess) -> None:
    torture(go_runtime_process, 20, "--gevent")


@pytest.mark.timeout(120)
def test_forks_with_gevent_while_greenlets_are_in_the_client(go_runtime_process: GoRuntimeProcess) -> None:
    assert run_program(go_runtime_process, str(FORKS / "greenlets.py"), "10") == ["fine"] * 10


@pytest.mark.soak
def test_two_hundred_forks_with_gevent_while_greenlets_are_in_the_client(go_runtime_process: GoRuntimeProcess) -> None:
    assert run_program(go_runtime_process, str(FORKS / "greenlets.py"), "200") == ["fine"] * 200


@pytest.mark.parametrize(
    ("threads", "count", "running"),
    [
        ({"1": ("python", "9 0 1"), "2": ("worker) x", "7 0 1")}, 2, False),
        ({"1": ("python", "9 0 1"), "2": ("worker", None)}, 2, False),
        ({"1": ("python", "9 0 1"), "2": ("grpc_shutdown", "7 0 1")}, 2, True),
        # Linux leaves out threads of a list that is read while another one ends.
        ({"1": ("python", "9 0 1")}, 2, True),
        ({"1": ("python", "9 0 1"), "2": (None, None)}, 1, True),
        # A thread is given its name by itself.
        ({"1": ("python", "9 0 1"), "2": ("python", "0 0 0")}, 2, True),
    ],
    ids=["others", "no counts", "named", "left out", "gone", "new"],
)
def test_threads_of_grpc_are_not_overlooked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: dict[str, tuple[str | None, str | None]],
    count: int,
    *,
    running: bool,
) -> None:
    (tmp_path / "stat").write_text(f"1 (py) thon) S {'0 ' * 16}{count} 0 0\n")
    for thread, contents in threads.items():
        folder = tmp_path / "task" / thread
        folder.mkdir(parents=True)
        for name, content in zip(("comm", "schedstat"), contents, strict=True):
            if content is not None:
                (folder / name).write_text(f"{content}\n")
    monkeypatch.setattr(_fork, "_PROCESS", str(tmp_path))
    assert _fork._grpc_is_running() is running


@pytest.mark.soak
def test_a_thousand_forks(go_runtime_process: GoRuntimeProcess) -> None:
    torture(go_runtime_process, 1000)


@pytest.mark.soak
def test_three_hundred_forks_with_gevent(go_runtime_process: GoRuntimeProcess) -> None:
    torture(go_runtime_process, 300, "--gevent")


@pytest.mark.parametrize("tasks", [TASKS, pytest.param(300, marks=pytest.mark.soak)])
def test_a_multiprocessing_pool(go_runtime_process: GoRuntimeProcess, tasks: int) -> None:
    report = run_program(go_runtime_process, str(FORKS / "pool.py"), str(tasks))
    # A process for each task; the subscription of the parent sees what each has published, once.
    assert report == {"results": list(range(tasks)), "seen": list(range(tasks))}


def test_forks_while_runs_are_watched_and_followed(go_runtime_process: GoRuntimeProcess) -> None:
    report = run_program(go_runtime_process, str(FORKS / "runs.py"), str(TASKS))
    assert report["exits"] == [0] * TASKS
    assert report["runs"] == TASKS + 1
    assert report["events"] == report["different"]
    assert len(report["watched"]) == 2
    assert report["watched"] == report["followed"]


def test_gunicorn_with_preload(go_runtime_process: GoRuntimeProcess, tmp_path: Path) -> None:
    address, log = str(tmp_path / "gunicorn.sock"), tmp_path / "gunicorn.log"
    command = ["gunicorn", "gunicorn_app:application", "--preload", "--workers", str(WORKERS), "--threads", "4"]
    environment = make_environment(go_runtime_process)

    def request(number: int) -> int:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SECONDS)
            connection.connect(address)
            connection.sendall(f"GET /{number} HTTP/1.0\r\n\r\n".encode())
            with connection.makefile("rb") as answer:
                status, _, body = answer.read().partition(b"\r\n\r\n")
        assert b"200 OK" in status, log.read_text()
        return int(body)

    with (
        GoRuntimeIntegration(**go_runtime_process.settings, namespace="gunicorn") as client,
        client.watch_state("master*") as changes,
        running([*command, "--bind", f"unix:{address}"], environment, log, changes) as server,
        ThreadPoolExecutor(16) as callers,
    ):
        assert [change.value for change in islice(changes, 1)] == [server.pid], log.read_text()
        wait_for_file(Path(address), server)
        # One more worker, forked after the master's subscription has gone on over the first forks.
        server.send_signal(signal.SIGTTIN)
        pids = set(callers.map(request, range(REQUESTS)))
        assert server.pid not in pids
        seen = {change.key for change in islice(changes, REQUESTS)}
        assert seen == {f"master/{number}" for number in range(REQUESTS)}, log.read_text()
        assert len(list(client.list_state("worker/", keys_only=True))) == REQUESTS


def test_celery_prefork(go_runtime_process: GoRuntimeProcess, tmp_path: Path) -> None:
    folder, log = tmp_path / "queue", tmp_path / "celery.log"
    folder.mkdir()
    environment = make_environment(go_runtime_process) | {"CELERY_FOLDER": str(folder)}
    options = ["--pool", "prefork", "--concurrency", "4", "--max-tasks-per-child", "2", "--loglevel", "INFO"]
    sending = f"import celery_app; [celery_app.use_in_child.delay(n) for n in range({TASKS})]"
    subprocess.run([sys.executable, "-c", sending], cwd=FORKS, env=environment, check=True)
    with (
        GoRuntimeIntegration(**go_runtime_process.settings, namespace="celery") as client,
        client.watch_state("*") as changes,
        running(["celery", "-A", "celery_app", "worker", *options], environment, log, changes) as worker,
    ):
        # Each task is seen twice: what the child wrote, and what the parent wrote on the event of the child.
        values = {change.key: change.value for change in islice(changes, 1 + 2 * TASKS)}
        assert values.pop("parent", None) == worker.pid, log.read_text()
        parents = {value for key, value in values.items() if key.startswith("parent/")}
        children = {value for key, value in values.items() if key.startswith("child/")}
        assert len(values) == 2 * TASKS
        assert parents == {worker.pid}
        assert len(children) >= TASKS // 2


def wait_for_file(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
