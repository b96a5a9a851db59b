from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from django_agent_runtime import exceptions
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.types import Event, NewEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 20.0


class Inbox:
    """A callback that keeps what it gets."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def __call__(self, event: Event) -> None:
        self.events.put(event)

    def take(self, count: int) -> list[Any]:
        return [self.events.get(timeout=SECONDS).data for _ in range(count)]


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    inbox = Inbox()
    yield inbox
    assert inbox.events.empty(), "nothing may come that was not expected"


def test_the_guide(client: GoRuntimeIntegration, inbox: Inbox) -> None:
    subscription_id = client.subscribe_to_events("user_action", inbox)
    assert client.publish_event(
        event_type="user_action", data={"message": "done"}, source="django_app", metadata={"importance": "high"}
    )
    client.publish_event("something_else", 1)
    event = inbox.events.get(timeout=SECONDS)
    assert event.type == "user_action"
    assert event.data == {"message": "done"}
    assert event.source == "django_app"
    assert event.metadata == {"importance": "high"}
    assert event.event_id
    assert event.sequence > 0
    assert event.time.tzinfo is not None
    assert str(event) == f"user_action #{event.sequence} from django_app: {{'message': 'done'}}"
    assert client.unsubscribe_from_events(subscription_id) is True
    assert client.unsubscribe_from_events(subscription_id) is False
    client.publish_event("user_action", 2)


@pytest.mark.parametrize(
    ("types", "last", "expected"),
    [
        ("order.created", "order.created", [1, 6]),
        ("order.*", "order.", [1, 2, 3, 6]),
        ("*", "anything", [1, 2, 3, 4, 5, 6]),
        (["order.paid", "user.created"], "user.created", [2, 4, 6]),
    ],
)
def test_types_and_patterns(
    client: GoRuntimeIntegration, inbox: Inbox, types: str | list[str], last: str, expected: list[int]
) -> None:
    client.subscribe_to_events(types, inbox)
    names = ["order.created", "order.paid", "order.item.added", "user.created", "orders", last]
    client.publish_events([NewEvent(name, number) for number, name in enumerate(names, 1)])
    assert inbox.take(len(expected)) == expected


@pytest.mark.parametrize(
    "types", ["", [], [""], "*.a", "a*b", "a**", "**", ["ok", "*.a"], "\ud800", "t" * 201, ["ok", None]]
)
def test_a_type_nobody_can_subscribe_to_is_refused(client: GoRuntimeIntegration, types: Any) -> None:
    with pytest.raises(exceptions.InvalidValue, match="event_type"):
        client.subscribe_to_events(types, print)
    with pytest.raises(exceptions.InvalidValue, match="event_type"):
        client.stream_events(types)
    assert client.stats["subscriptions"] == 0


@pytest.mark.parametrize("event_type", ["", "*", "a*", "*.a", "a*b", "\ud800", "t" * 201, "é" * 101, 7, None])
def test_a_type_that_cannot_be_published_is_refused(client: GoRuntimeIntegration, event_type: Any) -> None:
    with pytest.raises(exceptions.InvalidValue, match="event_type"):
        client.publish_event(event_type, 1)


def test_two_places_to_begin_at_are_refused(client: GoRuntimeIntegration) -> None:
    with pytest.raises(exceptions.InvalidValue, match="from_sequence and from_beginning"):
        client.subscribe_to_events("t", print, 1, True)
    with pytest.raises(exceptions.InvalidValue, match="after_sequence and from_beginning"):
        client.stream_events("t", after_sequence=0, from_beginning=True)


def test_too_much_metadata_is_called_so(client: GoRuntimeIntegration) -> None:
    with pytest.raises(exceptions.TooLarge, match="metadata") as caught:
        client.publish_event("t", 1, metadata={"much": "x" * (1 << 20)})
    assert caught.value.metadata["field"] == "events[0].metadata"


async def _coroutine_callback(event: Event) -> None:
    """Nobody would await it."""


@pytest.mark.parametrize("callback", [None, "name", _coroutine_callback])
def test_a_callback_that_cannot_be_called_is_refused(client: GoRuntimeIntegration, callback: Any) -> None:
    with pytest.raises(ValueError, match="callback must be a plain function"):
        client.subscribe_to_events("callback", callback)


def test_a_subscription_can_begin_in_the_past(client: GoRuntimeIntegration, inbox: Inbox) -> None:
    published = client.publish_events([{"event_type": "t", "data": number} for number in range(5)])
    client.subscribe_to_events("t", inbox, from_beginning=True)
    assert inbox.take(5) == [0, 1, 2, 3, 4]
    client.subscribe_to_events("t", inbox, from_sequence=published[3].sequence)
    assert inbox.take(2) == [3, 4]


def test_a_long_batch_takes_several_calls_and_stays_in_order(client: GoRuntimeIntegration, inbox: Inbox) -> None:
    client.subscribe_to_events("t", inbox)
    published = client.publish_events(NewEvent("t", number) for number in range(2500))
    assert len({item.event_id for item in published}) == 2500
    assert [item.sequence for item in published] == sorted(item.sequence for item in published)
    assert inbox.take(2500) == list(range(2500))
    assert client.publish_events([]) == []


def test_an_event_that_cannot_be_published(client: GoRuntimeIntegration) -> None:
    with pytest.raises(ValueError, match="data is nan"):
        client.publish_event("t", float("nan"))
    with pytest.raises(exceptions.InvalidValue, match=r"source .* is not valid Unicode"):
        client.publish_event("t", 1, source="\ud800")


def test_a_callback_that_raises_stops_nobody(
    client: GoRuntimeIntegration, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: Event) -> None:
        if event.data == 0:
            raise SystemExit("even this")
        if event.data == 1:
            raise RuntimeError("boom")
        inbox(event)

    client.subscribe_to_events("t", fail)
    client.subscribe_to_events("t", inbox)
    with caplog.at_level(logging.ERROR, "django_agent_runtime"):
        client.publish_events([NewEvent("t", number) for number in range(3)])
        assert sorted(inbox.take(4)) == [0, 1, 2, 2]
    client.disconnect()
    assert client.stats["callbacks_failed"] == 2
    assert sum("callback failed" in record.message for record in caplog.records) == 2


def test_a_slow_callback_holds_up_nobody_and_loses_nothing(client: GoRuntimeIntegration, inbox: Inbox) -> None:
    go_on = threading.Event()
    slow = Inbox()

    def wait(event: Event) -> None:
        go_on.wait(SECONDS)
        slow(event)

    client.subscribe_to_events("t", wait)
    client.subscribe_to_events("t", inbox)
    # Well above what a mailbox holds, so that the slow one is taken off the stream and put back.
    text = "x" * 200_000
    for number in range(100):
        client.publish_event("t", [number, text])
    assert inbox.take(100) == [[number, text] for number in range(100)]
    go_on.set()
    assert slow.take(100) == [[number, text] for number in range(100)]
    assert slow.events.empty()


def test_one_subscription_never_runs_two_callbacks_at_once(client: GoRuntimeIntegration) -> None:
    alone = threading.Lock()
    overlaps: list[int] = []
    done = threading.Event()

    def check(event: Event) -> None:
        if not alone.acquire(blocking=False):
            overlaps.append(event.data)
            return
        try:
            if event.data == 499:
                done.set()
        finally:
            alone.release()

    client.subscribe_to_events("t", check)
    for number in range(500):
        client.publish_event("t", number)
    assert done.wait(SECONDS)
    assert overlaps == []


def test_a_callback_may_use_the_client(client: GoRuntimeIntegration, inbox: Inbox) -> None:
    ids: list[str] = []

    def callback(event: Event) -> None:
        client.set_state("seen", event.data)
        client.unsubscribe_from_events(ids[0])
        inbox(event)

    ids.append(client.subscribe_to_events("t", callback))
    client.publish_event("t", 1)
    assert inbox.take(1) == [1]
    assert client.get_state("seen") == 1
    assert client.stats["subscriptions"] == 0


def test_a_stream_of_events(client: GoRuntimeIntegration) -> None:
    published = client.publish_events([NewEvent("t", number) for number in range(3)])
    with client.stream_events("t", after_sequence=published[0].sequence) as events:
        assert [next(events).data for _ in range(2)] == [1, 2]
        client.publish_event("t", 3)
        assert next(events).data == 3
    assert list(events) == []
    with client.stream_events(from_beginning=True) as events:
        assert next(events).data == 0


def test_the_position_of_a_stream_follows_what_was_handed_out(client: GoRuntimeIntegration) -> None:
    [first] = client.publish_events([NewEvent("t", "first")])
    with client.stream_events("t") as events:
        assert events.position == first.sequence
        published = client.publish_events([NewEvent("t", number) for number in range(10)])
        for item in published:
            assert (events.position or 0) < item.sequence
            assert next(events).sequence == item.sequence
            assert events.position == item.sequence
        [unwanted] = client.publish_events([NewEvent("unwanted", None)])
        deadline = time.monotonic() + SECONDS
        while (events.position or 0) < unwanted.sequence:
            assert time.monotonic() < deadline, "events of other types do not move the position"
    with client.stream_events("t", after_sequence=first.sequence) as events:
        assert events.position == first.sequence, "what waits to be taken was not handed out"


async def test_the_position_of_a_stream_is_known_once_it_has_begun(client: GoRuntimeIntegration) -> None:
    [first] = await client.apublish_events([NewEvent("t", "first")])
    events = client.astream_events("t")
    assert events.position is None
    async with events:
        assert events.position == first.sequence


def test_a_stream_that_is_dropped_is_closed(client: GoRuntimeIntegration) -> None:
    events = client.stream_events("t")
    assert client.stats["subscriptions"] == 1
    del events
    deadline = time.monotonic() + SECONDS
    while client.stats["subscriptions"] and time.monotonic() < deadline:
        time.sleep(0.001)
    assert client.stats["subscriptions"] == 0


async def test_streams_for_asyncio_share_one_connection(client: GoRuntimeIntegration) -> None:
    streams = [client.astream_events("t") for _ in range(50)]
    for stream in streams:
        await stream.__aenter__()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(anext(streams[0]), 0.05)
    await client.apublish_events([NewEvent("t", number) for number in range(20)])
    for stream in streams:
        assert [(await anext(stream)).data for _ in range(20)] == list(range(20))
    session = client._transport._session
    assert session is not None
    assert session.calls == 1
    for stream in streams:
        await stream.aclose()
    assert client.stats["subscriptions"] == 0


async def test_what_is_there_is_taken_together_within_a_time(client: GoRuntimeIntegration) -> None:
    async with client.astream_events("t") as events:
        assert await events.next_within(0.01) == []
        given_up = asyncio.ensure_future(events.next_within(SECONDS))
        await asyncio.sleep(0.01)
        given_up.cancel()
        await client.apublish_events([NewEvent("t", number) for number in range(20)])
        taken: list[object] = []
        while len(taken) < 20:
            found = await events.next_within(SECONDS)
            assert found, "nothing more comes"
            taken += [event.data for event in found]
        assert taken == list(range(20))
    with pytest.raises(StopAsyncIteration):
        await events.next_within(SECONDS)


async def test_subscribing_from_asyncio(client: GoRuntimeIntegration, inbox: Inbox) -> None:
    subscription_id = await client.asubscribe_to_events("t", inbox)
    await client.apublish_event("t", 1)
    assert inbox.take(1) == [1]
    assert await client.aunsubscribe_from_events(subscription_id)


def test_subscribing_many_times_at_once(client: GoRuntimeIntegration) -> None:
    inboxes = [Inbox() for _ in range(100)]
    threads = [threading.Thread(target=client.subscribe_to_events, args=("t", inbox)) for inbox in inboxes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.publish_event("t", 1)
    for inbox in inboxes:
        assert inbox.take(1) == [1]
