"""Events as Server-Sent Events, under ASGI and WSGI alike.

`EventFeed` takes events from the client's callback threads and gives them to one HTTP response;
`EventStreamResponse` writes them in the format of https://html.spec.whatwg.org/#server-sent-events.
A reader resumes by the `id:` of the last event it saw, the runtime's own sequence.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from django.http import StreamingHttpResponse
from rest_framework.renderers import BaseRenderer, JSONRenderer

from django_agent_runtime.types import Event, EventGap

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

MEDIA_TYPE = "text/event-stream"
# Proxies end connections that are silent for long; most wait for a minute.
HEARTBEAT_SECONDS = 15.0
# How long a browser waits before it connects again.
RETRY_MILLISECONDS = 2000
# A stream ends after an hour, and the reader resumes: its sign-in is then checked again.
MAX_STREAM_SECONDS = 3600.0
# How far a reader may be behind before it is cut off to resume by sequence.
MAX_WAITING_EVENTS = 1000


class EventStreamRenderer(BaseRenderer):
    """Lets DRF accept `Accept: text/event-stream`; what it renders itself is an error, as JSON."""

    media_type = MEDIA_TYPE
    format = "event-stream"
    charset = None

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """The body of an error."""
        return JSONRenderer().render(data)


class EventFeed:
    """Events on their way from callbacks, in any thread, to the one reader of a stream.

    `push` never waits. A reader that is `MAX_WAITING_EVENTS` behind is cut off: it gets what
    is there, then the stream ends, and it resumes with the last sequence it saw.
    """

    def __init__(self) -> None:
        """Nothing is opened here; pass `push` as the callback of a subscription."""
        self._events: deque[Event | EventGap] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._wake_async: Callable[[], object] | None = None

    def push(self, event: Event | EventGap) -> None:
        """Add an event, or the news that some can no longer be had; after the end it is dropped."""
        with self._changed:
            if self._ended:
                return
            if len(self._events) >= MAX_WAITING_EVENTS:
                self._ended = True
            else:
                self._events.append(event)
            self._wake()

    def end(self, _reason: object = None) -> None:
        """Let the reader have what is there, and then the end."""
        with self._changed:
            self._ended = True
            self._wake()

    def read(self, timeout_seconds: float) -> list[Event | EventGap] | None:
        """Everything that is there, waiting at most so long for the first; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._ended, timeout_seconds)
            return self._take()

    async def aread(self, timeout_seconds: float) -> list[Event | EventGap] | None:
        """As `read`, without holding a thread."""
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        with self._changed:
            if self._events or self._ended:
                return self._take()
            self._wake_async = lambda: loop.call_soon_threadsafe(woken.set)
        try:
            await asyncio.wait_for(woken.wait(), timeout_seconds)
        except asyncio.TimeoutError:
            pass
        finally:
            with self._changed:
                self._wake_async = None
        with self._changed:
            return self._take()

    def _wake(self) -> None:
        self._changed.notify_all()
        if self._wake_async is not None:
            self._wake_async()

    def _take(self) -> list[Event | EventGap] | None:
        if not self._events and self._ended:
            return None
        events = list(self._events)
        self._events.clear()
        return events


class EventStreamResponse(StreamingHttpResponse):
    """The HTTP answer that writes a feed until the reader goes away, the feed ends, or an hour passed.

    `close` is called once, when the answer is over in whatever way, even if it was never begun.
    """

    def __init__(
        self,
        feed: EventFeed,
        close: Callable[[], object],
        *,
        is_async: bool,
        position: int | None,
        named: bool = True,
    ) -> None:
        """Prepare the answer.

        Args:
            feed: Where the events come from.
            close: Ends what fills the feed.
            is_async: Whether the server is ASGI: a sync iterator would be read to its end before
                the first byte is sent there, and an async one cannot be read under WSGI.
            position: The sequence after which the feed begins, if it is known: a reader that loses
                the connection before its first event then resumes from there.
            named: Whether to write `event:` with the event's type. EventSource gives named events
                only to listeners for that very name; without, each goes to `onmessage`.
        """
        self._feed = feed
        self._position = position
        self._named = named
        self._closer = _Closer(close)
        super().__init__(self._write_async() if is_async else self._write(), content_type=MEDIA_TYPE)
        self["Cache-Control"] = "no-cache, no-transform"
        self["X-Accel-Buffering"] = "no"

    def close(self) -> None:
        """End the feed's source."""
        self._closer.close()
        super().close()

    def _write(self) -> Iterator[bytes]:
        try:
            yield self._write_opening()
            deadline = time.monotonic() + MAX_STREAM_SECONDS
            while time.monotonic() < deadline:
                events = self._feed.read(HEARTBEAT_SECONDS)
                if events is None:
                    return
                yield self._write_events(events)
        finally:
            self._closer.close()

    async def _write_async(self) -> AsyncIterator[bytes]:
        try:
            yield self._write_opening()
            deadline = time.monotonic() + MAX_STREAM_SECONDS
            while time.monotonic() < deadline:
                events = await self._feed.aread(HEARTBEAT_SECONDS)
                if events is None:
                    return
                yield self._write_events(events)
        finally:
            self._closer.close()

    def _write_opening(self) -> bytes:
        position = "" if self._position is None else f"id: {self._position}\n"
        return f"{position}retry: {RETRY_MILLISECONDS}\n\n".encode()

    def _write_events(self, events: list[Event | EventGap]) -> bytes:
        if not events:
            return b": heartbeat\n\n"
        return b"".join(
            format_gap(event) if isinstance(event, EventGap) else format_event(event, named=self._named)
            for event in events
        )


class _Closer:
    """Calls a function once, at the latest when it is garbage.

    A reader that leaves while the view is still at work makes Django drop the response without closing it.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self._function: Callable[[], object] | None = function
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            function, self._function = self._function, None
        if function is not None:
            function()

    def __del__(self) -> None:
        self.close()


def describe_event(event: Event) -> dict[str, Any]:
    """An event as a JSON object, as the stream's `data:` has it."""
    return {
        "event_id": event.event_id,
        "sequence": event.sequence,
        "type": event.type,
        "data": event.data,
        "source": event.source,
        "metadata": event.metadata,
        "time": event.time.isoformat(),
    }


def format_gap(gap: EventGap) -> bytes:
    """Sequences that can no longer be had, as a block of the stream; the events behind them follow."""
    return f'id: {gap.last}\nevent: gap\ndata: {{"first": {gap.first}, "last": {gap.last}}}\n\n'.encode()


def format_event(event: Event, *, named: bool = True) -> bytes:
    """An event as one block of the stream."""
    # A line end in a type would begin another field of the block; `data:` has the type as it is.
    name = f"event: {' '.join(event.type.splitlines())}\n" if named else ""
    return f"id: {event.sequence}\n{name}data: {json.dumps(describe_event(event))}\n\n".encode()
