"""What the playground does for the one who sits before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_agent_runtime import services
from django_agent_runtime.exceptions import InvalidRequest

if TYPE_CHECKING:
    from backend.apps.agents.selectors import Choice
    from django_agent_runtime.models import AgentConversation, AgentRun
    from django_agent_runtime.principals import Principal

MAX_TITLE_CHARACTERS = 60


def start_conversation(*, actor: Principal, choice: Choice, text: str) -> AgentRun:
    """Begin a conversation with an agent by a first message.

    Raises:
        InvalidRequest: The message is empty.
        AgentRuntimeError: As in `services.create_run` of the library.
    """
    _check_text(text)
    title = " ".join(text.split())
    title = title if len(title) <= MAX_TITLE_CHARACTERS else f"{title[: MAX_TITLE_CHARACTERS - 1]}…"
    conversation = services.create_conversation(
        actor=actor, agent_key=choice.agent_key, title=title, metadata={"params": choice.params}
    )
    return send_message(actor=actor, conversation=conversation, text=text)


def send_message(*, actor: Principal, conversation: AgentConversation, text: str) -> AgentRun:
    """Have the conversation's agent answer one more message, with all that was said before.

    Raises:
        InvalidRequest: The message is empty.
        AgentRuntimeError: As in `services.create_run` of the library.
    """
    _check_text(text)
    run, _created = services.create_run(
        actor=actor,
        agent_key=conversation.agent_key,
        messages=[*conversation.get_message_history(), {"role": "user", "content": text}],
        conversation=conversation,
        params=conversation.metadata.get("params"),
    )
    return run


def _check_text(text: str) -> None:
    if not text.strip():
        raise InvalidRequest("Write a message first.")
