"""Tasks, with and without an agent, and what there is to do them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from django_agent_runtime import _channel, _messages
from django_agent_runtime._requests import add_runs, batch_requests, create_request
from django_agent_runtime.exceptions import AgentRuntimeError
from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from django_agent_runtime.types import (
    Agent,
    Concurrency,
    EventVisibility,
    NewTask,
    RetryPolicy,
    Run,
    RunTarget,
    TaskType,
)

from .runs import AsyncRuns

__all__ = ["AsyncTasks"]


class AsyncTasks(AsyncRuns):
    """Runs given by the task."""

    async def aexecute_task(
        self,
        task_type: str,
        input_data: Mapping[str, Any] | None = None,
        agent_id: str | None = None,
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        *,
        run_timeout: float | None = None,
        idempotency_key: str | None = None,
        run_id: str | None = None,
    ) -> dict[str, Any]:
        """Run a task and wait for its output.

        A call that is repeated after a lost connection joins the run it began.

        Args:
            task_type: One of `list_task_types()`.
            input_data: A JSON object that fits the task type's schema.
            agent_id: The caller's label for the run; it need not be a registered agent.
            description: For people, at most 1000 bytes.
            metadata: A JSON object kept with the run.
            timeout: Seconds after which the run is cancelled if it has not ended; None: the `timeout` setting.
            run_timeout: Seconds one attempt may take; None: the runtime's default.
            idempotency_key: Calls with the same key and payload are one run.
            run_id: The caller's own id for the run, a UUID.

        Raises:
            RunTimedOut: A TimeoutError: `timeout` or `run_timeout` passed.
            RunCancelled: Somebody cancelled the run.
            RunFailed: The task reported an error; `.run.error` says which.
            TaskTypeNotFound: There is no such task type.
            InvalidRequest: The input does not fit; `.violations` names each field.
            IdempotencyConflict: `idempotency_key` or `run_id` was used with another payload.
            CallTimedOut: No answer came in time.
            RuntimeUnavailable: The runtime could not be reached in time.
        """
        task = NewTask(
            task_type=task_type,
            input_data=input_data,
            agent_id=agent_id,
            description=description,
            metadata=metadata,
            run_timeout=run_timeout,
            idempotency_key=idempotency_key,
            run_id=run_id,
            target=RunTarget.TASK,
        )
        return await self._aexecute(task, timeout)

    async def aexecute_agent_task(
        self,
        agent_id: str,
        task_type: str,
        input_data: Mapping[str, Any] | None = None,
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        *,
        run_timeout: float | None = None,
        idempotency_key: str | None = None,
        run_id: str | None = None,
    ) -> dict[str, Any]:
        """Have a registered agent do a task and wait for its output: `execute_task`, but for the agent.

        Raises:
            AgentNotFound: There is no such agent; `list_agents()` names those there are.
            AgentRuntimeError: As in `execute_task`.
        """
        task = NewTask(
            task_type=task_type,
            input_data=input_data,
            agent_id=agent_id,
            description=description,
            metadata=metadata,
            run_timeout=run_timeout,
            idempotency_key=idempotency_key,
            run_id=run_id,
            target=RunTarget.AGENT,
        )
        return await self._aexecute(task, timeout)

    async def asubmit_task(
        self,
        task_type: str,
        input_data: Mapping[str, Any] | None = None,
        agent_id: str | None = None,
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        *,
        deadline: float | None = None,
        run_timeout: float | None = None,
        idempotency_key: str | None = None,
        run_id: str | None = None,
        priority: int = 0,
        delay: float | None = None,
        run_at: datetime | None = None,
        concurrency: Concurrency | Mapping[str, Any] | None = None,
        queue_timeout: float | None = None,
        step_timeout: float | None = None,
        retry: RetryPolicy | Mapping[str, Any] | None = None,
        event_visibility: Mapping[str, EventVisibility | str] | None = None,
    ) -> Run:
        """Hand over a task without waiting for it. Once this returns, the run survives whatever dies.

        Args:
            deadline: Seconds after which the run is cancelled if it has not ended; None: never.

        The arguments from `priority` on are those of `create_run`; the others and the errors are those of
        `execute_task`, but for those of a run that ended.
        """
        task = NewTask(
            task_type=task_type,
            input_data=input_data,
            agent_id=agent_id,
            description=description,
            metadata=metadata,
            deadline=deadline,
            run_timeout=run_timeout,
            idempotency_key=idempotency_key,
            run_id=run_id,
            target=RunTarget.TASK,
            priority=priority,
            delay=delay,
            run_at=run_at,
            concurrency=concurrency,
            queue_timeout=queue_timeout,
            step_timeout=step_timeout,
            retry=retry,
            event_visibility=event_visibility,
        )
        return await self._asubmit(create_request(task))

    async def asubmit_agent_task(
        self,
        agent_id: str,
        task_type: str,
        input_data: Mapping[str, Any] | None = None,
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        *,
        deadline: float | None = None,
        run_timeout: float | None = None,
        idempotency_key: str | None = None,
        run_id: str | None = None,
        priority: int = 0,
        delay: float | None = None,
        run_at: datetime | None = None,
        concurrency: Concurrency | Mapping[str, Any] | None = None,
        queue_timeout: float | None = None,
        step_timeout: float | None = None,
        retry: RetryPolicy | Mapping[str, Any] | None = None,
        event_visibility: Mapping[str, EventVisibility | str] | None = None,
    ) -> Run:
        """Hand a task to a registered agent without waiting for it: `submit_task`, but for the agent.

        Raises:
            AgentNotFound: There is no such agent.
        """
        task = NewTask(
            task_type=task_type,
            input_data=input_data,
            agent_id=agent_id,
            description=description,
            metadata=metadata,
            deadline=deadline,
            run_timeout=run_timeout,
            idempotency_key=idempotency_key,
            run_id=run_id,
            target=RunTarget.AGENT,
            priority=priority,
            delay=delay,
            run_at=run_at,
            concurrency=concurrency,
            queue_timeout=queue_timeout,
            step_timeout=step_timeout,
            retry=retry,
            event_visibility=event_visibility,
        )
        return await self._asubmit(create_request(task))

    async def asubmit_tasks(self, tasks: Iterable[NewTask | Mapping[str, Any]]) -> list[Run]:
        """Hand over many tasks in order: up to 1000 in a call, each call refused or accepted as a whole.

        A call is sent when the one before it has been answered; meanwhile its tasks are taken and encoded. A call
        that is repeated after a lost connection joins the runs it began.

        Args:
            tasks: `NewTask` objects, or mappings with the same keys.

        Returns:
            The run of each task, in order, without input and output; for `wait_runs` pass on their ids.

        Raises:
            AgentRuntimeError: Not all were handed over. `error.runs` are those that were, of the first of `tasks`.
                Of the others none was if the error is an InvalidRequest, NotFound, Overloaded or AccessDenied. After
                any other, some of the next 1000 may have been. A field that the runtime refuses is named
                `requests[i].…`, where `i` counts from `len(error.runs)` on.
        """
        runs: list[Run] = []
        try:
            await self._acall_each(_channel.BATCH_CREATE_RUNS, batch_requests(tasks), partial(add_runs, runs))
        except AgentRuntimeError as error:
            error.runs = tuple(runs)
            raise
        return runs

    async def alist_agents(self) -> list[Agent]:
        """The agents that can be given tasks."""
        agents: list[Agent] = []
        request = agent_pb.ListAgentsRequest()
        while True:
            page = await self._acall(_channel.LIST_AGENTS, request)
            agents.extend(_messages.to_agent(agent) for agent in page.agents)
            request.page_token = page.next_page_token
            if not request.page_token:
                return agents

    async def alist_task_types(self) -> list[TaskType]:
        """The tasks that need no agent."""
        task_types: list[TaskType] = []
        request = agent_pb.ListTaskTypesRequest()
        while True:
            page = await self._acall(_channel.LIST_TASK_TYPES, request)
            task_types.extend(_messages.to_task_type(task_type) for task_type in page.task_types)
            request.page_token = page.next_page_token
            if not request.page_token:
                return task_types
