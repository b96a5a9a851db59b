from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from django.test import override_settings

from django_agent_runtime.conf import RuntimeSettings, TlsSettings, load, validate
from django_agent_runtime.go_integration import GoRuntimeIntegration, get_go_runtime_integration


def test_the_defaults() -> None:
    assert asdict(load({})) == {
        "host": "localhost",
        "port": 50051,
        "timeout": 30,
        "reconnection_attempts": 5,
        "reconnection_delay": 5,
        "socket": None,
        "token": None,
        "tls": None,
        "namespace": "default",
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("host", ""),
        ("host", "http://localhost"),
        ("host", 7),
        ("host", "a:b:c"),
        ("host", "localhost:50051"),
        ("port", 0),
        ("port", 65536),
        ("port", "50051"),
        ("port", True),
        ("timeout", 0),
        ("timeout", float("nan")),
        ("timeout", "30"),
        ("reconnection_attempts", 0),
        ("reconnection_attempts", 1.5),
        ("reconnection_delay", -1),
        ("socket", "/" + "s" * 107),
        ("socket", "/a\0b"),
        ("socket", "run/x.sock"),
        ("token", "with space"),
        ("token", b"bytes"),
        ("tls", "yes"),
        ("tls", {"certificate": "a.pem"}),
        ("tls", {"cert": "a.pem"}),
        ("namespace", "Upper"),
        ("namespace", ""),
        ("namespace", "n" * 64),
    ],
)
def test_a_bad_value_is_one_problem_with_a_hint(key: str, value: Any) -> None:
    (problem,) = validate({key: value})
    assert problem.key == key
    assert problem.message
    assert problem.hint
    with pytest.raises(ValueError, match=key):
        load({key: value})


def test_every_problem_is_found_at_once() -> None:
    assert [problem.key for problem in validate({"host": "", "port": 0, "colour": 1})] == ["host", "port", "colour"]


def test_a_key_that_is_no_setting_is_a_problem_but_no_error() -> None:
    (problem,) = validate({"colour": "red"})
    assert "is not a setting" in problem.message
    assert load({"colour": "red", "port": 7}).port == 7


def test_what_is_no_dict_is_one_problem() -> None:
    (problem,) = validate([])
    assert problem.key == ""


def test_a_token_is_never_shown() -> None:
    (problem,) = validate({"token": "secret secret"})
    assert "secret" not in problem.message + problem.hint


def test_tls_may_be_a_flag_or_paths() -> None:
    assert load({"tls": True}).tls == TlsSettings()
    assert load({"tls": False}).tls is None
    assert load({"tls": {"ca": "ca.pem", "server_name": "go"}}).tls == TlsSettings(ca="ca.pem", server_name="go")


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_may_have_its_brackets(host: str) -> None:
    assert load({"host": host}).address == "[::1]:50051"


def test_a_tls_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"\['tls'\]\['ca'\] names a file that cannot be read.*absent\.pem"):
        GoRuntimeIntegration(tls={"ca": "/absent.pem"}).get_state("key")


def test_the_socket_goes_before_host_and_port() -> None:
    assert RuntimeSettings(socket="/run/x.sock").address == "/run/x.sock"
    assert RuntimeSettings(host="h", port=1).address == "h:1"


def test_the_client_checks_its_arguments() -> None:
    with pytest.raises(ValueError, match="port"):
        GoRuntimeIntegration(port=0)


def test_the_singleton_follows_the_setting() -> None:
    with override_settings(GO_RUNTIME={"port": 50999, "namespace": "one"}):
        first = get_go_runtime_integration()
        assert first is get_go_runtime_integration()
        assert (first.settings.port, first.settings.namespace) == (50999, "one")
    with override_settings(GO_RUNTIME={"port": 50998}):
        assert get_go_runtime_integration().settings.port == 50998


def test_a_client_with_other_settings_keeps_all_the_rest() -> None:
    given: dict[str, Any] = {
        "host": "h",
        "port": 7,
        "timeout": 3,
        "reconnection_attempts": 2,
        "reconnection_delay": 0.5,
        "socket": "/run/x.sock",
        "token": "t",
        "tls": TlsSettings(server_name="go"),
        "namespace": "one",
    }
    assert set(given) == set(asdict(load({})))
    client = GoRuntimeIntegration(**given)
    other = client.with_settings(namespace="two", timeout=1.5)
    assert other.settings == load(given | {"namespace": "two", "timeout": 1.5})
    assert client.settings == load(given)
    assert client.with_settings(tls=None, token=None).settings == load(given | {"tls": None, "token": None})
    with pytest.raises(ValueError, match="namespace"):
        client.with_settings(namespace="No")
