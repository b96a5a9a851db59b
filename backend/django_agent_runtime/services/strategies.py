"""What becomes of a new run of a conversation in which others go on, and of those."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import models

from django_agent_runtime.models import OPEN_STATUSES, AgentRun

if TYPE_CHECKING:
    from django.db.models import QuerySet


class MultitaskStrategy(models.TextChoices):
    """What becomes of a new run of a conversation in which another one has not ended.

    It waits, is refused, or has the others cancelled; `rollback` also cancels those that wait for an answer, and takes
    the messages of all that it cancels out of the conversation's history.
    """

    ENQUEUE = "enqueue"
    REJECT = "reject"
    INTERRUPT = "interrupt"
    ROLLBACK = "rollback"


def note_rollback(run: AgentRun) -> None:
    """Note which runs a run with the strategy `rollback` takes back: those before it that have not ended.

    It is noted before the runtime is called, which cancels them, because behind that the projector may be faster. One
    that ends in another way meanwhile is not taken back.
    """
    before = _goes_on_beside(run).filter(created_at__lte=run.created_at, rolled_back_by=None)
    before.exclude(pk=run.pk).update(rolled_back_by=run.pk)


def rolled_back_by_run(run: AgentRun) -> QuerySet[AgentRun]:
    """Those that a run takes back and nobody has asked to cancel."""
    return _goes_on_beside(run).filter(rolled_back_by=run.pk, cancel_requested_at=None)


def _goes_on_beside(run: AgentRun) -> QuerySet[AgentRun]:
    """The runs of its conversation that have not ended; none for a run that takes none back."""
    strategy = run.options.get("multitask_strategy") if isinstance(run.options, dict) else None
    if run.conversation_id is None or strategy != MultitaskStrategy.ROLLBACK:
        return AgentRun.objects.none()
    return AgentRun.objects.filter(conversation_id=run.conversation_id, status__in=OPEN_STATUSES)
