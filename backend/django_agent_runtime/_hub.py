"""One stream for many readers: each has its own position, and none can hold up another.

The stream's thread puts what comes into the mailbox of whom it is for and never waits for a consumer: a reader whose
mailbox is full is taken off the stream, and added again behind its last batch once the mailbox has drained. A lost
stream is opened again with every reader behind its last batch. So each sees everything once and in order.
"""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, ClassVar, Generic, TypeVar

from google.protobuf.message import Message

from ._channel import ChannelSession, Rpc, Transport, new_request_id
from ._errors import CallFailure, failure_error
from ._mailbox import Mailbox
from ._streams import REFUSALS, StreamReader
from .exceptions import AgentRuntimeError, ClientClosed

__all__ = ["Hub", "Member"]


class Member:
    """What one reader wants and how far it has got. Its fields belong to the hub."""

    def __init__(self, hub: Hub[Any], position: int | None, on_item: Callable[[], None] | None = None) -> None:
        self.member_id = uuid.uuid4().hex
        self.position = position
        """Everything up to here is in the mailbox; None until the runtime has said where it begins."""
        self.wire_id: str | None = None
        """Its name on the open stream; None while it is not there."""
        self.begun: Future[int] = Future()
        self.begun.set_running_or_notify_cancel()
        self.mailbox = Mailbox(on_drained=lambda: hub.resume(self), on_item=on_item)
        self._hub = hub

    def close(self) -> None:
        """End it; safe to call twice."""
        self._hub.remove(self.member_id)

    def end(self, error: AgentRuntimeError) -> None:
        """Tell whoever waits that nothing more follows."""
        if not self.begun.done():
            self.begun.set_exception(error)
        self.mailbox.end(error)

    def restart_in_child(self) -> None:
        """End after a fork: the reader stays in the parent."""
        self.mailbox.restart_in_child()


M = TypeVar("M", bound=Member)


class Hub(StreamReader, Generic[M]):
    """The stream of all members of a client, open while there are any.

    A subclass says how a member is added to the stream and taken off, and what to do with each response.
    """

    rpc: ClassVar[Rpc[Any, Any]]
    closed_message: ClassVar[str]
    """What a member is told that was closed."""

    def __init__(self, transport: Transport, name: str) -> None:
        super().__init__(transport, name)
        self._reset()
        transport.streams.add(self)

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._running = False
        self._members: dict[str, M] = {}
        self._on_stream: dict[str, M] = {}
        self._outbox: queue.SimpleQueue[Message | None] | None = None
        self._wire_ids = 0

    @property
    def size(self) -> int:
        """How many members there are."""
        return len(self._members)

    def make_add(self, member: M, wire_id: str) -> Message:
        """The request that adds a member to the stream under that name, behind its position."""
        raise NotImplementedError

    def make_remove(self, wire_id: str) -> Message:
        """The request that takes the member of that name off the stream."""
        raise NotImplementedError

    def add(self, member: M) -> None:
        """Begin to read for a member; `member.begun` says when that has happened."""
        with self._lock:
            if not self._running:
                self.start_thread()
                self._running = True
            elif self._outbox is None:
                # Nobody waits out the pauses of those who came before.
                self.hurry()
            self._members[member.member_id] = member
            self._send_add(member)

    def remove(self, member_id: str) -> bool:
        """Close a member; False if there is none of this id."""
        with self._lock:
            member = self._members.pop(member_id, None)
            if member is None:
                return False
            self._send_remove(member)
            last = not self._members
        member.end(ClientClosed(self.closed_message))
        if last:
            self.interrupt()
        return True

    def resume(self, member: M) -> None:
        """Put a member back on the stream whose mailbox was full."""
        with self._lock:
            if member.member_id in self._members and member.wire_id is None:
                self._send_add(member)

    def end(self, error: AgentRuntimeError) -> None:
        """End every member with `error`."""
        with self._lock:
            members = list(self._members.values())
            self._members.clear()
            self._on_stream.clear()
            for member in members:
                member.end(error)
        self.interrupt()

    def restart_in_child(self) -> None:
        """Forget everything that belonged to the parent."""
        for member in self._members.values():
            member.restart_in_child()
        self.forget_thread()
        self._was_open = self._lost = False
        self.reconnects = 0
        self._reset()

    def wanted(self) -> bool:
        """While there are members."""
        with self._lock:
            self._running = bool(self._members)
            return self._running

    def open(self, session: ChannelSession) -> Any:
        """Open the stream with every member on it."""
        with self._lock:
            self._outbox = queue.SimpleQueue()
            requests: Iterator[Any] = iter(self._outbox.get, None)
            for member in self._members.values():
                member.wire_id = None
                self._send_add(member)
        return session.stream(self.rpc, requests, self._transport.metadata(new_request_id()))

    def stopped_reading(self) -> None:
        """Forget the names of the stream that is over."""
        with self._lock:
            self._on_stream.clear()
            outbox, self._outbox = self._outbox, None
        if outbox is not None:
            # Ends the thread in which gRPC waits for requests.
            outbox.put(None)

    def failed(self, failure: CallFailure) -> None:
        """Tell those whom a refusal concerns; any other failure is followed by another attempt."""
        if failure.code not in REFUSALS:
            return
        with self._lock:
            refused = [member for member in self._members.values() if self.gives_up(member)]
            for member in refused:
                del self._members[member.member_id]
                error = failure_error(failure, address=self._transport.address)
                error.__cause__ = failure
                member.end(error)

    def gives_up(self, member: M) -> bool:
        """Whether a stream that is refused as a whole ends this member."""
        raise NotImplementedError

    def refused(self, error: AgentRuntimeError) -> None:
        """No attempt can be made."""
        self.end(error)

    # With the lock held.

    def _put(self, member: M, batch: Sequence[Any], size: int, position: int) -> None:
        """Give a batch of `size` bytes to a member, or take it off the stream until it has room."""
        if batch and not member.mailbox.put(batch, size):
            self._send_remove(member)
            return
        member.position = position

    def _leave_stream(self, member: M) -> None:
        """Follow that the runtime has taken a member off the stream."""
        if member.wire_id is not None:
            del self._on_stream[member.wire_id]
            member.wire_id = None

    def _send_add(self, member: M) -> None:
        if self._outbox is None:
            return
        self._wire_ids += 1
        member.wire_id = str(self._wire_ids)
        self._on_stream[member.wire_id] = member
        self._outbox.put(self.make_add(member, member.wire_id))

    def _send_remove(self, member: M) -> None:
        wire_id, member.wire_id = member.wire_id, None
        if wire_id is None or self._on_stream.pop(wire_id, None) is None or self._outbox is None:
            return
        self._outbox.put(self.make_remove(wire_id))
