"""What the integration guide tells people to write, as they would write it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from backend.apps.python_agent.go_integration import get_go_runtime_integration
from backend.apps.python_agent.grpc_client import agent_service_pb2, agent_service_pb2_grpc

pytestmark = pytest.mark.usefixtures("go_runtime")


@pytest.fixture
def go_runtime_client() -> Any:
    """As in "Initializing the Go Runtime Integration"."""
    go_runtime = get_go_runtime_integration()
    go_runtime.connect()
    return go_runtime


def test_the_instance_is_a_singleton() -> None:
    assert get_go_runtime_integration() is get_go_runtime_integration()


def test_executing_tasks(go_runtime_client: Any) -> None:
    result = go_runtime_client.execute_task(
        task_type="example_task",
        input_data={"param1": "value1", "param2": "value2"},
        agent_id="agent1",
        description="Example task execution",
    )
    assert result["input"] == {"param1": "value1", "param2": "value2"}
    result = go_runtime_client.execute_agent_task(
        agent_id="frontend_agent",
        task_type="generate_component",
        input_data={"component_type": "button", "props": {"label": "Click me"}},
        description="Generate a React button component",
    )
    assert "Click me" in result["files"][0]["content"]


def test_managing_state(go_runtime_client: Any) -> None:
    success = go_runtime_client.set_state("user_preferences", {"theme": "dark", "language": "en"})
    assert success
    value = go_runtime_client.get_state("user_preferences")
    assert value == {"theme": "dark", "language": "en"}
    go_runtime_client.set_state("temporary_data", 1)
    success = go_runtime_client.delete_state("temporary_data")
    assert success


def test_working_with_events(go_runtime_client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen = threading.Event()

    def handle_user_action(event_data: Any) -> None:
        print(f"User action: {event_data}")  # noqa: T201 - as the guide has it
        seen.set()

    subscription_id = go_runtime_client.subscribe_to_events("user_action", handle_user_action)
    success = go_runtime_client.publish_event(
        event_type="system_notification",
        data={"message": "System update completed", "status": "success"},
        source="django_app",
        metadata={"importance": "high"},
    )
    assert success
    go_runtime_client.publish_event("user_action", {"clicked": "Save"})
    assert seen.wait(30)
    assert "clicked" in capsys.readouterr().out
    go_runtime_client.unsubscribe_from_events(subscription_id)


@pytest.mark.parametrize(
    ("agent_id", "task_type", "input_data"),
    [
        ("frontend_agent", "design_component", {"component_type": "form", "fields": ["name", "email", "message"]}),
        (
            "codegen_agent",
            "generate_code",
            {"language": "python", "task": "Implement a function to calculate Fibonacci numbers"},
        ),
    ],
)
def test_using_the_multi_agent_system(
    go_runtime_client: Any, agent_id: str, task_type: str, input_data: dict[str, Any]
) -> None:
    result = go_runtime_client.execute_agent_task(
        agent_id=agent_id, task_type=task_type, input_data=input_data, description="From the guide"
    )
    assert result["explanation"]


def test_error_handling(go_runtime_client: Any) -> None:
    with pytest.raises(TimeoutError):
        go_runtime_client.execute_task("sleep", {"seconds": 30}, timeout=0.2)
    with pytest.raises(LookupError):
        go_runtime_client.execute_task("no_such_task")


def test_stubs_are_where_the_guide_puts_them() -> None:
    assert agent_service_pb2.CreateRunRequest(task_type="example_task").task_type == "example_task"
    assert callable(agent_service_pb2_grpc.AgentServiceStub)
