"""What a graph does, chunk by chunk: its run, and the runs that its nodes have work for them, as one stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._errors import output_of
from ._graph_chunks import GraphChunks
from ._streams import AsyncStream, Stream
from .exceptions import RunNotFound
from .types import Run, RunEvent

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AsyncGraphStream", "GraphStream"]


class _GraphStreamBase:
    """What is to be read: the watch of the run, and above it those of its sub-runs, with the events that come behind.

    A sub-run's id stands for its watch until that is begun.
    """

    def __init__(self, chunks: GraphChunks) -> None:
        self._of = chunks
        self._left: list[Any] = []
        self._ready: deque[Any] = deque()
        self._failed = False
        self._run_id = ""
        # Of the event whose chunks are ready, or were last, and of the one before it.
        self._sequence = self._sequence_before = 0

    @property
    def position(self) -> int:
        """Where to go on from here, as `after_sequence` of `stream_run`: all chunks up to it were handed out."""
        return self._sequence_before if self._ready else self._sequence

    def _take(self, event: RunEvent) -> None:
        if event.run_id == self._run_id and event.ends_run:
            self._failed = event.type != "run.succeeded"
        sub_runs = self._of.sub_runs(event)
        if sub_runs:
            self._left += [event, *reversed(sub_runs)]
        else:
            self._make_ready(event)

    def _make_ready(self, event: RunEvent) -> None:
        self._ready.extend(self._of.of(event))
        if event.run_id == self._run_id:
            self._sequence_before, self._sequence = self._sequence, event.sequence

    def _take_held(self) -> None:
        """Take the events that are next because nothing is left before them."""
        while self._left and isinstance(self._left[-1], RunEvent):
            self._make_ready(self._left.pop())

    @property
    def _is_sub_run(self) -> bool:
        return len(self._left) > 1

    def _follow(self, event: RunEvent | None) -> bool:
        """Take the next event of what is read, None at its end; whether all is read, of a run that failed."""
        if event is not None:
            self._take(event)
            return False
        if not self._left:
            # Closed meanwhile.
            return False
        self._left.pop()
        self._take_held()
        return self._failed and not self._left


class GraphStream(_GraphStreamBase):
    """An iterator over what a graph does, from its first step to the end of its run, over reconnects.

    Close it (or use it in a `with` block) when done before: the run goes on. It is for one thread at a time.
    """

    def __init__(
        self,
        chunks: GraphChunks,
        create: Callable[[], Run],
        watch: Callable[[str], Stream[RunEvent]],
        get: Callable[[str], Run],
    ) -> None:
        super().__init__(chunks)
        self._watch, self._get = watch, get
        self._run_id = create().run_id
        self._left.append(self._run_id)

    @property
    def run_id(self) -> str:
        """The run of the graph."""
        return self._run_id

    def close(self) -> None:
        """End the stream; safe to call twice."""
        while self._left:
            watch = self._left.pop()
            if isinstance(watch, Stream):
                watch.close()
        self._ready.clear()

    def __iter__(self) -> GraphStream:
        return self

    def __next__(self) -> Any:
        while not self._ready:
            if not self._left:
                raise StopIteration
            self._read()
        return self._ready.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        watch = self._left[-1]
        if isinstance(watch, str):
            watch = self._left[-1] = self._watch(watch)
        try:
            event = next(watch, None)
        except RunNotFound:
            if not self._is_sub_run:
                raise
            event = None
        if self._follow(event):
            output_of(self._get(self._run_id))


class AsyncGraphStream(_GraphStreamBase):
    """An asynchronous iterator over what a graph does, from its first step to the end of its run, over reconnects.

    The run is created with `async with` or the first chunk, whichever comes first. Waiting for a chunk may be
    cancelled without losing one.
    """

    def __init__(
        self,
        chunks: GraphChunks,
        create: Callable[[], Awaitable[Run]],
        watch: Callable[[str], AsyncStream[RunEvent]],
        get: Callable[[str], Awaitable[Run]],
    ) -> None:
        super().__init__(chunks)
        self._create, self._watch, self._get = create, watch, get

    @property
    def run_id(self) -> str | None:
        """The run of the graph; None until it is there."""
        return self._run_id or None

    async def aclose(self) -> None:
        """End the stream; safe to call twice. The run goes on."""
        while self._left:
            watch = self._left.pop()
            if isinstance(watch, AsyncStream):
                await watch.aclose()
        self._ready.clear()

    def __aiter__(self) -> AsyncGraphStream:
        return self

    async def __anext__(self) -> Any:
        await self._open()
        while not self._ready:
            if not self._left:
                raise StopAsyncIteration
            await self._read()
        return self._ready.popleft()

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _open(self) -> None:
        if not self._run_id:
            # The request names itself: an attempt that was cancelled is joined.
            self._run_id = (await self._create()).run_id
            self._left.append(self._run_id)

    async def _read(self) -> None:
        watch = self._left[-1]
        if isinstance(watch, str):
            watch = self._left[-1] = self._watch(watch)
        try:
            event = await anext(watch, None)
        except RunNotFound:
            if not self._is_sub_run:
                raise
            event = None
        if self._follow(event):
            output_of(await self._get(self._run_id))
