"""Where a process sends its spans, as its environment has it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

MAKE_A_SPAN = """
import sys, logging
logging.basicConfig(format="%(message)s %(err)s", level="WARNING") if "--log" in sys.argv else None
from django_agent_runtime import tracing
print(tracing.configure("web"), tracing.configure("web"))
from opentelemetry import trace
with trace.get_tracer("test").start_as_current_span("a span"):
    pass
tracing.flush(float(sys.argv[1]))
"""


def run_code(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("LANGSMITH_", "OTEL_"))}
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    return subprocess.run(command, env={**mine, **environment}, capture_output=True, text=True, check=False, timeout=60)


def test_both_kinds(receiver: Any) -> None:
    result = run_code(
        MAKE_A_SPAN,
        "20",
        LANGSMITH_ENDPOINT=f"{receiver.url}/api/v1/",
        LANGSMITH_API_KEY="lsv2_key",
        LANGSMITH_PROJECT="site",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        OTEL_EXPORTER_OTLP_HEADERS="x-other=secret",
    )
    assert result.stdout.split() == ["True", "True"], result.stderr
    paths = {span.path: span for span in receiver.spans}
    assert len(receiver.spans) == 2
    assert {span.service for span in receiver.spans} == {"web"}
    langsmith, other = paths["/api/v1/otel/v1/traces"].headers, paths["/v1/traces"].headers
    assert (langsmith["x-api-key"], langsmith["langsmith-project"]) == ("lsv2_key", "site")
    assert "x-other" not in langsmith
    assert other["x-other"] == "secret"
    assert "x-api-key" not in other


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LANGSMITH_API_KEY": "key"},
        {"LANGSMITH_ENDPOINT": "http://127.0.0.1:1", "LANGSMITH_TRACING": "false"},
        {"LANGSMITH_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_off(environment: dict[str, str]) -> None:
    code = (
        "from django_agent_runtime import tracing; import sys\n"
        "print(tracing.configure(), any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert run_code(code, **environment).stdout.split() == ["False", "False"]


def test_a_provider_that_is_there_is_kept(receiver: Any) -> None:
    code = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
mine = TracerProvider()
trace.set_tracer_provider(mine)
from django_agent_runtime import tracing
print(tracing.configure(), trace.get_tracer_provider() is mine)
with trace.get_tracer("test").start_as_current_span("a span"):
    pass
tracing.flush(20)
"""
    result = run_code(code, LANGSMITH_ENDPOINT=receiver.url, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert result.stdout.split() == ["True", "True"], result.stderr
    assert receiver.named("a span").path == "/otel/v1/traces"


def test_missing_packages_are_said(receiver: Any) -> None:
    code = (
        "import sys, logging; logging.basicConfig()\n"
        "sys.modules['opentelemetry.sdk.trace'] = None\n"
        "from django_agent_runtime import tracing; print(tracing.configure())"
    )
    result = run_code(code, LANGSMITH_ENDPOINT=receiver.url)
    assert result.stdout.split() == ["False"]
    assert "install django-agent-runtime[otel]" in result.stderr


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A collector that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        for connection in taken:
            connection.close()


def test_a_dead_collector_holds_nobody_up(deaf_port: int) -> None:
    code = MAKE_A_SPAN + "\nimport os; print('on'); sys.stdout.flush(); os._exit(0)"
    result = run_code(code, "0.2", LANGSMITH_ENDPOINT=f"http://127.0.0.1:{deaf_port}", LANGSMITH_API_KEY="lsv2_key")
    assert result.stdout.split() == ["True", "True", "on"]
    assert "lsv2_key" not in result.stderr
