"""Who may call the API, and how often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings
from django.urls import reverse
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient
from rest_framework.throttling import SimpleRateThrottle

from backend.apps.python_agent import urls

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from django_agent_runtime.testing import FakeGoRuntime

pytestmark = pytest.mark.django_db

API_NAMES = sorted(str(pattern.name) for pattern in urls.urlpatterns if str(pattern.pattern).startswith("api/"))
ARGUMENTS = {"agent-task": ["frontend_agent"], "state-entry": ["k"]}


def test_every_address_of_the_api_is_covered_here() -> None:
    assert len(API_NAMES) == 7


@pytest.mark.parametrize("name", API_NAMES)
@pytest.mark.parametrize("method", ["get", "post", "put", "delete"])
def test_strangers_are_turned_away(name: str, method: str) -> None:
    response = getattr(APIClient(), method)(reverse(name, args=ARGUMENTS.get(name)))
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Token"
    assert response.json()["code"] == "NOT_AUTHENTICATED"


@pytest.mark.usefixtures("fake_go_runtime")
def test_token_opens_the_api(django_user_model: type[User]) -> None:
    django_user_model.objects.create_user("ada", password="correct horse")
    client = APIClient()
    granted = client.post("/api/token/", {"username": "ada", "password": "correct horse"}, format="json")
    client.credentials(HTTP_AUTHORIZATION=f"Token {granted.json()['token']}")
    response = client.post("/api/tasks/", {"task_type": "example_task", "input_data": {"n": 1}}, format="json")
    assert response.json()["output"]["input"] == {"n": 1}
    assert Token.objects.count() == 1


def test_session_needs_the_csrf_token_to_change_something(
    fake_go_runtime: FakeGoRuntime, django_user_model: type[User]
) -> None:
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(django_user_model.objects.create_user("ada"))
    assert client.get("/api/state/").status_code == 200
    response = client.post("/api/tasks/", {"task_type": "example_task"}, format="json")
    assert (response.status_code, response.json()["code"]) == (403, "PERMISSION_DENIED")
    assert fake_go_runtime.accepted_runs() == []


@pytest.mark.usefixtures("fake_go_runtime")
@pytest.mark.parametrize(
    ("scope", "path"),
    [("user", "/api/state/"), ("stream", "/api/events/stream/?event_type=a"), ("token", "/api/token/")],
)
def test_too_many_calls_are_told_when_to_come_back(
    scope: str, path: str, django_user_model: type[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SimpleRateThrottle.THROTTLE_RATES, scope, "1/hour")
    client = APIClient()
    client.force_authenticate(django_user_model.objects.create_user("ada"))
    call = client.post if scope == "token" else client.get
    first, second = call(path), call(path)
    first.close()
    assert first.status_code in {200, 400}
    assert (second.status_code, second.json()["code"]) == (429, "THROTTLED")
    assert 0 < int(second["Retry-After"]) <= 3600


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("path", ["/api/nothing/", "/api/nothing", "/api/agent/", "/api/"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_unknown_addresses_under_api_are_problems_too(method: str, path: str, *, debug: bool) -> None:
    client = APIClient(enforce_csrf_checks=True)
    with override_settings(DEBUG=debug):
        response = getattr(client, method)(path)
    assert (response.status_code, response["Content-Type"]) == (404, "application/problem+json")
    assert response["X-Request-ID"] == response.json()["request_id"]


def test_missing_slash_is_pointed_out(client: APIClient) -> None:
    response = client.get("/api/tasks")
    assert response.status_code == 404
    assert response.json()["detail"] == "There is nothing at /api/tasks. There is at /api/tasks/."


@pytest.mark.usefixtures("go_runtime")
@pytest.mark.parametrize(
    ("method", "path", "known"),
    [
        ("post", "/api/tasks/", {"task_type": "example_task"}),
        ("post", "/api/agents/frontend_agent/tasks/", {"task_type": "generate_component"}),
        ("put", "/api/state/k", {"value": 1}),
        ("post", "/api/events/", {"event_type": "a", "data": 1}),
        ("get", "/api/state/", {"prefix": "a", "format": "json"}),
        ("get", "/api/events/stream/", {"event_type": "a"}),
    ],
)
def test_members_that_are_not_known_are_refused_by_name(api: APIClient, method: str, path: str, known: Any) -> None:
    body = known | {"ttl": 1, "timeout": 0.3}
    response = getattr(api, method)(path, body, **({} if method == "get" else {"format": "json"}))
    assert (response.status_code, response.json()["code"]) == (400, "INVALID_ARGUMENT")
    assert {error["field"] for error in response.json()["errors"]} == {"ttl", "timeout"}
    assert all(next(iter(known)) in error["detail"] for error in response.json()["errors"])
