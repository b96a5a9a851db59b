"""Rows that are deleted, and what the runtime does with their runs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Permission
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from django_agent_runtime import live
from django_agent_runtime.exceptions import PermissionDenied, RunNotFound
from django_agent_runtime.go_integration import get_go_runtime_integration
from django_agent_runtime.models import AbandonedRun, AgentConversation, AgentEvent, AgentRun
from django_agent_runtime.principals import Principal
from django_agent_runtime.projector import Projector
from django_agent_runtime.services import (
    create_conversation,
    create_run,
    delete_conversation,
    delete_run,
    deletion,
    reconcile_runs,
    refresh_run,
    submission,
    submit_run,
)
from django_agent_runtime.services.reconciliation import ASK_AGAIN_SECONDS
from django_agent_runtime.testing import FakeGoRuntime
from django_agent_runtime.tests.runs.support import MESSAGES, ask, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User

pytestmark = pytest.mark.django_db(transaction=True)


def state_of(run: AgentRun) -> str:
    """What the runtime says, which still knows a run whose row is gone."""
    return str(get_go_runtime_integration().get_run(str(run.pk)).state)


def begin(actor: Principal, **options: Any) -> AgentRun:
    """A run that waits for an answer."""
    run = create_run(actor=actor, agent_key="asking-agent", messages=MESSAGES, **options).run
    wait_until(lambda: state_of(run) == "waiting")
    return run


@pytest.mark.usefixtures("runtime")
def test_run_that_goes_on_is_cancelled_when_it_is_deleted(actor: Principal) -> None:
    run, other = begin(actor), begin(actor)
    AgentEvent.objects.create(run=run, seq=3, event_type="tool.call")
    delete_run(actor=actor, run=run)
    assert list(AgentRun.objects.all()) == [other]
    assert not AgentEvent.objects.exists()
    assert (state_of(run), state_of(other)) == ("cancelled", "waiting")
    assert not AbandonedRun.objects.exists()


@pytest.mark.usefixtures("runtime")
def test_runs_of_a_conversation_are_cancelled_when_it_is_deleted(actor: Principal) -> None:
    conversation, other = (create_conversation(actor=actor) for _ in range(2))
    runs = [begin(actor, conversation=conversation) for _ in range(2)]
    kept = begin(actor, conversation=other)
    delete_conversation(actor=actor, conversation=conversation)
    assert list(AgentConversation.objects.all()) == [other]
    assert list(AgentRun.objects.all()) == [kept]
    assert [state_of(run) for run in [*runs, kept]] == ["cancelled", "cancelled", "waiting"]


def test_run_that_has_ended_is_only_deleted(
    runtime: FakeGoRuntime, actor: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = create_conversation(actor=actor)
    for status in ("succeeded", "failed"):
        AgentRun.objects.create(
            conversation=conversation, agent_key="a", status=status, submitted_at=timezone.now(), **actor.owner_fields()
        )
    monkeypatch.setattr(deletion, "pass_on_deletion", pytest.fail)
    delete_run(actor=actor, run=AgentRun.objects.filter(status="failed").get())
    delete_conversation(actor=actor, conversation=conversation)
    assert not AgentRun.objects.exists()
    assert not AbandonedRun.objects.exists()


def test_cancel_of_a_deleted_run_waits_for_the_runtime(
    runtime: FakeGoRuntime, actor: Principal, monkeypatch: pytest.MonkeyPatch, no_runtime_settings: Any
) -> None:
    runs = [begin(actor) for _ in range(3)]
    with override_settings(GO_RUNTIME=no_runtime_settings), monkeypatch.context() as patched:
        patched.setattr(live, "PATIENCE_SECONDS", 0.2)
        for run in runs:
            delete_run(actor=actor, run=run)
        assert not AgentRun.objects.exists()
        reconcile_runs()
    assert {state_of(run) for run in runs} == {"waiting"}
    reconcile_runs()
    assert {state_of(run) for run in runs} == {"cancelled"}
    assert not AbandonedRun.objects.exists()


DELETIONS: dict[str, Callable[[], Any]] = {
    "run": lambda: AgentRun.objects.get().delete(),
    "runs": lambda: AgentRun.objects.filter(agent_key="asking-agent").delete(),
    "runs of the conversation": lambda: AgentConversation.objects.get().runs.all().delete(),
    "runs of a user": lambda: AgentRun.objects.filter(user__username="ada").distinct().delete(),
    "conversation": lambda: AgentConversation.objects.get().delete(),
    "conversations": lambda: AgentConversation.objects.all().delete(),
}


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("name", DELETIONS)
def test_bare_deletion_reaches_the_runtime_too(name: str, actor: Principal) -> None:
    run = begin(actor, conversation=create_conversation(actor=actor))
    DELETIONS[name]()
    assert not AgentRun.objects.exists()
    reconcile_runs()
    assert state_of(run) == "cancelled"


@pytest.mark.usefixtures("runtime")
def test_user_who_goes_leaves_their_runs(actor: Principal, ada: User) -> None:
    run = begin(actor)
    ada.delete()
    reconcile_runs()
    assert state_of(run) == "waiting"


@pytest.mark.usefixtures("runtime")
def test_deletion_that_is_rolled_back_cancels_nothing(actor: Principal) -> None:
    run = begin(actor)
    with transaction.atomic():
        delete_run(actor=actor, run=run)
        transaction.set_rollback(True)
    reconcile_runs()
    assert AgentRun.objects.get() == run
    assert state_of(run) == "waiting"


def test_run_that_is_deleted_on_its_way_is_cancelled(
    runtime: FakeGoRuntime, actor: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = submission._describe_run

    def describe_while_deleted(run: AgentRun) -> dict[str, Any]:
        # By another process, when the row was read, and the runtime does not have it yet.
        delete_run(actor=actor, run=AgentRun.objects.get())
        return describe(run)

    monkeypatch.setattr(submission, "_describe_run", describe_while_deleted)
    run = create_run(actor=actor, agent_key="asking-agent", messages=MESSAGES).run
    assert state_of(run) == "cancelled"
    assert not AbandonedRun.objects.exists()


def test_run_that_comes_to_the_runtime_behind_its_deletion_is_cancelled(
    runtime: FakeGoRuntime, actor: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process was killed before it learned that the row was gone."""
    run = AgentRun.objects.create(agent_key="asking-agent", input={"messages": MESSAGES}, **actor.owner_fields())
    stale = AgentRun.objects.get()
    delete_run(actor=actor, run=run)
    with monkeypatch.context() as patched:
        patched.setattr(submission, "pass_on_deletion", lambda *_: None)
        submit_run(run=stale)
    AbandonedRun.objects.update(missed_at=timezone.now())
    reconcile_runs()
    assert state_of(run) != "cancelled"
    AbandonedRun.objects.update(missed_at=timezone.now() - timedelta(seconds=2 * ASK_AGAIN_SECONDS))
    reconcile_runs()
    assert state_of(run) == "cancelled"
    assert not AbandonedRun.objects.exists()


def test_runtime_that_never_knew_the_run_is_asked_twice(runtime: FakeGoRuntime, actor: Principal) -> None:
    run = AgentRun.objects.create(agent_key="asking-agent", **actor.owner_fields())
    delete_run(actor=actor, run=run)
    assert AbandonedRun.objects.get().missed_at is not None
    reconcile_runs()
    AbandonedRun.objects.update(missed_at=timezone.now() - timedelta(seconds=2 * ASK_AGAIN_SECONDS))
    reconcile_runs()
    assert not AbandonedRun.objects.exists()
    with pytest.raises(RunNotFound):
        state_of(run)


@pytest.mark.usefixtures("runtime")
def test_projection_leaves_deleted_runs_out(actor: Principal) -> None:
    run = begin(actor)
    delete_run(actor=actor, run=run)
    assert Projector().run_once(idle_seconds=0.3) == 0
    assert not AgentRun.objects.exists()
    # Read before it was deleted, asked after behind that.
    assert refresh_run(run=run) is run
    assert not AgentRun.objects.exists()


def test_runs_are_deleted_by_their_owner_and_by_permission(
    runtime: FakeGoRuntime, actor: Principal, bob: User, django_user_model: type[User]
) -> None:
    runtime.add_agent("asking-agent", ask)
    conversation = create_conversation(actor=actor)
    run = begin(actor, conversation=conversation)
    for stranger in (Principal.of_user(bob), Principal()):
        with pytest.raises(PermissionDenied):
            delete_run(actor=stranger, run=run)
        with pytest.raises(PermissionDenied):
            delete_conversation(actor=stranger, conversation=conversation)
    assert state_of(run) == "waiting"
    bob.user_permissions.set(Permission.objects.filter(codename__in=("delete_agentrun", "delete_agentconversation")))
    allowed = Principal.of_user(django_user_model.objects.get(pk=bob.pk))
    delete_run(actor=allowed, run=run)
    delete_conversation(actor=allowed, conversation=conversation)
    assert not AgentConversation.objects.exists()
