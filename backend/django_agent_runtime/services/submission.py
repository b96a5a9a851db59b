"""How a committed row is handed to the runtime."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypedDict

from django.conf import settings as django_settings
from django.utils import timezone

from django_agent_runtime.exceptions import (
    AccessDenied,
    AgentNotFound,
    AgentRuntimeError,
    CallTimedOut,
    ConcurrencyLimit,
    Conflict,
    IdempotencyConflict,
    InvalidRequest,
    NotFound,
    Overloaded,
    RunNotFound,
    RuntimeUnavailable,
)
from django_agent_runtime.live import get_hurried_runtime
from django_agent_runtime.models import AbandonedRun, AgentRun, RunStatus
from django_agent_runtime.runtime.interfaces import EventType
from django_agent_runtime.runtime.registry import list_runtimes
from django_agent_runtime.runtime_conf import get_agent_runtime_settings, visibility_of
from django_agent_runtime.services.cancellation import pass_on_cancel
from django_agent_runtime.services.deletion import pass_on_deletion
from django_agent_runtime.services.ends import end_unknown
from django_agent_runtime.services.strategies import MultitaskStrategy, note_rollback, rolled_back_by_run
from django_agent_runtime.types import TASK_TYPE, Concurrency, RetryPolicy, RunTarget

if TYPE_CHECKING:
    from django_agent_runtime.go_integration import GoRuntimeIntegration
    from django_agent_runtime.runtime.interfaces import AgentRuntime
    from django_agent_runtime.types import Strategy

logger = logging.getLogger(__name__)

# The events that the runtime makes by itself, whose visibility it must be told.
LIFECYCLE_TYPES = tuple(
    kind.value for kind in EventType if kind.value.startswith("run.") and kind is not EventType.RUN_HEARTBEAT
)
# Those that an agent of the runtime's own emits; a worker says itself who sees what its agents emit.
ANSWER_TYPES = (EventType.ASSISTANT_DELTA.value, EventType.ASSISTANT_MESSAGE.value)
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
    concurrency: dict[str, Any]
    """The fields of a `types.Concurrency`, which takes the place of the conversation's."""
    max_attempts: int
    """In all. The column of that name holds it until the runtime says how many there are."""


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
            conversation_id=run.conversation_id, created_at__lte=run.created_at, cancel_requested_at=None
        )
        for waiting in earlier.exclude(pk=run.pk):
            if not resubmit(waiting):
                return False
    try:
        _send(run)
    except (RuntimeUnavailable, CallTimedOut):
        # Of a call that timed out nobody knows whether it came through: a repeat joins.
        return False
    except AgentRuntimeError as refusal:
        end_unknown(run, RunStatus.FAILED, refusal)
        raise
    return True


def is_served_here(agent_key: str) -> bool:
    """Whether an agent of this site's own registry has the key."""
    return agent_key in list_runtimes()


def unknown_agent(agent_key: str, known: set[str], *, to_staff: bool = False) -> AgentNotFound:
    """The refusal of an agent that is neither among those the runtime knows nor in the site's own registry.

    Only staff is told which there are, and everybody where DEBUG is on: they may be of another site, or for some users
    alone. Others are told the one of this site that they may have meant.
    """
    own = list_runtimes()
    metadata = {"agent_id": agent_key}
    if to_staff or django_settings.DEBUG:
        names = sorted(known | set(own))
        metadata["known"] = ",".join(names)
        hint = f"; known are {', '.join(names)}."
    else:
        hint = "".join(f"; did you mean {name}?" for name in get_close_matches(agent_key, own, n=1))
    return AgentNotFound(f"There is no agent {agent_key!r}{hint or '.'}", metadata=metadata)


def resubmit(run: AgentRun, runtime: GoRuntimeIntegration | None = None) -> bool:
    """Send a run that was answered to somebody before. False: the runtime takes none for now."""
    try:
        _send(run, runtime)
    except (InvalidRequest, NotFound, Conflict, ConcurrencyLimit) as refusal:
        end_unknown(run, RunStatus.FAILED, refusal)
    except AgentRuntimeError as error:
        # It was accepted once, and must not end for what is no fault of its own: a runtime that is away, or full, or a
        # token that was changed.
        if isinstance(error, (RuntimeUnavailable, CallTimedOut, Overloaded)):
            return False
        logger.warning("run cannot be handed over", extra={"run_id": str(run.pk), "err": str(error)})
        # What is wrong with this one alone holds up no other.
        return not isinstance(error, AccessDenied)
    except (TypeError, ValueError, OverflowError) as error:
        # A row that somebody wrote by hand, which no request can be made of.
        end_unknown(run, RunStatus.FAILED, InvalidRequest(f"The row of the run does not fit: {error}"))
    return True


def _send(run: AgentRun, runtime: GoRuntimeIntegration | None = None) -> None:
    runtime = runtime or get_hurried_runtime()
    if run.conversation_id is not None and run.user_id is None and run.anonymous_session_id is None:
        _give_to_owner_of_conversation(run)
    note_rollback(run)
    try:
        if run.retry_of_id is None or not _send_retry(run, runtime):
            runtime.create_run(run.agent_key, run.input, **_describe_run(run))
    except AgentNotFound as refusal:
        raise unknown_agent(run.agent_key, set(filter(None, refusal.metadata.get("known", "").split(",")))) from refusal
    except IdempotencyConflict as error:
        # The id is ours alone: it has the run, accepted under other settings.
        logger.warning("run was accepted with other settings", extra={"run_id": str(run.pk), "err": str(error)})
    run.submitted_at = timezone.now()
    # The runtime has cancelled those that run or queue; the rest is the reconciler's.
    rolled_back_by_run(run).update(cancel_requested_at=run.submitted_at)
    acknowledged = AgentRun.objects.filter(pk=run.pk, cancel_requested_at=None).update(submitted_at=run.submitted_at)
    if not acknowledged:
        # It was cancelled or deleted while it was on its way, when the runtime did not know it yet. It was accepted,
        # whatever becomes of this; what does not come through is the reconciler's.
        with suppress(AgentRuntimeError):
            if AgentRun.objects.filter(pk=run.pk).update(submitted_at=run.submitted_at):
                pass_on_cancel(run, "", runtime)
            else:
                note, _ = AbandonedRun.objects.update_or_create(run_id=run.pk, defaults={"missed_at": None})
                pass_on_deletion(note, runtime)


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
    concurrency = options.get("concurrency")
    if run.conversation_id is not None:
        metadata["conversation_id"] = str(run.conversation_id)
        strategy = _STRATEGIES.get(options.get("multitask_strategy", ""), "queue")
        concurrency = concurrency or Concurrency(f"conversation:{run.conversation_id}", strategy=strategy)
    run_at = options.get("run_at")
    # What this site's settings and its agents say of pauses and timeouts, their workers tell the runtime. The number of
    # attempts is seen before a worker has the run.
    agent = list_runtimes().get(run.agent_key)
    served_here = agent is not None
    max_attempts = run.max_attempts or _attempts_of(agent) or settings.max_retries
    types = LIFECYCLE_TYPES if served_here else (*LIFECYCLE_TYPES, *ANSWER_TYPES)
    retry = RetryPolicy(max_attempts=max_attempts)
    if not served_here:
        retry = RetryPolicy(
            max_attempts=max_attempts,
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


def _give_to_owner_of_conversation(run: AgentRun) -> None:
    conversation = run.conversation
    if conversation is None or (conversation.user_id is None and conversation.anonymous_session_id is None):
        return
    run.user_id, run.anonymous_session_id = conversation.user_id, conversation.anonymous_session_id
    AgentRun.objects.filter(pk=run.pk).update(user_id=run.user_id, anonymous_session_id=run.anonymous_session_id)
