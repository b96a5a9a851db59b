"""Agents that are functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, overload

from django_agent_runtime.runtime._threads import is_async
from django_agent_runtime.runtime.execution import run_blocking, to_run_result
from django_agent_runtime.runtime.interfaces import AgentRuntime, RetryPolicy, RunContext, RunResult

__all__ = ["FunctionAgent", "agent"]


class FunctionAgent(AgentRuntime):
    """An agent whose `run` is a function of the context; calling it calls the function.

    Attributes:
        function: What was decorated.
        blocking: Whether it is a plain function, which runs in a thread with a `SyncRunContext`.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        key: str | None = None,
        description: str | None = None,
        max_attempts: int | None = None,
        run_timeout: float | None = None,
        step_timeout: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.function = function
        self.blocking = not is_async(function)
        self._key: str = key or str(getattr(function, "__name__", ""))
        self.description = (inspect.getdoc(function) or "").partition("\n\n")[0] if description is None else description
        self.max_attempts = max_attempts
        self.run_timeout = run_timeout
        self.step_timeout = step_timeout
        self.retry = retry

    @property
    def key(self) -> str:
        """What runs name the agent by."""
        return self._key

    @property
    def identity(self) -> object:
        """What tells it from another agent of the same class."""
        return self.function

    async def run(self, ctx: RunContext) -> RunResult:
        """Call the function, and make a `RunResult` of what it returns."""
        value = await (run_blocking(self.function, ctx) if self.blocking else self.function(ctx))
        return to_run_result(value, self.key)

    def __call__(self, ctx: Any) -> Any:
        """What the function returns, as if it had not been decorated."""
        return self.function(ctx)

    def __repr__(self) -> str:
        return f"<agent {self.key!r}: {getattr(self.function, '__qualname__', self.function)}>"


@overload
def agent(function: Callable[[Any], Any], /) -> FunctionAgent: ...


@overload
def agent(
    *,
    key: str | None = ...,
    description: str | None = ...,
    max_attempts: int | None = ...,
    run_timeout: float | None = ...,
    step_timeout: float | None = ...,
    retry: RetryPolicy | None = ...,
) -> Callable[[Callable[[Any], Any]], FunctionAgent]: ...


def agent(
    function: Callable[[Any], Any] | None = None,
    /,
    *,
    key: str | None = None,
    description: str | None = None,
    max_attempts: int | None = None,
    run_timeout: float | None = None,
    step_timeout: float | None = None,
    retry: RetryPolicy | None = None,
) -> FunctionAgent | Callable[[Callable[[Any], Any]], FunctionAgent]:
    """Make an agent of a function of the context.

        @agent(key="greeter", max_attempts=5)
        async def greet(ctx: RunContext) -> str:
            return f"Hello {ctx.params['name']}"

    An `async` function gets a `RunContext`, a plain one a `SyncRunContext` in a thread of its own. It returns a
    `RunResult`, a dict (the final output), a text (the answer) or None. The agent is not registered by this alone:
    name it, or its module, in RUNTIME_REGISTRY, or call `register_runtime`.

    Args:
        key: None: the function's name.
        description: For people; None: the first paragraph of the function's docstring.
        max_attempts: As in `AgentRuntime`.
        run_timeout: As in `AgentRuntime`.
        step_timeout: As in `AgentRuntime`.
        retry: As in `AgentRuntime`.

    Returns:
        A `FunctionAgent`, or a decorator that makes one.
    """

    def decorate(function: Callable[[Any], Any]) -> FunctionAgent:
        return FunctionAgent(
            function,
            key=key,
            description=description,
            max_attempts=max_attempts,
            run_timeout=run_timeout,
            step_timeout=step_timeout,
            retry=retry,
        )

    return decorate if function is None else decorate(function)
