"""What callers pass, checked before anything is sent. A number that is None, which stands for a default, passes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration

from .conf import MAX_SECONDS
from .exceptions import InvalidValue
from .types import NewEvent, NewTask, RunState

__all__ = [
    "MAX_PAGE_SIZE",
    "MAX_SEQUENCE",
    "check_callback",
    "check_event",
    "check_items",
    "check_seconds",
    "check_states",
    "check_task",
    "check_ttl",
    "check_whole",
    "duration",
    "patience",
]

T = TypeVar("T")
New = TypeVar("New", NewEvent, NewTask)

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


def check_ttl(name: str, seconds: float | None) -> float | None:
    """`seconds`, if a key can live that long.

    Raises:
        InvalidValue: Not a whole number from 1 to `MAX_SECONDS`.
    """
    if seconds is None:
        return None
    if not (_is_between(seconds, (int, float), MAX_SECONDS) and seconds >= 1 and seconds == int(seconds)):
        raise _refuse(name, seconds, f"a whole number of seconds from 1 to {MAX_SECONDS}")
    return seconds


def check_items(name: str, items: Iterable[T]) -> Iterator[T]:
    """An iterator over `items`.

    Raises:
        InvalidValue: They cannot be iterated over, or are a text, whose letters nobody meant.
    """
    if isinstance(items, (str, bytes)):
        raise _refuse(name, items, "a sequence, not a text")
    try:
        return iter(items)
    except TypeError:
        raise _refuse(name, items, "a sequence") from None


def check_states(name: str, states: RunState | str | Iterable[RunState | str]) -> list[RunState]:
    """`states`, or the one state that was given in place of several.

    Raises:
        InvalidValue: One is no state of a run.
    """
    given: Iterable[Any] = [states] if isinstance(states, str) else check_items(name, states)
    known = {state.value: state for state in RunState}
    found: list[RunState] = []
    for state in given:
        # Not `in known`: what is given may have no hash.
        if not isinstance(state, str) or state not in known:
            raise _refuse(name, state, f"one of {', '.join(known)}")
        found.append(known[state])
    return found


def check_event(name: str, event: NewEvent | Mapping[str, Any]) -> NewEvent:
    """`event` as an object.

    Raises:
        InvalidValue: Neither an event nor a mapping with the fields of one.
    """
    return _check_item(name, event, NewEvent, ("event_type", "data"))


def check_task(name: str, task: NewTask | Mapping[str, Any]) -> NewTask:
    """`task` as an object.

    Raises:
        InvalidValue: Neither a task nor a mapping with the fields of one.
    """
    return _check_item(name, task, NewTask, ("task_type",))


def _check_item(name: str, item: New | Mapping[str, Any], kind: type[New], required: tuple[str, ...]) -> New:
    if isinstance(item, kind):
        return item
    if not isinstance(item, Mapping):
        raise _refuse(name, item, f"a {kind.__name__} or a dict")
    known = [field.name for field in fields(kind)]
    for key in item:
        if key not in known:
            reason = f"has the key {key!r}, known are {', '.join(known)}"
            raise InvalidValue(f"{name} {reason}", violations=[(name, reason)])
    for key in required:
        if key not in item:
            raise InvalidValue(f"{name} has no {key!r}", violations=[(f"{name}.{key}", "is missing")])
    return kind(**item)


def patience(seconds: float) -> Duration:
    """How long the runtime is to wait, for the wire; 0: not at all."""
    whole, microseconds = divmod(round(seconds * 1_000_000), 1_000_000)
    return Duration(seconds=whole, nanos=microseconds * 1000)


def duration(name: str, seconds: float | None) -> Duration | None:
    """`seconds` for the wire, which knows no time that is over at once.

    Raises:
        InvalidValue: Not a number above 0, at most `MAX_SECONDS`.
    """
    if seconds is None:
        return None
    if not (_is_between(seconds, (int, float), MAX_SECONDS) and seconds > 0):
        raise _refuse(name, seconds, f"a number of seconds above 0, at most {MAX_SECONDS}")
    return patience(max(seconds, 1e-6))


def _is_between(value: Any, kinds: tuple[type[float], ...], most: int) -> bool:
    # NaN is not between anything.
    return isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value <= most


def _refuse(name: str, value: object, expected: str) -> InvalidValue:
    reason = f"is {value!r}, must be {expected}"
    return InvalidValue(f"{name} {reason}", violations=[(name, reason)])
