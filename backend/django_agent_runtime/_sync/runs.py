"""Generated from `_async/runs.py` by `scripts/unasync.py`: edit that file."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from django_agent_runtime import _channel, _messages
from django_agent_runtime._arguments import MAX_PAGE_SIZE, check_seconds, check_states, check_whole, duration, patience
from django_agent_runtime._channel import CallMetadata, new_request_id
from django_agent_runtime._codec import check_text, encode
from django_agent_runtime._errors import CallFailure
from django_agent_runtime._requests import BATCH_ITEMS, create_request
from django_agent_runtime.exceptions import CallTimedOut
from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from django_agent_runtime.types import (
    TASK_TYPE,
    Concurrency,
    EventVisibility,
    NewTask,
    RetryPolicy,
    Run,
    RunState,
    RunTarget,
)

from .calls import SyncCalls

__all__ = ["SyncRuns"]

# Seconds an answer may come after the deadline that the runtime itself keeps, so that it can say what happened.
_ANSWER_GRACE = 1.0


class SyncRuns(SyncCalls):
    """The life of a run."""

    def create_run(
        self,
        agent_key: str,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - what the runtime calls it
        *,
        run_id: str | None = None,
        idempotency_key: str | None = None,
        target: RunTarget | str = RunTarget.AGENT,
        task_type: str = TASK_TYPE,
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        priority: int = 0,
        delay: float | None = None,
        run_at: datetime | None = None,
        concurrency: Concurrency | Mapping[str, Any] | None = None,
        deadline: float | None = None,
        run_timeout: float | None = None,
        queue_timeout: float | None = None,
        step_timeout: float | None = None,
        retry: RetryPolicy | Mapping[str, Any] | None = None,
        event_visibility: Mapping[str, EventVisibility | str] | None = None,
    ) -> Run:
        """Give an agent a run without waiting for it. Once this returns, the run survives whatever dies.

        A call that is repeated after a lost connection joins the run it began.

        Args:
            agent_key: The agent.
            input: A JSON object.
            run_id: The caller's own id for the run, a UUID.
            idempotency_key: Calls with the same key and payload are one run.
            target: What the agent is: `agent` if it is to be known, `worker` to wait for one that serves it.
            task_type: What the agent is to do.
            description: For people, at most 1000 bytes.
            metadata: A JSON object kept with the run.
            priority: -1000 to 1000; runs with a higher one begin before others of the namespace.
            delay: Seconds before which the run does not begin. Not together with `run_at`.
            run_at: The time, with its zone, before which the run does not begin.
            concurrency: How many runs with the same key may be under way; None: any number.
            deadline: Seconds after which the run is cancelled if it has not ended; None: never.
            run_timeout: Seconds one attempt may take; the run then times out. None: the agent's, else the runtime's.
            queue_timeout: Seconds for which it may have been possible to begin the run; it then times out. None: any.
            step_timeout: Seconds one recorded step may take; None: the agent's.
            retry: How often the run is begun; None: as the agent says, else the runtime.
            event_visibility: By type, who sees the run's own events (`run.started`, …), and those that an agent in the
                runtime emits (`assistant.delta`, …); what is not there has the default of its type.

        Raises:
            AgentNotFound: There is no such agent.
            InvalidRequest: The input does not fit; `.violations` names each field.
            IdempotencyConflict: `idempotency_key` or `run_id` was used with another payload.
            ConcurrencyLimit: The concurrency key is taken, and its strategy is `reject`.
            QueueFull: The queue of runs is full.
            RuntimeUnavailable: The runtime could not be reached in time.
        """
        task = NewTask(
            task_type=task_type,
            input_data=input,
            agent_id=agent_key,
            description=description,
            metadata=metadata,
            deadline=deadline,
            run_timeout=run_timeout,
            idempotency_key=idempotency_key,
            run_id=run_id,
            target=target,
            priority=priority,
            delay=delay,
            run_at=run_at,
            concurrency=concurrency,
            queue_timeout=queue_timeout,
            step_timeout=step_timeout,
            retry=retry,
            event_visibility=event_visibility,
        )
        return self._submit(create_request(task, agent_name="agent_key", input_name="input"))

    def execute_run(
        self,
        agent_key: str,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - what the runtime calls it
        *,
        run_id: str | None = None,
        idempotency_key: str | None = None,
        target: RunTarget | str = RunTarget.AGENT,
        task_type: str = TASK_TYPE,
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        priority: int = 0,
        delay: float | None = None,
        run_at: datetime | None = None,
        concurrency: Concurrency | Mapping[str, Any] | None = None,
        deadline: float | None = None,
        run_timeout: float | None = None,
        queue_timeout: float | None = None,
        step_timeout: float | None = None,
        retry: RetryPolicy | Mapping[str, Any] | None = None,
        event_visibility: Mapping[str, EventVisibility | str] | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Give an agent a run and wait for its output.

        Args:
            deadline: Seconds after which the run is cancelled if it has not ended; None: `timeout`.
            timeout: Seconds to wait; None: the `timeout` setting.

        The other arguments and the errors are those of `create_run`, and these:

        Raises:
            RunTimedOut: A TimeoutError: `deadline`, `run_timeout` or `queue_timeout` passed.
            RunCancelled: Somebody cancelled the run.
            RunFailed: The agent reported an error; `.run.error` says which.
            CallTimedOut: No answer came in time.
        """
        task = NewTask(
            task_type=task_type,
            input_data=input,
            agent_id=agent_key,
            description=description,
            metadata=metadata,
            deadline=deadline,
            run_timeout=run_timeout,
            idempotency_key=idempotency_key,
            run_id=run_id,
            target=target,
            priority=priority,
            delay=delay,
            run_at=run_at,
            concurrency=concurrency,
            queue_timeout=queue_timeout,
            step_timeout=step_timeout,
            retry=retry,
            event_visibility=event_visibility,
        )
        return self._execute(task, timeout, agent_name="agent_key", input_name="input")

    def get_run(self, run_id: str) -> Run:
        """Read one run as it is now.

        Raises:
            RunNotFound: There is no such run.
        """
        response = self._call(_channel.GET_RUN, agent_pb.GetRunRequest(run_id=check_text("run_id", run_id)))
        return _messages.to_run(response.run)

    def wait_run(self, run_id: str, timeout: float | None = None) -> Run:
        """Wait until a run has ended, however it did.

        Args:
            timeout: Seconds to wait; 0: ask once, without waiting; None: the `timeout` setting.

        Raises:
            CallTimedOut: A TimeoutError: it has not ended within `timeout` seconds. The run goes on.
            RunNotFound: There is no such run.
        """
        timeout = self.settings.timeout if timeout is None else timeout
        if timeout == 0:
            run = self.get_run(run_id)
        else:
            request = agent_pb.WaitRunRequest(
                run_id=check_text("run_id", run_id), max_wait=duration("timeout", timeout)
            )
            response = self._call(_channel.WAIT_RUN, request, timeout=timeout + _ANSWER_GRACE)
            run = _messages.to_run(response.run)
        if not run.state.ended:
            raise CallTimedOut(f"run {run_id} is still {run.state} after {timeout:g} s")
        return run

    def wait_runs(self, run_ids: Iterable[str], timeout: float | None = None) -> list[Run]:
        """Wait until all of many runs have ended, however they did. Lost connections and restarts do not end the wait.

        Args:
            run_ids: Any number of ids.
            timeout: Seconds to wait; 0: ask once, without waiting; None: the `timeout` setting.

        Returns:
            The run of each id, in order, without input.

        Raises:
            CallTimedOut: A TimeoutError: not all have ended within `timeout` seconds. `error.runs` are all as they
                are; they go on.
            RunNotFound: There is no such run.
        """
        seconds = check_seconds("timeout", timeout)
        seconds = self.settings.timeout if seconds is None else seconds
        until = time.monotonic() + seconds
        ids = [check_text("run_id", run_id) for run_id in run_ids]
        different = list(dict.fromkeys(ids))
        runs: dict[str, Run] = {}
        for start in range(0, len(different), BATCH_ITEMS):
            self._wait_batch(different[start : start + BATCH_ITEMS], until, runs)
        waited = [runs[run_id] for run_id in ids]
        going_on = sum(not run.state.ended for run in runs.values())
        if going_on:
            error = CallTimedOut(f"{going_on} of {len(runs)} runs have not ended after {seconds:g} s")
            error.runs = tuple(waited)
            raise error
        return waited

    def cancel_run(self, run_id: str, reason: str = "") -> Run:
        """End a run for good; one that was cancelled before is returned as it is.

        Args:
            reason: For people, at most 1000 bytes.

        Raises:
            RunEnded: It has ended in another way.
            RunNotFound: There is no such run.
        """
        request = agent_pb.CancelRunRequest(
            run_id=check_text("run_id", run_id), reason=check_text("reason", reason), request_id=new_request_id()
        )
        response = self._call(_channel.CANCEL_RUN, request)
        return _messages.to_run(response.run)

    def resume_run(self, run_id: str, value: Any = None, *, interrupt_id: str | None = None) -> Run:
        """Answer the question that a waiting run is parked at: its code goes on with the value.

        Args:
            value: The answer, any JSON value.
            interrupt_id: Which question; one that has this answer already is left alone. None: the one it is parked at.

        Returns:
            The run, which is queued again.

        Raises:
            RunNotWaiting: It waits for no such answer, or got another one.
            RunEnded: It has ended.
            RunNotFound: There is no such run.
        """
        request = agent_pb.ResumeRunRequest(
            run_id=check_text("run_id", run_id),
            interrupt_id=check_text("interrupt_id", interrupt_id or ""),
            value=encode(value),
            request_id=new_request_id(),
        )
        response = self._call(_channel.RESUME_RUN, request)
        return _messages.to_run(response.run)

    def retry_run(self, run_id: str, *, new_run_id: str | None = None) -> Run:
        """Do again what a run did that ended in another way than success, as a new run with the same payload.

        Args:
            new_run_id: The caller's own id for the new run, a UUID.

        Returns:
            The new run.

        Raises:
            RunNotEnded: It has not ended, or it succeeded.
            RunNotFound: There is no such run.
        """
        request = agent_pb.RetryRunRequest(
            run_id=check_text("run_id", run_id),
            request_id=new_request_id(),
            new_run_id=check_text("new_run_id", new_run_id or ""),
        )
        response = self._call(_channel.RETRY_RUN, request)
        return _messages.to_run(response.run)

    def list_runs(
        self,
        *,
        states: RunState | str | Iterable[RunState | str] = (),
        agent_id: str = "",
        task_type: str = "",
        page_size: int = 0,
        dead_letters: bool = False,
        parent_run_id: str = "",
        schedule_id: str = "",
        concurrency_key: str = "",
    ) -> Iterator[Run]:
        """Iterate over the runs, newest first, without input and output; pages are fetched as they are needed.

        Args:
            states: Only runs in one of these states, or in this one; empty: all.
            agent_id: Only runs with this agent id; empty: all.
            task_type: Only runs of this task type; empty: all.
            page_size: Runs fetched at a time, at most 500; 0: the runtime's default.
            dead_letters: Only runs that failed or timed out and were not retried by `retry_run`.
            parent_run_id: Only sub-runs of this run; empty: all.
            schedule_id: Only runs of this schedule; empty: all.
            concurrency_key: Only runs with this concurrency key; empty: all.
        """
        request = agent_pb.ListRunsRequest(
            states=[_messages.RUN_STATE_NUMBERS[state] for state in check_states("states", states)],
            agent_id=check_text("agent_id", agent_id),
            task_type=check_text("task_type", task_type),
            page_size=check_whole("page_size", page_size, MAX_PAGE_SIZE),
            dead_letters=bool(dead_letters),
            parent_run_id=check_text("parent_run_id", parent_run_id),
            schedule_id=check_text("schedule_id", schedule_id),
            concurrency_key=check_text("concurrency_key", concurrency_key),
        )
        while True:
            page = self._call(_channel.LIST_RUNS, request)
            for run in page.runs:
                yield _messages.to_run(run)
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def _execute(
        self, task: NewTask, timeout: float | None, *, agent_name: str = "agent_id", input_name: str = "input_data"
    ) -> dict[str, Any]:
        """Wait for the output of `task` for `timeout` seconds, after which it is cancelled unless it has a deadline."""
        timeout = self.settings.timeout if timeout is None else timeout
        # Named after the argument that is at fault, if one is.
        duration("timeout", timeout)
        if task.deadline is None:
            task = replace(task, deadline=timeout)
        request = create_request(task, agent_name=agent_name, input_name=input_name, wait=True)
        response = self._call(_channel.CREATE_RUN, request, timeout=timeout + _ANSWER_GRACE)
        return _messages.to_output(response.run)

    def _submit(self, request: agent_pb.CreateRunRequest) -> Run:
        response = self._call(_channel.CREATE_RUN, request)
        return _messages.to_run(response.run)

    def _wait_batch(self, run_ids: Sequence[str], until: float, runs: dict[str, Run]) -> None:
        """Put runs that have ended into `runs`, and `until` (monotonic seconds) the others as they are."""

        def receive(response: agent_pb.WaitRunsResponse) -> None:
            for run in response.runs:
                runs[run.run_id] = _messages.to_run(run)

        def attempt(metadata: CallMetadata) -> CallFailure | None:
            missing = [run_id for run_id in run_ids if run_id not in runs]
            if not missing:
                return None
            left = max(until - time.monotonic(), 0.0)
            request = agent_pb.WaitRunsRequest(run_ids=missing, max_wait=patience(left))
            deadline = time.monotonic() + left + self.settings.timeout
            return self._transport.attempt_stream(_channel.WAIT_RUNS, request, deadline, metadata, receive)

        self._persist(attempt, new_request_id(), max(until, time.monotonic()) + _ANSWER_GRACE)
