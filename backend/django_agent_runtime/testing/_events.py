"""The fake's event log: a list behind the real service definition."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc

from django_agent_runtime.grpc_client.agentruntime.v1 import event_service_pb2 as pb
from django_agent_runtime.grpc_client.agentruntime.v1 import event_service_pb2_grpc
from django_agent_runtime.testing._wire import read_namespace, refuse_field

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_BATCH = 1000


@dataclass
class FakeEventService(event_service_pb2_grpc.EventServiceServicer):
    """Publishes and subscribes in memory; keeps every event until it is stopped."""

    _log: list[tuple[str, pb.Event]] = field(default_factory=list)
    _answers: dict[tuple[str, str], pb.PublishEventsResponse] = field(default_factory=dict)
    _stopped: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _open_subscriptions: int = 0

    @property
    def open_subscriptions(self) -> int:
        """How many subscriptions clients hold at this moment."""
        with self._changed:
            return self._open_subscriptions

    def wait_for_subscriptions(self, count: int, *, timeout_seconds: float) -> bool:
        """Wait until clients hold exactly `count` subscriptions; False when it took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._open_subscriptions == count, timeout_seconds)

    def published(self, namespace: str) -> list[pb.Event]:
        """The events of a namespace, in order."""
        with self._changed:
            return [event for space, event in self._log if space == namespace]

    def stop(self) -> None:
        """End every subscription."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def PublishEvents(  # noqa: N802
        self, request: pb.PublishEventsRequest, context: grpc.ServicerContext
    ) -> pb.PublishEventsResponse:
        """See the service definition."""
        namespace = read_namespace(context)
        if not 1 <= len(request.events) <= MAX_BATCH:
            refuse_field(context, "events", f"must be 1 to {MAX_BATCH} events")
        for index, event in enumerate(request.events):
            if not event.type or "*" in event.type:
                refuse_field(context, f"events[{index}].type", "must not be empty, nor have a `*`")
        with self._changed:
            done = self._answers.get((namespace, request.request_id))
            if done:
                return done
            answer = pb.PublishEventsResponse()
            for given in request.events:
                event = pb.Event()
                event.CopyFrom(given)
                event.sequence = len(self._log) + 1
                event.event_id = f"evt-{event.sequence}"
                event.publish_time.GetCurrentTime()
                self._log.append((namespace, event))
                answer.events.add(event_id=event.event_id, sequence=event.sequence)
            if request.request_id:
                self._answers[namespace, request.request_id] = answer
            self._changed.notify_all()
            return answer

    def Subscribe(  # noqa: N802
        self, request_iterator: Iterator[pb.SubscribeRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.SubscribeResponse]:
        """See the service definition."""
        reader = _Reader(read_namespace(context))
        context.add_callback(self._wake)
        threading.Thread(target=self._read_requests, args=(reader, request_iterator), daemon=True).start()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped or not context.is_active() or self._has_news(reader))
                    if self._stopped or not context.is_active():
                        return
                    responses = self._collect(reader)
                yield from responses
        finally:
            with self._changed:
                self._open_subscriptions -= len(reader.subscriptions)
                reader.subscriptions.clear()
                self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _read_requests(self, reader: _Reader, requests: Iterator[pb.SubscribeRequest]) -> None:
        try:
            for request in requests:
                with self._changed:
                    reader.requests.append(request)
                    self._changed.notify_all()
        except grpc.RpcError:
            # The stream was ended from the other side; the writer notices by itself.
            return

    def _has_news(self, reader: _Reader) -> bool:
        behind = any(subscription.position < len(self._log) for subscription in reader.subscriptions.values())
        return behind or bool(reader.requests)

    def _collect(self, reader: _Reader) -> list[pb.SubscribeResponse]:
        """What there is to send now; called with the lock held."""
        responses: list[pb.SubscribeResponse] = []
        for request in reader.requests:
            if request.HasField("add"):
                position = self._start_of(request.add)
                reader.subscriptions[request.add.subscription_id] = _Subscription(list(request.add.types), position)
                self._open_subscriptions += 1
                added = pb.SubscriptionAdded(after_sequence=position)
                responses.append(pb.SubscribeResponse(subscription_id=request.add.subscription_id, added=added))
            elif reader.subscriptions.pop(request.remove.subscription_id, None):
                self._open_subscriptions -= 1
                ended = pb.SubscriptionEnded()
                responses.append(pb.SubscribeResponse(subscription_id=request.remove.subscription_id, ended=ended))
        if reader.requests:
            reader.requests.clear()
            self._changed.notify_all()
        for subscription_id, subscription in reader.subscriptions.items():
            if subscription.position == len(self._log):
                continue
            events = [
                event
                for namespace, event in self._log[subscription.position :]
                if namespace == reader.namespace and _is_wanted(subscription.types, event.type)
            ]
            subscription.position = len(self._log)
            batch = pb.EventBatch(events=events, sequence=subscription.position)
            responses.append(pb.SubscribeResponse(subscription_id=subscription_id, batch=batch))
        return responses

    def _start_of(self, add: pb.AddSubscription) -> int:
        if add.HasField("after_sequence"):
            return min(add.after_sequence, len(self._log))
        return 0 if add.from_beginning else len(self._log)


@dataclass
class _Subscription:
    types: Sequence[str]
    # Sequence numbers are places in the log, from one.
    position: int


@dataclass
class _Reader:
    namespace: str
    requests: list[pb.SubscribeRequest] = field(default_factory=list)
    subscriptions: dict[str, _Subscription] = field(default_factory=dict)


def _is_wanted(types: Sequence[str], event_type: str) -> bool:
    return any(event_type.startswith(wanted[:-1]) if wanted.endswith("*") else event_type == wanted for wanted in types)
