"""The tables follow the runtime: once, in order, over every death."""

from __future__ import annotations

import threading
import uuid
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from django.core.management import CommandError, call_command
from django.db import DataError, OperationalError, connections
from django.utils.timezone import now

from django_agent_runtime import projector as module
from django_agent_runtime.exceptions import (
    AgentNotFound,
    CallTimedOut,
    EventsTruncated,
    RunNotFound,
    RuntimeUnavailable,
)
from django_agent_runtime.go_integration import get_go_runtime_integration
from django_agent_runtime.models import (
    AbandonedRun,
    AgentConversation,
    AgentEvent,
    AgentRun,
    ProjectorCursor,
    RunStatus,
)
from django_agent_runtime.principals import Principal
from django_agent_runtime.projection import to_event_row
from django_agent_runtime.projector import LeaseLostError, Projector, projecting
from django_agent_runtime.selectors import visible_runs
from django_agent_runtime.services import create_run
from django_agent_runtime.services.ends import end_unknown
from django_agent_runtime.services.reconciliation import forget_progress
from django_agent_runtime.testing import FakeGoRuntime
from django_agent_runtime.tests.runs.support import MESSAGES, PATIENCE_SECONDS, wait_until
from django_agent_runtime.types import EventVisibility, Run, RunEvent, RunEventBatch, RunState, RunTarget

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.django_db(transaction=True)

IDLE_SECONDS = 0.3
AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def project() -> int:
    return Projector().run_once(idle_seconds=IDLE_SECONDS)


def project_once(projector: Projector) -> None:
    """In a thread of the test's own."""
    try:
        projector.run_once()
    finally:
        connections.close_all()


def create(actor: Principal, agent_key: str = "chat-agent", **options: Any) -> AgentRun:
    return create_run(actor=actor, agent_key=agent_key, messages=MESSAGES, **options).run


def wait_for(run: AgentRun, state: str) -> None:
    runtime = get_go_runtime_integration()
    wait_until(lambda: runtime.get_run(str(run.pk)).state == state)


def wait_for_renewals(count: int) -> None:
    for _ in range(count):
        before = ProjectorCursor.objects.get().lease_expires_at
        wait_until(ProjectorCursor.objects.filter(lease_expires_at__gt=before).exists)


def make_run(run_id: str, sequence: int, state: RunState = RunState.RUNNING) -> Run:
    return Run(
        run_id=run_id,
        target=RunTarget.WORKER,
        task_type="agent.run",
        agent_id="chat-agent",
        description="",
        state=state,
        attempt=1,
        max_attempts=3,
        input=None,
        output=None,
        error=None,
        metadata={},
        create_time=AT,
        start_time=AT,
        end_time=AT if state.ended else None,
        deadline=None,
        sequence=sequence,
    )


def make_batch(events: Sequence[RunEvent], position: int) -> RunEventBatch:
    """Events as the client hands them out."""
    return RunEventBatch(events, position, [event.run_id for event in events])


def make_event(run_id: str, sequence: int, payload: Any = None, run: Run | None = None, **changes: Any) -> RunEvent:
    values: dict[str, Any] = {"type": "custom", "visibility": EventVisibility.USER, "time": AT, "attempt": 1}
    return RunEvent(run_id=run_id, sequence=sequence, payload=payload or {}, run=run, **values | changes)


@pytest.fixture
def projector(runtime: FakeGoRuntime, transactional_db: None) -> Projector:
    """One that has the lease."""
    made = Projector()
    assert made.take_lease()
    return made


@pytest.mark.usefixtures("runtime")
def test_run_and_its_events_are_written(actor: Principal) -> None:
    run = create(actor)
    wait_for(run, "succeeded")
    project()
    run.refresh_from_db()
    assert (run.status, run.attempt) == ("succeeded", 1)
    assert run.output["final_output"] == {"response": "Hello to you!"}
    assert run.started_at is not None
    assert run.finished_at is not None
    events = list(run.events.values_list("event_type", "visibility"))
    assert events == [
        ("run.queued", "internal"),
        ("run.started", "internal"),
        ("tool.call", "debug"),
        ("state.checkpoint", "internal"),
        ("assistant.message", "user"),
        ("run.succeeded", "internal"),
    ]
    assert run.last_sequence == run.events.last().seq  # type: ignore[union-attr]


@pytest.mark.usefixtures("runtime")
def test_history_of_a_conversation_comes_from_projected_runs(actor: Principal) -> None:
    conversation = AgentConversation.objects.create(user=actor.user)
    run = create(actor, conversation=conversation)
    wait_for(run, "succeeded")
    project()
    assert conversation.get_message_history() == [*MESSAGES, {"role": "assistant", "content": "Hello to you!"}]


@pytest.mark.usefixtures("runtime")
def test_failure_and_question_are_in_the_row(actor: Principal) -> None:
    failed, asking = create(actor, "failing-agent", max_attempts=2), create(actor, "asking-agent")
    wait_for(failed, "failed")
    wait_for(asking, "waiting")
    project()
    failed.refresh_from_db()
    asking.refresh_from_db()
    assert (failed.error or {})["message"] == "it broke"
    assert (failed.error or {})["reason"] == "AGENT_FAILED"
    assert failed.attempt == 2
    assert asking.interrupt == {"interrupt_id": "question-1", "payload": {"question": "Go on?"}}


@pytest.mark.usefixtures("runtime")
def test_projecting_again_changes_nothing(actor: Principal) -> None:
    run = create(actor)
    wait_for(run, "succeeded")
    project()
    before = AgentRun.objects.values().get(), list(AgentEvent.objects.values())
    ProjectorCursor.objects.update(sequence=0)
    project()
    assert (AgentRun.objects.values().get(), list(AgentEvent.objects.values())) == before


@pytest.mark.usefixtures("runtime")
def test_runs_that_django_did_not_ask_for_are_left_out(actor: Principal) -> None:
    runtime = get_go_runtime_integration()
    foreign = runtime.create_run("chat-agent", {}, target=RunTarget.WORKER)
    run = create(actor)
    wait_until(lambda: runtime.get_run(foreign.run_id).state.ended)
    wait_for(run, "succeeded")
    project()
    assert set(AgentEvent.objects.values_list("run", flat=True)) == {run.pk}


@pytest.mark.usefixtures("runtime")
def test_bare_row_is_sent_and_projected() -> None:
    run = AgentRun.objects.create(agent_key="asking-agent", input={"messages": MESSAGES})
    project()
    wait_for(run, "waiting")
    get_go_runtime_integration().resume_run(str(run.pk), "yes")
    wait_for(run, "succeeded")
    project()
    run.refresh_from_db()
    assert run.status == "succeeded"


@pytest.mark.usefixtures("runtime")
def test_visibility_is_what_the_event_was_stamped_with(actor: Principal, settings: Any) -> None:
    settings.DJANGO_AGENT_RUNTIME = {"EVENT_VISIBILITY": {"run.started": "user"}}
    run = create(actor)
    wait_for(run, "succeeded")
    settings.DJANGO_AGENT_RUNTIME = {}
    project()
    assert run.events.get(event_type="run.started").visibility == "user"


def make_first(parent_id: str = "", sequence: int = 5, **changes: Any) -> RunEvent:
    """The first event of a run that was created by another, or by a schedule."""
    run_id = str(uuid.uuid4())
    run = make_run(run_id, sequence, RunState.QUEUED)
    run = replace(run, attempt=0, start_time=None, parent_run_id=parent_id, **changes)
    return make_event(run_id, sequence, run=run, type="run.queued", attempt=0)


def test_sub_runs_get_rows_of_their_parents_owner(
    projector: Projector, actor: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = AgentRun.objects.create(**actor.owner_fields(), agent_key="a", status="running")
    child = make_first(str(parent.pk), 5, metadata={"why": "\0"}, priority=3)
    grandchild = make_first(child.run_id, 6)
    done = make_event(child.run_id, 7, {"output": {"a": 1}}, make_run(child.run_id, 7, RunState.SUCCEEDED))
    given, accepted = {child.run_id: {"messages": MESSAGES}}, child.run
    assert accepted is not None

    def get_run(run_id: str) -> Run:
        # What was given to the other is not kept any more.
        if run_id not in given:
            raise RunNotFound("There is no such run.")
        return replace(accepted, input=given[run_id])

    monkeypatch.setattr(projector._runtime, "get_run", get_run)
    projector.apply(make_batch((child, grandchild, done), 7))
    [row] = parent.sub_runs.all()
    assert (str(row.pk), row.user, row.agent_key, row.status) == (child.run_id, actor.user, "chat-agent", "succeeded")
    assert (row.input, row.output, row.priority) == ({"messages": MESSAGES}, {"a": 1}, 3)
    assert (row.created_at, row.conversation, row.schedule_id) == (AT, None, "")
    assert [event.event_type for event in row.events.all()] == ["run.queued", "custom"]
    [below] = row.sub_runs.all()
    assert (str(below.pk), below.user, below.status, below.input) == (grandchild.run_id, actor.user, "queued", {})


@pytest.mark.usefixtures("runtime")
def test_sub_run_of_nobody_and_later_events_make_no_row(projector: Projector) -> None:
    parent = AgentRun.objects.create(agent_key="a", status="running")
    first = make_first(str(parent.pk))
    projector.apply(make_batch((first, make_first(str(uuid.uuid4()), 6)), 6))
    [row] = parent.sub_runs.all()
    row.delete()
    retried = replace(make_run(first.run_id, 8, RunState.QUEUED), parent_run_id=str(parent.pk))
    began = replace(make_run(first.run_id, 7), create_time=AT - timedelta(seconds=1), parent_run_id=str(parent.pk))
    later = [make_event(first.run_id, 7, run=began, type="run.started")]
    later += [make_event(first.run_id, 8, run=retried, type="run.queued")]
    projector.apply(make_batch(later, 8))
    assert list(AgentRun.objects.all()) == [parent]


@pytest.mark.usefixtures("runtime")
def test_sub_runs_are_deleted_with_their_parent(projector: Projector, actor: Principal) -> None:
    parent = AgentRun.objects.create(**actor.owner_fields(), agent_key="a", status="running")
    projector.apply(make_batch((make_first(str(parent.pk)),), 5))
    AgentRun.objects.filter(pk=parent.pk).delete()
    assert not AgentRun.objects.exists()
    # The runtime cancels the others with it.
    assert [note.run_id for note in AbandonedRun.objects.all()] == [parent.pk]


def test_row_of_a_sub_run_waits_for_what_it_was_given(projector: Projector, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = AgentRun.objects.create(agent_key="a", status="running")
    monkeypatch.setattr(projector._runtime, "get_run", Mock(side_effect=RuntimeUnavailable("away")))
    with pytest.raises(RuntimeUnavailable):
        projector.apply(make_batch((make_first(str(parent.pk)),), 5))
    assert not parent.sub_runs.exists()
    assert ProjectorCursor.objects.get().sequence == 0


def test_runs_of_schedules_get_rows(actor: Principal, runtime: FakeGoRuntime) -> None:
    client = get_go_runtime_integration()
    client.create_schedule("nightly", "0 3 * * *", "chat-agent", {"messages": MESSAGES}, paused=True, target="worker")
    run = client.wait_run(client.trigger_schedule("nightly").run_id)
    client.wait_run(client.submit_task("example_task").run_id)
    project()
    [row] = AgentRun.objects.all()
    assert (str(row.pk), row.schedule_id, row.agent_key, row.status) == (
        run.run_id,
        "nightly",
        "chat-agent",
        "succeeded",
    )
    assert (row.input, row.user, row.anonymous_session_id) == ({"messages": MESSAGES}, None, None)
    assert row.output["final_output"] == {"response": "Hello to you!"}
    assert not visible_runs(actor).exists()


def test_run_of_a_schedule_that_began_at_once_gets_a_row_and_a_task_none(projector: Projector) -> None:
    begun, task = str(uuid.uuid4()), str(uuid.uuid4())
    run = replace(make_run(begun, 5), schedule_id="nightly")
    of_task = replace(make_run(task, 6), schedule_id="nightly", target=RunTarget.TASK)
    events = [make_event(begun, 5, run=run, type="run.started"), make_event(task, 6, run=of_task, type="run.started")]
    projector.apply(make_batch(events, 6))
    assert [str(row.pk) for row in AgentRun.objects.all()] == [begun]


def test_row_only_goes_forward(projector: Projector) -> None:
    run = AgentRun.objects.create(agent_key="a")
    run_id = str(run.pk)
    late = make_event(run_id, 9, run=make_run(run_id, 9, RunState.SUCCEEDED), payload={"output": {"a": 1}})
    early = make_event(run_id, 5, run=make_run(run_id, 5))
    projector.apply(make_batch((late,), 9))
    projector.apply(make_batch((early,), 9))
    run.refresh_from_db()
    assert (run.status, run.last_sequence, run.output) == ("succeeded", 9, {"a": 1})
    assert [event.seq for event in run.events.all()] == [5, 9]


def test_row_that_a_dying_django_did_not_note_is_noted(projector: Projector) -> None:
    """Killed between the runtime's answer and the row: the first event says that the runtime has it."""
    run = AgentRun.objects.create(agent_key="a")
    projector.apply(make_batch((make_event(str(run.pk), 5, run=make_run(str(run.pk), 5)),), 5))
    run.refresh_from_db()
    assert run.submitted_at is not None


def test_run_that_was_given_up_and_had_been_accepted_comes_back(projector: Projector) -> None:
    """The answer was lost, the agent is not the site's own, and so the request was refused."""
    run = AgentRun.objects.create(agent_key="a")
    end_unknown(run, RunStatus.FAILED, AgentNotFound("unknown"))
    assert [event.event_type for event in run.events.all()] == ["run.failed"]
    projector.apply(make_batch((make_event(str(run.pk), 5, run=make_run(str(run.pk), 5)),), 5))
    run.refresh_from_db()
    assert (run.status, run.error, [event.seq for event in run.events.all()]) == ("running", None, [5])


def test_death_in_the_midst_of_a_batch_leaves_nothing_of_it(
    projector: Projector, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = AgentRun.objects.create(agent_key="a")
    batch = make_batch((make_event(str(run.pk), 5, run=make_run(str(run.pk), 5)),), 5)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # The last of the three writes.
        patch.setattr("django_agent_runtime.models.AgentRunQuerySet.bulk_update", die)
        with pytest.raises(KeyboardInterrupt):
            projector.apply(batch)
    run.refresh_from_db()
    assert (AgentEvent.objects.count(), run.last_sequence, ProjectorCursor.objects.get().sequence) == (0, 0, 0)
    projector.apply(batch)
    assert (AgentEvent.objects.count(), ProjectorCursor.objects.get().sequence) == (1, 5)


@pytest.mark.parametrize(
    "payload",
    [
        {"text": "a\0b"},
        {"text": "\ud800"},
        {"\0": 1},
        {"number": float("inf")},
        {"deep": __import__("functools").reduce(lambda inner, _: [inner], range(5000), 0)},
    ],
)
def test_payload_that_no_database_takes_holds_nothing_up(projector: Projector, payload: Any) -> None:
    run = AgentRun.objects.create(agent_key="a")
    events = (make_event(str(run.pk), 5, payload), make_event(str(run.pk), 6, type="t" * 300))
    projector.apply(make_batch(events, 6))
    assert [event.seq for event in run.events.all()] == [5, 6]


def test_event_that_the_database_refuses_is_left_out_alone(
    projector: Projector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = AgentRun.objects.create(agent_key="a")
    events = tuple(make_event(str(run.pk), sequence) for sequence in (5, 6, 7))
    convert = to_event_row

    def refuse_six(event: RunEvent) -> AgentEvent:
        if event.sequence == 6:
            raise DataError("too odd")
        return convert(event)

    monkeypatch.setattr(module, "to_event_row", refuse_six)
    projector.apply(make_batch(events, 7))
    assert [event.seq for event in run.events.all()] == [5, 7]
    assert ProjectorCursor.objects.get().sequence == 7
    assert "event left out of the projection" in caplog.messages


def test_ids_that_are_none_of_ours_are_left_out(projector: Projector) -> None:
    projector.apply(make_batch((make_event("no uuid", 5), make_event(str(uuid.uuid4()), 6)), 6))
    assert AgentEvent.objects.count() == 0
    assert ProjectorCursor.objects.get().sequence == 6


def test_number_of_statements_does_not_grow_with_the_events(
    projector: Projector, django_assert_max_num_queries: Any
) -> None:
    runs = [AgentRun.objects.create(agent_key="a") for _ in range(20)]
    events = tuple(
        make_event(str(run.pk), 100 * place + n, run=make_run(str(run.pk), 100 * place + n))
        for place, run in enumerate(runs, start=1)
        for n in range(10)
    )
    # The cursor, the rows, the events, the rows again, and the transaction around them.
    with django_assert_max_num_queries(8):
        projector.apply(make_batch(events, 9999))
    assert AgentEvent.objects.count() == 200


def test_only_one_projects(projector: Projector) -> None:
    other = Projector()
    assert not other.take_lease()
    with pytest.raises(LeaseLostError):
        other.run_once()
    with pytest.raises(CommandError, match="Another process"):
        call_command("projectruns", once=True)
    ProjectorCursor.objects.update(lease_expires_at=now() - timedelta(seconds=1))
    assert other.take_lease()
    # The first one wakes, and must not write any more.
    run = AgentRun.objects.create(agent_key="a")
    with pytest.raises(LeaseLostError):
        projector.apply(make_batch((make_event(str(run.pk), 5),), 5))
    assert AgentEvent.objects.count() == 0


def test_clock_that_jumps_makes_no_second_projector_write(projector: Projector) -> None:
    # Ahead by an hour: the lease looks lapsed, another takes it, and the first one is fenced off.
    ProjectorCursor.objects.update(lease_expires_at=now() - timedelta(hours=1))
    projector.apply(make_batch((), 3))
    other = Projector()
    assert not other.take_lease()
    assert ProjectorCursor.objects.get().sequence == 3


def test_long_batch_does_not_end_its_lease(projector: Projector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for the row while the batch is written finds it taken when that is committed."""
    at = now()
    clock = Mock(now=lambda: at)
    write = Projector._write_events

    def take_long(self: Projector, *batch: Any) -> None:
        nonlocal at
        write(self, *batch)
        at += timedelta(seconds=10 * module.LEASE_SECONDS)

    monkeypatch.setattr(module, "timezone", clock)
    monkeypatch.setattr(Projector, "_write_events", take_long)
    run = AgentRun.objects.create(agent_key="chat-agent")
    projector.apply(make_batch((make_event(str(run.pk), 5, run=make_run(str(run.pk), 5)),), 5))
    assert AgentEvent.objects.count() == 1
    assert not Projector().take_lease()


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("once", [True, False])
def test_lease_is_kept_while_runs_are_handed_over(monkeypatch: pytest.MonkeyPatch, once: bool) -> None:
    handing_over, enough = threading.Event(), threading.Event()

    def take_long() -> int:
        handing_over.set()
        assert enough.wait(PATIENCE_SECONDS)
        return 0

    monkeypatch.setattr(module, "reconcile_runs", take_long)
    monkeypatch.setattr(module, "HOUSEKEEPING_SECONDS", 0.01)
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.2)
    projector = Projector()
    thread = threading.Thread(target=project_once, args=(projector,))
    (thread if once else projector).start()
    assert handing_over.wait(PATIENCE_SECONDS)
    wait_for_renewals(3)
    enough.set()
    projector.stop()
    if once:
        thread.join()


@pytest.mark.usefixtures("runtime")
def test_once_says_when_another_took_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def take_over() -> int:
        ProjectorCursor.objects.update(owner="another", lease_expires_at=now() + timedelta(hours=1))
        return 0

    monkeypatch.setattr(module, "reconcile_runs", take_over)
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.05)
    with pytest.raises(LeaseLostError, match="took over"):
        Projector().run_once(idle_seconds=PATIENCE_SECONDS)


@pytest.fixture
def running(runtime: FakeGoRuntime, transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Projector]:
    """One at work in a thread."""
    monkeypatch.setattr(module, "HOUSEKEEPING_SECONDS", 0.05)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.05)
    made = Projector()
    made.start()
    yield made
    made.stop()
    assert not made.is_running()


@pytest.mark.usefixtures("running")
def test_rows_follow_while_it_runs(actor: Principal) -> None:
    run = create(actor)
    bare = AgentRun.objects.create(agent_key="chat-agent", input={"messages": MESSAGES})
    for row in (run, bare):
        wait_until(AgentRun.objects.filter(pk=row.pk, status="succeeded").exists)


def test_run_that_retention_removed_meanwhile_does_not_stay_open(actor: Principal, runtime: FakeGoRuntime) -> None:
    run = AgentRun.objects.create(
        agent_key="chat-agent", submitted_at=now(), status=RunStatus.RUNNING, **actor.owner_fields()
    )
    with projecting():
        wait_until(lambda: AgentRun.objects.get(pk=run.pk).has_ended)
    error = AgentRun.objects.get(pk=run.pk).error
    assert error is not None
    assert error["reason"] == "RUN_NOT_FOUND"


def test_stopped_projector_gives_its_lease_back(running: Projector) -> None:
    wait_until(lambda: ProjectorCursor.objects.filter(owner=running.owner).exists())
    running.stop()
    assert Projector().take_lease()


def test_projector_that_lost_its_lease_takes_it_up_again(running: Projector, actor: Principal) -> None:
    wait_until(lambda: ProjectorCursor.objects.filter(owner=running.owner).exists())
    ProjectorCursor.objects.update(owner="another", lease_expires_at=now() + timedelta(seconds=1))
    run = create(actor)
    wait_until(lambda: ProjectorCursor.objects.filter(owner=running.owner).exists())
    wait_until(lambda: AgentRun.objects.get(pk=run.pk).status == "succeeded")


@pytest.mark.parametrize("is_refused", [True, False])
def test_journal_that_began_anew_is_projected(
    runtime: FakeGoRuntime,
    actor: Principal,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    is_refused: bool,
) -> None:
    """The runtime's data was removed or restored; its numbers are below the cursor, or have come to it meanwhile."""
    asking = create(actor, "asking-agent")
    wait_for(asking, "waiting")
    with get_go_runtime_integration().follow_runs() as batches:
        newest = next(batch.position for batch in batches if batch.events)
    ProjectorCursor.objects.create(namespace="default", sequence=1_000_000 if is_refused else newest)
    monkeypatch.setattr(module, "HOUSEKEEPING_SECONDS", 0.02)
    monkeypatch.setattr(module, "AUDIT_SECONDS", 0.02)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.02)
    projector = Projector()
    projector.start()
    wait_until(AgentRun.objects.filter(pk=asking.pk, status="waiting").exists)
    projector.stop()
    assert caplog.messages.count("the journal is not the one of the cursor, projecting all") == 1


@pytest.mark.usefixtures("runtime")
def test_beginning_anew_that_fails_is_tried_again(actor: Principal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime that lost its journal has only just been started, and does not answer at once."""
    asking = create(actor, "asking-agent")
    wait_for(asking, "waiting")
    ProjectorCursor.objects.create(namespace="default", sequence=1_000_000)
    failures: list[Exception] = [OperationalError("database is locked"), RuntimeUnavailable("not up yet")]
    forget = forget_progress

    def fail_first(**arguments: Any) -> None:
        if failures:
            raise failures.pop()
        forget(**arguments)

    monkeypatch.setattr(module, "forget_progress", fail_first)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.02)
    with projecting():
        wait_until(AgentRun.objects.filter(pk=asking.pk, status="waiting").exists)
    assert not failures


@pytest.mark.usefixtures("runtime")
def test_lease_is_kept_while_progress_is_forgotten_and_nothing_is_without_it(
    actor: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [create(actor, "asking-agent") for _ in range(4)]
    for run in runs:
        wait_for(run, "waiting")
    project()
    events = AgentEvent.objects.count()
    ProjectorCursor.objects.update(sequence=1_000_000)
    client, asked = get_go_runtime_integration(), []
    get_run = client.get_run

    def get_slowly(run_id: str) -> Any:
        asked.append(run_id)
        if len(asked) == 1:
            wait_for_renewals(2)
        taken.append(other.take_lease())
        if len(asked) == 3:
            # However it came to that: another one projects now.
            ProjectorCursor.objects.update(owner=other.owner, lease_expires_at=now() + timedelta(hours=1))
        return get_run(run_id)

    other, taken = Projector(), list[bool]()
    monkeypatch.setattr("django_agent_runtime.services.reconciliation.get_hurried_runtime", lambda: client)
    monkeypatch.setattr(client, "get_run", get_slowly)
    with pytest.raises(LeaseLostError):
        project()
    assert taken == [False] * 3
    assert 0 < AgentEvent.objects.count() < events, "two runs were begun anew, and the others were left alone"
    assert ProjectorCursor.objects.get().sequence == 1_000_000


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("is_refused", [True, False])
def test_rows_of_what_a_restored_journal_does_not_know_are_taken_back(
    actor: Principal, monkeypatch: pytest.MonkeyPatch, *, is_refused: bool
) -> None:
    asking, ended = create(actor, "asking-agent"), create(actor)
    wait_for(asking, "waiting")
    wait_for(ended, "succeeded")
    project()
    events = list(AgentEvent.objects.filter(run=asking).values_list("seq", "event_type"))
    # What happened behind the copy: the rows have it, the journal does not.
    AgentRun.objects.filter(pk=asking.pk).update(status="running", last_sequence=900)
    AgentRun.objects.filter(pk=ended.pk).update(last_sequence=901)
    AgentEvent.objects.create(run=asking, seq=899, event_type="custom", timestamp=now())
    AgentEvent.objects.filter(run=asking, seq=events[0][0]).update(event_type="custom")
    if is_refused:
        ProjectorCursor.objects.update(sequence=902)
    monkeypatch.setattr(module, "HOUSEKEEPING_SECONDS", 0.02)
    monkeypatch.setattr(module, "AUDIT_SECONDS", 0.02)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.02)
    with projecting():
        wait_until(AgentRun.objects.filter(pk=asking.pk, status="waiting").exists)
        wait_until(lambda: list(AgentEvent.objects.filter(run=asking).values_list("seq", "event_type")) == events)
        get_go_runtime_integration().resume_run(str(asking.pk), "yes")
        wait_until(AgentRun.objects.filter(pk=asking.pk, status="succeeded").exists)
    ended.refresh_from_db()
    assert (ended.status, ended.last_sequence) == ("succeeded", 901)


@pytest.mark.usefixtures("runtime")
def test_open_runs_are_asked_after_until_the_runtime_answers(actor: Principal, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = AgentRun.objects.create(agent_key="a", submitted_at=now(), status="running", **actor.owner_fields())
    client, failures = get_go_runtime_integration(), iter([1, 2])
    get_run = client.get_run

    def fail_twice(run_id: str) -> Any:
        if next(failures, None):
            raise CallTimedOut("no answer in time")
        return get_run(run_id)

    monkeypatch.setattr("django_agent_runtime.services.reconciliation.get_hurried_runtime", lambda: client)
    monkeypatch.setattr(client, "get_run", fail_twice)
    monkeypatch.setattr(module, "HOUSEKEEPING_SECONDS", 0.02)
    monkeypatch.setattr(module, "AUDIT_SECONDS", 1000)
    with projecting():
        wait_until(AgentRun.objects.filter(pk=gone.pk, status="failed").exists)


@pytest.mark.usefixtures("runtime")
def test_many_open_runs_hold_up_none_that_is_to_be_sent(actor: Principal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A projector that starts asks after all runs that are open, and there may be very many."""
    owner = actor.owner_fields()
    AgentRun.objects.bulk_create(
        [AgentRun(agent_key="a", submitted_at=now(), status="running", **owner) for _ in range(50)]
    )
    client = get_go_runtime_integration()
    calls: list[str] = []
    get_run, send = client.get_run, client.create_run

    def note_question(run_id: str) -> Any:
        if not calls:
            AgentRun.objects.create(agent_key="chat-agent", input={"messages": []}, **owner)
        calls.append("asked")
        return get_run(run_id)

    def note_sending(*arguments: Any, **options: Any) -> Any:
        calls.append("sent")
        return send(*arguments, **options)

    monkeypatch.setattr("django_agent_runtime.services.reconciliation.get_hurried_runtime", lambda: client)
    monkeypatch.setattr("django_agent_runtime.services.submission.get_hurried_runtime", lambda: client)
    monkeypatch.setattr(module, "REFRESH_ROWS", 10)
    monkeypatch.setattr(client, "get_run", note_question)
    monkeypatch.setattr(client, "create_run", note_sending)
    monkeypatch.setattr(module, "HOUSEKEEPING_SECONDS", 0.02)
    monkeypatch.setattr(module, "AUDIT_SECONDS", 1000)
    with projecting():
        wait_until(lambda: not AgentRun.objects.filter(status="running", agent_key="a").exists())
    # Once more by the audit.
    assert calls.index("sent") <= 11
    assert calls.count("asked") >= 50


@pytest.mark.usefixtures("runtime")
def test_journal_that_began_anew_is_projected_once(actor: Principal) -> None:
    run = create(actor)
    wait_for(run, "succeeded")
    ProjectorCursor.objects.create(namespace="default", sequence=1_000_000)
    project()
    assert AgentRun.objects.get(pk=run.pk).status == "succeeded"


def test_lost_events_are_skipped_and_open_runs_asked_after(
    runtime: FakeGoRuntime, actor: Principal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ended, gone = create(actor), AgentRun.objects.create(agent_key="a", submitted_at=now(), status="running")
    asking = create(actor, "asking-agent")
    wait_for(ended, "succeeded")
    wait_for(asking, "waiting")
    # What came after is lost.
    AgentRun.objects.filter(pk=asking.pk).update(last_sequence=1, status="running")
    client = get_go_runtime_integration()
    follow = client.follow_runs
    with follow() as batches:
        newest = next(batch.position for batch in batches if batch.events)
    asked: list[int] = []

    def follow_behind_damage(after_sequence: int = 0, **options: Any) -> Any:
        asked.append(after_sequence)
        if after_sequence < 1000:
            raise EventsTruncated("lost", metadata={"oldest_sequence": "1001"})
        # The fake's events have lower numbers.
        return follow(newest, **options)

    monkeypatch.setattr(client, "follow_runs", follow_behind_damage)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(module, "HOUSEKEEPING_SECONDS", 0.02)
    projector = Projector()
    projector.start()
    wait_until(lambda: 1000 in asked)
    wait_until(AgentRun.objects.filter(pk=gone.pk, status="failed").exists)
    wait_until(AgentRun.objects.filter(pk=asking.pk, status="waiting").exists)
    projector.stop()
    assert "the journal is not the one of the cursor, projecting all" not in caplog.messages
    ended.refresh_from_db()
    gone.refresh_from_db()
    assert (ended.status, ended.output["final_output"]) == ("succeeded", {"response": "Hello to you!"})
    assert (gone.status, (gone.error or {})["reason"]) == ("failed", "RUN_NOT_FOUND")
    assert "events were lost before they were projected" in caplog.messages


@pytest.mark.usefixtures("no_runtime", "transactional_db")
def test_without_a_runtime_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeUnavailable):
        project()
    projector = Projector()
    projector.start()
    wait_until(lambda: ProjectorCursor.objects.filter(owner=projector.owner).exists())
    assert projector.is_running()
    projector.stop()
    assert threading.active_count() < 50


@pytest.mark.usefixtures("runtime", "transactional_db")
def test_without_its_tables_it_waits_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []

    def fail(*_: Any, **__: Any) -> None:
        tries.append(1)
        raise OperationalError("no such table")

    monkeypatch.setattr(ProjectorCursor.objects, "get_or_create", fail)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    with projecting():
        wait_until(lambda: len(tries) > 3)
    assert caplog.messages == ["projection interrupted"]


def test_once_waits_for_what_comes_late(
    runtime: FakeGoRuntime, actor: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy runtime needs longer to begin a stream than there may be between two batches."""
    wait_for(create(actor), "succeeded")
    client = get_go_runtime_integration()
    follow = client.follow_runs
    held, late = threading.Event(), threading.Event()

    def hold_up() -> None:
        with runtime._runs.log.changed:
            held.set()
            late.wait(3 * IDLE_SECONDS)

    def follow_late(*arguments: Any, **options: Any) -> Any:
        threading.Thread(target=hold_up).start()
        assert held.wait(PATIENCE_SECONDS)
        return follow(*arguments, **options)

    monkeypatch.setattr(client, "follow_runs", follow_late)
    assert project() == 6


@pytest.mark.usefixtures("runtime")
def test_once_goes_on_behind_a_batch_that_took_long(actor: Principal, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create(actor, "asking-agent")
    wait_for(run, "waiting")
    write = Projector._write_events
    took_long = threading.Event()

    def write_slowly(self: Projector, *batch: Any) -> None:
        write(self, *batch)
        if not took_long.is_set():
            took_long.wait(3 * IDLE_SECONDS)
            took_long.set()
            get_go_runtime_integration().resume_run(str(run.pk), "yes")
            wait_for(run, "succeeded")

    monkeypatch.setattr(Projector, "_write_events", write_slowly)
    project()
    assert AgentRun.objects.get(pk=run.pk).status == "succeeded"


@pytest.mark.usefixtures("runtime")
def test_command_projects_once(actor: Principal, capsys: pytest.CaptureFixture[str]) -> None:
    run = create(actor)
    wait_for(run, "succeeded")
    call_command("projectruns", once=True)
    assert capsys.readouterr().out == "6 events written\n"


@pytest.mark.usefixtures("runtime")
def test_other_namespace_has_a_cursor_of_its_own(actor: Principal) -> None:
    run = create(actor)
    wait_for(run, "succeeded")
    assert Projector(namespace="other").run_once(idle_seconds=IDLE_SECONDS) == 0
    assert project() == 6
    assert set(ProjectorCursor.objects.values_list("namespace", flat=True)) == {"default", "other"}
