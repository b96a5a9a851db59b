"""Inputs and outputs as they may stand in a span: what is secret masked, and not too long."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_jsonable_python

__all__ = ["DEFAULT_REDACTED", "MASK", "Redactor", "is_member_pattern"]

DEFAULT_REDACTED = (
    "password",
    "passwd",
    "secret",
    "token",
    "authorization",
    "cookie",
    "*_password",
    "*_secret",
    "*_token",
    "*_key",
    "apikey",
)
"""Those of the runtime's `--trace-redact`."""

MASK = "[redacted]"

# For a whole, and for a text in it: cut first at the first step and, while the whole is too large, at the next.
_MOST_BYTES = 64 << 10
_TEXT_STEPS = (16 << 10, 2 << 10, 256)
# JSON texts inside of JSON texts that are looked into.
_MOST_NESTED = 3


def is_member_pattern(name: object) -> bool:
    """Whether `name` can be the name of a JSON member, in which * stands for any characters."""
    return isinstance(name, str) and bool(name.strip()) and not re.search(r"[?\[\]\\/,]", name)


class Redactor:
    """Masks the values of JSON members by their names, in any case of letters."""

    def __init__(self, names: Sequence[str]) -> None:
        """Names, in which * stands for any characters."""
        patterns = "|".join(re.escape(name).replace(r"\*", ".*") for name in names)
        self._pattern = re.compile(f"(?:{patterns})", re.IGNORECASE | re.DOTALL) if patterns else None

    def text(self, value: Any) -> str:
        """`value` as JSON; what is none becomes its text."""
        plain = self._redact(to_jsonable_python(value, fallback=str, inf_nan_mode="null"), 0)
        for longest in _TEXT_STEPS:
            text = _encode(_cut(plain, longest))
            if len(text.encode(errors="replace")) <= _MOST_BYTES:
                return text
        return _encode(f"[{len(_encode(plain))} characters of JSON, more than the limit of {_MOST_BYTES} bytes]")

    def _redact(self, value: Any, nested: int) -> Any:
        if isinstance(value, Mapping):
            return {
                name: MASK
                if self._pattern is not None and self._pattern.fullmatch(str(name))
                else self._redact(item, nested)
                for name, item in value.items()
            }
        if isinstance(value, list):
            return [self._redact(item, nested) for item in value]
        if isinstance(value, str) and nested < _MOST_NESTED and value.lstrip()[:1] in {"{", "["}:
            # JSON itself, such as the arguments of a tool.
            try:
                inner = json.loads(value)
            except (ValueError, RecursionError):
                return value
            return _encode(self._redact(inner, nested + 1))
        return value


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, Mapping):
        return {name: _cut(item, longest) for name, item in value.items()}
    if isinstance(value, list):
        return [_cut(item, longest) for item in value]
    if isinstance(value, str) and len(value) > longest:
        return f"{value[:longest]}… [{len(value)} characters]"
    return value


def _encode(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
