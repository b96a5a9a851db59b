"""Subscriptions to events: all of a client on one stream, for iterators and for callbacks."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence

import grpc

from ._channel import SUBSCRIBE, Transport
from ._errors import CallFailure, reason_error
from ._fork import start_thread
from ._hub import Hub, Member
from ._messages import to_event
from .exceptions import AgentRuntimeError, EventsTruncated
from .grpc_client.agentruntime.v1 import event_service_pb2 as event_pb
from .types import Event, EventGap

__all__ = ["CallbackPool", "CallbackSubscription", "EventHub", "IteratedSubscription", "Subscription"]

logger = logging.getLogger(__name__)

# Callbacks that may run at the same time; that many may be slow before others have to wait for them.
_MOST_WORKERS = 32
# Seconds after which a worker with nothing to do ends.
_WORKER_IDLE_SECONDS = 10.0

# A subscription that ended with one of these is resumed with the whole stream; any other ends it for good.
_PASSING_REASONS = frozenset({"INTERNAL", "QUEUE_FULL", "RATE_LIMITED", "SLOW_READER", "UNAVAILABLE"})


class Subscription(Member):
    """What one subscriber wants."""

    _hub: EventHub

    def __init__(
        self,
        hub: EventHub,
        types: Sequence[str],
        after_sequence: int | None,
        from_beginning: bool,
        on_item: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(hub, after_sequence, on_item)
        self.types = tuple(types)
        self.from_beginning = from_beginning

    def skip_gap(self, gap: EventGap) -> bool:
        """Whether to go on behind events that are no longer kept."""
        raise NotImplementedError


class IteratedSubscription(Subscription):
    """A subscription consumed by an iterator, which gets EventsTruncated instead of skipping events."""

    def convert(self, message: event_pb.Event) -> Event:
        return to_event(message)

    def position_of(self, message: event_pb.Event) -> int:
        return message.sequence

    def skip_gap(self, gap: EventGap) -> bool:
        return False


class CallbackSubscription(Subscription):
    """A subscription that calls a function with each event, one at a time and in order."""

    def __init__(
        self,
        hub: EventHub,
        types: Sequence[str],
        after_sequence: int | None,
        from_beginning: bool,
        callback: Callable[[Event], object],
        on_gap: Callable[[EventGap], object] | None,
    ) -> None:
        super().__init__(hub, types, after_sequence, from_beginning, on_item=lambda: hub.pool.schedule(self))
        self._callback = callback
        self._on_gap = on_gap
        self._closed = False

    def skip_gap(self, gap: EventGap) -> bool:
        logger.warning(
            "events lost to a subscription",
            extra={"subscription_id": gap.subscription_id, "first_sequence": gap.first, "last_sequence": gap.last},
        )
        # Behind what is in the mailbox already: the callbacks are in order with each other.
        self.mailbox.put([gap], 0, always=True)
        return True

    def end(self, error: AgentRuntimeError) -> None:
        self._closed = True
        super().end(error)

    def restart_in_child(self) -> None:
        self._closed = True
        super().restart_in_child()

    def run_batch(self) -> bool:
        """Call back for the oldest batch; False if there is none, or never will be."""
        try:
            batch = self.mailbox.take()
        except AgentRuntimeError:
            return False
        if batch is None:
            return False
        delivered = failed = 0
        for item in batch:
            if self._closed:
                break
            try:
                if isinstance(item, EventGap):
                    if self._on_gap is not None:
                        self._on_gap(item)
                else:
                    self._callback(to_event(item))
                    delivered += 1
            except BaseException:  # sys.exit() in a callback must not end the worker either
                failed += 1
                logger.exception("event callback failed", extra={"subscription_id": self.member_id})
        self._hub.pool.count(delivered, failed)
        return True


class CallbackPool:
    """Threads that run callbacks: several subscriptions at a time, each of them on one thread at a time."""

    def __init__(self) -> None:
        self.events_delivered = 0
        self.callbacks_failed = 0
        self._changed = threading.Condition()
        self._ready: deque[CallbackSubscription] = deque()
        self._scheduled: set[CallbackSubscription] = set()
        self._workers = 0
        self._idle = 0

    def count(self, delivered: int, failed: int) -> None:
        """Add to the numbers of events delivered and of callbacks that raised."""
        with self._changed:
            self.events_delivered += delivered
            self.callbacks_failed += failed

    def schedule(self, subscription: CallbackSubscription) -> None:
        """Have a worker empty the mailbox of `subscription`, unless one is about to."""
        with self._changed:
            if subscription in self._scheduled:
                return
            self._scheduled.add(subscription)
            self._ready.append(subscription)
            if self._idle >= len(self._ready):
                self._changed.notify()
            elif self._workers < _MOST_WORKERS:
                self._start_worker(subscription)

    def _start_worker(self, subscription: CallbackSubscription) -> None:
        try:
            start_thread(self._work, "agent-runtime-callback")
        except RuntimeError:
            # This process has as many threads as it may: those that there are do it, or else one that its next event
            # finds.
            logger.exception("thread for callbacks not started")
            if not self._workers:
                self._ready.remove(subscription)
                self._scheduled.discard(subscription)
        else:
            self._workers += 1

    def _work(self) -> None:
        process = os.getpid()
        # A copy that gevent made of this at a fork ends with the callback it is in.
        while os.getpid() == process and (subscription := self._next()) is not None:
            more = subscription.run_batch()
            with self._changed:
                if more:
                    # To the end of the line: one busy subscription must not keep the others waiting.
                    self._ready.append(subscription)
                else:
                    self._scheduled.discard(subscription)
            if not more and subscription.mailbox.waiting:
                # Its last batch came between the look into the mailbox and here, when it still was scheduled.
                self.schedule(subscription)

    def _next(self) -> CallbackSubscription | None:
        with self._changed:
            self._idle += 1
            try:
                if not self._changed.wait_for(lambda: self._ready, timeout=_WORKER_IDLE_SECONDS):
                    self._workers -= 1
                    return None
                return self._ready.popleft()
            finally:
                self._idle -= 1


class EventHub(Hub[Subscription]):
    """The stream of all subscriptions of a client."""

    rpc = SUBSCRIBE
    closed_message = "the subscription was closed"

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, "agent-runtime-events")

    def _reset(self) -> None:
        super()._reset()
        # Another, not the same once more: gevent's copies of the parent's workers end with the one they know.
        self.pool = CallbackPool()

    def make_add(self, member: Subscription, wire_id: str) -> event_pb.SubscribeRequest:
        add = event_pb.AddSubscription(subscription_id=wire_id, types=member.types)
        if member.position is not None:
            add.after_sequence = member.position
        elif member.from_beginning:
            add.from_beginning = True
        else:
            add.from_now = True
        return event_pb.SubscribeRequest(add=add)

    def make_remove(self, wire_id: str) -> event_pb.SubscribeRequest:
        return event_pb.SubscribeRequest(remove=event_pb.RemoveSubscription(subscription_id=wire_id))

    def gives_up(self, member: Subscription) -> bool:
        # A new subscriber is told. Those that had begun wait for better times: a token may be let in again.
        return not member.begun.done()

    def receive(self, response: event_pb.SubscribeResponse) -> bool:
        with self._lock:
            subscription = self._on_stream.get(response.subscription_id)
            if subscription is None:
                # Taken off the stream meanwhile; it comes back behind its position.
                return True
            kind = response.WhichOneof("response")
            if kind == "batch":
                batch = response.batch
                self._put(subscription, batch.events, batch.ByteSize(), batch.sequence)
            elif kind == "added":
                if subscription.position is None:
                    subscription.position = response.added.after_sequence
                if not subscription.begun.done():
                    subscription.begun.set_result(subscription.position)
            elif kind == "ended":
                self._receive_end(subscription, response.ended)
        return True

    def _receive_end(self, subscription: Subscription, ended: event_pb.SubscriptionEnded) -> None:
        if ended.reason in _PASSING_REASONS:
            raise CallFailure(grpc.StatusCode.UNAVAILABLE, ended.message)
        self._leave_stream(subscription)
        error = reason_error(ended.reason, ended.message, ended.metadata)
        if isinstance(error, EventsTruncated) and self._skip_gap(subscription, error):
            self._send_add(subscription)
            return
        del self._members[subscription.member_id]
        if subscription.begun.done():
            logger.error(
                "subscription ended by the agent runtime",
                extra={"subscription_id": subscription.member_id, "err": str(error)},
            )
        subscription.end(error)

    def _skip_gap(self, subscription: Subscription, error: EventsTruncated) -> bool:
        first, last = (subscription.position or 0) + 1, error.oldest_sequence - 1
        if last < first:
            # The runtime gave no place to go on from; skipping would ask for the same again and again.
            return False
        if not subscription.skip_gap(EventGap(subscription.member_id, first, last)):
            return False
        subscription.position = last
        return True
