"""Clients of the real runtime, and of a runtime that a test may kill and start again."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.testing.process import GoRuntimeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def client(go_runtime_process: GoRuntimeProcess, request: pytest.FixtureRequest) -> Iterator[GoRuntimeIntegration]:
    """A client of the session's runtime, in a namespace of the test's own."""
    namespace = "".join(char if char.isalnum() else "-" for char in request.node.name.lower())[:63]
    client = GoRuntimeIntegration(**go_runtime_process.settings, namespace=namespace)
    yield client
    client.disconnect()


@pytest.fixture
def mortal_runtime(tmp_path: Path) -> Iterator[GoRuntimeProcess]:
    """A runtime of the test's own, to be killed and started again."""
    with GoRuntimeProcess(tmp_path) as process:
        yield process


@pytest.fixture
def unused_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
