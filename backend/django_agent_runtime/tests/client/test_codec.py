from __future__ import annotations

import datetime as dt
import decimal
import math
import subprocess
import sys
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_agent_runtime._codec import MAX_DEPTH, check_key, decode, decode_object, encode, encode_object
from django_agent_runtime.exceptions import InvalidValue

# Lone surrogates included: JSON can carry them, so they must come back.
text = st.text(st.characters(codec=None))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=30)


def nest(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


def same(left: Any, right: Any) -> bool:
    """Equal, type and sign of zero included."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return bool(left == right)


@given(values)
def test_any_json_value_comes_back_exactly(value: Any) -> None:
    assert same(decode(encode(value)), value)


@pytest.mark.parametrize(
    "value", [2**63 - 1, -(2**63), 10**400, -0.0, 1e308, 5e-324, "😀", "\ud800", "a\ud83dz", "", None, nest(MAX_DEPTH)]
)
def test_values_at_the_edges_come_back_exactly(value: Any) -> None:
    assert same(decode(encode(value)), value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "value is nan"),
        ({"a": [1, {"b": math.inf}]}, 'value["a"][1]["b"] is inf'),
        ({"a": [-math.inf]}, 'value["a"][0] is -inf'),
        ({"a": {1: 2}}, 'value["a"] has the key 1, a int'),
        ([{None: 1}], "value[0] has the key None"),
        (nest(MAX_DEPTH + 1), "nested deeper than 200 levels"),
        ({"a": [object()]}, 'value["a"][0] is no JSON value'),
        ({"a": {1, 2}}, 'value["a"] is no JSON value'),
        (b"bytes", "value is no JSON value"),
    ],
)
def test_what_is_not_json_is_refused_with_its_path(value: Any, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        encode(value)
    assert message in str(caught.value)


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.extend([loop, loop])
    with pytest.raises(InvalidValue, match="nested deeper"):
        encode(loop)


def test_other_types_follow_djangos_encoder() -> None:
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc)
    number = uuid.UUID(int=7)
    assert decode(encode({"at": moment, "price": decimal.Decimal("1.10"), "id": number})) == {
        "at": "2026-01-02T03:04:05Z",
        "price": "1.10",
        "id": "00000000-0000-0000-0000-000000000007",
    }


def test_without_django_other_types_are_refused() -> None:
    code = (
        "import sys; sys.modules['django'] = None\n"
        "from django_agent_runtime._codec import encode\n"
        "import uuid\n"
        "try:\n    encode([uuid.uuid4()])\nexcept ValueError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "value[0] is no JSON value" in done.stdout


@pytest.mark.parametrize("key", ["a", "é" * 256, "k" * 512, "a/b.c *>", "\0"])
def test_keys_up_to_512_bytes_are_accepted(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", "must not be empty"),
        ("k" * 513, "513 bytes"),
        ("é" * 257, "514 bytes"),
        ("\ud800", "not valid Unicode"),
        (7, "must be a string, not int"),
    ],
)
def test_other_keys_are_refused(key: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        check_key(key)


def test_objects_must_be_mappings() -> None:
    assert encode_object(None, "metadata") == b""
    assert encode_object({}, "metadata") == b""
    assert decode_object(encode_object({"a": 1}, "metadata")) == {"a": 1}
    assert decode_object(b"") == {}
    for wrong in ([], [1], "text", 3):
        with pytest.raises(InvalidValue, match="metadata must be a dict"):
            encode_object(wrong, "metadata")  # type: ignore[arg-type]
