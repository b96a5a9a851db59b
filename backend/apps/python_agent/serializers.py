"""What the example's API takes and answers."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from django_agent_runtime.api.serializers import RequestSerializer

MAX_EVENT_TYPE_CHARACTERS = 200
MAX_SUBSCRIBED_TYPES = 100
# Ten years.
MAX_TTL_SECONDS = 315_360_000


class TaskRequestSerializer(RequestSerializer):
    """A task to execute."""

    task_type = serializers.CharField(help_text="One of those listed.")
    input_data = serializers.DictField(required=False, default=dict, help_text="The task's input, a JSON object.")
    description = serializers.CharField(required=False, default="", allow_blank=True, max_length=1000)
    metadata = serializers.DictField(required=False, default=dict, help_text="Kept with the run.")
    idempotency_key = serializers.CharField(
        required=False, max_length=255, help_text="A repeat with the same key and payload joins the first run."
    )


class LabelledTaskRequestSerializer(TaskRequestSerializer):
    """A task that needs no agent; `agent_id` is only a label."""

    agent_id = serializers.CharField(required=False, default="", allow_blank=True)


class TaskResultSerializer(serializers.Serializer[dict[str, Any]]):
    """What the task made."""

    output = serializers.DictField()


class TaskTypeSerializer(serializers.Serializer[Any]):
    """A kind of task."""

    task_type = serializers.CharField()
    description = serializers.CharField()
    input_schema = serializers.DictField(help_text="JSON Schema of the input.")


class TaskTypeListSerializer(serializers.Serializer[dict[str, Any]]):
    """The tasks that need no agent."""

    task_types = TaskTypeSerializer(many=True)


class AgentSerializer(serializers.Serializer[Any]):
    """An agent with the tasks it takes."""

    agent_id = serializers.CharField()
    description = serializers.CharField()
    model = serializers.CharField(help_text="The model that answers; `offline` when none is configured.")
    task_types = TaskTypeSerializer(many=True)


class AgentListSerializer(serializers.Serializer[dict[str, Any]]):
    """The agents that can be given tasks."""

    agents = AgentSerializer(many=True)


class StateEntrySerializer(serializers.Serializer[Any]):
    """A key with its value."""

    key = serializers.CharField()
    value = serializers.JSONField(allow_null=True)
    revision = serializers.IntegerField(help_text="Rises with every change; also the ETag.")
    update_time = serializers.DateTimeField(allow_null=True)
    expire_time = serializers.DateTimeField(allow_null=True)


class StateKeySerializer(serializers.Serializer[Any]):
    """A key without its value."""

    key = serializers.CharField()
    revision = serializers.IntegerField()
    update_time = serializers.DateTimeField(allow_null=True)
    expire_time = serializers.DateTimeField(allow_null=True)


class StateListSerializer(serializers.Serializer[dict[str, Any]]):
    """Keys in byte order."""

    entries = StateKeySerializer(many=True)
    more = serializers.BooleanField(help_text="Whether there are more keys than `limit` with this prefix.")


class StateQuerySerializer(RequestSerializer):
    """Which keys to list."""

    prefix = serializers.CharField(required=False, default="", allow_blank=True, trim_whitespace=False)
    limit = serializers.IntegerField(required=False, default=100, min_value=1, max_value=1000)


class StateWriteSerializer(RequestSerializer):
    """A value to write."""

    value = serializers.JSONField(allow_null=True)
    ttl_seconds = serializers.IntegerField(
        required=False, min_value=1, max_value=MAX_TTL_SECONDS, help_text="After how long the key is removed."
    )


class StateWrittenSerializer(serializers.Serializer[dict[str, Any]]):
    """What a write did."""

    key = serializers.CharField()
    revision = serializers.IntegerField()


class EventRequestSerializer(RequestSerializer):
    """An event to publish."""

    event_type = serializers.CharField(max_length=MAX_EVENT_TYPE_CHARACTERS)
    # Fields, which do not hide the attributes of these names: the metaclass takes them off the class.
    data = serializers.JSONField(allow_null=True)  # type: ignore[assignment]
    source = serializers.CharField(required=False, default="", allow_blank=True, max_length=200)  # type: ignore[assignment]
    metadata = serializers.DictField(required=False, default=dict)


class EventPublishedSerializer(serializers.Serializer[Any]):
    """What the event became."""

    event_id = serializers.CharField()
    sequence = serializers.IntegerField(help_text="Pass it as `after_sequence` to stream what follows.")


class EventStreamQuerySerializer(RequestSerializer):
    """Which events to stream, and from where."""

    event_type = serializers.CharField(
        required=False,
        default="*",
        help_text="Event types parted by commas; `*` is every type, `order.*` every type with that prefix.",
    )
    after_sequence = serializers.IntegerField(
        required=False,
        min_value=0,
        max_value=2**63 - 1,
        help_text="Begin behind this sequence; 0 is the start. A `Last-Event-ID` header goes before it.",
    )
    named = serializers.BooleanField(
        required=False, default=True, help_text="Whether blocks carry `event:` with the event's type."
    )

    def validate_event_type(self, value: str) -> list[str]:
        """The types as a list."""
        types = [name for name in value.split(",") if name]
        if not 1 <= len(types) <= MAX_SUBSCRIBED_TYPES:
            raise serializers.ValidationError(f"Name 1 to {MAX_SUBSCRIBED_TYPES} types.")
        return types
