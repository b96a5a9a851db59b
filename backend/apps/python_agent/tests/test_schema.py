"""The OpenAPI description of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from django.core.management import call_command

from backend.apps.python_agent import urls

if TYPE_CHECKING:
    from pathlib import Path

    from django.test import Client


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The schema, validated, with every warning an error."""
    path: Path = tmp_path_factory.mktemp("schema") / "schema.yml"
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(path))
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def test_schema_is_of_openapi_3_1(schema: dict[str, Any]) -> None:
    assert schema["openapi"].startswith("3.1.")


def test_every_endpoint_is_described(schema: dict[str, Any]) -> None:
    served = {
        str(pattern.pattern).replace("<str:agent_id>", "{agent_id}").replace("<state_key:key>", "{key}")
        for pattern in urls.urlpatterns
        if str(pattern.pattern).startswith("api/")
    }
    assert {f"/{path}" for path in served} <= set(schema["paths"])


def test_every_operation_needs_a_sign_in_and_may_answer_with_a_problem(schema: dict[str, Any]) -> None:
    for path, operations in schema["paths"].items():
        if path in {"/api/token/", "/api/schema/"}:
            continue
        for name, operation in operations.items():
            assert {} not in operation["security"], (name, path)
            assert "application/problem+json" in operation["responses"]["default"]["content"], (name, path)


def test_requests_take_no_members_that_are_not_described(schema: dict[str, Any]) -> None:
    schemas = schema["components"]["schemas"]
    closed = {name for name, described in schemas.items() if described.get("additionalProperties") is False}
    assert closed == {
        "ConversationCreate",
        "EventRequest",
        "LabelledTaskRequest",
        "PatchedConversationUpdate",
        "RunCancel",
        "RunCreate",
        "RunResume",
        "StateWrite",
        "TaskRequest",
    }


def test_slash_at_the_end_of_a_key_is_described(schema: dict[str, Any]) -> None:
    for operation in schema["paths"]["/api/state/{key}"].values():
        [key] = [parameter for parameter in operation["parameters"] if parameter["name"] == "key"]
        assert "`k1/`" in key["description"]


def test_stream_is_described_as_server_sent_events(schema: dict[str, Any]) -> None:
    operation = schema["paths"]["/api/events/stream/"]["get"]
    assert list(operation["responses"]["200"]["content"]) == ["text/event-stream"]
    assert {"event_type", "after_sequence", "named", "Last-Event-ID"} <= {
        parameter["name"] for parameter in operation["parameters"]
    }


def test_schema_and_its_page_are_served_without_anything_from_elsewhere(client: Client) -> None:
    assert client.get("/api/schema/").status_code == 200
    page = client.get("/api/docs/").content.decode()
    assert "https://" not in page
    assert "/static/drf_spectacular_sidecar/" in page
