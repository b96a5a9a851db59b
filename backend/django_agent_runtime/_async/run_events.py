"""What happens in runs."""

from __future__ import annotations

from collections.abc import Iterable

from django_agent_runtime import _channel, _messages
from django_agent_runtime._arguments import check_items, check_whole, duration
from django_agent_runtime._codec import check_text
from django_agent_runtime._requests import visibility_number
from django_agent_runtime._streams import AsyncStream
from django_agent_runtime._watch import RunFollower, RunHub, RunWatch
from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from django_agent_runtime.types import EventVisibility, RunEvent, RunEventBatch, StreamTicket

from .calls import AsyncCalls

__all__ = ["AsyncRunEvents"]


class AsyncRunEvents(AsyncCalls):
    """The events of one run, and of all."""

    _watches: RunHub

    def awatch_run(
        self, run_id: str, *, after_sequence: int = 0, visibility: EventVisibility | str | None = None
    ) -> AsyncStream[RunEvent]:
        """Iterate over the events of a run, from its first on, until the run has ended.

        It goes on over lost connections, restarts and forks, and neither loses nor repeats an event.

        Args:
            after_sequence: Begin with what follows this sequence, such as a browser's `Last-Event-ID` or the
                `position` of another stream.
            visibility: Only events of at least this visibility; the run's end is always shown. None: all.

        Raises:
            RunNotFound: While iterating: there is no such run, or none any more.
        """
        watch = RunWatch(
            self._watches,
            run_id=check_text("run_id", run_id),
            after_sequence=check_whole("after_sequence", after_sequence) or 0,
            visibility=visibility_number("visibility", visibility),
        )
        self._watches.add(watch)
        return AsyncStream(watch, self.settings.timeout)

    def afollow_runs(
        self,
        after_sequence: int = 0,
        *,
        without_types: Iterable[str] = (),
        named_only: bool = False,
        min_interval: float | None = None,
    ) -> AsyncStream[RunEventBatch]:
        """Iterate over the events of all runs, in order and without end, for a projection into another store.

        It goes on over lost connections, restarts and forks, and neither loses nor repeats an event. A batch without
        events says that all up to its position were left out.

        Args:
            after_sequence: Begin with what follows this sequence; 0: with the oldest event that is kept.
            without_types: Types to leave out, such as `assistant.delta`.
            named_only: Only runs whose creator gave them their `run_id`, as whoever keeps a row for each of its runs
                does, those of schedules, and the sub-runs of all these; so all others cost the consumer nothing.
            min_interval: The least seconds between two batches, at most 10: what comes meanwhile is sent together, and
                a consumer that lags behind does not wait. None: each event is sent at once.

        Raises:
            EventsTruncated: While iterating: events were lost with a damaged disk. Its `oldest_sequence - 1` goes on
                behind them as `after_sequence`.
        """
        follower = RunFollower(
            self._transport,
            after_sequence=check_whole("after_sequence", after_sequence) or 0,
            without_types=[
                check_text(f"without_types[{index}]", event_type)
                for index, event_type in enumerate(check_items("without_types", without_types))
            ],
            named_only=named_only,
            min_interval=duration("min_interval", min_interval),
        )
        return AsyncStream(follower, self.settings.timeout)

    async def acreate_stream_ticket(
        self, run_id: str, principal: str = "", visibility: EventVisibility | str | None = None
    ) -> StreamTicket:
        """Make a signed address at which anybody who has it can read the events of a run, such as a browser.

        Args:
            principal: Whom the limit of open streams counts for, at most 200 bytes.
            visibility: The least visibility of the events; the run's end is always shown. None: `user`.

        Raises:
            RunNotFound: There is no such run.
        """
        request = agent_pb.CreateStreamTicketRequest(
            run_id=check_text("run_id", run_id),
            principal=check_text("principal", principal),
            visibility=visibility_number("visibility", visibility),
        )
        return _messages.to_stream_ticket(await self._acall(_channel.CREATE_STREAM_TICKET, request))
