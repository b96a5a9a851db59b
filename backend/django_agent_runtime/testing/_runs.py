"""The fake's runs: Python functions behind the real service definition."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as pb
from django_agent_runtime.testing._run_log import (
    RETRYABLE_STATES,
    RunLog,
    RunRecord,
    choose_run_id,
    copy_run,
    make_run_id,
    state_name,
)
from django_agent_runtime.testing._schedules import FakeSchedules
from django_agent_runtime.testing._wire import read_namespace, refuse, refuse_field
from django_agent_runtime.types import ENDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from django_agent_runtime.testing._run_log import AgentFunction

    # Takes the input of a run and returns its output; an exception fails the run with its text.
    TaskFunction = Callable[[dict[str, Any]], Mapping[str, Any]]

VERSION = "fake"
TICKET_SECONDS = 3600
# A run that waits for an answer holds no concurrency key.
HOLDING_STATES = frozenset({pb.RUN_STATE_QUEUED, pb.RUN_STATE_RUNNING})


@dataclass
class FakeAgentService(FakeSchedules):
    """Does each run in a thread of its own pool, at most eight at a time."""

    max_value_bytes: int = 0
    # By agent and task type; tasks without an agent are under the empty agent, and an agent's function for whatever
    # it is asked under the empty task type.
    functions: dict[tuple[str, str], AgentFunction] = field(default_factory=dict)
    log: RunLog = field(default_factory=RunLog)

    def add(self, agent_id: str, task_type: str, function: AgentFunction) -> None:
        """Serve runs, those that wait for a worker with this agent among them."""
        with self.log.changed:
            self.functions[agent_id, task_type] = function
            waiting = [
                record
                for record in self.log.records.values()
                if record.run.state == pb.RUN_STATE_QUEUED
                and record.request.target == pb.RUN_TARGET_WORKER
                and self._function(record.request) is function
            ]
        for record in waiting:
            self.log.begin(record, function)

    def accepted(self, namespace: str) -> list[pb.Run]:
        """The runs of a namespace, oldest first."""
        with self.log.changed:
            return [copy_run(record.run) for (space, _), record in self.log.records.items() if space == namespace]

    def CreateRun(self, request: pb.CreateRunRequest, context: grpc.ServicerContext) -> pb.CreateRunResponse:  # noqa: N802
        """See the service definition; nothing waits for its delay, its priority or its concurrency key.

        A run whose strategy is to cancel those that have its key does so.
        """
        namespace = read_namespace(context)
        with self.log.changed:
            self._check_known(request, context)
            record, created = self._create(namespace, choose_run_id(namespace, request), request, context)
        limit = context.time_remaining() if request.wait else 0.0
        return pb.CreateRunResponse(run=self.log.wait_until_ended(record, limit), created=created)

    def BatchCreateRuns(  # noqa: N802
        self, request: pb.BatchCreateRunsRequest, context: grpc.ServicerContext
    ) -> pb.BatchCreateRunsResponse:
        """See the service definition; a conflict may follow on runs that were accepted."""
        for item in request.requests:
            self._check_known(item, context)
        responses = [self.CreateRun(item, context) for item in request.requests]
        for response in responses:
            response.run.input, response.run.output = b"", b""
        return pb.BatchCreateRunsResponse(responses=responses)

    def check_run(self, run_id: str, context: grpc.ServicerContext) -> None:
        """Refuse a run that does not exist."""
        with self.log.changed:
            self._find(run_id, context)

    def GetRun(self, request: pb.GetRunRequest, context: grpc.ServicerContext) -> pb.GetRunResponse:  # noqa: N802
        """See the service definition."""
        with self.log.changed:
            return pb.GetRunResponse(run=copy_run(self._find(request.run_id, context).run))

    def ListRuns(self, request: pb.ListRunsRequest, context: grpc.ServicerContext) -> pb.ListRunsResponse:  # noqa: N802
        """See the service definition; the page token is how many runs the pages before held."""
        namespace = read_namespace(context)
        with self.log.changed:
            wanted = [
                copy_run(record.run)
                for (space, _), record in reversed(self.log.records.items())
                if space == namespace and _is_wanted(record, request)
            ]
        size = min(request.page_size or 50, 500)
        start = int(request.page_token or 0)
        page = wanted[start : start + size]
        for run in page:
            run.input, run.output = b"", b""
            if run.HasField("interrupt"):
                run.interrupt.payload = b""
        more = start + size < len(wanted)
        return pb.ListRunsResponse(runs=page, next_page_token=str(start + size) if more else "")

    def WaitRun(self, request: pb.WaitRunRequest, context: grpc.ServicerContext) -> pb.WaitRunResponse:  # noqa: N802
        """See the service definition."""
        record = self._find(request.run_id, context)
        limit = request.max_wait.ToNanoseconds() / 1e9 if request.HasField("max_wait") else context.time_remaining()
        return pb.WaitRunResponse(run=self.log.wait_until_ended(record, limit))

    def WaitRuns(self, request: pb.WaitRunsRequest, context: grpc.ServicerContext) -> Iterator[pb.WaitRunsResponse]:  # noqa: N802
        """See the service definition; each run in a message of its own, in the order they were asked for."""
        until = time.monotonic() + request.max_wait.ToNanoseconds() / 1e9 if request.HasField("max_wait") else None
        records = [self._find(run_id, context) for run_id in dict.fromkeys(request.run_ids)]
        for record in records:
            limit = context.time_remaining() if until is None else max(until - time.monotonic(), 0.0)
            run = self.log.wait_until_ended(record, limit)
            run.input = b""
            yield pb.WaitRunsResponse(runs=[run])

    def CancelRun(self, request: pb.CancelRunRequest, context: grpc.ServicerContext) -> pb.CancelRunResponse:  # noqa: N802
        """See the service definition."""
        with self.log.changed:
            record = self._find(request.run_id, context)
            if record.has_ended and record.run.state != pb.RUN_STATE_CANCELLED:
                _refuse_state(context, record.run, "RUN_ENDED", "has already ended")
            error = pb.RunError(reason="RUN_CANCELLED", message=request.reason or "cancelled on request")
            self.log.end(record, pb.RUN_STATE_CANCELLED, error=error)
            return pb.CancelRunResponse(run=copy_run(record.run))

    def ResumeRun(self, request: pb.ResumeRunRequest, context: grpc.ServicerContext) -> pb.ResumeRunResponse:  # noqa: N802
        """See the service definition."""
        with self.log.changed:
            record = self._find(request.run_id, context)
            run = record.run
            value = json.loads(request.value or b"null")
            if request.interrupt_id in record.answered:
                if record.answered[request.interrupt_id] != value:
                    _refuse_state(context, run, "RUN_NOT_WAITING", "was answered before, with another value")
                return pb.ResumeRunResponse(run=copy_run(run))
            if record.has_ended:
                _refuse_state(context, run, "RUN_ENDED", "has already ended")
            asked = run.interrupt.interrupt_id
            if run.state != pb.RUN_STATE_WAITING or request.interrupt_id not in ("", asked):
                _refuse_state(context, run, "RUN_NOT_WAITING", "waits for no such answer")
            self.log.resume(record, value)
            self._begin(record)
            return pb.ResumeRunResponse(run=copy_run(run))

    def RetryRun(self, request: pb.RetryRunRequest, context: grpc.ServicerContext) -> pb.RetryRunResponse:  # noqa: N802
        """See the service definition."""
        namespace = read_namespace(context)
        with self.log.changed:
            before = self._find(request.run_id, context)
            if before.run.state not in RETRYABLE_STATES:
                _refuse_state(context, before.run, "RUN_NOT_ENDED", "has not ended in a way to be done again")
            again = pb.CreateRunRequest()
            again.CopyFrom(before.request)
            again.run_id = request.new_run_id
            run_id = request.new_run_id or make_run_id(namespace, request.request_id)
            record, _ = self._create(namespace, run_id, again, context, retry_of=request.run_id)
            before.was_retried = True
            return pb.RetryRunResponse(run=copy_run(record.run))

    def WatchRuns(  # noqa: N802
        self, request_iterator: Iterator[pb.WatchRunsRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.WatchRunsResponse]:
        """See the service definition."""
        namespace = read_namespace(context)
        watches: dict[str, pb.WatchRunRequest] = {}
        threading.Thread(target=self._read_watches, args=(watches, request_iterator), daemon=True).start()
        context.add_callback(self._wake)
        updates: list[pb.RunWatchUpdate] = []

        def has_news() -> bool:
            updates.extend(update for watch_id in list(watches) for update in self._look(namespace, watches, watch_id))
            return bool(updates) or self.log.stopped or not context.is_active()

        while True:
            with self.log.changed:
                self.log.changed.wait_for(has_news)
                if self.log.stopped:
                    refuse(context, grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", "the fake runtime stops")
                if not context.is_active():
                    return
                response = pb.WatchRunsResponse(updates=updates)
                updates.clear()
            yield response

    def _read_watches(self, watches: dict[str, pb.WatchRunRequest], requests: Iterator[pb.WatchRunsRequest]) -> None:
        try:
            for request in requests:
                with self.log.changed:
                    if request.HasField("add"):
                        watches[request.add.watch_id] = request.add.watch
                    else:
                        watches.pop(request.remove.watch_id, None)
                    self.log.changed.notify_all()
        except grpc.RpcError:
            # The stream was ended from the other side; the writer notices by itself.
            return

    def _look(
        self, namespace: str, watches: dict[str, pb.WatchRunRequest], watch_id: str
    ) -> Iterator[pb.RunWatchUpdate]:
        """What there is to send to a watch now."""
        watch, log = watches[watch_id], self.log
        record = log.records.get((namespace, watch.run_id))
        if record is None:
            del watches[watch_id]
            ended = pb.RunWatchEnded(reason="RUN_NOT_FOUND", message=f"there is no run {watch.run_id!r}")
            yield pb.RunWatchUpdate(watch_id=watch_id, ended=ended)
            return
        wanted = []
        for space, event in log.events[watch.after_sequence :]:
            if (space, event.run_id) != (namespace, watch.run_id):
                continue
            if event.type in ENDS or event.visibility >= watch.visibility:
                shown = pb.RunEvent()
                shown.CopyFrom(event)
                shown.ClearField("run")
                wanted.append(shown)
        watch.after_sequence = max(watch.after_sequence, len(log.events))
        if wanted:
            yield pb.RunWatchUpdate(watch_id=watch_id, events=wanted, position=watch.after_sequence)
        if record.has_ended:
            del watches[watch_id]
            yield pb.RunWatchUpdate(watch_id=watch_id, ended=pb.RunWatchEnded())

    def FollowRuns(  # noqa: N802
        self, request: pb.FollowRunsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.FollowRunsResponse]:
        """See the service definition."""
        newest = len(self.log.events)
        if request.after_sequence > newest:
            reason = f"is {request.after_sequence}, and the newest is {newest}: it is of another journal"
            refuse_field(context, "after_sequence", reason)
        namespace = read_namespace(context)
        for events, position in self._read(namespace, request.after_sequence, context):
            wanted = [
                event
                for event in events
                if event.type not in request.without_types
                and (not request.named_only or _is_named(self.log.records[namespace, event.run_id]))
            ]
            yield pb.FollowRunsResponse(events=wanted, position=position)

    def CreateStreamTicket(  # noqa: N802
        self, request: pb.CreateStreamTicketRequest, context: grpc.ServicerContext
    ) -> pb.CreateStreamTicketResponse:
        """See the service definition; nothing listens at the address."""
        self._find(request.run_id, context)
        ticket = pb.CreateStreamTicketResponse(path=f"/runs/{request.run_id}/events?ticket=fake")
        ticket.expire_time.FromSeconds(int(time.time()) + TICKET_SECONDS)
        return ticket

    def ListAgents(self, _request: pb.ListAgentsRequest, _context: grpc.ServicerContext) -> pb.ListAgentsResponse:  # noqa: N802
        """See the service definition; always one page."""
        agents = [
            pb.Agent(
                agent_id=agent_id, description="An agent of the fake runtime.", model="fake", task_types=task_types
            )
            for agent_id in sorted({agent_id for agent_id, _ in self.functions if agent_id})
            for task_types in [self._task_types(agent_id)]
        ]
        return pb.ListAgentsResponse(agents=agents)

    def ListTaskTypes(  # noqa: N802
        self, _request: pb.ListTaskTypesRequest, _context: grpc.ServicerContext
    ) -> pb.ListTaskTypesResponse:
        """See the service definition; always one page."""
        return pb.ListTaskTypesResponse(task_types=self._task_types(""))

    def GetServerInfo(  # noqa: N802
        self, _request: pb.GetServerInfoRequest, context: grpc.ServicerContext
    ) -> pb.GetServerInfoResponse:
        """See the service definition; the version says that this is a fake."""
        return pb.GetServerInfoResponse(
            version=VERSION,
            namespace=read_namespace(context),
            durability="os",
            max_value_bytes=self.max_value_bytes,
            max_message_bytes=16 * 1024 * 1024,
            warnings=["This is the fake runtime of django_agent_runtime.testing: it keeps nothing."],
        )

    def _task_types(self, agent_id: str) -> list[pb.TaskType]:
        return [
            pb.TaskType(
                task_type=task_type, description="A task of the fake runtime.", input_schema=b'{"type":"object"}'
            )
            for owner, task_type in sorted(self.functions)
            if owner == agent_id and task_type
        ]

    def _function(self, request: pb.CreateRunRequest) -> AgentFunction | None:
        """What does a run, if there is anything."""
        if request.target in (pb.RUN_TARGET_UNSPECIFIED, pb.RUN_TARGET_TASK):
            return self.functions.get(("", request.task_type))
        function = self.functions.get((request.agent_id, request.task_type))
        return function or self.functions.get((request.agent_id, ""))

    def _check_known(self, request: pb.CreateRunRequest, context: grpc.ServicerContext) -> None:
        if request.target != pb.RUN_TARGET_WORKER and self._function(request) is None:
            agent_id = request.agent_id if request.target == pb.RUN_TARGET_AGENT else ""
            self._refuse_unknown(agent_id, request.task_type, context)

    def _create(
        self,
        namespace: str,
        run_id: str,
        request: pb.CreateRunRequest,
        context: grpc.ServicerContext,
        **origin: str,
    ) -> tuple[RunRecord, bool]:
        """The run of this id, and whether it is new."""
        record = self.log.records.get((namespace, run_id))
        if record is None:
            if request.concurrency.strategy == pb.CONCURRENCY_STRATEGY_CANCEL_RUNNING:
                self._cancel_holders(namespace, request.concurrency.key, run_id)
            record = self.log.accept(namespace, run_id, request, **origin)
            self._begin(record)
            return record, True
        if not _is_same(record.run, request):
            refuse(
                context,
                grpc.StatusCode.ALREADY_EXISTS,
                "IDEMPOTENCY_CONFLICT",
                f"run {run_id} was created with another payload",
                metadata={"run_id": run_id},
            )
        return record, False

    def _cancel_holders(self, namespace: str, key: str, run_id: str) -> None:
        """Cancel what has a concurrency key, or waits for it, for another run."""
        error = pb.RunError(reason="RUN_CANCELLED", message=f"run {run_id} took over its concurrency key {key!r}")
        for (space, _), record in list(self.log.records.items()):
            run = record.run
            if (space, run.concurrency_key) == (namespace, key) and run.state in HOLDING_STATES:
                self.log.end(record, pb.RUN_STATE_CANCELLED, error=error)

    def _create_scheduled(self, schedule: pb.Schedule, request_id: str, context: grpc.ServicerContext) -> pb.Run:
        namespace = read_namespace(context)
        with self.log.changed:
            self._check_known(schedule.run, context)
            run_id = make_run_id(namespace, request_id)
            record, _ = self._create(namespace, run_id, schedule.run, context, schedule_id=schedule.schedule_id)
            schedule.last_run_id = run_id
            return copy_run(record.run)

    def _begin(self, record: RunRecord) -> None:
        """Have a run done; one for a worker that is not there waits for `add`."""
        function = self._function(record.request)
        if function is not None:
            self.log.begin(record, function)

    def _read(
        self, namespace: str, after: int, context: grpc.ServicerContext
    ) -> Iterator[tuple[list[pb.RunEvent], int]]:
        """The events of a namespace as they come, with the position behind them."""
        log = self.log
        context.add_callback(self._wake)
        position = after

        def has_news() -> bool:
            return len(log.events) > position or log.stopped or not context.is_active()

        while True:
            with log.changed:
                log.changed.wait_for(has_news)
                if log.stopped:
                    refuse(context, grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", "the fake runtime stops")
                if not context.is_active():
                    return
                events = [event for space, event in log.events[position:] if space == namespace]
                position = len(log.events)
            yield events, position

    def _wake(self) -> None:
        with self.log.changed:
            self.log.changed.notify_all()

    def _refuse_unknown(self, agent_id: str, task_type: str, context: grpc.ServicerContext) -> NoReturn:
        agents = sorted({owner for owner, _ in self.functions if owner})
        if agent_id and agent_id not in agents:
            refuse(
                context,
                grpc.StatusCode.NOT_FOUND,
                "AGENT_NOT_FOUND",
                f"there is no agent {agent_id!r}; known: {', '.join(agents)}",
                metadata={"agent_id": agent_id, "known": ",".join(agents)},
            )
        task_types = sorted(name for owner, name in self.functions if owner == agent_id and name)
        refuse(
            context,
            grpc.StatusCode.NOT_FOUND,
            "TASK_TYPE_NOT_FOUND",
            f"there is no task type {task_type!r}; known: {', '.join(task_types)}",
            metadata={"task_type": task_type, "known": ",".join(task_types)},
        )

    def _find(self, run_id: str, context: grpc.ServicerContext) -> RunRecord:
        record = self.log.records.get((read_namespace(context), run_id))
        if record is None:
            refuse(
                context,
                grpc.StatusCode.NOT_FOUND,
                "RUN_NOT_FOUND",
                f"there is no run {run_id}",
                metadata={"run_id": run_id},
            )
        return record


def _refuse_state(context: grpc.ServicerContext, run: pb.Run, reason: str, said: str) -> NoReturn:
    state = state_name(run.state)
    refuse(
        context,
        grpc.StatusCode.FAILED_PRECONDITION,
        reason,
        f"run {run.run_id} {said}: it is {state}",
        metadata={"run_id": run.run_id, "state": state},
    )


def _is_wanted(record: RunRecord, request: pb.ListRunsRequest) -> bool:
    run = record.run
    is_dead = run.state in (pb.RUN_STATE_FAILED, pb.RUN_STATE_TIMED_OUT) and not record.was_retried
    return (
        (not request.states or run.state in request.states)
        and request.agent_id in ("", run.agent_id)
        and request.task_type in ("", run.task_type)
        and request.parent_run_id in ("", run.parent_run_id)
        and request.schedule_id in ("", run.schedule_id)
        and request.concurrency_key in ("", run.concurrency_key)
        and (is_dead or not request.dead_letters)
    )


def _is_named(record: RunRecord) -> bool:
    return bool(record.request.run_id or record.run.schedule_id)


def _is_same(run: pb.Run, request: pb.CreateRunRequest) -> bool:
    return (run.agent_id, run.task_type, run.input) == (request.agent_id, request.task_type, request.input)
