"""What happens to the shared state and to runs: the changes of keys, the events of one run, those of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration

from ._channel import FOLLOW_RUNS, WATCH_RUNS, WATCH_STATE, ChannelSession, Transport, new_request_id
from ._errors import reason_error
from ._hub import Hub, Member
from ._messages import to_change, to_run_event, to_run_events
from ._streams import EndOfStream, MailboxReader
from .grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from .grpc_client.agentruntime.v1 import state_service_pb2 as state_pb
from .types import RunEvent, RunEventBatch, StateChange

__all__ = ["RunFollower", "RunHub", "RunWatch", "Watch"]


class Watch(MailboxReader):
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
        super().__init__(transport, "agent-runtime-watch", after_revision)
        self._request = state_pb.WatchStateRequest(
            key=key, prefix=prefix, include_current=include_current, after_revision=after_revision
        )
        self.begin()

    def convert(self, message: state_pb.StateChange) -> StateChange:
        return to_change(message)

    def position_of(self, message: state_pb.StateChange) -> int:
        return message.entry.revision

    def open(self, session: ChannelSession) -> Any:
        return session.stream(WATCH_STATE, self._request, self._transport.metadata(new_request_id()))

    def receive(self, response: state_pb.WatchStateResponse) -> bool:
        if not self.put(response.changes, response):
            return False
        self.position = response.revision
        # Before the first of the current entries there is nothing to go on from.
        if response.revision or not self._request.include_current:
            self._request.after_revision = response.revision
            self._request.include_current = False
        if not self.begun.done():
            self.begun.set_result(response.revision)
        return True


class RunWatch(Member):
    """The events of one run, up to the run's end.

    Nothing can be missed, as events are kept with their run: so it has begun at once.
    """

    def __init__(
        self, hub: RunHub, *, run_id: str, after_sequence: int, visibility: agent_pb.EventVisibility | None
    ) -> None:
        super().__init__(hub, after_sequence)
        self.request = agent_pb.WatchRunRequest(run_id=run_id, visibility=visibility)
        self.begun.set_result(after_sequence)

    def convert(self, message: agent_pb.RunEvent) -> RunEvent:
        """See StreamSource."""
        return to_run_event(message)

    def position_of(self, message: agent_pb.RunEvent) -> int:
        """See StreamSource."""
        return message.sequence


class RunHub(Hub[RunWatch]):
    """The stream of all runs that a client watches."""

    rpc = WATCH_RUNS
    closed_message = "the stream was closed"

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, "agent-runtime-watches")

    def make_add(self, member: RunWatch, wire_id: str) -> agent_pb.WatchRunsRequest:
        member.request.after_sequence = member.position or 0
        return agent_pb.WatchRunsRequest(add=agent_pb.AddRunWatch(watch_id=wire_id, watch=member.request))

    def make_remove(self, wire_id: str) -> agent_pb.WatchRunsRequest:
        return agent_pb.WatchRunsRequest(remove=agent_pb.RemoveRunWatch(watch_id=wire_id))

    def gives_up(self, member: RunWatch) -> bool:
        return True

    def receive(self, response: agent_pb.WatchRunsResponse) -> bool:
        with self._lock:
            for update in response.updates:
                watch = self._on_stream.get(update.watch_id)
                if watch is None:
                    # Taken off the stream meanwhile; it comes back behind its position.
                    continue
                if update.HasField("ended"):
                    self._receive_end(watch, update.ended)
                else:
                    self._put(watch, update.events, update.ByteSize(), update.position)
            return bool(self._members)

    def _receive_end(self, watch: RunWatch, ended: agent_pb.RunWatchEnded) -> None:
        self._leave_stream(watch)
        del self._members[watch.member_id]
        if ended.reason:
            watch.end(reason_error(ended.reason, ended.message, ended.metadata))
        else:
            watch.end(EndOfStream("the run has ended"))


class RunFollower(MailboxReader):
    """The events of all runs from the runtime to a mailbox. It begins at once, as events are kept."""

    def __init__(
        self,
        transport: Transport,
        *,
        after_sequence: int,
        without_types: Sequence[str],
        named_only: bool,
        min_interval: Duration | None,
    ) -> None:
        super().__init__(transport, "agent-runtime-runs", after_sequence)
        self._request = agent_pb.FollowRunsRequest(
            after_sequence=after_sequence,
            without_types=without_types,
            named_only=named_only,
            min_interval=min_interval,
        )
        self.begun.set_result(after_sequence)
        self.begin()

    def convert(self, message: agent_pb.FollowRunsResponse) -> RunEventBatch:
        return to_run_events(message)

    def position_of(self, message: agent_pb.FollowRunsResponse) -> int:
        return message.position

    def open(self, session: ChannelSession) -> Any:
        return session.stream(FOLLOW_RUNS, self._request, self._transport.metadata(new_request_id()))

    def receive(self, response: agent_pb.FollowRunsResponse) -> bool:
        # A sign of life that says nothing new is not for the consumer.
        if response.position != self.position and not self.put([response], response):
            return False
        self.position = self._request.after_sequence = response.position
        return True
