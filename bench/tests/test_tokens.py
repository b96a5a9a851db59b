from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from django_agent_runtime.testing.process import free_ports

from bench.backlog import BacklogPoint
from bench.bars import _backlog_bars
from bench.child import ChildFailed
from bench.peer import PeerKind, PeerMissing, start_peer
from bench.reader import _Stream
from bench.readers import Seen, Stream, open_readers
from bench.tokens import LoadPoint, _count_lost


def frame(number: int, event: str, content: str) -> bytes:
    described = {"type": event, "content": content, "payload": {"content": content}}
    return f"id: {number}\nevent: {event}\ndata: {json.dumps(described)}\n\n".encode()


async def take_apart(pieces: list[bytes], arrivals: list[int]) -> dict[str, object]:
    stream = _Stream(b"")
    stream.pieces, stream.arrivals = pieces, arrivals
    return stream.take_apart()


async def test_lag_of_a_token_ends_when_the_last_byte_of_its_event_came() -> None:
    first, second = frame(7, "assistant.delta", "0:1000 1:2000 "), frame(8, "assistant.delta", "2:5000 ")
    head = b"HTTP/1.0 200 OK\r\n\r\nretry: 2000\n\n"
    pieces = [head + first[:20], first[20:] + second[:-1], second[-1:] + frame(9, "run.succeeded", "3:0")]
    seen = await take_apart(pieces, [3000, 9000, 70_000])
    assert seen == {"status": "HTTP/1.0 200", "numbers": [0, 1, 2], "lags": [8.0, 7.0, 4.0]}


async def test_chunks_around_events_do_not_matter() -> None:
    block = frame(7, "assistant.delta", "0:1000 ")
    chunks = [f"{len(block):x}\r\n".encode() + block + b"\r\n", b"0\r\n\r\n"]
    assert (await take_apart([b"HTTP/1.1 200 OK\r\n\r\n", *chunks], [1, 2000, 3000]))["lags"] == [1.0]


@pytest.mark.parametrize(("numbers", "lost"), [([0, 1, 2], 0), ([0, 2], 1), ([], 3), ([0, 2, 1], 1), ([0, 1, 1, 2], 1)])
def test_token_is_lost_that_did_not_come_once_and_in_its_place(numbers: list[int], lost: int) -> None:
    assert _count_lost(Seen("HTTP/1.1 200", numbers, []), 3) == lost


@pytest.mark.parametrize(
    ("lost", "lag_p99", "late_seconds", "held"),
    [(0, 1e6, 1.0, True), (1, 10.0, 0.0, False), (0, 1.1e6, 0.0, False), (0, 10.0, 1.1, False)],
)
def test_pace_is_held_if_nothing_is_lost_or_late(lost: int, lag_p99: float, late_seconds: float, held: bool) -> None:
    point = LoadPoint(300, 20, 60, 360_000, lost, 5.0, lag_p99, 2e6, late_seconds)
    assert point.held is held
    assert point.rate == 6000


def test_backlog_is_judged_by_its_second_half() -> None:
    points = [BacklogPoint(n, 1000, 1, drained, 1) for n, drained in ((1, 400), (2, 400), (3, 200), (4, 200))]
    submit, drain = _backlog_bars(points)
    assert (submit.median, submit.met) == (1.0, True)
    assert (drain.median, drain.met) == (2.0, False)


def test_peer_that_is_not_installed_is_missing(tmp_path: Path) -> None:
    with (
        pytest.raises(PeerMissing, match="is not installed"),
        start_peer(PeerKind("nobody", ()), tmp_path, "", install=False),
    ):
        pass


async def test_readers_hold_their_streams_until_these_end(tmp_path: Path) -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
        await go_on.wait()
        writer.write(frame(1, "assistant.delta", "0:0 "))
        writer.close()

    go_on = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    streams = [Stream("/a", ("X-Bench: 1",)), Stream("/b")]
    opening = open_readers(streams, port=port, folder=tmp_path, seconds=30, processes=2)
    readers = await asyncio.to_thread(opening.__enter__)
    assert min(asked).startswith(b"GET /a HTTP/1.0\r\n")
    assert b"X-Bench: 1\r\n" in min(asked)
    go_on.set()
    seen = await asyncio.to_thread(readers.collect)
    await asyncio.to_thread(opening.__exit__, None, None, None)
    server.close()
    assert [each.numbers for each in seen] == [[0], [0]]
    assert all(each.status == "HTTP/1.0 200" for each in seen)


def test_reader_that_cannot_connect_is_noticed(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with (
        pytest.raises(ChildFailed, match="could not connect"),
        open_readers([Stream("/")], port=port, folder=tmp_path, seconds=1),
    ):
        pass
