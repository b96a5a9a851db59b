from __future__ import annotations

import io
from typing import Any

import pytest
from django.test import override_settings
from rest_framework.exceptions import ParseError

from django_agent_runtime.api.parsers import BodyTooLarge, BoundedJSONParser


def parse(text: bytes) -> Any:
    return BoundedJSONParser().parse(io.BytesIO(text), "application/json", {})


def test_json_is_parsed() -> None:
    assert parse(b'{"a": [1, null]}') == {"a": [1, None]}


def test_body_at_the_limit_is_read_and_one_byte_more_is_refused() -> None:
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=4):
        assert parse(b'"ab"') == "ab"
        with pytest.raises(BodyTooLarge):
            parse(b'"abc"')


def test_no_limit_is_a_setting_too() -> None:
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=None):
        assert parse(b'"' + b"a" * 5_000_000 + b'"') == "a" * 5_000_000


@pytest.mark.parametrize("text", [b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b"{", b"NaN", b"\xff"])
def test_what_is_no_usable_json_is_the_callers_fault(text: bytes) -> None:
    with pytest.raises(ParseError):
        parse(text)
