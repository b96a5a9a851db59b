"""Many tasks in few calls: handed over in order, whole calls or nothing, and waited for over whatever happens."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from django_agent_runtime import exceptions
from django_agent_runtime._errors import CallFailure
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.types import NewTask, RunState, RunTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django_agent_runtime.testing.process import GoRuntimeProcess

MANY = 2500


def echoes(count: int) -> Iterator[NewTask]:
    return (NewTask("echo", {"n": number}, agent_id="batch") for number in range(count))


def numbers(count: int) -> list[dict[str, int]]:
    return [{"n": number} for number in range(count)]


def test_many_tasks_are_handed_over_and_collected(client: GoRuntimeIntegration) -> None:
    runs = client.submit_tasks(echoes(MANY))
    assert len({run.run_id for run in runs}) == MANY
    assert {(run.task_type, run.agent_id, run.input) for run in runs} == {("echo", "batch", None)}
    ended = client.wait_runs(run.run_id for run in runs)
    assert [run.run_id for run in ended] == [run.run_id for run in runs]
    assert [run.output for run in ended] == numbers(MANY)
    again = client.wait_runs([runs[1].run_id, runs[0].run_id, runs[1].run_id], timeout=0)
    assert [run.output for run in again] == [{"n": 1}, {"n": 0}, {"n": 1}]
    assert client.submit_tasks([]) == []
    assert client.wait_runs([]) == []


async def test_the_twins(client: GoRuntimeIntegration) -> None:
    runs = await client.asubmit_tasks(echoes(MANY))
    ended = await client.await_runs(run.run_id for run in runs)
    assert [run.output for run in ended] == numbers(MANY)


def test_a_task_may_be_a_mapping_or_for_an_agent(client: GoRuntimeIntegration) -> None:
    button = {"component_type": "button", "props": {"label": "Click me"}}
    runs = client.submit_tasks(
        [
            {"task_type": "echo", "input_data": {"a": 1}, "metadata": {"m": 1}, "deadline": 60, "description": "d"},
            NewTask("generate_component", button, "frontend_agent", target=RunTarget.AGENT),
        ]
    )
    echo, agent = client.wait_runs(run.run_id for run in runs)
    assert (echo.output, echo.metadata, echo.description) == ({"a": 1}, {"m": 1}, "d")
    assert echo.deadline is not None
    assert agent.target is RunTarget.AGENT
    assert agent.output is not None
    assert agent.output["files"]


def test_large_tasks_are_spread_over_calls(client: GoRuntimeIntegration) -> None:
    text = "x" * (1 << 19)
    runs = client.submit_tasks(NewTask("echo", {"n": number, "text": text}) for number in range(40))
    ended = client.wait_runs(run.run_id for run in runs)
    assert [run.output and run.output["n"] for run in ended] == list(range(40))


def test_a_task_that_cannot_be_sent_is_named(client: GoRuntimeIntegration) -> None:
    with pytest.raises(exceptions.InvalidValue, match=r"tasks\[1\]\.input_data") as caught:
        client.submit_tasks([NewTask("echo"), NewTask("echo", {"x": float("nan")})])
    assert [field for field, _ in caught.value.violations] == ['tasks[1].input_data["x"]']
    with pytest.raises(exceptions.InvalidValue, match=r"tasks\[0\]\.deadline"):
        client.submit_tasks([NewTask("echo", deadline=-1)])
    assert list(client.list_runs()) == []


def test_a_call_is_refused_as_a_whole_and_the_ones_before_it_are_told(client: GoRuntimeIntegration) -> None:
    with pytest.raises(exceptions.InvalidRequest) as caught:
        client.submit_tasks([*echoes(1000), *echoes(2), NewTask("echo", description="x" * 2000)])
    assert [field for field, _ in caught.value.violations] == ["requests[2].description"]
    assert len(caught.value.runs) == 1000
    assert len(list(client.list_runs(page_size=500))) == 1000
    with pytest.raises(exceptions.TaskTypeNotFound) as unknown:
        client.submit_tasks([NewTask("echo"), NewTask("no_such_task")])
    assert unknown.value.metadata["request"] == "1"
    client.submit_tasks([NewTask("echo", {"a": 1}, idempotency_key="once")])
    with pytest.raises(exceptions.IdempotencyConflict):
        client.submit_tasks([NewTask("echo"), NewTask("echo", {"a": 2}, idempotency_key="once")])
    assert len(list(client.list_runs(page_size=500))) == 1001


def test_a_key_that_is_known_joins_its_run(client: GoRuntimeIntegration) -> None:
    first = client.submit_task("echo", {"a": 1}, idempotency_key="k")
    joined, new = client.submit_tasks([NewTask("echo", {"a": 1}, idempotency_key="k"), NewTask("echo", {"a": 1})])
    assert joined.run_id == first.run_id != new.run_id


def test_runs_that_have_not_ended_in_time_are_told_as_they_are(client: GoRuntimeIntegration) -> None:
    slow, quick = client.submit_tasks([NewTask("sleep", {"seconds": 600}), NewTask("echo", {"n": 1})])
    client.wait_run(quick.run_id)
    for timeout in (0, 0.1):
        with pytest.raises(exceptions.CallTimedOut, match="1 of 2 runs") as caught:
            client.wait_runs([slow.run_id, quick.run_id], timeout=timeout)
        left, ended = caught.value.runs
        assert (left.run_id, left.state.ended, ended.output) == (slow.run_id, False, {"n": 1})
    client.cancel_run(slow.run_id)
    assert client.wait_runs([slow.run_id])[0].state is RunState.CANCELLED
    with pytest.raises(exceptions.RunNotFound) as unknown:
        client.wait_runs([quick.run_id, "nobody"])
    assert unknown.value.metadata["run_id"] == "nobody"


def test_an_attempt_whose_answer_was_lost_is_joined(
    client: GoRuntimeIntegration, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = client._transport.attempt
    lost: list[Any] = []

    def lose_the_first(rpc: Any, *arguments: Any) -> Any:
        outcome = attempt(rpc, *arguments)
        if rpc.method != "BatchCreateRuns" or lost:
            return outcome
        lost.append(outcome)
        return CallFailure(grpc.StatusCode.UNAVAILABLE, "as the test says")

    monkeypatch.setattr(client._transport, "attempt", lose_the_first)
    runs = client.submit_tasks(echoes(3))
    assert [run.run_id for run in runs] == [response.run.run_id for response in lost[0].responses]
    assert len(list(client.list_runs())) == 3


async def test_cancelling_the_wait_ends_its_call(client: GoRuntimeIntegration) -> None:
    (run,) = await client.asubmit_tasks([NewTask("sleep", {"seconds": 600})])
    waiting = asyncio.create_task(client.await_runs([run.run_id], timeout=60))
    session = client._transport._session
    assert session is not None
    await asyncio.to_thread(await_condition, lambda: session.calls == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.to_thread(await_condition, lambda: session.calls == 0)
    await asyncio.to_thread(await_condition, lambda: not any(map(is_caller, threading.enumerate())))
    await client.acancel_run(run.run_id)


def is_caller(thread: threading.Thread) -> bool:
    return thread.name == "agent-runtime-call"


def await_condition(condition: Callable[[], bool]) -> None:
    tick = threading.Event()
    for _ in range(20_000):
        if condition():
            return
        tick.wait(0.001)
    raise AssertionError("the condition was not met")


def test_the_wait_goes_on_over_a_crash(mortal_runtime: GoRuntimeProcess) -> None:
    with GoRuntimeIntegration(**{**mortal_runtime.settings, "timeout": 60}) as client, ThreadPoolExecutor() as pool:
        runs = client.submit_tasks([NewTask("sleep", {"seconds": 1}), *echoes(50)])
        waited = pool.submit(client.wait_runs, [run.run_id for run in runs])
        session = client._transport._session
        assert session is not None
        await_condition(lambda: session.calls == 1)
        mortal_runtime.kill()
        mortal_runtime.start()
        slow, *ended = waited.result()
        assert slow.state is RunState.SUCCEEDED
        assert [run.output for run in ended] == numbers(50)
        assert len(list(client.list_runs())) == 51


def test_disconnecting_ends_the_wait(client: GoRuntimeIntegration) -> None:
    (run,) = client.submit_tasks([NewTask("sleep", {"seconds": 600})])
    with ThreadPoolExecutor() as pool:
        waited = pool.submit(client.wait_runs, [run.run_id], 60)
        session = client._transport._session
        assert session is not None
        await_condition(lambda: session.calls == 1)
        client.disconnect()
        with pytest.raises(exceptions.ClientClosed):
            waited.result()
    client.cancel_run(run.run_id)
