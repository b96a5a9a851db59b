"""What the runtime and the rows were not told of each other, and are told later."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone

from django_agent_runtime.exceptions import AgentRuntimeError, CallTimedOut, RunEnded, RunNotFound, RuntimeUnavailable
from django_agent_runtime.live import get_hurried_runtime
from django_agent_runtime.models import OPEN_STATUSES, AbandonedRun, AgentEvent, AgentRun, RunStatus, write_transaction
from django_agent_runtime.projection import PROJECTED_FIELDS, project_run
from django_agent_runtime.services.cancellation import pass_on_cancel
from django_agent_runtime.services.deletion import pass_on_deletion
from django_agent_runtime.services.ends import end_unknown
from django_agent_runtime.services.submission import resubmit

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from django_agent_runtime.go_integration import GoRuntimeIntegration

logger = logging.getLogger(__name__)


# The most rows that one call of the reconciler sends.
RECONCILE_ROWS = 500
# So many rows may fail for reasons of their own before the runtime is left alone for a while.
MOST_STUCK = 20
# A cancel that was acknowledged and has not been projected for so long is passed on again: the runtime's journal may
# have been lost meanwhile.
REPEAT_CANCEL_SECONDS = 60
# Longer than any call that hands over a run: the runtime is asked once more for a deleted one that it did not know.
ASK_AGAIN_SECONDS = 60


def reconcile_runs(*, runtime: GoRuntimeIntegration | None = None, limit: int = RECONCILE_ROWS) -> int:
    """Send what the runtime has not acknowledged, oldest first, and pass on what it was not told: cancels, deletions.

    Several processes may do so at once, without locks: the runtime joins a run that it has, and each process sends
    the runs in order, so that none overtakes another. (Rows that one process locked and the others skipped would.)
    It returns early when the runtime cannot be reached or takes no more for now.

    Args:
        runtime: The client to use; None: the one that gives up early.
        limit: The most rows of each kind.

    Returns:
        How many runs were acknowledged.
    """
    now = timezone.now()
    acknowledged_before = now - timedelta(seconds=REPEAT_CANCEL_SECONDS)
    missed_before = now - timedelta(seconds=ASK_AGAIN_SECONDS)
    try:
        for note in AbandonedRun.objects.due(missed_before=missed_before)[:limit]:
            pass_on_deletion(note, runtime)
        for run in AgentRun.objects.with_cancel_requests(acknowledged_before=acknowledged_before)[:limit]:
            _reconcile_cancel(run, runtime)
    except (RuntimeUnavailable, CallTimedOut):
        return 0
    sent = stuck = 0
    for run in AgentRun.objects.unsubmitted().filter(cancel_requested_at=None)[:limit]:
        if not resubmit(run, runtime) or stuck > MOST_STUCK:
            break
        sent += run.submitted_at is not None
        stuck += run.submitted_at is None and not run.has_ended
    return sent


def refresh_run(*, run: AgentRun, runtime: GoRuntimeIntegration | None = None) -> AgentRun:
    """Write to the row what the runtime says of the run now: for rows whose events the projector cannot get.

    A run that the runtime does not know any more ends as `failed`.

    Raises:
        RuntimeUnavailable: The runtime cannot be reached.
    """
    runtime = runtime or get_hurried_runtime()
    try:
        live = runtime.get_run(str(run.pk))
    except RunNotFound as error:
        end_unknown(run, RunStatus.FAILED, error, was_accepted=True)
        return run
    with write_transaction():
        row = AgentRun.objects.select_for_update().filter(pk=run.pk).first()
        if row is None:
            # It was deleted meanwhile.
            return run
        if project_run(row, live):
            row.save(update_fields=PROJECTED_FIELDS)
    return row


def refresh_open_runs(
    *, runtime: GoRuntimeIntegration | None = None, after: UUID | None = None, limit: int | None = None
) -> UUID | None:
    """`refresh_run` for some of the runs that have not ended, where events were lost that may have said so.

    Args:
        runtime: The client to use; None: the one that gives up early.
        after: What the call before returned; None: begin.
        limit: The most that are asked after; None: all.

    Returns:
        The id to go on after; None: that was the last.

    Raises:
        RuntimeUnavailable: The runtime cannot be reached.
    """
    rows = AgentRun.objects.filter(status__in=OPEN_STATUSES, submitted_at__isnull=False).order_by("pk")
    if after is not None:
        rows = rows.filter(pk__gt=after)
    runs = list(rows[:limit])
    for run in runs:
        refresh_run(run=run, runtime=runtime)
    return runs[-1].pk if len(runs) == limit else None


def forget_progress(*, hold: Callable[[], None], runtime: GoRuntimeIntegration | None = None) -> None:
    """Have the rows of runs that go on in another journal, such as one that was restored, written from its beginning.

    What happened to them behind the copy did not. The row of a run that has ended stays as it is: somebody may have
    acted on it. So does that of one that the journal does not have, which is not done again.

    Args:
        hold: Called in the transaction of each run, before anything is written: whoever projects keeps others out.
        runtime: The client to use; None: the one that gives up early.

    Raises:
        RuntimeUnavailable: The runtime cannot be reached.
    """
    runtime = runtime or get_hurried_runtime()
    for run in AgentRun.objects.filter(status__in=OPEN_STATUSES, last_sequence__gt=0).only("pk").iterator():
        try:
            runtime.get_run(str(run.pk))
        except RunNotFound:
            continue
        with transaction.atomic():
            hold()
            AgentRun.objects.filter(pk=run.pk).update(last_sequence=0)
            AgentEvent.objects.filter(run_id=run.pk).delete()


def _reconcile_cancel(run: AgentRun, runtime: GoRuntimeIntegration | None) -> None:
    try:
        pass_on_cancel(run, "", runtime)
    except (RuntimeUnavailable, CallTimedOut):
        raise
    except RunEnded:
        refresh_run(run=run, runtime=runtime)
    except AgentRuntimeError as error:
        logger.warning("cancel request refused", extra={"run_id": str(run.pk), "err": str(error)})
