"""Workers in threads of the test's process, and a runtime that does what a test tells it."""

from __future__ import annotations

import importlib.util
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from django_agent_runtime.conf import load
from django_agent_runtime.runtime.worker.worker import Worker
from django_agent_runtime.runtime_conf import load as load_settings
from django_agent_runtime.testing.process import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django_agent_runtime.runtime.interfaces import AgentRuntime

JOIN_SECONDS = 30.0


def _load(module_name: str) -> Any:
    """A module beside this one: tests are no package."""
    name = f"worker_tests_{module_name}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{module_name}.py"))
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture
def make_runtime() -> Iterator[Callable[..., Any]]:
    """Start fake runtimes; each must have seen no breach of the contract when the test ends."""
    started: list[Any] = []

    def make(**options: Any) -> Any:
        runtime = _load("fake_runtime").FakeRuntime(free_ports(1)[0], **options)
        started.append(runtime.start())
        return runtime

    yield make
    for runtime in started:
        runtime.stop()
    assert [runtime.breaches for runtime in started if runtime.breaches] == []


@pytest.fixture
def runtime(make_runtime: Callable[..., Any]) -> Any:
    """A fake runtime."""
    return make_runtime()


@pytest.fixture
def start_worker() -> Iterator[Callable[..., Worker]]:
    """Start workers in threads, stopped at the end of the test."""
    started: list[tuple[Worker, threading.Thread]] = []

    def start(runtime: Any, *agents: AgentRuntime, **options: Any) -> Worker:
        settings = load_settings(options.pop("settings", {}))
        worker = Worker(
            load({**runtime.settings, **options.pop("go_runtime", {})}),
            {agent.key: agent for agent in agents},
            settings=settings,
            **options,
        )
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()
        started.append((worker, thread))
        return worker

    yield start
    for worker, _ in started:
        worker.stop(0)
    for worker, thread in started:
        thread.join(JOIN_SECONDS)
        assert not thread.is_alive(), f"{worker.worker_id} did not stop"


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[[int], Any]]:
    """Make a project whose runtime listens on a port; its processes are gone when the test ends."""
    sites: list[Any] = []

    def make(port: int) -> Any:
        folder = tmp_path / "site"
        folder.mkdir()
        sites.append(_load("site_folder").Site(folder, port))
        return sites[-1]

    yield make
    for site in sites:
        site.kill()
