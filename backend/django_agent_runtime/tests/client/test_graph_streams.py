"""Graphs watched in LangGraph's stream modes, on the real runtime."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from django_agent_runtime import exceptions
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.tests.faults.processes import Network
from django_agent_runtime.types import GraphInterrupt, RunState

if TYPE_CHECKING:
    from django_agent_runtime.testing.process import GoRuntimeProcess

STORY = """
name: story
state: {topic: {}, notes: {reducer: append}, facts: {reducer: merge}, text: {}, n: {reducer: add, initial: 0}}
nodes:
  note: {kind: transform, set: {notes: '["about " + state.topic]', facts: '{"a/b": 1}', n: "1"}}
  write: {kind: llm, with: {prompt: "{{ state.topic }}", sample: "Once upon a time."}, set: {text: out.text}}
  more: {kind: transform, set: {notes: '["more", "still more"]', facts: '{"c": [2]}', n: "1"}}
edges: [[START, note], [note, write], [note, more]]
"""
STATES = [
    {"topic": "cats", "n": 0},
    {"topic": "cats", "n": 1, "notes": ["about cats"], "facts": {"a/b": 1}},
    {
        "topic": "cats",
        "n": 2,
        "notes": ["about cats", "more", "still more"],
        "facts": {"a/b": 1, "c": [2]},
        "text": "Once upon a time.",
    },
]

REVIEW = """
name: review
state: {text: {}, verdict: {}, mood: {}, done: {}}
nodes:
  look: {kind: human, with: {ask: "Is this fine? {{ state.text }}"}, set: {verdict: out}}
  feel: {kind: human, with: {ask: "How are you?"}, set: {mood: out}}
  end: {kind: transform, set: {done: "true"}}
edges: [[START, look], [START, feel]]
joins: [{from: [look, feel], to: end}]
"""

ASK_OFTEN = """
name: ask_often
state: {n: {reducer: add, initial: 0}, said: {reducer: append}}
nodes:
  ask: {kind: human, with: {ask: "Again?"}, set: {n: "1", said: "[out]"}}
edges: [[START, ask]]
branches: {ask: [{when: state.n < 3, to: ask}, {to: END}]}
"""

BROKEN = """
name: broken
state: {n: {}, out: {}}
nodes:
  first: {kind: transform, set: {n: "1"}}
  fail: {kind: transform, set: {out: 'state.nothing'}}
edges: [[START, first], [first, fail]]
"""


def answer(client: GoRuntimeIntegration, questions: list[GraphInterrupt], **answers: Any) -> None:
    """Answer the questions of nodes that ask together."""
    by_id = {question.interrupt_id: answers[question.node] for question in questions}
    client.resume_run(questions[0].run_id, by_id, interrupt_id=questions[0].interrupt_id)


def test_updates_are_what_each_node_wrote(client: GoRuntimeIntegration) -> None:
    client.register_graph(STORY)
    chunks = list(client.stream_graph("story", {"topic": "cats"}))
    assert chunks[0] == {"note": {"notes": ["about cats"], "facts": {"a/b": 1}, "n": 1}}
    # They are of one step, which has them in the order in which they return.
    assert sorted(chunks[1:], key=str) == [
        {"more": {"notes": ["more", "still more"], "facts": {"c": [2]}, "n": 1}},
        {"write": {"text": "Once upon a time."}},
    ]


def test_values_are_the_states_behind_the_steps(client: GoRuntimeIntegration) -> None:
    client.register_graph(STORY)
    stream = client.stream_graph("story", {"topic": "cats"}, stream_mode="values")
    states = []
    for state in stream:
        states.append(dict(state))
        # What a caller does to a chunk is not in the next one.
        state.get("notes", []).clear()
    assert states[0] == STATES[0]
    assert [state["n"] for state in states] == [0, 1, 2]
    assert list(client.stream_graph("story", {"topic": "cats"}, stream_mode="values")) == STATES
    assert client.wait_run(stream.run_id).output["output"] == STATES[-1]  # type: ignore[index]


def test_values_of_a_turn_begin_with_those_of_its_thread(client: GoRuntimeIntegration) -> None:
    client.register_graph(STORY)
    for turn in range(3):
        states = list(client.stream_graph("story", {"topic": "cats"}, thread_id="ada", stream_mode="values"))
        assert [state["n"] for state in states] == [2 * turn, 2 * turn + 1, 2 * turn + 2]
        assert states[-1] == client.get_thread_state("ada").values


def test_messages_are_what_models_say(client: GoRuntimeIntegration) -> None:
    client.register_graph(STORY)
    chunks = list(client.stream_graph("story", {"topic": "cats"}, stream_mode="messages"))
    assert "".join(message.content for message, _ in chunks) == "Once upon a time."
    assert {(metadata["langgraph_node"], metadata["langgraph_step"]) for _, metadata in chunks} == {("write", 1)}


def test_debug_has_tasks_results_and_checkpoints(client: GoRuntimeIntegration) -> None:
    client.register_graph(STORY)
    chunks = list(client.stream_graph("story", {"topic": "cats"}, stream_mode="debug"))
    tasks = [chunk["payload"]["name"] for chunk in chunks if chunk["type"] == "task"]
    assert tasks[0] == "note"
    assert sorted(tasks[1:]) == ["more", "write"]
    [wrote] = [chunk for chunk in chunks if chunk["type"] == "task_result" and chunk["payload"]["name"] == "write"]
    assert (wrote["step"], wrote["payload"]["result"], wrote["payload"]["error"]) == (
        1,
        {"text": "Once upon a time."},
        None,
    )
    checkpoints = [chunk["payload"] for chunk in chunks if chunk["type"] == "checkpoint"]
    assert [checkpoint["values"] for checkpoint in checkpoints] == STATES
    assert [sorted(checkpoint["next"]) for checkpoint in checkpoints] == [["note"], ["more", "write"], []]
    assert [checkpoint["metadata"]["source"] for checkpoint in checkpoints] == ["input", "step", "step"]


def test_several_modes_come_with_their_names(client: GoRuntimeIntegration) -> None:
    client.register_graph(STORY)
    chunks = list(client.stream_graph("story", {"topic": "cats"}, stream_mode=["updates", "values", "custom"]))
    assert [chunk for mode, chunk in chunks if mode == "values"] == STATES
    assert [mode for mode, _ in chunks] == ["values", "updates", "values", "updates", "updates", "values"]
    assert list(client.stream_graph("story", {"topic": "cats"}, stream_mode=["values"])) == [
        ("values", state) for state in STATES
    ]


def test_questions_come_as_interrupts_and_the_stream_goes_on(client: GoRuntimeIntegration) -> None:
    client.register_graph(REVIEW)
    chunks: list[Any] = []
    for mode, chunk in client.stream_graph("review", {"text": "Hello"}, stream_mode=["updates", "values"]):
        chunks.append((mode, chunk))
        if mode == "updates" and "__interrupt__" in chunk:
            questions = chunk["__interrupt__"]
            assert {question.node: question.value["question"] for question in questions} == {
                "look": "Is this fine? Hello",
                "feel": "How are you?",
            }
            answer(client, questions, look="yes", feel="well")
    assert next(list(chunk) for mode, chunk in chunks if mode == "updates") == ["__interrupt__"]
    assert sum("__interrupt__" in chunk for _, chunk in chunks) == 2
    assert chunks[-1] == ("values", {"text": "Hello", "verdict": "yes", "mood": "well", "done": True})


def test_one_question_after_another(client: GoRuntimeIntegration) -> None:
    client.register_graph(REVIEW)
    asked = []
    for chunk in client.stream_graph("review", {"text": "Hello"}, thread_id="ada"):
        for question in chunk.get("__interrupt__", ())[:1]:
            asked.append(question.node)
            client.resume_run(question.run_id, "fine", interrupt_id=question.interrupt_id)
    assert sorted(asked) == ["feel", "look"]
    assert client.get_thread_state("ada").values["done"] is True


def test_a_graph_that_fails_raises_behind_its_chunks(client: GoRuntimeIntegration) -> None:
    client.register_graph(BROKEN)
    stream = client.stream_graph("broken", stream_mode=["updates", "debug"])
    chunks: list[Any] = []
    with pytest.raises(exceptions.RunFailed, match="node fail") as failed:
        chunks.extend(stream)
    assert failed.value.run.run_id == stream.run_id
    assert ("updates", {"first": {"n": 1}}) in chunks
    assert [c["payload"]["name"] for mode, c in chunks if mode == "debug" and c["payload"].get("error")] == ["fail"]
    assert list(stream) == []


def test_a_run_that_is_cancelled_raises(client: GoRuntimeIntegration) -> None:
    client.register_graph(REVIEW)
    stream = client.stream_graph("review", {"text": "Hello"})
    [question, _] = next(stream)["__interrupt__"]
    client.cancel_run(question.run_id)
    with pytest.raises(exceptions.RunCancelled):
        next(stream)
    overdue = client.stream_graph("review", {"text": "Hello"}, deadline=0.3)
    with pytest.raises(TimeoutError):
        list(overdue)


def test_what_does_not_fit_is_refused(client: GoRuntimeIntegration) -> None:
    client.register_graph(STORY)
    for mode in ("everything", ["updates", "everything"], [], [["values"]]):
        with pytest.raises(ValueError, match="values, updates, messages, custom, debug"):
            client.stream_graph("story", stream_mode=mode)  # type: ignore[arg-type]
    with pytest.raises(LookupError, match="nothing"):
        client.stream_graph("nothing")
    with pytest.raises(ValueError, match=r"input\.color"):
        client.stream_graph("story", {"color": "red"})
    with pytest.raises(ValueError, match="thread_id"):
        client.stream_graph("story", thread_id="a b")
    with pytest.raises(ValueError, match="input must be a dict"):
        client.stream_graph("story", [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="metadata must be a dict"):
        client.stream_graph("story", metadata=7)  # type: ignore[arg-type]


def test_a_stream_that_is_closed_lets_its_run_go_on(client: GoRuntimeIntegration) -> None:
    client.register_graph(REVIEW)
    with client.stream_graph("review", {"text": "Hello"}) as stream:
        questions = next(stream)["__interrupt__"]
    assert list(stream) == []
    stream.close()
    assert client.stats["watches"] == 0
    answer(client, questions, look="yes", feel="well")
    assert client.wait_run(questions[0].run_id).state is RunState.SUCCEEDED


def test_another_stream_goes_on_with_the_run(client: GoRuntimeIntegration) -> None:
    client.register_graph(ASK_OFTEN)
    everything: list[Any] = []
    stream = client.stream_graph("ask_often", stream_mode=["updates", "values"])
    while True:
        for mode, chunk in stream:
            everything.append((mode, chunk))
            if mode == "values" and "__interrupt__" in chunk:
                break
        else:
            break
        position, [question] = stream.position, everything[-1][1]["__interrupt__"]
        stream.close()
        client.resume_run(question.run_id, "yes", interrupt_id=question.interrupt_id)
        stream = client.stream_run(question.run_id, stream_mode=["updates", "values"], after_sequence=position)
    assert everything == list(client.stream_run(stream.run_id, stream_mode=["updates", "values"]))
    assert [chunk for mode, chunk in everything if mode == "values"][-1] == {"n": 3, "said": ["yes"] * 3}
    assert list(client.stream_run(stream.run_id, after_sequence=stream.position)) == []


async def test_only_what_a_run_tells_can_be_streamed(client: GoRuntimeIntegration) -> None:
    client.register_graph(STORY)
    run = client.submit_task("langgraph_task", {"graph_id": "story", "topic": "cats"})
    updates = [chunk async for chunk in client.astream_run(run.run_id)]
    assert list(updates[0]) == ["note"]
    assert list(client.stream_run(run.run_id, stream_mode="custom")) == []
    for mode in ("values", "messages", "debug"):
        with pytest.raises(ValueError, match=f"stream_mode {mode}"):
            client.stream_run(run.run_id, stream_mode=mode)
    echo = client.submit_task("example_task", {})
    with pytest.raises(ValueError, match="no graph"):
        client.stream_run(echo.run_id)
    with pytest.raises(LookupError):
        await anext(client.astream_run("00000000-0000-0000-0000-000000000001"))
    client.register_graph(BROKEN)
    with pytest.raises(exceptions.RunFailed):
        list(client.stream_run(client.submit_task("langgraph_task", {"graph_id": "broken"}).run_id))


def test_metadata_and_keys_are_the_runs(client: GoRuntimeIntegration) -> None:
    client.register_graph(STORY)
    first = client.stream_graph("story", {"topic": "cats"}, metadata={"a": 1}, idempotency_key="k")
    again = client.stream_graph("story", {"topic": "cats"}, metadata={"a": 1}, idempotency_key="k")
    assert list(first) == list(again)
    assert first.run_id == again.run_id
    assert client.get_run(first.run_id).metadata == {"a": 1, "stream_mode": ["updates"]}


async def test_asyncio(client: GoRuntimeIntegration) -> None:
    client.register_graph(STORY)
    client.register_graph(REVIEW)
    stream = client.astream_graph("story", {"topic": "cats"}, stream_mode="values")
    before = stream.run_id
    assert [chunk async for chunk in stream] == STATES
    assert before is None
    assert stream.run_id
    async with client.astream_graph("review", {"text": "Hello"}) as asking:
        assert asking.run_id is not None
        questions = (await anext(asking))["__interrupt__"]
        waiting = asyncio.ensure_future(anext(asking))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.to_thread(answer, client, questions, look="yes", feel="well")
        updates = [chunk async for chunk in asking]
    assert sorted(updates[:2], key=str) == [{"feel": {"mood": "well"}}, {"look": {"verdict": "yes"}}]
    assert updates[2:] == [{"end": {"done": True}}]
    with pytest.raises(LookupError):
        await anext(client.astream_graph("nothing"))
    with pytest.raises(ValueError, match="stream_mode"):
        client.astream_graph("story", stream_mode="everything")  # type: ignore[arg-type]
    client.register_graph(BROKEN)
    with pytest.raises(exceptions.RunFailed):
        _ = [chunk async for chunk in client.astream_graph("broken")]
    await asking.aclose()
    assert client.stats["watches"] == 0


@pytest.mark.faults
def test_a_stream_over_cut_connections_loses_and_repeats_nothing(
    client: GoRuntimeIntegration, go_runtime_process: GoRuntimeProcess
) -> None:
    network = Network(go_runtime_process.port)
    cut = client.with_settings(host="127.0.0.1", port=network.port, socket=None)
    client.register_graph(ASK_OFTEN)
    try:
        chunks: list[Any] = []
        for mode, chunk in cut.stream_graph("ask_often", stream_mode=["updates", "values"]):
            chunks.append((mode, chunk))
            if mode == "updates" and "__interrupt__" in chunk:
                network.cut()
                [question] = chunk["__interrupt__"]
                client.resume_run(question.run_id, "yes", interrupt_id=question.interrupt_id)
                network.heal(reset=True)
    finally:
        cut.disconnect()
        network.close()
    updates = [chunk for mode, chunk in chunks if mode == "updates" and "__interrupt__" not in chunk]
    assert updates == [{"ask": {"n": 1, "said": ["yes"]}}] * 3
    # A run that goes on begins with the state that it had.
    states = [chunk["n"] for mode, chunk in chunks if mode == "values" and "__interrupt__" not in chunk]
    assert states == [0, 0, 1, 1, 2, 2, 3]
    assert chunks[-1] == ("values", {"n": 3, "said": ["yes"] * 3})


@pytest.mark.faults
def test_a_stream_over_restarts_goes_on_where_it_was(mortal_runtime: GoRuntimeProcess) -> None:
    with GoRuntimeIntegration(**mortal_runtime.settings) as client:
        client.register_graph(REVIEW.replace("name: review", "name: review\ndurability: sync"))
        stream = client.stream_graph("review", {"text": "Hello"}, stream_mode=["updates", "values"])
        chunks = [next(stream) for _ in range(3)]
        assert chunks[0] == ("values", {"text": "Hello"})
        questions = chunks[1][1]["__interrupt__"]
        mortal_runtime.kill()
        starting = threading.Thread(target=mortal_runtime.start)
        starting.start()
        answer(client, questions, look="yes", feel="well")
        starting.join()
        rest = list(stream)
    assert [chunk for mode, chunk in rest if mode == "updates"][-1] == {"end": {"done": True}}
    assert rest[-1] == ("values", {"text": "Hello", "verdict": "yes", "mood": "well", "done": True})
    assert not [chunk for _, chunk in rest if "__interrupt__" in chunk], "it was asked again"
