"""Long-lived streams: a thread that keeps one open whatever happens, and the iterators over what it receives."""

from __future__ import annotations

import _thread
import asyncio
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from ._channel import ChannelSession, Transport, jittered
from ._errors import CallFailure, failure_error
from ._fork import gate, start_thread
from ._mailbox import Mailbox
from .exceptions import AgentRuntimeError, ClientClosed, RuntimeUnavailable

__all__ = [
    "REFUSALS",
    "AsyncStream",
    "EndOfStream",
    "MailboxReader",
    "Stream",
    "StreamReader",
    "StreamSource",
    "asettle",
    "settle",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0

# Another attempt cannot go better until somebody changes something.
REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


class EndOfStream(AgentRuntimeError):
    """Nothing more follows, as there is nothing more; iterators end with it."""


class StreamSource(Protocol):
    """Where a stream's items come from."""

    mailbox: Mailbox
    begun: Future[int]
    """The position behind which the runtime has begun the stream: whatever happens from then on is seen."""
    position: int | None
    """Everything up to here has been put into the mailbox, then this was set; None before the stream has begun."""

    def close(self) -> None:
        """End the stream; safe to call twice."""

    def convert(self, message: Any) -> Any:
        """What the consumer gets for one message of a batch."""

    def position_of(self, message: Any) -> int:
        """Where the stream goes on behind one message of a batch."""


def settle(begun: Future[int], timeout: float) -> int:
    """Wait until a stream has begun, and at which position.

    Raises:
        RuntimeUnavailable: It has not within `timeout` seconds.
        AgentRuntimeError: It was refused.
    """
    try:
        return begun.result(timeout)
    except FutureTimeoutError:
        raise _not_begun(timeout) from None


async def asettle(begun: Future[int], timeout: float) -> int:
    """`settle` for asyncio."""
    if begun.done():
        return begun.result()
    try:
        # Shielded: a wait that is given up must not cancel the stream's own future.
        return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(begun)), timeout)
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


class _StreamBase(Generic[T]):
    def __init__(self, source: StreamSource, timeout: float) -> None:
        self._source = source
        self._timeout = timeout
        self._batch: deque[Any] = deque()
        self._position: int | None = None
        # A stream that is dropped instead of closed must not go on for ever.
        self._dropped = weakref.finalize(self, _close_elsewhere, source)
        self._dropped.atexit = False  # type: ignore[misc]  # typeshed hides the setter

    @property
    def position(self) -> int | None:
        """Where to go on from here (`after_sequence`, of a watch `after_revision`); None before the stream has begun.

        Everything up to here has been handed out. It also moves over what this stream is not about.
        """
        # Read before the look into the mailbox, into which everything up to it was put before.
        received = self._source.position
        if self._position is not None and received is not None and not (self._batch or self._source.mailbox.waiting):
            self._position = max(self._position, received)
        return self._position

    @property
    def _closed(self) -> bool:
        return not self._dropped.alive

    def _close(self) -> None:
        if self._dropped.detach():
            self._source.close()

    def _next_of_batch(self) -> T:
        message = self._batch.popleft()
        self._position = self._source.position_of(message)
        item: T = self._source.convert(message)
        return item


class Stream(_StreamBase[T]):
    """An iterator that goes on over reconnects without gap or repeat; most are endless.

    Close it (or use it in a `with` block) when done. It is for one thread at a time.
    """

    def __init__(self, source: StreamSource, timeout: float) -> None:
        super().__init__(source, timeout)
        try:
            self._position = settle(source.begun, timeout)
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
            except EndOfStream:
                raise StopIteration from None
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
    """An asynchronous iterator that goes on over reconnects without gap or repeat; most are endless.

    It begins with `async with` or its first item, whichever comes first: what happens after `__aenter__` returned
    is seen. Waiting for an item may be cancelled (`asyncio.wait_for`) without losing one.
    """

    async def aclose(self) -> None:
        """End the stream; safe to call twice."""
        self._close()

    def __aiter__(self) -> AsyncStream[T]:
        return self

    async def __anext__(self) -> T:
        await self._open()
        while not self._batch:
            await self._fetch()
        return self._next_of_batch()

    async def next_within(self, seconds: float) -> list[T]:
        """All items that are there, once there is one; none if none comes for `seconds`, waited for as by `anext`.

        Raises:
            StopAsyncIteration: There are no more.
        """
        await self._open()
        if not self._batch:
            await self._fetch(seconds)
        return [self._next_of_batch() for _ in range(len(self._batch))]

    async def __aenter__(self) -> AsyncStream[T]:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _fetch(self, seconds: float | None = None) -> None:
        try:
            self._batch.extend(await self._source.mailbox.aget(seconds))
        except EndOfStream:
            raise StopAsyncIteration from None
        except ClientClosed:
            if not self._closed:
                raise
            raise StopAsyncIteration from None

    async def _open(self) -> None:
        if self._position is None:
            self._position = await asettle(self._source.begun, self._timeout)


class StreamReader:
    """A thread that reads one stream for as long as it is wanted: over lost connections, restarts and forks.

    A subclass says how the stream is opened at its present position and what to do with each response.
    """

    longest_pause = _LONGEST_PAUSE
    """Seconds between two attempts, when several in a row have failed."""

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self._name = name
        self.forget_thread()
        self._was_open = False
        self._lost = False
        self.ending = False
        """Whether the end of the stream is what it is open for, and is no loss."""
        self.reconnects = 0
        """How often a lost stream was open again."""

    def start_thread(self) -> None:
        """Begin to read; the thread ends when `wanted` says so."""
        start_thread(self._run, self._name)

    def forget_thread(self) -> None:
        """Begin with none, as in a child, where there is none after a fork."""
        self._call: Any = None
        self._wake = threading.Event()
        self._rested = threading.Event()

    def hurry(self) -> None:
        """Have the thread make its next attempt now, if it waits for it."""
        self._rested.set()

    def interrupt(self) -> None:
        """Have the thread look again, now, at whether and how it is wanted."""
        self._wake.set()
        self._rested.set()
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

    def refused(self, error: AgentRuntimeError) -> None:
        """No attempt can be made: stop, and give `error` to whoever waits."""
        raise NotImplementedError

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        process = os.getpid()
        while True:
            self._wake.clear()
            self._rested.clear()
            if os.getpid() != process or not self.wanted():
                return
            try:
                session = self._transport.enter()
            except AgentRuntimeError as error:
                # The settings name files that cannot be used: nothing changes by waiting.
                self.refused(error)
                continue
            try:
                # gevent's threads are copied by a fork; the child's subscriptions have a reader of their own.
                if os.getpid() != process:
                    return
                failure, progress = self._read(session)
            finally:
                gate.leave(session)
            if session.suspended or not failure or self.ending:
                continue
            if progress:
                pause = _FIRST_PAUSE
            if failure.code is not grpc.StatusCode.CANCELLED:
                self._report(failure)
                self._lost = self._was_open
            self.failed(failure)
            if failure.code in REFUSALS:
                pause = self.longest_pause
            self._rested.wait(jittered(pause))
            pause = min(pause * 2, self.longest_pause)

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
                    progress = self._was_open = self._transport.reached = True
                    self.reconnects += self._lost
                    self._lost = False
                if not self.receive(response):
                    return None, progress
            return CallFailure(grpc.StatusCode.UNAVAILABLE, "the runtime ended the stream"), progress
        except CallFailure as failure:
            return failure, progress
        except grpc.RpcError as error:
            # The error is the call, and its traceback holds this frame: a cycle that would outlive the channel.
            error.__traceback__ = None
            return CallFailure.of(error), progress
        except Exception as error:
            # Whoever comes later relies on this thread.
            logger.exception("stream could not be followed", extra={"stream": self._name})
            return CallFailure(grpc.StatusCode.INTERNAL, repr(error)), progress
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


class MailboxReader(StreamReader):
    """A stream of its own for one consumer, which takes from a mailbox; a full one holds the stream back.

    A subclass says how the stream is opened and what a response becomes, and calls `begin` when it is complete.
    """

    def __init__(self, transport: Transport, name: str, position: int | None) -> None:
        super().__init__(transport, name)
        self.position = position
        self._closed = False
        self._room = threading.Event()
        self._room.set()
        self.begun: Future[int] = Future()
        self.begun.set_running_or_notify_cancel()
        self.mailbox = Mailbox(on_drained=self._room.set)

    def begin(self) -> None:
        """Begin to read."""
        self._transport.streams.add(self)
        self.start_thread()

    def close(self) -> None:
        """See StreamSource."""
        self.end(ClientClosed("the stream was closed"))

    def end(self, error: AgentRuntimeError) -> None:
        """Stop for good; the consumer gets `error` after what is there."""
        self._closed = True
        self._room.set()
        self.mailbox.end(error)
        self.interrupt()

    def put(self, messages: Sequence[Any], response: Message) -> bool:
        """Give `messages` of a response to the consumer; False if there is no room."""
        # Cleared before the attempt: a mailbox that drains in between sets it again.
        self._room.clear()
        if messages and not self.mailbox.put(messages, response.ByteSize()):
            return False
        self._room.set()
        return True

    def restart_in_child(self) -> None:
        """End after a fork: the stream stays in the parent."""
        self._closed = True
        self.forget_thread()
        self.mailbox.restart_in_child()

    def wanted(self) -> bool:
        self._room.wait()
        return not self._closed

    def failed(self, failure: CallFailure) -> None:
        if failure.code in REFUSALS:
            error = failure_error(failure, address=self._transport.address)
            error.__cause__ = failure
            self.refused(error)

    def refused(self, error: AgentRuntimeError) -> None:
        if not self.begun.done():
            self.begun.set_exception(error)
        self.end(error)
