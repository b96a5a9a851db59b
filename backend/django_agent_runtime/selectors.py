"""Reads that API, admin and commands must answer alike: who sees what, and how a run stands now."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from django.conf import settings as django_settings
from django.db.models import Max, Min, Q

from django_agent_runtime.exceptions import (
    AgentRuntimeError,
    CallTimedOut,
    NotFound,
    RunNotFound,
    RuntimeUnavailable,
)
from django_agent_runtime.go_integration import get_go_runtime_integration
from django_agent_runtime.live import get_hurried_runtime
from django_agent_runtime.models import AgentConversation, AgentEvent, AgentRun, EventVisibility, ProjectorCursor
from django_agent_runtime.principals import INTERNAL_EVENTS_PERMISSION, Principal
from django_agent_runtime.projection import project_run
from django_agent_runtime.types import ENDS

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from django_agent_runtime.types import RunFile

# Each level with those above it.
_SEEN_FROM: dict[str, tuple[str, ...]] = {
    EventVisibility.INTERNAL: (EventVisibility.INTERNAL, EventVisibility.DEBUG, EventVisibility.USER),
    EventVisibility.DEBUG: (EventVisibility.DEBUG, EventVisibility.USER),
    EventVisibility.USER: (EventVisibility.USER,),
}


def visible_runs(actor: Principal, among: QuerySet[AgentRun] | None = None) -> QuerySet[AgentRun]:
    """The runs of a principal, of all or of those given; for staff, also those that nobody owns."""
    return (AgentRun.objects.all() if among is None else among).filter(_owned_by(actor))


def visible_conversations(
    actor: Principal, among: QuerySet[AgentConversation] | None = None
) -> QuerySet[AgentConversation]:
    """The conversations of a principal, of all or of those given; for staff, also those that nobody owns."""
    return (AgentConversation.objects.all() if among is None else among).filter(_owned_by(actor))


def get_visible_run(actor: Principal, run_id: UUID | str, among: QuerySet[AgentRun] | None = None) -> AgentRun:
    """One of the runs that a principal may see, of all or of those given.

    Raises:
        RunNotFound: There is none, or it is another's: both look the same.
    """
    key = _as_uuid(run_id)
    run = visible_runs(actor, among).filter(pk=key).first() if key else None
    if run is None:
        raise RunNotFound("There is no such run.")
    return run


def get_visible_conversation(
    actor: Principal, conversation_id: UUID | str, among: QuerySet[AgentConversation] | None = None
) -> AgentConversation:
    """One of the conversations that a principal may see, of all or of those given.

    Raises:
        NotFound: There is none, or it is another's: both look the same.
    """
    key = _as_uuid(conversation_id)
    conversation = visible_conversations(actor, among).filter(pk=key).first() if key else None
    if conversation is None:
        raise NotFound("There is no such conversation.")
    return conversation


def list_run_files(run: AgentRun) -> list[RunFile]:
    """The files that a run has left, by path; none where the runtime does not have the run, or not any more.

    Raises:
        RuntimeUnavailable: It is away.
    """
    try:
        return get_hurried_runtime().list_run_files(str(run.pk))
    except RunNotFound:
        return []


def may_see_internal_events(actor: Principal) -> bool:
    """Whether a principal may ask for events of every level, of the runs that it may see."""
    return django_settings.DEBUG or actor.is_staff or actor.has_permission(INTERNAL_EVENTS_PERMISSION)


def may_see_input(actor: Principal, run: AgentRun) -> bool:
    """Whether a principal may see what a run of its own was given: in a sub-run, that is what another agent says."""
    return run.parent_run_id is None or may_see_internal_events(actor)


def read_run(run: AgentRun) -> AgentRun:
    """The run as the runtime has it now, within two seconds, else as its row has it, with `stale` set.

    What the runtime says is put over the row in memory and not saved: rows are the projector's.
    """
    if run.has_ended:
        return run
    try:
        live = get_hurried_runtime().get_run(str(run.pk))
    except RunNotFound:
        # Not sent yet, and so as the row says; or removed before it was projected.
        run.stale = run.submitted_at is not None
    except (RuntimeUnavailable, CallTimedOut):
        run.stale = True
    except AgentRuntimeError:
        # A wrong token is the operator's trouble; who reads is told what is known.
        run.stale = True
    else:
        project_run(run, live)
    return run


def list_events(
    run: AgentRun, *, after_sequence: int = 0, visibility: str = EventVisibility.USER
) -> QuerySet[AgentEvent]:
    """The projected events of a run that a reader of the level gets, in order; the run's end is for all."""
    seen = Q(visibility__in=_SEEN_FROM[visibility]) | Q(event_type__in=ENDS)
    return AgentEvent.objects.filter(seen, run=run, seq__gt=after_sequence).order_by("seq")


def has_all_events(run: AgentRun) -> bool:
    """Whether the rows have all events of a run that has ended.

    Its row may say so before they do: the runtime was asked, and the projector is still behind.
    """
    if not run.last_sequence or AgentEvent.objects.filter(run=run, event_type__in=ENDS).exists():
        return True
    # The event with which it ended may be lost; then there are those that the projector has passed.
    namespace = get_go_runtime_integration().settings.namespace
    return ProjectorCursor.objects.filter(namespace=namespace, sequence__gte=run.last_sequence).exists()


def find_end(run: AgentRun) -> int:
    """The sequence of the event with which a run ended; where that is not kept, the one that stands in for it."""
    kept = AgentEvent.objects.filter(run=run).aggregate(
        end=Min("seq", filter=Q(event_type__in=ENDS)), latest=Max("seq", default=0)
    )
    end: int | None = kept["end"]
    return end or max(run.last_sequence, kept["latest"] + 1)


def has_seen_the_end(run: AgentRun, sequence: int) -> bool:
    """Whether who has seen the event with this sequence has seen the run's end."""
    return bool(sequence) and run.has_ended and sequence >= find_end(run)


def _owned_by(actor: Principal) -> Q:
    if actor.user is not None:
        own = Q(user_id=actor.user.pk)
    elif actor.anonymous_session_id is not None:
        own = Q(user_id=None, anonymous_session_id=actor.anonymous_session_id)
    else:
        own = Q(pk__in=())
    if actor.is_staff:
        own |= Q(user_id=None, anonymous_session_id=None)
    return own


def _as_uuid(value: UUID | str) -> UUID | None:
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except ValueError:
        return None
