"""What `runagent` refuses, before it serves anything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from django_agent_runtime.management.commands import runagent
from django_agent_runtime.runtime.interfaces import AgentRuntime, RunContext
from django_agent_runtime.runtime.registry import clear_registry, register_runtime


class Fine(AgentRuntime):
    key = "fine"

    async def run(self, ctx: RunContext) -> None: ...  # type: ignore[override]


@pytest.fixture(autouse=True)
def empty_registry() -> Iterator[None]:
    clear_registry()
    with override_settings(DJANGO_AGENT_RUNTIME={}):
        yield
    clear_registry()


def test_no_agent_is_registered() -> None:
    with pytest.raises(CommandError, match=r"No agent is registered.*RUNTIME_REGISTRY"):
        call_command("runagent", "--noreload")


@pytest.mark.parametrize("keys", ["other", "fine,other", ","])
def test_unknown_agents_are_refused(keys: str) -> None:
    register_runtime(Fine())
    with pytest.raises(CommandError, match="registered are: fine"):
        call_command("runagent", "--noreload", "--agent-keys", keys)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"DJANGO_AGENT_RUNTIME": {"LEASE_TTL_SECONDS": 0}}, "LEASE_TTL_SECONDS"),
        ({"DJANGO_AGENT_RUNTIME": {"RUNTIME_REGISTRY": ["nowhere.at:all"]}}, "nowhere.at:all"),
        ({"GO_RUNTIME": {"port": 0}}, "port"),
        ({"GO_RUNTIME": {"tls": {"ca": "/nowhere/ca.pem"}}}, "ca"),
    ],
    ids=["lease", "registry", "port", "tls"],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with override_settings(**settings), pytest.raises(CommandError, match=message):
        call_command("runagent", "--noreload")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--processes", "0"],
        ["--concurrency", "10001"],
        ["--concurrency", "many"],
        ["--grace", "-1"],
        ["--queue-poll-interval", "soon"],
    ],
    ids=" ".join,
)
def test_wrong_options_are_refused(arguments: list[str]) -> None:
    with pytest.raises(CommandError, match=r"is not a"):
        call_command("runagent", "--noreload", *arguments)


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call_command("runagent", "--help")
    shown = capsys.readouterr().out
    for option in ("processes", "concurrency", "agent-keys", "queue-poll-interval", "noreload", "grace", "worker-name"):
        assert f"--{option}" in shown


def test_signal_that_comes_while_the_reloaded_process_is_started_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def start_late(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(start(*arguments, **options))
        os.kill(os.getpid(), signal.SIGTERM)
        return started[0]

    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr("django.utils.autoreload.get_child_arguments", lambda: command)
    monkeypatch.setattr(subprocess, "Popen", start_late)
    try:
        assert runagent._run_reloaded() == 0
        assert started[0].poll() is not None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        started[0].kill()
