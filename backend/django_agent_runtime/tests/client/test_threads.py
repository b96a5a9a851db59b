"""Threads of graphs, on the real runtime."""

from __future__ import annotations

import uuid
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from django_agent_runtime import exceptions
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.types import RunState, ThreadSource, ThreadStatus

if TYPE_CHECKING:
    from django_agent_runtime.testing.process import GoRuntimeProcess

TALK = """
name: talk
state: {said: {reducer: append}, turns: {reducer: add, initial: 0}}
nodes:
  listen: {kind: transform, set: {turns: "1"}}
  ask: {kind: human, with: {ask: "More?"}, set: {said: "[out]"}}
  end: {kind: transform}
edges: [[START, listen], [ask, end]]
branches: {listen: [{when: 'state.said[size(state.said) - 1] == "ask me"', to: ask}, {to: end}]}
"""


def say(client: GoRuntimeIntegration, thread_id: str, *said: str) -> dict[str, Any]:
    asked = {"graph_id": "talk", "thread_id": thread_id} | ({"said": list(said)} if said else {})
    result = client.execute_task("langgraph_task", asked)
    assert result["thread_id"] == thread_id
    output: dict[str, Any] = result["output"]
    return output


def test_turns_go_on_and_are_looked_back_at(client: GoRuntimeIntegration) -> None:
    client.register_graph(TALK)
    assert say(client, "ada", "one") == {"said": ["one"], "turns": 1}
    assert say(client, "ada", "two") == {"said": ["one", "two"], "turns": 2}
    state = client.get_thread_state("ada")
    assert (state.thread_id, state.graph_id, state.error) == ("ada", "talk", "")
    assert (state.status, state.source) == (ThreadStatus.DONE, ThreadSource.STEP)
    assert (state.values, state.next, state.interrupts) == ({"said": ["one", "two"], "turns": 2}, (), ())
    assert state.time is not None
    assert state.time < datetime.now(timezone.utc)

    history = client.list_thread_history("ada", limit=None)
    assert history[0] == state
    assert [past.revision for past in history] == list(range(state.revision, 0, -1))
    assert history[-1].source is ThreadSource.INPUT
    assert client.list_thread_history("ada", limit=2) == history[:2]
    assert client.list_thread_history("ada", before=history[1].revision, limit=1) == history[2:3]
    assert client.list_thread_history("ada", limit=0) == []
    assert client.get_thread_state("ada", history[3].revision) == history[3]


def test_a_thread_is_updated_and_runs_on(client: GoRuntimeIntegration) -> None:
    client.register_graph(TALK)
    say(client, "ada", "one")
    updated = client.update_thread_state("ada", {"said": ["two"]}, as_node="START")
    assert (updated.source, updated.status, updated.next) == (ThreadSource.UPDATE, ThreadStatus.RUNNING, ("listen",))
    assert say(client, "ada") == {"said": ["one", "two"], "turns": 2}
    begun = client.update_thread_state("bob", {"said": ["before"]}, as_node="END", graph_id="talk")
    assert (begun.revision, begun.status) == (1, ThreadStatus.DONE)
    assert say(client, "bob", "now")["said"] == ["before", "now"]


def test_a_thread_keeps_its_values_when_its_graph_is_another(client: GoRuntimeIntegration) -> None:
    client.register_graph(TALK)
    for text in ("one", "two", "three"):
        say(client, "ada", text)
    was = client.get_thread_state("ada")
    client.register_graph(TALK.replace("said: {reducer: append}", "said: {}, more: {initial: 1}"))
    assert client.get_thread_state("ada") == was
    assert say(client, "ada", "four") == {"said": ["four"], "turns": 4}
    assert client.get_thread_state("ada", was.revision).values == {"said": ["one", "two", "three"], "turns": 3}
    client.register_graph("name: talk\nstate: {said: {}}\nnodes: {n: {kind: transform}}\nedges: [[START, n]]\n")
    assert say(client, "ada", "five") == {"said": ["five"], "turns": 4}
    assert len(client.list_thread_history("ada", limit=None)) > 10


def test_a_thread_is_forked(client: GoRuntimeIntegration) -> None:
    client.register_graph(TALK)
    say(client, "ada", "one")
    first = client.get_thread_state("ada")
    say(client, "ada", "two")
    forked = client.fork_thread("ada", first.revision)
    assert (forked.parent, forked.source, forked.values) == (first.revision, ThreadSource.FORK, first.values)
    assert say(client, forked.thread_id, "else")["said"] == ["one", "else"]
    assert client.get_thread_state("ada").values["said"] == ["one", "two"]
    assert client.fork_thread("ada", first.revision, "ada").values == first.values
    assert say(client, "ada", "again")["said"] == ["one", "again"]
    with pytest.raises(exceptions.ThreadBusy) as refused:
        client.fork_thread("ada", to_thread_id=forked.thread_id)
    assert isinstance(refused.value, ValueError)


async def test_threads_are_listed_and_deleted(client: GoRuntimeIntegration) -> None:
    client.register_graph(TALK)
    for thread_id in ("ada", "bob", "ada"):
        say(client, thread_id, "hello")
    threads = await client.alist_threads()
    assert [(thread.thread_id, thread.graph_id, thread.status) for thread in threads] == [
        ("bob", "talk", ThreadStatus.DONE),
        ("ada", "talk", ThreadStatus.DONE),
    ]
    state = await client.aget_thread_state("ada")
    assert (threads[1].revision, threads[1].error) == (state.revision, "")
    for _ in range(2):
        await client.adelete_thread("ada")
    with pytest.raises(exceptions.ThreadNotFound) as unknown:
        await client.aget_thread_state("ada")
    assert isinstance(unknown.value, LookupError)
    assert unknown.value.metadata == {"thread_id": "ada"}
    assert [thread.thread_id for thread in await client.alist_threads()] == ["bob"]
    assert say(client, "ada", "new") == {"said": ["new"], "turns": 1}


def test_a_question_in_a_thread_outlives_the_runtime(mortal_runtime: GoRuntimeProcess) -> None:
    with GoRuntimeIntegration(**mortal_runtime.settings) as client:
        client.register_graph(TALK)
        say(client, "ada", "one")
        run_id = client.submit_task(
            "langgraph_task", {"graph_id": "talk", "thread_id": "ada", "said": ["ask me"]}
        ).run_id
        for event in client.watch_run(run_id):
            if event.type == "run.interrupted":
                break
        mortal_runtime.kill()
        mortal_runtime.start()
        waits = client.get_thread_state("ada")
        assert (waits.status, waits.next) == (ThreadStatus.WAITING, ("ask",))
        [question] = waits.interrupts
        assert (question.node, question.run_id) == ("ask", "")
        assert "More?" in str(question.value)
        with pytest.raises(exceptions.RunFailed, match="waits for an answer"):
            say(client, "ada", "two")
        client.resume_run(run_id, "no", interrupt_id=question.interrupt_id)
        assert client.wait_run(run_id).state is RunState.SUCCEEDED
        assert say(client, "ada", "two") == {"said": ["one", "ask me", "no", "two"], "turns": 3}


def test_the_thread_of_a_run_is_read_by_the_run(mortal_runtime: GoRuntimeProcess) -> None:
    with GoRuntimeIntegration(**mortal_runtime.settings) as client:
        client.register_graph(TALK)
        run = client.submit_task("langgraph_task", {"graph_id": "talk", "said": ["ask me"]})
        for event in client.watch_run(run.run_id):
            if event.type == "run.interrupted":
                break
        waits = client.get_thread_state(run_id=run.run_id)
        assert (waits.thread_id, waits.graph_id) == (run.run_id, "talk")
        assert (waits.status, waits.next, waits.values) == (
            ThreadStatus.WAITING,
            ("ask",),
            {"said": ["ask me"], "turns": 1},
        )
        mortal_runtime.kill()
        mortal_runtime.start()
        assert client.get_thread_state(run_id=run.run_id) == waits
        client.resume_run(run.run_id, "no", interrupt_id=waits.interrupts[0].interrupt_id)
        client.wait_run(run.run_id)
        # The run's graph is the one that it began with.
        client.delete_graph("talk")
        done = client.get_thread_state(run_id=run.run_id)
        assert (done.status, done.values) == (ThreadStatus.DONE, {"said": ["ask me", "no"], "turns": 1})
        history = client.list_thread_history(run_id=run.run_id, limit=None)
        assert history[0] == done
        assert waits in history
        assert [past.revision for past in history] == list(range(done.revision, 0, -1))
        assert client.list_thread_history(run_id=run.run_id, before=3, limit=1) == history[-2:-1]
        assert client.get_thread_state(run_id=run.run_id, revision=1) == history[-1]


async def test_a_turn_has_the_thread_that_it_is_one_of(client: GoRuntimeIntegration) -> None:
    client.register_graph(TALK)
    say(client, "ada", "one")
    run = client.submit_task("langgraph_task", {"graph_id": "talk", "thread_id": "ada", "said": ["two"]})
    client.wait_run(run.run_id)
    state = await client.aget_thread_state(run_id=run.run_id)
    assert state == client.get_thread_state("ada")
    assert await client.alist_thread_history(run_id=run.run_id) == client.list_thread_history("ada")


def test_runs_without_a_thread_are_refused(client: GoRuntimeIntegration) -> None:
    with pytest.raises(exceptions.RunNotFound):
        client.get_thread_state(run_id=str(uuid.uuid4()))
    run = client.submit_task("example_task", {})
    with pytest.raises(exceptions.InvalidRequest, match="none of a graph"):
        client.get_thread_state(run_id=run.run_id)
    client.register_graph(TALK)
    later = client.create_run("", {"graph_id": "talk"}, target="task", task_type="langgraph_task", delay=60)
    for call in (client.get_thread_state, client.list_thread_history):
        with pytest.raises(exceptions.ThreadNotFound):
            call(run_id=later.run_id)
        with pytest.raises(exceptions.InvalidRequest, match="beside"):
            call("ada", run_id=later.run_id)
        with pytest.raises(exceptions.InvalidRequest, match="thread_id"):
            call()
    other = client.with_settings(namespace="elsewhere")
    with pytest.raises(exceptions.RunNotFound):
        other.get_thread_state(run_id=later.run_id)
    other.disconnect()


def test_what_does_not_fit_is_refused(client: GoRuntimeIntegration) -> None:
    client.register_graph(TALK)
    say(client, "ada", "one")
    for call in (
        lambda: client.get_thread_state("nobody"),
        lambda: client.get_thread_state("ada", 1000),
        lambda: client.list_thread_history("nobody"),
        lambda: client.update_thread_state("nobody", {}),
        lambda: client.fork_thread("nobody"),
    ):
        with pytest.raises(exceptions.ThreadNotFound):
            call()
    with pytest.raises(exceptions.GraphNotFound):
        client.update_thread_state("new", {}, graph_id="none")
    for field, arguments in {
        "thread_id": {"thread_id": "a b", "values": {}},
        "values.x": {"thread_id": "ada", "values": {"x": 1}},
        "as_node": {"thread_id": "ada", "values": {}, "as_node": "nobody"},
        "graph_id": {"thread_id": "ada", "values": {}, "graph_id": "reasoning_graph"},
        "values": {"thread_id": "ada", "values": [1]},
    }.items():
        with pytest.raises(exceptions.InvalidRequest) as refused:
            client.update_thread_state(**arguments)  # type: ignore[arg-type]
        assert [name for name, _ in refused.value.violations] == [field]
    with pytest.raises(exceptions.InvalidValue, match="revision"):
        client.get_thread_state("ada", -1)
