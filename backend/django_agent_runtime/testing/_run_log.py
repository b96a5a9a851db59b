"""The fake's record of runs: what becomes of them, their events, and the functions that do them."""

from __future__ import annotations

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django_agent_runtime._messages import VISIBILITY_NUMBERS
from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as pb
from django_agent_runtime.types import EventVisibility

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    # Returns the output of the run it is given; an exception fails the attempt with its text.
    AgentFunction = Callable[["FakeRun"], Mapping[str, Any]]

TERMINAL_STATES = frozenset(
    {pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED, pb.RUN_STATE_CANCELLED, pb.RUN_STATE_TIMED_OUT}
)
# What every reader sees of the run's own events, where nobody said otherwise; the others are internal.
SHOWN_TYPES = frozenset(
    {"run.retrying", "run.interrupted", "run.resumed", "run.failed", "run.cancelled", "run.timed_out"}
)
RETRYABLE_STATES = TERMINAL_STATES - {pb.RUN_STATE_SUCCEEDED}


class FakeRun:
    """A run of a fake agent, as the agent's function gets it."""

    def __init__(self, log: RunLog, record: RunRecord) -> None:
        self._log = log
        self._record = record
        self._questions = 0
        self.run_id = record.run.run_id
        self.agent_id = record.run.agent_id
        self.task_type = record.run.task_type
        self.attempt = record.run.attempt
        self.input: dict[str, Any] = json.loads(record.run.input or b"{}")
        self.metadata: dict[str, Any] = json.loads(record.run.metadata or b"{}")

    def emit(
        self, event_type: str, payload: Mapping[str, Any] | None = None, visibility: EventVisibility | str = "user"
    ) -> None:
        """Add an event to the run.

        Raises:
            ValueError: `event_type` begins with `run.`, as the runtime's own do; or there is no such visibility.
        """
        if event_type.startswith("run."):
            raise ValueError(f"{event_type} is one of the runtime's own events")
        self._log.emit(self._record, event_type, dict(payload or {}), EventVisibility(visibility))

    def interrupt(self, payload: Any = None) -> Any:
        """Park the run until `resume_run` answers it, and return the answer.

        As with the runtime, the function is left here and called again from its top once there is an answer:
        then this returns at once.
        """
        question, self._questions = self._questions, self._questions + 1
        if question < len(self._record.answers):
            return self._record.answers[question]
        raise ParkedError(f"question-{question + 1}", payload)


class ParkedError(BaseException):
    """Leaves the function of a run that waits for an answer; no `except Exception` of its own holds it up."""

    def __init__(self, interrupt_id: str, payload: Any) -> None:
        super().__init__(interrupt_id)
        self.interrupt_id = interrupt_id
        self.payload = payload


@dataclass
class RunRecord:
    """A run with what the fake needs to go on with it."""

    namespace: str
    run: pb.Run
    request: pb.CreateRunRequest
    answers: list[Any] = field(default_factory=list)
    answered: dict[str, Any] = field(default_factory=dict)
    was_retried: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self.run.state in TERMINAL_STATES


@dataclass
class RunLog:
    """Every run and every event, in memory. What begins with an underscore is called with `changed` held."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    records: dict[tuple[str, str], RunRecord] = field(default_factory=dict)
    events: list[tuple[str, pb.RunEvent]] = field(default_factory=list)
    stopped: bool = False
    _workers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8, "fake-go-runtime-run"))

    def stop(self) -> None:
        """End every stream, wait for runs that are being done, and begin no more."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
        self._workers.shutdown(cancel_futures=True)

    def accept(self, namespace: str, run_id: str, request: pb.CreateRunRequest, **origin: str) -> RunRecord:
        """Record a run; `begin` has it done. `origin` says where it comes from: `retry_of`, `schedule_id`."""
        run = pb.Run(
            run_id=run_id,
            target=request.target or pb.RUN_TARGET_TASK,
            agent_id=request.agent_id,
            task_type=request.task_type,
            description=request.description,
            input=request.input,
            metadata=request.metadata,
            state=pb.RUN_STATE_QUEUED,
            max_attempts=request.retry.max_attempts or 1,
            priority=request.priority,
            concurrency_key=request.concurrency.key,
            retry_of=origin.get("retry_of", ""),
            schedule_id=origin.get("schedule_id", ""),
        )
        run.create_time.GetCurrentTime()
        if request.HasField("run_at"):
            run.not_before.CopyFrom(request.run_at)
        elif request.HasField("delay"):
            run.not_before.FromNanoseconds(run.create_time.ToNanoseconds() + request.delay.ToNanoseconds())
        record = RunRecord(namespace, run, request)
        with self.changed:
            self.records[namespace, run_id] = record
            self._note(record, "run.queued", {})
        return record

    def begin(self, record: RunRecord, function: AgentFunction) -> None:
        """Have `function` do a run, in a thread of the fake's."""
        self._workers.submit(self._execute, record, function)

    def resume(self, record: RunRecord, value: Any) -> None:
        """Answer the question that a run is parked at; `begin` goes on with it."""
        with self.changed:
            interrupt_id = record.run.interrupt.interrupt_id
            record.answers.append(value)
            record.answered[interrupt_id] = value
            record.run.ClearField("interrupt")
            record.run.state = pb.RUN_STATE_QUEUED
            self._note(record, "run.resumed", {"interrupt_id": interrupt_id})

    def end(self, record: RunRecord, state: pb.RunState, output: bytes = b"", error: pb.RunError | None = None) -> None:
        """End a run, unless it has ended."""
        with self.changed:
            if record.has_ended:
                return
            run = record.run
            run.state, run.output = state, output
            run.ClearField("interrupt")
            run.end_time.GetCurrentTime()
            payload: dict[str, Any] = {}
            if error is not None:
                run.error.CopyFrom(error)
                payload = {"error": error.message, "reason": error.reason}
                if error.type:
                    payload["error_type"] = error.type
            if state == pb.RUN_STATE_SUCCEEDED:
                payload = {"output": json.loads(output)}
            self._note(record, f"run.{state_name(state)}", payload)

    def emit(self, record: RunRecord, event_type: str, payload: dict[str, Any], visibility: EventVisibility) -> None:
        """Add an event of an agent, unless the run has ended."""
        with self.changed:
            if not record.has_ended:
                self._append(record, event_type, payload, VISIBILITY_NUMBERS[visibility])

    def wait_until_ended(self, record: RunRecord, timeout_seconds: float | None) -> pb.Run:
        """The run as it is when it has ended, or after `timeout_seconds`."""
        with self.changed:
            self.changed.wait_for(lambda: record.has_ended, timeout_seconds)
            return copy_run(record.run)

    def _execute(self, record: RunRecord, function: AgentFunction) -> None:
        with self.changed:
            if record.run.state != pb.RUN_STATE_QUEUED:
                return
            run = record.run
            run.state = pb.RUN_STATE_RUNNING
            # What goes on after an answer is the same attempt.
            run.attempt = run.attempt or 1
            run.start_time.GetCurrentTime()
            self._note(record, "run.started", {"attempt": run.attempt})
        try:
            output = json.dumps(function(FakeRun(self, record))).encode()
        except ParkedError as parked:
            self._park(record, parked)
        except Exception as error:  # noqa: BLE001 - whatever a test's function raises is the run's failure
            self._fail(record, error, function)
        else:
            self.end(record, pb.RUN_STATE_SUCCEEDED, output)

    def _park(self, record: RunRecord, parked: ParkedError) -> None:
        payload = json.dumps(parked.payload).encode()
        with self.changed:
            if record.has_ended:
                return
            record.run.state = pb.RUN_STATE_WAITING
            record.run.interrupt.CopyFrom(pb.Interrupt(interrupt_id=parked.interrupt_id, payload=payload))
            self._note(record, "run.interrupted", {"interrupt_id": parked.interrupt_id, "payload": parked.payload})

    def _fail(self, record: RunRecord, error: Exception, function: AgentFunction) -> None:
        kind = type(error).__name__
        with self.changed:
            run = record.run
            failure = pb.RunError(
                reason="AGENT_FAILED",
                message=str(error) or kind,
                retryable=run.attempt < run.max_attempts,
                type=kind,
            )
            if record.has_ended or not failure.retryable:
                self.end(record, pb.RUN_STATE_FAILED, error=failure)
                return
            run.state = pb.RUN_STATE_QUEUED
            about = {"error": failure.message, "reason": failure.reason, "error_type": kind}
            self._note(record, "run.retrying", {"attempt": run.attempt} | about)
            run.attempt += 1
        self.begin(record, function)

    def _note(self, record: RunRecord, event_type: str, payload: dict[str, Any]) -> None:
        """Record a change of a run as the event that tells it."""
        default = pb.EVENT_VISIBILITY_USER if event_type in SHOWN_TYPES else pb.EVENT_VISIBILITY_INTERNAL
        visibility = record.request.event_visibility.get(event_type, default)
        event = self._append(record, event_type, payload, visibility)
        record.run.sequence = event.sequence
        event.run.CopyFrom(record.run)
        event.run.input = event.run.output = b""

    def _append(
        self, record: RunRecord, event_type: str, payload: dict[str, Any], visibility: pb.EventVisibility
    ) -> pb.RunEvent:
        event = pb.RunEvent(
            run_id=record.run.run_id,
            sequence=len(self.events) + 1,
            type=event_type,
            visibility=visibility,
            attempt=record.run.attempt,
            payload=json.dumps(payload).encode(),
        )
        event.time.GetCurrentTime()
        self.events.append((record.namespace, event))
        self.changed.notify_all()
        return event


def state_name(state: pb.RunState) -> str:
    """`succeeded` for RUN_STATE_SUCCEEDED."""
    return pb.RunState.Name(state).removeprefix("RUN_STATE_").lower()


def choose_run_id(namespace: str, request: pb.CreateRunRequest) -> str:
    """The id of the run that `request` creates or joins."""
    key = request.idempotency_key or request.request_id
    return request.run_id or (make_run_id(namespace, key) if key else str(uuid.uuid4()))


def make_run_id(namespace: str, key: str) -> str:
    """The same id for the same key."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{namespace}/{key}"))


def copy_run(run: pb.Run) -> pb.Run:
    """What can be sent without the lock."""
    copy = pb.Run()
    copy.CopyFrom(run)
    return copy
