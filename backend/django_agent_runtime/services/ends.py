"""The end of runs that the runtime does not have, which nobody else would write."""

from __future__ import annotations

from django.db import models, transaction
from django.utils import timezone

from django_agent_runtime.exceptions import AgentRuntimeError
from django_agent_runtime.models import OPEN_STATUSES, AgentEvent, AgentRun, EventVisibility, RunStatus
from django_agent_runtime.services.strategies import rolled_back_by_run

# The runtime's sequences begin behind it: the only event of a run that ended before the runtime had it.
LOCAL_END_SEQUENCE = 1


def end_unknown(
    run: AgentRun, status: RunStatus, refusal: AgentRuntimeError | None, *, was_accepted: bool = False
) -> None:
    """End a run that the runtime does not have, with the event that its readers wait for."""
    now = timezone.now()
    never_began = refusal is not None and not was_accepted
    cancelled = "The run was cancelled before it began." if not run.last_sequence else "The run was cancelled."
    run.status, run.finished_at = status, now
    run.error = {
        "message": str(refusal) if refusal else cancelled,
        "reason": refusal.reason if refusal else "RUN_CANCELLED",
        "retryable": not never_began,
        "error_type": "",
    }
    payload = {"error": run.error["message"], "reason": run.error["reason"], "error_type": ""}
    with transaction.atomic():
        # A refused request gives its key back: it may be sent again.
        # Nothing is done to one of which the projector has learned something since it was read.
        unchanged = AgentRun.objects.filter(pk=run.pk, status__in=OPEN_STATUSES, last_sequence=run.last_sequence)
        if never_began:
            # The runtime may have accepted it from somebody else meanwhile.
            unchanged = unchanged.filter(submitted_at=None)
        changed = unchanged.update(
            status=status, error=run.error, finished_at=now, **({"idempotency_key": ""} if never_began else {})
        )
        if changed:
            if not was_accepted:
                # What never began takes nothing back.
                rolled_back_by_run(run).update(rolled_back_by=None)
            latest = AgentEvent.objects.filter(run=run).aggregate(seq=models.Max("seq"))["seq"]
            AgentEvent.objects.bulk_create(
                [
                    AgentEvent(
                        run=run,
                        seq=LOCAL_END_SEQUENCE + (latest or 0),
                        event_type=f"run.{status.value}",
                        payload=payload,
                        visibility=EventVisibility.USER,
                        timestamp=now,
                    )
                ],
                ignore_conflicts=True,
            )
