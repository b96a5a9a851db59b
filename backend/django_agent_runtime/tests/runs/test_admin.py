"""The admin pages of conversations, runs and events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from django_agent_runtime.go_integration import get_go_runtime_integration
from django_agent_runtime.models import AgentConversation, AgentEvent, AgentRun
from django_agent_runtime.services import create_conversation, create_run
from django_agent_runtime.tests.runs.support import MESSAGES, wait_until

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from django_agent_runtime.principals import Principal

pytestmark = pytest.mark.django_db(transaction=True)

RUNS = "admin:django_agent_runtime_agentrun_changelist"
EVENTS = "admin:django_agent_runtime_agentevent_changelist"
CONVERSATIONS = "admin:django_agent_runtime_agentconversation_changelist"


@pytest.fixture
def root(transactional_db: None, django_user_model: type[User]) -> Client:
    client = Client()
    client.force_login(django_user_model.objects.create_superuser("root"))
    return client


def wait_for(run: AgentRun, state: str) -> None:
    runtime = get_go_runtime_integration()
    wait_until(lambda: runtime.get_run(str(run.pk)).state == state)


def act(client: Client, action: str, *runs: AgentRun, **more: str) -> str:
    body = {"action": action, "_selected_action": [str(run.pk) for run in runs], **more}
    response = client.post(reverse(RUNS), body, follow=True)
    assert response.status_code == 200
    return response.content.decode()


def test_pages_lead_to_each_other(root: Client, ada: User) -> None:
    conversation = AgentConversation.objects.create(user=ada, title="A chat")
    old = AgentRun.objects.create(conversation=conversation, agent_key="chat-agent", status="failed")
    run = AgentRun.objects.create(
        conversation=conversation, agent_key="chat-agent", retry_of=old, input={"messages": [{"role": "<b>"}]}
    )
    later = AgentRun.objects.create(conversation=conversation, agent_key="chat-agent")
    AgentRun.objects.filter(pk=run.pk).update(rolled_back_by=later.pk)
    event = AgentEvent.objects.create(run=run, seq=3, event_type="error", payload={"a": "<script>"})
    page = root.get(reverse(CONVERSATIONS), {"q": "chat"}).content.decode()
    assert f"{reverse(RUNS)}?conversation__id__exact={conversation.pk}" in page
    page = root.get(reverse(RUNS), {"conversation__id__exact": str(conversation.pk)}).content.decode()
    assert str(run.pk) in page
    assert f"{reverse(EVENTS)}?run__id__exact={run.pk}" in page
    page = root.get(reverse("admin:django_agent_runtime_agentrun_change", args=[run.pk])).content.decode()
    assert str(conversation.pk) in page
    assert str(old.pk) in page
    assert reverse("admin:django_agent_runtime_agentrun_change", args=[later.pk]) in page
    assert "&lt;b&gt;" in page
    page = root.get(reverse(EVENTS), {"run__id__exact": str(run.pk)}).content.decode()
    assert str(run.pk) in page
    page = root.get(reverse("admin:django_agent_runtime_agentevent_change", args=[event.pk])).content.decode()
    assert "&lt;script&gt;" in page
    assert 'name="_save"' not in page


@pytest.mark.parametrize("name", [RUNS, EVENTS, CONVERSATIONS])
@pytest.mark.parametrize("query", ["error", "chat", "00000000-0000-0000-0000-000000000000", "not a uuid"])
def test_anything_may_be_searched_for(root: Client, name: str, query: str) -> None:
    assert root.get(reverse(name), {"q": query}).status_code == 200


def test_search_finds_a_run_by_its_id(root: Client) -> None:
    run, other = (AgentRun.objects.create(agent_key="a") for _ in range(2))
    page = root.get(reverse(RUNS), {"q": str(run.pk)}).content.decode()
    assert str(run.pk) in page
    assert str(other.pk) not in page


def test_events_are_not_counted_whole(root: Client) -> None:
    run = AgentRun.objects.create(agent_key="a")
    AgentEvent.objects.bulk_create([AgentEvent(run=run, seq=seq, event_type="error") for seq in range(60)])
    with CaptureQueriesContext(connection) as queries:
        assert root.get(reverse(EVENTS)).status_code == 200
    counts = [query["sql"] for query in queries.captured_queries if "COUNT(" in query["sql"]]
    assert counts
    assert all("LIMIT 10000" in count for count in counts)


def test_nothing_is_added_or_edited(root: Client) -> None:
    run = AgentRun.objects.create(agent_key="a")
    assert root.get(reverse("admin:django_agent_runtime_agentrun_add")).status_code == 403
    changed = root.post(reverse("admin:django_agent_runtime_agentrun_change", args=[run.pk]), {"agent_key": "b"})
    assert changed.status_code == 403


@pytest.mark.usefixtures("runtime")
def test_run_is_cancelled_from_the_list(root: Client, actor: Principal) -> None:
    run = create_run(actor=actor, agent_key="asking-agent", messages=MESSAGES).run
    wait_for(run, "waiting")
    assert "1 run was cancelled." in act(root, "cancel_runs", run)
    wait_for(run, "cancelled")


@pytest.mark.usefixtures("runtime")
def test_failed_run_is_retried_from_the_list(root: Client, actor: Principal) -> None:
    run = create_run(actor=actor, agent_key="failing-agent", messages=MESSAGES, max_attempts=1).run
    wait_for(run, "failed")
    assert "1 run was retried." in act(root, "retry_runs", run)
    again = AgentRun.objects.get(retry_of=run)
    assert again.user == actor.user


@pytest.mark.usefixtures("runtime")
def test_waiting_run_is_answered_in_a_form(root: Client, actor: Principal) -> None:
    run = create_run(actor=actor, agent_key="asking-agent", messages=MESSAGES).run
    wait_for(run, "waiting")
    page = act(root, "resume_runs", run)
    assert 'name="value"' in page
    assert str(run.pk) in page
    assert "Enter a valid JSON." in act(root, "resume_runs", run, apply="1", value="{")
    assert "1 run was resumed." in act(root, "resume_runs", run, apply="1", value='{"yes": true}')
    wait_for(run, "succeeded")
    output = get_go_runtime_integration().get_run(str(run.pk)).output or {}
    assert output["final_output"] == {"answer": {"yes": True}}


@pytest.mark.usefixtures("runtime")
def test_runs_and_conversations_that_are_deleted_are_cancelled(root: Client, actor: Principal) -> None:
    conversations = [create_conversation(actor=actor) for _ in range(2)]
    runs = [
        create_run(actor=actor, agent_key="asking-agent", messages=MESSAGES, conversation=conversation).run
        for conversation in [None, None, *conversations]
    ]
    for run in runs:
        wait_for(run, "waiting")
    one, of_list = runs[:2]
    confirmed = {"post": "yes"}
    root.post(reverse("admin:django_agent_runtime_agentrun_delete", args=[one.pk]), confirmed)
    act(root, "delete_selected", of_list, **confirmed)
    first, second = conversations
    root.post(reverse("admin:django_agent_runtime_agentconversation_delete", args=[first.pk]), confirmed)
    selected = {"action": "delete_selected", "_selected_action": [str(second.pk)], **confirmed}
    root.post(reverse(CONVERSATIONS), selected)
    assert not AgentRun.objects.exists()
    assert not AgentConversation.objects.exists()
    for run in runs:
        wait_for(run, "cancelled")


@pytest.mark.usefixtures("runtime")
def test_what_cannot_be_done_is_said(root: Client, actor: Principal) -> None:
    run = create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES).run
    wait_for(run, "succeeded")
    for action in ("cancel_runs", "retry_runs"):
        page = act(root, action, run)
        assert "messagelist" in page
        assert '<li class="error">' in page


@pytest.mark.usefixtures("runtime")
def test_who_may_only_look_cannot_act(actor: Principal, bob: User) -> None:
    run = create_run(actor=actor, agent_key="asking-agent", messages=MESSAGES).run
    wait_for(run, "waiting")
    bob.is_staff = True
    bob.save()
    bob.user_permissions.add(Permission.objects.get(codename="view_agentrun"))
    client = Client()
    client.force_login(bob)
    assert "cancel_runs" not in client.get(reverse(RUNS)).content.decode()
    act(client, "cancel_runs", run)
    wait_for(run, "waiting")
    client.force_login(type(bob).objects.create_user("nobody"))
    refused: Any = client.get(reverse(RUNS))
    assert refused.status_code == 302
