"""Chat messages in the framework-neutral format, and how lists of them are put together.

A message is a JSON object with a `role` (`system`, `user`, `assistant`, `tool`), its `content`, and what the role
needs: `tool_calls` of an assistant, `tool_call_id` of a tool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

Message: TypeAlias = "dict[str, Any]"

# What an agent puts before the messages it was given. No sets: rows have roles that have no hash.
_INSTRUCTION_ROLES = ("system", "developer")
# What an agent adds behind them.
_ANSWER_ROLES = ("assistant", "tool")


def append_new(history: list[Message], messages: object, *, asked: object = None) -> None:
    """Append those of `messages` that `history` does not have already.

    Callers and agents differ in what they hand over: only what is new, the latest part of the conversation with it,
    or all of it, with or without instructions in front. So what both share, the end of the one and the beginning of
    the other, is taken once. So is a beginning that is of the whole history but lacks a part of it: what was not
    answered yet, or had failed, when it was read. What is no list of objects is taken as empty: rows are filled by
    many hands.

    A message that is equal to the last one of the history, and comes alone, counts once for that: nobody can tell
    whether it was said again, or the history was handed over once more with nothing new. Only an answer between them,
    which an agent leaves in its `final_messages`, keeps them apart.

    Args:
        history: What was said so far.
        messages: What was handed over.
        asked: Of what an agent handed over: the messages that it was given, which it may have put in front.
    """
    if not isinstance(messages, list):
        return
    given: list[Message] = [message for message in messages if isinstance(message, dict)]
    offered = [_essence(message) for message in given]
    # Instructions that are new, or stand elsewhere, would hide what is shared behind them.
    places = [place for place, essence in enumerate(offered) if not _is_instruction(essence)]
    said = [offered[place] for place in places]
    given_to_agent = _said(asked)
    if given_to_agent and said[: len(given_to_agent)] == given_to_agent:
        # It returns what it was given, and its own behind that.
        shared = len(given_to_agent)
    else:
        conversation = [message for message in history if not _is_instruction(message)]
        shared = max(_overlap(conversation, said), _beginning(conversation, said))
    begin = places[shared - 1] + 1 if shared else 0
    instructions = {_freeze(_essence(message)) for message in history if _is_instruction(message)}
    history.extend(
        message
        for message, essence in zip(given[begin:], offered[begin:], strict=True)
        if not (_is_instruction(message) and _freeze(essence) in instructions)
    )


def _said(messages: object) -> list[Message]:
    """What is no instruction, in essence."""
    if not isinstance(messages, list):
        return []
    said = (message for message in messages if isinstance(message, dict) and not _is_instruction(message))
    return [_essence(message) for message in said]


def _overlap(known: Sequence[Message], offered: Sequence[Message]) -> int:
    """The largest number of messages that `known` ends with and `offered`, in essence, begins with.

    By the prefix function of Knuth, Morris and Pratt: to try each number takes time by its square.
    """
    # No message is equal to the None between them, so nothing that is shared goes on behind it.
    text = [*offered, None, *map(_essence, known[max(len(known) - len(offered), 0) :])]
    # For each place, how many messages that end there `text` begins with, unless they are all up to there.
    sizes = [0]
    for message in text[1:]:
        size = sizes[-1]
        while size and text[size] != message:
            size = sizes[size - 1]
        sizes.append(size + (text[size] == message))
    return sizes[-1]


def _beginning(known: Sequence[Message], offered: Sequence[Message]) -> int:
    """The number of messages that `offered`, in essence, begins with and `known` has from its first on.

    The latter may have others between. They end with an answer, behind which somebody else speaks: the last question is
    new, though it may have been asked before. It is shared only where `known` ends with it, for its answer to follow.
    """
    if not (known and offered and _essence(known[0]) == offered[0]):
        return 0
    unseen = map(_essence, known)
    # Each search goes on behind the message that was found last.
    found = next((size for size, message in enumerate(offered) if message not in unseen), len(offered))
    turns = (size for size in range(1, len(offered)) if _is_answer(offered[size - 1]) and not _is_answer(offered[size]))
    size = max((size for size in turns if size <= found), default=0)
    answered = next((size for size in range(len(known), 0, -1) if _is_answer(known[size - 1])), 0)
    return size + _overlap(known[answered:], offered[size:]) if size else 0


def _essence(message: Message) -> Message:
    """The message without members that say nothing: SDKs write `"tool_calls": null` where others write nothing."""
    return {name: value for name, value in message.items() if value is not None and value != []}


def _freeze(value: Any) -> Hashable:
    """A JSON value as one that has a hash, equal for those that are equal."""
    if isinstance(value, dict):
        return frozenset((name, _freeze(member)) for name, member in value.items())
    if isinstance(value, list):
        return tuple(_freeze(member) for member in value)
    if isinstance(value, (int, float)):
        # Numbers of the same hash are easily made, by which a set becomes as slow as a list. Those of texts have salt.
        return repr(int(value) if value % 1 == 0 else value).encode()
    return value  # type: ignore[no-any-return]


def _is_instruction(message: Message) -> bool:
    return message.get("role") in _INSTRUCTION_ROLES


def _is_answer(message: Message) -> bool:
    return message.get("role") in _ANSWER_ROLES
