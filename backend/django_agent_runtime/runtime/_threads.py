"""Plain functions beside an event loop: each in a daemon thread of its own, that waits for nobody's turn.

The loop's own executor has a handful of threads, which a worker's blocking agents would fill, and it is
waited for when the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

__all__ = ["call_anywhere", "call_within", "is_async", "settle", "start_thread", "strip_partials"]

T = TypeVar("T")


async def call_anywhere(function: Callable[[], Any]) -> Any:
    """What `function` returns: on the loop if it is a coroutine function, otherwise from a thread."""
    if is_async(function):
        return await function()
    result = await start_thread(function)
    # Such as that of a lambda around a coroutine function.
    return await result if inspect.isawaitable(result) else result


async def call_within(function: Callable[[], Any], timeout: float | None, what: str) -> Any:
    """What `call_anywhere` returns, within `timeout` seconds; None: however long it takes.

    Raises:
        TimeoutError: It took longer than `timeout` seconds. It says so of `what`.
    """
    if timeout is None:
        return await call_anywhere(function)
    call = asyncio.ensure_future(call_anywhere(function))
    try:
        return await asyncio.wait_for(call, timeout)
    except asyncio.TimeoutError as error:
        if not call.cancelled():
            # The function's own.
            raise
        raise TimeoutError(f"{what} took longer than {timeout:g} s") from error


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a call of the function is to be awaited, also where a decorator has wrapped it."""
    if inspect.iscoroutinefunction(function):
        return True
    target = inspect.unwrap(strip_partials(function))
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(type(target).__call__)


def strip_partials(function: Callable[..., Any]) -> Any:
    """The function that a `functools.partial` calls in the end."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def start_thread(function: Callable[[], T]) -> Future[T]:
    """The result of `function`, in a thread that has this task's context variables.

    Cancelling the wait leaves the thread to end by itself: nothing can stop it.
    """
    future: Future[T] = asyncio.get_running_loop().create_future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            context.run(settle, future, function)
        finally:
            _close_connections()

    threading.Thread(target=work, name="agent-code", daemon=True).start()
    return future


def settle(future: Future[T], function: Callable[[], T]) -> None:
    """Give `future` what `function` returns or raises here, in another thread than its loop's."""
    loop = future.get_loop()
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001  # whoever waits gets it
        _tell(loop, _fail, future, error)
    else:
        _tell(loop, _succeed, future, result)


def _tell(loop: AbstractEventLoop, setter: Callable[..., None], future: Future[T], value: object) -> None:
    try:
        loop.call_soon_threadsafe(setter, future, value)
    except RuntimeError:
        # The loop has been closed: nobody waits any more.
        if not loop.is_closed():
            raise


def _succeed(future: Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: Future[T], error: BaseException) -> None:
    if future.done():
        return
    # A future refuses what would end the coroutine that waits, and fails at what cannot be looked at.
    if not issubclass(type(error), StopIteration):
        with contextlib.suppress(Exception):
            future.set_exception(error)
            return
    failure = RuntimeError(f"the function raised {type(error).__name__}")
    failure.__cause__ = error
    future.set_exception(failure)


def _close_connections() -> None:
    """Close the database connections of this thread, which nobody else can reach once it has ended."""
    db = sys.modules.get("django.db")
    if db is not None:
        for connection in db.connections.all(initialized_only=True):
            if not connection.in_atomic_block:
                connection.close()
