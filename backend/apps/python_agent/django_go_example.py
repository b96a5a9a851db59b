"""The guide's example: Django views that use the Go runtime.

Each view reads its input, makes one call, and writes what came back. The errors of the client
become problem details in `django_agent_runtime.api.problems`.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django.db import close_old_connections
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.throttling import ScopedRateThrottle
from rest_framework.views import APIView

from backend.apps.python_agent import serializers as schema
from backend.apps.python_agent.go_integration import get_go_runtime_integration
from django_agent_runtime.api.event_stream import MEDIA_TYPE, EventStreamRenderer, EventStreamResponse
from django_agent_runtime.api.problems import CONTENT_TYPE, ProblemSerializer
from django_agent_runtime.types import NewEvent, SetOperation

if TYPE_CHECKING:
    from rest_framework.request import Request

PROBLEM = {("default", CONTENT_TYPE): OpenApiResponse(ProblemSerializer, description="What went wrong.")}
# A revision is a number of 64 bits, and never 0.
ETAG_DIGITS = re.compile(r"[1-9][0-9]{0,18}")
SEQUENCE_DIGITS = re.compile(r"[0-9]{1,19}")
KEY = OpenApiParameter(
    "key",
    str,
    OpenApiParameter.PATH,
    description="All that follows `/api/state/`, with every slash: `/api/state/k1/` is the key `k1/`, and not `k1`.",
)
IF_MATCH = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, description="Only if the key is at this revision: its ETag."
)
IF_NONE_MATCH = OpenApiParameter(
    "If-None-Match", str, OpenApiParameter.HEADER, enum=["*"], description="Only if there is no such key."
)
LAST_EVENT_ID = OpenApiParameter(
    "Last-Event-ID", str, OpenApiParameter.HEADER, description="Resume behind this sequence."
)
STREAM = {(HTTPStatus.OK.value, MEDIA_TYPE): OpenApiResponse(OpenApiTypes.STR, description="Server-Sent Events.")}


class TaskListView(APIView):
    """Tasks that need no agent."""

    @extend_schema(responses={200: schema.TaskTypeListSerializer, **PROBLEM})
    def get(self, _request: Request) -> Response:
        """List the task types."""
        task_types = get_go_runtime_integration().list_task_types()
        return Response(schema.TaskTypeListSerializer({"task_types": task_types}).data)

    @extend_schema(
        request=schema.LabelledTaskRequestSerializer, responses={200: schema.TaskResultSerializer, **PROBLEM}
    )
    def post(self, request: Request) -> Response:
        """Execute a task and wait for its output."""
        task = _read(schema.LabelledTaskRequestSerializer, request.data)
        return Response({"output": get_go_runtime_integration().execute_task(**task)})


class AgentListView(APIView):
    """The agents of the runtime."""

    @extend_schema(responses={200: schema.AgentListSerializer, **PROBLEM})
    def get(self, _request: Request) -> Response:
        """List the agents with the tasks they take."""
        return Response(schema.AgentListSerializer({"agents": get_go_runtime_integration().list_agents()}).data)


class AgentTaskView(APIView):
    """The tasks of one agent."""

    @extend_schema(request=schema.TaskRequestSerializer, responses={200: schema.TaskResultSerializer, **PROBLEM})
    def post(self, request: Request, agent_id: str) -> Response:
        """Have an agent execute a task and wait for its output."""
        task = _read(schema.TaskRequestSerializer, request.data)
        return Response({"output": get_go_runtime_integration().execute_agent_task(agent_id, **task)})


class StateListView(APIView):
    """The keys of the shared state."""

    @extend_schema(
        operation_id="api_state_list",
        parameters=[schema.StateQuerySerializer],
        responses={200: schema.StateListSerializer, **PROBLEM},
    )
    def get(self, request: Request) -> Response:
        """List keys by prefix, without their values."""
        query = _read(schema.StateQuerySerializer, _query_of(request))
        limit = query["limit"]
        entries = get_go_runtime_integration().list_state(query["prefix"], keys_only=True, page_size=limit)
        found = list(islice(entries, limit + 1))
        return Response(schema.StateListSerializer({"entries": found[:limit], "more": len(found) > limit}).data)


class StateEntryView(APIView):
    """One key of the shared state; the ETag is its revision."""

    @extend_schema(parameters=[KEY], responses={200: schema.StateEntrySerializer, **PROBLEM})
    def get(self, _request: Request, key: str) -> Response:
        """Read a key."""
        entry = get_go_runtime_integration().get_state_entry(key)
        if entry is None:
            raise NotFound(f"There is no key {key!r}.")
        return Response(schema.StateEntrySerializer(entry).data, headers={"ETag": f'"{entry.revision}"'})

    @extend_schema(
        parameters=[KEY, IF_MATCH, IF_NONE_MATCH],
        request=schema.StateWriteSerializer,
        responses={200: schema.StateWrittenSerializer, 201: schema.StateWrittenSerializer, **PROBLEM},
    )
    def put(self, request: Request, key: str) -> Response:
        """Write a key, unconditionally or as the conditional headers say."""
        write = _read(schema.StateWriteSerializer, request.data)
        operation = SetOperation(key, write["value"], write.get("ttl_seconds"), _read_condition(request))
        [result] = get_go_runtime_integration().transact_state([operation])
        return Response(
            {"key": key, "revision": result.revision},
            status=HTTPStatus.OK if result.existed else HTTPStatus.CREATED,
            headers={"ETag": f'"{result.revision}"'},
        )

    @extend_schema(parameters=[KEY, IF_MATCH], responses={204: None, **PROBLEM})
    def delete(self, request: Request, key: str) -> Response:
        """Delete a key; 404 when there is none."""
        if not get_go_runtime_integration().delete_state(key, expected_revision=_read_condition(request)):
            raise NotFound(f"There is no key {key!r}.")
        return Response(status=HTTPStatus.NO_CONTENT)


class EventListView(APIView):
    """Events, on their way in."""

    @extend_schema(request=schema.EventRequestSerializer, responses={201: schema.EventPublishedSerializer, **PROBLEM})
    def post(self, request: Request) -> Response:
        """Publish an event; once this is answered, it is kept."""
        event = NewEvent(**_read(schema.EventRequestSerializer, request.data))
        [published] = get_go_runtime_integration().publish_events([event])
        return Response(schema.EventPublishedSerializer(published).data, status=HTTPStatus.CREATED)


class EventStreamView(APIView):
    """Events, on their way out."""

    renderer_classes = (EventStreamRenderer,)
    throttle_classes = (ScopedRateThrottle,)
    throttle_scope = "stream"

    @extend_schema(parameters=[schema.EventStreamQuerySerializer, LAST_EVENT_ID], responses={**STREAM, **PROBLEM})
    def get(self, request: Request) -> EventStreamResponse:
        """Stream events as Server-Sent Events, from now on or behind a sequence, without gap or repeat."""
        wanted = _read(schema.EventStreamQuerySerializer, _query_of(request))
        # A browser that reconnects repeats the address it began with and adds the last id it saw.
        after = _read_last_event_id(request)
        if after is None:
            after = wanted.get("after_sequence")
        events = get_go_runtime_integration().astream_events(wanted["event_type"], after_sequence=after)
        # Opened here, so that a refusal is an HTTP status and not a broken stream.
        async_to_sync(events.__aenter__)()
        # The sign-in took a database connection, which the stream must not hold for an hour.
        close_old_connections()
        # Only requests of an ASGI server have a scope.
        is_async, is_head = hasattr(request, "scope"), request.method == "HEAD"
        return EventStreamResponse(events, is_async=is_async, named=wanted["named"], is_head=is_head)


def _read(kind: type[serializers.Serializer[Any]], data: Any) -> dict[str, Any]:
    """The validated input of a view."""
    serializer = kind(data=data)
    serializer.is_valid(raise_exception=True)
    values: dict[str, Any] = serializer.validated_data
    return values


def _query_of(request: Request) -> dict[str, Any]:
    """The query of a request, without what chooses the format of its answer."""
    return {name: value for name, value in request.query_params.items() if name != api_settings.URL_FORMAT_OVERRIDE}


def _read_last_event_id(request: Request) -> int | None:
    """The sequence in `Last-Event-ID`, None without one."""
    sequence = request.headers.get("Last-Event-ID")
    if sequence is None:
        return None
    if not SEQUENCE_DIGITS.fullmatch(sequence):
        raise serializers.ValidationError({"Last-Event-ID": "Must be the id of an event, such as 7."})
    return int(sequence)


def _read_condition(request: Request) -> int | None:
    """The revision a write expects: that of `If-Match`, 0 for `If-None-Match: *`, None without a condition."""
    if "If-None-Match" in request.headers:
        if request.headers["If-None-Match"].strip() != "*":
            raise serializers.ValidationError({"If-None-Match": "Only * is known."})
        return 0
    etag = request.headers.get("If-Match")
    if etag is None:
        return None
    revision = etag.strip().strip('"')
    if not ETAG_DIGITS.fullmatch(revision):
        raise serializers.ValidationError({"If-Match": 'Must be an ETag that was given out, such as "7".'})
    return int(revision)
