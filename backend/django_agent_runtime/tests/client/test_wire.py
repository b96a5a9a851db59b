"""What travels beside a call, when a call is made again, and how a subscription follows what the runtime says."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from django_agent_runtime import exceptions
from django_agent_runtime._errors import CallFailure
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.grpc_client.agentruntime.v1 import event_service_pb2 as event_pb
from django_agent_runtime.grpc_client.agentruntime.v1 import event_service_pb2_grpc, state_service_pb2_grpc
from django_agent_runtime.grpc_client.agentruntime.v1 import state_service_pb2 as state_pb
from django_agent_runtime.types import EventGap, NewEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 20.0


class ScriptedServer(state_service_pb2_grpc.StateServiceServicer, event_service_pb2_grpc.EventServiceServicer):
    """A real gRPC server that answers as a test says, for what neither the runtime nor its fake does on request.

    It fails with each of `failures` in turn, then answers; it keeps what it was sent.
    Events are published when `hold` is set, where there is one, each with its data plus 1 as its sequence.
    On a stream of events it sends what the test puts into `responses`; None ends the stream.
    """

    def __init__(self) -> None:
        self.failures: deque[grpc.StatusCode] = deque()
        self.calls: list[tuple[Any, dict[str, Any]]] = []
        self.hold: threading.Event | None = None
        self.requests: queue.SimpleQueue[event_pb.SubscribeRequest] = queue.SimpleQueue()
        self.responses: queue.SimpleQueue[event_pb.SubscribeResponse | None] = queue.SimpleQueue()
        self._server = grpc.server(ThreadPoolExecutor(16))
        state_service_pb2_grpc.add_StateServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        event_service_pb2_grpc.add_EventServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self) -> None:
        """End every call and close the port."""
        self.responses.put(None)
        self._server.stop(None).wait()

    def SetState(self, request: state_pb.SetStateRequest, context: grpc.ServicerContext) -> state_pb.SetStateResponse:  # noqa: N802
        self.calls.append((request, dict(context.invocation_metadata())))
        if self.failures:
            context.abort(self.failures.popleft(), "as the test says")
        return state_pb.SetStateResponse(revision=1)

    def PublishEvents(  # noqa: N802
        self, request: event_pb.PublishEventsRequest, context: grpc.ServicerContext
    ) -> event_pb.PublishEventsResponse:
        self.calls.append((request, dict(context.invocation_metadata())))
        if self.hold is not None:
            assert self.hold.wait(SECONDS)
        if self.failures and (code := self.failures.popleft()) is not grpc.StatusCode.OK:
            context.abort(code, "as the test says")
        return event_pb.PublishEventsResponse(
            events=[event_pb.PublishedEvent(sequence=int(event.data) + 1) for event in request.events]
        )

    def Subscribe(  # noqa: N802
        self, request_iterator: Iterator[event_pb.SubscribeRequest], context: grpc.ServicerContext
    ) -> Iterator[event_pb.SubscribeResponse]:
        self.requests.put(next(request_iterator))
        ThreadPoolExecutor(1).submit(self._receive, request_iterator)
        while (response := self.responses.get()) is not None:
            yield response
        if self.failures:
            context.abort(self.failures.popleft(), "as the test says")

    def _receive(self, request_iterator: Iterator[event_pb.SubscribeRequest]) -> None:
        try:
            for request in request_iterator:
                self.requests.put(request)
        except grpc.RpcError:
            # The client is gone.
            return


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    server.stop()


@pytest.fixture
def scripted(server: ScriptedServer) -> Iterator[GoRuntimeIntegration]:
    client = GoRuntimeIntegration("127.0.0.1", server.port, timeout=SECONDS, token="s3cret", namespace="tenant-1")
    yield client
    client.disconnect()


def test_namespace_token_and_request_id_travel_with_every_call(
    server: ScriptedServer, scripted: GoRuntimeIntegration
) -> None:
    scripted.set_state("k", 1)
    ((request, metadata),) = server.calls
    assert metadata["agent-runtime-namespace"] == "tenant-1"
    assert metadata["authorization"] == "Bearer s3cret"
    assert metadata["x-request-id"] == request.request_id
    assert len(request.request_id) == 32
    assert "traceparent" not in metadata


def test_an_active_span_travels_with_the_call(server: ScriptedServer, scripted: GoRuntimeIntegration) -> None:
    with trace.get_tracer(__name__, tracer_provider=TracerProvider()).start_as_current_span("call") as span:
        scripted.set_state("k", 1)
    scripted.set_state("k", 2)
    context = span.get_span_context()
    (_, within), (_, outside) = server.calls
    assert within["traceparent"] == f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert "traceparent" not in outside


def test_an_unavailable_runtime_is_asked_again_under_the_same_request_id(
    server: ScriptedServer, scripted: GoRuntimeIntegration
) -> None:
    server.failures.extend([grpc.StatusCode.UNAVAILABLE] * 3)
    assert scripted.set_state("k", 1) is True
    assert len(server.calls) == 4
    assert len({request.request_id for request, _ in server.calls}) == 1


async def test_the_twin_asks_again_too(server: ScriptedServer, scripted: GoRuntimeIntegration) -> None:
    server.failures.extend([grpc.StatusCode.UNAVAILABLE] * 2)
    assert await scripted.aset_state("k", 1) is True
    assert len({request.request_id for request, _ in server.calls}) == 1
    assert len(server.calls) == 3


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code not in {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}]
)
def test_nothing_else_is_asked_again(
    server: ScriptedServer, scripted: GoRuntimeIntegration, code: grpc.StatusCode
) -> None:
    server.failures.append(code)
    with pytest.raises(exceptions.AgentRuntimeError) as caught:
        scripted.set_state("k", 1)
    ((request, _),) = server.calls
    assert caught.value.request_id == request.request_id


async def test_only_a_runtime_that_was_not_reached_is_looked_at_in_a_thread(
    server: ScriptedServer, scripted: GoRuntimeIntegration, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[object] = []

    async def look(function: Callable[[CallFailure], CallFailure], failure: CallFailure) -> CallFailure:
        looks.append(failure.code)
        return function(failure)

    monkeypatch.setattr(asyncio, "to_thread", look)
    server.failures.append(grpc.StatusCode.NOT_FOUND)
    with pytest.raises(exceptions.NotFound):
        await scripted.aset_state("k", 1)
    assert looks == []
    server.stop()
    assert await scripted.ais_connected() is False
    assert looks == [grpc.StatusCode.UNAVAILABLE]


def release_at(hold: threading.Event, number: int, count: int) -> Iterator[NewEvent]:
    """Events, of which one lets the server answer."""
    for data in range(count):
        if data == number:
            hold.set()
        yield NewEvent("t", data)


def test_events_are_taken_while_the_call_before_them_is_under_way(
    server: ScriptedServer, scripted: GoRuntimeIntegration
) -> None:
    server.hold = threading.Event()
    published = scripted.publish_events(release_at(server.hold, 1500, 2500))
    assert [event.sequence for event in published] == list(range(1, 2501))
    assert [len(request.events) for request, _ in server.calls] == [1000, 1000, 500]


async def test_the_twin_takes_events_while_the_call_before_them_is_under_way(
    server: ScriptedServer, scripted: GoRuntimeIntegration
) -> None:
    server.hold = threading.Event()
    published = await scripted.apublish_events(release_at(server.hold, 1500, 2500))
    assert [event.sequence for event in published] == list(range(1, 2501))


def test_no_call_is_sent_before_the_one_before_it_has_been_answered(
    server: ScriptedServer, scripted: GoRuntimeIntegration
) -> None:
    server.failures.extend([grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
    with pytest.raises(exceptions.Overloaded) as caught:
        scripted.publish_events(NewEvent("t", data) for data in range(3500))
    assert [event.sequence for event in caught.value.published] == list(range(1, 1001))
    # The one that was asked again was joined under its name, and nothing was sent behind the one that failed.
    assert [int(request.events[0].data) for request, _ in server.calls] == [0, 1000, 1000]
    assert len({request.request_id for request, _ in server.calls}) == 2


def test_what_was_published_before_an_event_that_cannot_be_is_told(
    server: ScriptedServer, scripted: GoRuntimeIntegration
) -> None:
    values = [*range(1700), float("nan")]
    with pytest.raises(exceptions.InvalidValue) as caught:
        scripted.publish_events(NewEvent("t", value) for value in values)
    assert len(caught.value.published) == len(server.calls[0][0].events) == 1000
    assert len(server.calls) == 1


def test_the_trace_goes_with_every_call_of_a_long_batch(server: ScriptedServer, scripted: GoRuntimeIntegration) -> None:
    with trace.get_tracer(__name__, tracer_provider=TracerProvider()).start_as_current_span("publish") as span:
        scripted.publish_events(NewEvent("t", data) for data in range(1500))
    trace_id = f"{span.get_span_context().trace_id:032x}"
    assert [metadata["traceparent"].split("-")[1] for _, metadata in server.calls] == [trace_id] * 2


def added(wire_id: str, after_sequence: int) -> event_pb.SubscribeResponse:
    return event_pb.SubscribeResponse(
        subscription_id=wire_id, added=event_pb.SubscriptionAdded(after_sequence=after_sequence)
    )


def batch(wire_id: str, *sequences: int) -> event_pb.SubscribeResponse:
    events = [event_pb.Event(type="t", data=str(sequence).encode(), sequence=sequence) for sequence in sequences]
    return event_pb.SubscribeResponse(
        subscription_id=wire_id, batch=event_pb.EventBatch(events=events, sequence=sequences[-1])
    )


def ended(wire_id: str, reason: str, **metadata: str) -> event_pb.SubscribeResponse:
    end = event_pb.SubscriptionEnded(reason=reason, message="as the test says", metadata=metadata)
    return event_pb.SubscribeResponse(subscription_id=wire_id, ended=end)


def test_a_lost_stream_is_resumed_behind_the_last_batch(server: ScriptedServer, scripted: GoRuntimeIntegration) -> None:
    seen: queue.SimpleQueue[object] = queue.SimpleQueue()
    server.responses.put(added("1", 10))
    server.responses.put(batch("1", 12, 13))
    server.responses.put(None)
    scripted.subscribe_to_events(["t", "u"], lambda event: seen.put(event.data))
    first = server.requests.get(timeout=SECONDS).add
    assert (first.subscription_id, list(first.types), first.from_now) == ("1", ["t", "u"], True)
    again = server.requests.get(timeout=SECONDS).add
    assert (again.subscription_id, again.after_sequence) == ("2", 13)
    # What is left of the first name on the wire is nobody's.
    server.responses.put(batch("1", 12, 13))
    server.responses.put(batch("2", 14))
    assert [seen.get(timeout=SECONDS) for _ in range(3)] == [12, 13, 14]
    assert scripted.stats["reconnects"] == 1


def test_only_a_stream_that_is_open_again_counts_as_a_reconnect(
    server: ScriptedServer, scripted: GoRuntimeIntegration
) -> None:
    seen: queue.SimpleQueue[object] = queue.SimpleQueue()
    server.failures.extend([grpc.StatusCode.UNAVAILABLE] * 3)
    # It fails once before it has ever been open, and then twice in a row.
    for response in (None, added("2", 10), None, None, added("4", 10), batch("4", 11)):
        server.responses.put(response)
    scripted.subscribe_to_events("t", lambda event: seen.put(event.data))
    assert seen.get(timeout=SECONDS) == 11
    assert scripted.stats["reconnects"] == 1


def test_a_subscription_from_now_is_resumed_where_it_began(
    server: ScriptedServer, scripted: GoRuntimeIntegration
) -> None:
    server.responses.put(added("1", 10))
    server.responses.put(None)
    scripted.subscribe_to_events("t", print)
    assert server.requests.get(timeout=SECONDS).add.from_now
    assert server.requests.get(timeout=SECONDS).add.after_sequence == 10


def test_a_gap_is_told_and_skipped(
    server: ScriptedServer, scripted: GoRuntimeIntegration, caplog: pytest.LogCaptureFixture
) -> None:
    seen: queue.SimpleQueue[object] = queue.SimpleQueue()
    server.responses.put(added("1", 10))
    server.responses.put(batch("1", 11))
    server.responses.put(ended("1", "EVENTS_TRUNCATED", oldest_sequence="50"))
    with caplog.at_level(logging.WARNING, "django_agent_runtime"):
        subscription_id = scripted.subscribe_to_events("t", lambda event: seen.put(event.data), on_gap=seen.put)
        assert server.requests.get(timeout=SECONDS).add.from_now
        assert server.requests.get(timeout=SECONDS).add.after_sequence == 49
        server.responses.put(batch("2", 50))
        assert [seen.get(timeout=SECONDS) for _ in range(3)] == [11, EventGap(subscription_id, 12, 49), 50]
    assert any("events lost" in record.message for record in caplog.records)


def test_an_iterator_gets_the_gap_as_an_error(server: ScriptedServer, scripted: GoRuntimeIntegration) -> None:
    server.responses.put(added("1", 10))
    server.responses.put(batch("1", 11))
    server.responses.put(ended("1", "EVENTS_TRUNCATED", oldest_sequence="50"))
    with scripted.stream_events("t") as events:
        assert next(events).data == 11
        with pytest.raises(exceptions.EventsTruncated) as caught:
            next(events)
    assert caught.value.oldest_sequence == 50


def test_a_refused_subscription_is_raised_and_forgotten(server: ScriptedServer, scripted: GoRuntimeIntegration) -> None:
    server.responses.put(ended("1", "INVALID_ARGUMENT", field="types"))
    with pytest.raises(exceptions.InvalidRequest, match="as the test says"):
        scripted.subscribe_to_events("t", print)
    assert scripted.stats["subscriptions"] == 0


def test_a_refused_stream_is_raised(server: ScriptedServer, scripted: GoRuntimeIntegration) -> None:
    server.failures.append(grpc.StatusCode.PERMISSION_DENIED)
    server.responses.put(None)
    with pytest.raises(PermissionError):
        scripted.subscribe_to_events("t", print)
    assert scripted.stats["subscriptions"] == 0


def test_a_reader_that_was_cut_off_resumes(server: ScriptedServer, scripted: GoRuntimeIntegration) -> None:
    server.failures.append(grpc.StatusCode.RESOURCE_EXHAUSTED)
    server.responses.put(added("1", 10))
    server.responses.put(None)
    scripted.subscribe_to_events("t", print)
    assert server.requests.get(timeout=SECONDS).add.from_now
    assert server.requests.get(timeout=SECONDS).add.after_sequence == 10
