"""The active OpenTelemetry span, for whoever goes on with its trace.

Where one is active, OpenTelemetry has been imported: nothing here does.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import Any

__all__ = ["active_span", "attempt_span", "current_traceparent"]

attempt_span: ContextVar[Any] = ContextVar("agent_attempt_span", default=None)
"""That of the attempt of a run which is going on here; None: there is none."""


def active_span() -> Any:
    """The span that what begins here is under; None without OpenTelemetry.

    In a run it is the attempt's where the active one belongs to another trace and records nothing. Inside of its
    `@traceable` functions the SDK of LangSmith makes such ones active, whose ids are not those that it sends: what is
    under them would arrive nowhere.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    active, attempt = trace.get_current_span(), attempt_span.get()
    if attempt is None or active.is_recording():
        return active
    is_foreign = active.get_span_context().trace_id != attempt.get_span_context().trace_id
    return attempt if is_foreign else active


def current_traceparent() -> str | None:
    """The active span in W3C form."""
    span = active_span()
    context = None if span is None else span.get_span_context()
    if context is None or not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
