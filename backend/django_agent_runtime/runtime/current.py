"""The run that the code is part of, wherever in it one is: a context variable that tasks and threads inherit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django_agent_runtime.runtime.interfaces import RunContext

__all__ = ["current_context", "use_context"]

_current: ContextVar[RunContext | None] = ContextVar("agent_run_context", default=None)


def current_context() -> RunContext | None:
    """The context of the run that is going on here; None outside of any."""
    return _current.get()


@contextmanager
def use_context(ctx: RunContext) -> Iterator[None]:
    """Have `current_context` return `ctx` within the block."""
    token = _current.set(ctx)
    try:
        yield
    finally:
        _current.reset(token)
