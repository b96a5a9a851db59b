"""JSON in and out, exactly.

What `encode` accepts comes back from `decode` as the same JSON value: integers of any size, the sign of -0.0,
lone surrogates. What JSON cannot say is refused here, naming the path of the value at fault, before anything
is sent. Types that JSON does not know (datetime, Decimal, UUID…) follow Django's encoder where Django is installed.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from .exceptions import InvalidValue

__all__ = [
    "MAX_DEPTH",
    "MAX_KEY_BYTES",
    "check_event_pattern",
    "check_event_type",
    "check_key",
    "check_text",
    "decode",
    "decode_object",
    "encode",
    "encode_object",
]

MAX_DEPTH = 200
MAX_KEY_BYTES = 512
MAX_TYPE_BYTES = 200

_SCALARS = (str, int, float, bool, type(None))


def encode(value: Any, name: str = "value") -> bytes:
    """`value` as a JSON text in UTF-8.

    Args:
        value: dicts with string keys, lists, tuples, strings, numbers, booleans, None, and what Django's JSON
            encoder knows; nested at most 200 levels.
        name: What the value is called in errors.

    Raises:
        InvalidValue: Not JSON: NaN or infinity, a key that is no string, deeper than 200 levels, or another type.
    """
    if type(value) not in _SCALARS:
        _check_containers(value, name)
    try:
        text = "".join(_encode_parts(value, 0))
    except (ValueError, TypeError) as error:
        raise _locate(value, name, error) from error
    try:
        return text.encode()
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8, but JSON can write it as an escape.
        return _ascii_encoder.encode(value).encode()


def encode_object(value: Mapping[str, Any] | None, name: str) -> bytes:
    """`value` as a JSON object; empty bytes for None or an empty mapping.

    Raises:
        InvalidValue: Not a mapping, or as in `encode`.
    """
    if not value:
        if value is None or isinstance(value, Mapping):
            return b""
    elif isinstance(value, dict):
        return encode(value, name)
    elif isinstance(value, Mapping):
        return encode(dict(value), name)
    raise InvalidValue(f"{name} must be a dict, not {type(value).__name__}", violations=[(name, "must be a dict")])


def decode(text: bytes) -> Any:
    """The value of a JSON text."""
    try:
        characters = text.decode()
        value, end = _scan(characters, 0)
    except (UnicodeDecodeError, StopIteration):
        return json.loads(text)
    # Space around a value, of a client that writes it, is for the slower way.
    return value if end == len(characters) else json.loads(text)


def decode_object(text: bytes) -> dict[str, Any]:
    """The dict of a JSON object; empty bytes are an empty one."""
    value: dict[str, Any] = decode(text) if text else {}
    return value


def check_key(key: str) -> str:
    """`key`, if it can be a key of the shared state.

    Raises:
        InvalidValue: Not a string, empty, above 512 bytes of UTF-8, or not UTF-8 at all.
    """
    return _check_name("key", key, MAX_KEY_BYTES)


def check_event_type(event_type: str) -> str:
    """`event_type`, if an event can be published with it.

    Raises:
        InvalidValue: Not a string, empty, above 200 bytes of UTF-8, not UTF-8 at all, or with a `*`.
    """
    if "*" in _check_name("event_type", event_type, MAX_TYPE_BYTES):
        raise InvalidValue.of("event_type", f"is {event_type!r}; a `*` is for subscriptions")
    return event_type


def check_event_pattern(event_type: str) -> str:
    """`event_type`, if one can subscribe to it: a type, or the beginning of types with a `*` behind it.

    Raises:
        InvalidValue: As in `check_event_type`, or a `*` that is not at the end.
    """
    if "*" in _check_name("event_type", event_type, MAX_TYPE_BYTES)[:-1]:
        raise InvalidValue.of(
            "event_type", f"is {event_type!r}; a `*` can stand at the end only, for all that begins so"
        )
    return event_type


def check_text(name: str, text: str) -> str:
    """`text`, if it can be sent: any string that has a UTF-8.

    Raises:
        InvalidValue: Not a string, or one with a lone surrogate.
    """
    if not isinstance(text, str):
        raise InvalidValue.of(name, f"must be a string, not {type(text).__name__}")
    if not text.isascii():
        _size_of(name, text)
    return text


def _check_name(name: str, text: str, most: int) -> str:
    if not isinstance(text, str):
        raise InvalidValue.of(name, f"must be a string, not {type(text).__name__}")
    if not text:
        raise InvalidValue.of(name, "must not be empty")
    size = len(text) if text.isascii() else _size_of(name, text)
    if size > most:
        raise InvalidValue.of(name, f"has {size} bytes of UTF-8, the limit is {most}")
    return text


def _size_of(name: str, text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidValue.of(name, f"{text!r} is not valid Unicode") from error


def _check_containers(value: Any, name: str) -> None:
    """Check what the JSON encoder would let through: keys that are no strings, and depth.

    Level by level, so that flat values cost one pass and deep ones no recursion; each container once a level,
    so that a value that contains itself is found too deep instead of growing without end.
    """
    level: Iterable[Any] = (value,)
    for _ in range(MAX_DEPTH):
        below: dict[int, Any] = {}
        for container in level:
            if isinstance(container, dict):
                for key in container:
                    if not isinstance(key, str):
                        path = _path_of(value, name, container)
                        raise InvalidValue.of(
                            path, f"has the key {key!r}, a {type(key).__name__}; keys must be strings"
                        )
                children: Any = container.values()
            elif isinstance(container, (list, tuple)):
                children = container
            else:
                continue
            for child in children:
                if type(child) not in _SCALARS:
                    below[id(child)] = child
        if not below:
            return
        level = below.values()
    if any(isinstance(item, (dict, list, tuple)) for item in level):
        raise InvalidValue.of(name, f"is nested deeper than {MAX_DEPTH} levels")


def _default(value: Any) -> Any:
    return _fallback_encoder().default(value)


@functools.cache
def _fallback_encoder() -> json.JSONEncoder:
    try:
        # On the first value that needs it: Django is optional, and importing it is not free.
        from django.core.serializers.json import DjangoJSONEncoder  # noqa: PLC0415
    except ImportError:
        return json.JSONEncoder()
    return DjangoJSONEncoder()


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_default)
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # typeshed hides it
_ascii_encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_default)


def _make_parts_encoder() -> Callable[[Any, int], Iterable[str]]:
    """`_encoder` without what it does anew for each value: most of the time that a small one takes."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return lambda value, _indent: _encoder.iterencode(value)
    # Nothing contains itself any more where this is called: that would be nested too deep.
    encoder: Callable[[Any, int], Iterable[str]] = make(
        None, _default, json.encoder.encode_basestring, None, ":", ",", False, False, False
    )
    return encoder


_encode_parts = _make_parts_encoder()


def _locate(value: Any, name: str, cause: Exception) -> InvalidValue:
    """The error for a value that the encoder refused, with the path of the part at fault."""
    for path, part in _walk(value, name):
        if isinstance(part, float):
            if not math.isfinite(part):
                return InvalidValue.of(path, f"is {part!r}, which JSON has no number for")
        elif not isinstance(part, (*_SCALARS, dict, list, tuple)):
            try:
                _default(part)
            except (TypeError, ValueError) as error:
                return InvalidValue.of(path, f"is no JSON value: {error}")
    return InvalidValue.of(name, f"is no JSON value: {cause}")


def _path_of(value: Any, name: str, container: Any) -> str:
    return next((path for path, part in _walk(value, name) if part is container), name)


def _walk(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every part of `value` with its path, such as `value["items"][3]`."""
    stack = [(name, value)]
    while stack:
        path, part = stack.pop()
        yield path, part
        if isinstance(part, dict):
            stack.extend((f"{path}[{json.dumps(key)}]", child) for key, child in part.items() if isinstance(key, str))
        elif isinstance(part, (list, tuple)):
            stack.extend((f"{path}[{index}]", child) for index, child in enumerate(part))
