"""A fake runtime: a real gRPC server in this process, with everything in memory.

It speaks the runtime's wire, so the client under test is the real one. It is no runtime:
nothing is kept, inputs are not checked against schemas, there is no model, no token, no
retention and no limit on anything but the size of a value. Runs begin at once, whatever
their delay, priority or concurrency key, never time out, and are begun again without a
pause where their retry policy says so; schedules have no clock; documents of graphs and agents
are kept, and neither checked nor run, so that no thread of a graph is ever there. For what only the real one can
show (durability, restarts, the built-in agents) use `django_agent_runtime.testing.process`.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from django_agent_runtime.grpc_client.agentruntime.v1 import (
    agent_service_pb2_grpc,
    definition_service_pb2_grpc,
    event_service_pb2_grpc,
    state_service_pb2_grpc,
    thread_service_pb2_grpc,
    workspace_service_pb2_grpc,
)
from django_agent_runtime.testing._definitions import FakeDefinitionService
from django_agent_runtime.testing._events import FakeEventService
from django_agent_runtime.testing._runs import FakeAgentService
from django_agent_runtime.testing._state import FakeStateService
from django_agent_runtime.testing._threads import FakeThreadService
from django_agent_runtime.testing._wire import DEFAULT_NAMESPACE
from django_agent_runtime.testing._workspaces import FakeWorkspaceService

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from typing_extensions import Self

    from django_agent_runtime.testing._run_log import AgentFunction
    from django_agent_runtime.testing._runs import TaskFunction

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
# Streams and waiting calls each hold a thread of the server.
MAX_OPEN_CALLS = 64
STOP_GRACE_SECONDS = 1.0


@dataclass(frozen=True)
class AcceptedRun:
    """A run the fake was given, for assertions."""

    run_id: str
    agent_id: str
    task_type: str
    description: str
    input: Any
    metadata: Any


@dataclass(frozen=True)
class PublishedEvent:
    """An event the fake was given, for assertions."""

    sequence: int
    type: str
    data: Any
    source: str
    metadata: Any


class FakeGoRuntime:
    """A fake runtime on a free port of 127.0.0.1, from `start()` or `with` on until it is stopped.

    It knows the task `example_task`, which returns its input; add what the code under test needs:

        with FakeGoRuntime() as runtime:
            runtime.add_task("resize", lambda data: {"width": data["width"] // 2})
            runtime.add_agent_task("frontend_agent", "generate_component", lambda data: {"files": []})
            with override_settings(GO_RUNTIME=runtime.settings):
                ...
            assert [event.type for event in runtime.published_events()] == ["resized"]
    """

    def __init__(self, *, max_value_bytes: int = 1024 * 1024) -> None:
        """`max_value_bytes` is the largest state value it takes."""
        self._runs = FakeAgentService(max_value_bytes=max_value_bytes)
        self._state = FakeStateService(max_value_bytes=max_value_bytes)
        self._events = FakeEventService()
        self._definitions = FakeDefinitionService()
        self._workspaces = FakeWorkspaceService(self._runs.check_run)
        self._server: grpc.Server | None = None
        self.host = "127.0.0.1"
        self.port = 0
        self.add_task("example_task", lambda data: {"task_type": "example_task", "input": data, "fake": True})

    @property
    def settings(self) -> dict[str, Any]:
        """A `GO_RUNTIME` setting that points to this fake; waits and retries are short."""
        return {
            "host": self.host,
            "port": self.port,
            "timeout": 5,
            "reconnection_attempts": 1,
            "reconnection_delay": 0.1,
        }

    def start(self) -> Self:
        """Listen on a free port.

        Raises:
            ValueError: It was started before: a fake is for one use.
        """
        if self._server is not None:
            raise ValueError("This fake runtime was started before; make a new one.")
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.server(ThreadPoolExecutor(MAX_OPEN_CALLS, "fake-go-runtime"), options=options)
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(self._runs, self._server)  # type: ignore[no-untyped-call]
        state_service_pb2_grpc.add_StateServiceServicer_to_server(self._state, self._server)  # type: ignore[no-untyped-call]
        event_service_pb2_grpc.add_EventServiceServicer_to_server(self._events, self._server)  # type: ignore[no-untyped-call]
        definition_service_pb2_grpc.add_DefinitionServiceServicer_to_server(self._definitions, self._server)  # type: ignore[no-untyped-call]
        workspace_service_pb2_grpc.add_WorkspaceServiceServicer_to_server(self._workspaces, self._server)  # type: ignore[no-untyped-call]
        thread_service_pb2_grpc.add_ThreadServiceServicer_to_server(FakeThreadService(), self._server)  # type: ignore[no-untyped-call]
        self.port = self._server.add_insecure_port(f"{self.host}:0")
        self._server.start()
        return self

    def stop(self) -> None:
        """End streams and running tasks and close the port; a second call does nothing."""
        if self._server is None:
            return
        self._state.stop()
        self._events.stop()
        self._runs.log.stop()
        self._server.stop(STOP_GRACE_SECONDS).wait()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def add_task(self, task_type: str, function: TaskFunction) -> None:
        """Serve a task that needs no agent: `function` gets the input, and returns the output or raises."""
        self._runs.add("", task_type, _on_input(function))

    def add_agent_task(self, agent_id: str, task_type: str, function: TaskFunction) -> None:
        """Serve a task of an agent; the agent is listed from its first task on."""
        self._runs.add(agent_id, task_type, _on_input(function))

    def add_agent(self, agent_id: str, function: AgentFunction) -> None:
        """Serve an agent, whatever it is asked: `function` gets the run, and returns the output or raises.

        Runs that wait for a worker with this agent (`RunTarget.WORKER`) begin.

            def write(run: FakeRun) -> dict[str, Any]:
                run.emit("assistant.message", {"content": "a draft"})
                approved = run.interrupt({"question": "publish?"})
                return {"final_output": {"published": approved}}
        """
        self._runs.add(agent_id, "", function)

    def accepted_runs(self, namespace: str = DEFAULT_NAMESPACE) -> list[AcceptedRun]:
        """The runs of a namespace, oldest first."""
        return [
            AcceptedRun(
                run_id=run.run_id,
                agent_id=run.agent_id,
                task_type=run.task_type,
                description=run.description,
                input=json.loads(run.input or b"{}"),
                metadata=json.loads(run.metadata or b"{}"),
            )
            for run in self._runs.accepted(namespace)
        ]

    def add_run_files(self, run_id: str, files: Mapping[str, bytes], namespace: str = DEFAULT_NAMESPACE) -> None:
        """Have a run leave files, by path, instead of those that it had."""
        self._workspaces.set_files(namespace, run_id, files)

    def published_events(self, namespace: str = DEFAULT_NAMESPACE) -> list[PublishedEvent]:
        """The events of a namespace, in order."""
        return [
            PublishedEvent(
                sequence=event.sequence,
                type=event.type,
                data=json.loads(event.data or b"null"),
                source=event.source,
                metadata=json.loads(event.metadata or b"{}"),
            )
            for event in self._events.published(namespace)
        ]

    def wait_for_subscriptions(self, count: int, *, timeout_seconds: float = 10.0) -> bool:
        """Wait until clients hold exactly `count` event subscriptions; False when it took too long."""
        return self._events.wait_for_subscriptions(count, timeout_seconds=timeout_seconds)


def _on_input(function: TaskFunction) -> AgentFunction:
    """What does a run with a function that wants to know its input only."""
    return lambda run: function(run.input)
