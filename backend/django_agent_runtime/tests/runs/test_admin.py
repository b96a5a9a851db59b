"""The admin pages of conversations, runs and events."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import Permission
from django.db import connection, models
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from django_agent_runtime.admin import find_users
from django_agent_runtime.go_integration import get_go_runtime_integration
from django_agent_runtime.models import AgentConversation, AgentEvent, AgentRun
from django_agent_runtime.projector import Projector
from django_agent_runtime.services import create_conversation, create_run, resume_run
from django_agent_runtime.tests.runs.support import MESSAGES, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User

    from django_agent_runtime.principals import Principal
    from django_agent_runtime.testing import FakeGoRuntime, FakeRun

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


def project() -> None:
    Projector().run_once(idle_seconds=0.3)


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


def test_sub_runs_and_runs_of_schedules_are_found(root: Client) -> None:
    parent = AgentRun.objects.create(agent_key="chat-agent", schedule_id="nightly")
    child = AgentRun.objects.create(agent_key="other-agent", parent_run=parent)
    for query in ({"parent_run__id__exact": str(parent.pk)}, {"q": str(parent.pk)}):
        assert f"{child.pk}/change/" in root.get(reverse(RUNS), query).content.decode()
    page = root.get(reverse(RUNS), {"q": "nightly"}).content.decode()
    assert (f"{parent.pk}/change/" in page, f"{child.pk}/change/" in page) == (True, False)
    page = root.get(reverse("admin:django_agent_runtime_agentrun_change", args=[parent.pk])).content.decode()
    assert f"{reverse(RUNS)}?parent_run__id__exact={parent.pk}" in page
    page = root.get(reverse("admin:django_agent_runtime_agentrun_change", args=[child.pk])).content.decode()
    assert reverse("admin:django_agent_runtime_agentrun_change", args=[parent.pk]) in page


@pytest.mark.parametrize("name", [RUNS, EVENTS, CONVERSATIONS])
@pytest.mark.parametrize("query", ["error", "chat", "00000000-0000-0000-0000-000000000000", "not a uuid"])
def test_anything_may_be_searched_for(root: Client, name: str, query: str) -> None:
    assert root.get(reverse(name), {"q": query}).status_code == 200


def link_to(row: AgentConversation | AgentRun | AgentEvent) -> str:
    return f'href="{reverse(f"admin:django_agent_runtime_{row._meta.model_name}_change", args=[row.pk])}'


@pytest.mark.parametrize("form", [str, lambda key: f" {key.hex.upper()} "])
def test_search_finds_rows_by_an_id(root: Client, form: Callable[[UUID], str]) -> None:
    session = uuid4()
    conversation, other_conversation = (AgentConversation.objects.create(title="A chat") for _ in range(2))
    run = AgentRun.objects.create(conversation=conversation, agent_key="a")
    of_session, other = (AgentRun.objects.create(agent_key="a", anonymous_session_id=key) for key in (session, None))
    event, other_event = (AgentEvent.objects.create(run=row, seq=1, event_type="error") for row in (run, other))
    for name, key, found, missed in (
        (RUNS, run.pk, [run], [of_session, other]),
        (RUNS, conversation.pk, [run], [of_session, other]),
        (RUNS, session, [of_session], [run, other]),
        (CONVERSATIONS, conversation.pk, [conversation], [other_conversation]),
        (EVENTS, run.pk, [event], [other_event]),
    ):
        with CaptureQueriesContext(connection) as queries:
            page = root.get(reverse(name), {"q": form(key)}).content.decode()
        assert [link_to(row) in page for row in [*found, *missed]] == [True] * len(found) + [False] * len(missed)
        # An id that is compared as text is found by no index.
        assert not [query["sql"] for query in queries.captured_queries if "CAST" in query["sql"]]


@pytest.mark.parametrize("name", [RUNS, CONVERSATIONS])
@pytest.mark.parametrize("term", ["ada", " ada ", "ada@example.com"])
def test_search_finds_rows_by_their_owner(root: Client, ada: User, bob: User, name: str, term: str) -> None:
    ada.email = "ada@example.com"
    ada.save()
    model = AgentRun if name == RUNS else AgentConversation
    mine, others, nobodys = (model.objects.create(agent_key="a", user=user) for user in (ada, bob, None))
    with CaptureQueriesContext(connection) as queries:
        page = root.get(reverse(name), {"q": term}).content.decode()
    assert [link_to(row) in page for row in (mine, others, nobodys)] == [True, False, False]
    # By the index for a user's rows: no text is looked for in them.
    assert not [query["sql"] for query in queries.captured_queries if "LIKE" in query["sql"]]
    # A part of a name is nobody's.
    page = root.get(reverse(name), {"q": "ad"}).content.decode()
    assert link_to(mine) not in page


def test_search_finds_rows_of_a_user_whose_name_is_an_id(root: Client, ada: User) -> None:
    ada.username = str(uuid4())
    ada.save()
    run, other = (AgentRun.objects.create(agent_key="a", user=user) for user in (ada, None))
    page = root.get(reverse(RUNS), {"q": ada.username}).content.decode()
    assert link_to(run) in page
    assert link_to(other) not in page


class Member(AbstractBaseUser):
    """Users of a project that knows them by a number, and by no e-mail address."""

    number = models.IntegerField(unique=True)
    USERNAME_FIELD = "number"

    class Meta:
        app_label = "agents"


@pytest.mark.parametrize("term", ["ada", "ada@example.com"])
def test_users_are_looked_for_by_what_they_have(settings: Any, term: str) -> None:
    settings.AUTH_USER_MODEL = "agents.Member"
    assert find_users(term) == []


@pytest.mark.parametrize("model", [AgentRun, AgentConversation])
def test_page_of_a_row_says_when_it_was_made(root: Client, model: type[AgentRun | AgentConversation]) -> None:
    row = model.objects.create(agent_key="a")
    page = root.get(reverse(f"admin:django_agent_runtime_{model._meta.model_name}_change", args=[row.pk]))
    assert "Created at:" in page.content.decode()
    assert ("Updated at:" in page.content.decode()) == (model is AgentConversation)


@pytest.mark.parametrize("name", [RUNS, CONVERSATIONS])
def test_lists_are_filtered_by_agent_without_reading_them_whole(root: Client, name: str) -> None:
    model = AgentRun if name == RUNS else AgentConversation
    mine, gone = (model.objects.create(agent_key=key) for key in ("chat-agent", "agent-of-old"))
    with CaptureQueriesContext(connection) as queries:
        page = root.get(reverse(name), {"agent_key": "chat-agent"}).content.decode()
    assert link_to(mine) in page
    assert link_to(gone) not in page
    assert "?agent_key=asking-agent" in page
    assert "_facets" not in page
    assert not [query["sql"] for query in queries.captured_queries if "DISTINCT" in query["sql"]]
    # An agent that is no longer there is searched for.
    page = root.get(reverse(name), {"q": "of-old"}).content.decode()
    assert link_to(gone) in page
    assert link_to(mine) not in page


@pytest.mark.parametrize("whole", [True, False])
def test_page_of_a_deletion_counts_what_goes_with_it(root: Client, *, whole: bool) -> None:
    conversation = AgentConversation.objects.create(title="A <chat>")
    runs = [AgentRun.objects.create(conversation=conversation, agent_key="a") for _ in range(2)]
    for run in runs:
        AgentEvent.objects.bulk_create([AgentEvent(run=run, seq=seq, event_type="error") for seq in range(30)])
    selected = {"action": "delete_selected", "_selected_action": [str(conversation.pk)]}
    with CaptureQueriesContext(connection) as queries:
        if whole:
            url = reverse("admin:django_agent_runtime_agentconversation_delete", args=[conversation.pk])
            response: Any = root.get(url)
        else:
            response = root.post(reverse(CONVERSATIONS), selected)
    assert dict(response.context["model_count"]) == {"conversations": 1, "runs": 2, "events": 60}
    page = response.content.decode()
    assert link_to(conversation) in page
    assert "A &lt;chat&gt;" in page
    assert not [run for run in runs if str(run.pk) in page]
    large = ('"payload"', '"input"', '"output"')
    assert not [query["sql"] for query in queries.captured_queries if any(name in query["sql"] for name in large)]


def test_events_are_deleted_with_their_run_alone(root: Client) -> None:
    run = AgentRun.objects.create(agent_key="a", status="succeeded")
    event = AgentEvent.objects.create(run=run, seq=1, event_type="error")
    assert "delete_selected" not in root.get(reverse(EVENTS)).content.decode()
    body = {"action": "delete_selected", "_selected_action": [str(event.pk)], "post": "yes"}
    root.post(reverse(EVENTS), body)
    page = root.get(reverse("admin:django_agent_runtime_agentevent_change", args=[event.pk])).content.decode()
    assert reverse("admin:django_agent_runtime_agentevent_delete", args=[event.pk]) not in page
    url = reverse("admin:django_agent_runtime_agentevent_delete", args=[event.pk])
    assert root.post(url, {"post": "yes"}).status_code == 403
    assert AgentEvent.objects.exists()
    url = reverse("admin:django_agent_runtime_agentrun_delete", args=[run.pk])
    assert root.post(url, {"post": "yes"}).status_code == 302
    assert not AgentEvent.objects.exists()


def test_who_may_not_delete_events_deletes_no_conversation(bob: User) -> None:
    conversation = AgentConversation.objects.create()
    run = AgentRun.objects.create(conversation=conversation, agent_key="a")
    bob.is_staff = True
    bob.save()
    names = ("view_agentconversation", "delete_agentconversation", "delete_agentrun")
    bob.user_permissions.set(Permission.objects.filter(codename__in=names))
    client = Client()
    client.force_login(bob)
    url = reverse("admin:django_agent_runtime_agentconversation_delete", args=[conversation.pk])
    response: Any = client.get(url)
    assert response.context["perms_lacking"] == set()
    AgentEvent.objects.create(run=run, seq=1, event_type="error")
    response = client.get(url)
    assert response.context["perms_lacking"] == {"event"}
    assert client.post(url, {"post": "yes"}).status_code == 403
    bob.user_permissions.add(Permission.objects.get(codename="delete_agentevent"))
    assert client.post(url, {"post": "yes"}).status_code == 302
    assert not AgentEvent.objects.exists()


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


def hidden_fields(page: str) -> dict[str, str]:
    """What the form of an answer carries of the questions that it shows."""
    return dict(re.findall(r'<input type="hidden" name="(interrupt_[^"]+)" value="([^"]+)">', page))


@pytest.mark.usefixtures("runtime")
def test_waiting_run_is_answered_in_a_form(root: Client, actor: Principal) -> None:
    run = create_run(actor=actor, agent_key="asking-agent", messages=MESSAGES).run
    wait_for(run, "waiting")
    project()
    page = act(root, "resume_runs", run)
    assert 'name="value"' in page
    assert str(run.pk) in page
    assert "Go on?" in page
    shown = hidden_fields(page)
    page = act(root, "resume_runs", run, apply="1", value="{", **shown)
    assert "Enter a valid JSON." in page
    assert hidden_fields(page) == shown
    assert "1 run was resumed." in act(root, "resume_runs", run, apply="1", value='{"yes": true}', **shown)
    wait_for(run, "succeeded")
    output = get_go_runtime_integration().get_run(str(run.pk)).output or {}
    assert output["final_output"] == {"answer": {"yes": True}}


def test_answer_is_for_the_question_that_was_shown(root: Client, actor: Principal, runtime: FakeGoRuntime) -> None:
    def ask_twice(run: FakeRun) -> dict[str, Any]:
        answers = [run.interrupt({"question": question}) for question in ("Pay 5?", "Pay 5000?")]
        return {"final_output": {"answers": answers}, "final_messages": [], "usage": {}}

    runtime.add_agent("asking-agent", ask_twice)
    run, other = (create_run(actor=actor, agent_key="asking-agent", messages=MESSAGES).run for _ in range(2))
    for one in (run, other):
        wait_for(one, "waiting")
    project()
    page = act(root, "resume_runs", run, other)
    assert page.count("Pay 5?") == 2
    shown = hidden_fields(page)
    # Its owner is faster with one of them.
    resume_run(actor=actor, run=run, value="owner")
    live = get_go_runtime_integration()
    wait_until(lambda: (found := live.get_run(str(run.pk)).interrupt) and found.interrupt_id == "question-2")
    page = act(root, "resume_runs", run, other, apply="1", value='"admin"', **shown)
    assert f'<li class="error">Run {run.pk}: ' in page
    assert "1 run was resumed." in page
    assert live.get_run(str(run.pk)).state == "waiting"
    wait_until(lambda: (found := live.get_run(str(other.pk)).interrupt) and found.interrupt_id == "question-2")
    resume_run(actor=actor, run=run, value="owner again")
    wait_for(run, "succeeded")
    output = live.get_run(str(run.pk)).output or {}
    assert output["final_output"] == {"answers": ["owner", "owner again"]}


@pytest.mark.usefixtures("runtime")
def test_run_that_asked_nothing_in_the_form_is_not_resumed(root: Client, actor: Principal) -> None:
    run = create_run(actor=actor, agent_key="asking-agent", messages=MESSAGES).run
    wait_for(run, "waiting")
    # Its row is behind.
    shown = hidden_fields(act(root, "resume_runs", run))
    assert shown == {}
    page = act(root, "resume_runs", run, apply="1", value="1", **shown)
    assert f'<li class="error">Run {run.pk}: ' in page
    assert get_go_runtime_integration().get_run(str(run.pk)).state == "waiting"


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
