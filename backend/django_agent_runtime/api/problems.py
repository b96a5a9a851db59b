"""Error bodies as problem details (RFC 9457), from one DRF exception handler.

    REST_FRAMEWORK = {"EXCEPTION_HANDLER": "django_agent_runtime.api.problems.handle_exception"}

A body has `type`, `title`, `status`, `detail`, `code` (what a program switches on) and
`request_id`; where they apply also `errors` (each field at fault), `runtime_request_id` (names
the call in the runtime's log), `run_id`, and what the runtime says about the reason, such as
`revision` or `known`.
"""

from __future__ import annotations

import logging
import math
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, RequestDataTooBig
from django.http import HttpRequest, JsonResponse
from rest_framework import serializers
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler, set_rollback

from django_agent_runtime import exceptions
from django_agent_runtime.api.request_id import current_request_id
from django_agent_runtime.grpc_client.agentruntime.v1.error_pb2 import ErrorReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
# How long a caller should wait when the runtime is away and does not say itself.
DEFAULT_RETRY_AFTER_SECONDS = 5

# The first class that fits decides, so a subclass stands before its base.
STATUSES: tuple[tuple[type[exceptions.AgentRuntimeError], HTTPStatus], ...] = (
    (exceptions.RateLimited, HTTPStatus.TOO_MANY_REQUESTS),
    (exceptions.StorageFull, HTTPStatus.INSUFFICIENT_STORAGE),
    (exceptions.ConcurrencyLimit, HTTPStatus.CONFLICT),
    (exceptions.Overloaded, HTTPStatus.SERVICE_UNAVAILABLE),
    (exceptions.RuntimeUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (exceptions.CallTimedOut, HTTPStatus.GATEWAY_TIMEOUT),
    (exceptions.NotFound, HTTPStatus.NOT_FOUND),
    (exceptions.EventsTruncated, HTTPStatus.GONE),
    # The site's own token is wrong: signing in again would not help the caller.
    (exceptions.Unauthenticated, HTTPStatus.BAD_GATEWAY),
    (exceptions.AccessDenied, HTTPStatus.FORBIDDEN),
    (exceptions.TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (exceptions.InvalidRequest, HTTPStatus.UNPROCESSABLE_ENTITY),
    (exceptions.Conflict, HTTPStatus.CONFLICT),
    (exceptions.RunTimedOut, HTTPStatus.GATEWAY_TIMEOUT),
    (exceptions.RunCancelled, HTTPStatus.CONFLICT),
    (exceptions.AgentRuntimeError, HTTPStatus.BAD_GATEWAY),
)
# What of the runtime's own facts about a reason a caller is shown: those that error.proto names. One that a newer
# runtime adds is not for everybody until somebody has looked at it, and must not take the place of another member.
RUNTIME_MEMBERS = frozenset(
    {
        "access",
        "agent_id",
        "concurrency_key",
        "field",
        "graph_id",
        "key",
        "known",
        "limit",
        "namespace",
        "oldest_sequence",
        "revision",
        "schedule_id",
        "size",
        "state",
        "task_type",
    }
)
# Codes of the runtime are open-ended, as a newer one may have more; these are the ones of today.
RUNTIME_CODES = sorted(
    {name.removeprefix("ERROR_REASON_") for name, number in ErrorReason.items() if number}
    | {getattr(exceptions, name).default_reason for name in exceptions.__all__}
)
SITE_CODES = (
    "AUTHENTICATION_FAILED",
    "METHOD_NOT_ALLOWED",
    "MISCONFIGURED",
    "NOT_ACCEPTABLE",
    "NOT_AUTHENTICATED",
    "PARSE_ERROR",
    "THROTTLED",
    "UNSUPPORTED_MEDIA_TYPE",
)


def _name_all(codes: Iterable[str]) -> str:
    return ", ".join(f"`{code}`" for code in codes)


class FieldProblemSerializer(serializers.Serializer[dict[str, str]]):
    """One field at fault."""

    field = serializers.CharField(help_text="Path of the field, with dots.")
    detail = serializers.CharField()


class ProblemSerializer(serializers.Serializer[dict[str, Any]]):
    """A problem, for OpenAPI schemas."""

    type = serializers.CharField(help_text="A URI that names the kind of problem.")
    title = serializers.CharField(help_text="The HTTP status in words.")
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="One sentence for a person.")
    code = serializers.CharField(
        help_text=f"What a program switches on. Of the runtime and its client: {_name_all(RUNTIME_CODES)}. "
        f"Of the site, among others: {_name_all(SITE_CODES)}."
    )
    request_id = serializers.CharField(help_text="Names this request in the log of the site.")
    runtime_request_id = serializers.CharField(required=False, help_text="Names the call in the log of the runtime.")
    run_id = serializers.CharField(required=False, help_text="The run that failed.")
    # A field, which does not hide the attribute: the metaclass takes it off the class.
    errors = FieldProblemSerializer(many=True, required=False)  # type: ignore[assignment]


def handle_exception(exc: Exception, context: dict[str, Any]) -> Response | None:
    """Turn an error of a DRF view into problem details.

    Knows the library's exceptions, DRF's, and settings that are wrong; anything else is left to Django (None), which
    answers 500 and logs it.
    """
    if isinstance(exc, exceptions.AgentRuntimeError):
        set_rollback()
        return _answer_runtime_error(exc, context["request"])
    if isinstance(exc, RequestDataTooBig):
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        problem = describe_problem(status, code="TOO_LARGE", detail=str(exc))
        return Response(problem, status=status, content_type=CONTENT_TYPE)
    if isinstance(exc, ImproperlyConfigured):
        # What exactly is for the log, and not for whoever asks.
        logger.error("request not answered for the settings", exc_info=exc)
        set_rollback()
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        detail = "The settings of this site are wrong; its log and `manage.py check` say which."
        problem = describe_problem(status, code="MISCONFIGURED", detail=detail)
        return Response(problem, status=status, content_type=CONTENT_TYPE)
    response = exception_handler(exc, context)
    if response is None:
        return None
    code, detail = "ERROR", ""
    extra: dict[str, Any] = {}
    if isinstance(exc, ValidationError):
        code, detail = "INVALID_ARGUMENT", "The request does not fit; see errors."
        extra["errors"] = [{"field": field, "detail": text} for field, text in _flatten(exc.detail)]
    elif isinstance(exc, APIException):
        code, detail = _name_code(exc), str(exc.detail)
    else:
        code = HTTPStatus(response.status_code).name
    response.data = describe_problem(HTTPStatus(response.status_code), code=code, detail=detail, **extra)
    response.content_type = CONTENT_TYPE
    return response


def describe_problem(status: HTTPStatus, *, code: str, detail: str, **extra: Any) -> dict[str, Any]:
    """The members of a problem; an empty `detail` becomes the status in words."""
    problem = {
        "type": f"urn:agentruntime:problem:{code.lower().replace('_', '-')}",
        "title": status.phrase,
        "status": int(status),
        "detail": detail or status.description or status.phrase,
        "code": code,
        "request_id": current_request_id() or uuid.uuid4().hex,
        **extra,
    }
    return {name: _replace_surrogates(value) for name, value in problem.items()}


def _replace_surrogates(value: Any) -> Any:
    """What a caller has sent and is told of again may have half of a surrogate pair, which is no UTF-8."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, list):
        return [_replace_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {name: _replace_surrogates(item) for name, item in value.items()}
    return value


def describe_error(exc: exceptions.AgentRuntimeError, status: HTTPStatus) -> dict[str, Any]:
    """An error of the library as the members of a problem; one that is not the caller's is logged.

    Where the runtime is, which the text of some errors says, is for the log, and without DEBUG for nobody else.
    """
    extra: dict[str, Any] = {key: value for key, value in exc.metadata.items() if key in RUNTIME_MEMBERS}
    if exc.request_id:
        extra["runtime_request_id"] = exc.request_id
    if isinstance(exc, exceptions.InvalidRequest) and exc.violations:
        extra["errors"] = [{"field": field, "detail": text} for field, text in exc.violations]
    if isinstance(exc, exceptions.RunFailed):
        extra["run_id"] = exc.run.run_id
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.warning("runtime call failed", extra={"code": exc.reason, "status": int(status), "err": str(exc)})
    detail = str(exc)
    if isinstance(exc, (exceptions.RuntimeUnavailable, exceptions.CallTimedOut)) and not settings.DEBUG:
        detail = "The agent runtime does not answer; the log of this site says why."
    return describe_problem(status, code=exc.reason, detail=detail, **extra)


def answer_not_found(request: HttpRequest, *, hint: str = "") -> JsonResponse:
    """A 404 outside of a DRF view, for `handler404`; `hint` is an address that may have been meant."""
    detail = f"There is nothing at {request.path}." + (f" There is at {hint}." if hint else "")
    problem = describe_problem(HTTPStatus.NOT_FOUND, code="NOT_FOUND", detail=detail)
    return JsonResponse(problem, status=HTTPStatus.NOT_FOUND, content_type=CONTENT_TYPE)


def answer_bad_path() -> JsonResponse:
    """A 400 for a path that is no text."""
    detail = "The path of the address is not percent-encoded UTF-8."
    problem = describe_problem(HTTPStatus.BAD_REQUEST, code="INVALID_ARGUMENT", detail=detail)
    return JsonResponse(problem, status=HTTPStatus.BAD_REQUEST, content_type=CONTENT_TYPE)


def answer_server_error() -> JsonResponse:
    """A 500 outside of a DRF view, for `handler500`; the cause is in the log under the request's id."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    problem = describe_problem(status, code="INTERNAL", detail="The site failed; its log says why.")
    return JsonResponse(problem, status=status, content_type=CONTENT_TYPE)


def find_status(exc: exceptions.AgentRuntimeError, *, is_conditional: bool) -> HTTPStatus:
    """The HTTP status for an error; a conflict over a condition the caller sent is 412."""
    if is_conditional and isinstance(exc, (exceptions.RevisionMismatch, exceptions.KeyExists)):
        return HTTPStatus.PRECONDITION_FAILED
    return next(status for kind, status in STATUSES if isinstance(exc, kind))


def _answer_runtime_error(exc: exceptions.AgentRuntimeError, request: HttpRequest) -> Response:
    status = find_status(exc, is_conditional="If-Match" in request.headers or "If-None-Match" in request.headers)
    headers = {}
    if status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}:
        headers["Retry-After"] = str(math.ceil(exc.retry_after or DEFAULT_RETRY_AFTER_SECONDS))
    return Response(describe_error(exc, status), status=status, headers=headers, content_type=CONTENT_TYPE)


def _name_code(exc: APIException) -> str:
    code = exc.get_codes()
    return code.upper() if isinstance(code, str) else exc.default_code.upper()


def _flatten(detail: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """DRF's nested error detail as pairs of a dotted path and a sentence."""
    if isinstance(detail, dict):
        items: Mapping[str, Any] = detail
        for key, value in items.items():
            yield from _flatten(value, (*path, str(key)))
    elif isinstance(detail, list):
        for index, value in enumerate(detail):
            nested = isinstance(value, (dict, list))
            yield from _flatten(value, (*path, str(index)) if nested else path)
    else:
        yield ".".join(path), str(detail)
