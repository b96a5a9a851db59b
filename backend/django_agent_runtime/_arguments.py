"""What callers pass, checked before anything is sent. A number that is None, which stands for a default, passes."""

from __future__ import annotations

import inspect
from typing import Any

from google.protobuf.duration_pb2 import Duration

from .conf import MAX_SECONDS
from .exceptions import InvalidValue

__all__ = ["MAX_PAGE_SIZE", "MAX_SEQUENCE", "check_callback", "check_seconds", "check_whole", "duration"]

# Of revisions too.
MAX_SEQUENCE = 2**64 - 1
MAX_PAGE_SIZE = 2**31 - 1


def check_callback(callback: object) -> None:
    """Refuse a callback that a thread of the client cannot simply call.

    Raises:
        InvalidValue: Not callable, or a coroutine function, which nobody would await.
    """
    if not callable(callback) or inspect.iscoroutinefunction(callback):
        raise InvalidValue("callback must be a plain function; for a coroutine iterate over astream_events()")


def check_seconds(name: str, seconds: float | None) -> float | None:
    """`seconds`, if it can be how long something takes.

    Raises:
        InvalidValue: Not a number from 0 to `MAX_SECONDS`.
    """
    if seconds is None:
        return None
    if not _is_between(seconds, (int, float), MAX_SECONDS):
        raise _refuse(name, seconds, f"a number of seconds from 0 to {MAX_SECONDS}")
    return seconds


def check_whole(name: str, number: int | None, most: int = MAX_SEQUENCE) -> int | None:
    """`number`, if it can be a size, a sequence or a revision.

    Raises:
        InvalidValue: Not a whole number from 0 to `most`.
    """
    if number is None:
        return None
    if not _is_between(number, (int,), most):
        raise _refuse(name, number, f"a whole number from 0 to {most}")
    return number


def duration(name: str, seconds: float | None) -> Duration | None:
    """`seconds` for the wire.

    Raises:
        InvalidValue: As in `check_seconds`.
    """
    seconds = check_seconds(name, seconds)
    if seconds is None:
        return None
    whole, microseconds = divmod(round(seconds * 1_000_000), 1_000_000)
    return Duration(seconds=whole, nanos=microseconds * 1000)


def _is_between(value: Any, kinds: tuple[type[float], ...], most: int) -> bool:
    # NaN is not between anything.
    return isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value <= most


def _refuse(name: str, value: object, expected: str) -> InvalidValue:
    reason = f"is {value!r}, must be {expected}"
    return InvalidValue(f"{name} {reason}", violations=[(name, reason)])
