"""Streams that break, fall silent or come back; runs that are cancelled or taken away; and how a worker stops."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from django_agent_runtime._channel import ChannelSession, Transport
from django_agent_runtime.grpc_client.agentruntime.v1 import worker_service_pb2 as worker_pb
from django_agent_runtime.runtime.interfaces import AgentRuntime, RunContext, RunInterrupted
from django_agent_runtime.runtime.sync import SyncRunContext
from django_agent_runtime.runtime.worker.connection import Connection
from django_agent_runtime.runtime.worker.ledger import Lease, Ledger


def agent(run: Callable[..., Any], key: str = "agent", **attributes: Any) -> AgentRuntime:
    """An agent whose `run` is the function."""
    kind = type("TestAgent", (AgentRuntime,), {"key": key, "run": staticmethod(run), **attributes})
    return kind()  # type: ignore[no-any-return]


async def until(event: threading.Event) -> None:
    """Wait for an event of the test's thread without holding up the loop."""
    while not event.is_set():  # noqa: ASYNC110 - it is set in another thread
        await asyncio.sleep(0.005)


async def sleep_long(ctx: RunContext) -> None:
    await ctx.emit("begun")
    await asyncio.sleep(60)


def test_cancelled_code_ends_and_its_place_is_free(runtime: Any, start_worker: Callable[..., Any]) -> None:
    ended: list[str] = []

    async def wait(ctx: RunContext) -> None:
        try:
            await sleep_long(ctx)
        except asyncio.CancelledError:
            ended.append("cancelled" if ctx.is_cancelled else "?")
            with pytest.raises(asyncio.CancelledError):
                await ctx.emit("late")
            raise

    start_worker(runtime, agent(wait), concurrency=1)
    for _ in range(3):
        run = runtime.submit("agent")
        runtime.wait_for_event(run, "begun")
        runtime.cancel(run)
    runtime.wait_until(lambda: runtime.releases == 3)
    assert ended == ["cancelled"] * 3
    assert runtime.refusals == []


def test_cancel_reaches_plain_code(runtime: Any, start_worker: Callable[..., Any]) -> None:
    met: list[str] = []

    def wait(ctx: SyncRunContext) -> None:
        ctx.emit("begun")
        while not ctx.is_cancelled:
            time.sleep(0.001)
        try:
            ctx.emit("late")
        except RunInterrupted:
            met.append("interrupted")
            raise

    start_worker(runtime, agent(wait))
    run = runtime.submit("agent")
    runtime.wait_for_event(run, "begun")
    runtime.cancel(run)
    runtime.wait_until(lambda: runtime.releases)
    assert met == ["interrupted"]


def test_cancel_reaches_plain_code_in_a_step(runtime: Any, start_worker: Callable[..., Any]) -> None:
    """A thread that waits for its context, not only one that asks it."""

    def wait(ctx: SyncRunContext) -> None:
        ctx.emit("begun")
        ctx.call(asyncio.sleep(0.05))
        ctx.step("slow", lambda: 1)
        raise AssertionError("not reached")

    start_worker(runtime, agent(wait))
    with runtime.changed:
        run = runtime.submit("agent")
        run.acks_held = True
    runtime.wait_until(lambda: run.steps)
    runtime.cancel(run)
    runtime.wait_until(lambda: runtime.releases)


def test_agent_that_swallows_its_cancellation(runtime: Any, start_worker: Callable[..., Any]) -> None:
    async def stubborn(ctx: RunContext) -> str:
        try:
            await sleep_long(ctx)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
        return "done all the same"

    start_worker(runtime, agent(stubborn))
    run = runtime.submit("agent")
    runtime.wait_for_event(run, "begun")
    runtime.cancel(run)
    runtime.wait_until(lambda: runtime.releases)
    assert (run.state, run.output) == ("cancelled", None)


def test_many_cancelled_at_once(runtime: Any, start_worker: Callable[..., Any]) -> None:
    start_worker(runtime, agent(sleep_long), concurrency=1000)
    runs = [runtime.submit("agent") for _ in range(1000)]
    runtime.wait_until(lambda: all(run.events for run in runs))
    for run in runs:
        runtime.cancel(run)
    runtime.wait_until(lambda: runtime.releases == 1000)


def test_cut_stream_within_the_lease(runtime: Any, start_worker: Callable[..., Any]) -> None:
    """No second execution, no event lost or doubled, over many cuts."""
    executions: list[str] = []
    enough = threading.Event()

    async def stream(ctx: RunContext) -> dict[str, Any]:
        executions.append(ctx.run_id)
        count = 0
        while not enough.is_set():
            await ctx.emit("n", {"n": count})
            count += 1
            if count % 50 == 0:
                await ctx.step("work", lambda: asyncio.sleep(0.001))
            await asyncio.sleep(0.001)
        return {"count": count}

    worker = start_worker(runtime, agent(stream))
    runs = [runtime.submit("agent") for _ in range(5)]
    for cut in range(8):
        lengths = [len(run.events) for run in runs]
        runtime.wait_until(
            lambda lengths=lengths: all(len(run.events) > n for run, n in zip(runs, lengths, strict=True))
        )
        runtime.cut()
        runtime.wait_until(lambda cut=cut: len(runtime.hellos) > cut + 1)
    enough.set()
    for run in runs:
        assert runtime.wait_for(run).state == "succeeded"
        assert [event.payload["n"] for event in run.events] == list(range(run.output["final_output"]["count"]))
    assert sorted(executions) == sorted(run.run_id for run in runs)
    assert worker.connected


def test_result_that_was_made_while_away(runtime: Any, start_worker: Callable[..., Any]) -> None:
    executions: list[int] = []
    go_on = threading.Event()

    async def work(ctx: RunContext) -> str:
        executions.append(ctx.attempt)
        await ctx.emit("begun")
        await until(go_on)
        await ctx.emit("ended")
        return "made while away"

    worker = start_worker(runtime, agent(work))
    run = runtime.submit("agent")
    runtime.wait_for_event(run, "begun")
    runtime.stop_serving()
    go_on.set()
    _poll(lambda: worker.ledger.has_unacknowledged)
    runtime.serve()
    assert runtime.wait_for(run).output["final_output"] == {"response": "made while away"}
    assert [event.type for event in run.events] == ["begun", "ended"]
    assert executions == [1]


def test_lease_that_lapses_while_away(runtime: Any, start_worker: Callable[..., Any]) -> None:
    """The code is stopped by the worker's own clock, and nothing that it said late is kept."""
    ended = threading.Event()

    async def work(ctx: RunContext) -> str:
        await ctx.emit("begun", {"attempt": ctx.attempt})
        if ctx.attempt > 1:
            return "second"
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return "first"

    start_worker(runtime, agent(work), settings={"LEASE_TTL_SECONDS": 2})
    run = runtime.submit("agent")
    runtime.wait_for_event(run, "begun")
    runtime.stop_serving()
    assert ended.wait(30)
    runtime.serve()
    assert runtime.wait_for(run).output["final_output"] == {"response": "second"}
    assert [event.payload["attempt"] for event in run.events] == [1, 2]


def test_silent_stream_is_opened_again(runtime: Any, start_worker: Callable[..., Any]) -> None:
    executions: list[int] = []
    go_on = threading.Event()

    async def work(ctx: RunContext) -> None:
        executions.append(ctx.attempt)
        await ctx.emit("begun")
        await until(go_on)

    start_worker(runtime, agent(work), settings={"LEASE_TTL_SECONDS": 6})
    run = runtime.submit("agent")
    runtime.wait_for_event(run, "begun")
    runtime.deafen()
    runtime.wait_until(lambda: len(runtime.hellos) >= 2)
    assert len(runtime.hellos[1].held) == 1
    go_on.set()
    assert runtime.wait_for(run).state == "succeeded"
    assert executions == [1]


def test_draining_runtime_is_left_and_runs_are_kept(runtime: Any, start_worker: Callable[..., Any]) -> None:
    executions: list[int] = []
    go_on = threading.Event()

    async def work(ctx: RunContext) -> None:
        executions.append(ctx.attempt)
        await ctx.emit("begun")
        await until(go_on)

    start_worker(runtime, agent(work))
    run = runtime.submit("agent")
    runtime.wait_for_event(run, "begun")
    runtime.announce_drain()
    runtime.wait_until(lambda: len(runtime.hellos) == 2)
    go_on.set()
    assert runtime.wait_for(run).state == "succeeded"
    assert executions == [1]


def test_lease_that_was_taken_away_is_not_reported(
    runtime: Any, start_worker: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="django_agent_runtime.runtime.worker")
    start_worker(runtime, agent(sleep_long))
    run = runtime.submit("agent", max_attempts=1)
    runtime.wait_for_event(run, "begun")
    with runtime.changed:
        # As after a restart of the runtime that came too late for the lease.
        run.worker = None
        runtime._end(run, "failed", "ATTEMPTS_EXHAUSTED")
    runtime.cut()
    _poll(lambda: any(record.message == "lease lost" for record in caplog.records))
    lost = next(record for record in caplog.records if record.message == "lease lost")
    assert vars(lost)["run_id"] == run.run_id
    assert runtime.refusals == []


def test_worker_waits_for_a_runtime_that_is_not_there_yet(
    runtime: Any, start_worker: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def fine(ctx: RunContext) -> None: ...

    runtime.stop_serving()
    worker = start_worker(runtime, agent(fine))
    run = runtime.submit("agent")
    away = "agent runtime cannot be reached, trying again"
    _poll(lambda: any(record.message == away for record in caplog.records))
    assert not worker.connected
    runtime.serve()
    assert runtime.wait_for(run).state == "succeeded"
    [said] = [record for record in caplog.records if record.message == away]
    assert "goruntime" in vars(said)["err"]


def test_stop_is_no_loss_in_the_log(
    runtime: Any, start_worker: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def fine(ctx: RunContext) -> None: ...

    worker = start_worker(runtime, agent(fine))
    runtime.wait_for(runtime.submit("agent"))
    worker.stop()
    assert worker.finished.wait(30)
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_stop_lets_runs_finish(runtime: Any, start_worker: Callable[..., Any]) -> None:
    go_on = threading.Event()

    async def work(ctx: RunContext) -> None:
        await ctx.emit("begun")
        await until(go_on)

    worker = start_worker(runtime, agent(work))
    run = runtime.submit("agent")
    runtime.wait_for_event(run, "begun")
    worker.stop(60)
    runtime.wait_until(lambda: next(iter(runtime.workers.values())).draining)
    go_on.set()
    assert worker.finished.wait(30)
    assert run.state == "succeeded"


def test_stop_gives_back_what_does_not_finish(runtime: Any, start_worker: Callable[..., Any]) -> None:
    async def work(ctx: RunContext) -> None:
        try:
            await sleep_long(ctx)
        except asyncio.CancelledError as error:
            raise RuntimeError("code that makes another error of it") from error

    worker = start_worker(runtime, agent(work), agent(sleep_long, "other"))
    runs = [runtime.submit("agent"), runtime.submit("other")]
    for run in runs:
        runtime.wait_for_event(run, "begun")
    worker.stop(0)
    assert worker.finished.wait(30)
    assert [(run.state, run.attempt, run.history[-1]) for run in runs] == [("queued", 0, "given back")] * 2


def test_second_stop_hurries(runtime: Any, start_worker: Callable[..., Any]) -> None:
    worker = start_worker(runtime, agent(sleep_long))
    run = runtime.submit("agent")
    runtime.wait_for_event(run, "begun")
    worker.stop(3600)
    runtime.wait_until(lambda: next(iter(runtime.workers.values())).draining)
    worker.stop()
    assert worker.finished.wait(30)
    assert run.history[-1] == "given back"


def test_run_on_its_way_to_a_worker_that_ends_goes_to_another_at_once(
    runtime: Any, start_worker: Callable[..., Any]
) -> None:
    """It has nothing to do and so ends at once: nothing waits for its lease to lapse, and no attempt is counted."""

    async def work(ctx: RunContext) -> None:
        await ctx.emit("begun")

    worker = start_worker(runtime, agent(work))
    runtime.wait_until(lambda: runtime.workers)
    late = []
    runtime.on_drain = lambda _: late.append(runtime.submit("agent"))
    worker.stop()
    assert worker.finished.wait(30)
    runtime.on_drain = lambda _: None
    assert (late[0].state, late[0].attempt) == ("queued", 0)
    assert late[0].history == ["started 1", "given back"]
    start_worker(runtime, agent(work))
    assert runtime.wait_for(late[0]).attempt == 1


def test_worker_that_ends_before_it_is_connected_says_no_hello(
    runtime: Any, start_worker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could be given runs, and would not hear of them."""
    begins, ended = threading.Event(), threading.Event()
    opened: list[object] = []
    enter, leave = Transport.enter, Connection.leave

    def enter_late(transport: Transport) -> ChannelSession:
        begins.set()
        assert ended.wait(30)
        return enter(transport)

    def leave_first(connection: Connection, seconds: float) -> None:
        leave(connection, seconds)
        ended.set()

    monkeypatch.setattr(Transport, "enter", enter_late)
    monkeypatch.setattr(Connection, "leave", leave_first)
    monkeypatch.setattr(ChannelSession, "stream", lambda *arguments: opened.append(arguments))
    worker = start_worker(runtime, agent(sleep_long))
    assert begins.wait(30)
    worker.stop()
    assert worker.finished.wait(30)
    _poll(lambda: not any(thread.name == "agent-runtime-worker" for thread in threading.enumerate()))
    assert opened == []


def test_run_that_comes_while_stopping_is_given_back(runtime: Any, start_worker: Callable[..., Any]) -> None:
    go_on = threading.Event()

    async def work(ctx: RunContext) -> None:
        await ctx.emit("begun")
        await until(go_on)

    worker = start_worker(runtime, agent(work))
    first = runtime.submit("agent")
    runtime.wait_for_event(first, "begun")
    worker.stop(60)
    known = next(iter(runtime.workers.values()))
    runtime.wait_until(lambda: known.draining)
    with runtime.changed:
        # As if the run had been on its way when the worker said so.
        known.draining = False
        late = runtime.submit("agent")
        known.draining = True
    runtime.wait_until(lambda: "given back" in late.history)
    assert late.events == []
    go_on.set()
    assert worker.finished.wait(30)
    assert first.state == "succeeded"


def test_stop_while_the_runtime_is_away(runtime: Any, start_worker: Callable[..., Any]) -> None:
    worker = start_worker(runtime, agent(sleep_long))
    run = runtime.submit("agent")
    runtime.wait_for_event(run, "begun")
    runtime.stop_serving()
    worker.stop(0)
    worker.stop(0)
    assert worker.finished.wait(30)


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _make_ledger() -> tuple[Ledger, _Clock, list[Lease]]:
    lost: list[Lease] = []
    clock = _Clock()
    ledger = Ledger(lost.extend, clock)
    ledger.resume([], expires=10)
    return ledger, clock, lost


def test_report_after_a_long_sleep_is_not_made() -> None:
    """The machine was suspended: whoever wakes first must not speak for a lease that has lapsed."""
    ledger, clock, lost = _make_ledger()
    lease = ledger.open("run", 1)
    assert ledger.report(lease, worker_pb.Report(), 10) == 1
    clock.now = 10.0
    assert ledger.report(lease, worker_pb.Report(), 10) == 0
    assert lost == [lease]
    assert (lease.lost, ledger.size, ledger.take(1000)) == ("LEASE_LOST", 0, [])


def test_reports_are_sent_again_behind_what_was_kept() -> None:
    ledger, _, lost = _make_ledger()
    kept, gone = ledger.open("run", 1), ledger.open("run", 2)
    for _ in range(3):
        ledger.report(kept, worker_pb.Report(), 10)
    ledger.report(gone, worker_pb.Report(), 10)
    assert [report.number for report in ledger.take(1000)] == [1, 2, 3, 1]
    ledger.end_stream()
    assert ledger.report(kept, worker_pb.Report(), 10, final=True) == 4
    assert ledger.take(1000) == []
    assert [(held.run_id, held.lease) for held in ledger.begin_stream()] == [("run", 1), ("run", 2)]
    ledger.resume([worker_pb.Ack(run_id="run", lease=1, number=2)], expires=20)
    assert [report.number for report in ledger.take(1000)] == [3, 4]
    assert lost == [gone]
    ledger.acknowledge([worker_pb.Ack(run_id="run", lease=1, number=4)])
    assert ledger.size == 0


def test_last_report_frees_the_place_though_the_run_is_lost_meanwhile() -> None:
    ledger, _, _ = _make_ledger()
    lease = ledger.open("run", 1)
    ledger.report(lease, worker_pb.Report(succeed=worker_pb.Succeed()), 10, final=True)
    ledger.cancel(worker_pb.Cancellation(run_id="run", lease=1, reason="RUN_CANCELLED"))
    ledger.release(lease.key)
    assert [report.WhichOneof("report") for report in ledger.take(1000)] == ["succeed"]


def _poll(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
