"""Deletions of runs and conversations, and what the runtime is told of them."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone

from django_agent_runtime.exceptions import (
    AgentRuntimeError,
    CallTimedOut,
    PermissionDenied,
    RunEnded,
    RunNotFound,
    RuntimeUnavailable,
)
from django_agent_runtime.live import get_hurried_runtime
from django_agent_runtime.models import OPEN_STATUSES, AbandonedRun, AgentConversation, AgentRun, write_transaction
from django_agent_runtime.principals import DELETE_CONVERSATION_PERMISSION, DELETE_RUN_PERMISSION
from django_agent_runtime.types import ConnectionState

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from django_agent_runtime.go_integration import GoRuntimeIntegration
    from django_agent_runtime.principals import Principal

logger = logging.getLogger(__name__)


def delete_run(*, actor: Principal, run: AgentRun) -> None:
    """Delete a run with its events; one that has not ended is cancelled.

    The rows are gone at once, whether or not the runtime can be reached: the cancel is passed on when it is back. What
    the runtime keeps of the run it removes by itself, as of any run that has ended.

    Raises:
        PermissionDenied: The actor neither owns the run nor has the permission to delete runs.
    """
    if not (actor.owns(run) or actor.has_permission(DELETE_RUN_PERMISSION)):
        raise PermissionDenied("Only the owner of a run may delete it.")
    rows = AgentRun.objects.filter(pk=run.pk)
    _delete(rows, runs=rows)


def delete_conversation(*, actor: Principal, conversation: AgentConversation) -> None:
    """Delete a conversation with its runs and their events, as `delete_run` does.

    Raises:
        PermissionDenied: The actor neither owns it nor has the permission to delete conversations.
    """
    if not (actor.owns(conversation) or actor.has_permission(DELETE_CONVERSATION_PERMISSION)):
        raise PermissionDenied("Only the owner of a conversation may delete it.")
    rows = AgentConversation.objects.filter(pk=conversation.pk)
    _delete(rows, runs=AgentRun.objects.filter(conversation=conversation.pk))


def _delete(rows: QuerySet[AgentRun] | QuerySet[AgentConversation], *, runs: QuerySet[AgentRun]) -> None:
    """Delete rows, and then have the runtime cancel the runs that were among them."""
    with write_transaction():
        abandoned = list(runs.filter(status__in=OPEN_STATUSES).values_list("pk", flat=True))
        rows.delete()

        def pass_on() -> None:
            # Many may be deleted at once: one that does not get through is enough.
            if get_hurried_runtime().connection_state is ConnectionState.RECONNECTING:
                return
            with suppress(RuntimeUnavailable, CallTimedOut):
                for note in AbandonedRun.objects.filter(run_id__in=abandoned):
                    pass_on_deletion(note)

        # The rows are gone, whatever becomes of this; what does not come through is the reconciler's.
        if abandoned:
            transaction.on_commit(pass_on, robust=True)


def pass_on_deletion(note: AbandonedRun, runtime: GoRuntimeIntegration | None = None) -> None:
    """Have the runtime cancel a deleted run; the note stays until it has, or has twice not known the run.

    Raises:
        RuntimeUnavailable: The runtime cannot be reached.
        CallTimedOut: It did not answer in time.
    """
    try:
        with suppress(RunEnded):
            (runtime or get_hurried_runtime()).cancel_run(str(note.run_id), "its row was deleted")
    except (RuntimeUnavailable, CallTimedOut):
        raise
    except RunNotFound:
        if note.missed_at is None:
            AbandonedRun.objects.filter(pk=note.pk).update(missed_at=timezone.now())
            return
    except AgentRuntimeError as error:
        logger.warning("cancel of a deleted run refused", extra={"run_id": str(note.run_id), "err": str(error)})
        return
    AbandonedRun.objects.filter(pk=note.pk).delete()
