"""The run that the code is part of, wherever in it one is: a context variable that tasks and threads inherit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django_agent_runtime.runtime.interfaces import RunContext

__all__ = ["current_context", "enclosing_steps", "use_context", "use_step"]

_current: ContextVar[RunContext | None] = ContextVar("agent_run_context", default=None)
# Those of the steps that are going on here, from the outermost on.
_steps: ContextVar[tuple[RunContext, ...]] = ContextVar("agent_run_steps", default=())


def current_context() -> RunContext | None:
    """The context of the run that is going on here; None outside of any."""
    return _current.get()


def enclosing_steps(ctx: RunContext) -> int:
    """Inside of how many steps of a run this is."""
    return sum(each is ctx for each in _steps.get())


@contextmanager
def use_step(ctx: RunContext) -> Iterator[None]:
    """Have the block be one step of `ctx` further inside."""
    token = _steps.set((*_steps.get(), ctx))
    try:
        yield
    finally:
        _steps.reset(token)


@contextmanager
def use_context(ctx: RunContext) -> Iterator[None]:
    """Have `current_context` return `ctx` within the block."""
    token = _current.set(ctx)
    try:
        yield
    finally:
        _current.reset(token)
