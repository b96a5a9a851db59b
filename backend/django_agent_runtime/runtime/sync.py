"""The context of agents and tools that are plain functions: every name of `RunContext`, and no `await`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from django_agent_runtime.runtime._threads import settle
from django_agent_runtime.runtime.current import use_step
from django_agent_runtime.runtime.errors import RunInterrupted

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from django_agent_runtime.runtime.interfaces import EventType, Message, RunContext, Visibility

__all__ = ["SyncRunContext"]

T = TypeVar("T")


class SyncRunContext:
    """A `RunContext` for code in a thread: each method blocks until the event loop has done it.

    `RunContext` documents the methods. Once the run is over for the runtime, each raises `RunInterrupted`.
    """

    def __init__(self, ctx: RunContext, loop: AbstractEventLoop) -> None:
        self._ctx = ctx
        self._loop = loop
        self._ended = False
        self._going_on: set[concurrent.futures.Future[Any]] = set()

    @property
    def run_id(self) -> str:
        """The run's UUID, the same in every attempt."""
        return self._ctx.run_id

    @property
    def agent_key(self) -> str:
        """The agent that was asked for."""
        return self._ctx.agent_key

    @property
    def attempt(self) -> int:
        """1 in the first attempt."""
        return self._ctx.attempt

    @property
    def input(self) -> dict[str, Any]:
        """The run's whole input."""
        return self._ctx.input

    @property
    def metadata(self) -> dict[str, Any]:
        """What the run was created with beside its input."""
        return self._ctx.metadata

    @property
    def conversation_id(self) -> str | None:
        """The conversation that the run belongs to, if any."""
        return self._ctx.conversation_id

    @property
    def input_messages(self) -> list[Message]:
        """The conversation so far, oldest first."""
        return self._ctx.input_messages

    @property
    def params(self) -> dict[str, Any]:
        """What the caller set for this run."""
        return self._ctx.params

    @property
    def is_cancelled(self) -> bool:
        """Whether this attempt is over for the runtime."""
        return self._is_over()

    def cancelled(self) -> bool:
        """As `is_cancelled`, for code that calls it."""
        return self._is_over()

    def raise_if_cancelled(self) -> None:
        """For code that computes for long.

        Raises:
            RunInterrupted: This attempt is over.
        """
        if self._is_over():
            raise RunInterrupted("the run is over")

    def emit(
        self,
        event_type: EventType | str,
        payload: Mapping[str, Any] | None = None,
        *,
        visibility: Visibility | str | None = None,
    ) -> None:
        """Add an event to the run's log."""
        self._do(self._ctx.emit(event_type, payload, visibility=visibility))

    def emit_user_message(self, content: str) -> None:
        """Show a message of the assistant to everybody who may see the run."""
        self._do(self._ctx.emit_user_message(content))

    def emit_error(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        """Show an error that does not end the run."""
        self._do(self._ctx.emit_error(message, details))

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Keep `state` for this attempt and later ones."""
        self._do(self._ctx.checkpoint(state))

    def get_state(self) -> dict[str, Any] | None:
        """A copy of the latest checkpoint of any attempt; None before the first."""
        return self._do(self._ctx.get_state())

    def step(self, name: str, fn: Callable[[], T], *, timeout: float | None = None) -> T:
        """What `fn` returns, recorded; it is called in this thread, whose database connections it has."""
        calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

        def call_inside() -> T:
            with use_step(self._ctx):
                return fn()

        async def call_here() -> T:
            future: asyncio.Future[T] = self._loop.create_future()
            calls.put(lambda: settle(future, call_inside))
            result = await future
            # What a lambda returns may be a coroutine of the loop's.
            return await cast("Awaitable[T]", result) if asyncio.iscoroutine(result) else result

        return self._do(self._ctx.step(name, call_here, timeout=timeout), calls)

    def interrupt(self, payload: Any = None, *, name: str | None = None) -> Any:
        """Ask whoever watches the run, and return the answer."""
        return self._do(self._ctx.interrupt(payload, name=name))

    def run_agent(
        self,
        agent_key: str,
        messages: Sequence[Any] | None = None,
        *,
        input: Mapping[str, Any] | None = None,  # noqa: A002  # the run's own name for it
        params: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        name: str | None = None,
    ) -> dict[str, Any]:
        """Have another agent run, and return its output."""
        return self._do(
            self._ctx.run_agent(
                agent_key, messages, input=input, params=params, metadata=metadata, timeout=timeout, name=name
            )
        )

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What `coroutine` returns on the event loop, such as that of an `async` client."""
        return self._do(coroutine)

    def end(self) -> None:
        """Interrupt what is going on, and refuse all that comes; for whoever runs the code, on the event loop."""
        self._ended = True
        for future in list(self._going_on):
            future.cancel()

    def _is_over(self) -> bool:
        return self._ended or self._ctx.is_cancelled

    def _do(self, coroutine: Coroutine[Any, Any, T], calls: queue.SimpleQueue[Callable[[], None]] | None = None) -> T:
        """The coroutine's result; while it is going on, this thread does what is put into `calls`."""
        if self._is_over():
            coroutine.close()
            raise RunInterrupted("the run is over")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        self._going_on.add(future)
        try:
            # It may have ended before this was there to be cancelled.
            if self._is_over():
                future.cancel()
            if calls is not None:
                future.add_done_callback(lambda _: calls.put(_end_calls))
                while (call := calls.get()) is not _end_calls:
                    call()
            return future.result()
        except (asyncio.CancelledError, concurrent.futures.CancelledError) as error:
            raise RunInterrupted("the run is over") from error
        finally:
            self._going_on.discard(future)


def _end_calls() -> None:
    """Nothing more is to be called."""
