"""Reads many event streams at once, in a process of its own: `python -m bench.reader` (see `bench.readers`).

While streams go on, nothing is done with what comes but to note when: a reader that parsed would be late for the next
one. What came is taken apart when all streams have ended.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import resource
import sys
import time
from bisect import bisect_left
from itertools import accumulate
from pathlib import Path
from typing import Any

_DATA = re.compile(rb"^data: (\{.*\})\r?$", re.MULTILINE)
_DELTA = "assistant.delta"
_RECONNECT_SECONDS = 0.2
_CONNECT_SECONDS = 5.0
_CONNECTING = 200


class _Stream(asyncio.Protocol):
    """One connection: what came on it, and when."""

    def __init__(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.pieces: list[bytes] = []
        self.arrivals: list[int] = []
        self._request = request

    def connection_made(self, transport: Any) -> None:
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.arrivals.append(time.monotonic_ns())
        self.pieces.append(data)
        if not self.opened.done():
            self.opened.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.opened, self.ended):
            if not future.done():
                future.set_result(None)

    def take_apart(self) -> dict[str, Any]:
        """The numbers of the tokens in the order in which they came, and the lag of each in microseconds."""
        whole = b"".join(self.pieces)
        ends = list(accumulate(map(len, self.pieces)))
        numbers, lags = [], []
        for match in _DATA.finditer(whole):
            event = json.loads(match[1])
            if event.get("type") != _DELTA:
                continue
            arrival = self.arrivals[bisect_left(ends, match.end())]
            for token in event["payload"]["content"].split():
                number, _, stamp = token.partition(":")
                numbers.append(int(number))
                lags.append((arrival - int(stamp)) / 1000)
        return {"status": whole[:12].decode(errors="replace"), "numbers": numbers, "lags": lags}


async def _open(host: str, port: int, request: bytes, room: asyncio.Semaphore) -> _Stream:
    async with room:
        until = time.monotonic() + _CONNECT_SECONDS
        while True:
            try:
                _, stream = await asyncio.get_running_loop().create_connection(lambda: _Stream(request), host, port)
                break
            except ConnectionError:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(_RECONNECT_SECONDS)
        await stream.opened
        return stream


async def _read(plan: dict[str, Any]) -> list[_Stream]:
    room = asyncio.Semaphore(_CONNECTING)
    streams = await asyncio.gather(
        *(_open(plan["host"], plan["port"], request.encode(), room) for request in plan["requests"])
    )
    sys.stdout.write("connected\n")
    sys.stdout.flush()
    await asyncio.wait([stream.ended for stream in streams], timeout=plan["seconds"])
    return streams


def main() -> None:
    """Read what the plan on stdin asks for, say `connected` when all streams are open, and write down what came."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    plan = json.load(sys.stdin)
    # A pause of the collector over thousands of buffers would be measured as the runtime's.
    gc.disable()
    streams = asyncio.run(_read(plan))
    Path(plan["out"]).write_text(json.dumps([stream.take_apart() for stream in streams]))


if __name__ == "__main__":
    main()
