"""The fake that users test with: it behaves as the runtime does where tests can tell."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.db import transaction
from django.test import TestCase, override_settings

from django_agent_runtime import exceptions
from django_agent_runtime.go_integration import GoRuntimeIntegration, get_go_runtime_integration
from django_agent_runtime.testing import FakeGoRuntime, FakeRun
from django_agent_runtime.types import (
    DeleteOperation,
    Interrupt,
    NewTask,
    RetryPolicy,
    RunError,
    RunEvent,
    RunState,
    RunTarget,
    SetOperation,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django_agent_runtime._streams import Stream
    from django_agent_runtime.testing import GoRuntimeProcess


@pytest.fixture(params=["fake", "real"])
def runtime(request: pytest.FixtureRequest) -> Iterator[GoRuntimeIntegration]:
    """A client of the fake, then one of the real runtime: what holds for one holds for the other."""
    if request.param == "fake":
        with FakeGoRuntime() as fake, GoRuntimeIntegration(**fake.settings) as client:
            yield client
    else:
        process: GoRuntimeProcess = request.getfixturevalue("go_runtime_process")
        namespace = f"test-{abs(hash(request.node.nodeid))}"
        with GoRuntimeIntegration(**process.settings, namespace=namespace) as client:
            yield client


def test_state_is_kept_listed_and_guarded(runtime: GoRuntimeIntegration) -> None:
    assert runtime.get_state("a") is None
    runtime.set_state("a", 1, create_only=True)
    with pytest.raises(exceptions.KeyExists):
        runtime.set_state("a", 2, create_only=True)
    entry = runtime.get_state_entry("a")
    assert entry is not None
    runtime.set_state("a", 2, expected_revision=entry.revision)
    with pytest.raises(exceptions.RevisionMismatch):
        runtime.set_state("a", 3, expected_revision=entry.revision)
    for key in ("b/2", "b/1", "c"):
        runtime.set_state(key, key)
    assert [entry.key for entry in runtime.list_state("b/", page_size=1)] == ["b/1", "b/2"]
    assert runtime.delete_state("a") is True
    assert runtime.delete_state("a") is False


def test_transaction_is_all_or_nothing(runtime: GoRuntimeIntegration) -> None:
    runtime.set_state("a", 1)
    with pytest.raises(exceptions.RevisionMismatch):
        runtime.transact_state([SetOperation("b", 2), SetOperation("a", 2, expected_revision=999_999)])
    assert runtime.get_state("b") is None
    results = runtime.transact_state([SetOperation("b", 2), DeleteOperation("a")])
    assert [result.existed for result in results] == [False, True]
    assert (runtime.get_state("a"), runtime.get_state("b")) == (None, 2)


def test_value_above_the_limit_is_refused(runtime: GoRuntimeIntegration) -> None:
    with pytest.raises(exceptions.TooLarge):
        runtime.set_state("a", "x" * (1024 * 1024))


def test_watch_shows_what_is_there_and_what_changes(runtime: GoRuntimeIntegration) -> None:
    runtime.set_state("w/1", 1)
    with runtime.watch_state("w/*", include_current=True) as changes:
        assert next(changes).key == "w/1"
        runtime.set_state("other", 0)
        runtime.set_state("w/2", 2)
        runtime.delete_state("w/1")
        seen = [(str(change.kind), change.key, change.value) for change in (next(changes), next(changes))]
    assert seen == [("set", "w/2", 2), ("deleted", "w/1", None)]


def test_events_reach_those_who_asked_for_their_type(runtime: GoRuntimeIntegration) -> None:
    seen: list[Any] = []
    done = threading.Event()

    def note(event: Any) -> None:
        seen.append((event.type, event.data))
        if event.type == "order.paid":
            done.set()

    subscription_id = runtime.subscribe_to_events(["order.*", "user"], note)
    for event_type in ("order.created", "other", "user", "order.paid"):
        runtime.publish_event(event_type, event_type)
    assert done.wait(30)
    assert seen == [(name, name) for name in ("order.created", "user", "order.paid")]
    assert runtime.unsubscribe_from_events(subscription_id)


def test_stream_begins_behind_a_sequence(runtime: GoRuntimeIntegration) -> None:
    published = runtime.publish_events([{"event_type": "n", "data": number} for number in range(5)])
    with runtime.stream_events("n", after_sequence=published[1].sequence) as events:
        assert [next(events).data for _ in range(3)] == [2, 3, 4]


def test_same_key_and_payload_are_one_run(runtime: GoRuntimeIntegration) -> None:
    first = runtime.submit_task("example_task", {"n": 1}, idempotency_key="k")
    again = runtime.submit_task("example_task", {"n": 1}, idempotency_key="k")
    assert first.run_id == again.run_id
    with pytest.raises(exceptions.IdempotencyConflict):
        runtime.submit_task("example_task", {"n": 2}, idempotency_key="k")
    run = runtime.wait_run(first.run_id)
    assert (run.state, run.output and run.output["input"]) == (RunState.SUCCEEDED, {"n": 1})
    assert [listed.run_id for listed in runtime.list_runs(states=["succeeded"])] == [run.run_id]
    with pytest.raises(exceptions.RunEnded):
        runtime.cancel_run(run.run_id)


def test_many_tasks_at_once(runtime: GoRuntimeIntegration) -> None:
    runs = runtime.submit_tasks({"task_type": "example_task", "input_data": {"n": number}} for number in range(5))
    ended = runtime.wait_runs(run.run_id for run in reversed(runs))
    assert [run.output and run.output["input"]["n"] for run in ended] == [4, 3, 2, 1, 0]
    with pytest.raises(exceptions.TaskTypeNotFound) as refused:
        runtime.submit_tasks([NewTask("example_task"), NewTask("no_such_task")])
    assert refused.value.runs == ()
    assert len(list(runtime.list_runs())) == 5


def test_the_wait_for_many_runs_is_over(fake_go_runtime: FakeGoRuntime) -> None:
    release = threading.Event()
    fake_go_runtime.add_task("slow", lambda _input: {"released": release.wait(30)})
    runtime = get_go_runtime_integration()
    (run,) = runtime.submit_tasks([NewTask("slow")])
    with pytest.raises(exceptions.CallTimedOut) as late:
        runtime.wait_runs([run.run_id], timeout=0)
    assert [left.run_id for left in late.value.runs] == [run.run_id]
    release.set()
    assert runtime.wait_runs([run.run_id])[0].output == {"released": True}


def test_what_is_unknown_is_not_found(runtime: GoRuntimeIntegration) -> None:
    with pytest.raises(exceptions.TaskTypeNotFound) as task_type:
        runtime.execute_task("no_such_task")
    assert "example_task" in task_type.value.metadata["known"]
    with pytest.raises(exceptions.AgentNotFound):
        runtime.execute_agent_task("nobody", "x")
    with pytest.raises(exceptions.RunNotFound):
        runtime.get_run("0192f0c0-0000-7000-8000-000000000001")


def test_namespaces_are_apart(fake_go_runtime: FakeGoRuntime) -> None:
    with GoRuntimeIntegration(**fake_go_runtime.settings, namespace="shop") as shop:
        shop.set_state("a", 1)
        shop.publish_event("sold", {})
        assert get_go_runtime_integration().get_state("a") is None
    assert fake_go_runtime.published_events() == []
    assert [event.type for event in fake_go_runtime.published_events("shop")] == ["sold"]


def test_failing_function_fails_its_run(fake_go_runtime: FakeGoRuntime) -> None:
    def fail(_data: dict[str, Any]) -> dict[str, Any]:
        raise ValueError("out of paint")

    fake_go_runtime.add_agent_task("painter", "paint", fail)
    with pytest.raises(exceptions.RunFailed, match="out of paint") as failed:
        get_go_runtime_integration().execute_agent_task("painter", "paint", {"colour": "red"})
    assert failed.value.run.error is not None
    [run] = fake_go_runtime.accepted_runs()
    assert (run.agent_id, run.task_type, run.input) == ("painter", "paint", {"colour": "red"})


def test_waiting_run_is_cancelled(fake_go_runtime: FakeGoRuntime) -> None:
    release = threading.Event()
    fake_go_runtime.add_task("slow", lambda _input: {"released": release.wait(30)})
    run = get_go_runtime_integration().submit_task("slow")
    assert get_go_runtime_integration().cancel_run(run.run_id).state is RunState.CANCELLED
    release.set()
    assert get_go_runtime_integration().wait_run(run.run_id).state is RunState.CANCELLED


def write(run: FakeRun) -> dict[str, Any]:
    """An agent that asks before it publishes."""
    run.emit("assistant.message", {"content": run.input["topic"]})
    run.emit("state.checkpoint", {"step": 1}, "internal")
    approved = run.interrupt({"question": "publish?"})
    return {"final_output": {"approved": approved, "metadata": run.metadata}}


def until(events: Stream[RunEvent], event_type: str) -> list[RunEvent]:
    """What happens up to the next event of a type."""
    seen: list[RunEvent] = []
    while not seen or seen[-1].type != event_type:
        seen.append(next(events))
    return seen


def test_agent_asks_and_goes_on_with_the_answer(fake_go_runtime: FakeGoRuntime) -> None:
    fake_go_runtime.add_agent("writer", write)
    client = get_go_runtime_integration()
    run = client.create_run("writer", {"topic": "rain"}, metadata={"m": 1}, event_visibility={"run.queued": "debug"})
    with client.watch_run(run.run_id) as events:
        asked = until(events, "run.interrupted")
        assert [event.type for event in asked[:-1]] == [
            "run.queued",
            "run.started",
            "assistant.message",
            "state.checkpoint",
        ]
        assert [str(event.visibility) for event in asked] == ["debug", "internal", "user", "internal", "user"]
        waiting = client.get_run(run.run_id)
        assert (waiting.state, waiting.interrupt) == (
            RunState.WAITING,
            Interrupt(asked[-1].payload["interrupt_id"], {"question": "publish?"}),
        )
        assert [listed.interrupt and listed.interrupt.payload for listed in client.list_runs()] == [None]
        with pytest.raises(exceptions.RunNotWaiting):
            client.resume_run(run.run_id, interrupt_id="another")
        client.resume_run(run.run_id, "yes")
        *_, last = events
    assert last.payload == {"output": {"final_output": {"approved": "yes", "metadata": {"m": 1}}}}
    interrupt_id = asked[-1].payload["interrupt_id"]
    again = client.resume_run(run.run_id, "yes", interrupt_id=interrupt_id)
    assert (again.state, again.attempt) == (RunState.SUCCEEDED, 1)
    with pytest.raises(exceptions.RunNotWaiting, match="answered before"):
        client.resume_run(run.run_id, "no", interrupt_id=interrupt_id)
    with pytest.raises(exceptions.RunEnded):
        client.resume_run(run.run_id, "no")
    shown = [event.type for event in client.watch_run(run.run_id, after_sequence=asked[0].sequence, visibility="user")]
    assert shown[:2] == ["assistant.message", "run.interrupted"]
    assert shown[-1] == "run.succeeded"
    assert list(client.watch_run(run.run_id, after_sequence=last.sequence)) == []


async def test_agent_that_nobody_serves_yet_is_waited_for(fake_go_runtime: FakeGoRuntime) -> None:
    client = get_go_runtime_integration()
    with pytest.raises(exceptions.AgentNotFound):
        await client.acreate_run("late", {})
    run = await client.acreate_run("late", {"n": 1}, target=RunTarget.WORKER, priority=7, delay=3600)
    assert (run.state, run.priority) == (RunState.QUEUED, 7)
    assert run.not_before is not None
    fake_go_runtime.add_agent("late", lambda run: {"n": run.input["n"] + 1})
    assert [event.type async for event in client.awatch_run(run.run_id)][-1] == "run.succeeded"
    assert await client.aexecute_run("late", {"n": 2}) == {"n": 3}


def test_run_takes_over_its_concurrency_key(runtime: GoRuntimeIntegration) -> None:
    key: dict[str, Any] = {"target": "worker", "concurrency": {"key": "k"}}
    first, other = runtime.create_run("nobody", **key), runtime.create_run("nobody", target="worker")
    taking = {"key": "k", "strategy": "cancel_running"}
    second = runtime.create_run("nobody", target="worker", concurrency=taking)
    states = [runtime.get_run(run.run_id).state for run in (first, other, second)]
    assert states == ["cancelled", "queued", "queued"]


def test_failing_agent_is_begun_again_as_its_policy_says(fake_go_runtime: FakeGoRuntime) -> None:
    attempts: list[int] = []

    def stumble(run: FakeRun) -> dict[str, Any]:
        attempts.append(run.attempt)
        if run.attempt < 3:
            raise ValueError("not yet")
        return {"attempt": run.attempt}

    fake_go_runtime.add_agent("stumbler", stumble)
    client = get_go_runtime_integration()
    assert client.execute_run("stumbler", retry=RetryPolicy(max_attempts=3)) == {"attempt": 3}
    assert attempts == [1, 2, 3]
    with pytest.raises(exceptions.RunFailed, match="not yet") as failed:
        client.execute_run("stumbler", retry=RetryPolicy(max_attempts=2))
    assert failed.value.run.error == RunError("AGENT_FAILED", "not yet", retryable=False, type="ValueError")
    *_, retrying, _, last = client.watch_run(failed.value.run.run_id)
    assert (retrying.type, retrying.payload["error_type"]) == ("run.retrying", "ValueError")
    assert last.payload == {"error": "not yet", "reason": "AGENT_FAILED", "error_type": "ValueError"}


def test_dead_letter_is_done_again(fake_go_runtime: FakeGoRuntime) -> None:
    def fail(_run: FakeRun) -> dict[str, Any]:
        raise ValueError("out of paint")

    fake_go_runtime.add_agent("painter", fail)
    client = get_go_runtime_integration()
    with pytest.raises(exceptions.RunFailed) as failed:
        client.execute_run("painter", {"colour": "red"})
    dead = failed.value.run.run_id
    assert [run.run_id for run in client.list_runs(dead_letters=True)] == [dead]
    fake_go_runtime.add_agent("painter", lambda run: {"painted": run.input["colour"]})
    again = client.retry_run(dead)
    assert again.retry_of == dead
    assert client.wait_run(again.run_id).output == {"painted": "red"}
    assert list(client.list_runs(dead_letters=True)) == []
    with pytest.raises(exceptions.RunNotEnded):
        client.retry_run(again.run_id)


def test_events_of_all_runs_are_followed(fake_go_runtime: FakeGoRuntime) -> None:
    fake_go_runtime.add_agent("writer", write)
    client = get_go_runtime_integration()
    task = client.submit_task("example_task")
    client.wait_run(task.run_id)
    run = client.create_run("writer", {"topic": "rain"})
    with client.watch_run(run.run_id) as events:
        until(events, "run.interrupted")
    client.cancel_run(run.run_id)
    seen: list[RunEvent] = []
    with client.follow_runs(without_types=["assistant.message"]) as batches:
        while len(seen) < 8:
            seen.extend(next(batches).events)
    types = ["queued", "started", "succeeded", "queued", "started", "", "interrupted", "cancelled"]
    assert [event.type for event in seen] == [f"run.{name}" if name else "state.checkpoint" for name in types]
    states = [event.run and str(event.run.state) for event in seen]
    assert states == ["queued", "running", "succeeded", "queued", "running", None, "waiting", "cancelled"]
    assert [event.run.sequence for event in seen if event.run] == [event.sequence for event in seen if event.run]
    assert {event.run.input for event in seen if event.run} == {None}


def test_named_runs_are_followed_without_the_others(fake_go_runtime: FakeGoRuntime) -> None:
    client = get_go_runtime_integration()
    for chosen in (None, "11111111-1111-4111-8111-111111111111", None):
        client.wait_run(client.submit_task("example_task", run_id=chosen).run_id)
    with client.follow_runs(named_only=True) as batches:
        seen = next(batches).events
    assert {event.run_id for event in seen} == {"11111111-1111-4111-8111-111111111111"}


def test_schedules_are_kept_and_triggered(fake_go_runtime: FakeGoRuntime) -> None:
    client = get_go_runtime_integration()
    fake_go_runtime.add_agent("writer", lambda run: {"topic": run.input["topic"]})
    schedule = client.create_schedule("nightly", "0 3 * * *", "writer", {"topic": "rain"}, paused=True, priority=2)
    assert (schedule.run.agent_id, schedule.run.input_data, schedule.run.priority) == ("writer", {"topic": "rain"}, 2)
    with pytest.raises(exceptions.ScheduleExists):
        client.create_schedule("nightly", "@daily", "writer")
    with pytest.raises(exceptions.InvalidRequest) as refused:
        client.create_schedule("other", "soon", "writer")
    assert [name for name, _ in refused.value.violations] == ["schedule.cron"]
    assert client.pause_schedule("nightly", False).paused is False
    run = client.wait_run(client.trigger_schedule("nightly").run_id)
    assert (run.output, run.schedule_id) == ({"topic": "rain"}, "nightly")
    assert [listed.run_id for listed in client.list_runs(schedule_id="nightly")] == [run.run_id]
    client.create_schedule("nightly", "@daily", "writer", replace=True)
    assert [schedule.cron for schedule in client.list_schedules()] == ["@daily"]
    assert client.delete_schedule("nightly") is True
    assert client.delete_schedule("nightly") is False
    with pytest.raises(exceptions.ScheduleNotFound):
        client.trigger_schedule("nightly")


def test_stopping_ends_streams(fake_go_runtime: FakeGoRuntime) -> None:
    client = GoRuntimeIntegration(**fake_go_runtime.settings)
    run = client.create_run("nobody", target="worker")
    events = client.watch_run(run.run_id)
    assert next(events).type == "run.queued"
    assert client.create_stream_ticket(run.run_id).path.endswith("ticket=fake")
    fake_go_runtime.stop()
    client.disconnect()
    with pytest.raises(exceptions.ClientClosed):
        next(events)


def test_fake_is_for_one_use() -> None:
    fake = FakeGoRuntime()
    fake.stop()
    with fake, pytest.raises(ValueError, match="make a new one"):
        fake.start()


class OnCommitTest(TestCase):
    """How a service that calls the runtime on commit is tested."""

    def test_callbacks_run_when_they_are_captured(self) -> None:
        with FakeGoRuntime() as fake, override_settings(GO_RUNTIME=fake.settings):
            with self.captureOnCommitCallbacks(execute=True):
                transaction.on_commit(lambda: get_go_runtime_integration().publish_event("order.created", {"id": 7}))
                assert fake.published_events() == []
            [event] = fake.published_events()
            assert (event.type, event.data) == ("order.created", {"id": 7})
            get_go_runtime_integration().disconnect()


def test_definitions_are_kept_in_versions(fake_go_runtime: FakeGoRuntime) -> None:
    client = GoRuntimeIntegration(**fake_go_runtime.settings)
    first = client.register_graph("name: g\ndescription: A graph.\n")
    second = client.register_graph({"name": "g"})
    assert (first.number, first.created, first.description, second.number) == (1, True, "A graph.", 2)
    assert not client.register_graph("name: g\ndescription: A graph.\n").created
    assert client.get_graph("g").version == first.version
    assert client.get_graph("g", second.version).current is False
    assert [graph.name for graph in client.list_graphs()] == ["g"]
    assert [version.number for version in client.list_graph_versions("g")] == [2, 1]
    assert "g" in client.draw_graph("g")
    assert client.draw_graph("g", format="svg").startswith("<svg")
    assert [problem.place for problem in client.validate_graph("nodes: {}")] == ["name"]
    assert client.delete_graph("g")
    assert not client.delete_graph("g")
    with pytest.raises(exceptions.GraphNotFound):
        client.draw_graph("g")
    assert client.register_agent("name: a\n").created
    assert client.get_agent_definition("a").document == "name: a\n"
    assert client.validate_agent("name: a\n") == []
    assert len(client.list_agent_versions("a")) == 1
    assert client.delete_agent("a")
    with pytest.raises(exceptions.AgentNotFound):
        client.get_agent_definition("a")
    with pytest.raises(exceptions.InvalidRequest):
        client.register_agent("instructions: Help.\n")
    client.disconnect()


def test_no_thread_is_there(fake_go_runtime: FakeGoRuntime) -> None:
    client = GoRuntimeIntegration(**fake_go_runtime.settings)
    calls: list[Callable[[], object]] = [
        lambda: client.get_thread_state("t"),
        lambda: client.list_thread_history("t"),
        lambda: client.update_thread_state("t", {}, graph_id="g"),
        lambda: client.fork_thread("t"),
    ]
    for call in calls:
        with pytest.raises(exceptions.ThreadNotFound, match="does not run graphs"):
            call()
    assert client.list_threads() == []
    client.delete_thread("t")
    client.disconnect()
