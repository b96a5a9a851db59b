from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backend.apps.agents.refund import RefundAgent
from backend.apps.agents.selectors import takes_a_text
from backend.apps.agents.travel import TravelAgent
from django_agent_runtime.go_integration import get_go_runtime_integration
from django_agent_runtime.models import AgentConversation, AgentEvent, AgentRun
from django_agent_runtime.projector import Projector
from django_agent_runtime.testing import run_agent_locally
from django_agent_runtime.types import TaskType

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.test import Client

    from django_agent_runtime.testing import GoRuntimeProcess


@pytest.fixture
def ada(client: Client, django_user_model: type[User], go_runtime: GoRuntimeProcess, db: None) -> User:
    """Who is signed in."""
    user = django_user_model.objects.create_user("ada")
    client.force_login(user)
    return user


def read(client: Client, path: str, status: int = 200) -> str:
    response = client.get(path)
    assert response.status_code == status
    return response.content.decode()


def make_ended_run(user: User, **changes: object) -> AgentRun:
    conversation = AgentConversation.objects.create(user=user, agent_key="chat-agent", title="A <b>chat</b>")
    asked = {"role": "user", "content": "Hello <i>there</i>"}
    answered = {"role": "assistant", "content": "Good day"}
    values = {
        "status": "succeeded",
        "input": {"messages": [asked]},
        "output": {"final_output": {"response": "Good day"}, "final_messages": [asked, answered]},
    }
    return AgentRun.objects.create(user=user, conversation=conversation, agent_key="chat-agent", **(values | changes))


def test_start_page_has_every_agent_and_a_strict_policy(client: Client, ada: User) -> None:
    response = client.get("/")
    page = response.content.decode()
    for agent in ("chat-agent", "refund-agent", "travel-agent"):
        assert agent in page
    for value in ("app_builder_agent", "app_builder_agent/design_application", "frontend_agent"):
        assert f'value="{value}"' in page
    # A message does not say enough for it.
    assert "codegen_agent/generate_code" not in page
    assert "script-src 'self'" in response.headers["Content-Security-Policy"]
    assert "unsafe" not in response.headers["Content-Security-Policy"]


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/", "/conversations/{0}/", "/runs/{0}/", "/runs/{0}/cancel/"])
def test_every_page_asks_for_a_sign_in(client: Client, path: str) -> None:
    path = path.format("6b3a5f0e-7a37-4a9f-9d5e-6a0b6c1f5f11")
    assert client.get(path).headers["Location"] == f"/login/?next={path}"


def test_run_is_read_from_the_page_alone(client: Client, ada: User) -> None:
    run = make_ended_run(ada)
    AgentEvent.objects.create(run=run, seq=5, event_type="assistant.message", payload={"content": "Good day"})
    AgentEvent.objects.create(run=run, seq=6, event_type="tool.call", payload={}, visibility="debug")
    page = read(client, f"/runs/{run.pk}/")
    assert "Hello &lt;i&gt;there&lt;/i&gt;" in page
    assert page.count("<p>Good day</p>") == 1
    assert "assistant.message" in page
    assert "tool.call" not in page
    assert "tool.call" in read(client, f"/runs/{run.pk}/?events=debug")
    assert "tool.call" not in read(client, f"/runs/{run.pk}/?events=all")
    assert "in the admin" not in page
    ada.is_staff = True
    ada.save()
    assert f"/admin/django_agent_runtime/agentrun/{run.pk}/change/" in read(client, f"/runs/{run.pk}/?events=all")


def test_run_without_a_conversation_has_a_page(client: Client, ada: User) -> None:
    run = make_ended_run(ada)
    run.conversation = None
    run.save()
    page = read(client, f"/runs/{run.pk}/")
    assert "with <b>chat-agent</b>" in page
    assert 'id="composer"' not in page


def test_answer_that_is_a_list_of_parts_is_shown(client: Client, ada: User) -> None:
    run = make_ended_run(ada)
    parts = [{"type": "text", "text": "In two "}, {"type": "image_url"}, {"type": "text", "text": "parts."}]
    run.output = {"final_messages": [{"role": "assistant", "content": parts}]}
    run.save()
    assert "In two parts." in read(client, f"/runs/{run.pk}/")


def test_others_see_nothing(client: Client, ada: User, django_user_model: type[User]) -> None:
    run = make_ended_run(django_user_model.objects.create_user("bob"))
    assert run.conversation is not None
    read(client, f"/runs/{run.pk}/", 404)
    read(client, f"/conversations/{run.conversation.pk}/", 404)
    for verb in ("cancel", "resume", "retry"):
        assert client.post(f"/runs/{run.pk}/{verb}/").status_code == 404
    assert "A &lt;b&gt;chat" not in read(client, "/")


@pytest.mark.django_db(transaction=True)
def test_message_makes_a_run_with_what_was_said_before(client: Client, ada: User) -> None:
    run = make_ended_run(ada)
    assert run.conversation is not None
    response = client.post(f"/conversations/{run.conversation.pk}/", {"message": "And now?"})
    new = run.conversation.runs.exclude(pk=run.pk).get()
    assert response.headers["Location"] == f"/runs/{new.pk}/"
    assert [message["content"] for message in new.input["messages"]] == [
        "Hello <i>there</i>",
        "Good day",
        "And now?",
    ]
    page = read(client, f"/runs/{new.pk}/")
    assert page.index("Good day") < page.index("And now?")
    assert client.post(f"/runs/{new.pk}/cancel/").headers["Location"] == f"/runs/{new.pk}/"
    assert ">cancelled</span>" in read(client, f"/runs/{new.pk}/")


@pytest.mark.django_db(transaction=True)
def test_conversation_with_an_agent_of_the_runtime(client: Client, ada: User) -> None:
    path = client.post("/", {"agent": "frontend_agent", "message": "A good button?"}).headers["Location"]
    first = AgentRun.objects.get()
    assert path == f"/runs/{first.pk}/"
    get_go_runtime_integration().wait_run(str(first.pk))
    assert "You said to frontend_agent: A good button?" in read(client, path)
    Projector().run_once(idle_seconds=0.3)
    assert first.conversation is not None
    client.post(f"/conversations/{first.conversation.pk}/", {"message": "And a bad one?"})
    second = first.conversation.runs.exclude(pk=first.pk).get()
    assert [message["role"] for message in second.input["messages"]] == ["user", "assistant", "user"]
    get_go_runtime_integration().wait_run(str(second.pk))
    assert "You said to frontend_agent: And a bad one?" in read(client, f"/runs/{second.pk}/")


@pytest.mark.django_db(transaction=True)
def test_task_of_an_agent_of_the_runtime(client: Client, ada: User) -> None:
    path = client.post("/", {"agent": "app_builder_agent/design_application", "message": "A shop"}).headers["Location"]
    run = AgentRun.objects.get()
    get_go_runtime_integration().wait_run(str(run.pk))
    assert "docs/architecture.md" in read(client, path)


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"agent": "chat-agent", "message": "  "}, "Write a message first."),
        ({"agent": "nobody", "message": "Hello"}, "Choose one of the agents."),
        ({}, "Choose one of the agents."),
    ],
)
def test_what_is_wrong_with_a_message_is_said(client: Client, ada: User, form: dict[str, str], sentence: str) -> None:
    response = client.post("/", form)
    assert response.headers["Location"] == "/"
    assert sentence in read(client, "/")
    assert not AgentConversation.objects.exists()


def test_refusal_is_said_on_the_page_of_the_run(client: Client, ada: User) -> None:
    run = make_ended_run(ada)
    assert client.post(f"/runs/{run.pk}/cancel/").headers["Location"] == f"/runs/{run.pk}/"
    assert "The run has already ended as succeeded." in read(client, f"/runs/{run.pk}/")


def test_travel_agent_streams_and_calls_a_tool() -> None:
    run = run_agent_locally(TravelAgent, "Please get weather")
    types = [event.type for event in run.events]
    assert types[:2] == ["tool.call", "tool.result"]
    assert types.count("assistant.delta") > 10
    assert types[-1] == "assistant.message"
    deltas = "".join(payload["content"] for payload in run.get_payloads("assistant.delta"))
    assert deltas == run.output["response"]
    assert "Rome: sunny" in deltas


def test_refund_agent_asks_and_pays_once() -> None:
    asked = run_agent_locally(RefundAgent, "Refund order 7")
    assert asked.interrupt["question"] == "Refund 175 € for order 7?"
    paid = run_agent_locally(RefundAgent, "Refund order 7", steps=asked.steps, answers=["Approve"])
    assert paid.output["response"].startswith("Refunded 175 €.")
    assert len(paid.get_payloads("assistant.message")) == 1
    declined = run_agent_locally(RefundAgent, "Refund order 7", steps=asked.steps, answers=["Decline"])
    assert declined.output == {"response": "Nothing was refunded."}


@pytest.mark.parametrize(
    ("schema", "takes"),
    [
        ({"required": ["text"], "properties": {"text": {"type": "string"}}}, True),
        ({"required": ["kind"], "properties": {"kind": {"type": "string", "enum": ["a"]}}}, False),
        ({"required": ["count"], "properties": {"count": {"type": "integer"}}}, False),
        ({"required": ["a", "b"]}, False),
        ({}, False),
    ],
)
def test_tasks_that_take_a_text(schema: dict[str, object], takes: bool) -> None:
    assert takes_a_text(TaskType("task", "", schema)) is takes
