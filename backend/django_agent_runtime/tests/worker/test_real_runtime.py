"""Workers and the real runtime: what both sides make of the contract."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_agent_runtime._channel import CANCEL_RUN, CREATE_RUN, GET_RUN, ChannelSession, Rpc
from django_agent_runtime._errors import CallFailure
from django_agent_runtime.conf import load
from django_agent_runtime.exceptions import TooLarge
from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from django_agent_runtime.runtime.interfaces import AgentRuntime, DoNotRetry, RetryAfter, RunContext
from django_agent_runtime.runtime.sync import SyncRunContext
from django_agent_runtime.testing.process import GoRuntimeProcess

pytestmark = pytest.mark.faults

PATIENCE_SECONDS = 40.0
ENDED = {
    agent_pb.RUN_STATE_SUCCEEDED,
    agent_pb.RUN_STATE_FAILED,
    agent_pb.RUN_STATE_CANCELLED,
    agent_pb.RUN_STATE_TIMED_OUT,
}
WATCH_RUN = Rpc("agentruntime.v1.AgentService", "WatchRun", agent_pb.WatchRunRequest, agent_pb.WatchRunResponse)
RESUME_RUN = Rpc("agentruntime.v1.AgentService", "ResumeRun", agent_pb.ResumeRunRequest, agent_pb.ResumeRunResponse)


def agent(run: Callable[..., Any], key: str = "agent", **attributes: Any) -> AgentRuntime:
    """An agent whose `run` is the function."""
    kind = type("TestAgent", (AgentRuntime,), {"key": key, "run": staticmethod(run), **attributes})
    return kind()  # type: ignore[no-any-return]


class Caller:
    """Calls of the runtime as they are on the wire."""

    def __init__(self, process: GoRuntimeProcess) -> None:
        self.process = process
        self.settings = {"host": process.host, "port": process.port}
        self._session = ChannelSession(load(process.settings))

    def call(self, rpc: Any, request: Any) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = self._session.call(rpc, request, 10, ())
            if not isinstance(answer, CallFailure):
                return answer
            assert answer.code.name == "UNAVAILABLE", answer
            assert time.monotonic() < deadline, answer
            time.sleep(0.05)

    def submit(self, agent_key: str, content: str = "", **fields: Any) -> str:
        whole = {"messages": [{"role": "user", "content": content}], "params": {}}
        request = agent_pb.CreateRunRequest(
            run_id=str(uuid.uuid4()),
            target=agent_pb.RUN_TARGET_WORKER,
            agent_id=agent_key,
            task_type="agent.run",
            input=json.dumps(whole).encode(),
            **fields,
        )
        return str(self.call(CREATE_RUN, request).run.run_id)

    def get(self, run_id: str) -> agent_pb.Run:
        run: agent_pb.Run = self.call(GET_RUN, agent_pb.GetRunRequest(run_id=run_id)).run
        return run

    def wait_for(self, run_id: str, *states: agent_pb.RunState) -> agent_pb.Run:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (run := self.get(run_id)).state not in (states or ENDED):
            assert time.monotonic() < deadline, run
            time.sleep(0.01)
        return run

    def cancel(self, run_id: str) -> None:
        self.call(CANCEL_RUN, agent_pb.CancelRunRequest(run_id=run_id))

    def resume(self, run_id: str, value: Any) -> None:
        self.call(RESUME_RUN, agent_pb.ResumeRunRequest(run_id=run_id, value=json.dumps(value).encode()))

    def events_of(self, run_id: str) -> list[agent_pb.RunEvent]:
        """All events of a run that has ended."""
        call = self._session.stream(WATCH_RUN, agent_pb.WatchRunRequest(run_id=run_id), (), 30)
        return [event for response in call for event in response.events]

    def close(self) -> None:
        self._session.close()


def response_of(run: agent_pb.Run) -> Any:
    return json.loads(run.output)["final_output"]


def poll(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    with GoRuntimeProcess(tmp_path) as process:
        caller = Caller(process)
        yield caller
        caller.close()


async def until(event: threading.Event) -> None:
    """Wait for an event of the test's thread without holding up the loop."""
    while not event.is_set():  # noqa: ASYNC110 - it is set in another thread
        await asyncio.sleep(0.005)


def test_run_with_events_and_steps(caller: Caller, start_worker: Callable[..., Any]) -> None:
    async def work(ctx: RunContext) -> dict[str, Any]:
        await asyncio.gather(*(ctx.emit("tool.call", {"n": n}) for n in range(100)))
        for word in ("a", "b", "c"):
            await ctx.emit("assistant.delta", {"content": word})
        await ctx.checkpoint({"attempt": ctx.attempt})
        first = await ctx.step("once", lambda: uuid.uuid4().hex)
        if ctx.attempt == 1:
            raise RetryAfter(0, "once more")
        return {"first": first, "attempt": ctx.attempt, "state": await ctx.get_state()}

    start_worker(caller, agent(work))
    run = caller.wait_for(caller.submit("agent"))
    events = caller.events_of(run.run_id)
    steps = [json.loads(event.payload) for event in events if event.type == "step.completed"]
    assert response_of(run) == {"first": steps[0]["result"], "attempt": 2, "state": {"attempt": 2}}
    assert len(steps) == 1
    for attempt in (1, 2):
        own = [event for event in events if event.attempt == attempt]
        assert [json.loads(event.payload)["n"] for event in own if event.type == "tool.call"] == list(range(100))
        deltas = [json.loads(event.payload)["content"] for event in own if event.type == "assistant.delta"]
        assert "".join(deltas) == "abc"
    sequences = [event.sequence for event in events]
    assert sequences == sorted(set(sequences))


def test_what_is_too_large_is_refused_where_it_is_said(caller: Caller, start_worker: Callable[..., Any]) -> None:
    async def work(ctx: RunContext) -> dict[str, Any]:
        large = {"text": "x" * (3 << 19)}
        limits = []
        for call in (
            lambda: ctx.checkpoint(large),
            lambda: ctx.emit("mine", large),
            lambda: ctx.emit("assistant.delta", {"content": large["text"]}),
            lambda: ctx.step("large", lambda: large),
        ):
            with pytest.raises(TooLarge) as refusal:
                await call()
            limits.append(refusal.value.metadata["limit"])
        return {"limits": limits}

    start_worker(caller, agent(work))
    run = caller.wait_for(caller.submit("agent"))
    assert response_of(run) == {"limits": [str(1 << 20)] * 4}


def test_failure_for_good(caller: Caller, start_worker: Callable[..., Any]) -> None:
    async def fail(ctx: RunContext) -> None:
        raise DoNotRetry("never again")

    start_worker(caller, agent(fail))
    run = caller.wait_for(caller.submit("agent"))
    assert (run.state, run.attempt, run.error.reason) == (agent_pb.RUN_STATE_FAILED, 1, "AGENT_FAILED")
    assert run.error.message == "never again"


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
def test_cancel_frees_the_place(caller: Caller, start_worker: Callable[..., Any], plain: bool) -> None:
    async def wait(ctx: RunContext) -> None:
        await asyncio.sleep(3600)

    def wait_plainly(ctx: SyncRunContext) -> None:
        while True:
            ctx.raise_if_cancelled()
            time.sleep(0.001)

    async def quick(ctx: RunContext) -> None: ...

    start_worker(caller, agent(wait_plainly if plain else wait), agent(quick, "quick"), concurrency=1)
    for _ in range(3):
        run_id = caller.submit("agent")
        caller.wait_for(run_id, agent_pb.RUN_STATE_RUNNING)
        caller.cancel(run_id)
        assert caller.get(run_id).state == agent_pb.RUN_STATE_CANCELLED
    assert caller.wait_for(caller.submit("quick")).state == agent_pb.RUN_STATE_SUCCEEDED


def test_interrupt_and_sub_runs(caller: Caller, start_worker: Callable[..., Any]) -> None:
    async def parent(ctx: RunContext) -> dict[str, Any]:
        outputs = await asyncio.gather(*(ctx.run_agent("child", [{"content": text}]) for text in "ab"))
        name = await ctx.interrupt({"question": "name?"})
        return {"said": [output["final_output"]["said"] for output in outputs], "name": name}

    async def child(ctx: RunContext) -> dict[str, Any]:
        return {"said": ctx.input_messages[0]["content"]}

    start_worker(caller, agent(parent), agent(child, "child"), concurrency=1)
    run_id = caller.submit("agent")
    poll(lambda: caller.get(run_id).HasField("interrupt"))
    assert caller.get(run_id).state == agent_pb.RUN_STATE_WAITING
    caller.resume(run_id, "Ada")
    run = caller.wait_for(run_id)
    assert response_of(run) == {"said": ["a", "b"], "name": "Ada"}
    assert run.attempt == 1


def test_sub_run_of_an_agent_of_the_runtime(caller: Caller, start_worker: Callable[..., Any]) -> None:
    async def delegate(ctx: RunContext) -> Any:
        answer = await ctx.run_agent("frontend_agent", [{"role": "user", "content": "A button, please."}])
        return {"answer": answer["final_output"]["response"]}

    async def err(ctx: RunContext) -> Any:
        return await ctx.run_agent("nobody_knows_it", [])

    start_worker(caller, agent(delegate), agent(err, "erring", max_attempts=1))
    assert response_of(caller.wait_for(caller.submit("agent")))["answer"]
    failed = caller.wait_for(caller.submit("erring"))
    assert failed.state == agent_pb.RUN_STATE_FAILED
    assert "nobody_knows_it" in failed.error.message
    assert "agents of this project: chat-agent" in failed.error.message
    # Its worker may not have connected yet.
    assert failed.error.retryable


@pytest.mark.parametrize("gracefully", [False, True], ids=["killed", "stopped"])
def test_runtime_restarts_under_runs(caller: Caller, start_worker: Callable[..., Any], gracefully: bool) -> None:
    """Runs go on meanwhile: executed once, and no event is lost or doubled."""
    executions: list[str] = []
    enough = threading.Event()

    async def stream(ctx: RunContext) -> dict[str, Any]:
        executions.append(ctx.run_id)
        count = 0
        while not enough.is_set():
            await ctx.emit("n", {"n": count})
            count += 1
            if count % 20 == 0:
                await ctx.step("work", lambda: 1)
            await asyncio.sleep(0.002)
        return {"count": count}

    worker = start_worker(caller, agent(stream))
    runs = [caller.submit("agent") for _ in range(4)]
    poll(lambda: len(executions) == 4)
    for _ in range(3):
        if gracefully:
            caller.process.stop()
        else:
            caller.process.kill()
        poll(lambda: not worker.connected)
        caller.process.start()
        poll(lambda: worker.connected)
    enough.set()
    for run_id in runs:
        run = caller.wait_for(run_id)
        assert run.state == agent_pb.RUN_STATE_SUCCEEDED, run.error
        numbers = [json.loads(event.payload)["n"] for event in caller.events_of(run_id) if event.type == "n"]
        assert numbers == list(range(response_of(run)["count"]))
    assert sorted(executions) == sorted(runs)


def test_frozen_worker_does_not_speak_for_its_run(caller: Caller, make_site: Callable[..., Any]) -> None:
    site = make_site(caller.process.port)
    frozen = site.start("--noreload", SITE_LEASE="1")
    run_id = caller.submit("wait")
    caller.wait_for(run_id, agent_pb.RUN_STATE_RUNNING)
    frozen.send_signal(signal.SIGSTOP)
    other = site.start("--noreload", SITE_LEASE="1")
    poll(lambda: caller.get(run_id).attempt == 2)
    site.touch("go-on")
    run = caller.wait_for(run_id)
    frozen.send_signal(signal.SIGCONT)
    # The frozen one could have ended its run too, and is free for others.
    other.send_signal(signal.SIGTERM)
    assert other.wait(PATIENCE_SECONDS) == 0
    assert response_of(caller.wait_for(caller.submit("quick")))["pid"] == frozen.pid
    assert response_of(run) == {"pid": other.pid}
    assert caller.get(run_id).output == run.output


def test_stop_gives_back_without_counting(caller: Caller, start_worker: Callable[..., Any]) -> None:
    begun = threading.Event()

    async def work(ctx: RunContext) -> dict[str, Any]:
        if not begun.is_set():
            begun.set()
            await asyncio.sleep(3600)
        return {"attempt": ctx.attempt}

    first = start_worker(caller, agent(work))
    run_id = caller.submit("agent")
    assert begun.wait(PATIENCE_SECONDS)
    first.stop(0)
    assert first.finished.wait(PATIENCE_SECONDS)
    start_worker(caller, agent(work))
    assert response_of(caller.wait_for(run_id)) == {"attempt": 1}


def test_many_runs_over_two_workers(caller: Caller, start_worker: Callable[..., Any]) -> None:
    executed: list[str] = []

    async def work(ctx: RunContext) -> dict[str, Any]:
        await ctx.step("note", lambda: executed.append(ctx.run_id))
        return {"run_id": ctx.run_id}

    for _ in range(2):
        start_worker(caller, agent(work), concurrency=20)
    runs = [caller.submit("agent") for _ in range(300)]
    for run_id in runs:
        assert response_of(caller.wait_for(run_id)) == {"run_id": run_id}
    assert sorted(executed) == sorted(runs)


def test_workers_are_replaced_under_load(caller: Caller, start_worker: Callable[..., Any]) -> None:
    """As a deploy does it: no run waits for a lease to lapse, and none has lost an attempt."""

    async def work(ctx: RunContext) -> dict[str, Any]:
        await asyncio.sleep(0.001)
        return {"attempt": ctx.attempt}

    # So long that the test is over before a lease lapses.
    settings = {"LEASE_TTL_SECONDS": 600}
    runs: list[str] = []
    workers = deque(start_worker(caller, agent(work), concurrency=5, settings=settings) for _ in range(2))
    for _ in range(20):
        runs.extend(caller.submit("agent") for _ in range(20))
        workers.append(start_worker(caller, agent(work), concurrency=5, settings=settings))
        workers.popleft().stop(0)
    for run_id in runs:
        assert response_of(caller.wait_for(run_id)) == {"attempt": 1}
