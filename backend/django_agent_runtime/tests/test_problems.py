from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import RequestDataTooBig
from django.http import Http404
from rest_framework import exceptions as drf
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from django_agent_runtime import exceptions
from django_agent_runtime.api.problems import CONTENT_TYPE, STATUSES, ProblemSerializer, find_status
from django_agent_runtime.types import Run, RunState, RunTarget

if TYPE_CHECKING:
    from rest_framework.response import Response


def make_run(state: RunState) -> Run:
    return Run(
        run_id="0192f0c0-0000-7000-8000-000000000001",
        target=RunTarget.TASK,
        task_type="example_task",
        agent_id="",
        description="",
        state=state,
        attempt=1,
        max_attempts=3,
        input=None,
        output=None,
        error=None,
        metadata={},
        create_time=None,
        start_time=None,
        end_time=None,
        deadline=None,
        sequence=1,
    )


def answer(error: Exception, **headers: str) -> Response:
    class FailingView(APIView):
        authentication_classes = ()
        permission_classes = (AllowAny,)

        def get(self, _request: Any) -> Response:
            raise error

    response: Response = FailingView.as_view()(APIRequestFactory().get("/api/", headers=headers))
    response.render()
    return response


def read(response: Response) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(response.content)
    return body


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (exceptions.RuntimeUnavailable("away"), 503, "UNAVAILABLE"),
        (exceptions.ClientClosed("closed"), 503, "UNAVAILABLE"),
        (exceptions.RateLimited("slow down", reason="RATE_LIMITED"), 429, "RATE_LIMITED"),
        (exceptions.QueueFull("full", reason="QUEUE_FULL"), 503, "QUEUE_FULL"),
        (exceptions.StorageFull("full", reason="STORAGE_FULL"), 507, "STORAGE_FULL"),
        (exceptions.CallTimedOut("slow"), 504, "DEADLINE_EXCEEDED"),
        (exceptions.RunNotFound("none", reason="RUN_NOT_FOUND"), 404, "RUN_NOT_FOUND"),
        (exceptions.EventsTruncated("gone", reason="EVENTS_TRUNCATED"), 410, "EVENTS_TRUNCATED"),
        (exceptions.Unauthenticated("who", reason="UNAUTHENTICATED"), 502, "UNAUTHENTICATED"),
        (exceptions.PermissionDenied("no", reason="PERMISSION_DENIED"), 403, "PERMISSION_DENIED"),
        (exceptions.TooLarge("big", reason="TOO_LARGE"), 413, "TOO_LARGE"),
        (exceptions.InvalidRequest("bad", reason="INVALID_ARGUMENT"), 422, "INVALID_ARGUMENT"),
        (exceptions.InvalidValue("bad"), 422, "INVALID_ARGUMENT"),
        (exceptions.RevisionMismatch("old", reason="REVISION_MISMATCH"), 409, "REVISION_MISMATCH"),
        (exceptions.InternalError("broken", reason="INTERNAL"), 502, "INTERNAL"),
        (exceptions.RunFailed("failed", run=make_run(RunState.FAILED), reason="AGENT_FAILED"), 502, "AGENT_FAILED"),
        (
            exceptions.RunTimedOut("late", run=make_run(RunState.TIMED_OUT), reason="RUN_TIMED_OUT"),
            504,
            "RUN_TIMED_OUT",
        ),
        (
            exceptions.RunCancelled("off", run=make_run(RunState.CANCELLED), reason="RUN_CANCELLED"),
            409,
            "RUN_CANCELLED",
        ),
    ],
)
def test_each_error_of_the_library_has_a_status_and_a_code(
    error: exceptions.AgentRuntimeError, status: int, code: str
) -> None:
    response = answer(error)
    body = read(response)
    assert response.status_code == body["status"] == status
    assert response["Content-Type"] == CONTENT_TYPE
    assert body["code"] == code
    assert body["detail"] == str(error) or isinstance(error, (exceptions.RuntimeUnavailable, exceptions.CallTimedOut))
    assert body["type"].startswith("urn:agentruntime:problem:")
    assert body["request_id"]
    assert set(ProblemSerializer().fields) >= {key for key in body if key not in error.metadata}


@pytest.mark.parametrize("kind", [exceptions.RuntimeUnavailable, exceptions.ClientClosed, exceptions.CallTimedOut])
def test_address_of_the_runtime_is_for_the_log(
    kind: type[exceptions.AgentRuntimeError], settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    error = kind("the agent runtime at 10.0.0.7:50051 cannot be reached")
    settings.DEBUG = False
    assert "10.0.0.7" not in read(answer(error))["detail"]
    assert [record.err for record in caplog.records if hasattr(record, "err")] == [str(error)]
    settings.DEBUG = True
    assert read(answer(error))["detail"] == str(error)


def test_codes_are_described() -> None:
    described = ProblemSerializer().fields["code"].help_text
    assert described is not None
    for name in exceptions.__all__:
        assert f"`{getattr(exceptions, name).default_reason}`" in described
    for error in (drf.NotAuthenticated(), drf.ParseError(), drf.Throttled(), drf.UnsupportedMediaType("text/plain")):
        assert f"`{read(answer(error))['code']}`" in described


def test_no_status_hides_behind_one_of_its_base() -> None:
    for index, (kind, _) in enumerate(STATUSES):
        assert not [later for later, _ in STATUSES[index + 1 :] if issubclass(later, kind)]


@pytest.mark.parametrize("status", [503, 429])
def test_retry_after_is_in_whole_seconds(status: int) -> None:
    kind = exceptions.RateLimited if status == 429 else exceptions.QueueFull
    assert answer(kind("later", retry_after=1.2))["Retry-After"] == "2"


def test_what_the_runtime_says_about_the_reason_is_in_the_body() -> None:
    error = exceptions.RevisionMismatch(
        "old",
        reason="REVISION_MISMATCH",
        metadata={"key": "k", "revision": "7", "status": "x", "new": "x"},
        request_id="r1",
    )
    body = read(answer(error))
    assert (body["key"], body["revision"], body["runtime_request_id"]) == ("k", "7", "r1")
    assert body["status"] == 409
    assert "new" not in body


def test_each_field_at_fault_is_listed() -> None:
    error = exceptions.InvalidRequest("bad", violations=[("input.props.label", "is required")])
    assert read(answer(error))["errors"] == [{"field": "input.props.label", "detail": "is required"}]


def test_failed_run_is_named() -> None:
    error = exceptions.RunFailed("failed", run=make_run(RunState.FAILED), reason="AGENT_FAILED")
    assert read(answer(error))["run_id"] == error.run.run_id


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
def test_conflict_over_a_condition_of_the_request_is_412(header: str) -> None:
    error = exceptions.RevisionMismatch("old", reason="REVISION_MISMATCH")
    assert answer(error, **{header: '"1"'}).status_code == 412
    assert find_status(exceptions.RunEnded("ended"), is_conditional=True) == HTTPStatus.CONFLICT


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (drf.NotAuthenticated(), 403, "NOT_AUTHENTICATED"),
        (drf.ParseError(), 400, "PARSE_ERROR"),
        (drf.MethodNotAllowed("PUT"), 405, "METHOD_NOT_ALLOWED"),
        (Http404(), 404, "NOT_FOUND"),
        (RequestDataTooBig("too big"), 413, "TOO_LARGE"),
    ],
)
def test_errors_of_django_and_drf_are_problems_too(error: Exception, status: int, code: str) -> None:
    response = answer(error)
    assert (response.status_code, read(response)["code"]) == (status, code)
    assert response["Content-Type"] == CONTENT_TYPE


def test_throttled_says_when_to_come_back() -> None:
    response = answer(drf.Throttled(wait=3))
    assert (response.status_code, response["Retry-After"], read(response)["code"]) == (429, "3", "THROTTLED")


def test_half_of_a_surrogate_pair_is_told_of_in_utf_8() -> None:
    # As the renderers of DRF have it where the project says nothing.
    body = read(answer(drf.ValidationError({"\ud800": ["\udfff is not known."]})))
    assert body["errors"] == [{"field": "?", "detail": "? is not known."}]


def test_nested_validation_errors_become_paths() -> None:
    class Inner(serializers.Serializer[Any]):
        width = serializers.IntegerField()

    class Outer(serializers.Serializer[Any]):
        name = serializers.CharField()
        sizes = Inner(many=True)

    outer = Outer(data={"sizes": [{"width": 1}, {"width": "x"}]})
    assert not outer.is_valid()
    body = read(answer(drf.ValidationError(outer.errors)))
    assert (body["status"], body["code"]) == (400, "INVALID_ARGUMENT")
    assert {error["field"] for error in body["errors"]} == {"name", "sizes.1.width"}


def test_unknown_errors_are_left_to_django() -> None:
    with pytest.raises(ZeroDivisionError):
        answer(ZeroDivisionError())
