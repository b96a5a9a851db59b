"""Agents, a runtime that does them, and one that is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import override_settings

from django_agent_runtime import live
from django_agent_runtime.principals import Principal
from django_agent_runtime.runtime.registry import clear_registry, register_runtime
from django_agent_runtime.testing import free_ports
from django_agent_runtime.tests.runs.support import AnonymousSession, SiteAgent, answer, ask, fail, sign_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.contrib.auth.models import User
    from rest_framework.test import APIClient

    from django_agent_runtime.testing import FakeGoRuntime


@pytest.fixture(autouse=True)
def site(settings: Any) -> Iterator[None]:
    """A site whose own registry has three agents, and whose throttles remember nothing."""
    settings.DJANGO_AGENT_RUNTIME = {"SSE_KEEPALIVE_SECONDS": 0.2}
    cache.clear()
    clear_registry()
    for key in ("chat-agent", "asking-agent", "failing-agent"):
        register_runtime(SiteAgent(), key)
    yield
    clear_registry()


@pytest.fixture
def runtime(fake_go_runtime: FakeGoRuntime) -> FakeGoRuntime:
    """A runtime with workers for the site's agents."""
    fake_go_runtime.add_agent("chat-agent", answer)
    fake_go_runtime.add_agent("asking-agent", ask)
    fake_go_runtime.add_agent("failing-agent", fail)
    return fake_go_runtime


@pytest.fixture
def no_runtime_settings() -> dict[str, Any]:
    """A setting that points to a port on which nothing listens."""
    [port] = free_ports(1)
    return {"host": "127.0.0.1", "port": port, "timeout": 1}


@pytest.fixture
def no_runtime(no_runtime_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No runtime, and little patience with it."""
    monkeypatch.setattr(live, "PATIENCE_SECONDS", 0.2)
    with override_settings(GO_RUNTIME=no_runtime_settings):
        yield


@pytest.fixture
def ada(transactional_db: None, django_user_model: type[User]) -> User:
    return django_user_model.objects.create_user("ada")


@pytest.fixture
def bob(transactional_db: None, django_user_model: type[User]) -> User:
    return django_user_model.objects.create_user("bob")


@pytest.fixture
def actor(ada: User) -> Principal:
    return Principal.of_user(ada)


@pytest.fixture
def api(ada: User) -> APIClient:
    """The API, as Ada uses it."""
    return sign_in(ada)


@pytest.fixture
def anonymous_sessions(transactional_db: None) -> Iterator[type[AnonymousSession]]:
    """The table of a model that no migration knows."""
    with connection.schema_editor() as editor:
        editor.create_model(AnonymousSession)
    yield AnonymousSession
    with connection.schema_editor() as editor:
        editor.delete_model(AnonymousSession)
