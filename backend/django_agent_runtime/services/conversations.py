"""Writes of conversations; their runs are `runs`' and `deletion`'s."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django_agent_runtime.exceptions import PermissionDenied
from django_agent_runtime.models import AgentConversation
from django_agent_runtime.services.requests import check_values

if TYPE_CHECKING:
    from django_agent_runtime.principals import Principal


def create_conversation(
    *, actor: Principal, agent_key: str = "", title: str = "", metadata: Mapping[str, Any] | None = None
) -> AgentConversation:
    """Begin a conversation of the actor's own.

    Raises:
        PermissionDenied: The actor can own nothing.
        InvalidRequest: A value cannot be kept.
    """
    if actor.is_nobody:
        raise PermissionDenied("Sign in to begin a conversation.")
    check_values(agent_key=agent_key, title=title, metadata=dict(metadata or {}))
    return AgentConversation.objects.create(
        **actor.owner_fields(), agent_key=agent_key, title=title, metadata=dict(metadata or {})
    )


def update_conversation(
    *,
    actor: Principal,
    conversation: AgentConversation,
    title: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> AgentConversation:
    """Change the title or the metadata; what is None stays.

    Raises:
        PermissionDenied: It is another's.
        InvalidRequest: A value cannot be kept.
    """
    if not actor.owns(conversation):
        raise PermissionDenied("Only the owner of a conversation may change it.")
    if title is not None:
        conversation.title = title
    if metadata is not None:
        conversation.metadata = dict(metadata)
    check_values(title=conversation.title, metadata=conversation.metadata)
    conversation.save(update_fields=["title", "metadata", "updated_at"])
    return conversation
