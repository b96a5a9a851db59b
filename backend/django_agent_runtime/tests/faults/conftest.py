"""What several tests of faults need."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

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
