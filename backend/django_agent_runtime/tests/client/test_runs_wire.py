"""What the methods about runs and schedules send, what they make of the answers, and how run streams go on."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from django_agent_runtime import exceptions
from django_agent_runtime._watch import RunHub
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as pb
from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2_grpc
from django_agent_runtime.testing._wire import refuse
from django_agent_runtime.types import (
    Concurrency,
    EventVisibility,
    Interrupt,
    NewTask,
    RetryPolicy,
    RunEvent,
    RunState,
    RunTarget,
    StreamTicket,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 20.0
RUN_ID = "0192f0c0-0000-7000-8000-000000000001"
NOON = datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))


CODES = {"RUN_NOT_FOUND": grpc.StatusCode.NOT_FOUND, "EVENTS_TRUNCATED": grpc.StatusCode.OUT_OF_RANGE}


class ScriptedAgents(agent_service_pb2_grpc.AgentServiceServicer):
    """A real gRPC server that answers as a test says.

    A unary call is answered with the next of `answers`; a str is the reason of a refusal. A stream sends what the
    test puts into `responses`; None ends it well, a status code badly, a str with that reason.
    """

    def __init__(self) -> None:
        self.answers: deque[Any] = deque()
        self.requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.responses: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.streams = 0
        self._server = grpc.server(ThreadPoolExecutor(8))
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self) -> None:
        """End every call and close the port."""
        self.responses.put(None)
        self._server.stop(None).wait()

    def request(self) -> Any:
        """The next request that came."""
        return self.requests.get(timeout=SECONDS)

    def _note_end(self) -> None:
        self.streams -= 1

    def _answer(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.put(request)
        answer = self.answers.popleft()
        if isinstance(answer, str):
            refuse(context, grpc.StatusCode.FAILED_PRECONDITION, answer, "as the test says", metadata={"state": "s"})
        return answer

    CreateRun = BatchCreateRuns = ResumeRun = RetryRun = ListRuns = _answer
    CreateSchedule = ListSchedules = PauseSchedule = DeleteSchedule = TriggerSchedule = CreateStreamTicket = _answer

    def _send(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.requests.put(request)
        while (response := self.responses.get()) is not None:
            if isinstance(response, grpc.StatusCode):
                context.abort(response, "as the test says")
            if isinstance(response, str):
                refuse(context, CODES[response], response, "as the test says", metadata={"oldest_sequence": "50"})
            yield response

    FollowRuns = _send

    def WatchRuns(  # noqa: N802
        self, request_iterator: Iterator[pb.WatchRunsRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.WatchRunsResponse]:
        """Watches of one run, which get what `responses` has; None ends them well, a str with that reason."""
        first = next(request_iterator)
        self.requests.put(first.add.watch)
        self.streams += 1
        context.add_callback(self._note_end)
        while not isinstance(response := self.responses.get(), grpc.StatusCode):
            update = response
            if response is None or isinstance(response, str):
                update = pb.RunWatchUpdate(ended=pb.RunWatchEnded(reason=response or "", message="as the test says"))
            update.watch_id = first.add.watch_id
            yield pb.WatchRunsResponse(updates=[update])
            if update.HasField("ended"):
                return
        context.abort(response, "as the test says")


@pytest.fixture
def server() -> Iterator[ScriptedAgents]:
    server = ScriptedAgents()
    yield server
    server.stop()


@pytest.fixture
def scripted(server: ScriptedAgents) -> Iterator[GoRuntimeIntegration]:
    client = GoRuntimeIntegration("127.0.0.1", server.port, timeout=SECONDS)
    yield client
    client.disconnect()


def make_run(**fields: Any) -> pb.Run:
    run: dict[str, Any] = {"run_id": RUN_ID, "state": pb.RUN_STATE_QUEUED, "target": pb.RUN_TARGET_AGENT}
    return pb.Run(**run | fields)


OPTIONS: dict[str, Any] = {
    "target": RunTarget.WORKER,
    "task_type": "summarise",
    "description": "d",
    "metadata": {"m": 1},
    "priority": -5,
    "concurrency": Concurrency("user-1", 2, "cancel_running"),
    "deadline": 60,
    "run_timeout": 30.5,
    "queue_timeout": 10,
    "step_timeout": 5,
    "retry": RetryPolicy(max_attempts=4, initial_backoff=2, max_backoff=9.5, multiplier=1.5),
    "event_visibility": {"run.started": "user", "run.queued": EventVisibility.INTERNAL},
}
SENT: dict[str, Any] = {
    "target": pb.RUN_TARGET_WORKER,
    "agent_id": "writer",
    "task_type": "summarise",
    "description": "d",
    "input": b'{"messages":[]}',
    "metadata": b'{"m":1}',
    "priority": -5,
    "concurrency": pb.Concurrency(key="user-1", limit=2, strategy=pb.CONCURRENCY_STRATEGY_CANCEL_RUNNING),
    "deadline": Duration(seconds=60),
    "run_timeout": Duration(seconds=30, nanos=500_000_000),
    "queue_timeout": Duration(seconds=10),
    "step_timeout": Duration(seconds=5),
    "retry": pb.RetryPolicy(
        max_attempts=4,
        initial_backoff=Duration(seconds=2),
        max_backoff=Duration(seconds=9, nanos=500_000_000),
        multiplier=1.5,
    ),
    "event_visibility": {"run.started": pb.EVENT_VISIBILITY_USER, "run.queued": pb.EVENT_VISIBILITY_INTERNAL},
}


def test_everything_that_can_be_said_of_a_run_is_sent(server: ScriptedAgents, scripted: GoRuntimeIntegration) -> None:
    server.answers.append(pb.CreateRunResponse(run=make_run(), created=True))
    run = scripted.create_run("writer", {"messages": []}, run_id=RUN_ID, idempotency_key="k", delay=1.5, **OPTIONS)
    assert (run.run_id, run.state) == (RUN_ID, RunState.QUEUED)
    request = server.request()
    assert request.request_id
    request.request_id = ""
    assert request == pb.CreateRunRequest(
        run_id=RUN_ID, idempotency_key="k", delay=Duration(seconds=1, nanos=500_000_000), **SENT
    )


def test_a_run_that_says_little_is_an_agents(server: ScriptedAgents, scripted: GoRuntimeIntegration) -> None:
    server.answers.append(pb.CreateRunResponse(run=make_run()))
    scripted.create_run("writer", run_at=NOON)
    request = server.request()
    request.request_id = ""
    assert request == pb.CreateRunRequest(
        target=pb.RUN_TARGET_AGENT,
        agent_id="writer",
        task_type="agent.run",
        run_at=Timestamp(seconds=int(NOON.timestamp())),
    )


@pytest.mark.parametrize("call", ["submit_task", "submit_agent_task", "submit_tasks"])
def test_tasks_take_the_same_options(server: ScriptedAgents, scripted: GoRuntimeIntegration, call: str) -> None:
    options = OPTIONS | {"concurrency": {"key": "user-1", "limit": 2, "strategy": "cancel_running"}}
    options |= {"retry": {"max_attempts": 4, "initial_backoff": 2, "max_backoff": 9.5, "multiplier": 1.5}}
    options |= {"input_data": {"messages": []}, "agent_id": "writer", "delay": 2}
    target = {"submit_task": pb.RUN_TARGET_TASK, "submit_agent_task": pb.RUN_TARGET_AGENT}.get(call, SENT["target"])
    if call == "submit_tasks":
        server.answers.append(pb.BatchCreateRunsResponse(responses=[pb.CreateRunResponse(run=make_run())]))
        scripted.submit_tasks([NewTask(**options)])
        (request,) = server.request().requests
    else:
        server.answers.append(pb.CreateRunResponse(run=make_run()))
        del options["target"]
        getattr(scripted, call)(**options)
        request = server.request()
    request.request_id = ""
    assert request == pb.CreateRunRequest(**SENT | {"target": target, "delay": Duration(seconds=2)})


def test_no_pause_between_attempts_is_not_the_default(server: ScriptedAgents, scripted: GoRuntimeIntegration) -> None:
    server.answers.append(pb.CreateRunResponse(run=make_run()))
    scripted.create_run("writer", retry=RetryPolicy(initial_backoff=0, max_backoff=0))
    policy = server.request().retry
    assert (policy.initial_backoff.nanos, policy.max_backoff.nanos) == (1000, 1000)
    assert (policy.max_attempts, policy.multiplier) == (0, 0)


def test_executing_waits_for_the_output(server: ScriptedAgents, scripted: GoRuntimeIntegration) -> None:
    done = make_run(state=pb.RUN_STATE_SUCCEEDED, output=b'{"final_output":{"a":1}}')
    server.answers.extend([pb.CreateRunResponse(run=done)] * 2)
    assert scripted.execute_run("writer", {"a": 1}, timeout=7) == {"final_output": {"a": 1}}
    request = server.request()
    assert (request.wait, request.deadline) == (True, Duration(seconds=7))
    scripted.execute_run("writer", timeout=7, deadline=70)
    assert server.request().deadline == Duration(seconds=70)
    error = pb.RunError(reason="AGENT_FAILED", message="out of ideas")
    server.answers.append(pb.CreateRunResponse(run=make_run(state=pb.RUN_STATE_FAILED, error=error)))
    with pytest.raises(exceptions.RunFailed, match="out of ideas"):
        scripted.execute_run("writer")


@pytest.mark.parametrize("timeout", [0, -1, True, "5"])
def test_the_timeout_is_named_as_it_was_given(scripted: GoRuntimeIntegration, timeout: Any) -> None:
    for deadline in (None, 60):
        with pytest.raises(exceptions.InvalidValue, match=r"^timeout is "):
            scripted.execute_run("writer", timeout=timeout, deadline=deadline)


def test_everything_that_is_known_of_a_run_arrives(server: ScriptedAgents, scripted: GoRuntimeIntegration) -> None:
    run = make_run(
        state=pb.RUN_STATE_WAITING,
        target=pb.RUN_TARGET_WORKER,
        priority=3,
        not_before=Timestamp(seconds=int(NOON.timestamp())),
        parent_run_id="parent",
        retry_of="before",
        schedule_id="nightly",
        interrupt=pb.Interrupt(interrupt_id="i1", payload=b'"sure?"'),
        waiting_for=["child"],
        concurrency_key="user-1",
        worker="host:1",
    )
    bare = make_run(interrupt=pb.Interrupt(interrupt_id="i2"))
    server.answers.append(pb.ListRunsResponse(runs=[run, bare]))
    known, listed = scripted.list_runs(
        dead_letters=True, parent_run_id="parent", schedule_id="nightly", concurrency_key="user-1"
    )
    assert server.request() == pb.ListRunsRequest(
        dead_letters=True, parent_run_id="parent", schedule_id="nightly", concurrency_key="user-1"
    )
    assert known.target is RunTarget.WORKER
    assert known.not_before == NOON
    assert known.interrupt == Interrupt("i1", "sure?")
    assert known.waiting_for == ("child",)
    names = (known.parent_run_id, known.retry_of, known.schedule_id, known.concurrency_key, known.worker)
    assert names == ("parent", "before", "nightly", "user-1", "host:1")
    assert known.priority == 3
    assert listed.interrupt == Interrupt("i2", None)
    assert (listed.not_before, listed.waiting_for, listed.worker) == (None, (), "")


def test_a_waiting_run_is_answered(server: ScriptedAgents, scripted: GoRuntimeIntegration) -> None:
    server.answers.extend([pb.ResumeRunResponse(run=make_run())] * 2)
    assert scripted.resume_run(RUN_ID, {"approved": True}, interrupt_id="i1").run_id == RUN_ID
    request = server.request()
    assert (request.run_id, request.interrupt_id, request.value) == (RUN_ID, "i1", b'{"approved":true}')
    assert request.request_id
    scripted.resume_run(RUN_ID)
    assert server.request().value == b"null"
    server.answers.append("RUN_NOT_WAITING")
    with pytest.raises(exceptions.RunNotWaiting) as refused:
        scripted.resume_run(RUN_ID)
    assert refused.value.metadata["state"] == "s"


def test_a_run_is_done_again(server: ScriptedAgents, scripted: GoRuntimeIntegration) -> None:
    server.answers.append(pb.RetryRunResponse(run=make_run(run_id="new", retry_of=RUN_ID)))
    run = scripted.retry_run(RUN_ID, new_run_id="new")
    assert (run.run_id, run.retry_of) == ("new", RUN_ID)
    request = server.request()
    assert (request.run_id, request.new_run_id) == (RUN_ID, "new")
    assert request.request_id
    server.answers.append("RUN_NOT_ENDED")
    with pytest.raises(exceptions.RunNotEnded):
        scripted.retry_run(RUN_ID)


def test_a_schedule_is_sent_and_read_back(server: ScriptedAgents, scripted: GoRuntimeIntegration) -> None:
    def answer(schedule: pb.Schedule) -> pb.CreateScheduleResponse:
        schedule.create_time.FromDatetime(NOON)
        schedule.last_error = "QUEUE_FULL"
        return pb.CreateScheduleResponse(schedule=schedule)

    sent = pb.Schedule(
        schedule_id="nightly", cron="0 3 * * *", time_zone="Europe/Berlin", paused=True, run=pb.CreateRunRequest(**SENT)
    )
    kept = pb.Schedule()
    kept.CopyFrom(sent)
    server.answers.append(answer(kept))
    schedule = scripted.create_schedule(
        "nightly",
        "0 3 * * *",
        "writer",
        {"messages": []},
        time_zone="Europe/Berlin",
        paused=True,
        replace=True,
        **OPTIONS,
    )
    assert server.request() == pb.CreateScheduleRequest(schedule=sent, replace=True)
    visibilities = {"run.started": EventVisibility.USER, "run.queued": EventVisibility.INTERNAL}
    assert schedule.run == NewTask(
        agent_id="writer", input_data={"messages": []}, **OPTIONS | {"event_visibility": visibilities}
    )
    assert (schedule.schedule_id, schedule.cron, schedule.time_zone) == ("nightly", "0 3 * * *", "Europe/Berlin")
    assert (schedule.create_time, schedule.next_time, schedule.last_error) == (NOON, None, "QUEUE_FULL")


def test_schedules_are_listed_paused_deleted_and_triggered(
    server: ScriptedAgents, scripted: GoRuntimeIntegration
) -> None:
    first, second = pb.Schedule(schedule_id="a"), pb.Schedule(schedule_id="b", paused=True)
    server.answers.append(pb.ListSchedulesResponse(schedules=[first], next_page_token="more"))
    server.answers.append(pb.ListSchedulesResponse(schedules=[second]))
    assert [schedule.schedule_id for schedule in scripted.list_schedules()] == ["a", "b"]
    assert [server.request().page_token for _ in range(2)] == ["", "more"]
    server.answers.extend([pb.PauseScheduleResponse(schedule=second)] * 2)
    assert scripted.pause_schedule("b").paused
    assert server.request() == pb.PauseScheduleRequest(schedule_id="b", paused=True)
    scripted.pause_schedule("b", False)
    assert server.request() == pb.PauseScheduleRequest(schedule_id="b")
    server.answers.append(pb.TriggerScheduleResponse(run=make_run(schedule_id="b")))
    assert scripted.trigger_schedule("b").schedule_id == "b"
    assert server.request().request_id
    server.answers.extend([pb.DeleteScheduleResponse(), "SCHEDULE_NOT_FOUND", "SCHEDULE_NOT_FOUND", "SCHEDULE_EXISTS"])
    assert scripted.delete_schedule("b") is True
    assert scripted.delete_schedule("b") is False
    with pytest.raises(exceptions.ScheduleNotFound):
        scripted.pause_schedule("b")
    with pytest.raises(exceptions.ScheduleExists):
        scripted.create_schedule("a", "@daily", "writer")


def test_a_ticket(server: ScriptedAgents, scripted: GoRuntimeIntegration) -> None:
    expire_time = Timestamp(seconds=int(NOON.timestamp()))
    server.answers.append(pb.CreateStreamTicketResponse(path="/runs/1?ticket=x", expire_time=expire_time))
    assert scripted.create_stream_ticket(RUN_ID, "user-1", "debug") == StreamTicket("/runs/1?ticket=x", NOON)
    assert server.request() == pb.CreateStreamTicketRequest(
        run_id=RUN_ID, principal="user-1", visibility=pb.EVENT_VISIBILITY_DEBUG
    )


def event(sequence: int, event_type: str = "custom", **fields: Any) -> pb.RunEvent:
    event: dict[str, Any] = {
        "run_id": RUN_ID,
        "sequence": sequence,
        "type": event_type,
        "visibility": pb.EVENT_VISIBILITY_USER,
        "payload": f'{{"n":{sequence}}}'.encode(),
    }
    return pb.RunEvent(**event | fields)


def watched(*events: pb.RunEvent, position: int | None = None) -> pb.RunWatchUpdate:
    return pb.RunWatchUpdate(events=events, position=events[-1].sequence if position is None else position)


def followed(*events: pb.RunEvent, position: int | None = None) -> pb.FollowRunsResponse:
    return pb.FollowRunsResponse(events=events, position=events[-1].sequence if position is None else position)


def test_a_run_is_watched_to_its_end(server: ScriptedAgents, scripted: GoRuntimeIntegration) -> None:
    server.responses.put(watched(event(3, "run.queued", time=Timestamp(seconds=int(NOON.timestamp())))))
    debug = event(7, visibility=pb.EVENT_VISIBILITY_DEBUG, attempt=1)
    server.responses.put(watched(debug, event(9, "run.succeeded"), position=10))
    server.responses.put(None)
    with scripted.watch_run(RUN_ID, after_sequence=2, visibility="debug") as events:
        first, second, last = events
        assert events.position == 10
        with pytest.raises(StopIteration):
            next(events)
    assert server.request() == pb.WatchRunRequest(run_id=RUN_ID, after_sequence=2, visibility=pb.EVENT_VISIBILITY_DEBUG)
    assert first == RunEvent(RUN_ID, 3, "run.queued", EventVisibility.USER, NOON, 0, {"n": 3})
    assert (second.visibility, second.attempt, second.ends_run) == (EventVisibility.DEBUG, 1, False)
    assert last.ends_run


def test_a_watch_that_was_cut_off_goes_on_behind_its_last_event(
    server: ScriptedAgents, scripted: GoRuntimeIntegration
) -> None:
    for response in (
        watched(event(3)),
        watched(position=5),
        grpc.StatusCode.UNAVAILABLE,
        watched(event(6)),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        watched(event(8, "run.failed")),
        None,
    ):
        server.responses.put(response)
    assert [item.sequence for item in scripted.watch_run(RUN_ID)] == [3, 6, 8]
    assert [server.request().after_sequence for _ in range(3)] == [0, 5, 6]


def test_a_watch_behind_the_end_of_its_run_is_over(server: ScriptedAgents, scripted: GoRuntimeIntegration) -> None:
    server.responses.put(None)
    assert list(scripted.watch_run(RUN_ID, after_sequence=9)) == []


def test_a_run_that_is_not_there_is_not_watched(server: ScriptedAgents, scripted: GoRuntimeIntegration) -> None:
    server.responses.put("RUN_NOT_FOUND")
    with pytest.raises(exceptions.RunNotFound):
        next(scripted.watch_run(RUN_ID))


def test_a_watch_is_closed_while_it_waits(server: ScriptedAgents, scripted: GoRuntimeIntegration) -> None:
    server.responses.put(watched(event(3)))
    seen: list[int] = []
    began, over = threading.Event(), threading.Event()
    events = scripted.watch_run(RUN_ID)

    def read() -> None:
        for item in events:
            seen.append(item.sequence)
            began.set()
        over.set()

    threading.Thread(target=read, daemon=True).start()
    assert began.wait(SECONDS)
    events.close()
    assert over.wait(SECONDS)
    assert seen == [3]


def test_a_watch_ends_with_its_client(server: ScriptedAgents, scripted: GoRuntimeIntegration) -> None:
    server.responses.put(watched(event(3)))
    events = scripted.watch_run(RUN_ID)
    assert next(events).sequence == 3
    scripted.disconnect()
    with pytest.raises(exceptions.ClientClosed):
        next(events)


def test_what_breaks_in_the_shared_thread_ends_no_watch(
    server: ScriptedAgents, scripted: GoRuntimeIntegration, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive, faults = RunHub.receive, iter([1])

    def fail_once(hub: RunHub, response: Any) -> bool:
        if next(faults, None):
            raise KeyError("a fault of our own")
        return receive(hub, response)

    monkeypatch.setattr(RunHub, "receive", fail_once)
    for response in (watched(event(3)), grpc.StatusCode.UNAVAILABLE, watched(event(3), event(8, "run.failed")), None):
        server.responses.put(response)
    assert [item.sequence for item in scripted.watch_run(RUN_ID)] == [3, 8]


def test_thread_that_cannot_be_started_is_told_and_tried_again(
    server: ScriptedAgents, scripted: GoRuntimeIntegration, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("django_agent_runtime._streams.start_thread", Mock(side_effect=RuntimeError("no more threads")))
        with pytest.raises(RuntimeError, match="no more threads"):
            scripted.watch_run(RUN_ID)
    assert scripted.stats["watches"] == 0
    server.responses.put(watched(event(3)))
    assert next(scripted.watch_run(RUN_ID)).sequence == 3


def test_a_new_watch_does_not_wait_out_the_pause_of_others(
    server: ScriptedAgents, scripted: GoRuntimeIntegration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_agent_runtime._streams._FIRST_PAUSE", 10 * SECONDS)
    server.responses.put(watched(event(3)))
    first = scripted.watch_run(RUN_ID)
    assert next(first).sequence == 3
    server.responses.put(grpc.StatusCode.UNAVAILABLE)
    while scripted._watches._outbox is not None:
        time.sleep(0.01)
    scripted.watch_run(RUN_ID)
    # Both are on the stream that is open again, each behind its own place; the script serves the first.
    server.responses.put(watched(event(8, "run.failed")))
    assert next(first).sequence == 8


def test_a_client_that_was_disconnected_watches_again(server: ScriptedAgents, scripted: GoRuntimeIntegration) -> None:
    for _ in range(20):
        server.responses.put(watched(event(3)))
        events = scripted.watch_run(RUN_ID)
        assert next(events).sequence == 3
        scripted.disconnect()
        server.responses.put(grpc.StatusCode.UNAVAILABLE)
        with pytest.raises(exceptions.ClientClosed):
            next(events)
        while server.streams:
            time.sleep(0.001)


async def test_the_twin_watches_too(server: ScriptedAgents, scripted: GoRuntimeIntegration) -> None:
    for response in (watched(event(3)), grpc.StatusCode.UNAVAILABLE, watched(event(8, "run.timed_out")), None):
        server.responses.put(response)
    async with scripted.awatch_run(RUN_ID) as events:
        assert [item.sequence async for item in events] == [3, 8]
        assert events.position == 8
        with pytest.raises(StopAsyncIteration):
            await events.__anext__()


def test_all_runs_are_followed_in_batches(server: ScriptedAgents, scripted: GoRuntimeIntegration) -> None:
    for response in (
        followed(event(3, "run.queued", run=make_run()), event(4, run_id="other")),
        # A sign of life says nothing new, then that what was left out is behind us.
        followed(position=4),
        followed(position=9),
        grpc.StatusCode.UNAVAILABLE,
        None,
        followed(event(10)),
    ):
        server.responses.put(response)
    with scripted.follow_runs(2, without_types=["assistant.delta"]) as batches:
        first, skipped, last = (next(batches) for _ in range(3))
    assert [(item.run_id, item.sequence) for item in first.events] == [(RUN_ID, 3), ("other", 4)]
    assert first.events[0].run is not None
    assert first.events[0].run.state is RunState.QUEUED
    assert first.events[1].run is None
    assert (first.position, skipped.events, skipped.position, last.position) == (4, (), 9, 10)
    requests = [server.request() for _ in range(3)]
    assert [request.after_sequence for request in requests] == [2, 9, 9]
    assert list(requests[0].without_types) == ["assistant.delta"]


async def test_the_twin_follows_too(server: ScriptedAgents, scripted: GoRuntimeIntegration) -> None:
    server.responses.put(followed(event(3)))
    async with scripted.afollow_runs() as batches:
        assert (await batches.__anext__()).position == 3
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(batches.__anext__(), 0.01)
        server.responses.put(followed(event(4)))
        assert (await batches.__anext__()).position == 4


def test_lost_events_are_told(server: ScriptedAgents, scripted: GoRuntimeIntegration) -> None:
    server.responses.put("EVENTS_TRUNCATED")
    with pytest.raises(exceptions.EventsTruncated) as caught:
        next(scripted.follow_runs(5))
    assert caught.value.oldest_sequence == 50


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "priority": ({"priority": 1001}, r"^priority is 1001, must be a whole number from -1000 to 1000"),
    "contradiction": ({"delay": 1, "run_at": NOON}, "^delay and run_at contradict each other"),
    "naive time": ({"run_at": NOON.replace(tzinfo=None)}, "^run_at is .* must be a datetime with a time zone"),
    "no time": ({"run_at": 5}, "^run_at is 5, must be a datetime"),
    "input": ({"input": [1]}, "^input must be a dict"),
    "target": ({"target": "nobody"}, "^target is 'nobody', must be one of task, agent, worker"),
    "no limit": ({"concurrency": "key"}, "^concurrency is 'key', must be a Concurrency or a dict"),
    "no key": ({"concurrency": {"limit": 1}}, "^concurrency has no 'key'"),
    "empty key": ({"concurrency": Concurrency("")}, r"^concurrency\.key must not be empty"),
    "limit": ({"concurrency": Concurrency("k", 0)}, r"^concurrency\.limit is 0, must be a whole number from 1"),
    "strategy": (
        {"concurrency": {"key": "k", "strategy": "x"}},
        r"^concurrency\.strategy is 'x', must be one of queue,",
    ),
    "retry": ({"retry": 3}, "^retry is 3, must be a RetryPolicy or a dict"),
    "retry key": ({"retry": {"attempts": 3}}, "^retry has the key 'attempts', known are max_attempts, "),
    "attempts": ({"retry": RetryPolicy(max_attempts=0)}, r"^retry\.max_attempts is 0, must be a whole number from 1"),
    "backoff": ({"retry": RetryPolicy(max_backoff=-1)}, r"^retry\.max_backoff is -1, must be a number of seconds"),
    "multiplier": ({"retry": RetryPolicy(multiplier=0.5)}, r"^retry\.multiplier is 0\.5, must be a number from 1"),
    "visibilities": ({"event_visibility": ["a"]}, r"^event_visibility is \['a'\], must be a dict"),
    "visibility": (
        {"event_visibility": {"run.started": "all"}},
        r"^event_visibility\['run\.started'\] is 'all', must be one of internal, debug, user",
    ),
    "agent": ({"agent_key": 5}, "^agent_key must be a string, not int"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_said_of_a_run(scripted: GoRuntimeIntegration, name: str) -> None:
    arguments, said = REFUSED[name]
    with pytest.raises(exceptions.InvalidValue, match=said):
        scripted.create_run(**{"agent_key": "writer"} | arguments)


def test_what_cannot_be_asked_of_runs_and_schedules(scripted: GoRuntimeIntegration) -> None:
    calls: dict[str, Callable[[], object]] = {
        "visibility is 'x', must be one of internal, debug, user": lambda: scripted.watch_run(RUN_ID, visibility="x"),
        "run_id must be a string": lambda: scripted.watch_run(5),  # type: ignore[arg-type]
        r"without_types\[1\] must be a string": lambda: scripted.follow_runs(without_types=["a", 5]),  # type: ignore[list-item]
        "without_types is 'a', must be a sequence, not a text": lambda: scripted.follow_runs(without_types="a"),
        "cron must be a string": lambda: scripted.create_schedule("s", None, "a"),  # type: ignore[arg-type]
        "input must be a dict": lambda: scripted.create_schedule("s", "@daily", "a", [1]),  # type: ignore[arg-type]
        "new_run_id must be a string": lambda: scripted.retry_run(RUN_ID, new_run_id=5),  # type: ignore[arg-type]
        "interrupt_id must be a string": lambda: scripted.resume_run(RUN_ID, interrupt_id=5),  # type: ignore[arg-type]
        "value is nan": lambda: scripted.resume_run(RUN_ID, float("nan")),
        r"tasks\[0\]\.concurrency\.limit is 0": lambda: scripted.submit_tasks(
            [NewTask("t", concurrency=Concurrency("k", 0))]
        ),
    }
    for said, call in calls.items():
        with pytest.raises(exceptions.InvalidValue, match=f"^{said}"):
            call()
