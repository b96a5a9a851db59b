"""What the API of conversations and runs takes and answers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timezone
from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension
from rest_framework import serializers

from django_agent_runtime.models import (
    MAX_AGENT_KEY_CHARACTERS,
    MAX_IDEMPOTENCY_KEY_CHARACTERS,
    AgentConversation,
    AgentRun,
    RunStatus,
)
from django_agent_runtime.services import MultitaskStrategy

MAX_ATTEMPTS = 100
MAX_PRIORITY = 1000
# A year.
MAX_DELAY_SECONDS = 31_536_000
MAX_SEQUENCE = 2**63 - 1
MAX_EVENTS_OF_PAGE = 500


class RequestSerializer(serializers.Serializer[dict[str, Any]]):
    """What a caller sends. A member that is not known is refused: what it was to do would not happen."""

    def to_internal_value(self, data: Any) -> Any:
        """The validated members.

        Raises:
            ValidationError: Naming every member that does not fit.
        """
        unknown = [name for name in data if name not in self.fields] if isinstance(data, Mapping) else []
        if unknown:
            reason = f"Is not known; known are {', '.join(self.fields)}." if self.fields else "Is not known; none is."
            raise serializers.ValidationError(dict.fromkeys(unknown, reason))
        return super().to_internal_value(data)


class RequestExtension(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]  # drf-spectacular has no types
    """Says in the OpenAPI description what RequestSerializer does."""

    target_class = RequestSerializer
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Any) -> Any:
        """The schema of the members, and of no others."""
        members = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)  # noqa: SLF001
        return members | {"additionalProperties": False}


class MessageField(serializers.DictField):
    """A message of a conversation: a JSON object with a role."""

    def to_internal_value(self, data: Any) -> dict[Any, Any]:
        """The message as it is.

        Raises:
            ValidationError: It is no object, or has no role.
        """
        message = super().to_internal_value(data)
        role = message.get("role")
        if not isinstance(role, str) or not role:
            raise serializers.ValidationError("A message has a role, such as user.")
        return message


class RunCreateSerializer(RequestSerializer):
    """A run to be made."""

    agent_key = serializers.CharField(max_length=MAX_AGENT_KEY_CHARACTERS)
    messages = serializers.ListField(
        child=MessageField(), help_text="What the agent is given, oldest first; each with a `role`."
    )
    conversation_id = serializers.UUIDField(required=False, allow_null=True, help_text="One of the caller's own.")
    params = serializers.DictField(required=False, help_text="Whatever else the agent is given.")
    metadata = serializers.DictField(required=False, help_text="Kept with the run.")
    idempotency_key = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=MAX_IDEMPOTENCY_KEY_CHARACTERS,
        help_text="A repeat with the same key and the same request is answered with the first run. "
        "A header `Idempotency-Key` goes before it.",
    )
    max_attempts = serializers.IntegerField(required=False, min_value=1, max_value=MAX_ATTEMPTS)
    priority = serializers.IntegerField(required=False, min_value=-MAX_PRIORITY, max_value=MAX_PRIORITY)
    multitask_strategy = serializers.ChoiceField(
        required=False,
        choices=MultitaskStrategy.choices,
        help_text="What happens while another run of the conversation is queued or running: this one waits "
        "(`enqueue`), is refused (`reject`), or has the others cancelled (`interrupt`), and taken out of the history "
        "(`rollback`).",
    )
    delay_seconds = serializers.FloatField(
        required=False, source="delay", min_value=0, max_value=MAX_DELAY_SECONDS, help_text="It does not begin before."
    )
    run_at = serializers.DateTimeField(
        required=False,
        default_timezone=timezone.utc,
        help_text="It does not begin before; UTC where it names no offset. Not together with `delay_seconds`.",
    )
    run_timeout_seconds = serializers.FloatField(
        required=False, source="run_timeout", min_value=0.001, max_value=MAX_DELAY_SECONDS, help_text="Of one attempt."
    )
    queue_timeout_seconds = serializers.FloatField(
        required=False,
        source="queue_timeout",
        min_value=0.001,
        max_value=MAX_DELAY_SECONDS,
        help_text="The run ends as timed_out when it could have begun for this long, and did not.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """The members together.

        Raises:
            ValidationError: Two of them contradict each other.
        """
        if "run_at" in attrs and "delay" in attrs:
            raise serializers.ValidationError({"run_at": "Not together with delay_seconds."})
        return attrs


class RunErrorSerializer(serializers.Serializer[Any]):
    """Why a run ended in another way than success, or why its latest attempt failed, while it waits for the next."""

    message = serializers.CharField(help_text="One sentence for a person.")
    reason = serializers.CharField(help_text="What a program switches on.")
    retryable = serializers.BooleanField(help_text="Whether another attempt could succeed.")
    error_type = serializers.CharField(help_text="The class of the agent's exception, or empty.")


class InterruptSerializer(serializers.Serializer[Any]):
    """What a waiting run asks."""

    interrupt_id = serializers.CharField()
    payload = serializers.JSONField(allow_null=True)


class RunSummarySerializer(serializers.ModelSerializer[AgentRun]):
    """A run, as lists have it."""

    conversation_id = serializers.UUIDField(allow_null=True, read_only=True)
    retry_of = serializers.UUIDField(source="retry_of_id", allow_null=True, read_only=True)
    parent_run_id = serializers.UUIDField(
        allow_null=True, read_only=True, help_text="Of a sub-run: the run that created it, whose owner it has."
    )
    rolled_back_by = serializers.UUIDField(
        allow_null=True,
        read_only=True,
        help_text="The run with the strategy `rollback` that takes this one back: once this one is `cancelled`, its "
        "messages are no part of the history.",
    )
    status = serializers.ChoiceField(choices=RunStatus.choices, read_only=True)
    error = RunErrorSerializer(allow_null=True, read_only=True)
    interrupt = InterruptSerializer(allow_null=True, read_only=True)
    metadata = serializers.DictField(read_only=True)

    class Meta:
        """Every column that is for its owner, but the large ones."""

        model = AgentRun
        fields: tuple[str, ...] = (
            "id",
            "conversation_id",
            "agent_key",
            "status",
            "error",
            "interrupt",
            "attempt",
            "max_attempts",
            "priority",
            "metadata",
            "idempotency_key",
            "retry_of",
            "parent_run_id",
            "schedule_id",
            "rolled_back_by",
            "created_at",
            "started_at",
            "finished_at",
            "cancel_requested_at",
            "submitted_at",
            "trace_id",
            "trace_url",
        )
        read_only_fields = fields


class RunSerializer(RunSummarySerializer):
    """A run with what it was given and what it made."""

    input = serializers.JSONField(
        read_only=True,
        help_text="The messages and the params. `{}` of a sub-run: only who may ask for "
        "internal events sees what another agent has said to it.",
    )
    output = serializers.JSONField(read_only=True, help_text="`{}` until the run has succeeded.")
    stale = serializers.BooleanField(read_only=True, help_text="Whether the runtime could not be asked just now.")

    class Meta(RunSummarySerializer.Meta):
        """All of it."""

        fields = (*RunSummarySerializer.Meta.fields, "input", "output", "stale")
        read_only_fields = fields


class RunListQuerySerializer(serializers.Serializer[dict[str, Any]]):
    """Which runs to list."""

    status = serializers.ChoiceField(required=False, choices=RunStatus.choices)
    agent_key = serializers.CharField(required=False, max_length=MAX_AGENT_KEY_CHARACTERS)
    conversation = serializers.UUIDField(required=False)
    parent_run = serializers.UUIDField(
        required=False, help_text="The sub-runs of this run. Without it, the list has no sub-runs."
    )


class RunCancelSerializer(RequestSerializer):
    """Why a run is cancelled."""

    reason = serializers.CharField(required=False, default="", allow_blank=True, max_length=250)


class RunResumeSerializer(RequestSerializer):
    """An answer to what a run asks."""

    value = serializers.JSONField(allow_null=True, help_text="The answer; any JSON, also null.")
    interrupt_id = serializers.CharField(
        required=False, allow_null=True, default=None, help_text="The question; by default the one the run waits at."
    )


class VisibilityQuerySerializer(serializers.Serializer[dict[str, Any]]):
    """Which events a reader wants."""

    include_debug = serializers.BooleanField(required=False, default=False, help_text="Also those of level `debug`.")
    include_all = serializers.BooleanField(
        required=False, default=False, help_text="Those of every level; for staff and who has the permission."
    )


class SequenceField(serializers.IntegerField):
    """A place in a stream, as the runtime's own streams read it: decimal digits alone."""

    def to_internal_value(self, data: Any) -> int:
        """The sequence.

        Raises:
            ValidationError: It is something else.
        """
        text = str(data)
        if not (text.isascii() and text.isdigit()):
            self.fail("invalid")
        return super().to_internal_value(text)


class StreamQuerySerializer(VisibilityQuerySerializer):
    """Which events to send, and from where."""

    from_seq = SequenceField(
        required=False, min_value=0, max_value=MAX_SEQUENCE, help_text="Begin behind the event with this `seq`."
    )
    last_event_id = SequenceField(
        required=False, min_value=0, max_value=MAX_SEQUENCE, help_text="As `from_seq`, and goes before it."
    )
    unnamed = serializers.BooleanField(
        required=False,
        default=False,
        help_text="Leave `event:` out, so that a browser gives every event to `onmessage`.",
    )


class EventsQuerySerializer(StreamQuerySerializer):
    """Which events to send, and how many of them at a time where they are sent as JSON."""

    limit = serializers.IntegerField(required=False, default=100, min_value=1, max_value=MAX_EVENTS_OF_PAGE)


class EventSerializer(serializers.Serializer[Any]):
    """An event of a run. The members of its payload stand beside these too, where they have other names."""

    type = serializers.CharField()
    seq = serializers.IntegerField()
    run_id = serializers.UUIDField()
    ts = serializers.DateTimeField()
    visibility = serializers.CharField()
    payload = serializers.DictField()


class EventPageSerializer(serializers.Serializer[Any]):
    """Events in order."""

    results = EventSerializer(many=True)
    next = serializers.CharField(allow_null=True, help_text="The address of what follows; null at the end for now.")
    complete = serializers.BooleanField(
        help_text="Whether nothing can follow any more. Where `next` is null all the same, what the run does is kept "
        "with a delay: ask again from the last `seq`, or read the stream."
    )


class StreamTicketSerializer(serializers.Serializer[Any]):
    """An address at which whoever has it can read a run's events, straight from the runtime."""

    url = serializers.CharField(allow_null=True, help_text="Null where the site does not say PUBLIC_STREAM_URL.")
    path = serializers.CharField(help_text="Path and query behind the public address of the runtime's HTTP port.")
    expires_at = serializers.DateTimeField()


class RunFileSerializer(serializers.Serializer[Any]):
    """A file that a run left."""

    path = serializers.CharField(help_text="Relative, with slashes; its address is `files/` and the path.")
    size = serializers.IntegerField(help_text="In bytes.")
    sha256 = serializers.CharField(help_text="Of the content, in hex.")
    executable = serializers.BooleanField()


class RunFilesSerializer(serializers.Serializer[Any]):
    """The files of a run, by path."""

    files = RunFileSerializer(many=True)


class ConversationSerializer(serializers.ModelSerializer[AgentConversation]):
    """A conversation."""

    metadata = serializers.DictField(read_only=True)

    class Meta:
        """Every column but its owner, who is the reader."""

        model = AgentConversation
        fields = ("id", "agent_key", "title", "metadata", "created_at", "updated_at")
        read_only_fields = fields


class ConversationCreateSerializer(RequestSerializer):
    """A conversation to begin."""

    agent_key = serializers.CharField(required=False, allow_blank=True, max_length=MAX_AGENT_KEY_CHARACTERS)
    title = serializers.CharField(required=False, allow_blank=True, max_length=255)
    metadata = serializers.DictField(required=False)


class ConversationUpdateSerializer(RequestSerializer):
    """What to change of a conversation."""

    title = serializers.CharField(required=False, allow_blank=True, max_length=255)
    metadata = serializers.DictField(required=False)


class ConversationListQuerySerializer(serializers.Serializer[dict[str, Any]]):
    """Which conversations to list."""

    agent_key = serializers.CharField(required=False, max_length=MAX_AGENT_KEY_CHARACTERS)


class HistoryQuerySerializer(serializers.Serializer[dict[str, Any]]):
    """Which messages to read."""

    include_failed_runs = serializers.BooleanField(required=False, default=False)


class HistorySerializer(serializers.Serializer[Any]):
    """The messages of a conversation, oldest first."""

    messages = serializers.ListField(child=serializers.DictField())
