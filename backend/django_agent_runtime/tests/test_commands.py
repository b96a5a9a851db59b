"""The commands of `manage.py`, as processes and against the real runtime."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from django_agent_runtime import binary
from django_agent_runtime.go_integration import GoRuntimeIntegration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_agent_runtime.testing import FakeGoRuntime

MANAGE = [sys.executable, str(Path(__file__).resolve().parents[2] / "manage.py")]
PATIENCE_SECONDS = 60.0


@pytest.fixture
def free_port() -> int:
    """A port nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port something listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def environment(**variables: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GO_RUNTIME_", "DJANGO_"))}
    return kept | variables


def test_goruntime_serves_where_the_setting_looks_and_stops_on_ctrl_c(free_port: int, tmp_path: Path) -> None:
    command = [*MANAGE, "goruntime", "--http", "off", "--data-dir", str(tmp_path / "data"), "--", "--durability", "os"]
    process = subprocess.Popen(
        command, env=environment(GO_RUNTIME_PORT=str(free_port)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        client = GoRuntimeIntegration(port=free_port)
        client.wait_ready(timeout=PATIENCE_SECONDS)
        assert client.get_server_info().durability == "os"
        client.disconnect()
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    assert str(tmp_path / "data") in output.decode()
    assert any((tmp_path / "data").iterdir())


def test_goruntime_serves_the_socket_of_the_setting(tmp_path: Path) -> None:
    path = str(tmp_path / "runtime.sock")
    command = [*MANAGE, "goruntime", "--http", "off", "--data-dir", str(tmp_path / "data")]
    process = subprocess.Popen(command, env=environment(GO_RUNTIME_SOCKET=path), stdout=subprocess.DEVNULL)
    try:
        client = GoRuntimeIntegration(socket=path)
        assert client.wait_ready(timeout=PATIENCE_SECONDS)
        client.disconnect()
    finally:
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0


def call_goruntime(**setting: Any) -> None:
    with override_settings(GO_RUNTIME=setting):
        call_command("goruntime", http="off", stdout=io.StringIO())


def test_goruntime_says_that_the_port_is_taken(taken_port: int) -> None:
    with pytest.raises(CommandError, match=f"127.0.0.1:{taken_port} is in use"):
        call_goruntime(port=taken_port)


def test_goruntime_says_that_the_http_port_is_taken(free_port: int, taken_port: int) -> None:
    with (
        override_settings(GO_RUNTIME={"port": free_port}),
        pytest.raises(CommandError, match=f"127.0.0.1:{taken_port} is in use.*--http"),
    ):
        call_command("goruntime", http=f"127.0.0.1:{taken_port}", stdout=io.StringIO())


@pytest.mark.parametrize("host", ["runtime.internal", "10.0.0.1", "0.0.0.0"])
def test_goruntime_is_for_this_machine_alone(host: str) -> None:
    with pytest.raises(CommandError, match="must be localhost"):
        call_goruntime(host=host)


def test_goruntime_says_how_to_get_the_binary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(binary.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(binary, "PACKAGE", tmp_path / "site-packages" / "django_agent_runtime")
    with pytest.raises(CommandError, match="make build"):
        call_goruntime()


def test_binary_is_looked_for_in_the_package_then_the_checkout_then_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "backend" / "django_agent_runtime"
    places = [package / "bin", tmp_path / "go-runtime" / "bin", tmp_path / "path"]
    for place in places:
        place.mkdir(parents=True)
        program = place / binary.NAME
        program.write_text("#!/bin/sh\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.delenv(binary.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(places[2]))
    monkeypatch.setattr(binary, "PACKAGE", package)
    for place in places:
        assert binary.find_binary() == place / binary.NAME
        (place / binary.NAME).unlink()


def test_binary_that_is_named_and_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(binary.ENVIRONMENT_VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="nothing"):
        binary.find_binary()


@pytest.mark.usefixtures("go_runtime")
def test_status_says_what_the_runtime_is() -> None:
    out = io.StringIO()
    call_command("goruntime_status", "--json", "--pings", "3", stdout=out)
    status = json.loads(out.getvalue())
    assert (status["connected"], status["namespace"], status["durability"]) == (True, "default", "fsync")
    assert status["version"]
    assert status["pings"] == 3
    assert 0 < status["latency_ms"]["min"] <= status["latency_ms"]["median"] <= status["latency_ms"]["max"]
    assert "example_task" in status["task_types"]
    assert "generate_component" in status["agents"]["frontend_agent"]
    assert status["models"]["frontend_agent"] == "offline"


def test_status_shows_warnings(fake_go_runtime: FakeGoRuntime) -> None:
    fake_go_runtime.add_agent_task("painter", "paint", lambda data: data)
    fake_go_runtime.add_agent("chat", lambda _: {})
    out = io.StringIO()
    call_command("goruntime_status", stdout=out)
    lines = out.getvalue().splitlines()
    assert lines[0] == "connected   version fake"
    assert "agent       painter (model: fake): paint" in lines
    assert "agent       chat (model: fake), in workers" in lines
    assert lines[-1].startswith("warning     This is the fake runtime")


def test_status_ends_with_one_sentence_when_the_runtime_is_away(free_port: int) -> None:
    done = subprocess.run(
        [*MANAGE, "goruntime_status", "--timeout", "0.5"],
        env=environment(GO_RUNTIME_PORT=str(free_port)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("CommandError: ")
    assert str(free_port) in line


@pytest.fixture
def unmigrated(free_port: int, tmp_path: Path) -> dict[str, str]:
    """The environment of a site whose database is empty, and whose runtime is away."""
    return environment(GO_RUNTIME_PORT=str(free_port), VAR_DIR=str(tmp_path), DATABASE_URL="")


def test_projecting_once_without_the_tables_ends_with_one_sentence(unmigrated: dict[str, str]) -> None:
    done = subprocess.run(
        [*MANAGE, "projectruns", "--once"], env=unmigrated, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("CommandError: ")
    assert "run manage.py migrate" in line


@pytest.mark.parametrize("command", [["runagent", "--noreload"], ["projectruns"]], ids=" ".join)
@pytest.mark.parametrize(
    ("database", "said", "hinted"),
    [("", b"no such table", True), ("sqlite:////nowhere/db.sqlite3", b"unable to open database", False)],
    ids=["empty", "away"],
)
def test_log_says_when_the_tables_are_to_be_made(
    command: list[str], unmigrated: dict[str, str], database: str, said: bytes, *, hinted: bool
) -> None:
    process = subprocess.Popen(
        [*MANAGE, *command],
        env=unmigrated | {"DATABASE_URL": database},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        line = next((line for line in process.stderr if said in line), b"")
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    assert (b"run manage.py migrate" in line) == hinted
