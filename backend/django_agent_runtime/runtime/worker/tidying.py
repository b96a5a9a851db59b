"""Database connections in a process that lives for long: what Django does around a request, around runs.

Plain agents and steps have threads of their own, which close their connections at their end. What is left is the one
thread in which `sync_to_async` and the ORM's own `a…` methods work, for all runs together.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Executor
from typing import Any

from asgiref.sync import SyncToAsync
from django.conf import settings
from django.db import close_old_connections, connections, reset_queries
from django.db.backends.signals import connection_created

__all__ = ["DatabaseTidying"]

# How often, in a worker that is never without a run.
_INTERVAL_SECONDS = 10.0


class DatabaseTidying:
    """Closes connections that are too old or broken, before a run's code begins and when it is gone.

    While other runs go on, which share the thread's connection and may be in the midst of reading from it, only broken
    ones, and only now and then. It costs nothing until the process has opened a connection.
    """

    def __init__(self) -> None:
        self._needed = False
        self._active = 0
        self._next = 0.0
        self._is_alone = False
        self._scheduled = threading.Event()
        connection_created.connect(self._note_connection, weak=True)

    def run_begins(self) -> None:
        """The code of a run is about to begin."""
        if self._needed:
            self._schedule()
        self._active += 1

    def run_ended(self) -> None:
        """The code of a run is gone."""
        self._active -= 1
        if self._needed:
            self._schedule()

    def _note_connection(self, **_kwargs: Any) -> None:
        self._needed = True

    def _schedule(self) -> None:
        now = time.monotonic()
        # What begins from here on comes behind what is scheduled.
        self._is_alone = self._is_alone or not self._active
        if self._scheduled.is_set() or (self._active and now < self._next):
            return
        self._next = now + _INTERVAL_SECONDS
        executor: Executor = SyncToAsync.single_thread_executor
        self._scheduled.set()
        try:
            executor.submit(self._tidy)
        except RuntimeError:
            # The interpreter is about to end.
            self._scheduled.clear()

    def _tidy(self) -> None:
        self._scheduled.clear()
        is_alone, self._is_alone = self._is_alone, False
        if is_alone:
            close_old_connections()
        else:
            _close_broken_connections()
        if settings.DEBUG:
            reset_queries()


def _close_broken_connections() -> None:
    for connection in connections.all(initialized_only=True):
        if not connection.errors_occurred or connection.in_atomic_block:
            continue
        if connection.is_usable():
            connection.errors_occurred = False
        else:
            connection.close()
