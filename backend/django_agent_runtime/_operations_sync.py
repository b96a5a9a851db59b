"""Generated from `_operations_async.py` by `scripts/unasync.py`: edit that file."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from . import _channel, _messages
from ._ahead import PendingCall
from ._arguments import (
    MAX_PAGE_SIZE,
    check_callback,
    check_event,
    check_items,
    check_seconds,
    check_states,
    check_task,
    check_ttl,
    check_whole,
    duration,
    patience,
)
from ._channel import CallMetadata, Q, R, Rpc, Transport, jittered, new_request_id
from ._codec import check_event_pattern, check_event_type, check_key, check_text, decode, encode, encode_object
from ._errors import CallFailure, failure_error
from ._streams import Stream, settle
from ._subscriptions import CallbackSubscription, EventHub, IteratedSubscription
from ._watch import Watch
from .conf import RuntimeSettings
from .exceptions import AgentRuntimeError, CallTimedOut, InvalidRequest, InvalidValue, RuntimeUnavailable
from .grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from .grpc_client.agentruntime.v1 import event_service_pb2 as event_pb
from .grpc_client.agentruntime.v1 import state_service_pb2 as state_pb
from .types import (
    Agent,
    DeleteOperation,
    Event,
    EventGap,
    NewEvent,
    NewTask,
    OperationResult,
    PublishedEvent,
    Run,
    RunState,
    RunTarget,
    ServerInfo,
    SetOperation,
    StateChange,
    StateEntry,
    TaskType,
)

__all__ = ["SyncOperations"]

logger = logging.getLogger(__name__)

# Seconds an answer may come after the deadline that the runtime itself keeps, so that it can say what happened.
_ANSWER_GRACE = 1.0
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_PING_SECONDS = 1.0

# The most events, tasks or runs of one call; a longer batch takes several.
_BATCH_ITEMS = 1000
_BATCH_BYTES = 8 << 20


class SyncOperations:
    """The methods of `GoRuntimeIntegration` for threads."""

    settings: RuntimeSettings
    _transport: Transport
    _hub: EventHub

    def connect(self) -> bool:
        """Make sure that the runtime can be reached.

        Tries `reconnection_attempts` times, `reconnection_delay` seconds apart. Calling it is optional: every call
        connects by itself, and again after a lost connection.

        Returns:
            True.

        Raises:
            RuntimeUnavailable: A ConnectionError that says what to do.
            AccessDenied: The runtime is there, and refuses the token.
        """
        attempts = self.settings.reconnection_attempts
        for attempt in range(1, attempts + 1):
            try:
                self._call(_channel.GET_SERVER_INFO, agent_pb.GetServerInfoRequest(), retry=False)
                return True
            except (RuntimeUnavailable, CallTimedOut) as error:
                if attempt == attempts:
                    raise RuntimeUnavailable(
                        f"no agent runtime at {self.settings.address} after {attempts} attempts: {error}",
                        request_id=error.request_id,
                    ) from error
                logger.info("agent runtime not reached", extra={"attempt": attempt, "err": str(error)})
            time.sleep(self.settings.reconnection_delay)
        raise AssertionError("reconnection_attempts is at least 1")

    def disconnect(self) -> None:
        """End every subscription and stream and close the connection; safe to call twice.

        Calls in flight fail with ClientClosed. A later call connects again.
        """
        self._transport.close()

    def is_connected(self) -> bool:
        """Whether the runtime answers now, asked with one call that waits at most a second."""
        try:
            self._call(_channel.GET_SERVER_INFO, agent_pb.GetServerInfoRequest(), timeout=_PING_SECONDS, retry=False)
        except (RuntimeUnavailable, CallTimedOut):
            return False
        return True

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Wait until the runtime answers, trying again and again.

        Args:
            timeout: Seconds to wait; None: the `timeout` setting.

        Returns:
            True.

        Raises:
            RuntimeUnavailable: It did not within `timeout` seconds.
        """
        self._call(_channel.GET_SERVER_INFO, agent_pb.GetServerInfoRequest(), timeout=check_seconds("timeout", timeout))
        return True

    def get_server_info(self, timeout: float | None = None) -> ServerInfo:
        """Which runtime this is and what its limits are.

        Args:
            timeout: Seconds the call may take; None: the `timeout` setting.
        """
        info = self._call(
            _channel.GET_SERVER_INFO, agent_pb.GetServerInfoRequest(), timeout=check_seconds("timeout", timeout)
        )
        return _messages.to_server_info(info)

    # Tasks and agents

    def execute_task(
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
            task_type, input_data, agent_id, description, metadata, None, run_timeout, idempotency_key, run_id
        )
        return self._execute(task, agent_pb.RUN_TARGET_TASK, timeout)

    def execute_agent_task(
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
            task_type, input_data, agent_id, description, metadata, None, run_timeout, idempotency_key, run_id
        )
        return self._execute(task, agent_pb.RUN_TARGET_AGENT, timeout)

    def submit_task(
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
    ) -> Run:
        """Hand over a task without waiting for it. Once this returns, the run survives whatever dies.

        Args:
            deadline: Seconds after which the run is cancelled if it has not ended; None: never.

        The other arguments and the errors are those of `execute_task`, but for those of a run that ended.
        """
        task = NewTask(
            task_type, input_data, agent_id, description, metadata, None, run_timeout, idempotency_key, run_id
        )
        return self._submit(task, agent_pb.RUN_TARGET_TASK, deadline)

    def submit_agent_task(
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
    ) -> Run:
        """Hand a task to a registered agent without waiting for it: `submit_task`, but for the agent.

        Raises:
            AgentNotFound: There is no such agent.
        """
        task = NewTask(
            task_type, input_data, agent_id, description, metadata, None, run_timeout, idempotency_key, run_id
        )
        return self._submit(task, agent_pb.RUN_TARGET_AGENT, deadline)

    def submit_tasks(self, tasks: Iterable[NewTask | Mapping[str, Any]]) -> list[Run]:
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
            self._call_each(_channel.BATCH_CREATE_RUNS, _batch_requests(tasks), partial(_add_runs, runs))
        except AgentRuntimeError as error:
            error.runs = tuple(runs)
            raise
        return runs

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
        for start in range(0, len(different), _BATCH_ITEMS):
            self._wait_batch(different[start : start + _BATCH_ITEMS], until, runs)
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

    def list_runs(
        self,
        *,
        states: RunState | str | Iterable[RunState | str] = (),
        agent_id: str = "",
        task_type: str = "",
        page_size: int = 0,
    ) -> Iterator[Run]:
        """Iterate over the runs, newest first, without input and output; pages are fetched as they are needed.

        Args:
            states: Only runs in one of these states, or in this one; empty: all.
            agent_id: Only runs with this agent id; empty: all.
            task_type: Only runs of this task type; empty: all.
            page_size: Runs fetched at a time, at most 500; 0: the runtime's default.
        """
        request = agent_pb.ListRunsRequest(
            states=[_messages.RUN_STATE_NUMBERS[state] for state in check_states("states", states)],
            agent_id=check_text("agent_id", agent_id),
            task_type=check_text("task_type", task_type),
            page_size=check_whole("page_size", page_size, MAX_PAGE_SIZE),
        )
        while True:
            page = self._call(_channel.LIST_RUNS, request)
            for run in page.runs:
                yield _messages.to_run(run)
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def list_agents(self) -> list[Agent]:
        """The agents that can be given tasks."""
        agents: list[Agent] = []
        request = agent_pb.ListAgentsRequest()
        while True:
            page = self._call(_channel.LIST_AGENTS, request)
            agents.extend(_messages.to_agent(agent) for agent in page.agents)
            request.page_token = page.next_page_token
            if not request.page_token:
                return agents

    def list_task_types(self) -> list[TaskType]:
        """The tasks that need no agent."""
        task_types: list[TaskType] = []
        request = agent_pb.ListTaskTypesRequest()
        while True:
            page = self._call(_channel.LIST_TASK_TYPES, request)
            task_types.extend(_messages.to_task_type(task_type) for task_type in page.task_types)
            request.page_token = page.next_page_token
            if not request.page_token:
                return task_types

    # Shared state

    def get_state(self, key: str, default: Any = None) -> Any:
        """The value of a key of the shared state, or `default` if there is no such key.

        A stored null is None, whatever `default` is.
        """
        response = self._call(_channel.GET_STATE, state_pb.GetStateRequest(key=check_key(key)))
        return decode(response.entry.value) if response.HasField("entry") else default

    def get_state_entry(self, key: str) -> StateEntry | None:
        """A key of the shared state with its revision and times; None if there is no such key."""
        response = self._call(_channel.GET_STATE, state_pb.GetStateRequest(key=check_key(key)))
        return _messages.to_entry(response.entry) if response.HasField("entry") else None

    def set_state(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | None = None,
        expected_revision: int | None = None,
        create_only: bool = False,
    ) -> bool:
        """Set a key of the shared state; once this returns, the value survives whatever dies.

        Args:
            key: 1 to 512 bytes of UTF-8.
            value: Any JSON value, nested at most 200 levels; it comes back exactly as written.
            ttl: Whole seconds after which the key is removed; None: kept.
            expected_revision: Write only if the key is at this revision; 0: only if it does not exist.
            create_only: Write only if the key does not exist.

        Returns:
            True. What stood in the way is raised.

        Raises:
            RevisionMismatch: The key is at another revision.
            KeyExists: `create_only`, and the key exists.
            InvalidValue: The key or the value cannot be stored; nothing was sent.
            TooLarge: The value is above the runtime's limit.
            StorageFull: The runtime has no room.
        """
        if create_only:
            if expected_revision:
                raise InvalidValue("create_only and expected_revision contradict each other")
            expected_revision = 0
        request = state_pb.SetStateRequest(
            key=check_key(key),
            value=encode(value),
            ttl=duration("ttl", check_ttl("ttl", ttl)),
            expected_revision=check_whole("expected_revision", expected_revision),
            request_id=new_request_id(),
        )
        self._call(_channel.SET_STATE, request)
        return True

    def delete_state(self, key: str, *, expected_revision: int | None = None) -> bool:
        """Delete a key of the shared state.

        Args:
            expected_revision: Delete only if the key is at this revision.

        Returns:
            Whether there was such a key.

        Raises:
            RevisionMismatch: The key is at another revision.
        """
        request = state_pb.DeleteStateRequest(
            key=check_key(key),
            expected_revision=check_whole("expected_revision", expected_revision),
            request_id=new_request_id(),
        )
        response = self._call(_channel.DELETE_STATE, request)
        return response.existed

    def list_state(self, prefix: str = "", *, keys_only: bool = False, page_size: int = 0) -> Iterator[StateEntry]:
        """Iterate over the keys that begin with `prefix`, in byte order; pages are fetched as they are needed.

        Args:
            prefix: Any string; a `*` at its end is left out. Empty: every key.
            keys_only: Leave values out; they are None.
            page_size: Entries fetched at a time, at most 1000; 0: the runtime's default.
        """
        request = state_pb.ListStateRequest(
            prefix=check_text("prefix", prefix).removesuffix("*"),
            keys_only=bool(keys_only),
            page_size=check_whole("page_size", page_size, MAX_PAGE_SIZE),
        )
        while True:
            page = self._call(_channel.LIST_STATE, request)
            for entry in page.entries:
                yield _messages.to_entry(entry)
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def transact_state(self, operations: Iterable[SetOperation | DeleteOperation]) -> list[OperationResult]:
        """Apply 1 to 100 operations on the shared state, all or none. A key may occur once.

        Returns:
            One result for each operation, in order.

        Raises:
            RevisionMismatch: A key is at another revision than its operation expects; nothing was changed.
            AgentRuntimeError: As in `set_state`.
        """
        request = state_pb.TransactStateRequest(request_id=new_request_id())
        for index, operation in enumerate(check_items("operations", operations)):
            name = f"operations[{index}]"
            if not isinstance(operation, (SetOperation, DeleteOperation)):
                raise InvalidValue(f"{name} is {operation!r}, must be a SetOperation or a DeleteOperation")
            step = state_pb.StateOperation(
                expected_revision=check_whole(f"{name}.expected_revision", operation.expected_revision)
            )
            if isinstance(operation, SetOperation):
                step.set.key = check_key(operation.key)
                step.set.value = encode(operation.value)
                if ttl := duration(f"{name}.ttl", check_ttl(f"{name}.ttl", operation.ttl)):
                    step.set.ttl.CopyFrom(ttl)
            else:
                step.delete.key = check_key(operation.key)
            request.operations.append(step)
        response = self._call(_channel.TRANSACT_STATE, request)
        return [OperationResult(revision=item.revision, existed=item.existed) for item in response.results]

    def watch_state(
        self, pattern: str = "*", *, include_current: bool = False, after_revision: int | None = None
    ) -> Stream[StateChange]:
        """Iterate over the changes of the shared state as they happen, without end.

        It goes on over lost connections, restarts and forks. Of several changes to one key that happened while it
        was not connected, it may show only the last.

        Args:
            pattern: A key, or with a `*` at its end every key with the prefix before it.
            include_current: Begin with the entries as they are now.
            after_revision: Begin after this revision instead of now.

        Raises:
            EventsTruncated: While iterating: the runtime's disk was damaged, and changes this had still to see, or
                values it has seen, may be gone. Begin anew with `include_current`.
        """
        exact = not pattern.endswith("*")
        watch = Watch(
            self._transport,
            key=check_key(pattern) if exact else "",
            prefix="" if exact else check_text("pattern", pattern)[:-1],
            include_current=include_current,
            after_revision=check_whole("after_revision", after_revision),
        )
        return Stream(watch, self.settings.timeout)

    # Events

    def publish_event(
        self, event_type: str, data: Any, source: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> bool:
        """Publish an event; once this returns, it survives whatever dies.

        Args:
            event_type: 1 to 200 bytes of UTF-8 without `*`, by convention words with dots between: `order.created`.
            data: Any JSON value.
            source: Who publishes it, at most 200 bytes.
            metadata: A JSON object.

        Returns:
            True. What stood in the way is raised.

        Raises:
            InvalidRequest: The event cannot be published as it is.
            StorageFull: The runtime has no room.
        """
        self.publish_events([NewEvent(event_type, data, source, metadata or {})])
        return True

    def publish_events(self, events: Iterable[NewEvent | Mapping[str, Any]]) -> list[PublishedEvent]:
        """Publish many events in order: up to 1000 in a call, each call refused or accepted as a whole.

        A call is sent when the one before it has been answered; meanwhile its events are taken and encoded. A call
        that is repeated after a lost connection has no second effect.

        Args:
            events: `NewEvent` objects, or mappings with the same keys.

        Returns:
            The id and sequence of each event, in order.

        Raises:
            AgentRuntimeError: Not all were published. `error.published` are those that were acknowledged, the first
                ones of `events`. Of the others none was published if the error is an InvalidRequest (one cannot be
                published as it is) or AccessDenied. After any other, some of the next 1000 may have been: the
                runtime had begun, and only their acknowledgement is missing.
        """
        published: list[PublishedEvent] = []
        try:
            self._call_each(_channel.PUBLISH_EVENTS, _publish_requests(events), partial(_add_published, published))
        except AgentRuntimeError as error:
            error.published = tuple(published)
            raise
        return published

    def subscribe_to_events(
        self,
        event_type: str | Sequence[str],
        callback: Callable[[Event], object],
        from_sequence: int | None = None,
        from_beginning: bool = False,
        *,
        on_gap: Callable[[EventGap], object] | None = None,
    ) -> str:
        """Call `callback` with every event of some types; every event published after this returns is seen.

        A subscription goes on over lost connections, restarts and forks of this process, and neither loses nor
        repeats an event. Callbacks run in a thread of the client, in order and one at a time for a subscription.
        One that raises is logged and counted in `stats`, and the next event follows. A slow one holds up nobody
        else. In a forked child there are no subscriptions.

        Args:
            event_type: A type, or several. `*` is every type; `order.*` every type that begins with `order.`.
                A `*` stands at the end only.
            callback: Called with an `Event`.
            from_sequence: The first sequence wanted; None: from now on.
            from_beginning: Begin with the oldest event that is still kept.
            on_gap: Called, in order with `callback`, when events were removed by retention, or lost with a damaged
                disk, before this subscription got them. Lost ones count whatever their types, as nobody knows them.
                It then goes on with the oldest event there is behind them; a warning is logged.

        Returns:
            The subscription's id, for `unsubscribe_from_events`.

        Raises:
            RuntimeUnavailable: The runtime could not be reached within the `timeout` setting.
            InvalidRequest: A type is not valid, or both `from_sequence` and `from_beginning` are given.
        """
        check_callback(callback)
        from_sequence = check_whole("from_sequence", from_sequence)
        _check_one_start("from_sequence", from_sequence, from_beginning)
        subscription = CallbackSubscription(
            self._hub,
            _event_types(event_type),
            None if from_sequence is None else max(from_sequence - 1, 0),
            from_beginning,
            callback,
            on_gap,
        )
        self._hub.add(subscription)
        try:
            settle(subscription.begun, self.settings.timeout)
        except InvalidRequest as error:
            subscription.close()
            raise _named_as_asked(error, from_sequence) from error
        except BaseException:
            subscription.close()
            raise
        return subscription.subscription_id

    def unsubscribe_from_events(self, subscription_id: str) -> bool:
        """End a subscription. After this returns no callback begins; one under way may still end.

        Returns:
            Whether there was such a subscription.
        """
        return self._hub.remove(subscription_id)

    def stream_events(
        self,
        event_type: str | Sequence[str] = "*",
        *,
        after_sequence: int | None = None,
        from_beginning: bool = False,
    ) -> Stream[Event]:
        """Iterate over the events of some types as they happen, without end, for a stream to a browser.

        It goes on over lost connections, restarts and forks, and neither loses nor repeats an event. All streams
        and subscriptions of a client share one connection.

        Args:
            event_type: As in `subscribe_to_events`.
            after_sequence: Begin with what follows this sequence, such as a browser's `Last-Event-ID` or the
                `position` of another stream; None: now.
            from_beginning: Begin with the oldest event that is still kept.

        Raises:
            EventsTruncated: While iterating: some of the events asked for are no longer kept, or were lost with a
                damaged disk. Its `oldest_sequence - 1` goes on behind them as `after_sequence`.
        """
        after_sequence = check_whole("after_sequence", after_sequence)
        _check_one_start("after_sequence", after_sequence, from_beginning)
        subscription = IteratedSubscription(self._hub, _event_types(event_type), after_sequence, from_beginning)
        self._hub.add(subscription)
        return Stream(subscription, self.settings.timeout)

    # How calls are made

    def _execute(self, task: NewTask, target: agent_pb.RunTarget, timeout: float | None) -> dict[str, Any]:
        timeout = self.settings.timeout if timeout is None else timeout
        request = _create_request(task, target, duration("timeout", timeout), wait=True)
        response = self._call(_channel.CREATE_RUN, request, timeout=timeout + _ANSWER_GRACE)
        return _messages.to_output(response.run)

    def _submit(self, task: NewTask, target: agent_pb.RunTarget, deadline: float | None) -> Run:
        request = _create_request(task, target, duration("deadline", deadline))
        response = self._call(_channel.CREATE_RUN, request)
        return _messages.to_run(response.run)

    def _call(self, rpc: Rpc[Q, R], request: Q, *, timeout: float | None = None, retry: bool = True) -> R:
        """Call until there is an answer, for at most `timeout` seconds (None: the setting).

        Only UNAVAILABLE is tried again, and every request that changes something names itself, so that an attempt
        whose answer was lost is joined, not repeated. Attempts do not wait for the connection to become ready: a
        call that did so until its deadline could not tell a runtime that is away from one that is slow.
        """
        deadline = time.monotonic() + (self.settings.timeout if timeout is None else timeout)
        named: Any = request
        request_id: str = (named.request_id if rpc.names_itself else "") or new_request_id()
        attempt = partial(self._transport.attempt, rpc, request, deadline)
        response: R = self._persist(attempt, request_id, deadline, retry=retry)
        return response

    def _call_each(self, rpc: Rpc[Q, R], requests: Iterator[tuple[Q, bool]], receive: Callable[[R], None]) -> None:
        """Call with each request, given with whether another one follows, one after the other.

        While a call is under way, the next request is made.
        """
        request, more = next(requests, (None, False))
        while request is not None:
            if not more:
                receive(self._call(rpc, request))
                return
            sending = PendingCall(partial(self._call, rpc, request))
            try:
                # Let it begin, before the next request takes this thread.
                time.sleep(0)
                request, more = next(requests, (None, False))
            finally:
                receive(sending.result())

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

    def _persist(
        self, attempt: Callable[[CallMetadata], Any], request_id: str, deadline: float, *, retry: bool = True
    ) -> Any:
        """What the first attempt gives that is no CallFailure; attempts are made until shortly before `deadline`."""
        metadata = self._transport.metadata(request_id)
        pause = _FIRST_PAUSE
        while True:
            outcome = attempt(metadata)
            if not isinstance(outcome, CallFailure):
                return outcome
            unavailable = outcome.code is grpc.StatusCode.UNAVAILABLE
            if not retry or not unavailable or time.monotonic() + pause >= deadline:
                outcome = self._transport.explain(outcome)
                raise failure_error(outcome, address=self.settings.address, request_id=request_id) from outcome
            time.sleep(jittered(pause))
            pause = min(pause * 2, _LONGEST_PAUSE)


def _create_request(
    task: NewTask, target: agent_pb.RunTarget, deadline: Duration | None, *, wait: bool = False
) -> agent_pb.CreateRunRequest:
    return agent_pb.CreateRunRequest(
        run_id=check_text("run_id", task.run_id or ""),
        idempotency_key=check_text("idempotency_key", task.idempotency_key or ""),
        request_id=new_request_id(),
        target=target,
        agent_id=check_text("agent_id", task.agent_id or ""),
        task_type=check_text("task_type", task.task_type),
        description=check_text("description", task.description),
        input=encode_object(task.input_data, "input_data"),
        metadata=encode_object(task.metadata, "metadata"),
        deadline=deadline,
        run_timeout=duration("run_timeout", task.run_timeout),
        wait=wait,
    )


def _batch_requests(
    tasks: Iterable[NewTask | Mapping[str, Any]],
) -> Iterator[tuple[agent_pb.BatchCreateRunsRequest, bool]]:
    """The requests that hand over `tasks`, each with whether another one follows."""
    batch, size = agent_pb.BatchCreateRunsRequest(), 0
    for index, item in enumerate(check_items("tasks", tasks)):
        task = check_task(f"tasks[{index}]", item)
        target = agent_pb.RUN_TARGET_AGENT if task.target == RunTarget.AGENT else agent_pb.RUN_TARGET_TASK
        try:
            request = _create_request(task, target, duration("deadline", task.deadline))
        except InvalidValue as error:
            raise error.within(f"tasks[{index}]") from error
        added = len(request.input) + len(request.metadata)
        size += added
        if len(batch.requests) == _BATCH_ITEMS or (batch.requests and size > _BATCH_BYTES):
            yield batch, True
            batch, size = agent_pb.BatchCreateRunsRequest(), added
        batch.requests.append(request)
    if batch.requests:
        yield batch, False


def _add_runs(runs: list[Run], response: agent_pb.BatchCreateRunsResponse) -> None:
    runs.extend(_messages.to_run(item.run) for item in response.responses)


def _event_types(event_type: str | Sequence[str]) -> tuple[str, ...]:
    types = (event_type,) if isinstance(event_type, str) else tuple(check_items("event_type", event_type))
    if not types:
        raise InvalidValue("event_type must be a non-empty string, or a non-empty sequence of such")
    return tuple(check_event_pattern(item) for item in types)


def _check_one_start(name: str, sequence: int | None, from_beginning: bool) -> None:
    if from_beginning and sequence is not None:
        raise InvalidValue(f"{name} and from_beginning contradict each other")


def _named_as_asked(error: InvalidRequest, from_sequence: int | None) -> InvalidRequest:
    """What the runtime says of `after_sequence`, said of the `from_sequence` that was asked for."""
    if from_sequence is None or error.metadata.get("field") != "after_sequence":
        return error
    reason = f"is {from_sequence}, beyond the next event there will be"
    return InvalidRequest(f"from_sequence {reason}", violations=[("from_sequence", reason)])


def _add_published(published: list[PublishedEvent], response: event_pb.PublishEventsResponse) -> None:
    published.extend(PublishedEvent(item.event_id, item.sequence) for item in response.events)


def _publish_requests(
    events: Iterable[NewEvent | Mapping[str, Any]],
) -> Iterator[tuple[event_pb.PublishEventsRequest, bool]]:
    """The requests that publish `events`, each with whether another one follows."""
    request, size = event_pb.PublishEventsRequest(request_id=new_request_id()), 0
    for index, item in enumerate(check_items("events", events)):
        event = check_event(f"events[{index}]", item)
        event_type = check_event_type(event.event_type)
        data = encode(event.data, "data")
        metadata = encode_object(event.metadata, "metadata")
        size += len(data) + len(metadata)
        if len(request.events) == _BATCH_ITEMS or (request.events and size > _BATCH_BYTES):
            yield request, True
            request = event_pb.PublishEventsRequest(request_id=new_request_id())
            size = len(data) + len(metadata)
        request.events.add(
            type=event_type, data=data, source=check_text("source", event.source or ""), metadata=metadata
        )
    if request.events:
        yield request, False
