from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.test import override_settings

from django_agent_runtime.health import probe_runtime

if TYPE_CHECKING:
    from django.test import Client

    from django_agent_runtime.testing import FakeGoRuntime, GoRuntimeProcess

AWAY = {"host": "127.0.0.1", "port": 1}


@pytest.mark.usefixtures("go_runtime")
def test_runtime_that_answers_is_200_without_a_sign_in(client: Client) -> None:
    response = client.get("/health/runtime/")
    body = response.json()
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"
    assert (body["connected"], body["durability"], body["warnings"], body["problem"]) == (True, "fsync", [], "")
    assert body["version"]
    assert body["latency_ms"] > 0


@pytest.mark.usefixtures("fake_go_runtime")
def test_warnings_of_the_runtime_are_passed_on(client: Client) -> None:
    assert "keeps nothing" in client.get("/health/runtime/").json()["warnings"][0]


@pytest.mark.parametrize("debug", [True, False])
def test_runtime_that_is_away_is_503_and_its_address_is_for_developers(client: Client, *, debug: bool) -> None:
    with override_settings(GO_RUNTIME=AWAY, DEBUG=debug):
        response = client.get("/health/runtime/")
    body = response.json()
    assert response.status_code == 503
    assert (body["connected"], body["latency_ms"]) == (False, None)
    assert ("127.0.0.1" in body["problem"]) is debug
    assert body["problem"]


def test_probe_sees_the_runtime_go_and_come_back(go_runtime_process: GoRuntimeProcess) -> None:
    with override_settings(GO_RUNTIME=go_runtime_process.settings):
        assert probe_runtime().connected
        go_runtime_process.kill()
        assert not probe_runtime().connected
        go_runtime_process.start()
        assert probe_runtime(timeout_seconds=30).connected


def test_health_changes_nothing(client: Client, fake_go_runtime: FakeGoRuntime) -> None:
    assert client.post("/health/runtime/").status_code == 405
    assert fake_go_runtime.accepted_runs() == []
