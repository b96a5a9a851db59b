"""Whatever is sent to the API, nothing is the site's fault, and every answer is one that the schema describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from hypothesis import HealthCheck, settings
from rest_framework.authtoken.models import Token
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from backend.config.wsgi import application

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.contrib.auth.models import User


schema = schemathesis.openapi.from_wsgi("/api/schema/?format=json", application)


@pytest.fixture
def open_transaction() -> Iterator[None]:
    """Leave the connection alone between requests, as Django's test client does.

    The application is called as a server would call it. Its requests would close the connection, and with it the
    transaction of the test.
    """
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def authorization(django_user_model: type[User], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The headers of somebody who may call as often as they like."""
    monkeypatch.setattr("rest_framework.throttling.SimpleRateThrottle.allow_request", lambda *_: True)
    return {"Authorization": f"Token {Token.objects.create(user=django_user_model.objects.create_user('ada'))}"}


# The stream has no end, and so no answer to judge; what is bad about its query has tests of its own.
@pytest.mark.django_db
@pytest.mark.usefixtures("go_runtime", "open_transaction")
@schema.exclude(path="/api/events/stream/").parametrize()
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_answers_are_as_described(case: schemathesis.Case[Any], authorization: dict[str, str]) -> None:
    case.call_and_validate(headers=authorization, checks=[not_a_server_error, response_schema_conformance])
