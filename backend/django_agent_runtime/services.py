"""Every write of runs and conversations, and every call to the runtime that goes with one.

A service writes its row, and once that is committed calls the runtime with the row's id. What the runtime did not
acknowledge, `reconcile_runs` sends again; the runtime joins what it has, so that a call may be repeated at will. The
state of a run is the runtime's: rows learn of it by the projector, except for runs that never got there.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from django.core.serializers.json import DjangoJSONEncoder
from django.db import IntegrityError, models, transaction
from django.utils import timezone

from django_agent_runtime.exceptions import (
    AgentNotFound,
    AgentRuntimeError,
    CallTimedOut,
    ConcurrencyLimit,
    Conflict,
    IdempotencyConflict,
    InvalidRequest,
    NotFound,
    Overloaded,
    PermissionDenied,
    RunEnded,
    RunNotEnded,
    RunNotFound,
    RuntimeUnavailable,
)
from django_agent_runtime.live import get_hurried_runtime
from django_agent_runtime.models import (
    MAX_AGENT_KEY_CHARACTERS,
    MAX_IDEMPOTENCY_KEY_CHARACTERS,
    OPEN_STATUSES,
    AbandonedRun,
    AgentConversation,
    AgentEvent,
    AgentRun,
    EventVisibility,
    RunStatus,
)
from django_agent_runtime.principals import DELETE_CONVERSATION_PERMISSION, DELETE_RUN_PERMISSION
from django_agent_runtime.projection import PROJECTED_FIELDS, is_storable, project_run
from django_agent_runtime.runtime.registry import list_runtimes
from django_agent_runtime.runtime_conf import get_agent_runtime_settings, visibility_of
from django_agent_runtime.selectors import read_run
from django_agent_runtime.types import Concurrency, ConnectionState, RetryPolicy, RunTarget

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from django_agent_runtime.go_integration import GoRuntimeIntegration
    from django_agent_runtime.principals import Principal
    from django_agent_runtime.runtime.interfaces import AgentRuntime
    from django_agent_runtime.types import Strategy

logger = logging.getLogger(__name__)

TASK_TYPE = "agent.run"
# The events that the runtime makes by itself, whose visibility it must be told.
LIFECYCLE_TYPES = (
    "run.queued",
    "run.started",
    "run.retrying",
    "run.interrupted",
    "run.resumed",
    "run.waiting",
    "run.succeeded",
    "run.failed",
    "run.cancelled",
    "run.timed_out",
)
# Those that an agent of the runtime's own emits; a worker says itself who sees what its agents emit.
ANSWER_TYPES = ("assistant.delta", "assistant.message")
# The runtime's sequences begin behind it: the only event of a run that ended before the runtime had it.
LOCAL_END_SEQUENCE = 1
# The most rows that one call of the reconciler sends.
RECONCILE_ROWS = 500
# A cancel that was acknowledged and has not been projected for so long is passed on again: the runtime's journal may
# have been lost meanwhile.
REPEAT_CANCEL_SECONDS = 60
# Longer than any call that hands over a run: the runtime is asked once more for a deleted one that it did not know.
ASK_AGAIN_SECONDS = 60


class MultitaskStrategy(models.TextChoices):
    """What becomes of a new run of a conversation in which another one has not ended.

    It waits, is refused, or has the others cancelled; `rollback` also cancels those that wait for an answer, and takes
    the messages of all that it cancels out of the conversation's history.
    """

    ENQUEUE = "enqueue"
    REJECT = "reject"
    INTERRUPT = "interrupt"
    ROLLBACK = "rollback"


_STRATEGIES: dict[str, Strategy] = {
    MultitaskStrategy.ENQUEUE: "queue",
    MultitaskStrategy.REJECT: "reject",
    MultitaskStrategy.INTERRUPT: "cancel_running",
    MultitaskStrategy.ROLLBACK: "cancel_running",
}


class RunOptions(TypedDict, total=False):
    """What `AgentRun.options` holds; what is left out is as the settings have it."""

    multitask_strategy: str
    run_at: str
    """ISO 8601: the run does not begin before."""
    run_timeout: float
    """Seconds one attempt may take."""
    queue_timeout: float
    """Seconds the run may wait after it could have begun."""


class CreatedRun(NamedTuple):
    """What `create_run` made of a request."""

    run: AgentRun
    created: bool
    """False when the idempotency key named a run that was there already."""


def create_run(
    *,
    actor: Principal,
    agent_key: str,
    messages: Sequence[Mapping[str, Any]],
    conversation: AgentConversation | None = None,
    params: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    idempotency_key: str = "",
    max_attempts: int | None = None,
    priority: int = 0,
    multitask_strategy: str = MultitaskStrategy.ENQUEUE,
    delay: float | None = None,
    run_timeout: float | None = None,
    queue_timeout: float | None = None,
) -> CreatedRun:
    """Record a run now; hand it to the runtime once the row is committed.

    While the runtime cannot be reached, the run waits as `queued`, with `submitted_at` null. Inside a transaction of
    the caller's it is handed over when that commits; a refusal then only shows in the row.

    Args:
        actor: Who asks, and owns the run.
        agent_key: An agent that this site or the runtime knows.
        messages: What the agent is given, oldest first.
        conversation: One of the actor's own. Its runs are served one after another.
        params: Whatever else the agent is given.
        metadata: Kept with the run.
        idempotency_key: A repeat with the same key and the same request is answered with the first run.
        max_attempts: In all; None: as the settings say.
        priority: -1000 to 1000; higher ones begin before others.
        multitask_strategy: What happens while another run of the conversation has not ended; see there.
        delay: Seconds from now before which the run does not begin.
        run_timeout: Seconds one attempt may take; None: as the settings say.
        queue_timeout: Seconds after which a run that could have begun, and did not, ends as `timed_out`.

    Raises:
        PermissionDenied: The actor owns nothing, or not this conversation.
        IdempotencyConflict: The key was used with another request.
        AgentRuntimeError: The runtime refused the run, which has ended as `failed`.
    """
    if actor.is_nobody or (conversation is not None and not actor.owns(conversation)):
        raise PermissionDenied("Only the owner of a conversation may add runs to it.")
    run_input = {"messages": list(messages), "params": dict(params or {})}
    _check_request(agent_key, run_input, metadata, idempotency_key)
    _check_agent(agent_key)
    options: RunOptions = {"multitask_strategy": MultitaskStrategy(multitask_strategy).value}
    if run_timeout is not None:
        options["run_timeout"] = run_timeout
    if queue_timeout is not None:
        options["queue_timeout"] = queue_timeout
    payload_hash = _hash_request(
        agent_key, run_input, metadata, conversation and conversation.pk, max_attempts, priority, options, delay
    )
    if delay:
        options["run_at"] = (timezone.now() + timedelta(seconds=delay)).isoformat()
    row = AgentRun(
        **actor.owner_fields(),
        conversation=conversation,
        agent_key=agent_key,
        input=run_input,
        metadata=dict(metadata or {}),
        idempotency_key=idempotency_key,
        payload_hash=payload_hash,
        max_attempts=max_attempts,
        priority=priority,
        options=options,
    )
    if idempotency_key and (earlier := _find_repeated(actor, idempotency_key)):
        return CreatedRun(_check_repeated(earlier, payload_hash), created=False)
    try:
        _insert_and_submit(row)
    except IntegrityError:
        # Somebody was faster under the same key, or the conversation is gone.
        earlier = _find_repeated(actor, idempotency_key) if idempotency_key else None
        if earlier is None:
            raise
        return CreatedRun(_check_repeated(earlier, payload_hash), created=False)
    return CreatedRun(row, created=True)


def submit_run(*, run: AgentRun) -> bool:
    """Hand a committed run to the runtime, and before it those of its conversation that still wait.

    One that the runtime has had is left alone: after the time that runs are kept there, it would be done again.

    Returns:
        Whether the runtime has it. False: it cannot be reached, and the reconciler will send the run.

    Raises:
        AgentRuntimeError: The runtime refused the run, which has ended as `failed`.
    """
    if run.submitted_at is not None:
        return True
    if run.conversation_id is not None:
        earlier = AgentRun.objects.unsubmitted().filter(
            conversation_id=run.conversation_id, created_at__lte=run.created_at
        )
        for waiting in earlier.exclude(pk=run.pk):
            if not _resubmit(waiting):
                return False
    try:
        _send(run)
    except (RuntimeUnavailable, CallTimedOut):
        # Of a call that timed out nobody knows whether it came through: a repeat joins.
        return False
    except AgentRuntimeError as refusal:
        _end_unknown(run, RunStatus.FAILED, refusal)
        raise
    return True


def cancel_run(*, actor: Principal, run: AgentRun, reason: str = "") -> AgentRun:
    """Have a run end as `cancelled`, for good. One that was cancelled before is returned as it is.

    The request is recorded first, so that it is passed on when the runtime is back: then `status` is still what it
    was, and `cancel_requested_at` is set.

    Raises:
        PermissionDenied: The actor may not change this run.
        RunEnded: It has ended otherwise.
    """
    _check_may_change(actor, run)
    if run.status == RunStatus.CANCELLED:
        return run
    if run.has_ended:
        raise RunEnded(f"The run has already ended as {run.status}.", metadata={"state": run.status})
    run.cancel_requested_at = run.cancel_requested_at or timezone.now()
    AgentRun.objects.filter(pk=run.pk, cancel_requested_at=None).update(cancel_requested_at=run.cancel_requested_at)

    def pass_on() -> None:
        # What does not come through is the reconciler's.
        with suppress(RuntimeUnavailable, CallTimedOut):
            _pass_on_cancel(run, reason)

    # Behind the commit of a caller's transaction nobody would expect an error.
    transaction.on_commit(pass_on, robust=transaction.get_connection().in_atomic_block)
    return run


def resume_run(*, actor: Principal, run: AgentRun, value: Any = None, interrupt_id: str | None = None) -> AgentRun:
    """Answer what a waiting run asks; it goes on from there.

    Args:
        actor: Who answers.
        run: The run that waits.
        value: The answer, any JSON value.
        interrupt_id: The question; None: the one the run waits at.

    Raises:
        PermissionDenied: The actor may not change this run.
        RunNotWaiting: It waits for no such answer.
        RunEnded: It has ended.
        RuntimeUnavailable: The runtime cannot be reached; nothing was kept.
    """
    _check_may_change(actor, run)
    live = get_hurried_runtime().resume_run(str(run.pk), value, interrupt_id=interrupt_id)
    project_run(run, live)
    return run


def retry_run(*, actor: Principal, run: AgentRun) -> AgentRun:
    """Do again what a run did that ended as failed, cancelled or timed out: a new run, whose `retry_of` is the old one.

    Raises:
        PermissionDenied: The actor may not change this run.
        RunNotEnded: It has not ended, or has succeeded.
        AgentRuntimeError: As in `create_run`.
    """
    _check_may_change(actor, run)
    if not read_run(run).has_ended or run.status == RunStatus.SUCCEEDED:
        raise RunNotEnded(f"The run is {run.status}: there is nothing to do again.", metadata={"state": run.status})
    again = AgentRun(
        user_id=run.user_id,
        anonymous_session_id=run.anonymous_session_id,
        conversation_id=run.conversation_id,
        agent_key=run.agent_key,
        input=run.input,
        metadata=run.metadata,
        max_attempts=run.max_attempts,
        priority=run.priority,
        options={name: value for name, value in run.options.items() if name != "run_at"},
        retry_of=run,
    )
    _insert_and_submit(again)
    return again


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
    _check_values(agent_key=agent_key, title=title, metadata=dict(metadata or {}))
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
    _check_values(title=conversation.title, metadata=conversation.metadata)
    conversation.save(update_fields=["title", "metadata", "updated_at"])
    return conversation


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
            _pass_on_deletion(note, runtime)
        for run in AgentRun.objects.with_cancel_requests(acknowledged_before=acknowledged_before)[:limit]:
            _reconcile_cancel(run, runtime)
    except (RuntimeUnavailable, CallTimedOut):
        return 0
    sent = 0
    for run in AgentRun.objects.unsubmitted().filter(cancel_requested_at=None)[:limit]:
        if not _resubmit(run, runtime):
            break
        sent += run.submitted_at is not None
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
        _end_unknown(run, RunStatus.FAILED, error, was_accepted=True)
        return run
    with transaction.atomic():
        row = AgentRun.objects.select_for_update().filter(pk=run.pk).first()
        if row is None:
            # It was deleted meanwhile.
            return run
        if project_run(row, live):
            row.save(update_fields=PROJECTED_FIELDS)
    return row


def refresh_open_runs(*, runtime: GoRuntimeIntegration | None = None) -> int:
    """`refresh_run` for every run that has not ended, where events were lost that may have said so.

    Returns:
        How many there were.

    Raises:
        RuntimeUnavailable: The runtime cannot be reached.
    """
    count = 0
    for run in AgentRun.objects.filter(status__in=OPEN_STATUSES, submitted_at__isnull=False).iterator():
        refresh_run(run=run, runtime=runtime)
        count += 1
    return count


def _insert_and_submit(row: AgentRun) -> None:
    refusals: list[AgentRuntimeError] = []

    def submit() -> None:
        # Behind the commit of a caller's transaction nobody would expect an error.
        try:
            submit_run(run=row)
        except AgentRuntimeError as refusal:
            refusals.append(refusal)

    with transaction.atomic():
        row.save(force_insert=True)
        _note_rollback(row)
        if row.conversation_id is not None:
            AgentConversation.objects.filter(pk=row.conversation_id).update(updated_at=row.created_at)
        transaction.on_commit(submit)
    if refusals:
        raise refusals[0]


def _reconcile_cancel(run: AgentRun, runtime: GoRuntimeIntegration | None) -> None:
    try:
        _pass_on_cancel(run, "", runtime)
    except (RuntimeUnavailable, CallTimedOut):
        raise
    except RunEnded:
        refresh_run(run=run, runtime=runtime)
    except AgentRuntimeError as error:
        logger.warning("cancel request refused", extra={"run_id": str(run.pk), "err": str(error)})


def _resubmit(run: AgentRun, runtime: GoRuntimeIntegration | None = None) -> bool:
    """Send a run that was answered to somebody before. False: the runtime takes none for now."""
    try:
        _send(run, runtime)
    except (InvalidRequest, NotFound, Conflict, ConcurrencyLimit) as refusal:
        _end_unknown(run, RunStatus.FAILED, refusal)
    except AgentRuntimeError as error:
        # It was accepted once, and must not end for what is no fault of its own: a runtime that is away, or full, or a
        # token that was changed.
        if not isinstance(error, (RuntimeUnavailable, CallTimedOut, Overloaded)):
            logger.warning("runs cannot be handed over", extra={"run_id": str(run.pk), "err": str(error)})
        return False
    except (TypeError, ValueError) as error:
        # A row that somebody wrote by hand, which no request can be made of.
        _end_unknown(run, RunStatus.FAILED, InvalidRequest(f"The row of the run does not fit: {error}"))
    return True


def _send(run: AgentRun, runtime: GoRuntimeIntegration | None = None) -> None:
    runtime = runtime or get_hurried_runtime()
    if run.conversation_id is not None and run.user_id is None and run.anonymous_session_id is None:
        _give_to_owner_of_conversation(run)
    _note_rollback(run)
    try:
        if run.retry_of_id is None or not _send_retry(run, runtime):
            runtime.create_run(run.agent_key, run.input, **_describe_run(run))
    except AgentNotFound as refusal:
        raise _unknown_agent(
            run.agent_key, set(filter(None, refusal.metadata.get("known", "").split(",")))
        ) from refusal
    except IdempotencyConflict as error:
        # The id is ours alone: it has the run, accepted under other settings.
        logger.warning("run was accepted with other settings", extra={"run_id": str(run.pk), "err": str(error)})
    run.submitted_at = timezone.now()
    # The runtime has cancelled those that run or queue; the rest is the reconciler's.
    _rolled_back_by(run).update(cancel_requested_at=run.submitted_at)
    acknowledged = AgentRun.objects.filter(pk=run.pk, cancel_requested_at=None).update(submitted_at=run.submitted_at)
    if not acknowledged:
        # It was cancelled or deleted while it was on its way, when the runtime did not know it yet. It was accepted,
        # whatever becomes of this; what does not come through is the reconciler's.
        with suppress(AgentRuntimeError):
            if AgentRun.objects.filter(pk=run.pk).update(submitted_at=run.submitted_at):
                _pass_on_cancel(run, "", runtime)
            else:
                note, _ = AbandonedRun.objects.update_or_create(run_id=run.pk, defaults={"missed_at": None})
                _pass_on_deletion(note, runtime)


def _note_rollback(run: AgentRun) -> None:
    """Note which runs a run with the strategy `rollback` takes back: those before it that have not ended.

    It is noted before the runtime is called, which cancels them, because behind that the projector may be faster. One
    that ends in another way meanwhile is not taken back.
    """
    before = _goes_on_beside(run).filter(created_at__lte=run.created_at, rolled_back_by=None)
    before.exclude(pk=run.pk).update(rolled_back_by=run.pk)


def _rolled_back_by(run: AgentRun) -> QuerySet[AgentRun]:
    """Those that a run takes back and nobody has asked to cancel."""
    return _goes_on_beside(run).filter(rolled_back_by=run.pk, cancel_requested_at=None)


def _goes_on_beside(run: AgentRun) -> QuerySet[AgentRun]:
    """The runs of its conversation that have not ended; none for a run that takes none back."""
    strategy = run.options.get("multitask_strategy") if isinstance(run.options, dict) else None
    if run.conversation_id is None or strategy != MultitaskStrategy.ROLLBACK:
        return AgentRun.objects.none()
    return AgentRun.objects.filter(conversation_id=run.conversation_id, status__in=OPEN_STATUSES)


def _send_retry(run: AgentRun, runtime: GoRuntimeIntegration) -> bool:
    """Have the runtime repeat an earlier run. False: it no longer has that."""
    try:
        runtime.retry_run(str(run.retry_of_id), new_run_id=str(run.pk))
    except RunNotFound:
        return False
    return True


def _describe_run(run: AgentRun) -> dict[str, Any]:
    """The arguments of `create_run` of the client. They must be the same for each repeat."""
    settings = get_agent_runtime_settings()
    options = run.options if isinstance(run.options, dict) else {}
    metadata = dict(run.metadata) if isinstance(run.metadata, dict) else {}
    # Agents trust it: only the row may say so.
    metadata.pop("conversation_id", None)
    concurrency = None
    if run.conversation_id is not None:
        metadata["conversation_id"] = str(run.conversation_id)
        strategy = _STRATEGIES.get(options.get("multitask_strategy", ""), "queue")
        concurrency = Concurrency(key=f"conversation:{run.conversation_id}", limit=1, strategy=strategy)
    run_at = options.get("run_at")
    # What this site's settings and its agents say of pauses and timeouts, their workers tell the runtime. The number of
    # attempts is seen before a worker has the run.
    agent = list_runtimes().get(run.agent_key)
    served_here = agent is not None
    retry = RetryPolicy(max_attempts=run.max_attempts or _attempts_of(agent) or settings.max_retries)
    types = LIFECYCLE_TYPES if served_here else (*LIFECYCLE_TYPES, *ANSWER_TYPES)
    if not served_here:
        retry = RetryPolicy(
            max_attempts=retry.max_attempts,
            initial_backoff=min(settings.retry_backoff_base, settings.retry_backoff_max),
            max_backoff=settings.retry_backoff_max,
            multiplier=settings.retry_backoff_base,
        )
    return {
        "run_id": str(run.pk),
        "metadata": metadata,
        "target": RunTarget.WORKER if served_here else RunTarget.AGENT,
        "priority": run.priority,
        "run_at": datetime.fromisoformat(run_at) if run_at else None,
        "concurrency": concurrency,
        "run_timeout": options.get("run_timeout", None if served_here else settings.run_timeout_seconds),
        "queue_timeout": options.get("queue_timeout"),
        "retry": retry,
        "event_visibility": {name: str(visibility_of(name, settings)) for name in types},
        "task_type": TASK_TYPE,
    }


def _attempts_of(agent: AgentRuntime | None) -> int | None:
    """How often an agent is to be tried, where it says so itself."""
    if agent is None:
        return None
    return (agent.retry.max_attempts if agent.retry else None) or agent.max_attempts


def _check_agent(agent_key: str) -> None:
    """Refuse a key that neither the site nor the runtime knows.

    While the runtime cannot be asked, the run waits for it.

    Raises:
        AgentNotFound: Nobody knows it.
    """
    if is_served_here(agent_key):
        return
    try:
        known = {agent.agent_id for agent in get_hurried_runtime().list_agents()}
    except AgentRuntimeError:
        return
    if agent_key not in known:
        raise _unknown_agent(agent_key, known)


def _unknown_agent(agent_key: str, known: set[str]) -> AgentNotFound:
    """The refusal of an agent that is neither among those the runtime knows nor in the site's own registry."""
    names = sorted(known | set(list_runtimes()))
    return AgentNotFound(
        f"There is no agent {agent_key!r}; known are {', '.join(names)}.",
        metadata={"agent_id": agent_key, "known": ",".join(names)},
    )


def is_served_here(agent_key: str) -> bool:
    """Whether an agent of this site's own registry has the key."""
    return agent_key in list_runtimes()


def _pass_on_cancel(run: AgentRun, reason: str, runtime: GoRuntimeIntegration | None = None) -> None:
    try:
        live = (runtime or get_hurried_runtime()).cancel_run(str(run.pk), reason)
    except RunNotFound:
        # It was never sent, or the runtime has begun anew.
        _end_unknown(run, RunStatus.CANCELLED, None)
    else:
        AgentRun.objects.filter(pk=run.pk).update(cancel_acknowledged_at=timezone.now())
        # Shown to who asked; the row learns of it by the projector.
        project_run(run, live)


def _delete(rows: QuerySet[AgentRun] | QuerySet[AgentConversation], *, runs: QuerySet[AgentRun]) -> None:
    """Delete rows, and then have the runtime cancel the runs that were among them."""
    with transaction.atomic():
        abandoned = list(runs.filter(status__in=OPEN_STATUSES).values_list("pk", flat=True))
        rows.delete()

        def pass_on() -> None:
            # Many may be deleted at once: one that does not get through is enough.
            if get_hurried_runtime().connection_state is ConnectionState.RECONNECTING:
                return
            with suppress(RuntimeUnavailable, CallTimedOut):
                for note in AbandonedRun.objects.filter(run_id__in=abandoned):
                    _pass_on_deletion(note)

        # The rows are gone, whatever becomes of this; what does not come through is the reconciler's.
        if abandoned:
            transaction.on_commit(pass_on, robust=True)


def _pass_on_deletion(note: AbandonedRun, runtime: GoRuntimeIntegration | None = None) -> None:
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


def _end_unknown(
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
        changed = unchanged.update(
            status=status, error=run.error, finished_at=now, **({"idempotency_key": ""} if never_began else {})
        )
        if changed:
            if not was_accepted:
                # What never began takes nothing back.
                _rolled_back_by(run).update(rolled_back_by=None)
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


def _give_to_owner_of_conversation(run: AgentRun) -> None:
    conversation = run.conversation
    if conversation is None or (conversation.user_id is None and conversation.anonymous_session_id is None):
        return
    run.user_id, run.anonymous_session_id = conversation.user_id, conversation.anonymous_session_id
    AgentRun.objects.filter(pk=run.pk).update(user_id=run.user_id, anonymous_session_id=run.anonymous_session_id)


def _find_repeated(actor: Principal, idempotency_key: str) -> AgentRun | None:
    return AgentRun.objects.filter(**actor.owner_fields(), idempotency_key=idempotency_key).first()


def _check_repeated(earlier: AgentRun, payload_hash: str) -> AgentRun:
    if earlier.payload_hash != payload_hash:
        raise IdempotencyConflict(
            "The idempotency key was used before, with another request.", metadata={"run_id": str(earlier.pk)}
        )
    return earlier


def _hash_request(*parts: Any) -> str:
    text = json.dumps(parts, cls=DjangoJSONEncoder, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _check_may_change(actor: Principal, run: AgentRun) -> None:
    if not actor.may_change(run):
        raise PermissionDenied("Only the owner of a run may change it.")


def _check_request(
    agent_key: str, run_input: Mapping[str, Any], metadata: Mapping[str, Any] | None, idempotency_key: str
) -> None:
    _check_values(
        agent_key=agent_key,
        messages=run_input["messages"],
        params=run_input["params"],
        metadata=dict(metadata or {}),
        idempotency_key=idempotency_key,
    )
    violations = []
    if not 1 <= len(agent_key) <= MAX_AGENT_KEY_CHARACTERS:
        violations.append(("agent_key", f"must have 1 to {MAX_AGENT_KEY_CHARACTERS} characters"))
    if len(idempotency_key) > MAX_IDEMPOTENCY_KEY_CHARACTERS:
        violations.append(("idempotency_key", f"must have at most {MAX_IDEMPOTENCY_KEY_CHARACTERS} characters"))
    if violations:
        raise InvalidRequest("The run does not fit.", violations=violations)


def _check_values(**values: Any) -> None:
    """Refuse what a database cannot keep as it is.

    Raises:
        InvalidRequest: Naming each value at fault.
    """
    reason = "has a NUL character, half of a surrogate pair, a number beyond a double, or more than 200 levels"
    violations = [(name, reason) for name, value in values.items() if not is_storable(value)]
    if violations:
        raise InvalidRequest("Some values cannot be kept.", violations=violations)
