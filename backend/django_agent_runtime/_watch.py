"""A stream of the changes of the shared state."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from ._channel import WATCH_STATE, ChannelSession, Transport, new_request_id
from ._errors import CallFailure, failure_error
from ._mailbox import Mailbox
from ._messages import to_change
from ._streams import REFUSALS, StreamReader
from .exceptions import AgentRuntimeError, ClientClosed
from .grpc_client.agentruntime.v1 import state_service_pb2 as state_pb
from .types import StateChange

__all__ = ["Watch"]


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
        self.position = after_revision
        self._closed = False
        self._room = threading.Event()
        self._room.set()
        self.begun: Future[int] = Future()
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

    def position_of(self, message: state_pb.StateChange) -> int:
        return message.entry.revision

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
        self.position = response.revision
        # Before the first of the current entries there is nothing to go on from.
        if response.revision or not self._request.include_current:
            self._request.after_revision = response.revision
            self._request.include_current = False
        if not self.begun.done():
            self.begun.set_result(response.revision)
        return True

    def failed(self, failure: CallFailure) -> None:
        if failure.code in REFUSALS:
            error = failure_error(failure, address=self._transport.address)
            error.__cause__ = failure
            self.refused(error)

    def refused(self, error: AgentRuntimeError) -> None:
        if not self.begun.done():
            self.begun.set_exception(error)
        self.end(error)
