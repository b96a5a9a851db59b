"""What the runtime says of a run, as the fields of its row."""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from django_agent_runtime._codec import MAX_DEPTH
from django_agent_runtime.models import (
    MAX_AGENT_KEY_CHARACTERS,
    MAX_TRACE_ID_CHARACTERS,
    MAX_TRACE_URL_CHARACTERS,
    AgentEvent,
    AgentRun,
    RunStatus,
)
from django_agent_runtime.types import RunTarget

if TYPE_CHECKING:
    from datetime import datetime

    from django_agent_runtime.types import Run, RunEvent

MAX_EVENT_TYPE_CHARACTERS = 200
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# The columns that `project_run` sets; the rest of a row is what somebody asked for.
PROJECTED_FIELDS = (
    "status",
    "attempt",
    "max_attempts",
    "output",
    "error",
    "interrupt",
    "started_at",
    "finished_at",
    "submitted_at",
    "last_sequence",
    "trace_id",
    "trace_url",
)


def project_run(row: AgentRun, run: Run, *, now: datetime | None = None) -> bool:
    """Set the fields of a row to what the runtime says, unless the row knows of something later.

    Returns:
        Whether the row is another one now. It is not saved here.
    """
    if run.sequence <= row.last_sequence:
        return False
    row.last_sequence = run.sequence
    row.status = run.state.value
    row.attempt = run.attempt
    row.max_attempts = run.max_attempts or row.max_attempts
    row.started_at = run.start_time
    row.finished_at = run.end_time
    row.submitted_at = row.submitted_at or now or timezone.now()
    row.trace_id = run.trace_id[:MAX_TRACE_ID_CHARACTERS]
    row.trace_url = to_storable(run.trace_url)[:MAX_TRACE_URL_CHARACTERS]
    if run.output is not None:
        row.output = to_storable(run.output)
    row.error = None
    if run.error is not None:
        row.error = {
            "message": to_storable(run.error.message),
            "reason": run.error.reason,
            "retryable": run.error.retryable,
            "error_type": to_storable(run.error.type),
        }
    row.interrupt = None
    if run.interrupt is not None:
        payload = to_storable(run.interrupt.payload)
        row.interrupt = {"interrupt_id": run.interrupt.interrupt_id, "payload": payload}
    return True


def project_event(row: AgentRun, event: RunEvent, *, now: datetime | None = None) -> bool:
    """`project_run` for an event that carries its run; what a run's record leaves out is in the event's payload."""
    if event.run is None or not project_run(row, event.run, now=now):
        return False
    payload = event.payload
    if row.status == RunStatus.SUCCEEDED and isinstance(payload.get("output"), dict):
        row.output = to_storable(payload["output"])
    if row.interrupt is not None and row.interrupt["payload"] is None:
        row.interrupt["payload"] = to_storable(payload.get("payload"))
    return True


def is_first_of_adopted(event: RunEvent) -> bool:
    """Whether a run begins with the event that has a row as soon as it is heard of: a sub-run, or one of a schedule.

    Of its later events it gets none: who deleted its row does not want another.
    """
    run = event.run
    if run is None or not (run.parent_run_id or (run.schedule_id and run.target is not RunTarget.TASK)):
        return False
    if event.type == "run.queued":
        return run.attempt == 0
    # It began with its acceptance.
    return event.type == "run.started" and run.attempt == 1 and run.start_time == run.create_time


def to_run_row(run: Run, parent: AgentRun | None) -> AgentRun:
    """The row for a run that nobody asked for here, as it was accepted: what `project_run` does not set.

    Args:
        run: With its input.
        parent: The row of the run that created it; None: a schedule did.
    """
    return AgentRun(
        pk=uuid.UUID(run.run_id),
        parent_run=parent,
        user_id=parent.user_id if parent else None,
        anonymous_session_id=parent.anonymous_session_id if parent else None,
        schedule_id="" if parent else to_storable(run.schedule_id),
        agent_key=to_storable(run.agent_id)[:MAX_AGENT_KEY_CHARACTERS],
        input=to_storable(run.input or {}),
        metadata=to_storable(run.metadata),
        priority=run.priority,
        created_at=run.create_time or timezone.now(),
    )


def to_event_row(event: RunEvent) -> AgentEvent:
    """The row for an event. It is not saved here."""
    return AgentEvent(
        run_id=event.run_id,
        seq=event.sequence,
        event_type=to_storable(event.type)[:MAX_EVENT_TYPE_CHARACTERS],
        payload=to_storable(event.payload),
        visibility=str(event.visibility),
        attempt=event.attempt,
        timestamp=event.time,
    )


def to_storable(value: Any, depth: int = 0) -> Any:
    """The JSON value as every database takes it.

    PostgreSQL has no NUL and no half of a surrogate pair in a text, and none has a number beyond the doubles: an agent
    that says one must not stop the projection. Such characters are replaced, such numbers and what is nested deeper
    than 200 levels become null.
    """
    if isinstance(value, str):
        return value if value.isascii() and "\0" not in value else _clean(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (dict, list)) and depth >= MAX_DEPTH:
        return None
    if isinstance(value, dict):
        return {to_storable(name): to_storable(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [to_storable(item, depth + 1) for item in value]
    return value


def is_storable(value: Any) -> bool:
    """Whether every database takes the JSON value as it is."""
    return bool(to_storable(value) == value)


def _clean(text: str) -> str:
    return text.replace("\0", REPLACEMENT).encode("utf-8", "surrogatepass").decode("utf-8", "replace")
