"""Who asks: a signed-in user, or the holder of an anonymous session."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User

    from django_agent_runtime.models import AgentConversation, AgentRun

INTERNAL_EVENTS_PERMISSION = "django_agent_runtime.view_internal_events"
CHANGE_RUN_PERMISSION = "django_agent_runtime.change_agentrun"
DELETE_RUN_PERMISSION = "django_agent_runtime.delete_agentrun"
DELETE_CONVERSATION_PERMISSION = "django_agent_runtime.delete_agentconversation"

# Sessions of a project whose key is no UUID are known here by one made from it.
_SESSION_NAMESPACE = uuid.UUID("7d0c2a34-5c2e-4a53-9a53-0f6f0c9b5a11")


@dataclass(frozen=True, slots=True)
class Principal:
    """One who owns runs and conversations. Nobody, who owns none, has neither."""

    user: User | None = None
    """Of whichever model AUTH_USER_MODEL names."""
    anonymous_session_id: uuid.UUID | None = None

    @classmethod
    def of_user(cls, user: User | AnonymousUser | None) -> Principal:
        """A user; one who is not signed in is nobody."""
        return cls(user=user) if user is not None and user.is_authenticated else cls()

    @classmethod
    def of_session(cls, session: Any) -> Principal:
        """The holder of an instance of the model `ANONYMOUS_SESSION_MODEL`."""
        key = session.pk
        return cls(anonymous_session_id=key if isinstance(key, uuid.UUID) else uuid.uuid5(_SESSION_NAMESPACE, str(key)))

    @property
    def is_nobody(self) -> bool:
        """Whether it can own nothing."""
        return self.user is None and self.anonymous_session_id is None

    @property
    def is_staff(self) -> bool:
        """Whether it is a user who works on the site."""
        return bool(getattr(self.user, "is_staff", False))

    @property
    def label(self) -> str:
        """A name that no other principal has, short, and without anything personal."""
        return f"user:{self.user.pk}" if self.user is not None else f"session:{self.anonymous_session_id or ''}"

    def owner_fields(self) -> dict[str, Any]:
        """What marks a new row as its own."""
        return {"user": self.user, "anonymous_session_id": self.anonymous_session_id}

    def owns(self, row: AgentRun | AgentConversation) -> bool:
        """Whether the row is its own; one that nobody owns belongs to the staff."""
        if row.user_id is not None:
            return self.user is not None and self.user.pk == row.user_id
        if row.anonymous_session_id is not None:
            return self.anonymous_session_id == row.anonymous_session_id
        return self.is_staff

    def has_permission(self, permission: str) -> bool:
        """Whether it is a user with the permission of that name (`app.codename`)."""
        has_perm = getattr(self.user, "has_perm", None)
        return has_perm is not None and bool(has_perm(permission))

    def may_change(self, run: AgentRun) -> bool:
        """Whether it may cancel, answer or repeat the run: its owner may, and who has the permission to change runs."""
        return self.owns(run) or self.has_permission(CHANGE_RUN_PERMISSION)
