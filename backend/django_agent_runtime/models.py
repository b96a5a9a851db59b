"""Conversations, runs and their events, as Django keeps them.

A row of `AgentRun` is what somebody asked for: a service, or a bare `AgentRun.objects.create(…)`, writes it, and
the runtime is then given a run of the same id. All else in it, and every `AgentEvent`, is a projection of the
runtime's own records that `django_agent_runtime.projector` writes; it may be behind. Nothing here calls the runtime.
Rows that are deleted leave a note of the runs that had not ended, by which the runtime is told to cancel them.
"""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from django_agent_runtime.messages import append_new

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from django_agent_runtime.messages import Message

MAX_AGENT_KEY_CHARACTERS = 255
MAX_IDEMPOTENCY_KEY_CHARACTERS = 255
MAX_SCHEDULE_ID_CHARACTERS = 200
MAX_TRACE_ID_CHARACTERS = 32
MAX_TRACE_URL_CHARACTERS = 700


class RunStatus(models.TextChoices):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"


ENDED_STATUSES = (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.TIMED_OUT)
OPEN_STATUSES = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING)


class EventVisibility(models.TextChoices):
    """Who gets to see an event, least first."""

    INTERNAL = "internal"
    DEBUG = "debug"
    USER = "user"


@contextmanager
def write_transaction() -> Iterator[None]:
    """`transaction.atomic()` for what reads before it writes.

    In SQLite, a transaction that has read, and is to write while another does, fails at once with "database is locked";
    one that begins with a write waits for the other, as long as the database's `timeout` says.
    """
    with transaction.atomic():
        if transaction.get_connection().vendor == "sqlite":
            AbandonedRun.objects.filter(run_id=uuid.UUID(int=0)).update(missed_at=None)
        yield


class AgentConversationQuerySet(models.QuerySet["AgentConversation"]):
    """Conversations, and what goes with them."""

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete them and their runs, which are cancelled where they have not ended."""
        with write_transaction():
            self.abandon_runs()
            return super().delete()

    # As Django's own are marked: for no template, and not of the manager.
    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def abandon_runs(self) -> None:
        """Note the runs that have not ended, and keep others out until the transaction ends."""
        keys = self.values("pk")
        list(AgentConversation.objects.filter(pk__in=keys).order_by("pk").select_for_update().values_list("pk"))
        AgentRun.objects.filter(conversation__in=keys).abandon()


class AgentConversation(models.Model):
    """Runs that belong together, such as those of one chat."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="agent_conversations"
    )
    # Set where the owner is not signed in; a row without either is for staff only.
    anonymous_session_id = models.UUIDField(null=True, blank=True)
    agent_key = models.CharField(max_length=MAX_AGENT_KEY_CHARACTERS, blank=True)
    title = models.CharField(max_length=255, blank=True)
    metadata = models.JSONField(default=dict, blank=True, encoder=DjangoJSONEncoder)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    objects = AgentConversationQuerySet.as_manager()

    class Meta:
        """Newest first, by owner."""

        verbose_name = "conversation"
        indexes = (
            models.Index(fields=["user", "-created_at", "-id"], name="agent_conversation_of_user"),
            models.Index(fields=["anonymous_session_id", "-created_at", "-id"], name="agent_conversation_of_session"),
            models.Index(fields=["-created_at", "-id"], name="agent_conversation_newest"),
        )

    def __str__(self) -> str:
        return self.title or f"conversation {self.pk}"

    def delete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """Delete it and its runs, which are cancelled where they have not ended."""
        with write_transaction():
            AgentConversation.objects.filter(pk=self.pk).abandon_runs()
            return super().delete(using, keep_parents)

    def get_message_history(self, *, include_failed_runs: bool = False) -> list[Message]:
        """The messages of all runs in order, each once: what was asked and what the agent made of it.

        The same words asked of two runs one after the other are one message where the first left no `final_messages`:
        see `messages.append_new`.

        Args:
            include_failed_runs: Whether runs count that ended in another way than success. Runs that have not
                ended never do, nor those that a later one rolled back.
        """
        statuses: Sequence[str] = ENDED_STATUSES if include_failed_runs else (RunStatus.SUCCEEDED,)
        counted = self.runs.filter(status__in=statuses).exclude(
            status=RunStatus.CANCELLED, rolled_back_by__isnull=False
        )
        runs = counted.order_by("created_at", "id")
        history: list[Message] = []
        for asked, answered in runs.values_list("input__messages", "output__final_messages"):
            append_new(history, asked)
            append_new(history, answered, asked=asked)
        return history

    def get_last_assistant_message(self) -> Message | None:
        """The last message of an assistant in the history; None without one."""
        statuses = (RunStatus.SUCCEEDED,)
        # From the newest run on, so that a long conversation is not read for one message.
        runs = self.runs.filter(status__in=statuses).order_by("-created_at", "-id")
        for asked, answered in runs.values_list("input__messages", "output__final_messages").iterator(chunk_size=20):
            messages: list[Message] = []
            append_new(messages, asked)
            append_new(messages, answered, asked=asked)
            for message in reversed(messages):
                if message.get("role") == "assistant":
                    return message
        return None


class AgentRunQuerySet(models.QuerySet["AgentRun"]):
    """The questions about runs that need their own table only."""

    def create(self, **kwargs: Any) -> AgentRun:
        """Insert a run; one of a conversation that names no owner belongs to the conversation's."""
        conversation: AgentConversation | None = kwargs.get("conversation")
        owner = {"user", "user_id", "anonymous_session_id"}
        if conversation is not None and not owner & kwargs.keys():
            kwargs |= {"user_id": conversation.user_id, "anonymous_session_id": conversation.anonymous_session_id}
        return super().create(**kwargs)

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete them; those that have not ended are cancelled."""
        with write_transaction():
            self.abandon()
            return super().delete()

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def abandon(self) -> None:
        """Note those that have not ended, for the runtime to be told. No event is added to them from here on."""
        going_on = AgentRun.objects.filter(pk__in=self.values("pk"), status__in=OPEN_STATUSES)
        keys = going_on.order_by("pk").select_for_update().values_list("pk", flat=True)
        AbandonedRun.objects.bulk_create([AbandonedRun(run_id=key) for key in keys], ignore_conflicts=True)

    def unsubmitted(self) -> AgentRunQuerySet:
        """Those that the runtime has not acknowledged yet, oldest first."""
        return self.filter(submitted_at=None, status=RunStatus.QUEUED).order_by("created_at", "id")

    def with_cancel_requests(self, *, acknowledged_before: datetime) -> AgentRunQuerySet:
        """Those that were to be cancelled and have not ended, unless the runtime has acknowledged it since then."""
        unheard = Q(cancel_acknowledged_at=None) | Q(cancel_acknowledged_at__lt=acknowledged_before)
        requested = self.filter(unheard, cancel_requested_at__isnull=False, status__in=OPEN_STATUSES)
        return requested.order_by("cancel_requested_at", "id")


class AgentRun(models.Model):
    """One execution of an agent: asked for here, or by the runtime's own doing, a sub-run or a run of a schedule."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    conversation = models.ForeignKey(
        AgentConversation, on_delete=models.CASCADE, null=True, blank=True, related_name="runs"
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="agent_runs"
    )
    anonymous_session_id = models.UUIDField(null=True, blank=True)
    agent_key = models.CharField(max_length=MAX_AGENT_KEY_CHARACTERS)
    status = models.CharField(max_length=16, choices=RunStatus, default=RunStatus.QUEUED)
    # {"messages": […], "params": {…}}
    input = models.JSONField(default=dict, blank=True, encoder=DjangoJSONEncoder)
    # {"final_output": {…}, "final_messages": […], "usage": {…}} once the run succeeded.
    output = models.JSONField(default=dict, blank=True)
    # {"message", "reason", "retryable", "error_type"} once it ended otherwise, or while it waits for another attempt.
    error = models.JSONField(null=True, blank=True)
    # {"interrupt_id", "payload"} while the run waits for an answer.
    interrupt = models.JSONField(null=True, blank=True)
    attempt = models.PositiveIntegerField(default=0)
    # Null: the setting's.
    max_attempts = models.PositiveSmallIntegerField(null=True, blank=True)
    idempotency_key = models.CharField(max_length=MAX_IDEMPOTENCY_KEY_CHARACTERS, blank=True)
    # SHA-256 of what was asked for, by which a repeat under the same key is told from another request.
    payload_hash = models.CharField(max_length=64, blank=True, editable=False)
    priority = models.SmallIntegerField(default=0)
    # What else the runtime is asked for; see `services.RunOptions`.
    options = models.JSONField(default=dict, blank=True)
    metadata = models.JSONField(default=dict, blank=True, encoder=DjangoJSONEncoder)
    retry_of = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, blank=True, related_name="retries")
    # Of a sub-run (`ctx.run_agent`): the run that created it, whose owner it has.
    parent_run = models.ForeignKey("self", on_delete=models.CASCADE, null=True, blank=True, related_name="sub_runs")
    # The runtime's schedule that created it; nobody owns such a run.
    schedule_id = models.CharField(max_length=MAX_SCHEDULE_ID_CHARACTERS, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    # When the latest attempt began.
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    # When the runtime last said that it has cancelled the run; of the end itself the row learns by the projector.
    cancel_acknowledged_at = models.DateTimeField(null=True, blank=True, editable=False)
    # The run with the strategy `rollback` before which this one had not ended: once cancelled, it is no part of the
    # conversation's history. No foreign key, so that it stays so when that run is deleted.
    rolled_back_by = models.UUIDField(null=True, blank=True, editable=False)
    # When the runtime acknowledged it; null until then.
    submitted_at = models.DateTimeField(null=True, blank=True)
    # Of the latest record of the runtime that is in this row.
    last_sequence = models.BigIntegerField(default=0, editable=False)
    # Of its OpenTelemetry trace, and where that is shown if the runtime was told (`--trace-url`).
    trace_id = models.CharField(max_length=MAX_TRACE_ID_CHARACTERS, blank=True, editable=False)
    trace_url = models.CharField(max_length=MAX_TRACE_URL_CHARACTERS, blank=True, editable=False)

    objects = AgentRunQuerySet.as_manager()

    # Whether the runtime could not be asked; of `selectors.read_run`, and no column.
    stale = False

    class Meta:
        """One idempotency key an owner; an index for every list that is asked for often."""

        verbose_name = "run"
        permissions = (("view_internal_events", "Can see the internal events of runs"),)
        constraints = (
            models.CheckConstraint(condition=Q(status__in=RunStatus.values), name="agent_run_status_is_known"),
            models.UniqueConstraint(
                fields=["user", "idempotency_key"],
                condition=Q(user__isnull=False) & ~Q(idempotency_key=""),
                name="agent_run_key_of_user",
            ),
            models.UniqueConstraint(
                fields=["anonymous_session_id", "idempotency_key"],
                condition=Q(anonymous_session_id__isnull=False) & ~Q(idempotency_key=""),
                name="agent_run_key_of_session",
            ),
        )
        indexes = (
            models.Index(fields=["user", "-created_at", "-id"], name="agent_run_of_user"),
            models.Index(fields=["anonymous_session_id", "-created_at", "-id"], name="agent_run_of_session"),
            models.Index(fields=["conversation", "created_at", "id"], name="agent_run_of_conversation"),
            models.Index(fields=["-created_at", "-id"], name="agent_run_newest"),
            models.Index(
                fields=["created_at", "id"],
                condition=Q(submitted_at__isnull=True, status=RunStatus.QUEUED),
                name="agent_run_unsubmitted",
            ),
            models.Index(
                fields=["cancel_requested_at", "id"],
                condition=Q(cancel_requested_at__isnull=False, status__in=OPEN_STATUSES),
                name="agent_run_to_cancel",
            ),
        )

    def __str__(self) -> str:
        return f"{self.agent_key} {self.pk}"

    def delete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """Delete it; a run that has not ended is cancelled."""
        with write_transaction():
            AgentRun.objects.filter(pk=self.pk).abandon()
            return super().delete(using, keep_parents)

    @property
    def has_ended(self) -> bool:
        """Whether nothing can happen to the run any more, as far as this row knows."""
        return self.status in ENDED_STATUSES


class AbandonedRunQuerySet(models.QuerySet["AbandonedRun"]):
    """The notes of runs whose rows are gone."""

    def due(self, *, missed_before: datetime) -> AbandonedRunQuerySet:
        """Those of which the runtime is to be told now, oldest first."""
        return self.filter(Q(missed_at=None) | Q(missed_at__lt=missed_before)).order_by("deleted_at", "run_id")


class AbandonedRun(models.Model):
    """A run that had not ended when its row was deleted, until the runtime has cancelled it."""

    run_id = models.UUIDField(primary_key=True)
    deleted_at = models.DateTimeField(default=timezone.now)
    # When the runtime did not know the run: it may have been on its way there, so that it is asked once more.
    missed_at = models.DateTimeField(null=True)

    objects = AbandonedRunQuerySet.as_manager()

    def __str__(self) -> str:
        return f"run {self.run_id} without a row"


class AgentEvent(models.Model):
    """Something that happened in a run. Deltas are not kept here."""

    run = models.ForeignKey(AgentRun, on_delete=models.CASCADE, related_name="events")
    # The runtime's own: rises, and skips numbers.
    seq = models.BigIntegerField()
    event_type = models.CharField(max_length=200)
    payload = models.JSONField(default=dict, blank=True)
    visibility = models.CharField(max_length=8, choices=EventVisibility, default=EventVisibility.USER)
    attempt = models.PositiveIntegerField(default=0)
    timestamp = models.DateTimeField(default=timezone.now)

    class Meta:
        """Each number once a run, whose index also serves the events of a run in order."""

        verbose_name = "event"
        ordering = ("seq",)
        constraints = (models.UniqueConstraint(fields=["run", "seq"], name="agent_event_sequence_of_run"),)

    def __str__(self) -> str:
        return f"{self.event_type} #{self.seq}"


class ProjectorCursor(models.Model):
    """How far the projection of a namespace of the runtime has got, and who makes it."""

    namespace = models.CharField(max_length=63, primary_key=True)
    # Every record up to it is in the tables.
    sequence = models.BigIntegerField(default=0)
    # The process that holds the lease; empty: nobody.
    owner = models.CharField(max_length=200, blank=True)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"{self.namespace} at {self.sequence}"
