"""What agents raise, and what is raised inside them.

::

    AgentError                          Exception; says whether another attempt could help
    ├── DoNotRetry                      it could not
    ├── RetryAfter                      after so many seconds
    ├── SubRunFailed                    a sub-run ended badly
    └── ToolError
        ├── ToolNotFound  LookupError
        └── ToolArgumentsError  ValueError

    ControlFlow                         BaseException: no `except Exception` of an agent may catch it
    ├── Parked                          the run waits, and its code runs again from the top
    └── RunInterrupted                  a plain function's run was cancelled
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = [
    "AgentError",
    "ControlFlow",
    "DoNotRetry",
    "Parked",
    "RetryAfter",
    "RunInterrupted",
    "SubRunFailed",
    "ToolArgumentsError",
    "ToolError",
    "ToolNotFound",
]


class AgentError(Exception):
    """An agent's failure; its text is shown to the run's owner.

    Any other exception fails the attempt too, and is retried.

    Attributes:
        retryable: Whether another attempt could succeed, if the run has one left.
        retry_after: Seconds to wait before it, or None for what the retry policy says.
    """

    retryable: bool = True
    retry_after: float | None = None

    def __init__(self, message: str = "", *, retryable: bool | None = None) -> None:
        super().__init__(message)
        if retryable is not None:
            self.retryable = retryable


class DoNotRetry(AgentError):
    """The run fails now, whatever attempts are left."""

    retryable = False

    def __init__(self, message: str = "") -> None:
        super().__init__(message)


class RetryAfter(AgentError):
    """The attempt failed; the next one is to begin after `seconds`.

    Raises:
        ValueError: They are no number, or without end.
    """

    def __init__(self, seconds: float, message: str = "") -> None:
        if not math.isfinite(seconds):
            raise ValueError(f"RetryAfter wants a number of seconds, not {seconds}")
        super().__init__(message or f"try again in {seconds:g} s")
        self.seconds = self.retry_after = float(seconds)


class SubRunFailed(AgentError):
    """A sub-run did not succeed. Its own attempts are used up, so the parent's would meet the same end.

    Attributes:
        run_id: The sub-run.
        agent_key: Its agent.
        state: `failed`, `cancelled` or `timed_out`.
        error: What the runtime says about it: `message` and `reason`.
    """

    retryable = False

    def __init__(
        self, message: str, *, run_id: str = "", agent_key: str = "", state: str = "failed", error: Any = None
    ) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.agent_key = agent_key
        self.state = state
        self.error: dict[str, Any] = dict(error) if isinstance(error, Mapping) else {}


class ToolError(AgentError):
    """A tool could not be executed. The text is fit to be given to the model as the tool's result."""


class ToolNotFound(ToolError, LookupError):
    """No tool of this name is registered."""


class ToolArgumentsError(ToolError, ValueError):
    """The arguments do not fit the tool's schema."""


class ControlFlow(BaseException):
    """Ends an agent's code early, though nothing has failed. Let it pass."""


class Parked(ControlFlow):
    """The run waits for an answer or for sub-runs, and holds no worker meanwhile.

    Once what it waits for is there, its code runs again from the top with recorded steps and answers in place.
    """


class RunInterrupted(ControlFlow):
    """The run of a plain function has been cancelled: raised by the next thing it asks of its context.

    An `async` agent is cancelled as asyncio does it, with `asyncio.CancelledError` at its next `await`.
    """
