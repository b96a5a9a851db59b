from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.test import override_settings

if TYPE_CHECKING:
    from rest_framework.test import APIClient

BUTTON = {"component_type": "button", "props": {"label": "Click me"}}


def test_task_is_executed_by_the_runtime(api: APIClient) -> None:
    task = {"task_type": "example_task", "input_data": {"param1": "value1"}, "agent_id": "agent1"}
    response = api.post("/api/tasks/", task, format="json")
    assert response.status_code == 200, response.content
    output = response.json()["output"]
    assert output["input"] == {"param1": "value1"}
    assert output["processed_by"] == "agent-runtime"


def test_agent_executes_a_task(api: APIClient) -> None:
    task = {"task_type": "generate_component", "input_data": BUTTON, "description": "a button"}
    response = api.post("/api/agents/frontend_agent/tasks/", task, format="json")
    assert response.status_code == 200, response.content
    assert response.json()["output"]["explanation"]


def test_task_types_and_agents_are_listed_with_their_schemas(api: APIClient) -> None:
    task_types = api.get("/api/tasks/").json()["task_types"]
    assert "example_task" in [task_type["task_type"] for task_type in task_types]
    agents = {agent["agent_id"]: agent for agent in api.get("/api/agents/").json()["agents"]}
    assert set(agents) >= {"frontend_agent", "app_builder_agent", "codegen_agent", "software_engineering_agent"}
    [component] = [kind for kind in agents["frontend_agent"]["task_types"] if kind["task_type"] == "generate_component"]
    assert component["input_schema"]["type"] == "object"


def test_repeat_with_the_same_key_joins_the_first_run(api: APIClient) -> None:
    task = {"task_type": "example_task", "input_data": {"n": 1}, "idempotency_key": "order-1"}
    first, second = (api.post("/api/tasks/", task, format="json").json()["output"] for _ in range(2))
    assert first["run_id"] == second["run_id"]
    response = api.post("/api/tasks/", task | {"input_data": {"n": 2}}, format="json")
    assert (response.status_code, response.json()["code"]) == (409, "IDEMPOTENCY_CONFLICT")


def test_input_that_does_not_fit_names_the_field(api: APIClient) -> None:
    task = {"task_type": "generate_component", "input_data": {}}
    response = api.post("/api/agents/frontend_agent/tasks/", task, format="json")
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "INVALID_ARGUMENT")
    assert any("component_type" in error["field"] + error["detail"] for error in problem["errors"])


@pytest.mark.parametrize(
    ("path", "code"), [("/api/tasks/", "TASK_TYPE_NOT_FOUND"), ("/api/agents/nobody/tasks/", "AGENT_NOT_FOUND")]
)
def test_what_is_not_there_is_a_404_that_names_what_is(api: APIClient, path: str, code: str) -> None:
    response = api.post(path, {"task_type": "no_such_task"}, format="json")
    problem = response.json()
    assert (response.status_code, problem["code"]) == (404, code)
    assert problem["known"]


@pytest.mark.parametrize(
    "body", ["{", "[]", "{}", '{"task_type": "", "input_data": {}}', '{"task_type": "x", "input_data": 1}']
)
def test_bad_bodies_are_refused_before_the_runtime_is_asked(api: APIClient, body: str) -> None:
    response = api.post("/api/tasks/", body, content_type="application/json")
    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"


def test_runtime_that_is_away_is_a_503_with_a_time_to_come_back(api: APIClient) -> None:
    away = {"host": "127.0.0.1", "port": 1, "timeout": 0.2}
    with override_settings(GO_RUNTIME=away):
        response = api.post("/api/tasks/", {"task_type": "example_task"}, format="json")
    assert (response.status_code, response["Retry-After"]) == (503, "5")
