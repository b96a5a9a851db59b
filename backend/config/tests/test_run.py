"""`make run`: the site and its runtime, from the first line to Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from django_agent_runtime.testing.process import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
PORTS = ("PORT", "GO_RUNTIME_PORT", "GO_RUNTIME_HTTP_PORT")


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """An environment with free ports and data of its own."""
    ports = {name: str(port) for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)}
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("GO_RUNTIME_", "DJANGO_", "OPENAI_", "ANTHROPIC_", "GEMINI_"))
    }
    return kept | ports | {"VAR_DIR": str(tmp_path)}


class Run:
    """The script, with the lines it has printed."""

    def __init__(self, variables: dict[str, str]) -> None:
        self.site = f"http://127.0.0.1:{variables['PORT']}"
        self.folder = Path(variables["VAR_DIR"])
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "scripts" / "run.py"],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def read_until(self, text: str) -> None:
        """Read lines up to one with the text."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line)
            if text in line:
                return
        pytest.fail(f"ended without {text!r}:\n{''.join(self.lines)}")

    def post(self, path: str, body: object, token: str = "") -> dict[str, object]:
        """Post JSON to the site and read JSON."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Token {token}"} if token else {})
        request = urllib.request.Request(self.site + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            answer: dict[str, object] = json.load(response)
        return answer

    def worker_log(self) -> str:
        """What the worker has said."""
        return (self.folder / "worker.log").read_text(errors="replace")

    def finish(self) -> int:
        """Read the rest and return the exit code."""
        assert self.process.stdout
        if not self.process.stdout.closed:
            with self.process.stdout as rest:
                self.lines += rest
        return self.process.wait(60)


@pytest.fixture
def run(variables: dict[str, str]) -> Iterator[Run]:
    running = Run(variables)
    yield running
    running.process.terminate()
    running.finish()


def test_runs_until_ctrl_c(run: Run, variables: dict[str, str]) -> None:
    run.read_until("Stop     Ctrl-C")
    assert [line[:5] for line in run.lines if line.startswith("[")] == [f"[{step}/6]" for step in range(1, 7)]
    with urllib.request.urlopen(run.site, timeout=30) as page:
        assert page.status == 200
    token = str(run.post("/api/token/", {"username": "demo", "password": "demo"})["token"])
    answer = run.post("/api/tasks/", {"task_type": "example_task", "input_data": {"param1": "value1"}}, token)
    assert "VALUE1" in json.dumps(answer)
    body = {"agent_key": "chat-agent", "messages": [{"role": "user", "content": "Hello!"}]}
    run_id = str(run.post("/api/agents/runs/", body, token)["id"])
    headers = {"Authorization": f"Token {token}", "Accept": "text/event-stream"}
    request = urllib.request.Request(f"{run.site}/api/agents/runs/{run_id}/events/", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as stream:
        assert b"event: run.succeeded" in stream.read()

    run.process.send_signal(signal.SIGINT)
    assert run.finish() == 0, "".join(run.lines)
    for name in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", int(variables[name])))


@pytest.mark.parametrize(
    ("name", "words"), [("runtime", "agent-runtime serve"), ("worker", "runagent"), ("site", "uvicorn")]
)
def test_says_which_process_ended_and_stops_the_others(run: Run, name: str, words: str) -> None:
    run.read_until("Stop     Ctrl-C")
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(run.process.pid)], capture_output=True, text=True, check=True
    )
    children = {int(line.split()[0]): line for line in listed.stdout.splitlines()}
    killed = [pid for pid, line in children.items() if words in line]
    assert len(killed) == 1, f"{listed.stdout}\n{run.worker_log()}"
    os.kill(killed[0], signal.SIGKILL)
    assert run.finish() == 1
    assert f"The {name} stopped by itself (signal SIGKILL)" in "".join(run.lines)
    assert not [pid for pid, line in children.items() if "ps -o" not in line and Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("name", PORTS)
def test_port_in_use(variables: dict[str, str], name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(variables[name])))
        taken.listen()
        refused = Run(variables)
        assert refused.finish() == 1
    (sentence,) = refused.lines
    assert variables[name] in sentence
    assert f"set {name} to another one" in sentence


@pytest.mark.parametrize("name", PORTS)
@pytest.mark.parametrize("text", ["0", "65536", "-1", "web", ""])
def test_a_port_that_is_none(variables: dict[str, str], name: str, text: str) -> None:
    refused = Run(variables | {name: text})
    assert refused.finish() == 1
    (sentence,) = refused.lines
    assert f"{name}={text} is no port: set it to a number from 1 to 65535" in sentence


def test_a_port_named_twice(variables: dict[str, str]) -> None:
    refused = Run(variables | {"GO_RUNTIME_HTTP_PORT": variables["PORT"]})
    assert refused.finish() == 1
    (sentence,) = refused.lines
    assert f"PORT and GO_RUNTIME_HTTP_PORT are both {variables['PORT']}" in sentence
