"""Generated from `_async/events.py` by `scripts/unasync.py`: edit that file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from django_agent_runtime import _channel
from django_agent_runtime._arguments import check_callback, check_whole
from django_agent_runtime._requests import (
    add_published,
    check_event_types,
    check_one_start,
    named_as_asked,
    publish_requests,
)
from django_agent_runtime._streams import Stream, settle
from django_agent_runtime._subscriptions import CallbackSubscription, EventHub, IteratedSubscription
from django_agent_runtime.exceptions import AgentRuntimeError, InvalidRequest
from django_agent_runtime.types import Event, EventGap, NewEvent, PublishedEvent

from .calls import SyncCalls

__all__ = ["SyncEvents"]


class SyncEvents(SyncCalls):
    """Published events."""

    _hub: EventHub

    def publish_event(
        self, event_type: str, data: Any, source: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> bool:
        """Publish an event; once this returns, it survives whatever dies.

        Args:
            event_type: 1 to 200 bytes of UTF-8 without `*`, by convention words with dots between: `order.created`.
            data: Any JSON value.
            source: Who publishes it, at most 200 bytes.
            metadata: A JSON object.

        Returns:
            True. What stood in the way is raised.

        Raises:
            InvalidRequest: The event cannot be published as it is.
            StorageFull: The runtime has no room.
        """
        self.publish_events([NewEvent(event_type, data, source, metadata or {})])
        return True

    def publish_events(self, events: Iterable[NewEvent | Mapping[str, Any]]) -> list[PublishedEvent]:
        """Publish many events in order: up to 1000 in a call, each call refused or accepted as a whole.

        A call is sent when the one before it has been answered; meanwhile its events are taken and encoded. A call
        that is repeated after a lost connection has no second effect.

        Args:
            events: `NewEvent` objects, or mappings with the same keys.

        Returns:
            The id and sequence of each event, in order.

        Raises:
            AgentRuntimeError: Not all were published. `error.published` are those that were acknowledged, the first
                ones of `events`. Of the others none was published if the error is an InvalidRequest (one cannot be
                published as it is) or AccessDenied. After any other, some of the next 1000 may have been: the
                runtime had begun, and only their acknowledgement is missing.
        """
        published: list[PublishedEvent] = []
        try:
            self._call_each(_channel.PUBLISH_EVENTS, publish_requests(events), partial(add_published, published))
        except AgentRuntimeError as error:
            error.published = tuple(published)
            raise
        return published

    def subscribe_to_events(
        self,
        event_type: str | Sequence[str],
        callback: Callable[[Event], object],
        from_sequence: int | None = None,
        from_beginning: bool = False,
        *,
        on_gap: Callable[[EventGap], object] | None = None,
    ) -> str:
        """Call `callback` with every event of some types; every event published after this returns is seen.

        A subscription goes on over lost connections, restarts and forks of this process, and neither loses nor
        repeats an event. Callbacks run in a thread of the client, in order and one at a time for a subscription.
        One that raises is logged and counted in `stats`, and the next event follows. A slow one holds up nobody
        else. In a forked child there are no subscriptions.

        Args:
            event_type: A type, or several. `*` is every type; `order.*` every type that begins with `order.`.
                A `*` stands at the end only.
            callback: Called with an `Event`.
            from_sequence: The first sequence wanted; None: from now on.
            from_beginning: Begin with the oldest event that is still kept.
            on_gap: Called, in order with `callback`, when events were removed by retention, or lost with a damaged
                disk, before this subscription got them. Lost ones count whatever their types, as nobody knows them.
                It then goes on with the oldest event there is behind them; a warning is logged.

        Returns:
            The subscription's id, for `unsubscribe_from_events`.

        Raises:
            RuntimeUnavailable: The runtime could not be reached within the `timeout` setting.
            InvalidRequest: A type is not valid, or both `from_sequence` and `from_beginning` are given.
        """
        check_callback(callback)
        from_sequence = check_whole("from_sequence", from_sequence)
        check_one_start("from_sequence", from_sequence, from_beginning)
        subscription = CallbackSubscription(
            self._hub,
            check_event_types(event_type),
            None if from_sequence is None else max(from_sequence - 1, 0),
            from_beginning,
            callback,
            on_gap,
        )
        self._hub.add(subscription)
        try:
            settle(subscription.begun, self.settings.timeout)
        except InvalidRequest as error:
            subscription.close()
            raise named_as_asked(error, from_sequence) from error
        except BaseException:
            subscription.close()
            raise
        return subscription.member_id

    def unsubscribe_from_events(self, subscription_id: str) -> bool:
        """End a subscription. After this returns no callback begins; one under way may still end.

        Returns:
            Whether there was such a subscription.
        """
        return self._hub.remove(subscription_id)

    def stream_events(
        self,
        event_type: str | Sequence[str] = "*",
        *,
        after_sequence: int | None = None,
        from_beginning: bool = False,
    ) -> Stream[Event]:
        """Iterate over the events of some types as they happen, without end, for a stream to a browser.

        It goes on over lost connections, restarts and forks, and neither loses nor repeats an event. All streams
        and subscriptions of a client share one connection.

        Args:
            event_type: As in `subscribe_to_events`.
            after_sequence: Begin with what follows this sequence, such as a browser's `Last-Event-ID` or the
                `position` of another stream; None: now.
            from_beginning: Begin with the oldest event that is still kept.

        Raises:
            EventsTruncated: While iterating: some of the events asked for are no longer kept, or were lost with a
                damaged disk. Its `oldest_sequence - 1` goes on behind them as `after_sequence`.
        """
        after_sequence = check_whole("after_sequence", after_sequence)
        check_one_start("after_sequence", after_sequence, from_beginning)
        subscription = IteratedSubscription(self._hub, check_event_types(event_type), after_sequence, from_beginning)
        self._hub.add(subscription)
        return Stream(subscription, self.settings.timeout)
