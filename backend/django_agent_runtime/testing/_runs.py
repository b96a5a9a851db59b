"""The fake's runs: Python functions behind the real service definition."""

from __future__ import annotations

import json
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as pb
from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2_grpc
from django_agent_runtime.testing._wire import read_namespace, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    # Takes the input of a run and returns its output; an exception fails the run with its text.
    TaskFunction = Callable[[dict[str, Any]], Mapping[str, Any]]

VERSION = "fake"
TERMINAL_STATES = frozenset(
    {pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED, pb.RUN_STATE_CANCELLED, pb.RUN_STATE_TIMED_OUT}
)


@dataclass
class FakeAgentService(agent_service_pb2_grpc.AgentServiceServicer):
    """Runs each task in a thread of its own pool, at most eight at a time."""

    max_value_bytes: int
    # By agent and task type; tasks without an agent are under the empty agent.
    functions: dict[tuple[str, str], TaskFunction] = field(default_factory=dict)
    _runs: dict[tuple[str, str], pb.Run] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _workers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8, "fake-go-runtime-run"))

    def stop(self) -> None:
        """Wait for tasks that are being run, and start no more."""
        self._workers.shutdown(cancel_futures=True)

    def accepted(self, namespace: str) -> list[pb.Run]:
        """The runs of a namespace, oldest first."""
        with self._changed:
            return [_copy(run) for (space, _), run in self._runs.items() if space == namespace]

    def CreateRun(self, request: pb.CreateRunRequest, context: grpc.ServicerContext) -> pb.CreateRunResponse:  # noqa: N802
        """See the service definition."""
        namespace = read_namespace(context)
        function = self._resolve(request, context)
        with self._changed:
            run_id = _choose_run_id(namespace, request)
            run = self._runs.get((namespace, run_id))
            created = run is None
            if run is None:
                run = _accept(run_id, request)
                self._runs[namespace, run_id] = run
                self._workers.submit(self._execute, run, function)
            elif not _is_same(run, request):
                refuse(
                    context,
                    grpc.StatusCode.ALREADY_EXISTS,
                    "IDEMPOTENCY_CONFLICT",
                    f"run {run_id} was created with another payload",
                    metadata={"run_id": run_id},
                )
            if request.wait:
                self._wait_until_ended(run, context.time_remaining())
            return pb.CreateRunResponse(run=_copy(run), created=created)

    def BatchCreateRuns(  # noqa: N802
        self, request: pb.BatchCreateRunsRequest, context: grpc.ServicerContext
    ) -> pb.BatchCreateRunsResponse:
        """See the service definition; a conflict may follow on runs that were accepted."""
        for item in request.requests:
            self._resolve(item, context)
        responses = [self.CreateRun(item, context) for item in request.requests]
        for response in responses:
            response.run.input, response.run.output = b"", b""
        return pb.BatchCreateRunsResponse(responses=responses)

    def GetRun(self, request: pb.GetRunRequest, context: grpc.ServicerContext) -> pb.GetRunResponse:  # noqa: N802
        """See the service definition."""
        with self._changed:
            return pb.GetRunResponse(run=_copy(self._find(request.run_id, context)))

    def ListRuns(self, request: pb.ListRunsRequest, context: grpc.ServicerContext) -> pb.ListRunsResponse:  # noqa: N802
        """See the service definition; the page token is how many runs the pages before held."""
        wanted = [
            run
            for run in reversed(self.accepted(read_namespace(context)))
            if (not request.states or run.state in request.states)
            and request.agent_id in ("", run.agent_id)
            and request.task_type in ("", run.task_type)
        ]
        size = min(request.page_size or 50, 500)
        start = int(request.page_token or 0)
        page = wanted[start : start + size]
        for run in page:
            run.input, run.output = b"", b""
        more = start + size < len(wanted)
        return pb.ListRunsResponse(runs=page, next_page_token=str(start + size) if more else "")

    def WaitRun(self, request: pb.WaitRunRequest, context: grpc.ServicerContext) -> pb.WaitRunResponse:  # noqa: N802
        """See the service definition."""
        with self._changed:
            run = self._find(request.run_id, context)
            limit = request.max_wait.ToNanoseconds() / 1e9 if request.HasField("max_wait") else context.time_remaining()
            self._wait_until_ended(run, limit)
            return pb.WaitRunResponse(run=_copy(run))

    def WaitRuns(self, request: pb.WaitRunsRequest, context: grpc.ServicerContext) -> Iterator[pb.WaitRunsResponse]:  # noqa: N802
        """See the service definition; each run in a message of its own, in the order they were asked for."""
        until = time.monotonic() + request.max_wait.ToNanoseconds() / 1e9 if request.HasField("max_wait") else None
        with self._changed:
            runs = [self._find(run_id, context) for run_id in dict.fromkeys(request.run_ids)]
        for run in runs:
            with self._changed:
                limit = context.time_remaining() if until is None else max(until - time.monotonic(), 0.0)
                self._wait_until_ended(run, limit)
                copy = _copy(run)
            copy.input = b""
            yield pb.WaitRunsResponse(runs=[copy])

    def CancelRun(self, request: pb.CancelRunRequest, context: grpc.ServicerContext) -> pb.CancelRunResponse:  # noqa: N802
        """See the service definition."""
        with self._changed:
            run = self._find(request.run_id, context)
            if run.state not in TERMINAL_STATES:
                error = pb.RunError(reason="RUN_CANCELLED", message=request.reason or "cancelled on request")
                self._end(run, pb.RUN_STATE_CANCELLED, error=error)
            elif run.state != pb.RUN_STATE_CANCELLED:
                state = pb.RunState.Name(run.state).removeprefix("RUN_STATE_").lower()
                refuse(
                    context,
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "RUN_ENDED",
                    f"run {run.run_id} has already {state}",
                    metadata={"run_id": run.run_id, "state": state},
                )
            return pb.CancelRunResponse(run=_copy(run))

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
            if owner == agent_id
        ]

    def _resolve(self, request: pb.CreateRunRequest, context: grpc.ServicerContext) -> TaskFunction:
        agent_id = request.agent_id if request.target == pb.RUN_TARGET_AGENT else ""
        function = self.functions.get((agent_id, request.task_type))
        if function is None:
            self._refuse_unknown(agent_id, request.task_type, context)
        return function

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
        task_types = sorted(name for owner, name in self.functions if owner == agent_id)
        refuse(
            context,
            grpc.StatusCode.NOT_FOUND,
            "TASK_TYPE_NOT_FOUND",
            f"there is no task type {task_type!r}; known: {', '.join(task_types)}",
            metadata={"task_type": task_type, "known": ",".join(task_types)},
        )

    def _find(self, run_id: str, context: grpc.ServicerContext) -> pb.Run:
        run = self._runs.get((read_namespace(context), run_id))
        if run is None:
            refuse(
                context,
                grpc.StatusCode.NOT_FOUND,
                "RUN_NOT_FOUND",
                f"there is no run {run_id}",
                metadata={"run_id": run_id},
            )
        return run

    def _wait_until_ended(self, run: pb.Run, timeout_seconds: float | None) -> None:
        self._changed.wait_for(lambda: run.state in TERMINAL_STATES, timeout_seconds)

    def _execute(self, run: pb.Run, function: TaskFunction) -> None:
        with self._changed:
            if run.state in TERMINAL_STATES:
                return
            run.state, run.attempt = pb.RUN_STATE_RUNNING, 1
            run.start_time.GetCurrentTime()
        try:
            output = json.dumps(function(json.loads(run.input or b"{}"))).encode()
        except Exception as error:  # noqa: BLE001 - whatever a test's function raises is the run's failure
            failure = pb.RunError(reason="AGENT_FAILED", message=str(error) or type(error).__name__)
            with self._changed:
                self._end(run, pb.RUN_STATE_FAILED, error=failure)
        else:
            with self._changed:
                self._end(run, pb.RUN_STATE_SUCCEEDED, output=output)

    def _end(self, run: pb.Run, state: pb.RunState, *, output: bytes = b"", error: pb.RunError | None = None) -> None:
        if run.state in TERMINAL_STATES:
            return
        run.state, run.output = state, output
        run.sequence += 1
        run.end_time.GetCurrentTime()
        if error:
            run.error.CopyFrom(error)
        self._changed.notify_all()


def _choose_run_id(namespace: str, request: pb.CreateRunRequest) -> str:
    key = request.idempotency_key or request.request_id
    return request.run_id or str(uuid.uuid5(uuid.NAMESPACE_URL, f"{namespace}/{key}") if key else uuid.uuid4())


def _accept(run_id: str, request: pb.CreateRunRequest) -> pb.Run:
    run = pb.Run(
        run_id=run_id,
        target=request.target or pb.RUN_TARGET_TASK,
        agent_id=request.agent_id,
        task_type=request.task_type,
        description=request.description,
        input=request.input,
        metadata=request.metadata,
        state=pb.RUN_STATE_QUEUED,
        max_attempts=1,
        sequence=1,
    )
    run.create_time.GetCurrentTime()
    return run


def _is_same(run: pb.Run, request: pb.CreateRunRequest) -> bool:
    return (run.agent_id, run.task_type, run.input) == (request.agent_id, request.task_type, request.input)


def _copy(run: pb.Run) -> pb.Run:
    copy = pb.Run()
    copy.CopyFrom(run)
    return copy
