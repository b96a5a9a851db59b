"""What the pages of graphs do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import PermissionDenied

from django_agent_runtime.go_integration import get_go_runtime_integration
from django_agent_runtime.live import get_hurried_runtime

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

    from django_agent_runtime.types import DocumentProblems, GraphDefinition


def check_may_register(actor: AbstractBaseUser | AnonymousUser) -> None:
    """Graphs decide what runs do for everybody: they are for the staff.

    Raises:
        PermissionDenied: The actor is not of the staff.
    """
    if not getattr(actor, "is_staff", False):
        raise PermissionDenied("Graphs are for the staff.")


def validate_graph(*, actor: AbstractBaseUser | AnonymousUser, document: str) -> DocumentProblems:
    """All that is wrong with a document.

    Raises:
        PermissionDenied: The actor is not of the staff.
        AgentRuntimeError: The runtime cannot say.
    """
    check_may_register(actor)
    return get_hurried_runtime().validate_graph(document)


def register_graph(*, actor: AbstractBaseUser | AnonymousUser, document: str) -> GraphDefinition:
    """Make a document a graph that new runs use.

    Raises:
        PermissionDenied: The actor is not of the staff.
        InvalidRequest: The document has mistakes.
        AgentRuntimeError: The runtime cannot take it.
    """
    check_may_register(actor)
    return get_go_runtime_integration().register_graph(document)
