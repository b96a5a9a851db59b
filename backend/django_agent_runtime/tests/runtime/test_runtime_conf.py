from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_agent_runtime.checks import check_agent_settings
from django_agent_runtime.runtime.interfaces import EventType, Visibility
from django_agent_runtime.runtime_conf import (
    DEFAULT_VISIBILITY,
    AgentRuntimeSettings,
    get_agent_runtime_settings,
    load,
    validate,
    visibility_of,
)

PEER_SETTINGS = {
    "QUEUE_BACKEND": "postgres",
    "EVENT_BUS_BACKEND": "db",
    "MODEL_PROVIDER": "openai",
    "DEFAULT_MODEL": "gpt-4o",
    "LEASE_TTL_SECONDS": 30,
    "RUN_TIMEOUT_SECONDS": 900,
    "RUNTIME_REGISTRY": ["myapp.agents:register_agents"],
}


def test_the_defaults() -> None:
    settings = load({})
    assert settings == AgentRuntimeSettings()
    assert (settings.model_provider, settings.default_model) == ("openai", "gpt-4o")
    assert (settings.lease_ttl_seconds, settings.run_timeout_seconds, settings.max_retries) == (30, 900, 3)
    assert (settings.debug_mode, settings.langfuse_enabled, settings.runtime_registry) == (False, False, ())


def test_what_others_wrote_is_good_and_said_to_mean_the_journal() -> None:
    with override_settings(DJANGO_AGENT_RUNTIME=PEER_SETTINGS):
        [message] = [found for found in check_agent_settings() if found.id != "django_agent_runtime.W006"]
        assert get_agent_runtime_settings().runtime_registry == ("myapp.agents:register_agents",)
    assert message.id == "django_agent_runtime.I001"
    assert not message.is_serious()
    assert "QUEUE_BACKEND and EVENT_BUS_BACKEND" in message.msg


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("QUEUE_BACKEND", "sqs"),
        ("EVENT_BUS_BACKEND", "sqs"),
        ("MODEL_PROVIDER", "gpt"),
        ("DEFAULT_MODEL", ""),
        ("OPENAI_API_KEY", 7),
        ("LEASE_TTL_SECONDS", 0),
        ("LEASE_TTL_SECONDS", "0"),
        ("LEASE_TTL_SECONDS", "half a minute"),
        ("RUN_TIMEOUT_SECONDS", "nan"),
        ("RUN_TIMEOUT_SECONDS", float("nan")),
        ("RUN_TIMEOUT_SECONDS", True),
        ("STEP_TIMEOUT_SECONDS", 0),
        ("MAX_RETRIES", -1),
        ("DEFAULT_MAX_ATTEMPTS", 0),
        ("MAX_RETRIES", 2.5),
        ("MAX_RETRIES", "2.5"),
        ("RETRY_BACKOFF_BASE", 0),
        ("DEFAULT_CONCURRENCY", 10_001),
        ("RUNTIME_REGISTRY", "myapp.agents:register_agents"),
        ("RUNTIME_REGISTRY", ["my app"]),
        ("ANONYMOUS_SESSION_MODEL", "AnonymousSession"),
        ("EVENT_VISIBILITY", {"tool.call": "everybody"}),
        ("EVENT_VISIBILITY", ["tool.call"]),
        ("DEBUG_MODE", "yes"),
        ("PUBLIC_STREAM_URL", "runs.example.com"),
        ("PUBLIC_STREAM_URL", "https://runs.example.com/?a=b"),
    ],
)
def test_a_bad_value_is_one_error_with_a_hint(key: str, value: Any) -> None:
    with override_settings(DJANGO_AGENT_RUNTIME={key: value}):
        [message] = check_agent_settings()
    assert message.id == "django_agent_runtime.E010"
    assert key in message.msg
    assert message.hint
    with pytest.raises(ValueError, match=key):
        load({key: value})
    with override_settings(DJANGO_AGENT_RUNTIME={key: value}), pytest.raises(ImproperlyConfigured, match=key):
        get_agent_runtime_settings()


def test_none_is_the_default_of_every_setting() -> None:
    nothing = dict.fromkeys(field.name.upper() for field in fields(AgentRuntimeSettings))
    assert validate(nothing) == []
    assert load(nothing) == AgentRuntimeSettings()


def test_number_may_be_a_text_as_the_environment_has_it() -> None:
    given = {"LEASE_TTL_SECONDS": "30", "SSE_KEEPALIVE_SECONDS": "0.5", "MAX_RETRIES": "5", "DEFAULT_CONCURRENCY": "20"}
    assert validate(given) == []
    settings = load(given)
    assert (settings.lease_ttl_seconds, settings.sse_keepalive_seconds) == (30, 0.5)
    assert (settings.max_retries, settings.default_max_attempts, settings.default_concurrency) == (5, 5, 20)


def test_unknown_key_is_a_warning_and_no_crash() -> None:
    with override_settings(DJANGO_AGENT_RUNTIME={"LEASE_TLT_SECONDS": 5}):
        [message] = check_agent_settings()
        assert get_agent_runtime_settings().lease_ttl_seconds == 30
    assert (message.id, message.is_serious()) == ("django_agent_runtime.W005", False)
    assert "LEASE_TLT_SECONDS" in message.msg
    assert "LEASE_TTL_SECONDS" in (message.hint or "")


def test_setting_that_is_no_dict_is_an_error() -> None:
    with override_settings(DJANGO_AGENT_RUNTIME=["QUEUE_BACKEND"]):
        [message] = check_agent_settings()
    assert message.id == "django_agent_runtime.E010"


def test_langfuse_is_said_to_need_open_telemetry() -> None:
    with override_settings(DJANGO_AGENT_RUNTIME={"LANGFUSE_ENABLED": True}):
        [message] = check_agent_settings()
    assert message.id == "django_agent_runtime.I002"


def test_no_secret_is_shown() -> None:
    [problem] = validate({"OPENAI_API_KEY": ["hunter2"]})
    assert "hunter2" not in str(problem)
    assert "hunter2" not in repr(load({"OPENAI_API_KEY": "hunter2"}))


@pytest.mark.parametrize("key", ["MAX_RETRIES", "DEFAULT_MAX_ATTEMPTS"])
def test_both_names_of_the_attempts_are_one_setting(key: str) -> None:
    settings = load({key: 5})
    assert (settings.max_retries, settings.default_max_attempts) == (5, 5)


def test_no_retries_are_one_attempt() -> None:
    settings = load({"MAX_RETRIES": 0})
    assert (settings.max_retries, settings.default_max_attempts) == (1, 1)
    assert validate({"MAX_RETRIES": 0, "DEFAULT_MAX_ATTEMPTS": 1}) == []


def test_two_numbers_of_attempts_are_a_problem() -> None:
    [problem] = validate({"MAX_RETRIES": 5, "DEFAULT_MAX_ATTEMPTS": 4})
    assert problem.key == "DEFAULT_MAX_ATTEMPTS"
    assert validate({"MAX_RETRIES": 5, "DEFAULT_MAX_ATTEMPTS": 5}) == []


@pytest.mark.parametrize(("lease", "heartbeat", "expected"), [(30, 10, 10), (6, 10, 2), (300, 10, 10)])
def test_heartbeats_fit_the_lease(lease: float, heartbeat: float, expected: float) -> None:
    assert load({"LEASE_TTL_SECONDS": lease, "HEARTBEAT_INTERVAL_SECONDS": heartbeat}).heartbeat_seconds == expected


def test_visibility_is_the_settings_then_the_types_then_everybodys() -> None:
    settings = load({"EVENT_VISIBILITY": {"tool.call": "user", "my.progress": "debug"}})
    assert visibility_of("tool.call", settings) is Visibility.USER
    assert visibility_of(EventType.TOOL_RESULT, settings) is Visibility.DEBUG
    assert visibility_of("my.progress", settings) is Visibility.DEBUG
    assert visibility_of("my.other", settings) is Visibility.USER
    assert set(DEFAULT_VISIBILITY) == {event_type.value for event_type in EventType}
