"""Conversations and runs over HTTP.

A project inherits from the two viewsets, says who may call them, and registers them with a router:

    class AgentRunViewSet(BaseAgentRunViewSet):
        permission_classes = [IsAuthenticated]

Whoever gets in sees what is their own; everything else looks as if it were not there.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.generics import GenericAPIView
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.versioning import QueryParameterVersioning
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet

from django_agent_runtime import selectors, services
from django_agent_runtime.api import serializers as schema
from django_agent_runtime.api.event_stream import MEDIA_TYPE, BlocksResponse, EventStreamRenderer, WeighedNegotiation
from django_agent_runtime.api.pagination import NewestFirstPagination
from django_agent_runtime.api.parsers import BoundedJSONParser
from django_agent_runtime.api.permissions import (
    TOKEN_PARAMETER,
    IsAuthenticatedOrAnonymousSession,
    every_way_in,
    principal_of,
)
from django_agent_runtime.api.problems import CONTENT_TYPE, ProblemSerializer, handle_exception
from django_agent_runtime.api.run_stream import RunEventStream, describe_event_row
from django_agent_runtime.exceptions import PermissionDenied, RunNotFound, RuntimeUnavailable
from django_agent_runtime.live import get_hurried_runtime
from django_agent_runtime.models import (
    MAX_IDEMPOTENCY_KEY_CHARACTERS,
    AgentConversation,
    AgentRun,
    EventVisibility,
)
from django_agent_runtime.principals import INTERNAL_EVENTS_PERMISSION
from django_agent_runtime.runtime_conf import get_agent_runtime_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from django.db.models import QuerySet
    from django.http.response import HttpResponseBase
    from rest_framework.pagination import BasePagination
    from rest_framework.request import Request

    from django_agent_runtime.principals import Principal

PROBLEM = {("default", CONTENT_TYPE): OpenApiResponse(ProblemSerializer, description="What went wrong.")}
STREAM = {(HTTPStatus.OK.value, MEDIA_TYPE): OpenApiResponse(OpenApiTypes.STR, description="Server-Sent Events.")}
NO_MORE = {HTTPStatus.NO_CONTENT.value: OpenApiResponse(description="The run has ended, and all of it was seen.")}
RUN_ID = OpenApiParameter("id", OpenApiTypes.UUID, OpenApiParameter.PATH, description="The run.")
CONVERSATION_ID = OpenApiParameter("id", OpenApiTypes.UUID, OpenApiParameter.PATH, description="The conversation.")
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="A repeat with the same key and the same request is answered with the first run.",
)
LAST_EVENT_ID = OpenApiParameter(
    "Last-Event-ID", str, OpenApiParameter.HEADER, description="Begin behind this event; it goes before the query."
)
# What says how to answer, and who asks; and what clients add against caches.
_PARAMETERS_OF_ALL = frozenset({api_settings.URL_FORMAT_OVERRIDE, TOKEN_PARAMETER, "_"})


class ProblemView(APIView):
    """Its errors are problem details, and it reads no JSON that nests too deep, whatever the project has set."""

    parser_classes = (BoundedJSONParser,)
    extra_query_parameters: Iterable[str] = ()
    """What the project's own code reads of a query; what nothing reads is refused."""

    def check_query(self, kind: type[serializers.Serializer[Any]] = serializers.Serializer) -> None:
        """Refuse a query that says more than this view reads: it would not happen.

        Args:
            kind: What the view reads. The pages of a list are known beside it.

        Raises:
            ValidationError: Naming every parameter that is not known.
        """
        known = [*kind().fields, *self.extra_query_parameters, *_name_parameters_of_list(self)]
        allowed = _PARAMETERS_OF_ALL.union(known, _name_versioning(self.request))
        unknown = [name for name in self.request.query_params if name not in allowed]
        if unknown:
            reason = f"Is not known; known are {', '.join(known)}." if known else "Is not known; none is."
            raise serializers.ValidationError(dict.fromkeys(unknown, reason))

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        """What makes an answer of an error."""
        return handle_exception


class BaseAgentConversationViewSet(ProblemView, GenericViewSet[AgentConversation]):
    """Conversations of the caller. Inherit from it, and set `authentication_classes` and `permission_classes`.

    A `get_queryset` or `filter_backends` of the project's own leave fewer of them, and object permissions are asked.
    """

    serializer_class = schema.ConversationSerializer
    pagination_class: type[BasePagination] | None = NewestFirstPagination
    queryset = AgentConversation.objects.all()
    lookup_field = "id"

    def get_queryset(self) -> QuerySet[AgentConversation]:
        """The caller's own."""
        return selectors.visible_conversations(principal_of(self.request), super().get_queryset())

    def get_object(self) -> AgentConversation:
        """The one that the address names, of those of `get_queryset` that are the caller's own.

        Raises:
            NotFound: There is none.
            APIException: An object permission refuses it.
        """
        rows = self.filter_queryset(self.get_queryset())
        conversation = selectors.get_visible_conversation(principal_of(self.request), _name_row(self), rows)
        self.check_object_permissions(self.request, conversation)
        return conversation

    @extend_schema(
        parameters=[schema.ConversationListQuerySerializer],
        responses={200: schema.ConversationSerializer(many=True), **PROBLEM},
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the conversations, newest first."""
        self.check_query(schema.ConversationListQuerySerializer)
        wanted = _read(schema.ConversationListQuerySerializer, request.query_params)
        rows = self.filter_queryset(self.get_queryset().order_by(*NewestFirstPagination.ordering))
        return _page(self, selectors.visible_conversations(principal_of(request), rows).filter(**wanted))

    @extend_schema(
        request=schema.ConversationCreateSerializer, responses={201: schema.ConversationSerializer, **PROBLEM}
    )
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Begin a conversation."""
        self.check_query()
        wanted = _read(schema.ConversationCreateSerializer, request.data)
        conversation = services.create_conversation(actor=principal_of(request), **wanted)
        return Response(schema.ConversationSerializer(conversation).data, status=HTTPStatus.CREATED)

    @extend_schema(parameters=[CONVERSATION_ID], responses={200: schema.ConversationSerializer, **PROBLEM})
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Read a conversation."""
        self.check_query()
        conversation = self.get_object()
        return Response(schema.ConversationSerializer(conversation).data)

    @extend_schema(
        parameters=[CONVERSATION_ID],
        request=schema.ConversationUpdateSerializer,
        responses={200: schema.ConversationSerializer, **PROBLEM},
    )
    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Change the title or the metadata."""
        self.check_query()
        actor = principal_of(request)
        conversation = self.get_object()
        changes = _read(schema.ConversationUpdateSerializer, request.data)
        conversation = services.update_conversation(actor=actor, conversation=conversation, **changes)
        return Response(schema.ConversationSerializer(conversation).data)

    @extend_schema(
        parameters=[CONVERSATION_ID, schema.HistoryQuerySerializer],
        responses={200: schema.HistorySerializer, **PROBLEM},
    )
    @action(detail=True, methods=["get"])
    def messages(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Read the messages of all runs of the conversation."""
        self.check_query(schema.HistoryQuerySerializer)
        conversation = self.get_object()
        wanted = _read(schema.HistoryQuerySerializer, request.query_params)
        return Response({"messages": conversation.get_message_history(**wanted)})

    @extend_schema(parameters=[CONVERSATION_ID], responses={204: None, **PROBLEM})
    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Delete a conversation with its runs; those that have not ended are cancelled."""
        self.check_query()
        actor = principal_of(request)
        services.delete_conversation(actor=actor, conversation=self.get_object())
        return Response(status=HTTPStatus.NO_CONTENT)


class RunLookup(ProblemView, GenericAPIView[AgentRun]):
    """Finds a run of the caller's."""

    queryset = AgentRun.objects.all()
    lookup_field = "id"

    def get_queryset(self) -> QuerySet[AgentRun]:
        """The caller's own."""
        return selectors.visible_runs(principal_of(self.request), super().get_queryset())

    def get_object(self) -> AgentRun:
        """The one that the address names, of those of `get_queryset` that are the caller's own.

        Raises:
            RunNotFound: There is none.
            APIException: An object permission refuses it.
        """
        rows = self.filter_queryset(self.get_queryset())
        run = selectors.get_visible_run(principal_of(self.request), _name_row(self), rows)
        self.check_object_permissions(self.request, run)
        return run


class BaseAgentRunViewSet(RunLookup, GenericViewSet[AgentRun]):
    """Runs of the caller. Inherit from it, and set `authentication_classes` and `permission_classes`.

    A `get_queryset` or `filter_backends` of the project's own leave fewer of them, and object permissions are asked.
    """

    serializer_class = schema.RunSummarySerializer
    pagination_class: type[BasePagination] | None = NewestFirstPagination

    @extend_schema(
        parameters=[schema.RunListQuerySerializer], responses={200: schema.RunSummarySerializer(many=True), **PROBLEM}
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the runs, newest first, without what they were given and made."""
        self.check_query(schema.RunListQuerySerializer)
        wanted = _read(schema.RunListQuerySerializer, request.query_params)
        rows = self.filter_queryset(self.get_queryset().order_by(*NewestFirstPagination.ordering))
        found = selectors.visible_runs(principal_of(request), rows).filter(**{"parent_run": None} | wanted)
        return _page(self, found.defer("input", "output"))

    @extend_schema(
        parameters=[IDEMPOTENCY_KEY],
        request=schema.RunCreateSerializer,
        responses={200: schema.RunSerializer, 201: schema.RunSerializer, **PROBLEM},
    )
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Have an agent run; 201 also while the runtime is away, which then gets the run when it is back."""
        self.check_query()
        actor = principal_of(request)
        wanted = _read(schema.RunCreateSerializer, request.data) | _read_idempotency_key(request)
        conversation_id = wanted.pop("conversation_id", None)
        if conversation_id:
            wanted["conversation"] = selectors.get_visible_conversation(actor, conversation_id)
        return _answer_created(services.create_run(actor=actor, **wanted))

    @extend_schema(parameters=[RUN_ID], responses={200: schema.RunSerializer, **PROBLEM})
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Read a run as it is now."""
        self.check_query()
        run = selectors.read_run(self.get_object())
        return Response(_describe_run(run, principal_of(request)))

    @extend_schema(
        parameters=[RUN_ID],
        request=schema.RunCancelSerializer,
        responses={200: schema.RunSerializer, 202: schema.RunSerializer, **PROBLEM},
    )
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """End a run; 202 while the runtime cannot be told."""
        self.check_query()
        actor = principal_of(request)
        run = self.get_object()
        wanted = _read(schema.RunCancelSerializer, request.data)
        run = services.cancel_run(actor=actor, run=run, **wanted)
        status = HTTPStatus.OK if run.has_ended else HTTPStatus.ACCEPTED
        return Response(_describe_run(run, actor), status=status)

    @extend_schema(
        parameters=[RUN_ID], request=schema.RunResumeSerializer, responses={200: schema.RunSerializer, **PROBLEM}
    )
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Answer what a waiting run asks."""
        self.check_query()
        actor = principal_of(request)
        run = self.get_object()
        wanted = _read(schema.RunResumeSerializer, request.data)
        run = services.resume_run(actor=actor, run=run, **wanted)
        return Response(_describe_run(run, actor))

    @extend_schema(
        parameters=[RUN_ID, IDEMPOTENCY_KEY],
        request=None,
        responses={200: schema.RunSerializer, 201: schema.RunSerializer, **PROBLEM},
    )
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Do again what a run did that ended badly, as a new run."""
        self.check_query()
        actor = principal_of(request)
        _read(schema.RequestSerializer, request.data)
        key = _read_idempotency_key(request)
        return _answer_created(services.retry_run(actor=actor, run=self.get_object(), **key))

    @extend_schema(
        parameters=[RUN_ID, schema.EventsQuerySerializer, LAST_EVENT_ID],
        responses={200: schema.EventPageSerializer, **STREAM, **NO_MORE, **PROBLEM},
    )
    @action(
        detail=True,
        methods=["get"],
        renderer_classes=[JSONRenderer, EventStreamRenderer],
        content_negotiation_class=WeighedNegotiation,
        pagination_class=None,
    )
    def events(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Read the events of a run: a page of those kept, or all as a stream, as `Accept` says."""
        return _answer_events(self, request)

    @extend_schema(
        parameters=[RUN_ID, schema.VisibilityQuerySerializer],
        request=None,
        responses={201: schema.StreamTicketSerializer, **PROBLEM},
    )
    @action(detail=True, methods=["post"], url_path="stream-ticket")
    def stream_ticket(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Make an address at which the run's events can be read straight from the runtime."""
        self.check_query(schema.VisibilityQuerySerializer)
        _read(schema.RequestSerializer, request.data)
        actor = principal_of(request)
        run = self.get_object()
        visibility = _choose_visibility(actor, _read_query(schema.VisibilityQuerySerializer, request))
        try:
            ticket = get_hurried_runtime().create_stream_ticket(str(run.pk), actor.label, visibility)
        except RunNotFound as error:
            if run.has_ended:
                raise
            raise RuntimeUnavailable("The runtime does not have the run yet; ask again in a moment.") from error
        base = get_agent_runtime_settings().public_stream_url
        described = {
            "url": f"{base}{ticket.path}" if base else None,
            "path": ticket.path,
            "expires_at": ticket.expire_time,
        }
        return Response(schema.StreamTicketSerializer(described).data, status=HTTPStatus.CREATED)

    @extend_schema(parameters=[RUN_ID], responses={204: None, **PROBLEM})
    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Delete a run with its events; one that has not ended is cancelled."""
        self.check_query()
        actor = principal_of(request)
        services.delete_run(actor=actor, run=self.get_object())
        return Response(status=HTTPStatus.NO_CONTENT)


class RunEventStreamView(RunLookup):
    """The events of a run as a stream, for who signs in as the project says, or holds an anonymous session."""

    lookup_url_kwarg = "run_id"
    pagination_class = None

    authentication_classes = every_way_in()
    permission_classes = (IsAuthenticatedOrAnonymousSession,)
    renderer_classes = (EventStreamRenderer, JSONRenderer)
    content_negotiation_class = WeighedNegotiation

    @extend_schema(
        parameters=[schema.EventsQuerySerializer, LAST_EVENT_ID],
        responses={200: schema.EventPageSerializer, **STREAM, **NO_MORE, **PROBLEM},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Stream the events; those kept, as JSON, to who accepts nothing else."""
        return _answer_events(self, request)


# One view: it looks at each request for whether its server is an ASGI one, and answers with what that can stream.
# The viewset describes the address at which this one usually stands.
sync_event_stream = RunEventStreamView.as_view(schema=None)
async_event_stream = RunEventStreamView.as_view()


def _answer_created(answer: services.CreatedRun) -> Response:
    headers = {} if answer.created else {"Idempotency-Replayed": "true"}
    status = HTTPStatus.CREATED if answer.created else HTTPStatus.OK
    return Response(schema.RunSerializer(answer.run).data, status=status, headers=headers)


def _answer_events(view: RunLookup, request: Request) -> HttpResponseBase:
    if request.accepted_renderer.media_type == MEDIA_TYPE:
        # What is added on the way, by a proxy or against caches, must not end an EventSource for good.
        return _stream_events(request, view.get_object())
    view.check_query(schema.EventsQuerySerializer)
    return _list_events(request, view.get_object())


def _stream_events(request: Request, run: AgentRun) -> HttpResponseBase:
    """The answer that streams a run's events.

    Raises:
        PermissionDenied: The caller may not see as much.
        ValidationError: A part of the query does not fit.
    """
    actor = principal_of(request)
    wanted = _read_query(schema.StreamQuerySerializer, request)
    after_sequence = _read_place(request, wanted)
    visibility = _choose_visibility(actor, wanted)
    if selectors.has_seen_the_end(run, after_sequence):
        # A browser connects again after any other answer, for ever.
        return HttpResponse(status=HTTPStatus.NO_CONTENT)
    stream = RunEventStream(
        run.pk,
        after_sequence=after_sequence,
        visibility=visibility,
        named=not wanted["unnamed"],
        keepalive_seconds=get_agent_runtime_settings().sse_keepalive_seconds,
    )
    # Only requests of an ASGI server have a scope.
    return BlocksResponse(stream.write(), is_async=hasattr(request, "scope"), is_head=request.method == "HEAD")


def _list_events(request: Request, run: AgentRun) -> Response:
    """A page of the events of a run that Django has kept.

    Raises:
        PermissionDenied: The caller may not see as much.
        ValidationError: A part of the query does not fit.
    """
    actor = principal_of(request)
    wanted = _read_query(schema.EventsQuerySerializer, request)
    limit = wanted["limit"]
    events = selectors.list_events(
        run, after_sequence=_read_place(request, wanted), visibility=_choose_visibility(actor, wanted)
    )
    # Before they are read: those that come meanwhile are not in the page.
    all_are_there = run.has_ended and selectors.has_all_events(run)
    found = [describe_event_row(event) for event in events[: limit + 1]]
    next_page = None
    if len(found) > limit:
        query = request.query_params.copy()
        query.pop("last_event_id", None)
        query["from_seq"] = str(found[limit - 1]["seq"])
        next_page = request.build_absolute_uri(f"{request.path}?{query.urlencode()}")
    complete = all_are_there and next_page is None
    return Response({"results": found[:limit], "next": next_page, "complete": complete})


def _describe_run(run: AgentRun, actor: Principal) -> dict[str, Any]:
    described: dict[str, Any] = schema.RunSerializer(run).data
    return described if selectors.may_see_input(actor, run) else described | {"input": {}}


def _choose_visibility(actor: Principal, wanted: dict[str, Any]) -> str:
    """The least level of the events that a reader of a run gets."""
    if wanted["include_all"]:
        if not selectors.may_see_internal_events(actor):
            raise PermissionDenied(f"Only staff, and who has {INTERNAL_EVENTS_PERMISSION}, may see internal events.")
        return EventVisibility.INTERNAL.value
    if wanted["include_debug"] or get_agent_runtime_settings().debug_mode:
        return EventVisibility.DEBUG.value
    return EventVisibility.USER.value


def _read_place(request: Request, wanted: dict[str, Any]) -> int:
    """Behind which event to begin. A browser that reconnects repeats its address, and adds the last id it saw."""
    last_seen = request.headers.get("Last-Event-ID")
    if last_seen:
        given = _read(
            schema.StreamQuerySerializer, {"last_event_id": last_seen}, names={"last_event_id": "Last-Event-ID"}
        )
        return int(given["last_event_id"])
    return int(wanted.get("last_event_id", wanted.get("from_seq", 0)))


def _read_idempotency_key(request: Request) -> dict[str, str]:
    key = request.headers.get("Idempotency-Key", "")
    if len(key) > MAX_IDEMPOTENCY_KEY_CHARACTERS:
        reason = f"Must have at most {MAX_IDEMPOTENCY_KEY_CHARACTERS} characters."
        raise serializers.ValidationError({"Idempotency-Key": reason})
    return {"idempotency_key": key} if key else {}


def _name_row(view: GenericAPIView[Any]) -> str:
    name: str = view.kwargs[view.lookup_url_kwarg or view.lookup_field]
    return name


def _name_parameters_of_list(view: APIView) -> Iterator[str]:
    """What the project's filters, as DRF has them, and its or the library's paginator read of the query of a list."""
    if getattr(view, "action", None) != "list":
        return
    for reader in (*getattr(view, "filter_backends", ()), getattr(view, "paginator", None)):
        for attribute in dir(reader):
            if attribute.endswith("_param") and (name := getattr(reader, attribute)):
                yield name


def _name_versioning(request: Request) -> tuple[str, ...]:
    return (api_settings.VERSION_PARAM,) if isinstance(request.versioning_scheme, QueryParameterVersioning) else ()


def _read_query(kind: type[serializers.Serializer[Any]], request: Request) -> dict[str, Any]:
    """The validated query: of a parameter that comes twice the last counts, and an empty one is none."""
    return _read(kind, {name: value for name, value in request.query_params.items() if value})


def _read(kind: type[serializers.Serializer[Any]], data: Any, *, names: dict[str, str] | None = None) -> dict[str, Any]:
    """The validated input of a view; `names` is what members are called where they are not called so."""
    serializer = kind(data=data)
    if not serializer.is_valid():
        raise serializers.ValidationError(
            {(names or {}).get(name, name): text for name, text in serializer.errors.items()}
        )
    values: dict[str, Any] = serializer.validated_data
    return values


def _page(view: GenericAPIView[Any], found: QuerySet[Any]) -> Response:
    rows = view.paginate_queryset(found)
    if rows is None:
        # The project wants no pages.
        return Response(view.get_serializer(found, many=True).data)
    return view.get_paginated_response(view.get_serializer(rows, many=True).data)
