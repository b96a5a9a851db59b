"""Events as Server-Sent Events, under ASGI and WSGI alike.

The format is that of https://html.spec.whatwg.org/#server-sent-events. A reader resumes by the last
`id:` it saw, the runtime's own sequence, which browsers send as `Last-Event-ID`. The first block has
one already: a reader that drops before its first event misses nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from asgiref.sync import SyncToAsync, sync_to_async
from django.db import connections
from django.http import StreamingHttpResponse
from rest_framework.exceptions import NotAcceptable
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer, JSONRenderer

from django_agent_runtime.api.problems import describe_error, find_status
from django_agent_runtime.exceptions import AgentRuntimeError, EventsTruncated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
    from contextvars import ContextVar

    from rest_framework.request import Request

    from django_agent_runtime._streams import AsyncStream
    from django_agent_runtime.types import Event

MEDIA_TYPE = "text/event-stream"
# Proxies end connections that are silent for long; most wait for a minute.
HEARTBEAT_SECONDS = 15.0
# How long a browser waits before it connects again.
RETRY_MILLISECONDS = 2000
# A stream ends after an hour, and the reader resumes: its sign-in is then checked again.
MAX_STREAM_SECONDS = 3600.0
# Of the name of an event; no other character ends a line of a stream. The runtime does the same with its own.
LINE_ENDS = str.maketrans("\r\n", "  ")


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


class WeighedNegotiation(DefaultContentNegotiation):
    """Gives what the `Accept` header weighs most; DRF's own takes the view's first renderer that is named at all."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """The renderer and its media type.

        Raises:
            NotAcceptable: The caller accepts none of them.
        """
        renderers = tuple(renderers)
        chosen = max(renderers, key=lambda renderer: _weigh(request, str(renderer.media_type)))
        if not _weigh(request, str(chosen.media_type)):
            raise NotAcceptable(available_renderers=renderers)
        return chosen, str(chosen.media_type)


def _weigh(request: Request, media_type: str) -> float:
    """How much a caller wants a media type: as the most specific range says that it is in, whatever its parameters."""
    kind, _, subkind = media_type.partition("/")
    ranges = [
        accepted
        for accepted in request.accepted_types
        if accepted.main_type in ("*", kind) and accepted.sub_type in ("*", subkind)
    ]
    return max(((accepted.sub_type != "*", accepted.quality) for accepted in ranges), default=(False, 0.0))[1]


class BlocksResponse(StreamingHttpResponse):
    """The HTTP answer that writes blocks of a stream, which it owns, until they end or the reader goes away.

    While it does, it holds nothing that the request took: no database connection, and under ASGI no thread.
    """

    def __init__(self, blocks: AsyncIterator[bytes], *, is_async: bool, is_head: bool = False) -> None:
        """Prepare the answer.

        Args:
            blocks: What to write; closed in every case.
            is_async: Whether the server is ASGI. A sync iterator would be read to its end before
                the first byte is sent there, and an async one cannot be read under WSGI.
            is_head: Whether it is asked for by HEAD: nothing is written. Servers read to its end what
                they leave out of such an answer.
        """
        if is_head:
            blocks = _write_nothing()
        super().__init__(_AsyncBlocks(blocks) if is_async else _iterate(blocks), content_type=MEDIA_TYPE)
        self["Cache-Control"] = "no-cache, no-transform"
        self["X-Accel-Buffering"] = "no"
        # GZipMiddleware, which would hold blocks back until there are enough of them, leaves alone what has one.
        self["Content-Encoding"] = "identity"


class EventStreamResponse(BlocksResponse):
    """The HTTP answer that writes events until the reader goes away or an hour has passed.

    It owns `events` and closes it in every case: at the end, when the reader leaves, and when
    the answer is dropped before it has begun.
    """

    def __init__(
        self, events: AsyncStream[Event], *, is_async: bool, named: bool = True, is_head: bool = False
    ) -> None:
        """Prepare the answer.

        Args:
            events: What `astream_events` gave. Open it first (`__aenter__`): a refusal then has
                an HTTP status of its own.
            is_async: Whether the server is ASGI.
            named: Whether to write `event:` with the event's type. EventSource gives named events
                only to listeners for that very name; without, each goes to `onmessage`.
            is_head: Whether it is asked for by HEAD: nothing is written.
        """
        super().__init__(write_blocks(events, named=named), is_async=is_async, is_head=is_head)


async def _write_nothing() -> AsyncIterator[bytes]:
    blocks: tuple[bytes, ...] = ()
    for block in blocks:
        yield block


async def write_blocks(events: AsyncStream[Event], *, named: bool) -> AsyncIterator[bytes]:
    """The stream as bytes: each event when it comes, and while there is none, how far the reader has got."""
    deadline = time.monotonic() + MAX_STREAM_SECONDS
    async with events:
        yield f"retry: {RETRY_MILLISECONDS}\nid: {events.position}\n\n".encode()
        try:
            while time.monotonic() < deadline:
                found = await events.next_within(HEARTBEAT_SECONDS)
                for event in found:
                    yield format_event(event, named=named)
                if not found:
                    yield f"id: {events.position}\n: heartbeat\n\n".encode()
        except StopAsyncIteration:
            return
        except AgentRuntimeError as error:
            # The status line is long gone. The reader connects again, behind what it was told is gone.
            problem = json.dumps(describe_error(error, find_status(error, is_conditional=False)))
            oldest = error.oldest_sequence if isinstance(error, EventsTruncated) else 0
            resume = f"id: {oldest - 1}\n" if oldest else ""
            yield f"event: error\n{resume}data: {problem}\n\n".encode()


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


def format_event(event: Event, *, named: bool = True) -> bytes:
    """An event as one block of the stream."""
    # A line end in a type would begin another field of the block; `data:` has the type as it is.
    name = f"event: {event.type.translate(LINE_ENDS)}\n" if named else ""
    return f"id: {event.sequence}\n{name}data: {json.dumps(describe_event(event))}\n\n".encode()


class _AsyncBlocks:
    """The same blocks for an ASGI server, whose event loop waits for them without a thread.

    No generator, as Python would not close one inside of another that a server drops.
    """

    def __init__(self, blocks: AsyncIterator[bytes]) -> None:
        self._blocks = blocks
        self._has_begun = False

    def __aiter__(self) -> _AsyncBlocks:
        return self

    async def __anext__(self) -> bytes:
        if not self._has_begun:
            self._has_begun = True
            await _let_go_of_the_request()
        return await self._blocks.__anext__()


async def _let_go_of_the_request() -> None:
    """Give back the thread in which views and middleware worked, and what is theirs in it.

    Django gives each request one and keeps it until the answer has been sent: nothing for a stream of an hour, and
    an `async` view would not help, as Django's own middleware takes the thread too. What comes behind the stream is
    given another.
    """
    await sync_to_async(_let_go_of_databases)()
    # Servers have a context for each request; without one, the thread is the process's own. asgiref documents neither
    # of the two: where they are missing, a stream holds its thread.
    current: ContextVar[Any] | None = getattr(SyncToAsync, "thread_sensitive_context", None)
    executors = getattr(SyncToAsync, "context_to_thread_executor", {})
    context = current.get(None) if current is not None else None
    executor = executors.get(context) if context is not None else None
    # One that the server brought is its own.
    if executor is not None and executor is not getattr(context, "_executor", None):
        del executors[context]
        executor.shutdown(wait=False)


def _let_go_of_databases() -> None:
    for connection in connections.all(initialized_only=True):
        # A transaction that is open is the caller's, and so is its connection.
        if not connection.in_atomic_block:
            connection.close()


def _iterate(blocks: AsyncIterator[bytes]) -> Iterator[bytes]:
    """The same blocks for a server without an event loop: this thread runs one of its own."""
    _let_go_of_databases()
    loop = asyncio.new_event_loop()
    try:
        while True:
            try:
                yield loop.run_until_complete(blocks.__anext__())
            except StopAsyncIteration:
                return
    finally:
        loop.run_until_complete(blocks.aclose())  # type: ignore[attr-defined]
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
