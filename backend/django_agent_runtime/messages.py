"""Chat messages in the framework-neutral format, and how lists of them are put together.

A message is a JSON object with a `role` (`system`, `user`, `assistant`, `tool`), its `content`, and what the role
needs: `tool_calls` of an assistant, `tool_call_id` of a tool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Message: TypeAlias = "dict[str, Any]"

# What an agent puts before the messages it was given.
_INSTRUCTION_ROLES = frozenset({"system", "developer"})


def append_new(history: list[Message], messages: object) -> None:
    """Append those of `messages` that `history` does not end with already.

    Callers and agents differ in what they hand over: only what is new, the latest part of the conversation with it,
    or all of it, with or without instructions in front. So what both share, the end of the one and the beginning of
    the other, is taken once. What is no list of objects is taken as empty: rows are filled by many hands.

    A message that is equal to the last one of the history, and comes alone, counts once for that: nobody can tell
    whether it was said again, or the history was handed over once more with nothing new. Only an answer between them,
    which an agent leaves in its `final_messages`, keeps them apart.
    """
    if not isinstance(messages, list):
        return
    given: list[Message] = [message for message in messages if isinstance(message, dict)]
    known = [_essence(message) for message in history]
    offered = [_essence(message) for message in given]
    shared = _overlap(known, offered)
    if not shared:
        # Instructions that are new, or stand elsewhere, hide what is shared behind them.
        begin = next((at for at, message in enumerate(given) if not _is_instruction(message)), len(given))
        conversation = [essence for essence in known if essence.get("role") not in _INSTRUCTION_ROLES]
        behind = _overlap(conversation, offered[begin:])
        if behind:
            shared = begin + behind
    history.extend(
        message
        for message, essence in zip(given[shared:], offered[shared:], strict=True)
        if not (_is_instruction(message) and essence in known)
    )


def _overlap(known: Sequence[Message], offered: Sequence[Message]) -> int:
    """The largest number of messages that `known` ends with and `offered` begins with."""
    for size in range(min(len(known), len(offered)), 0, -1):
        if known[-size:] == offered[:size]:
            return size
    return 0


def _essence(message: Message) -> Message:
    """The message without members that say nothing: SDKs write `"tool_calls": null` where others write nothing."""
    return {name: value for name, value in message.items() if value is not None and value != []}


def _is_instruction(message: Message) -> bool:
    return message.get("role") in _INSTRUCTION_ROLES
