"""Runs of agents on the real runtime, executed by a worker of a few lines, over whatever happens to either."""

from __future__ import annotations

import json
import queue
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from django_agent_runtime import _mailbox, exceptions
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from django_agent_runtime.grpc_client.agentruntime.v1 import worker_service_pb2 as pb
from django_agent_runtime.grpc_client.agentruntime.v1 import worker_service_pb2_grpc
from django_agent_runtime.types import (
    Concurrency,
    EventVisibility,
    Interrupt,
    RetryPolicy,
    RunEvent,
    RunState,
    RunTarget,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django_agent_runtime._streams import Stream
    from django_agent_runtime.testing.process import GoRuntimeProcess

SECONDS = 60.0
EVENTS = 300
# How long a run stays with a worker that is not heard of, and how often one is.
LEASE_SECONDS = 2
PROBE_SECONDS = 0.5


class Worker:
    """A worker with one agent, whose function turns each Assignment into the reports of its lease.

    It lives as long as its stream: a test that kills the runtime makes another.
    """

    def __init__(
        self, runtime: GoRuntimeProcess, namespace: str, agent: Callable[[pb.Assignment], Iterator[pb.Report]]
    ) -> None:
        self._agent = agent
        self._requests: queue.SimpleQueue[pb.WorkRequest | None] = queue.SimpleQueue()
        self._channel = grpc.insecure_channel(f"{runtime.host}:{runtime.port}")
        hello = pb.Hello(
            worker_id=str(uuid.uuid4()), name="a worker", concurrency=8, lease_ttl=Duration(seconds=LEASE_SECONDS)
        )
        hello.agents.append(pb.WorkerAgent(agent_id="writer"))
        self._requests.put(pb.WorkRequest(hello=hello))
        stub = worker_service_pb2_grpc.WorkerServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._call = stub.Work(iter(self._requests.get, None), metadata=[("agent-runtime-namespace", namespace)])
        next(self._call)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._read, self._probe)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Close the stream, as a worker does that is gone."""
        self._call.cancel()
        for thread in self._threads:
            thread.join(SECONDS)
        self._requests.put(None)
        self._channel.close()

    def _read(self) -> None:
        try:
            with ThreadPoolExecutor(8) as runs:
                for response in self._call:
                    for assignment in response.assignments:
                        runs.submit(self._execute, assignment)
        except grpc.RpcError:
            # Stopped, or the runtime was killed.
            return
        finally:
            self._over.set()

    def _probe(self) -> None:
        number = 0
        while not self._over.wait(PROBE_SECONDS):
            number += 1
            self._requests.put(pb.WorkRequest(probe=number))

    def _execute(self, assignment: pb.Assignment) -> None:
        for number, report in enumerate(self._agent(assignment), 1):
            report.run_id, report.lease, report.number = assignment.run.run_id, assignment.lease, number
            self._requests.put(pb.WorkRequest(reports=[report]))


def emit(event_type: str, visibility: str = "USER", **payload: Any) -> pb.Report:
    event = pb.NewRunEvent(
        type=event_type, visibility=f"EVENT_VISIBILITY_{visibility}", payload=json.dumps(payload).encode()
    )
    return pb.Report(events=pb.EmitEvents(events=[event]))


def succeed(**output: Any) -> pb.Report:
    return pb.Report(succeed=pb.Succeed(output=json.dumps(output).encode()))


def write(assignment: pb.Assignment) -> Iterator[pb.Report]:
    """Ask whether to publish, and say what the answer was."""
    yield emit("assistant.message", content=json.loads(assignment.run.input)["topic"])
    yield emit("state.checkpoint", "INTERNAL", step=1)
    if not assignment.answers:
        yield pb.Report(park=pb.Park(interrupt=agent_pb.Interrupt(interrupt_id="q1", payload=b'"publish?"')))
        return
    yield succeed(approved=json.loads(assignment.answers[0].payload))


def fail(assignment: pb.Assignment) -> Iterator[pb.Report]:
    """Fail until the third attempt."""
    if assignment.run.attempt < 3:
        yield pb.Report(fail=pb.Fail(message="not yet", retryable=True, error_type="ValueError"))
        return
    yield succeed(attempt=assignment.run.attempt)


def until(events: Stream[RunEvent], event_type: str) -> list[RunEvent]:
    """What happens up to the next event of a type."""
    seen: list[RunEvent] = []
    while not seen or seen[-1].type != event_type:
        seen.append(next(events))
    return seen


@pytest.fixture
def serve(
    go_runtime_process: GoRuntimeProcess, client: GoRuntimeIntegration
) -> Iterator[Callable[[Callable[[pb.Assignment], Iterator[pb.Report]]], None]]:
    """Serves the agent `writer` with a function in the namespace of the test's client."""
    workers: list[Worker] = []
    yield lambda agent: workers.append(Worker(go_runtime_process, client.settings.namespace, agent))
    for worker in workers:
        worker.stop()


def test_a_run_waits_for_its_worker_asks_and_ends(client: GoRuntimeIntegration, serve: Any) -> None:
    run = client.create_run(
        "writer",
        {"topic": "rain"},
        target=RunTarget.WORKER,
        metadata={"m": 1},
        priority=3,
        concurrency=Concurrency("user-1"),
        event_visibility={"run.queued": "debug"},
    )
    assert (run.state, run.priority, run.concurrency_key) == (RunState.QUEUED, 3, "user-1")
    with client.watch_run(run.run_id) as events:
        assert next(events).visibility is EventVisibility.DEBUG
        serve(write)
        asked = until(events, "run.interrupted")
        assert [event.type for event in asked[:-1]] == ["run.started", "assistant.message", "state.checkpoint"]
        assert asked[-1].payload == {"interrupt_id": "q1", "payload": "publish?"}
        waiting = client.get_run(run.run_id)
        assert (waiting.state, waiting.interrupt) == (RunState.WAITING, Interrupt("q1", "publish?"))
        (listed,) = client.list_runs(concurrency_key="user-1", states="waiting")
        assert listed.interrupt == Interrupt("q1", None)
        with pytest.raises(exceptions.RunNotWaiting):
            client.resume_run(run.run_id, interrupt_id="q2")
        client.resume_run(run.run_id, "yes")
        *_, last = events
        assert events.position is not None
        assert events.position >= last.sequence
    assert (last.type, last.payload) == ("run.succeeded", {"output": {"approved": "yes"}})
    assert client.resume_run(run.run_id, "yes", interrupt_id="q1").state is RunState.SUCCEEDED
    with pytest.raises(exceptions.RunNotWaiting, match="another value"):
        client.resume_run(run.run_id, "no", interrupt_id="q1")
    with pytest.raises(exceptions.RunEnded):
        client.resume_run(run.run_id, "no")
    shown = [event.type for event in client.watch_run(run.run_id, visibility="user")]
    ends = ["assistant.message", "run.succeeded"]
    assert shown == ["assistant.message", "run.interrupted", "run.resumed", *ends]
    assert list(client.watch_run(run.run_id, after_sequence=last.sequence)) == []


async def test_the_twins_of_runs(client: GoRuntimeIntegration, serve: Any) -> None:
    serve(fail)
    retry = RetryPolicy(max_attempts=3, initial_backoff=0.001)
    assert await client.aexecute_run("writer", {}, target="worker", retry=retry) == {"attempt": 3}
    (run,) = [run async for run in client.alist_runs()]
    types = [event.type async for event in client.awatch_run(run.run_id)]
    assert types.count("run.retrying") == 2
    assert types[-1] == "run.succeeded"


def test_what_is_not_there(client: GoRuntimeIntegration) -> None:
    nowhere = str(uuid.uuid4())
    with pytest.raises(exceptions.RunNotFound):
        next(client.watch_run(nowhere))
    with pytest.raises(exceptions.RunNotFound):
        client.resume_run(nowhere)
    with pytest.raises(exceptions.RunNotFound):
        client.retry_run(nowhere)
    with pytest.raises(exceptions.AgentNotFound):
        client.create_run("nobody", {})


def test_a_dead_letter_is_done_again(client: GoRuntimeIntegration, serve: Any) -> None:
    serve(fail)
    with pytest.raises(exceptions.RunFailed, match="not yet") as failed:
        client.execute_run("writer", {}, target="worker", retry=RetryPolicy(max_attempts=1))
    dead = failed.value.run
    assert dead.error is not None
    assert dead.error.type == "ValueError"
    assert [run.run_id for run in client.list_runs(dead_letters=True)] == [dead.run_id]
    new_run_id = str(uuid.uuid4())
    again = client.retry_run(dead.run_id, new_run_id=new_run_id)
    assert (again.run_id, again.retry_of) == (new_run_id, dead.run_id)
    assert client.wait_run(new_run_id).state is RunState.FAILED
    assert [run.run_id for run in client.list_runs(dead_letters=True)] == [new_run_id]
    ended = client.execute_task("echo", {"n": 1})
    (task,) = client.list_runs(states="succeeded")
    assert ended == {"n": 1}
    with pytest.raises(exceptions.RunNotEnded):
        client.retry_run(task.run_id)


def test_options_hold(client: GoRuntimeIntegration) -> None:
    first = client.create_run("writer", target="worker", concurrency=Concurrency("k", strategy="reject"))
    with pytest.raises(exceptions.ConcurrencyLimit) as refused:
        client.create_run("writer", target="worker", concurrency={"key": "k", "strategy": "reject"})
    assert refused.value.metadata["concurrency_key"] == "k"
    client.create_run("writer", target="worker", concurrency=Concurrency("k", strategy="cancel_running"))
    assert client.wait_run(first.run_id).state is RunState.CANCELLED
    late = client.submit_task("echo", {}, delay=3600)
    assert late.not_before is not None
    assert late.create_time is not None
    assert late.not_before - late.create_time == pytest.approx(timedelta(hours=1), abs=timedelta(seconds=1))
    impatient = client.create_run("writer", target="worker", queue_timeout=0.05)
    ended = client.wait_run(impatient.run_id)
    assert ended.state is RunState.TIMED_OUT
    assert ended.error is not None
    assert ended.error.reason == "QUEUE_TIMED_OUT"


def test_all_runs_are_followed(client: GoRuntimeIntegration, serve: Any) -> None:
    serve(write)
    run = client.create_run("writer", {"topic": "rain"}, target="worker")
    with client.watch_run(run.run_id) as events:
        until(events, "run.interrupted")
    client.cancel_run(run.run_id, "enough")
    client.execute_task("echo", {})
    seen: list[RunEvent] = []
    position = 0
    with client.follow_runs(without_types=["assistant.message"]) as batches:
        while len([event for event in seen if event.ends_run]) < 2:
            batch = next(batches)
            assert batch.position > position
            seen.extend(batch.events)
            position = batch.position
    assert [event.sequence for event in seen] == sorted({event.sequence for event in seen})
    of_run = [(event.type, event.run and str(event.run.state)) for event in seen if event.run_id == run.run_id]
    assert of_run == [
        ("run.queued", "queued"),
        ("run.started", "running"),
        ("state.checkpoint", None),
        ("run.interrupted", "waiting"),
        ("run.cancelled", "cancelled"),
    ]
    with client.follow_runs(position) as batches:
        client.execute_task("echo", {})
        event = next(batch for batch in batches if batch.events).events[0]
    assert event.sequence > position
    assert event.run_id not in {item.run_id for item in seen}


def test_named_runs_are_followed_without_the_others(client: GoRuntimeIntegration) -> None:
    client.execute_task("echo", {})
    named = str(uuid.uuid4())
    client.wait_run(client.submit_task("echo", {}, run_id=named).run_id)
    last = client.wait_run(client.submit_task("echo", {}, idempotency_key="other").run_id)
    seen: list[RunEvent] = []
    with client.follow_runs(named_only=True) as batches:
        for batch in batches:
            seen.extend(batch.events)
            if batch.position >= last.sequence:
                break
    assert {event.run_id for event in seen} == {named}
    assert [event.ends_run for event in seen][-1]


def emit_many(assignment: pb.Assignment) -> Iterator[pb.Report]:
    for number in range(EVENTS):
        yield emit("custom", n=number)
    yield succeed()


async def test_watches_of_one_client_share_a_stream_and_hold_up_none(
    client: GoRuntimeIntegration, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Some ten events: those who do not read are taken off the stream again and again.
    monkeypatch.setattr(_mailbox, "_MAILBOX_BYTES", 4000)
    runs = [await client.acreate_run("writer", target="worker") for _ in range(3)]
    watches = [client.awatch_run(run.run_id) for run in runs for _ in range(20)]
    opened = [(await anext(watch)).type for watch in watches]
    assert opened == ["run.queued"] * len(watches)
    session = client._transport._session
    assert session is not None
    assert session.calls == 1
    threads = threading.active_count()
    more = [client.awatch_run(run.run_id) for run in runs for _ in range(20)]
    for watch in more:
        await anext(watch)
    assert threading.active_count() <= threads, "a watch has a thread of its own"
    serve(emit_many)
    # Every other one reads only when the rest have read to the end.
    for watch in (*watches[::2], *more, *watches[1::2]):
        numbers = [event.payload["n"] async for event in watch if event.type == "custom"]
        assert numbers == list(range(EVENTS))
    with pytest.raises(exceptions.RunNotFound):
        await anext(client.awatch_run(str(uuid.uuid4())))


@pytest.mark.faults
def test_streams_over_restarts_lose_and_repeat_nothing(mortal_runtime: GoRuntimeProcess) -> None:
    followed: list[int] = []
    complete = threading.Event()
    with GoRuntimeIntegration(**mortal_runtime.settings | {"timeout": SECONDS}) as client:
        run = client.create_run(
            "writer", {}, target="worker", retry=RetryPolicy(max_attempts=100, initial_backoff=0.001)
        )
        watching, following = client.watch_run(run.run_id), client.follow_runs()

        def follow() -> None:
            for batch in following:
                followed.extend(event.sequence for event in batch.events)
                if any(event.ends_run for event in batch.events):
                    complete.set()

        threading.Thread(target=follow, daemon=True).start()
        watched = [next(watching).sequence]
        # The first time nobody executes the run, then in the midst of it.
        for _ in range(2):
            mortal_runtime.kill()
            mortal_runtime.start()
            worker = Worker(mortal_runtime, "default", emit_many)
            watched.extend(event.sequence for event in until(watching, "custom"))
        watched.extend(event.sequence for event in watching)
        assert complete.wait(SECONDS)
        following.close()
        worker.stop()
        everything = [event.sequence for event in client.watch_run(run.run_id)]
        assert client.get_run(run.run_id).state is RunState.SUCCEEDED
    assert watched == everything
    assert followed == everything
    assert len(everything) > EVENTS
