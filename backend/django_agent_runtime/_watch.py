"""Streams of their own: the changes of the shared state, the events of one run, those of all runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration

from ._channel import FOLLOW_RUNS, WATCH_RUN, WATCH_STATE, ChannelSession, Transport, new_request_id
from ._messages import to_change, to_run_event, to_run_events
from ._streams import EndOfStream, MailboxReader
from .grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from .grpc_client.agentruntime.v1 import state_service_pb2 as state_pb
from .types import ENDS, RunEvent, RunEventBatch, StateChange

__all__ = ["RunFollower", "RunWatch", "Watch"]


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


class RunWatch(MailboxReader):
    """The events of one run from the runtime to a mailbox, up to the run's end.

    Nothing can be missed, as events are kept with their run: so it has begun at once.
    """

    def __init__(
        self, transport: Transport, *, run_id: str, after_sequence: int, visibility: agent_pb.EventVisibility | None
    ) -> None:
        super().__init__(transport, "agent-runtime-run", after_sequence)
        self._request = agent_pb.WatchRunRequest(run_id=run_id, after_sequence=after_sequence, visibility=visibility)
        self.begun.set_result(after_sequence)
        self.begin()

    def convert(self, message: agent_pb.RunEvent) -> RunEvent:
        return to_run_event(message)

    def position_of(self, message: agent_pb.RunEvent) -> int:
        return message.sequence

    def open(self, session: ChannelSession) -> Any:
        return session.stream(WATCH_RUN, self._request, self._transport.metadata(new_request_id()))

    def receive(self, response: agent_pb.WatchRunResponse) -> bool:
        # Nothing counts behind the run's end.
        last = next((place for place, event in enumerate(response.events) if event.type in ENDS), None)
        events = response.events if last is None else response.events[: last + 1]
        if not self.put(events, response):
            return False
        self.position = self._request.after_sequence = response.position
        if last is not None:
            self._finish()
            return False
        return True

    def ended(self) -> bool:
        # Also where nothing came: the run's end was not after the sequence that was asked for.
        self._finish()
        return True

    def _finish(self) -> None:
        self.end(EndOfStream("the run has ended"))


class RunFollower(MailboxReader):
    """The events of all runs from the runtime to a mailbox. It begins at once, as events are kept."""

    def __init__(
        self, transport: Transport, *, after_sequence: int, without_types: Sequence[str], min_interval: Duration | None
    ) -> None:
        super().__init__(transport, "agent-runtime-runs", after_sequence)
        self._request = agent_pb.FollowRunsRequest(
            after_sequence=after_sequence, without_types=without_types, min_interval=min_interval
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
