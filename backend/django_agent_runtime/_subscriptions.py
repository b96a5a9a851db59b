"""Subscriptions to events: all of a client on one stream, each with its own position.

The stream's thread (`EventHub`) puts batches into the mailbox of each subscription and never waits for a consumer:
a subscription whose mailbox is full is taken off the stream, and added again behind its last batch once the
mailbox has drained. A lost stream is opened again with every subscription behind its last batch. So each
subscription sees every event once and in order, and none can hold up another.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from ._channel import SUBSCRIBE, ChannelSession, Transport, new_request_id
from ._errors import CallFailure, failure_error, reason_error
from ._fork import start_thread
from ._mailbox import Mailbox
from ._messages import to_event
from ._streams import REFUSALS, StreamReader
from .exceptions import AgentRuntimeError, ClientClosed, EventsTruncated
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


class Subscription:
    """What one subscriber wants and how far it has got. Its fields belong to the hub."""

    def __init__(
        self,
        hub: EventHub,
        types: Sequence[str],
        after_sequence: int | None,
        from_beginning: bool,
        on_item: Callable[[], None] | None = None,
    ) -> None:
        self.subscription_id = uuid.uuid4().hex
        self.types = tuple(types)
        self.position = after_sequence
        """Everything up to this sequence is in the mailbox; None until the runtime has said where it begins."""
        self.from_beginning = from_beginning
        self.wire_id: str | None = None
        """Its name on the open stream; None while it is not there."""
        self.begun: Future[int] = Future()
        self.begun.set_running_or_notify_cancel()
        self.mailbox = Mailbox(on_drained=lambda: hub.resume(self), on_item=on_item)
        self._hub = hub

    def close(self) -> None:
        """End the subscription; safe to call twice."""
        self._hub.remove(self.subscription_id)

    def skip_gap(self, gap: EventGap) -> bool:
        """Whether to go on behind events that are no longer kept."""
        raise NotImplementedError

    def end(self, error: AgentRuntimeError) -> None:
        """Tell whoever waits that nothing more follows."""
        if not self.begun.done():
            self.begun.set_exception(error)
        self.mailbox.end(error)

    def restart_in_child(self) -> None:
        """End after a fork: the subscription stays in the parent."""
        self.mailbox.restart_in_child()


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
                logger.exception("event callback failed", extra={"subscription_id": self.subscription_id})
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
                self._workers += 1
                start_thread(self._work, "agent-runtime-callback")

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


class EventHub(StreamReader):
    """The stream of all subscriptions of a client."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, "agent-runtime-events")
        self._reset()
        transport.streams.add(self)

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._running = False
        self._subscriptions: dict[str, Subscription] = {}
        self._on_stream: dict[str, Subscription] = {}
        self._outbox: queue.SimpleQueue[event_pb.SubscribeRequest | None] | None = None
        self._wire_ids = 0
        # Another, not the same once more: gevent's copies of the parent's workers end with the one they know.
        self.pool = CallbackPool()

    @property
    def size(self) -> int:
        """How many subscriptions there are."""
        return len(self._subscriptions)

    def add(self, subscription: Subscription) -> None:
        """Begin a subscription; `subscription.begun` says when it has."""
        with self._lock:
            self._subscriptions[subscription.subscription_id] = subscription
            if not self._running:
                self._running = True
                self.start_thread()
            else:
                self._send_add(subscription)

    def remove(self, subscription_id: str) -> bool:
        """End a subscription; False if there is none of this id."""
        with self._lock:
            subscription = self._subscriptions.pop(subscription_id, None)
            if subscription is None:
                return False
            self._send_remove(subscription)
            last = not self._subscriptions
        subscription.end(ClientClosed("the subscription was closed"))
        if last:
            self.interrupt()
        return True

    def resume(self, subscription: Subscription) -> None:
        """Put a subscription back on the stream whose mailbox was full."""
        with self._lock:
            if subscription.subscription_id in self._subscriptions and subscription.wire_id is None:
                self._send_add(subscription)

    def end(self, error: AgentRuntimeError) -> None:
        """End every subscription with `error`."""
        with self._lock:
            subscriptions = list(self._subscriptions.values())
            self._subscriptions.clear()
        for subscription in subscriptions:
            subscription.end(error)
        self.interrupt()

    def restart_in_child(self) -> None:
        for subscription in self._subscriptions.values():
            subscription.restart_in_child()
        self._wake = threading.Event()
        self._call = None
        self._was_open = self._lost = False
        self.reconnects = 0
        self._reset()

    def wanted(self) -> bool:
        with self._lock:
            self._running = bool(self._subscriptions)
            return self._running

    def open(self, session: ChannelSession) -> Any:
        with self._lock:
            self._outbox = queue.SimpleQueue()
            requests: Iterator[Any] = iter(self._outbox.get, None)
            for subscription in self._subscriptions.values():
                subscription.wire_id = None
                self._send_add(subscription)
        return session.stream(SUBSCRIBE, requests, self._transport.metadata(new_request_id()))

    def stopped_reading(self) -> None:
        with self._lock:
            self._on_stream.clear()
            outbox, self._outbox = self._outbox, None
        if outbox is not None:
            # Ends the thread in which gRPC waits for requests.
            outbox.put(None)

    def receive(self, response: event_pb.SubscribeResponse) -> bool:
        with self._lock:
            subscription = self._on_stream.get(response.subscription_id)
            if subscription is None:
                # Taken off the stream meanwhile; it comes back behind its position.
                return True
            kind = response.WhichOneof("response")
            if kind == "batch":
                self._receive_batch(subscription, response.batch)
            elif kind == "added":
                if subscription.position is None:
                    subscription.position = response.added.after_sequence
                if not subscription.begun.done():
                    subscription.begun.set_result(subscription.position)
            elif kind == "ended":
                return self._receive_end(subscription, response.ended)
        return True

    def failed(self, failure: CallFailure) -> None:
        if failure.code not in REFUSALS:
            return
        # A new subscriber is told. Those that had begun wait for better times: a token may be let in again.
        with self._lock:
            refused = [item for item in self._subscriptions.values() if not item.begun.done()]
            for subscription in refused:
                del self._subscriptions[subscription.subscription_id]
        for subscription in refused:
            error = failure_error(failure, address=self._transport.address)
            error.__cause__ = failure
            subscription.end(error)

    def refused(self, error: AgentRuntimeError) -> None:
        self.end(error)

    def _receive_batch(self, subscription: Subscription, batch: event_pb.EventBatch) -> None:
        if batch.events and not subscription.mailbox.put(batch.events, batch.ByteSize()):
            self._send_remove(subscription)
            return
        subscription.position = batch.sequence

    def _receive_end(self, subscription: Subscription, ended: event_pb.SubscriptionEnded) -> bool:
        """Follow the end of one subscription; False if the whole stream is to be opened again."""
        if ended.reason in _PASSING_REASONS:
            return False
        if subscription.wire_id is not None:
            del self._on_stream[subscription.wire_id]
            subscription.wire_id = None
        error = reason_error(ended.reason, ended.message, ended.metadata)
        if isinstance(error, EventsTruncated) and self._skip_gap(subscription, error):
            self._send_add(subscription)
            return True
        del self._subscriptions[subscription.subscription_id]
        if subscription.begun.done():
            logger.error(
                "subscription ended by the agent runtime",
                extra={"subscription_id": subscription.subscription_id, "err": str(error)},
            )
        subscription.end(error)
        return True

    def _skip_gap(self, subscription: Subscription, error: EventsTruncated) -> bool:
        first, last = (subscription.position or 0) + 1, error.oldest_sequence - 1
        if last < first:
            # The runtime gave no place to go on from; skipping would ask for the same again and again.
            return False
        if not subscription.skip_gap(EventGap(subscription.subscription_id, first, last)):
            return False
        subscription.position = last
        return True

    def _send_add(self, subscription: Subscription) -> None:
        if self._outbox is None:
            return
        self._wire_ids += 1
        subscription.wire_id = str(self._wire_ids)
        self._on_stream[subscription.wire_id] = subscription
        add = event_pb.AddSubscription(subscription_id=subscription.wire_id, types=subscription.types)
        if subscription.position is not None:
            add.after_sequence = subscription.position
        elif subscription.from_beginning:
            add.from_beginning = True
        else:
            add.from_now = True
        self._outbox.put(event_pb.SubscribeRequest(add=add))

    def _send_remove(self, subscription: Subscription) -> None:
        wire_id, subscription.wire_id = subscription.wire_id, None
        if wire_id is None or self._on_stream.pop(wire_id, None) is None or self._outbox is None:
            return
        remove = event_pb.RemoveSubscription(subscription_id=wire_id)
        self._outbox.put(event_pb.SubscribeRequest(remove=remove))
