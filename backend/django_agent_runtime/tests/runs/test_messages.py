"""How lists of messages are put together, in general: which conversations come of it is in `test_models.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_agent_runtime.messages import append_new

if TYPE_CHECKING:
    from django_agent_runtime.messages import Message

MANY = 3000

# Few, so that they meet, and equal ones and unequal ones that look alike.
CONTENTS = [
    "1",
    "a",
    1,
    1.0,
    True,
    0,
    -0.0,
    2**70,
    None,
    [],
    [1],
    ["1"],
    [[1.0]],
    {},
    {"a": 1},
    {"a": [True]},
    [["a", 1]],
]
MESSAGES = st.builds(
    lambda role, content: {"role": role, "content": content},
    st.sampled_from(["user", "user", "user", "system", "developer"]),
    st.sampled_from(CONTENTS) | st.sampled_from(["a", "b"]),
)


class Text(str):
    """A text that counts how often one is compared with another."""

    __slots__ = ()
    comparisons: ClassVar[int] = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Text.comparisons += 1
        return str.__eq__(self, other)


def say(role: str, *texts: str) -> list[Message]:
    return [{"role": role, "content": Text(text)} for text in texts]


def put_together(history: list[Message], messages: list[Message]) -> list[Message]:
    """What becomes of messages that nobody answers, by trying every length of what both share."""

    def is_said(message: Message) -> bool:
        return message["role"] not in ("system", "developer")

    def essence(message: Message) -> Message:
        return {name: value for name, value in message.items() if value not in (None, [])}

    known = [essence(message) for message in history if is_said(message)]
    places = [place for place, message in enumerate(messages) if is_said(message)]
    offered = [essence(messages[place]) for place in places]
    sizes = range(min(len(known), len(offered)) + 1)
    shared = max(size for size in sizes if known[len(known) - size :] == offered[:size])
    begin = places[shared - 1] + 1 if shared else 0
    there = [essence(message) for message in history]
    return history + [message for message in messages[begin:] if is_said(message) or essence(message) not in there]


@given(st.lists(MESSAGES, max_size=8), st.lists(MESSAGES, max_size=8))
def test_what_both_share_is_taken_once(history: list[Message], messages: list[Message]) -> None:
    expected = put_together(history, messages)
    append_new(history, messages)
    # As text, for 1 and true are equal.
    assert repr(history) == repr(expected)


@pytest.mark.parametrize(
    ("history", "messages"),
    [
        # What differs comes behind much that does not, wherever the comparison begins.
        (say("user", *["a"] * MANY), say("user", *["a"] * (MANY // 2), "b", *["a"] * (MANY // 2))),
        (say("user", *["a"] * MANY, "b"), say("user", *["a"] * MANY)),
        # The same behind an answer that both begin with.
        (
            [*say("assistant", "Hi"), *say("user", *["a"] * MANY, "b")],
            [*say("assistant", "Hi"), *say("user", *["a"] * MANY)],
        ),
        # Instructions of which none is known.
        (say("system", *map(str, range(MANY))), say("system", *map(str, range(MANY, 2 * MANY)))),
    ],
)
def test_many_messages_take_a_few_comparisons_each(history: list[Message], messages: list[Message]) -> None:
    Text.comparisons = 0
    append_new(history, messages)
    assert Text.comparisons < 20 * MANY


def test_numbers_that_python_hashes_alike_take_no_longer() -> None:
    """Its hash of a number is the remainder of a division by 2 ** 61 - 1, so anybody can have many of the same."""
    history: list[Message] = [{"role": "system", "content": [Text("a"), n * (2**61 - 1)]} for n in range(MANY)]
    instructions: list[Message] = [{"role": "system", "content": [Text("b"), n * (2**61 - 1)]} for n in range(MANY)]
    Text.comparisons = 0
    append_new(history, instructions)
    assert len(history) == 2 * MANY
    assert Text.comparisons < 20 * MANY


@pytest.mark.parametrize("role", [["user"], {}, 1, None])
def test_role_that_is_no_text_is_that_of_a_participant(role: Any) -> None:
    history: list[Message] = [{"role": "user", "content": "a"}]
    append_new(history, [{"role": role, "content": "b"}])
    assert [message["content"] for message in history] == ["a", "b"]
