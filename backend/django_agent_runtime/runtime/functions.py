"""Python functions that graphs and agents of the runtime call, in a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from django_agent_runtime.runtime.errors import DoNotRetry, ToolArgumentsError
from django_agent_runtime.runtime.interfaces import AgentRuntime, RetryPolicy, RunContext, RunResult
from django_agent_runtime.runtime.tools import Tool

__all__ = ["FunctionOfWorker", "function"]

# Begins the key under which workers serve a function; the runtime has the same.
_PREFIX = "function:"


class FunctionOfWorker(AgentRuntime):
    """A function that nodes of kind `python`, and tools of agents that are data, call by its name.

    Each call is a run of its own, a part of the one that wants it: it is retried, may wait, and records steps, as
    the run of an agent does. Calling the object calls the function.

    Attributes:
        name: What graphs and agents call it by.
        tool: The function with the JSON Schema of its arguments, which are checked before a call.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        max_attempts: int | None = None,
        run_timeout: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.tool = Tool.from_function(function, description=description)
        self.name = name or self.tool.name
        self.description = self.tool.description
        self.max_attempts = max_attempts
        self.run_timeout = run_timeout
        self.retry = retry
        self._function = function

    @property
    def key(self) -> str:
        """What the worker serves it under."""
        return _PREFIX + self.name

    @property
    def identity(self) -> object:
        """What tells it from another function."""
        return self._function

    async def run(self, ctx: RunContext) -> RunResult:
        """Call the function with the run's parameters; its result, as JSON, is `final_output["result"]`."""
        try:
            result = await self.tool.execute(ctx.params, ctx=ctx)
        except ToolArgumentsError as error:
            # The caller's mistake, the next time as well.
            raise DoNotRetry(str(error)) from error
        return RunResult(final_output={"result": result})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns, as if it had not been decorated."""
        return self._function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<function {self.name!r} of the worker>"


@overload
def function(decorated: Callable[..., Any], /) -> FunctionOfWorker: ...


@overload
def function(
    *,
    name: str | None = ...,
    description: str | None = ...,
    max_attempts: int | None = ...,
    run_timeout: float | None = ...,
    retry: RetryPolicy | None = ...,
) -> Callable[[Callable[..., Any]], FunctionOfWorker]: ...


def function(
    decorated: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    max_attempts: int | None = None,
    run_timeout: float | None = None,
    retry: RetryPolicy | None = None,
) -> FunctionOfWorker | Callable[[Callable[..., Any]], FunctionOfWorker]:
    """Make a function one that graphs and agents of the runtime can call.

        @function(name="shop.price_of")
        def price_of(article: str) -> float:
            return Article.objects.get(key=article).price

    Name it, or its module, in RUNTIME_REGISTRY, as an agent: `runagent` then serves it. Arguments, their JSON Schema
    and a parameter that is the run's context are as of `Tool.from_function`: a plain function runs in a thread and
    may use Django's ORM, an `async` one is awaited.

    Args:
        name: What it is called by; None: the function's own name.
        description: For models and people; None: what the docstring says before the arguments.
        max_attempts: As in `AgentRuntime`.
        run_timeout: As in `AgentRuntime`.
        retry: As in `AgentRuntime`.

    Raises:
        TypeError: A hint cannot be made into JSON Schema, or the parameters are not such as have names.
    """

    def decorate(decorated: Callable[..., Any]) -> FunctionOfWorker:
        return FunctionOfWorker(
            decorated,
            name=name,
            description=description,
            max_attempts=max_attempts,
            run_timeout=run_timeout,
            retry=retry,
        )

    return decorate if decorated is None else decorate(decorated)
