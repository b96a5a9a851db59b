from __future__ import annotations

import io
from typing import Any

import pytest
from rest_framework.exceptions import ParseError

from django_agent_runtime.api.parsers import BoundedJSONParser


def parse(text: bytes) -> Any:
    return BoundedJSONParser().parse(io.BytesIO(text), "application/json", {})


def test_json_is_parsed() -> None:
    assert parse(b'{"a": [1, null]}') == {"a": [1, None]}


@pytest.mark.parametrize("text", [b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b"{", b"NaN", b"\xff"])
def test_what_is_no_usable_json_is_the_callers_fault(text: bytes) -> None:
    with pytest.raises(ParseError):
        parse(text)
