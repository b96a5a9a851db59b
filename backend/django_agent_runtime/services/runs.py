"""New runs, the answers to those that wait, and repeats of those that have ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import IntegrityError, transaction
from django.utils import timezone

from django_agent_runtime._arguments import check_concurrency
from django_agent_runtime.exceptions import (
    AgentRuntimeError,
    InternalError,
    InvalidRequest,
    InvalidValue,
    PermissionDenied,
    RunEnded,
    RunNotEnded,
    RunNotFound,
    RunNotWaiting,
)
from django_agent_runtime.live import get_hurried_runtime
from django_agent_runtime.models import AgentConversation, AgentRun, RunStatus
from django_agent_runtime.projection import project_run
from django_agent_runtime.selectors import read_run
from django_agent_runtime.services.requests import (
    check_idempotency_key,
    check_may_change,
    check_request,
    check_values,
    find_repeated,
    format_start,
    hash_request,
)
from django_agent_runtime.services.strategies import MultitaskStrategy, note_rollback
from django_agent_runtime.services.submission import RunOptions, is_served_here, submit_run, unknown_agent

if TYPE_CHECKING:
    from django_agent_runtime.principals import Principal
    from django_agent_runtime.types import Concurrency


class CreatedRun(NamedTuple):
    """What `create_run` or `retry_run` made of a request."""

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
    multitask_strategy: str | None = None,
    concurrency: Concurrency | Mapping[str, Any] | None = None,
    delay: float | None = None,
    run_at: datetime | None = None,
    run_timeout: float | None = None,
    queue_timeout: float | None = None,
) -> CreatedRun:
    """Record a run now; hand it to the runtime once the row is committed.

    While the runtime cannot be reached, the run waits as `queued`, with `submitted_at` null and `stale` set. Inside a
    transaction of the caller's it is handed over when that commits; a refusal then only shows in the row. One that is
    raised leaves no row.

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
        multitask_strategy: What happens while another run of the conversation has not ended; see there. None: this
            one waits.
        concurrency: How many runs with the same key may be under way, whatever their conversations. It takes the place
            of the conversation's own key: the run waits for no other of the conversation, nor others for it.
        delay: Seconds from now before which the run does not begin.
        run_at: The time, with its zone, before which it does not begin. Not together with `delay`.
        run_timeout: Seconds one attempt may take; None: as the settings say.
        queue_timeout: Seconds after which a run that could have begun, and did not, ends as `timed_out`.

    Raises:
        PermissionDenied: The actor owns nothing, or not this conversation.
        IdempotencyConflict: The key was used with another request.
        InvalidRequest: A ValueError: an argument does not fit, or two contradict each other.
        AgentRuntimeError: The runtime refused the run.
    """
    if actor.is_nobody or (conversation is not None and not actor.owns(conversation)):
        raise PermissionDenied("Only the owner of a conversation may add runs to it.")
    run_input = {"messages": list(messages), "params": dict(params or {})}
    check_request(agent_key, run_input, metadata, idempotency_key)
    _check_agent(agent_key, to_staff=actor.is_staff)
    options: RunOptions = {}
    if concurrency is None:
        options["multitask_strategy"] = MultitaskStrategy(multitask_strategy or MultitaskStrategy.ENQUEUE).value
    elif multitask_strategy is None:
        options["concurrency"] = asdict(check_concurrency("concurrency", concurrency))
        check_values(concurrency=options["concurrency"])
    else:
        raise InvalidValue.of("concurrency", "contradicts multitask_strategy: give one of them")
    if run_at is not None:
        options["run_at"] = format_start(run_at, delay)
    if run_timeout is not None:
        options["run_timeout"] = run_timeout
    if queue_timeout is not None:
        options["queue_timeout"] = queue_timeout
    payload_hash = hash_request(
        agent_key, run_input, metadata, conversation and conversation.pk, max_attempts, priority, options, delay
    )
    if max_attempts is not None:
        options["max_attempts"] = max_attempts
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
    if earlier := _join_repeated(row):
        return CreatedRun(earlier, created=False)
    return _create_once(row)


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
    check_may_change(actor, run)
    try:
        live = get_hurried_runtime().resume_run(str(run.pk), value, interrupt_id=interrupt_id)
    except RunNotFound as error:
        # It was removed there after its time, or is not there yet.
        refusal = RunEnded if run.has_ended else RunNotWaiting
        text = f"The runtime does not have the run, whose status is {run.status}."
        raise refusal(text, metadata={"state": run.status}) from error
    project_run(run, live)
    return run


def retry_run(*, actor: Principal, run: AgentRun, idempotency_key: str = "") -> CreatedRun:
    """Do again what a run did that ended as failed, cancelled or timed out: a new run, whose `retry_of` is the old one.

    Args:
        actor: Who asks.
        run: The run that has ended.
        idempotency_key: One of the owner's, as in `create_run`: a repeat with the same key is answered with the first
            new run.

    Raises:
        PermissionDenied: The actor may not change this run.
        IdempotencyConflict: The key was used with another request.
        RunNotEnded: It has not ended, or has succeeded.
        InvalidRequest: It is a sub-run, which nobody waits for any more.
        AgentRuntimeError: As in `create_run`.
    """
    check_may_change(actor, run)
    check_idempotency_key(idempotency_key)
    if run.parent_run_id is not None:
        raise InvalidRequest(f"It is a sub-run: retry the run that created it, {run.parent_run_id}.")
    again = AgentRun(
        user_id=run.user_id,
        anonymous_session_id=run.anonymous_session_id,
        conversation_id=run.conversation_id,
        agent_key=run.agent_key,
        input=run.input,
        metadata=run.metadata,
        idempotency_key=idempotency_key,
        payload_hash=hash_request("retry", run.pk),
        # The column says by now how many there were to be in the end, by the settings of then.
        max_attempts=run.options.get("max_attempts"),
        priority=run.priority,
        options={name: value for name, value in run.options.items() if name != "run_at"},
        retry_of=run,
    )
    if earlier := _join_repeated(again):
        return CreatedRun(earlier, created=False)
    if not read_run(run).has_ended or run.status == RunStatus.SUCCEEDED:
        raise RunNotEnded(f"The run is {run.status}: there is nothing to do again.", metadata={"state": run.status})
    return _create_once(again)


def _create_once(row: AgentRun) -> CreatedRun:
    """Insert a run and hand it over, unless somebody is faster under its idempotency key."""
    try:
        _insert_and_submit(row)
    except IntegrityError:
        # If nobody was faster, the conversation is gone.
        if earlier := _join_repeated(row):
            return CreatedRun(earlier, created=False)
        raise
    return CreatedRun(row, created=True)


def _join_repeated(row: AgentRun) -> AgentRun | None:
    """The run under the key of a new one, if there is one; the runtime has it, or cannot be reached.

    Who asked first may still wait for the runtime's answer. Whoever repeats it asks as well, and is told the same.

    Raises:
        IdempotencyConflict: The key was used with another request.
        AgentRuntimeError: The runtime refused the run, whose row is gone.
    """
    earlier = find_repeated(row)
    if earlier is None or earlier.submitted_at is not None or earlier.has_ended:
        return earlier
    if transaction.get_connection().in_atomic_block:
        # It may be of the caller's own transaction, and is handed over once that is committed.
        return earlier
    try:
        earlier.stale = not submit_run(run=earlier)
    except AgentRuntimeError as refusal:
        _remove_refused(earlier, refusal)
        raise
    # It is gone where the one who asked first was refused.
    return earlier if AgentRun.objects.filter(pk=earlier.pk).exists() else None


def _remove_refused(row: AgentRun, refusal: AgentRuntimeError) -> None:
    """Take back the row of a run whose caller is told that it was refused.

    Who is told needs no row, and who asks again every second would fill lists with them. It stays where the runtime may
    have the run all the same.
    """
    if not isinstance(refusal, InternalError):
        refused = AgentRun.objects.filter(pk=row.pk, status=RunStatus.FAILED, submitted_at=None, last_sequence=0)
        refused.delete()


def _insert_and_submit(row: AgentRun) -> None:
    refusals: list[AgentRuntimeError] = []

    def submit() -> None:
        # Behind the commit of a caller's transaction nobody would expect an error.
        try:
            row.stale = not submit_run(run=row)
        except AgentRuntimeError as refusal:
            refusals.append(refusal)

    with transaction.atomic():
        row.save(force_insert=True)
        note_rollback(row)
        if row.conversation_id is not None:
            AgentConversation.objects.filter(pk=row.conversation_id).update(updated_at=row.created_at)
        transaction.on_commit(submit)
    if refusals:
        _remove_refused(row, refusals[0])
        raise refusals[0]


def _check_agent(agent_key: str, *, to_staff: bool) -> None:
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
        raise unknown_agent(agent_key, known, to_staff=to_staff)
