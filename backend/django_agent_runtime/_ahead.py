"""A call that goes on while its caller prepares the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from ._fork import start_thread

__all__ = ["AsyncPendingCall", "PendingCall"]

T = TypeVar("T")


class PendingCall(Generic[T]):
    """A call in a thread of its own, in the context of the thread that begins it."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._outcome: Future[T] = Future()
        # Whoever gives up the wait must not cancel what the thread will set.
        self._outcome.set_running_or_notify_cancel()
        context = copy_context()
        start_thread(lambda: context.run(self._make, call), "agent-runtime-call")

    def _make(self, call: Callable[[], T]) -> None:
        try:
            self._outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            self._outcome.set_exception(error)

    def result(self) -> T:
        """What the call gives or raises, once it has ended."""
        return self._outcome.result()

    async def aresult(self) -> T:
        """`result` for asyncio; giving up the wait leaves the call alone."""
        return await asyncio.wrap_future(self._outcome)


class AsyncPendingCall(Generic[T]):
    """A call in a task of its own."""

    def __init__(self, call: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._task = asyncio.ensure_future(call())

    async def aresult(self) -> T:
        """What the call gives or raises, once it has ended; giving up the wait gives up the call."""
        return await self._task
