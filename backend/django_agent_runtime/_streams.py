"""Long-lived streams: a thread that keeps one open whatever happens, and the mailbox that its reader empties."""

from __future__ import annotations

import _thread
import asyncio
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import grpc

from ._channel import WATCH_STATE, ChannelSession, Transport, jittered, new_request_id
from ._errors import CallFailure, failure_error
from ._fork import gate
from ._messages import to_change
from .exceptions import AgentRuntimeError, ClientClosed, RuntimeUnavailable
from .grpc_client.agentruntime.v1 import state_service_pb2 as state_pb
from .types import StateChange

__all__ = [
    "REFUSALS",
    "AsyncStream",
    "Mailbox",
    "Stream",
    "StreamReader",
    "StreamSource",
    "Watch",
    "asettle",
    "settle",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# What may lie in a mailbox before its stream is held back, in bytes: some tens of thousands of small events.
_MAILBOX_BYTES = 8 << 20
# What an item costs beside its payload, in bytes.
_ITEM_OVERHEAD = 200

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0

# Another attempt cannot go better until somebody changes something.
REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


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

    async def aget(self) -> Sequence[Any]:
        """`get` for asyncio. A cancelled wait takes nothing."""
        loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                ready = bool(self._batches) or self._error is not None
                if not ready:
                    waiter = loop.create_future()
                    self._waiter = (loop, waiter)
            if not ready:
                await waiter
            batch = self.take()
            if batch is not None:
                return batch

    def restart_in_child(self) -> None:
        """Drop everything after a fork: whoever consumed this stays in the parent."""
        self._reset()
        self._error = ClientClosed("this stream belongs to the process that opened it, which has forked since")

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


class StreamSource(Protocol):
    """Where a stream's items come from."""

    mailbox: Mailbox
    begun: Future[None]
    """Done once the runtime has begun the stream, so that whatever happens from then on is seen."""

    def close(self) -> None:
        """End the stream; safe to call twice."""

    def convert(self, message: Any) -> Any:
        """What the consumer gets for one message of a batch."""


def settle(begun: Future[None], timeout: float) -> None:
    """Wait until a stream has begun.

    Raises:
        RuntimeUnavailable: It has not within `timeout` seconds.
        AgentRuntimeError: It was refused.
    """
    try:
        begun.result(timeout)
    except FutureTimeoutError:
        raise _not_begun(timeout) from None


async def asettle(begun: Future[None], timeout: float) -> None:
    """`settle` for asyncio."""
    try:
        # Shielded: a wait that is given up must not cancel the stream's own future.
        await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(begun)), timeout)
    except asyncio.TimeoutError:
        raise _not_begun(timeout) from None


def _not_begun(timeout: float) -> RuntimeUnavailable:
    return RuntimeUnavailable(
        f"the agent runtime did not begin the stream within {timeout:g} s. Is it running (`manage.py goruntime`)?"
    )


def _close_elsewhere(source: StreamSource) -> None:
    """Close in a thread of its own: the collector may run this in a thread that holds any lock of ours.

    A bare thread, because `threading.Thread` takes a lock itself.
    """
    _thread.start_new_thread(source.close, ())


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class _StreamBase(Generic[T]):
    def __init__(self, source: StreamSource, timeout: float) -> None:
        self._source = source
        self._timeout = timeout
        self._batch: deque[Any] = deque()
        # A stream that is dropped instead of closed must not go on for ever.
        self._dropped = weakref.finalize(self, _close_elsewhere, source)
        self._dropped.atexit = False  # type: ignore[misc]  # typeshed hides the setter

    @property
    def _closed(self) -> bool:
        return not self._dropped.alive

    def _close(self) -> None:
        if self._dropped.detach():
            self._source.close()

    def _next_of_batch(self) -> T:
        item: T = self._source.convert(self._batch.popleft())
        return item


class Stream(_StreamBase[T]):
    """An endless iterator that goes on over reconnects without gap or repeat.

    Close it (or use it in a `with` block) when done. It is for one thread at a time.
    """

    def __init__(self, source: StreamSource, timeout: float) -> None:
        super().__init__(source, timeout)
        try:
            settle(source.begun, timeout)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the stream; safe to call twice. An iteration that waits ends with StopIteration."""
        self._close()

    def __iter__(self) -> Stream[T]:
        return self

    def __next__(self) -> T:
        while not self._batch:
            try:
                self._batch.extend(self._source.mailbox.get())
            except ClientClosed:
                if not self._closed:
                    raise
                raise StopIteration from None
        return self._next_of_batch()

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncStream(_StreamBase[T]):
    """An endless asynchronous iterator that goes on over reconnects without gap or repeat.

    It begins with `async with` or its first item, whichever comes first: what happens after `__aenter__` returned
    is seen. Waiting for an item may be cancelled (`asyncio.wait_for`) without losing one.
    """

    def __init__(self, source: StreamSource, timeout: float) -> None:
        super().__init__(source, timeout)
        self._opened = False

    async def aclose(self) -> None:
        """End the stream; safe to call twice."""
        self._close()

    def __aiter__(self) -> AsyncStream[T]:
        return self

    async def __anext__(self) -> T:
        await self._open()
        while not self._batch:
            try:
                self._batch.extend(await self._source.mailbox.aget())
            except ClientClosed:
                if not self._closed:
                    raise
                raise StopAsyncIteration from None
        return self._next_of_batch()

    async def __aenter__(self) -> AsyncStream[T]:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _open(self) -> None:
        if not self._opened:
            await asettle(self._source.begun, self._timeout)
            self._opened = True


class StreamReader:
    """A thread that reads one stream for as long as it is wanted: over lost connections, restarts and forks.

    A subclass says how the stream is opened at its present position and what to do with each response.
    """

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self._name = name
        self._call: Any = None
        self._wake = threading.Event()
        self.reconnects = 0

    def start_thread(self) -> None:
        """Begin to read; the thread ends when `wanted` says so."""
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def interrupt(self) -> None:
        """Have the thread look again, now, at whether and how it is wanted."""
        self._wake.set()
        call = self._call
        if call is not None:
            call.cancel()

    def wanted(self) -> bool:
        """Whether to open the stream now. May wait. False ends the thread."""
        raise NotImplementedError

    def open(self, session: ChannelSession) -> Any:
        """Open the stream at its present position."""
        raise NotImplementedError

    def receive(self, response: Any) -> bool:
        """Take one response. False if there is no room: the stream is ended, and opened again when `wanted` says so."""
        raise NotImplementedError

    def stopped_reading(self) -> None:
        """The stream opened last is over."""

    def failed(self, failure: CallFailure) -> None:
        """An attempt ended badly; another follows if still wanted."""

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        process = os.getpid()
        while True:
            self._wake.clear()
            # gevent's threads are copied by a fork; the child's subscriptions have a reader of their own.
            if os.getpid() != process or not self.wanted():
                return
            session = self._transport.enter()
            try:
                failure, progress = self._read(session)
            finally:
                gate.leave(session)
            if session.suspended or not failure:
                continue
            if progress:
                pause = _FIRST_PAUSE
            if failure.code is not grpc.StatusCode.CANCELLED:
                self._report(failure)
            self.failed(failure)
            if failure.code in REFUSALS:
                pause = _LONGEST_PAUSE
            self._wake.wait(jittered(pause))
            pause = min(pause * 2, _LONGEST_PAUSE)
            self.reconnects += 1

    def _read(self, session: ChannelSession) -> tuple[CallFailure | None, bool]:
        """Read until the stream ends: how it failed, if it did, and whether it gave anything."""
        progress = False
        call = None
        try:
            call = self._call = self.open(session)
            if self._wake.is_set():
                call.cancel()
            for response in call:
                if not progress:
                    self._transport.reached = True
                    progress = True
                if not self.receive(response):
                    return None, progress
            return CallFailure(grpc.StatusCode.UNAVAILABLE, "the runtime ended the stream"), progress
        except CallFailure as failure:
            return failure, progress
        except grpc.RpcError as error:
            # The error is the call, and its traceback holds this frame: a cycle that would outlive the channel.
            error.__traceback__ = None
            return CallFailure.of(error), progress
        finally:
            self._call = None
            if call is not None:
                call.cancel()
            del call
            self.stopped_reading()

    def _report(self, failure: CallFailure) -> None:
        if failure.code in REFUSALS:
            logger.error("stream refused by the agent runtime", extra={"stream": self._name, "err": str(failure)})
        elif self._transport.reached:
            logger.warning("stream lost, reconnecting", extra={"stream": self._name, "err": str(failure)})
        self._transport.reached = False


class Watch(StreamReader):
    """The changes of one key, or of all with a prefix, from the runtime to a mailbox."""

    def __init__(
        self,
        transport: Transport,
        *,
        key: str,
        prefix: str,
        include_current: bool,
        after_revision: int | None,
    ) -> None:
        super().__init__(transport, "agent-runtime-watch")
        self._request = state_pb.WatchStateRequest(
            key=key, prefix=prefix, include_current=include_current, after_revision=after_revision
        )
        self._closed = False
        self._room = threading.Event()
        self._room.set()
        self.begun: Future[None] = Future()
        self.begun.set_running_or_notify_cancel()
        self.mailbox = Mailbox(on_drained=self._room.set)
        transport.streams.add(self)
        self.start_thread()

    def close(self) -> None:
        self.end(ClientClosed("the watch was closed"))

    def end(self, error: AgentRuntimeError) -> None:
        """Stop for good; the consumer gets `error` after what is there."""
        self._closed = True
        self._room.set()
        self.mailbox.end(error)
        self.interrupt()

    def convert(self, message: state_pb.StateChange) -> StateChange:
        return to_change(message)

    def restart_in_child(self) -> None:
        """End after a fork: the stream stays in the parent."""
        self._closed = True
        self._wake = threading.Event()
        self.mailbox.restart_in_child()

    def wanted(self) -> bool:
        self._room.wait()
        return not self._closed

    def open(self, session: ChannelSession) -> Any:
        return session.stream(WATCH_STATE, self._request, self._transport.metadata(new_request_id()))

    def receive(self, response: state_pb.WatchStateResponse) -> bool:
        # Cleared before the attempt: a mailbox that drains in between sets it again.
        self._room.clear()
        if response.changes and not self.mailbox.put(response.changes, response.ByteSize()):
            return False
        self._room.set()
        self._request.after_revision = response.revision
        if not self.begun.done():
            self.begun.set_result(None)
        return True

    def failed(self, failure: CallFailure) -> None:
        if failure.code in REFUSALS:
            error = failure_error(failure, address=self._transport.address)
            error.__cause__ = failure
            if not self.begun.done():
                self.begun.set_exception(error)
            self.end(error)
