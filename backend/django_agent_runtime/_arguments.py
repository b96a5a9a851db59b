"""What callers pass, checked before anything is sent. A number that is None, which stands for a default, passes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any, TypeVar, get_args

from google.protobuf.duration_pb2 import Duration

from ._codec import check_text
from .conf import MAX_SECONDS
from .exceptions import InvalidValue
from .types import (
    Concurrency,
    EventVisibility,
    NewEvent,
    NewTask,
    RetryPolicy,
    RunState,
    RunTarget,
    Strategy,
    StreamMode,
)

__all__ = [
    "MAX_PAGE_SIZE",
    "MAX_SEQUENCE",
    "check_callback",
    "check_concurrency",
    "check_event",
    "check_items",
    "check_priority",
    "check_retry",
    "check_seconds",
    "check_states",
    "check_stream_modes",
    "check_target",
    "check_task",
    "check_time",
    "check_ttl",
    "check_visibilities",
    "check_visibility",
    "check_whole",
    "duration",
    "patience",
]

T = TypeVar("T")
New = TypeVar("New", Concurrency, NewEvent, NewTask, RetryPolicy)
E = TypeVar("E", RunState, RunTarget, EventVisibility)

# Of revisions too.
MAX_SEQUENCE = 2**64 - 1
MAX_PAGE_SIZE = 2**31 - 1
_MOST_PRIORITY = 1000
_MOST_ATTEMPTS = 100


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
    return [_check_member(name, state, RunState) for state in given]


def check_stream_modes(name: str, modes: StreamMode | Iterable[StreamMode]) -> list[StreamMode]:
    """`modes`, each once, or the one mode that was given in place of several.

    Raises:
        InvalidValue: One is no stream mode, or there is none.
    """
    given: Iterable[Any] = [modes] if isinstance(modes, str) else check_items(name, modes)
    checked: dict[StreamMode, None] = {}
    for mode in given:
        if mode not in get_args(StreamMode):
            raise _refuse(name, mode, f"one or more of {', '.join(get_args(StreamMode))}")
        checked[mode] = None
    if not checked:
        raise _refuse(name, modes, f"one or more of {', '.join(get_args(StreamMode))}")
    return list(checked)


def check_target(name: str, target: RunTarget | str) -> RunTarget:
    """`target` as a member.

    Raises:
        InvalidValue: It is none.
    """
    return _check_member(name, target, RunTarget)


def check_visibility(name: str, visibility: EventVisibility | str) -> EventVisibility:
    """`visibility` as a member.

    Raises:
        InvalidValue: It is none.
    """
    return _check_member(name, visibility, EventVisibility)


def check_visibilities(
    name: str, visibilities: Mapping[str, EventVisibility | str] | None
) -> dict[str, EventVisibility]:
    """The visibility of each type of event.

    Raises:
        InvalidValue: Not a mapping, or one of its values is no visibility.
    """
    if visibilities is None:
        return {}
    if not isinstance(visibilities, Mapping):
        raise _refuse(name, visibilities, "a dict")
    return {
        check_text(f"{name}'s keys", event_type): check_visibility(f"{name}[{event_type!r}]", visibility)
        for event_type, visibility in visibilities.items()
    }


def check_priority(name: str, priority: Any) -> int:
    """`priority`, if a run can have it.

    Raises:
        InvalidValue: Not a whole number from -1000 to 1000.
    """
    if isinstance(priority, int) and not isinstance(priority, bool) and abs(priority) <= _MOST_PRIORITY:
        return priority
    raise _refuse(name, priority, f"a whole number from -{_MOST_PRIORITY} to {_MOST_PRIORITY}")


def check_time(name: str, time: Any) -> datetime | None:
    """`time`, if it is one moment everywhere.

    Raises:
        InvalidValue: Not a datetime, or one without a time zone.
    """
    if time is None:
        return None
    if not isinstance(time, datetime) or time.utcoffset() is None:
        raise _refuse(name, time, "a datetime with a time zone")
    return time


def check_concurrency(name: str, concurrency: Concurrency | Mapping[str, Any]) -> Concurrency:
    """`concurrency` as an object.

    Raises:
        InvalidValue: Neither one nor a mapping with its fields, or a field does not fit.
    """
    item = _check_item(name, concurrency, Concurrency, ("key",))
    check_text(f"{name}.key", item.key)
    if not item.key:
        raise InvalidValue.of(f"{name}.key", "must not be empty")
    if not (_is_between(item.limit, (int,), MAX_PAGE_SIZE) and item.limit >= 1):
        raise _refuse(f"{name}.limit", item.limit, f"a whole number from 1 to {MAX_PAGE_SIZE}")
    if item.strategy not in get_args(Strategy):
        raise _refuse(f"{name}.strategy", item.strategy, f"one of {', '.join(get_args(Strategy))}")
    return item


def check_retry(name: str, policy: RetryPolicy | Mapping[str, Any]) -> RetryPolicy:
    """`policy` as an object.

    Raises:
        InvalidValue: Neither one nor a mapping with its fields, or a field does not fit.
    """
    item = _check_item(name, policy, RetryPolicy, ())
    attempts, multiplier = item.max_attempts, item.multiplier
    if attempts is not None and not (_is_between(attempts, (int,), _MOST_ATTEMPTS) and attempts >= 1):
        raise _refuse(f"{name}.max_attempts", attempts, f"a whole number from 1 to {_MOST_ATTEMPTS}")
    check_seconds(f"{name}.initial_backoff", item.initial_backoff)
    check_seconds(f"{name}.max_backoff", item.max_backoff)
    if multiplier is not None and not (_is_between(multiplier, (int, float), MAX_SECONDS) and multiplier >= 1):
        raise _refuse(f"{name}.multiplier", multiplier, f"a number from 1 to {MAX_SECONDS}")
    return item


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
            raise InvalidValue.of(name, f"has the key {key!r}, known are {', '.join(known)}")
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


def _check_member(name: str, value: Any, kind: type[E]) -> E:
    known = {member.value: member for member in kind}
    # Not `in known`: what is given may have no hash.
    if not isinstance(value, str) or value not in known:
        raise _refuse(name, value, f"one of {', '.join(known)}")
    return known[value]


def _is_between(value: Any, kinds: tuple[type[float], ...], most: int) -> bool:
    # NaN is not between anything.
    return isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value <= most


def _refuse(name: str, value: object, expected: str) -> InvalidValue:
    return InvalidValue.of(name, f"is {value!r}, must be {expected}")
