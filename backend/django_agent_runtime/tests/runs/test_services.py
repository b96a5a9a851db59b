"""What becomes of a request: in the rows, and in the runtime."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from django_agent_runtime import live
from django_agent_runtime._channel import Transport
from django_agent_runtime.exceptions import (
    AgentNotFound,
    AgentRuntimeError,
    ConcurrencyLimit,
    IdempotencyConflict,
    InternalError,
    InvalidRequest,
    PermissionDenied,
    QueueFull,
    RunEnded,
    RunNotEnded,
    RunNotFound,
    RunNotWaiting,
    Unauthenticated,
)
from django_agent_runtime.go_integration import GoRuntimeIntegration, get_go_runtime_integration
from django_agent_runtime.models import AgentConversation, AgentEvent, AgentRun, ProjectorCursor
from django_agent_runtime.principals import Principal
from django_agent_runtime.projector import Projector
from django_agent_runtime.runtime.interfaces import RetryPolicy
from django_agent_runtime.runtime.registry import register_runtime
from django_agent_runtime.selectors import get_visible_run, read_run
from django_agent_runtime.services import (
    cancel_run,
    create_conversation,
    create_run,
    delete_run,
    reconcile_runs,
    refresh_open_runs,
    resume_run,
    retry_run,
    submission,
    submit_run,
    update_conversation,
)
from django_agent_runtime.services.reconciliation import REPEAT_CANCEL_SECONDS
from django_agent_runtime.testing import FakeGoRuntime, GoRuntimeProcess
from django_agent_runtime.tests.runs.support import MESSAGES, SiteAgent, answer, ask, wait_until
from django_agent_runtime.types import Concurrency, RunState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from django.contrib.auth.models import User

pytestmark = pytest.mark.django_db(transaction=True)


def run_in_runtime(run: AgentRun) -> Any:
    return get_go_runtime_integration().get_run(str(run.pk))


def wait_for(run: AgentRun, state: str) -> None:
    wait_until(lambda: run_in_runtime(run).state == state)


def test_run_is_handed_over_under_the_id_of_its_row(runtime: FakeGoRuntime, actor: Principal) -> None:
    run, created = create_run(
        actor=actor, agent_key="chat-agent", messages=MESSAGES, params={"a": 1}, metadata={"b": 2}, max_attempts=5
    )
    assert created
    [accepted] = runtime.accepted_runs()
    assert accepted.run_id == str(run.pk)
    assert (accepted.agent_id, accepted.task_type) == ("chat-agent", "agent.run")
    assert accepted.input == {"messages": MESSAGES, "params": {"a": 1}}
    assert accepted.metadata == {"b": 2}
    assert run_in_runtime(run).max_attempts == 5
    run.refresh_from_db()
    assert run.submitted_at is not None
    assert (run.user, run.status) == (actor.user, "queued")


@pytest.mark.parametrize(
    ("said", "asked", "attempts"),
    [
        ({}, None, 2),
        ({"max_attempts": 5}, None, 5),
        ({"max_attempts": 5, "retry": RetryPolicy(initial_backoff=1)}, None, 5),
        ({"max_attempts": 5, "retry": RetryPolicy(max_attempts=7)}, None, 7),
        ({"max_attempts": 5}, 4, 4),
    ],
)
def test_attempts_are_as_many_before_a_worker_has_the_run(
    said: dict[str, Any], asked: int | None, attempts: int, runtime: FakeGoRuntime, actor: Principal, settings: Any
) -> None:
    settings.DJANGO_AGENT_RUNTIME = {"MAX_RETRIES": 2}
    agent = SiteAgent()
    for name, value in said.items():
        setattr(agent, name, value)
    register_runtime(agent, "chat-agent")
    run = create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES, max_attempts=asked).run
    assert run_in_runtime(run).max_attempts == attempts


def test_runs_of_a_conversation_are_served_one_after_another(runtime: FakeGoRuntime, actor: Principal) -> None:
    conversation = create_conversation(actor=actor, agent_key="chat-agent")
    run = create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES, conversation=conversation).run
    live_run = run_in_runtime(run)
    assert live_run.concurrency_key == f"conversation:{conversation.pk}"
    assert live_run.metadata["conversation_id"] == str(conversation.pk)


def test_callers_cannot_say_which_conversation_it_is(runtime: FakeGoRuntime, actor: Principal) -> None:
    conversation = create_conversation(actor=actor)
    forged = {"conversation_id": "another's"}
    run = create_run(
        actor=actor, agent_key="chat-agent", messages=MESSAGES, conversation=conversation, metadata=forged
    ).run
    assert run_in_runtime(run).metadata == {"conversation_id": str(conversation.pk)}
    alone = create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES, metadata=forged).run
    assert run_in_runtime(alone).metadata == {}


@pytest.mark.usefixtures("no_runtime")
def test_run_that_was_cancelled_while_the_runtime_was_away_is_not_sent_with_the_next(actor: Principal) -> None:
    conversation = create_conversation(actor=actor)
    asked: dict[str, Any] = {"actor": actor, "agent_key": "chat-agent", "conversation": conversation}
    cancelled = create_run(messages=MESSAGES, **asked).run
    cancel_run(actor=actor, run=cancelled)
    waiting = create_run(messages=MESSAGES, **asked).run
    with FakeGoRuntime() as fake, override_settings(GO_RUNTIME=fake.settings):
        run = create_run(messages=MESSAGES, **asked).run
        assert [accepted.run_id for accepted in fake.accepted_runs()] == [str(waiting.pk), str(run.pk)]
        reconcile_runs()
        assert len(fake.accepted_runs()) == 2
    cancelled.refresh_from_db()
    assert cancelled.status == "cancelled"


@pytest.mark.parametrize("error", [Unauthenticated, PermissionDenied, InternalError])
def test_faults_of_the_runtime_end_no_run_that_waits(
    error: type[AgentRuntimeError], runtime: FakeGoRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = AgentRun.objects.create(agent_key="chat-agent", input={"messages": MESSAGES})
    with monkeypatch.context() as patched:
        patched.setattr(submission, "_send", Mock(side_effect=error("not now")))
        assert reconcile_runs() == 0
    run.refresh_from_db()
    assert (run.status, run.submitted_at) == ("queued", None)
    assert reconcile_runs() == 1


def test_run_is_not_sent_before_it_is_committed(runtime: FakeGoRuntime, actor: Principal) -> None:
    with transaction.atomic():
        create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES)
        assert runtime.accepted_runs() == []
    assert len(runtime.accepted_runs()) == 1


def test_run_that_is_rolled_back_is_never_sent(runtime: FakeGoRuntime, actor: Principal) -> None:
    with transaction.atomic():
        create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES)
        transaction.set_rollback(True)
    assert runtime.accepted_runs() == []
    assert reconcile_runs() == 0


@pytest.mark.usefixtures("runtime")
def test_unknown_agent_is_refused(actor: Principal) -> None:
    with pytest.raises(AgentNotFound):
        create_run(actor=actor, agent_key="nobody", messages=MESSAGES)
    # Also where the refusal could only be seen after the answer, behind a transaction of the caller's.
    with transaction.atomic(), pytest.raises(AgentNotFound):
        create_run(actor=actor, agent_key="nobody", messages=MESSAGES)
    assert not AgentRun.objects.exists()


def test_refusal_of_an_agent_names_others_to_who_may_know_of_them(
    runtime: FakeGoRuntime, ada: User, settings: Any
) -> None:
    """What the runtime serves may be of another site, and what a site has is not for everybody."""
    runtime.add_agent("elsewhere", answer)

    def refuse(actor: Principal, agent_key: str) -> AgentNotFound:
        with pytest.raises(AgentNotFound) as caught:
            create_run(actor=actor, agent_key=agent_key, messages=MESSAGES)
        return caught.value

    all_there_are = ["asking-agent", "chat-agent", "elsewhere", "failing-agent"]
    for actor in (Principal.of_user(ada), Principal(anonymous_session_id=uuid4())):
        for agent_key, message in (
            ("nobody", "There is no agent 'nobody'."),
            ("elsewhre", "There is no agent 'elsewhre'."),
            ("chta-agent", "There is no agent 'chta-agent'; did you mean chat-agent?"),
        ):
            refusal = refuse(actor, agent_key)
            assert (str(refusal), refusal.metadata) == (message, {"agent_id": agent_key})
    ada.is_staff = True
    refusal = refuse(Principal.of_user(ada), "nobody")
    assert str(refusal) == f"There is no agent 'nobody'; known are {', '.join(all_there_are)}."
    assert refusal.metadata == {"agent_id": "nobody", "known": ",".join(all_there_are)}
    settings.DEBUG = True
    assert refuse(Principal(anonymous_session_id=uuid4()), "nobody").metadata == refusal.metadata


@pytest.mark.parametrize(
    ("debug", "known"), [(False, "."), (True, "; known are asking-agent, chat-agent, echo, failing-agent, only-here.")]
)
def test_run_of_an_agent_that_proves_unknown_ends(
    runtime: FakeGoRuntime, actor: Principal, settings: Any, *, debug: bool, known: str
) -> None:
    settings.DEBUG = debug
    runtime.add_agent("echo", answer)
    register_runtime(SiteAgent(), "only-here")
    run = AgentRun.objects.create(agent_key="nobody", input={"messages": MESSAGES}, **actor.owner_fields())
    reconcile_runs()
    run.refresh_from_db()
    assert run.error
    assert (run.status, run.error["reason"]) == ("failed", "AGENT_NOT_FOUND")
    assert run.error["message"] == f"There is no agent 'nobody'{known}"
    assert [event.event_type for event in run.events.all()] == ["run.failed"]


@pytest.mark.usefixtures("runtime")
def test_refusal_behind_the_callers_transaction_is_in_the_row(actor: Principal) -> None:
    conversation = create_conversation(actor=actor)
    create_run(actor=actor, agent_key="asking-agent", messages=MESSAGES, conversation=conversation)
    with transaction.atomic():
        run = create_run(
            actor=actor, agent_key="chat-agent", messages=MESSAGES, conversation=conversation, run_timeout=-1
        ).run
    run.refresh_from_db()
    assert run.status == "failed"


@pytest.fixture
def full_runtime(tmp_path: Path) -> Iterator[None]:
    """The real runtime without workers, whose queue is full with one run."""
    arguments = ("--max-queued-runs", "1")
    with GoRuntimeProcess(tmp_path, arguments=arguments) as process, override_settings(GO_RUNTIME=process.settings):
        yield


@pytest.mark.usefixtures("full_runtime")
def test_refusal_that_the_caller_is_told_of_leaves_no_row(actor: Principal) -> None:
    asked: dict[str, Any] = {"actor": actor, "agent_key": "chat-agent", "messages": MESSAGES}
    first = create_run(**asked).run
    for _ in range(2):
        with pytest.raises(QueueFull):
            create_run(**asked, idempotency_key="k")
    assert list(AgentRun.objects.all()) == [first]
    assert not AgentEvent.objects.exists()
    cancel_run(actor=actor, run=first)
    assert create_run(**asked, idempotency_key="k").created


@pytest.mark.usefixtures("full_runtime")
def test_refusal_of_a_retry_leaves_no_row(actor: Principal) -> None:
    asked: dict[str, Any] = {"actor": actor, "agent_key": "chat-agent", "messages": MESSAGES}
    ended = cancel_run(actor=actor, run=create_run(**asked).run)
    waiting = create_run(**asked).run
    with pytest.raises(QueueFull):
        retry_run(actor=actor, run=ended, idempotency_key="k")
    assert set(AgentRun.objects.all()) == {ended, waiting}
    cancel_run(actor=actor, run=waiting)
    assert retry_run(actor=actor, run=ended, idempotency_key="k").created


def test_run_that_was_accepted_all_the_same_keeps_its_row(
    runtime: FakeGoRuntime, actor: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = GoRuntimeIntegration.create_run

    def accept_and_fail(self: GoRuntimeIntegration, *args: Any, **options: Any) -> Any:
        accept(self, *args, **options)
        raise InternalError("internal error")

    monkeypatch.setattr(GoRuntimeIntegration, "create_run", accept_and_fail)
    with pytest.raises(InternalError):
        create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES)
    run = AgentRun.objects.get()
    wait_for(run, "succeeded")
    Projector().run_once(idle_seconds=0.3)
    run.refresh_from_db()
    assert run.status == "succeeded"


def test_agent_of_the_runtimes_own_is_known(runtime: FakeGoRuntime, actor: Principal) -> None:
    runtime.add_agent("go-agent", lambda _run: {})
    run = create_run(actor=actor, agent_key="go-agent", messages=MESSAGES).run
    assert run_in_runtime(run).target == "agent"


@pytest.mark.usefixtures("no_runtime")
def test_run_waits_while_the_runtime_is_away(actor: Principal) -> None:
    run = create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES).run
    run.refresh_from_db()
    assert (run.status, run.submitted_at, read_run(run).stale) == ("queued", None, True)
    assert reconcile_runs() == 0
    # One of the runtime's own, for all that is known.
    assert create_run(actor=actor, agent_key="codegen_agent", messages=MESSAGES).run.status == "queued"


def test_runtime_that_is_away_is_waited_for_once_in_a_while(
    actor: Principal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Transport.attempt
    asked: list[str] = []

    def note_and_attempt(self: Transport, rpc: Any, *arguments: Any) -> Any:
        asked.append(rpc.method)
        return attempt(self, rpc, *arguments)

    monkeypatch.setattr(Transport, "attempt", note_and_attempt)
    monkeypatch.setattr(live, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(live, "REST_SECONDS", 3600.0)
    process = GoRuntimeProcess(tmp_path)
    with override_settings(GO_RUNTIME=process.settings):
        run = create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES).run
        assert set(asked) == {"CreateRun"}
        asked.clear()
        # The second one's agent could only be of the runtime's own.
        others = [
            create_run(actor=actor, agent_key=key, messages=MESSAGES).run for key in ("chat-agent", "codegen_agent")
        ]
        assert read_run(run).stale
        cancel_run(actor=actor, run=others[1])
        assert asked == []
        monkeypatch.setattr(live, "REST_SECONDS", 0.0)
        with process:
            assert wait_until(reconcile_runs) == 2
            assert not read_run(AgentRun.objects.get(pk=run.pk)).stale


@pytest.mark.usefixtures("no_runtime")
def test_others_do_not_wait_beside_the_one_that_asks_again(actor: Principal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "REST_SECONDS", 0.0)
    run = create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES).run
    attempt = Transport.attempt
    asked: list[str] = []

    def attempt_beside_another(self: Transport, rpc: Any, *arguments: Any) -> Any:
        asked.append(rpc.method)
        create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES)
        return attempt(self, rpc, *arguments)

    monkeypatch.setattr(Transport, "attempt", attempt_beside_another)
    assert read_run(run).stale
    assert set(asked) == {"GetRun"}


@pytest.mark.usefixtures("no_runtime")
def test_run_that_the_runtime_cannot_take_holds_up_no_other(actor: Principal, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, *others = [create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES).run for _ in range(3)]
    accept = GoRuntimeIntegration.create_run

    def refuse_one(self: GoRuntimeIntegration, *args: Any, **options: Any) -> Any:
        if options["run_id"] == str(stuck.pk):
            raise InternalError("internal error")
        return accept(self, *args, **options)

    monkeypatch.setattr(GoRuntimeIntegration, "create_run", refuse_one)
    with FakeGoRuntime() as fake, override_settings(GO_RUNTIME=fake.settings):
        assert reconcile_runs() == 2
        assert {run.run_id for run in fake.accepted_runs()} == {str(run.pk) for run in others}
    stuck.refresh_from_db()
    assert (stuck.status, stuck.submitted_at) == ("queued", None)


@pytest.mark.usefixtures("no_runtime")
def test_runs_that_waited_are_sent_in_order(actor: Principal) -> None:
    conversation = create_conversation(actor=actor)
    runs = [
        create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES, conversation=conversation).run
        for _ in range(3)
    ]
    bare = AgentRun.objects.create(conversation=conversation, agent_key="chat-agent", input={"messages": MESSAGES})
    with FakeGoRuntime() as fake, override_settings(GO_RUNTIME=fake.settings):
        assert reconcile_runs() == 4
        assert [run.run_id for run in fake.accepted_runs()] == [str(run.pk) for run in [*runs, bare]]
        assert reconcile_runs() == 0


def test_new_run_does_not_overtake_one_of_its_conversation_that_waits(runtime: FakeGoRuntime, actor: Principal) -> None:
    conversation = create_conversation(actor=actor)
    waiting = AgentRun.objects.create(conversation=conversation, agent_key="chat-agent", input={"messages": MESSAGES})
    run = create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES, conversation=conversation).run
    assert [accepted.run_id for accepted in runtime.accepted_runs()] == [str(waiting.pk), str(run.pk)]


def test_sending_twice_makes_one_run(runtime: FakeGoRuntime, actor: Principal) -> None:
    run = create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES).run
    # As when a process dies between the runtime's answer and the note of it.
    AgentRun.objects.update(submitted_at=None)
    assert reconcile_runs() == 1
    assert [accepted.run_id for accepted in runtime.accepted_runs()] == [str(run.pk)]


def test_row_that_cannot_be_sent_holds_up_no_other(runtime: FakeGoRuntime, actor: Principal) -> None:
    bad = AgentRun.objects.create(agent_key="nobody", input={"messages": MESSAGES})
    worse = AgentRun.objects.create(agent_key="chat-agent", input=["no", "object"], options=[], metadata="text")
    mistimed, too_late = (
        AgentRun.objects.create(agent_key="chat-agent", input={"messages": MESSAGES}, options={"run_at": run_at})
        for run_at in ("soon", "9999-12-31T23:59:59-12:00")
    )
    strange = AgentRun.objects.create(
        agent_key="chat-agent",
        input={"messages": MESSAGES},
        options={"multitask_strategy": ["queue"]},
        conversation=AgentConversation.objects.create(),
    )
    good = AgentRun.objects.create(agent_key="chat-agent", input={"messages": MESSAGES})
    reconcile_runs()
    assert [accepted.run_id for accepted in runtime.accepted_runs()] == [str(good.pk)]
    for row in (bad, worse, mistimed, too_late, strange):
        row.refresh_from_db()
        assert row.status == "failed"


def test_idempotency_key_gives_the_first_run_back(runtime: FakeGoRuntime, actor: Principal, bob: User) -> None:
    asked: dict[str, Any] = {"agent_key": "chat-agent", "messages": MESSAGES, "idempotency_key": "k"}
    first = create_run(actor=actor, **asked)
    again = create_run(actor=actor, **asked)
    assert (first.run, first.created, again.run, again.created) == (first.run, True, first.run, False)
    with pytest.raises(IdempotencyConflict):
        create_run(actor=actor, **asked | {"messages": []})
    others = create_run(actor=Principal.of_user(bob), **asked)
    assert others.created
    assert len(runtime.accepted_runs()) == 2


@pytest.mark.parametrize(("acknowledged", "projected"), [(True, True), (True, False), (False, True)])
def test_run_that_the_runtime_has_forgotten_is_not_done_again(
    runtime: FakeGoRuntime, actor: Principal, acknowledged: bool, projected: bool
) -> None:
    """Retention has removed it: what the rows say holds, by row id and by idempotency key."""
    asked: dict[str, Any] = {"agent_key": "chat-agent", "messages": MESSAGES, "idempotency_key": "k"}
    run = create_run(actor=actor, **asked).run
    wait_for(run, "succeeded")
    if not acknowledged:
        # As when Django was killed between the runtime's answer and the note of it.
        AgentRun.objects.update(submitted_at=None)
    if projected:
        Projector().run_once(idle_seconds=0.3)
    run.refresh_from_db()
    with FakeGoRuntime() as empty, override_settings(GO_RUNTIME=empty.settings):
        empty.add_agent("chat-agent", answer)
        again = create_run(actor=actor, **asked)
        assert (again.run, again.created) == (run, False)
        assert submit_run(run=run)
        reconcile_runs()
        assert empty.accepted_runs() == []
    before = (run.status, run.output)
    run.refresh_from_db()
    assert (run.status, run.output) == before


@pytest.mark.usefixtures("runtime")
def test_run_that_is_gone_ends_with_an_event_and_keeps_its_key(actor: Principal) -> None:
    """The runtime had it, and nobody learned how it ended: its readers wait for an end all the same."""
    run = create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES, idempotency_key="k").run
    with FakeGoRuntime() as empty, override_settings(GO_RUNTIME=empty.settings):
        assert refresh_open_runs() is None
    run.refresh_from_db()
    assert run.error
    assert (run.status, run.error["reason"], run.error["retryable"]) == ("failed", "RUN_NOT_FOUND", True)
    event = AgentEvent.objects.get(run=run)
    assert (event.event_type, event.payload["reason"]) == ("run.failed", "RUN_NOT_FOUND")
    assert run.idempotency_key == "k"


@pytest.mark.usefixtures("runtime")
def test_refused_request_may_be_sent_again_under_its_key(actor: Principal) -> None:
    for _ in range(2):
        with pytest.raises(AgentNotFound):
            create_run(actor=actor, agent_key="nobody", messages=MESSAGES, idempotency_key="k")


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("is_accepted", [False, True])
def test_repeat_while_the_first_is_handed_over_is_told_what_the_runtime_says(
    actor: Principal, monkeypatch: pytest.MonkeyPatch, *, is_accepted: bool
) -> None:
    asked: dict[str, Any] = {"actor": actor, "agent_key": "chat-agent", "messages": MESSAGES, "idempotency_key": "k"}
    accept = GoRuntimeIntegration.create_run
    repeats: list[Any] = []

    def refuse_the_first(self: GoRuntimeIntegration, *args: Any, **options: Any) -> Any:
        if not repeats:
            repeats.append(None)
            try:
                repeats.append(create_run(**asked))
            except ConcurrencyLimit as refusal:
                repeats.append(refusal)
        elif is_accepted:
            return accept(self, *args, **options)
        raise ConcurrencyLimit("others have the key")

    monkeypatch.setattr(GoRuntimeIntegration, "create_run", refuse_the_first)
    with pytest.raises(ConcurrencyLimit):
        create_run(**asked)
    _, repeat = repeats
    if not is_accepted:
        assert isinstance(repeat, ConcurrencyLimit)
        assert not AgentRun.objects.exists()
        return
    [row] = AgentRun.objects.all()
    assert (repeat.run, repeat.created, row.status, row.idempotency_key) == (row, False, "queued", "k")
    assert row.submitted_at is not None
    wait_for(row, "succeeded")


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "user", "content": "\0"}]},
        {"params": {"a": "\ud800"}},
        {"params": {"a": float("inf")}},
        {"metadata": {"\0": 1}},
        {"idempotency_key": "k" * 256},
        {"agent_key": ""},
        {"agent_key": "k" * 256},
    ],
)
def test_request_that_cannot_be_kept_is_refused(actor: Principal, change: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"actor": actor, "agent_key": "chat-agent", "messages": MESSAGES}
    with pytest.raises(InvalidRequest) as refusal:
        create_run(**asked | change)
    assert {field for field, _ in refusal.value.violations} == set(change)
    assert not AgentRun.objects.exists()


@pytest.mark.usefixtures("runtime")
def test_nobody_acts_for_another(actor: Principal, bob: User) -> None:
    conversation = create_conversation(actor=actor)
    run = create_run(actor=actor, agent_key="asking-agent", messages=MESSAGES, conversation=conversation).run
    for stranger in (Principal.of_user(bob), Principal()):
        with pytest.raises(PermissionDenied):
            create_run(actor=stranger, agent_key="chat-agent", messages=MESSAGES, conversation=conversation)
        with pytest.raises(PermissionDenied):
            update_conversation(actor=stranger, conversation=conversation, title="mine")
        for act in (cancel_run, resume_run, retry_run):
            with pytest.raises(PermissionDenied):
                act(actor=stranger, run=run)
        with pytest.raises(RunNotFound):
            get_visible_run(stranger, run.pk)
    with pytest.raises(PermissionDenied):
        create_conversation(actor=Principal())


@pytest.mark.usefixtures("runtime")
def test_waiting_run_is_answered(actor: Principal) -> None:
    run = create_run(actor=actor, agent_key="asking-agent", messages=MESSAGES).run
    wait_for(run, "waiting")
    assert read_run(run).interrupt == {"interrupt_id": "question-1", "payload": {"question": "Go on?"}}
    resume_run(actor=actor, run=run, value={"yes": True}, interrupt_id="question-1")
    wait_for(run, "succeeded")
    assert read_run(run).output["final_output"] == {"answer": {"yes": True}}
    with pytest.raises((RunNotWaiting, RunEnded)):
        resume_run(actor=actor, run=run, interrupt_id="question-2")


@pytest.mark.usefixtures("runtime")
def test_cancelled_run_stays_cancelled(actor: Principal) -> None:
    run = create_run(actor=actor, agent_key="asking-agent", messages=MESSAGES).run
    wait_for(run, "waiting")
    assert cancel_run(actor=actor, run=run, reason="enough").status == "cancelled"
    assert run_in_runtime(run).state is RunState.CANCELLED
    assert cancel_run(actor=actor, run=run).status == "cancelled"


@pytest.mark.usefixtures("runtime")
def test_ended_run_is_not_cancelled(actor: Principal) -> None:
    run = create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES).run
    wait_for(run, "succeeded")
    with pytest.raises(RunEnded):
        cancel_run(actor=actor, run=run)


def test_run_that_was_never_sent_is_cancelled_without_being_sent(runtime: FakeGoRuntime, actor: Principal) -> None:
    run = AgentRun.objects.create(user=actor.user, agent_key="chat-agent")
    assert cancel_run(actor=actor, run=run).status == "cancelled"
    run.refresh_from_db()
    assert run.status == "cancelled"
    assert [event.event_type for event in run.events.all()] == ["run.cancelled"]
    assert reconcile_runs() == 0
    assert runtime.accepted_runs() == []


def test_cancel_request_is_passed_on_when_the_runtime_is_back(
    runtime: FakeGoRuntime, actor: Principal, monkeypatch: pytest.MonkeyPatch, no_runtime_settings: Any
) -> None:
    run = create_run(actor=actor, agent_key="asking-agent", messages=MESSAGES).run
    wait_for(run, "waiting")
    with override_settings(GO_RUNTIME=no_runtime_settings):
        monkeypatch.setattr(live, "PATIENCE_SECONDS", 0.2)
        assert cancel_run(actor=actor, run=run).cancel_requested_at is not None
    reconcile_runs()
    assert run_in_runtime(run).state is RunState.CANCELLED


@pytest.fixture
def passed_on(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs whose cancel the runtime was asked for, as often as it was."""
    asked: list[str] = []
    cancel = GoRuntimeIntegration.cancel_run

    def note_and_cancel(self: GoRuntimeIntegration, run_id: str, reason: str = "") -> Any:
        asked.append(run_id)
        return cancel(self, run_id, reason)

    monkeypatch.setattr(GoRuntimeIntegration, "cancel_run", note_and_cancel)
    return asked


def test_cancel_is_passed_on_until_it_is_acknowledged(
    runtime: FakeGoRuntime,
    actor: Principal,
    passed_on: list[str],
    monkeypatch: pytest.MonkeyPatch,
    no_runtime_settings: Any,
) -> None:
    run = create_run(actor=actor, agent_key="asking-agent", messages=MESSAGES).run
    with override_settings(GO_RUNTIME=no_runtime_settings), monkeypatch.context() as patched:
        patched.setattr(live, "PATIENCE_SECONDS", 0.2)
        cancel_run(actor=actor, run=run)
        reconcile_runs()
    assert passed_on == [str(run.pk)] * 2
    for _ in range(3):
        # It is not projected, so that the row does not know.
        reconcile_runs()
    assert passed_on == [str(run.pk)] * 3
    assert run_in_runtime(run).state is RunState.CANCELLED


def test_acknowledged_cancel_is_passed_on_once(runtime: FakeGoRuntime, actor: Principal, passed_on: list[str]) -> None:
    run = create_run(actor=actor, agent_key="asking-agent", messages=MESSAGES).run
    assert cancel_run(actor=actor, run=run).status == "cancelled"
    reconcile_runs()
    assert passed_on == [str(run.pk)]


@pytest.mark.parametrize("acknowledged", [True, False])
def test_cancel_outlives_the_journal_of_the_runtime(
    runtime: FakeGoRuntime, actor: Principal, acknowledged: bool
) -> None:
    asked_at = timezone.now() - timedelta(seconds=2 * REPEAT_CANCEL_SECONDS)
    # Of the journal that was lost.
    run = AgentRun.objects.create(
        agent_key="asking-agent",
        status="running",
        last_sequence=7,
        submitted_at=asked_at,
        cancel_requested_at=asked_at,
        cancel_acknowledged_at=asked_at if acknowledged else None,
        **actor.owner_fields(),
    )
    AgentEvent.objects.create(run=run, seq=9, event_type="tool.call")
    reconcile_runs()
    run.refresh_from_db()
    assert run.status == "cancelled"
    assert [event.event_type for event in run.events.all()] == ["tool.call", "run.cancelled"]


def test_run_that_is_cancelled_on_its_way_is_cancelled(
    runtime: FakeGoRuntime, actor: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = submission._describe_run

    def describe_while_cancelled(run: AgentRun) -> dict[str, Any]:
        # The cancel comes when the row was read, and the runtime does not have it yet.
        AgentRun.objects.filter(pk=run.pk).update(cancel_requested_at=timezone.now())
        return describe(run)

    monkeypatch.setattr(submission, "_describe_run", describe_while_cancelled)
    run = create_run(actor=actor, agent_key="asking-agent", messages=MESSAGES).run
    assert run_in_runtime(run).state is RunState.CANCELLED


def test_run_that_ended_before_its_cancel_came_is_not_given_up(
    runtime: FakeGoRuntime, actor: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = submission._describe_run

    def describe_while_cancelled(run: AgentRun) -> dict[str, Any]:
        AgentRun.objects.filter(pk=run.pk).update(cancel_requested_at=timezone.now())
        return describe(run)

    def refuse(run_id: str, reason: str = "") -> None:
        raise RunEnded("it was faster")

    monkeypatch.setattr(submission, "_describe_run", describe_while_cancelled)
    monkeypatch.setattr(live.get_hurried_runtime(), "cancel_run", refuse)
    run = create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES).run
    run.refresh_from_db()
    assert (run.status, run.events.count()) == ("queued", 0)
    assert run.submitted_at is not None


@pytest.mark.usefixtures("runtime")
def test_failed_run_is_done_again_as_another(actor: Principal) -> None:
    conversation = create_conversation(actor=actor)
    run = create_run(
        actor=actor, agent_key="failing-agent", messages=MESSAGES, conversation=conversation, max_attempts=1
    ).run
    wait_for(run, "failed")
    again = retry_run(actor=actor, run=run).run
    assert (again.retry_of, again.conversation, again.user, again.input) == (run, conversation, run.user, run.input)
    assert run_in_runtime(again).retry_of == str(run.pk)


@pytest.mark.usefixtures("runtime")
def test_retry_is_answered_with_the_first_one_under_its_key(actor: Principal, no_runtime_settings: Any) -> None:
    runs = [create_run(actor=actor, agent_key="failing-agent", messages=MESSAGES).run for _ in range(2)]
    for run in runs:
        wait_for(run, "failed")
    asked: dict[str, Any] = {"actor": actor, "run": runs[0]}
    first = retry_run(**asked, idempotency_key="k")
    assert (first.created, first.run.idempotency_key) == (True, "k")
    # That it has ended, the row does not know yet.
    runs[0].refresh_from_db()
    with override_settings(GO_RUNTIME=no_runtime_settings):
        again = retry_run(**asked, idempotency_key="k")
    assert (again.run, again.created) == (first.run, False)
    with pytest.raises(IdempotencyConflict):
        retry_run(actor=actor, run=runs[1], idempotency_key="k")
    assert retry_run(**asked, idempotency_key="l").created
    assert retry_run(**asked).created
    with pytest.raises(IdempotencyConflict):
        create_run(actor=actor, agent_key="failing-agent", messages=MESSAGES, idempotency_key="k")
    for key in ("k" * 256, "\0"):
        with pytest.raises(InvalidRequest):
            retry_run(**asked, idempotency_key=key)


@pytest.mark.usefixtures("runtime")
def test_retry_by_another_is_under_a_key_of_the_owner(
    actor: Principal, bob: User, django_user_model: type[User]
) -> None:
    run = create_run(actor=actor, agent_key="failing-agent", messages=MESSAGES).run
    wait_for(run, "failed")
    bob.user_permissions.set(Permission.objects.filter(codename="change_agentrun"))
    helper = Principal.of_user(django_user_model.objects.get(pk=bob.pk))
    first, again = (retry_run(actor=helper, run=run, idempotency_key="k") for _ in range(2))
    assert (first.run.user, again.run, again.created) == (actor.user, first.run, False)


@pytest.mark.usefixtures("runtime")
def test_run_that_was_refused_is_done_again(actor: Principal, runtime: FakeGoRuntime) -> None:
    AgentRun.objects.create(agent_key="later", input={"messages": MESSAGES, "params": {}}, **actor.owner_fields())
    reconcile_runs()
    runtime.add_agent("later", lambda _run: {})
    again = retry_run(actor=actor, run=AgentRun.objects.get()).run
    assert run_in_runtime(again).input == {"messages": MESSAGES, "params": {}}


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize(("asked", "attempts"), [(None, 4), (2, 2)])
def test_run_that_the_runtime_no_longer_has_is_done_again_with_the_attempts_asked_for_or_set_now(
    asked: int | None, attempts: int, actor: Principal, settings: Any
) -> None:
    run = create_run(actor=actor, agent_key="failing-agent", messages=MESSAGES, max_attempts=asked).run
    wait_for(run, "failed")
    settings.DJANGO_AGENT_RUNTIME = {"MAX_RETRIES": 4}
    before = AgentRun.objects.create(
        agent_key=run.agent_key,
        input=run.input,
        options=run.options,
        status=RunState.FAILED,
        submitted_at=run.submitted_at,
        max_attempts=run_in_runtime(run).max_attempts,
        **actor.owner_fields(),
    )
    assert run_in_runtime(retry_run(actor=actor, run=before).run).max_attempts == attempts


@pytest.mark.usefixtures("runtime")
def test_only_what_ended_badly_is_done_again(actor: Principal) -> None:
    for key, state in (("chat-agent", "succeeded"), ("asking-agent", "waiting")):
        run = create_run(actor=actor, agent_key=key, messages=MESSAGES).run
        wait_for(run, state)
        with pytest.raises(RunNotEnded):
            retry_run(actor=actor, run=run)


@pytest.mark.usefixtures("runtime")
def test_delayed_run_is_told_its_time(actor: Principal) -> None:
    run = create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES, delay=60).run
    not_before = run_in_runtime(run).not_before
    assert timedelta(0) < not_before - run.created_at <= timedelta(seconds=61)


RUN_AT = datetime.fromisoformat("2100-01-01T08:00:00+02:00")


@pytest.mark.usefixtures("no_runtime")
@pytest.mark.parametrize("concurrency", [{"key": "order:7"}, Concurrency("order:7"), None])
def test_time_and_key_of_a_run_wait_for_the_runtime(actor: Principal, concurrency: Any) -> None:
    conversation = create_conversation(actor=actor)
    asked: dict[str, Any] = {"actor": actor, "agent_key": "chat-agent", "messages": MESSAGES}
    run = create_run(**asked, conversation=conversation, run_at=RUN_AT, concurrency=concurrency).run
    with FakeGoRuntime() as fake, override_settings(GO_RUNTIME=fake.settings):
        assert reconcile_runs() == 1
        accepted = run_in_runtime(run)
    assert accepted.not_before == RUN_AT
    assert accepted.concurrency_key == ("order:7" if concurrency else f"conversation:{conversation.pk}")


@pytest.mark.usefixtures("go_runtime")
def test_run_is_refused_while_others_have_its_key(actor: Principal) -> None:
    conversation = create_conversation(actor=actor)
    asked: dict[str, Any] = {"actor": actor, "agent_key": "chat-agent", "messages": MESSAGES}
    asked["concurrency"] = {"key": f"order:{conversation.pk}", "limit": 2, "strategy": "reject"}
    runs = [create_run(**asked, conversation=conversation).run, create_run(**asked).run]
    with pytest.raises(ConcurrencyLimit):
        create_run(**asked)
    assert set(AgentRun.objects.all()) == set(runs)
    for run in runs:
        cancel_run(actor=actor, run=run)
    assert create_run(**asked).created


@pytest.mark.usefixtures("runtime")
def test_run_is_done_again_under_its_key_and_at_once(actor: Principal) -> None:
    options = {"run_at": RUN_AT.isoformat(), "concurrency": {"key": "order:7", "limit": 1, "strategy": "queue"}}
    run = AgentRun.objects.create(
        agent_key="chat-agent",
        input={"messages": MESSAGES},
        options=options,
        status=RunState.FAILED,
        **actor.owner_fields(),
    )
    again = run_in_runtime(retry_run(actor=actor, run=run).run)
    assert (again.concurrency_key, again.not_before) == ("order:7", None)


@pytest.mark.usefixtures("runtime")
def test_idempotency_key_is_of_one_time_and_one_concurrency_key(actor: Principal) -> None:
    asked: dict[str, Any] = {"actor": actor, "agent_key": "chat-agent", "messages": MESSAGES, "idempotency_key": "k"}
    asked |= {"run_at": RUN_AT, "concurrency": {"key": "order:7"}}
    first = create_run(**asked)
    assert create_run(**asked | {"concurrency": Concurrency("order:7")}) == (first.run, False)
    for change in ({"run_at": None}, {"run_at": RUN_AT + timedelta(1)}, {"concurrency": {"key": "order:8"}}):
        with pytest.raises(IdempotencyConflict):
            create_run(**asked | change)


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize(
    "change",
    [
        {"run_at": RUN_AT, "delay": 1},
        {"run_at": RUN_AT.replace(tzinfo=None)},
        {"run_at": RUN_AT.isoformat()},
        {"run_at": datetime.fromisoformat("9999-12-31T23:59:59-01:00")},
        {"concurrency": {"key": "order:7"}, "multitask_strategy": "enqueue"},
        {"concurrency": {"key": "order:7", "strategy": "enqueue"}},
        {"concurrency": {"key": "\0"}},
        {"concurrency": {"limit": 1}},
        {"concurrency": "order:7"},
    ],
)
def test_time_and_key_that_fit_no_run_are_refused(actor: Principal, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES, **change)
    [(field, _)] = refusal.value.violations
    assert field.partition(".")[0] == next(iter(change))
    assert not AgentRun.objects.exists()


def test_reading_a_run_does_not_write_its_row(runtime: FakeGoRuntime, actor: Principal) -> None:
    run = create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES).run
    wait_for(run, "succeeded")
    assert read_run(run).status == "succeeded"
    assert not run.stale
    assert AgentRun.objects.get().status == "queued"


def test_conversation_is_changed_by_its_owner(actor: Principal) -> None:
    conversation = create_conversation(actor=actor, title="a")
    update_conversation(actor=actor, conversation=conversation, metadata={"b": 1})
    conversation = AgentConversation.objects.get()
    assert (conversation.title, conversation.metadata) == ("a", {"b": 1})


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def asked_in(conversation: AgentConversation) -> list[str]:
    """What users said in a conversation, as its history has it."""
    history = conversation.get_message_history(include_failed_runs=True)
    return [message["content"] for message in history if message["role"] == "user"]


@pytest.mark.usefixtures("runtime")
def test_rollback_takes_back_what_has_not_ended(actor: Principal) -> None:
    # Its agent has no worker.
    register_runtime(SiteAgent(), "idle-agent")
    conversation, other = (create_conversation(actor=actor) for _ in range(2))

    def begin(agent_key: str, text: str, state: str, **options: Any) -> AgentRun:
        options = {"conversation": conversation} | options
        run = create_run(actor=actor, agent_key=agent_key, messages=say(text), **options).run
        wait_for(run, state)
        return run

    kept = [begin("chat-agent", "ended", "succeeded"), begin("asking-agent", "stopped", "waiting")]
    cancel_run(actor=actor, run=kept[1])
    Projector().run_once(idle_seconds=0.3)
    # Of this one the row does not know yet that it has ended.
    kept.append(begin("chat-agent", "ended now", "succeeded"))
    taken = [begin("asking-agent", "waiting", "waiting"), begin("idle-agent", "queued", "queued")]
    apart = begin("asking-agent", "elsewhere", "waiting", conversation=other)
    begin("chat-agent", "new", "succeeded", multitask_strategy="rollback")
    reconcile_runs()
    assert [run_in_runtime(run).state for run in [*taken, apart]] == ["cancelled", "cancelled", "waiting"]
    for _ in range(2):
        Projector().run_once(idle_seconds=0.3)
        assert asked_in(conversation) == ["ended", "stopped", "ended now", "new"]
        # Projecting all of it again does not bring them back.
        ProjectorCursor.objects.update(sequence=0)


@pytest.mark.usefixtures("runtime")
def test_rollback_outlives_the_run_that_made_it(actor: Principal) -> None:
    conversation = create_conversation(actor=actor)
    asked: dict[str, Any] = {"actor": actor, "agent_key": "asking-agent", "conversation": conversation}
    taken = create_run(messages=say("old"), **asked).run
    new = create_run(messages=say("new"), multitask_strategy="rollback", **asked).run
    # It is taken back itself.
    last = create_run(messages=say("last"), multitask_strategy="rollback", **asked).run
    reconcile_runs()
    delete_run(actor=actor, run=last)
    Projector().run_once(idle_seconds=0.3)
    assert {AgentRun.objects.get(pk=run.pk).status for run in (taken, new)} == {"cancelled"}
    assert asked_in(conversation) == []


@pytest.mark.usefixtures("runtime")
def test_rollback_that_is_refused_takes_nothing_back(actor: Principal) -> None:
    conversation = create_conversation(actor=actor)
    asked: dict[str, Any] = {"actor": actor, "agent_key": "asking-agent", "conversation": conversation}
    run = create_run(messages=say("old"), **asked).run
    wait_for(run, "waiting")
    with pytest.raises(InvalidRequest):
        create_run(messages=say("new"), multitask_strategy="rollback", run_timeout=-1, **asked)
    reconcile_runs()
    run.refresh_from_db()
    assert (run_in_runtime(run).state, run.rolled_back_by) == ("waiting", None)


@pytest.mark.usefixtures("no_runtime")
def test_rollback_waits_for_the_runtime(actor: Principal) -> None:
    conversation = create_conversation(actor=actor)
    asked: dict[str, Any] = {"actor": actor, "agent_key": "asking-agent", "conversation": conversation}
    taken = create_run(messages=say("old"), **asked).run
    # As a bare row has it.
    new = AgentRun.objects.create(
        conversation=conversation,
        agent_key="chat-agent",
        input={"messages": say("new"), "params": {}},
        options={"multitask_strategy": "rollback"},
    )
    with FakeGoRuntime() as fake, override_settings(GO_RUNTIME=fake.settings):
        fake.add_agent("asking-agent", ask)
        fake.add_agent("chat-agent", answer)
        reconcile_runs()
        reconcile_runs()
        wait_for(new, "succeeded")
        Projector().run_once(idle_seconds=0.3)
    taken.refresh_from_db()
    assert taken.status == "cancelled"
    assert asked_in(conversation) == ["new"]
