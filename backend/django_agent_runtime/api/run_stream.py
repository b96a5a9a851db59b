"""The events of a run as Server-Sent Events: from the runtime while it has them, else from Django's rows."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.utils import timezone

from django_agent_runtime.api.event_stream import LINE_ENDS, MAX_STREAM_SECONDS, RETRY_MILLISECONDS
from django_agent_runtime.api.problems import describe_error, find_status
from django_agent_runtime.exceptions import AgentRuntimeError, EventsTruncated, RunNotFound
from django_agent_runtime.go_integration import get_go_runtime_integration
from django_agent_runtime.models import AgentEvent, AgentRun, RunStatus
from django_agent_runtime.selectors import find_end, has_all_events, has_seen_the_end, list_events
from django_agent_runtime.types import ConnectionState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from datetime import datetime
    from uuid import UUID

    from django_agent_runtime._streams import AsyncStream
    from django_agent_runtime.go_integration import GoRuntimeIntegration
    from django_agent_runtime.types import RunEvent

# How often a stream without events looks whether the runtime is there, and for a run that it does not have yet; and
# when there are many streams, and it is away for long.
LOOK_SECONDS = 1.0
LONGEST_LOOK_SECONDS = 5.0
# So many events of a run that has ended are in memory for each of its readers.
EVENTS_OF_PAGE = 100
# Said to a reader whose run the runtime does not have, or cannot be asked about. It has no id: nothing happened.
WAITING_TYPE = "run.waiting_for_runtime"
# The stream cannot go on; not an event of the run.
FAILURE_TYPE = "stream.error"
HEARTBEAT = b": heartbeat\n\n"


def describe_run_event(
    *, event_type: str, sequence: int, run_id: str, at: datetime, visibility: str, payload: Mapping[str, Any]
) -> dict[str, Any]:
    """An event as a JSON object: its payload's members, over them the envelope, and the whole payload once more."""
    return {
        **payload,
        "type": event_type,
        "seq": sequence,
        "run_id": run_id,
        "ts": _format_time(at),
        "visibility": visibility,
        "payload": payload,
    }


def _format_time(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def describe_event_row(event: AgentEvent) -> dict[str, Any]:
    """`describe_run_event` for an event that Django has kept."""
    return describe_run_event(
        event_type=event.event_type,
        sequence=event.seq,
        run_id=str(event.run_id),
        at=event.timestamp,
        visibility=event.visibility,
        payload=event.payload if isinstance(event.payload, dict) else {},
    )


def format_run_event(described: Mapping[str, Any], *, named: bool) -> bytes:
    """An event as one block of a stream; one without a `seq` gets no id, and moves nobody's place."""
    # A line end in a type would begin another field of the block; `data:` has the type as it is.
    name = f"event: {described['type'].translate(LINE_ENDS)}\n" if named else ""
    place = f"id: {described['seq']}\n" if "seq" in described else ""
    return f"{place}{name}data: {json.dumps(described)}\n\n".encode()


class RunEventStream:
    """The events of one run as blocks of a stream, from a place on until the run has ended.

    While the runtime is away, or has not got the run yet, the stream says so and goes on when it is back. The rows of
    Django stand in for it only for a run that has ended: they lack the deltas, so that a reader who was given some of
    an unfinished run would be left with a gap.
    """

    def __init__(
        self, run_id: UUID, *, after_sequence: int, visibility: str, named: bool, keepalive_seconds: float
    ) -> None:
        """Nothing is opened yet.

        Args:
            run_id: The run.
            after_sequence: What the reader has seen; 0: nothing.
            visibility: The least level of an event.
            named: Whether to write `event:` with the type.
            keepalive_seconds: After so long without a word, a comment is sent.
        """
        self.position = after_sequence
        self._run_id = run_id
        self._visibility = visibility
        self._named = named
        self._keepalive_seconds = keepalive_seconds
        self._watch: AsyncStream[RunEvent] | None = None
        self._look_seconds = LOOK_SECONDS
        self._said_that_it_waits = False
        self._is_among_rows = False
        self._is_over = False
        self._written_at = 0.0

    async def write(self) -> AsyncGenerator[bytes, None]:
        """The blocks. Closing it frees what it holds of the runtime."""
        # The only generator there is: one that a server drops unclosed is closed by Python, nested ones are not.
        seen = f"id: {self.position}\n" if self.position else ""
        self._written_at = time.monotonic()
        yield f"retry: {RETRY_MILLISECONDS}\n{seen}\n".encode()
        # The reader comes again then, and its sign-in is checked anew.
        deadline = time.monotonic() + MAX_STREAM_SECONDS
        try:
            while time.monotonic() < deadline and not self._is_over:
                for block in await self._wait():
                    yield block
        finally:
            await self._close_watch()

    async def _wait(self) -> list[bytes]:
        """What there is to write after at most a second."""
        if self._is_among_rows:
            return await self._read_kept()
        runtime = get_go_runtime_integration()
        if self._watch is None:
            self._watch = runtime.awatch_run(
                str(self._run_id), after_sequence=self.position, visibility=self._visibility
            )
        try:
            events = await self._watch.next_within(min(self._look_seconds, self._keepalive_seconds))
        except StopAsyncIteration:
            self._is_over = True
            return []
        except RunNotFound:
            await self._close_watch()
            kept = await self._read_kept()
            if not kept and not self._is_over:
                await asyncio.sleep(min(self._look_seconds, self._keepalive_seconds))
            return kept
        except AgentRuntimeError as error:
            self._is_over = True
            return [self._format_failure(error)]
        if not events:
            return await self._read_kept() if await _is_away(runtime) else self._keep_alive()
        return [self._format_live(event) for event in events]

    async def _close_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            await watch.aclose()

    async def _read_kept(self) -> list[bytes]:
        """A page of a run that has ended, of which all is read so; of another, once, that it waits for the runtime."""
        events = await asyncio.to_thread(self._query_kept)
        if events is not None:
            await self._close_watch()
            self._is_among_rows = True
            self._is_over = len(events) < EVENTS_OF_PAGE
            self.position = events[-1].seq if events else self.position
            return [format_run_event(describe_event_row(event), named=self._named) for event in events]
        if self._said_that_it_waits:
            self._look_seconds = min(self._look_seconds * 2, LONGEST_LOOK_SECONDS)
            return self._keep_alive()
        self._said_that_it_waits = True
        self._written_at = time.monotonic()
        notice = {"type": WAITING_TYPE, "run_id": str(self._run_id), "ts": _format_time(timezone.now())}
        return [format_run_event(notice, named=self._named)]

    def _query_kept(self) -> list[AgentEvent] | None:
        """The next events of a run that has ended, None where it has not; a run that is gone has none.

        They end with the run's end in every case: who has not seen one connects again, for ever.
        """
        try:
            run = AgentRun.objects.filter(pk=self._run_id).only("status", "last_sequence").first()
            if run is None:
                return []
            if not run.has_ended or not has_all_events(run):
                return None
            events = list_events(run, after_sequence=self.position, visibility=self._visibility)
            found = list(events[:EVENTS_OF_PAGE])
            position = found[-1].seq if found else self.position
            if len(found) < EVENTS_OF_PAGE and not has_seen_the_end(run, position):
                found.append(_make_end(run, position))
            return found
        finally:
            # This thread is one of a pool, and no request of its own ends here.
            connections.close_all()

    def _format_live(self, event: RunEvent) -> bytes:
        self.position = event.sequence
        self._look_seconds = LOOK_SECONDS
        self._said_that_it_waits = False
        self._written_at = time.monotonic()
        described = describe_run_event(
            event_type=event.type,
            sequence=event.sequence,
            run_id=event.run_id,
            at=event.time,
            visibility=str(event.visibility),
            payload=event.payload,
        )
        return format_run_event(described, named=self._named)

    def _keep_alive(self) -> list[bytes]:
        """A comment, when it is time for one."""
        now = time.monotonic()
        if now - self._written_at < self._keepalive_seconds:
            return []
        self._written_at = now
        return [HEARTBEAT]

    def _format_failure(self, error: AgentRuntimeError) -> bytes:
        # The status line is long gone. The reader connects again, behind what it was told is gone.
        problem = describe_error(error, find_status(error, is_conditional=False))
        oldest = error.oldest_sequence if isinstance(error, EventsTruncated) else 0
        resume = f"id: {oldest - 1}\n".encode() if oldest else b""
        return resume + format_run_event({"type": FAILURE_TYPE, "problem": problem}, named=self._named)


def _make_end(run: AgentRun, position: int) -> AgentEvent:
    """The event that the row of a run stands for, where the one with which it ended is lost, or was deleted."""
    payload: dict[str, Any] = {}
    if run.status == RunStatus.SUCCEEDED:
        payload = {"output": run.output}
    elif isinstance(run.error, dict):
        payload = {"error": run.error.get("message", ""), "reason": run.error.get("reason", "")}
        if run.error.get("error_type"):
            payload["error_type"] = run.error["error_type"]
    return AgentEvent(
        run_id=run.pk,
        seq=max(find_end(run), position + 1),
        event_type=f"run.{run.status}",
        payload=payload,
        timestamp=run.finished_at or timezone.now(),
    )


async def _is_away(runtime: GoRuntimeIntegration) -> bool:
    """Whether the runtime does not answer. A client that has not been answered yet does not know: it asks."""
    return runtime.connection_state is ConnectionState.RECONNECTING and not await runtime.ais_connected()
