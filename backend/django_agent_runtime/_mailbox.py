"""What lies between a stream's thread and the consumer that empties it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ._fork import threads_are_greenlets
from .exceptions import AgentRuntimeError, ClientClosed

__all__ = ["Mailbox"]

# What may lie in a mailbox before its stream is held back, in bytes: some tens of thousands of small events.
_MAILBOX_BYTES = 8 << 20
# What an item costs beside its payload, in bytes.
_ITEM_OVERHEAD = 200


class Mailbox:
    """Batches on their way from a stream's thread to whoever consumes them, bounded by size.

    One consumer takes; it may wait in a thread (`get`), in an event loop (`aget`), or be told by `on_item`.
    """

    def __init__(self, on_drained: Callable[[], None], on_item: Callable[[], None] | None = None) -> None:
        self._on_drained = on_drained
        self._on_item = on_item
        self._error: AgentRuntimeError | None = None
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._batches: deque[tuple[Sequence[Any], int]] = deque()
        self._cost = 0
        self._held = False
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None

    @property
    def waiting(self) -> bool:
        """Whether there is something to take."""
        return bool(self._batches)

    def put(self, batch: Sequence[Any], size: int, *, always: bool = False) -> bool:
        """Add a batch of `size` bytes, or with `always` whatever its size.

        False if the mailbox is full: the batch was not added, and `on_drained` will be called.
        """
        with self._changed:
            if self._cost >= _MAILBOX_BYTES and not always:
                self._held = True
                return False
            cost = size + _ITEM_OVERHEAD * len(batch)
            self._batches.append((batch, cost))
            self._cost += cost
            self._tell()
        return True

    def end(self, error: AgentRuntimeError) -> None:
        """Have the consumer get `error` once it has taken what is there. The first error stays."""
        with self._changed:
            self._error = self._error or error
            self._tell()

    def take(self) -> Sequence[Any] | None:
        """The oldest batch, or None if there is none now.

        Raises:
            AgentRuntimeError: The mailbox is empty and has ended.
        """
        with self._changed:
            if not self._batches:
                if self._error is not None:
                    raise self._error
                return None
            batch, cost = self._batches.popleft()
            self._cost -= cost
            drained = self._held and self._cost < _MAILBOX_BYTES // 2
            if drained:
                self._held = False
        if drained:
            self._on_drained()
        return batch

    def get(self) -> Sequence[Any]:
        """`take`, waiting for a batch."""
        while True:
            with self._changed:
                while not self._batches and self._error is None:
                    self._changed.wait()
            batch = self.take()
            if batch is not None:
                return batch

    async def aget(self, timeout: float | None = None) -> Sequence[Any]:
        """`get` for asyncio, or nothing if nothing comes for `timeout` seconds. A cancelled wait takes nothing."""
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        while True:
            with self._changed:
                ready = bool(self._batches) or self._error is not None
                if not ready:
                    waiter = loop.create_future()
                    self._waiter = (loop, waiter)
            if not ready:
                timer = None if until is None else loop.call_at(until, _wake, waiter)
                try:
                    await waiter
                finally:
                    if timer is not None:
                        timer.cancel()
            batch = self.take()
            if batch is not None:
                return batch
            if until is not None and loop.time() >= until:
                return ()

    def restart_in_child(self) -> None:
        """Drop everything after a fork: whoever consumed this stays in the parent, but for a greenlet's copy."""
        abandoned = self._changed
        self._reset()
        self._error = ClientClosed("this stream belongs to the process that opened it, which has forked since")
        if threads_are_greenlets():
            with abandoned:
                abandoned.notify_all()

    def _tell(self) -> None:
        self._changed.notify_all()
        if self._on_item is not None:
            self._on_item()
        if self._waiter is not None:
            (loop, waiter), self._waiter = self._waiter, None
            try:
                loop.call_soon_threadsafe(_wake, waiter)
            except RuntimeError:
                # The consumer's loop was closed: nobody waits any more.
                return


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
