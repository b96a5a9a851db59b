"""pytest fixtures.

In the project's `conftest.py`:

    pytest_plugins = ["django_agent_runtime.testing.fixtures"]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.test import override_settings

from django_agent_runtime.testing.fake import FakeGoRuntime
from django_agent_runtime.testing.process import GoRuntimeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def fake_go_runtime() -> Iterator[FakeGoRuntime]:
    """An empty fake runtime that `get_go_runtime_integration()` talks to during the test."""
    with FakeGoRuntime() as runtime, override_settings(GO_RUNTIME=runtime.settings):
        yield runtime


@pytest.fixture(scope="session")
def go_runtime_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoRuntimeProcess]:
    """The real runtime, started once for all tests of a session."""
    with GoRuntimeProcess(tmp_path_factory.mktemp("go-runtime")) as process:
        yield process


@pytest.fixture
def go_runtime(go_runtime_process: GoRuntimeProcess) -> Iterator[GoRuntimeProcess]:
    """The session's real runtime, which `get_go_runtime_integration()` talks to during the test.

    Tests share its data: name keys, event types and runs so that they do not meet.
    """
    with override_settings(GO_RUNTIME=go_runtime_process.settings):
        yield go_runtime_process
