"""Cancels: recorded first, and passed on to the runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone

from django_agent_runtime.exceptions import CallTimedOut, RunEnded, RunNotFound, RuntimeUnavailable
from django_agent_runtime.live import get_hurried_runtime
from django_agent_runtime.models import AgentRun, RunStatus
from django_agent_runtime.projection import project_run
from django_agent_runtime.services.ends import end_unknown
from django_agent_runtime.services.requests import check_may_change

if TYPE_CHECKING:
    from django_agent_runtime.go_integration import GoRuntimeIntegration
    from django_agent_runtime.principals import Principal


def cancel_run(*, actor: Principal, run: AgentRun, reason: str = "") -> AgentRun:
    """Have a run end as `cancelled`, for good. One that was cancelled before is returned as it is.

    The request is recorded first, so that it is passed on when the runtime is back: then `status` is still what it
    was, `cancel_requested_at` is set, and so is `stale`.

    Raises:
        PermissionDenied: The actor may not change this run.
        RunEnded: It has ended otherwise.
    """
    check_may_change(actor, run)
    if run.status == RunStatus.CANCELLED:
        return run
    if run.has_ended:
        raise RunEnded(f"The run has already ended as {run.status}.", metadata={"state": run.status})
    run.cancel_requested_at = run.cancel_requested_at or timezone.now()
    AgentRun.objects.filter(pk=run.pk, cancel_requested_at=None).update(cancel_requested_at=run.cancel_requested_at)

    def pass_on() -> None:
        try:
            pass_on_cancel(run, reason)
        except (RuntimeUnavailable, CallTimedOut):
            # What does not come through is the reconciler's.
            run.stale = True

    # Behind the commit of a caller's transaction nobody would expect an error.
    transaction.on_commit(pass_on, robust=transaction.get_connection().in_atomic_block)
    return run


def pass_on_cancel(run: AgentRun, reason: str, runtime: GoRuntimeIntegration | None = None) -> None:
    """Have the runtime cancel a run; one that it does not have ends here.

    Raises:
        RunEnded: It has ended otherwise.
        AgentRuntimeError: The runtime cannot be reached, or refused.
    """
    try:
        live = (runtime or get_hurried_runtime()).cancel_run(str(run.pk), reason)
    except RunNotFound:
        # It was never sent, or the runtime has begun anew.
        end_unknown(run, RunStatus.CANCELLED, None)
    else:
        AgentRun.objects.filter(pk=run.pk).update(cancel_acknowledged_at=timezone.now())
        # Shown to who asked; the row learns of it by the projector.
        project_run(run, live)
