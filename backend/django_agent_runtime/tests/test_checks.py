from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.checks import registry, run_checks
from django.db import models
from django.test import override_settings

from django_agent_runtime.checks import (
    ERROR_IDS,
    check_agent_settings,
    check_database,
    check_environment,
    check_settings,
)
from django_agent_runtime.conf import RuntimeSettings
from django_agent_runtime.runtime.registry import clear_registry
from django_agent_runtime.tests.runs.support import AnonymousSession


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("host", "http://localhost", "E001"),
        ("host", "", "E001"),
        ("port", 0, "E002"),
        ("port", "fifty", "E002"),
        ("port", True, "E002"),
        ("timeout", 0, "E003"),
        ("timeout", float("nan"), "E003"),
        ("reconnection_attempts", 0, "E004"),
        ("reconnection_delay", -1, "E005"),
        ("socket", "/" + "x" * 200, "E006"),
        ("socket", "run/agent-runtime.sock", "E006"),
        ("token", "two words", "E007"),
        ("tls", {"cert": "client.pem"}, "E008"),
        ("namespace", "Shop", "E009"),
        ("hots", "localhost", "W001"),
    ],
)
def test_bad_value_is_named_with_a_hint(key: str, value: Any, code: str) -> None:
    with override_settings(GO_RUNTIME={"host": "localhost"} | {key: value}):
        [message] = check_settings()
    assert message.id == f"django_agent_runtime.{code}"
    assert key in message.msg
    assert message.hint
    assert message.is_serious() == code.startswith("E")


@pytest.mark.parametrize(
    ("database", "warns"),
    [
        ({"ENGINE": "django.db.backends.sqlite3"}, True),
        ({"ENGINE": "django.db.backends.sqlite3", "OPTIONS": {"transaction_mode": "deferred"}}, True),
        ({"ENGINE": "django.db.backends.sqlite3", "OPTIONS": {"transaction_mode": "IMMEDIATE"}}, False),
        ({"ENGINE": "django.db.backends.postgresql"}, False),
    ],
)
def test_sqlite_whose_transactions_begin_as_readers_is_a_warning(
    database: Any, warns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `override_settings` would have Django warn of it, who has connections to it.
    monkeypatch.setitem(django_settings.DATABASES, "default", database)
    assert [message.id for message in check_database()] == ["django_agent_runtime.W008"] * warns


def test_setting_that_is_no_dict_is_an_error() -> None:
    with override_settings(GO_RUNTIME="localhost:50051"):
        [message] = check_settings()
    assert message.id == "django_agent_runtime.E000"


def test_every_setting_has_an_identifier_of_its_own() -> None:
    assert set(ERROR_IDS) - {""} == set(RuntimeSettings.__dataclass_fields__)
    assert len(set(ERROR_IDS.values())) == len(ERROR_IDS)


def test_bad_token_is_not_shown() -> None:
    with override_settings(GO_RUNTIME={"token": "hunter2 hunter2"}):
        [message] = check_settings()
    assert "hunter2" not in str(message)


@pytest.mark.parametrize("setting", [{}, {"host": "::1", "port": 1, "socket": None, "token": "t0ken", "tls": True}])
def test_good_settings_bring_no_message(setting: dict[str, Any]) -> None:
    with override_settings(GO_RUNTIME=setting):
        assert check_settings() == []


@pytest.mark.parametrize("key", ["ca", "cert"])
def test_file_that_holds_no_certificate_is_an_error(tmp_path: Path, key: str) -> None:
    garbage = str(tmp_path / "garbage.pem")
    Path(garbage).write_text("no certificate")
    tls = {"ca": garbage} if key == "ca" else {"cert": garbage, "key": garbage}
    with override_settings(GO_RUNTIME={"tls": tls}):
        [message] = check_settings()
    assert (message.id, message.is_serious()) == ("django_agent_runtime.E008", True)
    assert f"['{key}']" in message.msg
    assert garbage in message.msg


def test_file_that_cannot_be_read_is_a_warning(tmp_path: Path) -> None:
    with override_settings(GO_RUNTIME={"tls": {"ca": str(tmp_path / "ca.pem")}}):
        [message] = check_settings()
    assert (message.id, message.is_serious()) == ("django_agent_runtime.W004", False)
    assert "['ca']" in message.msg


def test_checks_are_registered_by_the_app() -> None:
    assert {check_settings, check_environment} <= set(registry.registry.get_checks())


def test_fork_support_that_is_off_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRPC_ENABLE_FORK_SUPPORT", raising=False)
    assert check_environment() == []
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")
    assert [message.id for message in check_environment()] == ["django_agent_runtime.W002"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, ["django_agent_runtime.W003"]), ({"lazy-apps": True}, []), ({b"lazy-apps": b"true"}, [])],
)
def test_uwsgi_needs_lazy_apps(monkeypatch: pytest.MonkeyPatch, options: dict[Any, Any], expected: list[str]) -> None:
    monkeypatch.delenv("GRPC_ENABLE_FORK_SUPPORT", raising=False)
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(opt=options))
    assert [message.id for message in check_environment()] == expected


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ({"ANONYMOUS_SESSION_MODEL": "accounts.Nope"}, "E011", "accounts"),
        ({"RUNTIME_REGISTRY": ["nowhere.agents:register_agents"]}, "W006", "nowhere.agents:register_agents"),
    ],
)
def test_what_the_settings_name_must_be_there(given: dict[str, Any], code: str, said: str, settings: Any) -> None:
    clear_registry()
    settings.DJANGO_AGENT_RUNTIME = given
    try:
        [message] = check_agent_settings()
    finally:
        clear_registry()
    assert message.id == f"django_agent_runtime.{code}"
    assert said in message.msg


class EternalSession(models.Model):
    """One whose token is good for ever."""

    token = models.CharField(max_length=64)

    class Meta:
        app_label = "agents"

    def __str__(self) -> str:
        return str(self.pk)


class TokenlessSession(models.Model):
    """One that no token leads to: what is called so is no column."""

    expires_at = models.DateTimeField()

    class Meta:
        app_label = "agents"

    def __str__(self) -> str:
        return str(self.pk)

    @property
    def token(self) -> str:
        return str(self.pk)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("agents.TokenlessSession", {"E011": "token"}),
        ("agents.EternalSession", {"W007": "expires_at"}),
        ("auth.Group", {"E011": "token", "W007": "expires_at"}),
        (f"agents.{AnonymousSession.__name__}", {}),
    ],
)
def test_session_model_must_have_a_token_and_should_expire(model: str, expected: dict[str, str], settings: Any) -> None:
    settings.DJANGO_AGENT_RUNTIME = {"ANONYMOUS_SESSION_MODEL": model}
    found = {(message.id or "").rpartition(".")[2]: message for message in check_agent_settings()}
    assert found.keys() == expected.keys()
    for code, said in expected.items():
        assert said in found[code].msg
        assert found[code].hint
        assert found[code].is_serious() == code.startswith("E")


@pytest.mark.parametrize(
    ("given", "codes"),
    [
        ({}, ["django_agent_runtime.I003"]),
        ({"PUBLIC_STREAM_URL": None}, ["django_agent_runtime.I003"]),
        ({"PUBLIC_STREAM_URL": "https://runs.example.com"}, []),
    ],
)
def test_deployed_site_is_told_of_tickets_without_an_address(
    given: dict[str, Any], codes: list[str], settings: Any
) -> None:
    settings.DJANGO_AGENT_RUNTIME = given
    messages = [
        message
        for message in run_checks(tags=["django_agent_runtime"], include_deployment_checks=True)
        if "PUBLIC_STREAM_URL" in f"{message.msg}{message.hint}"
    ]
    assert [message.id for message in messages] == codes
    assert not any(message.is_serious() for message in messages)
    assert "I003" not in str(run_checks(tags=["django_agent_runtime"]))


def test_unknown_key_hides_no_other_message(settings: Any) -> None:
    settings.DJANGO_AGENT_RUNTIME = {
        "ANONYMOUS_SESSION_MODEL": "accounts.Nope",
        "QUEUE_BACKEND": "redis_streams",
        "WHATEVER": 3,
    }
    codes = {message.id for message in check_agent_settings()}
    assert codes == {f"django_agent_runtime.{code}" for code in ("W005", "E011", "I001")}
