"""Events as Server-Sent Events, without a server around them."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connections

from django_agent_runtime.api import event_stream
from django_agent_runtime.api.event_stream import BlocksResponse, EventStreamResponse, write_blocks
from django_agent_runtime.exceptions import EventsTruncated
from django_agent_runtime.go_integration import get_go_runtime_integration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from django_agent_runtime.testing import FakeGoRuntime

OPENING = b"retry: 2000\nid: 0\n\n"
HEARTBEAT = b"id: 0\n: heartbeat\n\n"


async def take(blocks: AsyncIterator[bytes], count: int) -> list[bytes]:
    return [await blocks.__anext__() for _ in range(count)]


def read_field(block: bytes, name: str) -> str:
    [line] = [line for line in block.decode().splitlines() if line.startswith(f"{name}: ")]
    return line.removeprefix(f"{name}: ")


def read_data(block: bytes) -> Any:
    return json.loads(read_field(block, "data"))


async def test_silence_is_filled_with_heartbeats_and_loses_no_event(
    fake_go_runtime: FakeGoRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.01)
    runtime = get_go_runtime_integration()
    blocks = write_blocks(runtime.astream_events("a"), named=True)
    assert await take(blocks, 3) == [OPENING, HEARTBEAT, HEARTBEAT]
    for number in range(20):
        await runtime.apublish_event("a", number)
    events: list[bytes] = []
    while len(events) < 20:
        [block] = await take(blocks, 1)
        events += [block] if b"data: " in block else []
    assert [read_data(block)["data"] for block in events] == list(range(20))
    await blocks.aclose()  # type: ignore[attr-defined]
    assert await asyncio.to_thread(fake_go_runtime.wait_for_subscriptions, 0)


@pytest.mark.usefixtures("fake_go_runtime")
async def test_reader_that_drops_before_its_first_event_resumes_where_it_began() -> None:
    runtime = get_go_runtime_integration()
    await runtime.apublish_event("a", "before")
    blocks = write_blocks(runtime.astream_events("a"), named=True)
    [opening] = await take(blocks, 1)
    await blocks.aclose()  # type: ignore[attr-defined]
    await runtime.apublish_event("a", "meanwhile")
    last_event_id = read_field(opening, "id")
    blocks = write_blocks(runtime.astream_events("a", after_sequence=int(last_event_id)), named=True)
    opening, event = await take(blocks, 2)
    await blocks.aclose()  # type: ignore[attr-defined]
    assert read_field(opening, "id") == last_event_id
    assert read_data(event)["data"] == "meanwhile"


@pytest.mark.usefixtures("fake_go_runtime")
async def test_heartbeats_move_the_place_to_resume_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.01)
    runtime = get_go_runtime_integration()
    blocks = write_blocks(runtime.astream_events("a"), named=True)
    assert await take(blocks, 1) == [OPENING]
    await runtime.apublish_event("not wanted", 1)
    async for block in blocks:
        if read_field(block, "id") == "1":
            break
    await blocks.aclose()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("fake_go_runtime")
async def test_stream_ends_after_its_longest_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "MAX_STREAM_SECONDS", 0.0)
    blocks = [block async for block in write_blocks(get_go_runtime_integration().astream_events("a"), named=True)]
    assert blocks == [OPENING]


class TruncatedStream:
    """A stream whose reader fell behind what is kept."""

    position = 0

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        return

    async def next_within(self, seconds: float) -> Any:
        raise EventsTruncated("gone", reason="EVENTS_TRUNCATED", metadata={"oldest_sequence": "7"})


async def test_failure_in_the_midst_is_said_in_the_stream() -> None:
    stream: Any = TruncatedStream()
    opening, error = [block async for block in write_blocks(stream, named=True)]
    assert opening == OPENING
    # A reader that connects again goes on behind the gap it was told of.
    assert error.startswith(b"event: error\nid: 6\n")
    problem = read_data(error)
    assert (problem["code"], problem["status"], problem["oldest_sequence"]) == ("EVENTS_TRUNCATED", 410, "7")


@pytest.mark.parametrize("is_async", [True, False])
async def test_answer_that_is_dropped_before_it_begins_frees_its_subscription(
    fake_go_runtime: FakeGoRuntime, *, is_async: bool
) -> None:
    events = get_go_runtime_integration().astream_events("a")
    await events.__aenter__()
    assert await asyncio.to_thread(fake_go_runtime.wait_for_subscriptions, 1)
    response = EventStreamResponse(events, is_async=is_async)
    del events, response
    gc.collect()
    assert await asyncio.to_thread(fake_go_runtime.wait_for_subscriptions, 0)


# Closing an answer ends the request, at which Django looks after its database connections.
@pytest.mark.django_db
def test_sync_answer_is_closed_by_its_server(fake_go_runtime: FakeGoRuntime) -> None:
    runtime = get_go_runtime_integration()
    response = EventStreamResponse(runtime.astream_events("a"), is_async=False)
    chunks = iter(response)
    assert next(chunks) == OPENING
    runtime.publish_event("a", {"n": 1})
    assert read_data(next(chunks))["data"] == {"n": 1}
    response.close()
    assert fake_go_runtime.wait_for_subscriptions(0)


class Connection:
    """A database connection that was opened for a request."""

    in_atomic_block = False
    closed_by: threading.Thread | None = None

    def close(self) -> None:
        self.closed_by = threading.current_thread()


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Connection:
    connection = Connection()
    monkeypatch.setattr(connections, "all", lambda **_: [connection])
    return connection


async def write_three() -> AsyncIterator[bytes]:
    for number in range(3):
        yield b"%d" % number


async def test_answer_of_an_asgi_server_ends_the_thread_of_its_request(connection: Connection) -> None:
    async with ThreadSensitiveContext():
        thread = await sync_to_async(threading.current_thread)()
        blocks = BlocksResponse(write_three(), is_async=True).__aiter__()
        assert await take(blocks, 1) == [b"0"]
        await asyncio.to_thread(thread.join)
        assert connection.closed_by is thread
        # What is done behind the stream has a thread all the same.
        assert await sync_to_async(threading.current_thread)() is not thread
        assert await take(blocks, 2) == [b"1", b"2"]


async def test_thread_that_an_asgi_server_brought_stays(connection: Connection) -> None:
    with ThreadPoolExecutor(max_workers=1) as executor:
        try:
            context = ThreadSensitiveContext(executor=executor)
        except TypeError:
            pytest.skip("this asgiref brings its own threads only")
        async with context:
            assert await take(BlocksResponse(write_three(), is_async=True).__aiter__(), 3) == [b"0", b"1", b"2"]
            assert await sync_to_async(threading.current_thread)() is connection.closed_by


def test_answer_of_a_wsgi_server_holds_no_connection(connection: Connection) -> None:
    assert next(iter(BlocksResponse(write_three(), is_async=False))) == b"0"
    assert connection.closed_by is threading.current_thread()
