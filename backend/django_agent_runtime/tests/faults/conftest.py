"""What several tests of faults need."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.testing import GoRuntimeProcess
from django_agent_runtime.tests.faults.processes import PATIENCE_SECONDS, Network, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from typing_extensions import Self


class Load:
    """Threads that call without end, each call under its own number; what was acknowledged is counted."""

    def __init__(self, calls: list[Callable[[int], object]]) -> None:
        self.acknowledged: list[list[int]] = [[] for _ in calls]
        self.errors: list[BaseException] = []
        self._calls = calls
        self._stop = False
        self._progress = threading.Condition()
        self._pool = ThreadPoolExecutor(len(calls))

    def __enter__(self) -> Self:
        for call, done in zip(self._calls, self.acknowledged, strict=True):
            self._pool.submit(self._run, call, done)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._pool.shutdown()

    def _run(self, call: Callable[[int], object], done: list[int]) -> None:
        try:
            for number in itertools.count():
                if self._stop:
                    return
                call(number)
                with self._progress:
                    done.append(number)
                    self._progress.notify_all()
        except BaseException as error:  # noqa: BLE001 - every failed call is the test's to report
            with self._progress:
                self.errors.append(error)
                self._progress.notify_all()

    def wait_for(self, more: int) -> None:
        """Wait until every thread has gone on and there are so many more acknowledged calls in all."""
        with self._progress:
            before = [len(done) for done in self.acknowledged]
            self._progress.wait_for(
                lambda: (
                    self.errors
                    or (
                        sum(map(len, self.acknowledged)) >= sum(before) + more
                        and all(len(done) > count for done, count in zip(self.acknowledged, before, strict=True))
                    )
                )
            )


@pytest.fixture
def start_load() -> type[Load]:
    """`Load`; test modules cannot import from here."""
    return Load


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[GoRuntimeProcess]:
    """A runtime of the test's own, to be killed."""
    with GoRuntimeProcess(tmp_path) as process:
        yield process


@pytest.fixture
def client(runtime: GoRuntimeProcess) -> Iterator[GoRuntimeIntegration]:
    """A client of that runtime which waits for it to come back."""
    with GoRuntimeIntegration(host=runtime.host, port=runtime.port, timeout=PATIENCE_SECONDS) as made:
        yield made


@pytest.fixture(scope="session")
def site_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sites of a session keep a new database."""
    return tmp_path_factory.mktemp("template") / "db.sqlite3"


@pytest.fixture
def site(runtime: GoRuntimeProcess, tmp_path: Path, site_template: Path) -> Iterator[Site]:
    """A Django project whose processes are gone when the test ends."""
    folder = tmp_path / "site"
    folder.mkdir()
    made = Site(folder, runtime.port, site_template)
    yield made
    made.stop()


@pytest.fixture
def network(runtime: GoRuntimeProcess) -> Iterator[Network]:
    """A network to the runtime that can be cut."""
    made = Network(runtime.port)
    yield made
    made.close()
