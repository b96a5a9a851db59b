"""The REST API: the guide's JSON, and everything that is not the caller's own."""

from __future__ import annotations

import asyncio
import json
import uuid
from base64 import b64encode
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from django.test import AsyncRequestFactory, RequestFactory, override_settings
from django.urls import include, path, resolve
from django.utils import timezone
from rest_framework.authentication import SessionAuthentication, TokenAuthentication
from rest_framework.authtoken.models import Token
from rest_framework.decorators import action
from rest_framework.filters import OrderingFilter, SearchFilter
from rest_framework.pagination import PageNumberPagination
from rest_framework.permissions import AllowAny, BasePermission, IsAuthenticated
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter
from rest_framework.test import APIClient
from rest_framework.versioning import QueryParameterVersioning

from django_agent_runtime.api import run_stream, urls
from django_agent_runtime.api.permissions import AnonymousSessionAuthentication, IsAuthenticatedOrAnonymousSession
from django_agent_runtime.api.views import (
    BaseAgentConversationViewSet,
    BaseAgentRunViewSet,
    RunEventStreamView,
    async_event_stream,
)
from django_agent_runtime.go_integration import get_go_runtime_integration
from django_agent_runtime.models import AgentConversation, AgentEvent, AgentRun, ProjectorCursor
from django_agent_runtime.runtime.registry import clear_registry
from django_agent_runtime.tests.runs.support import MESSAGES, AnonymousSession, sign_in, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.contrib.auth.models import User
    from rest_framework.request import Request

    from django_agent_runtime.testing import FakeGoRuntime

pytestmark = pytest.mark.django_db(transaction=True)

RUNS = "/api/agents/runs/"
CONVERSATIONS = "/api/agents/conversations/"
BODY = {"agent_key": "chat-agent", "messages": MESSAGES}


def post(client: APIClient, url: str, body: Any = None, **headers: str) -> Any:
    return client.post(url, {} if body is None else body, format="json", headers=headers or None)


def create(client: APIClient, **changes: Any) -> str:
    response = post(client, RUNS, BODY | changes)
    assert response.status_code == 201, response.json()
    run_id: str = response.json()["id"]
    return run_id


def wait_for(run_id: str, state: str) -> None:
    wait_until(lambda: get_go_runtime_integration().get_run(run_id).state == state)


def add_events(run: AgentRun) -> None:
    """What a projector would keep of a run."""
    kinds = [
        ("run.started", "internal"),
        ("tool.call", "debug"),
        ("assistant.message", "user"),
        ("run.succeeded", "internal"),
    ]
    AgentEvent.objects.bulk_create(
        AgentEvent(run=run, seq=10 * place, event_type=kind, visibility=level, payload={"content": kind, "seq": "mine"})
        for place, (kind, level) in enumerate(kinds, start=1)
    )


@pytest.mark.usefixtures("runtime")
def test_run_is_created_as_the_guide_says(api: APIClient) -> None:
    response = post(api, RUNS, BODY)
    assert response.status_code == 201
    created = response.json()
    assert str(uuid.UUID(created["id"])) == created["id"]
    assert (created["agent_key"], created["status"]) == ("chat-agent", "queued")
    assert created["created_at"].endswith("Z")
    wait_for(created["id"], "succeeded")
    read = api.get(f"{RUNS}{created['id']}/").json()
    assert (read["status"], read["stale"], read["output"]["final_output"]) == (
        "succeeded",
        False,
        {"response": "Hello to you!"},
    )


@pytest.mark.usefixtures("no_runtime")
def test_run_is_created_while_the_runtime_is_away(api: APIClient) -> None:
    response = post(api, RUNS, BODY)
    assert (response.status_code, response.json()["submitted_at"]) == (201, None)
    read = api.get(f"{RUNS}{response.json()['id']}/").json()
    assert (read["status"], read["stale"]) == ("queued", True)
    cancelled = post(api, f"{RUNS}{response.json()['id']}/cancel/")
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "queued")
    assert [response.json()["stale"], cancelled.json()["stale"]] == [True, True]
    assert post(api, f"{RUNS}{response.json()['id']}/resume/", {"value": 1}).status_code == 503


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"agent_key", "messages"}),
        ({"agent_key": "chat-agent", "messages": "Hello"}, {"messages"}),
        (BODY | {"messages": [{"content": "Hello"}]}, {"messages.0"}),
        (BODY | {"messages": ["Hello"]}, {"messages.0"}),
        (BODY | {"user": 1}, {"user"}),
        (BODY | {"max_attempts": 0}, {"max_attempts"}),
        (BODY | {"multitask_strategy": "fork"}, {"multitask_strategy"}),
        (BODY | {"conversation_id": "x"}, {"conversation_id"}),
        (BODY | {"run_at": "soon"}, {"run_at"}),
        (BODY | {"run_at": "9999-12-31T23:59:59-12:00"}, {"run_at"}),
        (BODY | {"run_at": "2100-01-01T08:00:00Z", "delay_seconds": 0}, {"run_at"}),
        (BODY | {"concurrency": {"key": "order:7"}}, {"concurrency"}),
    ],
)
def test_body_that_does_not_fit_is_refused_by_name(api: APIClient, body: Any, fields: set[str]) -> None:
    response = post(api, RUNS, body)
    assert (response.status_code, response.json()["code"]) == (400, "INVALID_ARGUMENT")
    assert {error["field"] for error in response.json()["errors"]} == fields
    assert not AgentRun.objects.exists()


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("body", ["[1]", '"text"', "null", "[" * 100_000, "{"])
def test_body_that_is_no_object_is_refused(api: APIClient, body: str) -> None:
    response = api.post(RUNS, body, content_type="application/json")
    assert (response.status_code, response["Content-Type"]) == (400, "application/problem+json")


@pytest.mark.usefixtures("runtime")
def test_unknown_agent_is_refused_when_the_run_is_created(api: APIClient) -> None:
    response = post(api, RUNS, BODY | {"agent_key": "nobody"})
    assert (response.status_code, response.json()["code"]) == (404, "AGENT_NOT_FOUND")


@pytest.mark.usefixtures("runtime")
def test_runs_are_not_edited(api: APIClient) -> None:
    run_id = create(api)
    for method in ("put", "patch"):
        response = getattr(api, method)(f"{RUNS}{run_id}/", {"input": {}}, format="json")
        assert response.status_code == 405


def test_header_makes_a_request_safe_to_repeat(runtime: FakeGoRuntime, api: APIClient, bob: User) -> None:
    key = {"Idempotency-Key": "k"}
    first, again = post(api, RUNS, BODY, **key), post(api, RUNS, BODY, **key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert "Idempotency-Replayed" not in first.headers
    assert again["Idempotency-Replayed"] == "true"
    assert first.json()["id"] == again.json()["id"]
    assert post(api, RUNS, BODY | {"idempotency_key": "k"}).status_code == 200
    other = post(api, RUNS, BODY | {"messages": []}, **key)
    assert (other.status_code, other.json()["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    assert post(sign_in(bob), RUNS, BODY, **key).status_code == 201
    assert len(runtime.accepted_runs()) == 2
    assert post(api, RUNS, BODY, **{"Idempotency-Key": "k" * 256}).status_code == 400


@pytest.mark.usefixtures("runtime")
def test_header_makes_a_retry_safe_to_repeat(api: APIClient) -> None:
    run_ids = [create(api, agent_key="failing-agent", max_attempts=1) for _ in range(2)]
    for run_id in run_ids:
        wait_for(run_id, "failed")
    url, other = (f"{RUNS}{run_id}/retry/" for run_id in run_ids)
    key = {"Idempotency-Key": "k"}
    first, again = post(api, url, **key), post(api, url, **key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert "Idempotency-Replayed" not in first.headers
    assert again["Idempotency-Replayed"] == "true"
    assert (first.json()["idempotency_key"], again.json()["id"]) == ("k", first.json()["id"])
    for refused in (post(api, other, **key), post(api, RUNS, BODY, **key)):
        assert (refused.status_code, refused.json()["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    assert post(api, url, **{"Idempotency-Key": "k" * 256}).status_code == 400
    assert AgentRun.objects.filter(retry_of__id=run_ids[0]).count() == 1
    assert post(api, url).status_code == 201


@pytest.mark.usefixtures("go_runtime")
def test_refused_run_is_in_no_list(api: APIClient) -> None:
    conversation_id = post(api, CONVERSATIONS).json()["id"]
    run_id = create(api, conversation_id=conversation_id)
    body = BODY | {"conversation_id": conversation_id, "multitask_strategy": "reject"}
    key = {"Idempotency-Key": "k"}
    for _ in range(2):
        refused = post(api, RUNS, body, **key)
        assert (refused.status_code, refused.json()["code"]) == (409, "CONCURRENCY_LIMIT")
    assert [run["id"] for run in api.get(RUNS).json()["results"]] == [run_id]
    assert post(api, f"{RUNS}{run_id}/cancel/").status_code == 200
    assert post(api, RUNS, body, **key).status_code == 201


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("run_at", ["2100-01-01T08:00:00Z", "2100-01-01T10:00:00+02:00", "2100-01-01T08:00:00"])
@pytest.mark.parametrize("use_tz", [True, False])
def test_run_begins_at_the_time_that_is_asked_for(api: APIClient, run_at: str, settings: Any, *, use_tz: bool) -> None:
    settings.USE_TZ, settings.TIME_ZONE = use_tz, "Asia/Tokyo"
    run_id = create(api, run_at=run_at)
    not_before = get_go_runtime_integration().get_run(run_id).not_before
    assert not_before == datetime.fromisoformat("2100-01-01T08:00:00+00:00")


@pytest.mark.usefixtures("runtime")
def test_conversation_is_begun_renamed_and_read(api: APIClient) -> None:
    created = post(api, CONVERSATIONS, {"agent_key": "chat-agent", "title": "First"})
    assert created.status_code == 201
    url = f"{CONVERSATIONS}{created.json()['id']}/"
    run_id = create(api, conversation_id=created.json()["id"])
    AgentRun.objects.update(status="succeeded", output={"final_messages": [{"role": "assistant", "content": "Hi"}]})
    assert api.get(f"{url}messages/").json() == {"messages": [*MESSAGES, {"role": "assistant", "content": "Hi"}]}
    assert api.patch(url, {"title": "Second"}, format="json").json()["title"] == "Second"
    assert api.get(url).json()["title"] == "Second"
    assert [row["id"] for row in api.get(RUNS, {"conversation": created.json()["id"]}).json()["results"]] == [run_id]
    assert api.put(url, {"title": "Third"}, format="json").status_code == 405


@pytest.mark.usefixtures("runtime")
def test_run_and_conversation_are_deleted(api: APIClient) -> None:
    conversation_id = post(api, CONVERSATIONS, {}).json()["id"]
    alone, within = create(api), create(api, agent_key="asking-agent", conversation_id=conversation_id)
    wait_for(within, "waiting")
    for url in (f"{RUNS}{alone}/", f"{CONVERSATIONS}{conversation_id}/"):
        response = api.delete(url)
        assert (response.status_code, response.content) == (204, b"")
        assert api.delete(url).status_code == 404
        assert api.get(url).status_code == 404
    assert api.get(RUNS).json()["results"] == []
    wait_for(within, "cancelled")


def test_list_is_paged_filtered_and_newest_first(api: APIClient, ada: User) -> None:
    now = timezone.now()
    runs = [
        AgentRun.objects.create(
            user=ada, agent_key=f"agent-{n % 2}", created_at=now + timedelta(seconds=n), status="failed"
        )
        for n in range(5)
    ]
    expected = [str(run.pk) for run in reversed(runs)]
    page = api.get(RUNS, {"page_size": 2}).json()
    seen = [row["id"] for row in page["results"]]
    while page["next"]:
        page = api.get(page["next"]).json()
        seen += [row["id"] for row in page["results"]]
    assert seen == expected
    assert len(api.get(RUNS, {"agent_key": "agent-1"}).json()["results"]) == 2
    assert api.get(RUNS, {"status": "queued"}).json()["results"] == []
    for query in ({"status": "done"}, {"conversation": "x"}):
        assert api.get(RUNS, query).status_code == 400


@pytest.mark.parametrize("url", [RUNS, CONVERSATIONS])
@pytest.mark.parametrize("position", ["notadate", "0001-01-01T00:00:00+14:00"])
def test_cursor_that_is_no_place_in_the_list_is_refused(api: APIClient, url: str, position: str) -> None:
    cursor = b64encode(urlencode({"p": position}).encode()).decode()
    response = api.get(url, {"cursor": cursor})
    if response.status_code == 200 and position != "notadate":
        # PostgreSQL knows days before the first year, and SQLite none.
        assert response.json()["results"] == []
        return
    assert (response.status_code, response["Content-Type"]) == (404, "application/problem+json")
    assert response.json()["detail"] == "Invalid cursor"


def test_sub_runs_are_listed_by_their_parent(api: APIClient, ada: User, bob: User) -> None:
    parent = AgentRun.objects.create(user=ada, agent_key="a")
    child = AgentRun.objects.create(user=ada, agent_key="b", parent_run=parent, status="failed", input={"messages": []})
    [listed] = api.get(RUNS).json()["results"]
    assert (listed["id"], listed["parent_run_id"]) == (str(parent.pk), None)
    [listed] = api.get(RUNS, {"parent_run": str(parent.pk)}).json()["results"]
    assert (listed["id"], listed["parent_run_id"]) == (str(child.pk), str(parent.pk))
    # What another agent says to it is no more for everybody than the run's internal events.
    assert api.get(f"{RUNS}{child.pk}/").json()["input"] == {}
    refused = post(api, f"{RUNS}{child.pk}/retry/")
    assert (refused.status_code, str(parent.pk) in refused.json()["detail"]) == (422, True)
    ada.is_staff = True
    ada.save()
    assert api.get(f"{RUNS}{child.pk}/").json()["input"] == {"messages": []}
    assert sign_in(bob).get(RUNS, {"parent_run": str(parent.pk)}).json()["results"] == []
    assert sign_in(bob).get(f"{RUNS}{child.pk}/").status_code == 404


def test_list_takes_one_query(api: APIClient, ada: User, django_assert_num_queries: Any) -> None:
    for _ in range(5):
        conversation = AgentConversation.objects.create(user=ada)
        AgentRun.objects.create(conversation=conversation, agent_key="a")
    for url in (RUNS, CONVERSATIONS):
        with django_assert_num_queries(1):
            assert len(api.get(url).json()["results"]) == 5


@pytest.mark.usefixtures("runtime")
def test_run_is_cancelled(api: APIClient) -> None:
    run_id = create(api, agent_key="asking-agent")
    wait_for(run_id, "waiting")
    response = post(api, f"{RUNS}{run_id}/cancel/")
    assert (response.status_code, response.json()["status"]) == (200, "cancelled")
    assert post(api, f"{RUNS}{run_id}/cancel/").status_code == 200


@pytest.mark.usefixtures("runtime")
def test_run_that_has_ended_is_not_cancelled(api: APIClient) -> None:
    run_id = create(api)
    wait_for(run_id, "succeeded")
    response = post(api, f"{RUNS}{run_id}/cancel/")
    assert (response.status_code, response.json()["code"]) == (409, "RUN_ENDED")


@pytest.mark.usefixtures("runtime")
def test_question_is_read_and_answered(api: APIClient) -> None:
    run_id = create(api, agent_key="asking-agent")
    wait_for(run_id, "waiting")
    question = api.get(f"{RUNS}{run_id}/").json()["interrupt"]
    assert question == {"interrupt_id": "question-1", "payload": {"question": "Go on?"}}
    # An answer is for good: nobody gives one by leaving it out.
    assert [error["field"] for error in post(api, f"{RUNS}{run_id}/resume/").json()["errors"]] == ["value"]
    answered = post(api, f"{RUNS}{run_id}/resume/", {"interrupt_id": "question-1", "value": "yes"})
    assert answered.status_code == 200
    wait_for(run_id, "succeeded")
    assert api.get(f"{RUNS}{run_id}/").json()["output"]["final_output"] == {"answer": "yes"}
    late = post(api, f"{RUNS}{run_id}/resume/", {"interrupt_id": "question-2", "value": None})
    assert late.status_code == 409


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize(("status", "code"), [("queued", "RUN_NOT_WAITING"), ("succeeded", "RUN_ENDED")])
def test_run_that_the_runtime_does_not_have_is_not_answered(api: APIClient, ada: User, status: str, code: str) -> None:
    """It is handed over in a moment; or it was removed after its time."""
    run = AgentRun.objects.create(user=ada, agent_key="chat-agent", status=status)
    response = post(api, f"{RUNS}{run.pk}/resume/", {"value": "yes"})
    assert (response.status_code, response.json()["code"]) == (409, code)
    assert response.json()["state"] == status


@pytest.mark.usefixtures("runtime")
def test_failed_run_is_retried(api: APIClient) -> None:
    run_id = create(api, agent_key="failing-agent", max_attempts=1)
    wait_for(run_id, "failed")
    response = post(api, f"{RUNS}{run_id}/retry/")
    assert (response.status_code, response.json()["retry_of"]) == (201, run_id)


@pytest.mark.usefixtures("runtime")
def test_run_that_another_takes_back_names_it(api: APIClient) -> None:
    conversation_id = post(api, CONVERSATIONS).json()["id"]
    old = create(api, agent_key="asking-agent", conversation_id=conversation_id)
    wait_for(old, "waiting")
    new = create(api, conversation_id=conversation_id, multitask_strategy="rollback")
    assert [api.get(f"{RUNS}{run_id}/").json()["rolled_back_by"] for run_id in (old, new)] == [new, None]
    listed = api.get(RUNS).json()["results"]
    assert [run["rolled_back_by"] for run in listed] == [None, new]


@pytest.mark.usefixtures("runtime")
def test_stream_ticket_is_given_out(api: APIClient, settings: Any) -> None:
    run_id = create(api)
    ticket = post(api, f"{RUNS}{run_id}/stream-ticket/").json()
    assert ticket["url"] is None
    assert ticket["path"].startswith("/")
    settings.DJANGO_AGENT_RUNTIME = {"PUBLIC_STREAM_URL": "https://runs.example.com/"}
    ticket = post(api, f"{RUNS}{run_id}/stream-ticket/").json()
    assert ticket["url"] == f"https://runs.example.com{ticket['path']}"
    assert post(api, f"{RUNS}{run_id}/stream-ticket/?include_all=true").status_code == 403


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize(("status", "answer"), [("queued", 503), ("succeeded", 404)])
def test_ticket_of_a_run_that_the_runtime_does_not_have(api: APIClient, ada: User, status: str, answer: int) -> None:
    """It was accepted while the runtime was away, and is handed over in a moment; or it was removed after its time."""
    run = AgentRun.objects.create(user=ada, agent_key="chat-agent", status=status)
    refused = post(api, f"{RUNS}{run.pk}/stream-ticket/")
    assert refused.status_code == answer
    assert ("Retry-After" in refused) == (answer == 503)


def test_events_are_paged_as_json(api: APIClient, ada: User) -> None:
    run = AgentRun.objects.create(user=ada, agent_key="a", status="succeeded")
    add_events(run)
    url = f"{RUNS}{run.pk}/events/"
    page = api.get(url).json()
    # The end is for all, and the envelope goes before what the payload calls the same.
    assert [event["type"] for event in page["results"]] == ["assistant.message", "run.succeeded"]
    event = page["results"][0]
    assert (event["seq"], event["content"], event["run_id"]) == (30, "assistant.message", str(run.pk))
    assert event["payload"] == {"content": "assistant.message", "seq": "mine"}
    assert page["next"] is None
    page = api.get(f"{url}?include_debug=true&limit=2").json()
    assert [event["seq"] for event in page["results"]] == [20, 30]
    assert [event["seq"] for event in api.get(page["next"]).json()["results"]] == [40]
    assert [event["seq"] for event in api.get(url, {"from_seq": 30}).json()["results"]] == [40]
    assert [event["seq"] for event in api.get(url, headers={"Last-Event-ID": "30"}).json()["results"]] == [40]


@pytest.mark.parametrize("status", ["running", "succeeded"])
def test_page_of_events_says_whether_more_may_come(api: APIClient, ada: User, status: str) -> None:
    """A run whose end has not reached its row may have events in the runtime that have not reached the tables."""
    run = AgentRun.objects.create(user=ada, agent_key="a", status=status)
    add_events(run)
    url = f"{RUNS}{run.pk}/events/?include_debug=true"
    pages = [api.get(url).json(), api.get(f"{url}&limit=2").json(), api.get(f"{url}&from_seq=40").json()]
    ended = status == "succeeded"
    assert [(page["next"] is None, page["complete"]) for page in pages] == [
        (True, ended),
        (False, False),
        (True, ended),
    ]


@pytest.mark.parametrize(("passed", "complete"), [(49, False), (50, True)])
def test_page_of_a_run_whose_end_is_not_projected_is_not_the_last(
    api: APIClient, ada: User, *, passed: int, complete: bool
) -> None:
    """The row was told by the runtime itself; the projector is hours behind, or its end was lost on the way."""
    run = AgentRun.objects.create(user=ada, agent_key="a", status="succeeded", last_sequence=50)
    add_events(run)
    AgentEvent.objects.filter(run=run, event_type="run.succeeded").delete()
    ProjectorCursor.objects.create(namespace="default", sequence=passed)
    assert api.get(f"{RUNS}{run.pk}/events/").json()["complete"] is complete


@pytest.mark.parametrize(
    "query",
    [
        {"from_seq": "x"},
        {"from_seq": -1},
        {"from_seq": "+5"},
        {"from_seq": " 5"},
        {"from_seq": "1_0"},
        {"last_event_id": "1.5"},
        {"last_event_id": "5.0"},
        {"last_event_id": 2**63},
        {"unnamed": "maybe"},
        {"limit": 0},
    ],
)
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_place_that_is_none_is_refused(api: APIClient, ada: User, query: dict[str, Any], accept: str) -> None:
    run = AgentRun.objects.create(user=ada, agent_key="a", status="succeeded")
    response = api.get(f"{RUNS}{run.pk}/events/", query, headers={"Accept": accept})
    if "limit" in query and accept == "text/event-stream":
        return
    assert (response.status_code, response["Content-Type"]) == (400, "application/problem+json")
    bad = api.get(f"{RUNS}{run.pk}/events/", headers={"Accept": accept, "Last-Event-ID": "x"})
    assert bad.status_code == 400
    assert bad.json()["errors"][0]["field"] == "Last-Event-ID"


@pytest.mark.parametrize(
    ("accept", "of_events", "of_stream"),
    [
        ("text/event-stream, application/json;q=0.1", "text/event-stream", "text/event-stream"),
        ("text/event-stream;q=0.1, application/json", "application/json", "application/json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "application/json", "text/event-stream"),
        ("text/html, application/json", "application/json", "application/json"),
        ("*/*", "application/json", "text/event-stream"),
        ("application/json;charset=utf-8", "application/json", "application/json"),
        ("application/json; indent=4, text/event-stream;q=0.5", "application/json", "application/json"),
        ("text/event-stream;charset=utf-8", "text/event-stream", "text/event-stream"),
        ("application/json;q=0.1, */*;q=0.5", "text/event-stream", "text/event-stream"),
        ("text/html", "application/problem+json", "application/problem+json"),
        ("application/json;q=0", "application/problem+json", "application/problem+json"),
    ],
)
def test_events_are_what_accept_weighs_most(
    api: APIClient, ada: User, accept: str, of_events: str, of_stream: str
) -> None:
    run = AgentRun.objects.create(user=ada, agent_key="a", status="succeeded")
    for address, expected in (("events/", of_events), ("events/stream/", of_stream)):
        response = api.get(f"{RUNS}{run.pk}/{address}", headers={"Accept": accept})
        assert response["Content-Type"] == expected
        assert response.status_code == (406 if "problem" in expected else 200)


def test_internal_events_are_for_staff_and_those_with_the_permission(
    api: APIClient, ada: User, settings: Any, django_user_model: type[User]
) -> None:
    from django.contrib.auth.models import Permission  # noqa: PLC0415

    run = AgentRun.objects.create(user=ada, agent_key="a", status="succeeded")
    add_events(run)
    url = f"{RUNS}{run.pk}/events/?include_all=true"
    refused = api.get(url)
    assert (refused.status_code, refused.json()["code"]) == (403, "PERMISSION_DENIED")
    settings.DEBUG = True
    assert len(api.get(url).json()["results"]) == 4
    settings.DEBUG = False
    ada.user_permissions.add(Permission.objects.get(codename="view_internal_events"))
    again = sign_in(django_user_model.objects.get(pk=ada.pk))
    assert len(again.get(url).json()["results"]) == 4


def test_debug_mode_shows_debug_events(api: APIClient, ada: User, settings: Any) -> None:
    run = AgentRun.objects.create(user=ada, agent_key="a", status="succeeded")
    add_events(run)
    settings.DJANGO_AGENT_RUNTIME = {"DEBUG_MODE": True}
    assert [event["seq"] for event in api.get(f"{RUNS}{run.pk}/events/").json()["results"]] == [20, 30, 40]


def every_address(run_id: object, conversation_id: object) -> list[tuple[str, str]]:
    """Method and path of all that is about one run or conversation."""
    run, conversation = f"{RUNS}{run_id}/", f"{CONVERSATIONS}{conversation_id}/"
    return [
        ("get", run),
        ("post", f"{run}cancel/"),
        ("post", f"{run}resume/"),
        ("post", f"{run}retry/"),
        ("get", f"{run}events/"),
        ("get", f"{run}events/stream/"),
        ("post", f"{run}stream-ticket/"),
        ("delete", run),
        ("get", conversation),
        ("patch", conversation),
        ("get", f"{conversation}messages/"),
        ("delete", conversation),
    ]


def call(client: APIClient, method: str, url: str, accept: str = "application/json") -> Any:
    body = {} if method == "get" else {"data": {}, "format": "json"}
    return getattr(client, method)(url, headers={"Accept": accept}, **body)


def test_every_route_is_covered_here() -> None:
    """A route that is added must be added to `every_address` too."""
    patterns = {str(pattern.pattern) for pattern in [*urls.router.urls, *urls.run_patterns]}
    assert len(patterns) == 12
    about_one = {pattern for pattern in patterns if "id" in pattern}
    assert len(about_one) == 10


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_nothing_of_anothers_is_seen_or_changed(api: APIClient, ada: User, bob: User, accept: str) -> None:
    conversation_id = post(api, CONVERSATIONS, {"title": "secret"}).json()["id"]
    run_id = create(api, agent_key="asking-agent", conversation_id=conversation_id)
    wait_for(run_id, "waiting")
    stranger = sign_in(bob)
    before = AgentRun.objects.values().get()
    for method, url in every_address(run_id, conversation_id):
        response = call(stranger, method, url, accept if "events" in url else "application/json")
        assert response.status_code == 404, (method, url)
        # What is another's looks as what is not there.
        missing = call(stranger, method, url.replace(run_id, str(uuid.uuid4())).replace(conversation_id, "x"))
        assert (missing.status_code, missing.json()["detail"]) == (404, response.json()["detail"])
    for url in (RUNS, CONVERSATIONS):
        assert stranger.get(url).json()["results"] == []
    assert stranger.get(RUNS, {"conversation": conversation_id}).json()["results"] == []
    assert post(stranger, RUNS, BODY | {"conversation_id": conversation_id}).status_code == 404
    assert AgentRun.objects.values().get() == before
    assert get_go_runtime_integration().get_run(run_id).state == "waiting"


def every_list() -> list[tuple[str, str]]:
    return [(method, url) for method in ("get", "post") for url in (RUNS, CONVERSATIONS)]


@pytest.mark.usefixtures("runtime")
def test_query_that_nothing_reads_is_refused_by_name(api: APIClient, ada: User) -> None:
    run = AgentRun.objects.create(user=ada, agent_key="a", status="failed")
    conversation = AgentConversation.objects.create(user=ada)
    for method, url in [*every_address(run.pk, conversation.pk), *every_list()]:
        response = call(api, method, f"{url}?statsu=failed&a=1")
        assert (response.status_code, response["Content-Type"]) == (400, "application/problem+json"), (method, url)
        assert {error["field"] for error in response.json()["errors"]} == {"statsu", "a"}
    assert AgentRun.objects.count() == AgentConversation.objects.count() == 1
    assert api.head(f"{RUNS}?statsu=failed").status_code == 400
    assert api.options(f"{RUNS}?statsu=failed").status_code == 200


@pytest.mark.parametrize("address", ["events/", "events/stream/"])
def test_stream_is_not_ended_for_what_others_add_to_its_address(api: APIClient, ada: User, address: str) -> None:
    """An EventSource gives up for good after any refusal."""
    run = AgentRun.objects.create(user=ada, agent_key="a", status="succeeded")
    add_events(run)
    query = "_=123&trace=abc&last_event_id=40"
    response = api.get(f"{RUNS}{run.pk}/{address}?{query}", headers={"Accept": "text/event-stream"})
    assert response.status_code == 204


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("address", ["events/", "events/stream/"])
@pytest.mark.parametrize("is_async", [True, False])
def test_head_of_a_stream_is_the_headers_alone(
    api: APIClient, ada: User, monkeypatch: pytest.MonkeyPatch, address: str, *, is_async: bool
) -> None:
    """Servers read the body of the answer to a HEAD to its end before they leave it out."""
    monkeypatch.setattr(run_stream, "MAX_STREAM_SECONDS", 0.0)
    run_id = create(api, agent_key="asking-agent")
    factory = AsyncRequestFactory() if is_async else RequestFactory()
    path_of_stream = f"{RUNS}{run_id}/{address}"
    accept = {"Accept": "text/event-stream", "Authorization": f"Token {Token.objects.create(user=ada)}"}
    view, arguments, named = resolve(path_of_stream)
    whole, head = (
        view(ask(path_of_stream, headers=accept), *arguments, **named) for ask in (factory.get, factory.head)
    )

    async def read(response: Any) -> bytes:
        return b"".join([block async for block in response])

    read_all = (lambda response: asyncio.run(read(response))) if is_async else b"".join
    assert read_all(whole) == b"retry: 2000\n\n"
    assert read_all(head) == b""
    assert (head.status_code, head.headers) == (200, whole.headers)
    accept["Last-Event-ID"] = "x"
    assert view(factory.head(path_of_stream, headers=accept), *arguments, **named).status_code == 400


@pytest.mark.parametrize(
    "query", ["last_event_id=&from_seq=40&unnamed=", "from_seq=1&last_event_id=0&last_event_id=40"]
)
def test_place_is_read_as_the_runtime_reads_it(api: APIClient, ada: User, query: str) -> None:
    run = AgentRun.objects.create(user=ada, agent_key="a", status="succeeded")
    add_events(run)
    url = f"{RUNS}{run.pk}/events/?{query}"
    assert api.get(url, headers={"Accept": "text/event-stream"}).status_code == 204
    assert api.get(url).json()["results"] == []


def test_refusal_names_what_is_known(api: APIClient) -> None:
    [error] = api.get(f"{RUNS}?statsu=failed").json()["errors"]
    assert error["detail"] == "Is not known; known are status, agent_key, conversation, parent_run, cursor, page_size."


@pytest.mark.usefixtures("runtime")
def test_query_that_is_for_all_addresses_is_let_through(api: APIClient, ada: User) -> None:
    run = AgentRun.objects.create(user=ada, agent_key="a", status="failed")
    conversation = AgentConversation.objects.create(user=ada)
    for method, url in [*every_address(run.pk, conversation.pk), *every_list()]:
        response = call(api, method, f"{url}?format=json&anonymous_token=&_=123")
        assert "Is not known" not in str(response.content), (method, url)


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_strangers_are_turned_away(accept: str) -> None:
    for method, url in [*every_address(uuid.uuid4(), uuid.uuid4()), ("get", RUNS), ("post", RUNS)]:
        response = call(APIClient(), method, url, accept if "events" in url else "application/json")
        assert (response.status_code, response["Content-Type"]) == (401, "application/problem+json"), (method, url)


def test_rows_without_an_owner_are_for_staff(api: APIClient, ada: User) -> None:
    conversation = AgentConversation.objects.create()
    run = AgentRun.objects.create(conversation=conversation, agent_key="a", status="succeeded")
    addresses = [(method, url) for method, url in every_address(run.pk, conversation.pk) if method == "get"]
    assert {call(api, method, url).status_code for method, url in addresses} == {404}
    ada.is_staff = True
    for method, url in addresses:
        response = call(api, method, url)
        assert response.status_code == 200, url
        response.close()


@pytest.mark.usefixtures("runtime")
def test_owner_of_a_bare_run_is_that_of_its_conversation(api: APIClient, ada: User) -> None:
    conversation = AgentConversation.objects.create(user=ada)
    run = AgentRun.objects.create(conversation=conversation, agent_key="chat-agent")
    assert api.get(f"{RUNS}{run.pk}/").status_code == 200


@pytest.mark.usefixtures("runtime")
def test_token_of_a_user_opens_runs_and_streams(ada: User) -> None:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {Token.objects.create(user=ada)}")
    run_id = create(client)
    wait_for(run_id, "succeeded")
    response = client.get(f"{RUNS}{run_id}/events/stream/", headers={"Accept": "text/event-stream"})
    assert (response.status_code, response["Content-Type"]) == (200, "text/event-stream")
    response.close()


class OpenRunViewSet(BaseAgentRunViewSet):
    """A project that forgot to say who may come in."""

    permission_classes = (AllowAny,)


class SessionRunViewSet(BaseAgentRunViewSet):
    authentication_classes = (TokenAuthentication, AnonymousSessionAuthentication)
    permission_classes = (IsAuthenticatedOrAnonymousSession,)


class SessionConversationViewSet(BaseAgentConversationViewSet):
    authentication_classes = (TokenAuthentication, AnonymousSessionAuthentication, SessionAuthentication)
    permission_classes = (IsAuthenticatedOrAnonymousSession,)


def route(**viewsets: Any) -> Any:
    router = DefaultRouter()
    for name, viewset in viewsets.items():
        router.register(name, viewset, basename=name)
    return [path("", include(router.urls))]


class Numbered(PageNumberPagination):
    page_size = 1
    page_size_query_param = "size"


class FilteredRunViewSet(BaseAgentRunViewSet):
    """With a query parameter, a paginator and a version of the project's own."""

    permission_classes = (IsAuthenticated,)
    pagination_class = Numbered
    versioning_class = QueryParameterVersioning
    extra_query_parameters = ("since",)

    @action(detail=False)
    def latest(self, request: Request) -> Response:
        return Response({"wanted": request.query_params["anything"]})


class FilteredUrls:
    urlpatterns = tuple(route(runs=FilteredRunViewSet))


class NotLocked(BasePermission):
    """An object permission of the project's own."""

    message = "It is locked."

    def has_object_permission(self, request: Request, view: Any, obj: AgentRun | AgentConversation) -> bool:
        return "locked" not in obj.metadata


class GuardedRunViewSet(BaseAgentRunViewSet):
    permission_classes = (IsAuthenticated, NotLocked)
    filter_backends = (SearchFilter, OrderingFilter)
    search_fields = ("agent_key",)
    ordering_fields = ("agent_key",)

    def get_queryset(self) -> Any:
        """Says nothing of whose they are."""
        return AgentRun.objects.exclude(agent_key="hidden")


class GuardedConversationViewSet(BaseAgentConversationViewSet):
    permission_classes = (IsAuthenticated, NotLocked)
    queryset = AgentConversation.objects.exclude(agent_key="hidden")


class GuardedUrls:
    urlpatterns = (
        path("api/agents/", include(route(runs=GuardedRunViewSet, conversations=GuardedConversationViewSet))),
        path(
            "api/agents/runs/<str:run_id>/events/stream/",
            RunEventStreamView.as_view(
                permission_classes=GuardedRunViewSet.permission_classes,
                queryset=AgentRun.objects.exclude(agent_key="hidden"),
            ),
        ),
    )


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize(("status", "values"), [(403, {"metadata": {"locked": True}}), (404, {"agent_key": "hidden"})])
def test_object_permissions_and_querysets_of_a_project_hold_everywhere(
    api: APIClient, ada: User, status: int, values: dict[str, Any]
) -> None:
    run = AgentRun.objects.create(user=ada, status="failed", **{"agent_key": "a"} | values)
    conversation = AgentConversation.objects.create(user=ada, **values)
    with override_settings(ROOT_URLCONF=GuardedUrls):
        for method, url in every_address(run.pk, conversation.pk):
            response = call(api, method, url)
            assert (response.status_code, response["Content-Type"]) == (status, "application/problem+json"), url
        shown = [api.get(url).json()["results"] for url in (RUNS, CONVERSATIONS)]
    assert [len(rows) for rows in shown] == ([1, 1] if status == 403 else [0, 0])
    assert AgentRun.objects.count() == AgentConversation.objects.count() == 1


def test_queryset_and_filters_of_a_project_show_nothing_of_anothers(api: APIClient, ada: User, bob: User) -> None:
    for owner, key in ((ada, "a"), (ada, "b"), (ada, "hidden"), (bob, "b")):
        theirs = AgentRun.objects.create(user=owner, agent_key=key)
    with override_settings(ROOT_URLCONF=GuardedUrls):
        for query, keys in {"": ["b", "a"], "?search=b": ["b"], "?ordering=agent_key": ["a", "b"]}.items():
            assert [run["agent_key"] for run in api.get(f"{RUNS}{query}").json()["results"]] == keys
        assert api.get(f"{RUNS}{theirs.pk}/").status_code == 404


class UnpagedRunViewSet(BaseAgentRunViewSet):
    permission_classes = (IsAuthenticated,)
    pagination_class = None


class TenantUrls:
    urlpatterns = (
        path(
            "<slug:tenant>/",
            include(
                [
                    *route(runs=UnpagedRunViewSet, conversations=SessionConversationViewSet),
                    path("runs/<str:run_id>/events/stream/", async_event_stream),
                ]
            ),
        ),
    )


@pytest.mark.usefixtures("runtime")
def test_routers_may_say_a_format_and_the_project_more(api: APIClient, ada: User) -> None:
    run = AgentRun.objects.create(user=ada, agent_key="a", status="failed")
    conversation = AgentConversation.objects.create(user=ada)
    addresses = [*every_address(run.pk, conversation.pk), *every_list()]
    with override_settings(ROOT_URLCONF=TenantUrls):
        for method, url in sorted(addresses, key=lambda address: address[0] == "delete"):
            path_of_tenant = url.replace("/api/agents/", "/acme/")
            if method in ("get", "patch") and "stream" not in url:
                assert call(api, method, f"{path_of_tenant.rstrip('/')}.json").status_code == 200, url
            assert "html" not in call(api, method, path_of_tenant).get("Content-Type", ""), url
    assert not AgentRun.objects.filter(pk=run.pk).exists()


class UnpagedUrls:
    urlpatterns = tuple(route(runs=UnpagedRunViewSet))


class OpenUrls:
    urlpatterns = tuple(route(runs=OpenRunViewSet))


class SessionUrls:
    urlpatterns = (
        path("agent/", include(route(runs=SessionRunViewSet, conversations=SessionConversationViewSet))),
        path("ready/", include(urls)),
    )


def test_project_says_what_else_it_reads_of_a_query(api: APIClient, ada: User) -> None:
    run = AgentRun.objects.create(user=ada, agent_key="a")
    with override_settings(ROOT_URLCONF=FilteredUrls):
        for query in ("since=1", "page=1&size=1", "version=1"):
            assert api.get(f"/runs/?{query}").status_code == 200, query
        assert api.get(f"/runs/{run.pk}/events/?since=1&version=1").status_code == 200
        assert api.get(f"/runs/{run.pk}/events/?page=1").status_code == 400
        assert api.get("/runs/latest/?anything=goes").json() == {"wanted": "goes"}
        [error] = api.get("/runs/?cursor=1").json()["errors"]
        assert (
            error["detail"] == "Is not known; known are status, agent_key, conversation, parent_run, since, page, size."
        )


@pytest.mark.usefixtures("runtime")
def test_body_that_nothing_reads_is_refused_by_name(api: APIClient, ada: User) -> None:
    run = AgentRun.objects.create(user=ada, agent_key="a", status="failed")
    for action_name in ("retry", "stream-ticket"):
        response = post(api, f"{RUNS}{run.pk}/{action_name}/", {"include_debug": True})
        assert response.status_code == 400
        assert response.json()["errors"] == [{"field": "include_debug", "detail": "Is not known; none is."}]


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize(
    "wrong", [{"RUNTIME_REGISTRY": ["nowhere.agents:register_agents"]}, {"MAX_RETRIES": "nowhere"}]
)
def test_settings_that_are_wrong_are_a_problem_without_their_details(api: APIClient, wrong: dict[str, Any]) -> None:
    clear_registry()
    try:
        with override_settings(DJANGO_AGENT_RUNTIME=wrong):
            response = post(api, RUNS, BODY)
    finally:
        clear_registry()
    assert (response.status_code, response["Content-Type"]) == (500, "application/problem+json")
    assert response.json()["code"] == "MISCONFIGURED"
    assert "nowhere" not in str(response.content)
    assert not AgentRun.objects.exists()


def test_list_of_a_project_that_wants_no_pages(api: APIClient, ada: User) -> None:
    older, newer = (AgentRun.objects.create(user=ada, agent_key="a") for _ in range(2))
    with override_settings(ROOT_URLCONF=UnpagedUrls):
        assert [run["id"] for run in api.get("/runs/").json()] == [str(newer.pk), str(older.pk)]


@pytest.mark.usefixtures("runtime")
def test_nobody_owns_nothing_even_where_all_are_let_in(ada: User) -> None:
    AgentRun.objects.create(agent_key="a")
    AgentRun.objects.create(agent_key="a", user=ada)
    client = APIClient()
    with override_settings(ROOT_URLCONF=OpenUrls):
        assert client.get("/runs/").json()["results"] == []
        assert post(client, "/runs/", BODY).status_code == 403


@pytest.fixture
def sessions(anonymous_sessions: type[AnonymousSession]) -> Iterator[type[AnonymousSession]]:
    """The guide's model and the guide's viewsets."""
    with override_settings(
        ROOT_URLCONF=SessionUrls, DJANGO_AGENT_RUNTIME={"ANONYMOUS_SESSION_MODEL": "agents.AnonymousSession"}
    ):
        yield anonymous_sessions


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("prefix", ["/agent/", "/ready/"])
def test_holder_of_a_session_has_runs_of_their_own(sessions: type[AnonymousSession], ada: User, prefix: str) -> None:
    expires_at = timezone.now() + timedelta(hours=1)
    mine, other = (sessions.objects.create(token=token, expires_at=expires_at) for token in ("mine", "other"))
    client = APIClient()
    created = post(client, f"{prefix}runs/", BODY | {"metadata": {"user_id": ada.pk}}, **{"X-Anonymous-Token": "mine"})
    assert created.status_code == 201
    assert "mine" not in json.dumps(created.json())
    run = AgentRun.objects.get()
    assert (run.anonymous_session_id, run.user_id) == (mine.pk, None)
    conversation = post(client, f"{prefix}conversations/", {}, **{"X-Anonymous-Token": "mine"}).json()
    run_id = created.json()["id"]
    wait_for(run_id, "succeeded")
    about_it = [
        f"{prefix}runs/{run_id}/",
        f"{prefix}runs/{run_id}/events/",
        f"{prefix}conversations/{conversation['id']}/",
    ]
    for url in about_it:
        assert client.get(url, {"anonymous_token": mine.token}).status_code == 200
        assert client.get(url, headers={"X-Anonymous-Token": mine.token}).status_code == 200
        assert client.get(url, {"anonymous_token": other.token}).status_code == 404
        assert sign_in(ada).get(url).status_code == 404
        assert client.get(url).status_code == 401
    same_key = {"Idempotency-Key": "k"}
    for token in ("mine", "other"):
        assert post(client, f"{prefix}runs/", BODY, **same_key, **{"X-Anonymous-Token": token}).status_code == 201
    # Another session is told nothing of the first one's key.
    assert AgentRun.objects.filter(idempotency_key="k").count() == 2


def test_session_that_has_expired_or_never_was_lets_nobody_in(sessions: type[AnonymousSession]) -> None:
    sessions.objects.create(token="old", expires_at=timezone.now() - timedelta(seconds=1))
    for token in ("old", "none", "\0", "x" * 10_000):
        response = APIClient().get("/agent/runs/", {"anonymous_token": token})
        assert (response.status_code, response.json()["code"]) == (401, "AUTHENTICATION_FAILED")


def test_token_without_a_session_model_is_nobodys() -> None:
    with override_settings(ROOT_URLCONF=SessionUrls):
        assert APIClient().get("/agent/runs/", {"anonymous_token": "mine"}).status_code == 401
