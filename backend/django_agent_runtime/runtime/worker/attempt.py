"""One attempt of a run: the agent's code, what it reports, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from django_agent_runtime._codec import encode, encode_object
from django_agent_runtime._errors import reason_error
from django_agent_runtime._spans import SpanSettings, span_attempt
from django_agent_runtime._trace_context import current_traceparent
from django_agent_runtime.exceptions import InvalidValue, TooLarge
from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from django_agent_runtime.grpc_client.agentruntime.v1 import worker_service_pb2 as worker_pb
from django_agent_runtime.runtime.context import (
    MOST_PAYLOAD_BYTES,
    WorkerRunContext,
    check_payload,
    from_duration,
    to_duration,
)
from django_agent_runtime.runtime.errors import AgentError, ControlFlow
from django_agent_runtime.runtime.execution import execute_agent
from django_agent_runtime.runtime.interfaces import AgentRuntime, EventType, RunResult
from django_agent_runtime.runtime.worker.ledger import Lease, Ledger
from django_agent_runtime.runtime.worker.tidying import DatabaseTidying

__all__ = ["Attempt", "Host"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# What may be on its way to the runtime for one run before its events have to wait.
_MOST_UNACKED_BYTES = 1 << 20
_MOST_UNACKED_REPORTS = 1000
# What a report costs beside its payload, in bytes.
_REPORT_OVERHEAD = 120

# For how long pieces of text are joined, in seconds, and how much text at most.
_JOIN_SECONDS = 0.01
_JOIN_CHARACTERS = 16_000
_DELTA = EventType.ASSISTANT_DELTA.value

# For how long code may go on after its run is over before that is said, in seconds.
_LEFTOVER_SECONDS = 10.0

# The runtime ends a run that takes too long; this is how long a worker waits to be told before it says so itself.
_TIMEOUT_PATIENCE_SECONDS = 5.0

_QUIET_OUTCOMES = frozenset({"succeeded", "waiting"})

_MOST_MESSAGE_CHARACTERS = 500
_MOST_TYPE_CHARACTERS = 100


class Host(Protocol):
    """The worker that an attempt belongs to."""

    ledger: Ledger
    tidying: DatabaseTidying
    spans: SpanSettings
    pid: int
    """The process it is in."""

    def ended(self, attempt: Attempt) -> None:
        """There is nothing more to be done for the attempt."""

    def abandon(self, attempt: Attempt) -> None:
        """The runtime takes no report that would end the attempt: have it give the run away."""


class Attempt:
    """Executes one assignment on the event loop. All methods are called there."""

    def __init__(
        self,
        host: Host,
        assignment: worker_pb.Assignment,
        lease: Lease,
        agent: AgentRuntime | None,
        *,
        visibility_of: Callable[[str], str],
        step_timeout: float | None = None,
    ) -> None:
        """`agent` is None if this worker has none of the name that the run asks for.

        `step_timeout` holds for agents that have none, in seconds.
        """
        self.lease = lease
        self.agent_key = assignment.run.agent_id
        self.number = assignment.run.attempt
        self.ended = False
        """Whether there is nothing more to be done for it."""
        self._host = host
        self._agent = agent
        self._assignment = assignment
        self._timeout = from_duration(assignment.run_timeout)
        self._ctx = WorkerRunContext(
            self,
            assignment,
            visibility_of=visibility_of,
            step_timeout=step_timeout if agent is None or agent.step_timeout is None else agent.step_timeout,
        )
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._begun = False
        self._started_at = time.perf_counter()
        self._stopping = ""
        self._timer: asyncio.TimerHandle | None = None
        self._final = 0
        self._refusals = 0
        self._refused: worker_pb.Report | None = None
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._asking: dict[int, asyncio.Future[agent_pb.Run]] = {}
        self._crowd: list[asyncio.Future[None]] = []
        self._joining: asyncio.TimerHandle | None = None
        self._joined: list[str] = []
        self._joined_characters = 0
        self._joined_visibility: agent_pb.EventVisibility = agent_pb.EVENT_VISIBILITY_USER
        self._delta_number = 0
        self._delta_at = 0.0

    @property
    def run_id(self) -> str:
        """The run's UUID."""
        return self.lease.key[0]

    @property
    def is_over(self) -> bool:
        """See Reporter."""
        return bool(self._stopping or self.lease.lost or self.lease.closed)

    @property
    def most_payload_bytes(self) -> int:
        """See Reporter."""
        return self._host.ledger.most_payload_bytes or MOST_PAYLOAD_BYTES

    @property
    def is_executing(self) -> bool:
        """Whether the agent's code is not gone yet."""
        return self._task is not None

    # What the worker does with it.

    def start(self) -> None:
        """Begin to execute, with context variables of its own."""
        if self._timeout:
            self._timer = self._loop.call_later(self._timeout, self._time_out)
        self._task = contextvars.Context().run(self._loop.create_task, self._execute())

    def acknowledge(self, number: int) -> None:
        """The reports up to a number are durable."""
        waiting = self._waiting
        while waiting:
            first = next(iter(waiting))
            if first > number:
                break
            _settle(waiting.pop(first), None)
        self._let_in()
        if self._final and number >= self._final:
            self._end()

    def answer(self, number: int, run: agent_pb.Run) -> None:
        """The sub-run that a report asked for."""
        future = self._asking.pop(number, None)
        if future is not None:
            _settle(future, run)

    def refuse(self, refusal: worker_pb.Refusal) -> None:
        """A report was not kept, though the run is still this worker's."""
        self._let_in()
        awaited = False
        for waiting in (self._waiting, self._asking):
            future: asyncio.Future[Any] | None = waiting.pop(refusal.number, None)
            if future is not None:
                awaited = True
                if not future.done():
                    future.set_exception(reason_error(refusal.reason, refusal.message, {"run_id": self.run_id}))
        if refusal.number != self._final:
            if not awaited and not self._final and not self._stopping:
                # An event or a checkpoint that will be missing: the code went on, and must not succeed without it.
                message = f"the agent runtime did not keep an event: {refusal.message}"
                self._refused = worker_pb.Report(fail=_to_fail(message, refusal.reason, retryable=False))
                self._stop("refused")
            return
        self._refusals += 1
        if self._refusals > 1:
            self._host.abandon(self)
            return
        message = f"the agent runtime did not take the result: {refusal.message}"
        self._finish(worker_pb.Report(fail=_to_fail(message, refusal.reason, retryable=False)), "failed")

    def lose(self) -> None:
        """The run is no longer this worker's: stop the code."""
        if self._stopping != "lost":
            self._stop("lost")
        if self._task is None:
            self._release()

    def give_back(self) -> None:
        """Stop the code so that another worker can begin the run again."""
        if not self._stopping and not self._final:
            self._stop("given back")

    def leave_behind(self) -> None:
        """Give the run back though its code has not ended: the process is about to."""
        if not self._final and self._host.ledger.report(
            self.lease, worker_pb.Report(give_back=worker_pb.GiveBack()), 0, final=True
        ):
            self._final = self.lease.reported

    # What the context asks.

    async def emit(self, event_type: str, visibility: agent_pb.EventVisibility, payload: bytes) -> None:
        """See Reporter."""
        if self._joined:
            self._send_joined()
        self._report_event(event_type, visibility, payload)
        if self._is_crowded():
            await self._wait_for_room()

    async def emit_delta(self, visibility: agent_pb.EventVisibility, content: str) -> None:
        """See Reporter."""
        self._joined.append(content)
        self._joined_characters += len(content)
        self._joined_visibility = visibility
        if self._joined_characters >= _JOIN_CHARACTERS:
            self._send_joined()
        elif self._joining is None:
            self._join()
        if self._is_crowded():
            await self._wait_for_room()

    async def record_step(self, key: str, result: bytes) -> None:
        """See Reporter."""
        report = worker_pb.Report(step=worker_pb.RecordStep(key=key, result=result))
        await self._wait_for(self._waiting, self._report(report, len(result)))

    async def start_run(self, key: str, run: agent_pb.CreateRunRequest) -> agent_pb.Run:
        """See Reporter."""
        start = worker_pb.StartRun(key=key, run=run, traceparent=current_traceparent() or "")
        report = worker_pb.Report(start_run=start)
        return await self._wait_for(self._asking, self._report(report, len(run.input)))

    def _report_event(self, event_type: str, visibility: agent_pb.EventVisibility, payload: bytes) -> int:
        # Field by field: that takes a third of the time of constructors with arguments.
        report = worker_pb.Report()
        event = report.events.events.add()
        event.type = event_type
        event.visibility = visibility
        event.payload = payload
        return self._report(report, len(payload), urgent=False)

    def _report(self, report: worker_pb.Report, size: int, *, urgent: bool = True) -> int:
        if self._joined:
            self._send_joined()
        number = self._host.ledger.report(self.lease, report, size + _REPORT_OVERHEAD, urgent=urgent)
        if not number:
            raise asyncio.CancelledError("the run is over")
        return number

    async def _wait_for(self, waiting: dict[int, asyncio.Future[T]], number: int) -> T:
        """Wait for what the runtime says of a report."""
        future: asyncio.Future[T] = self._loop.create_future()
        waiting[number] = future
        try:
            return await future
        finally:
            waiting.pop(number, None)

    def _is_crowded(self, *, half: bool = False) -> bool:
        share = 2 if half else 1
        lease = self.lease
        return lease.unacked_bytes > _MOST_UNACKED_BYTES // share or len(lease.unacked) > _MOST_UNACKED_REPORTS // share

    def _let_in(self) -> None:
        """Let those emit who wait for room, if there is some."""
        if self._crowd and not self._is_crowded(half=True):
            crowd, self._crowd = self._crowd, []
            for future in crowd:
                _settle(future, None)

    async def _wait_for_room(self) -> None:
        future = self._loop.create_future()
        self._crowd.append(future)
        await future

    def _send_joined(self) -> None:
        """Send the text that was joined. It was emitted before whatever else is about to be sent."""
        content = "".join(self._joined)
        self._joined.clear()
        self._joined_characters = 0
        payload = b'{"content": %b}' % encode(content, "payload")
        self._delta_number = self._report_event(_DELTA, self._joined_visibility, payload)
        self._delta_at = self._loop.time()

    def _join(self) -> None:
        """Send the text that was joined, or have that done when its time has come."""
        now = self._loop.time()
        due = self._delta_at + _JOIN_SECONDS
        if now >= due and self.lease.sent < self._delta_number:
            # While what was sent before is still here, more can be joined without delaying it.
            due = now + _JOIN_SECONDS
        if now >= due:
            self._send_joined()
        else:
            self._joining = self._loop.call_at(due, self._end_joining)

    def _end_joining(self) -> None:
        self._joining = None
        if not self._joined or self.is_over:
            return
        try:
            self._join()
        except asyncio.CancelledError:
            self._joined.clear()

    # How it ends.

    async def _execute(self) -> None:
        report = None
        self._begun = True
        self._host.tidying.run_begins()
        try:
            if self._agent is None:
                message = f"this worker has no agent {self.agent_key!r}"
                report = worker_pb.Report(fail=_to_fail(message, "AgentNotFound", retryable=False))
            else:
                report = await self._execute_agent(self._agent)
        except ControlFlow:
            # The context knows what the run waits for.
            pass
        except BaseException as error:  # noqa: BLE001 - not even sys.exit() in an agent may end the worker
            self._end_fork(error)
            report = self._judge_safely(error)
        self._end_fork()
        self._host.tidying.run_ended()
        self._task = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._conclude(report)

    async def _execute_agent(self, agent: AgentRuntime) -> worker_pb.Report:
        with span_attempt(self._assignment, self._host.spans) as span:
            result = await execute_agent(agent, self._ctx)
            if span.captures:
                span.output(result.to_dict())
        return _to_success(result, self.most_payload_bytes)

    def _end_fork(self, error: BaseException | None = None) -> None:
        """End this process if the agent has forked it: the worker is another one's."""
        if os.getpid() == self._host.pid:
            return
        code: Any = 0 if error is None else 1
        if isinstance(error, SystemExit):
            code = error.code or 0
        elif error is not None:
            traceback.print_exception(type(error), error, error.__traceback__)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code if isinstance(code, int) else 1)

    def _judge_safely(self, error: BaseException) -> worker_pb.Report | None:
        """See `_judge`: what an exception says of itself is the agent's code as well, and may fail."""
        try:
            return self._judge(error)
        except BaseException:  # noqa: BLE001 - nor may that end the worker
            name = type(error).__name__
            # Without its traceback, which shows the exception once more.
            fields = {"run_id": self.run_id, "agent": self.agent_key, "error_type": name}
            logger.error("failure of an agent cannot be described", extra=fields)  # noqa: TRY400
            return worker_pb.Report(fail=_to_fail(f"the agent raised {name}", name, retryable=True))

    def _judge(self, error: BaseException) -> worker_pb.Report | None:
        """What to report of an exception; None if it is only how the code was stopped."""
        if self.is_over or self._ctx.park is not None:
            return None
        if isinstance(error, AgentError):
            fields = {"run_id": self.run_id, "agent": self.agent_key, "attempt": self.number, "err": _read_text(error)}
            logger.warning("agent failed", extra=fields)
        else:
            fields = {"run_id": self.run_id, "agent": self.agent_key, "attempt": self.number}
            logger.error("agent failed", extra=fields, exc_info=error)
        return worker_pb.Report(fail=_describe_failure(error))

    def _conclude(self, report: worker_pb.Report | None) -> None:
        """Say how the attempt ended, now that its code is gone."""
        if self._joined:
            try:
                self._send_joined()
            except asyncio.CancelledError:
                self._joined.clear()
        if self.lease.lost:
            self._release()
        elif self._final:
            return
        elif self._ctx.park is not None:
            self._finish(worker_pb.Report(park=self._ctx.park), "waiting")
        elif self._refused is not None:
            self._finish(self._refused, "failed")
        elif self._stopping == "timed out":
            self._timer = self._loop.call_later(_TIMEOUT_PATIENCE_SECONDS, self._fail_timed_out)
        elif report is not None:
            self._finish(report, "succeeded" if report.HasField("succeed") else "failed")
        elif self._stopping:
            self._finish(worker_pb.Report(give_back=worker_pb.GiveBack()), "given back")
        else:
            message = "the agent ended its run without a result"
            self._finish(worker_pb.Report(fail=_to_fail(message, "CancelledError", retryable=True)), "failed")

    def _finish(self, report: worker_pb.Report, outcome: str) -> None:
        size = len(report.succeed.output) if report.HasField("succeed") else 0
        self._final = self._host.ledger.report(self.lease, report, size + _REPORT_OVERHEAD, final=True)
        if not self._final:
            self._release()
            return
        self._log_end(outcome)

    def _release(self) -> None:
        if self.ended:
            return
        self._host.ledger.release(self.lease.key)
        self._log_end(self.lease.lost or "lost")
        self._end()

    def _end(self) -> None:
        self.ended = True
        for timer in (self._timer, self._joining):
            if timer is not None:
                timer.cancel()
        self._host.ended(self)

    def _log_end(self, outcome: str) -> None:
        # What went well is no news in a worker that does hundreds a second.
        level = logging.DEBUG if outcome in _QUIET_OUTCOMES else logging.INFO
        if not logger.isEnabledFor(level):
            return
        logger.log(
            level,
            "run left the worker",
            extra={
                "run_id": self.run_id,
                "agent": self.agent_key,
                "attempt": self.number,
                "outcome": outcome,
                "duration_ms": round((time.perf_counter() - self._started_at) * 1000, 1),
            },
        )

    def _stop(self, why: str) -> None:
        before, self._stopping = self._stopping, why
        crowd, self._crowd = self._crowd, []
        # Code in threads waits here, and is in no task that could be cancelled.
        futures: tuple[asyncio.Future[Any], ...] = (*self._waiting.values(), *self._asking.values(), *crowd)
        for future in futures:
            future.cancel()
        # Once only: what the code does then to clean up may await as well.
        if self._task is None or before:
            return
        self._task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._begun:
            self._timer = self._loop.call_later(_LEFTOVER_SECONDS, self._note_leftover)
            return
        # Nothing of it is ever executed.
        self._task = self._timer = None
        self._conclude(None)

    def _note_leftover(self) -> None:
        self._timer = None
        logger.warning(
            "agent goes on though its run is over, and keeps its place: only code that awaits can be stopped",
            extra={
                "run_id": self.run_id,
                "agent": self.agent_key,
                "attempt": self.number,
                "why": self.lease.lost or self._stopping,
            },
        )

    def _time_out(self) -> None:
        self._timer = None
        if not self.is_over:
            self._stop("timed out")

    def _fail_timed_out(self) -> None:
        message = f"the run took longer than {self._timeout:g} s"
        self._finish(worker_pb.Report(fail=_to_fail(message, "TimeoutError", retryable=False)), "timed out")


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _to_success(result: RunResult, most_bytes: int) -> worker_pb.Report:
    output = check_payload(encode_object(result.to_dict(), "result"), "result", most_bytes)
    return worker_pb.Report(succeed=worker_pb.Succeed(output=output))


def _describe_failure(error: BaseException) -> worker_pb.Fail:
    """An exception as the run's owner gets to see it: its text, never its traceback."""
    name = type(error).__name__
    if isinstance(error, AgentError):
        fail = _to_fail(_read_text(error) or name, name, retryable=error.retryable)
        if error.retryable and error.retry_after is not None:
            fail.retry_after.CopyFrom(to_duration(error.retry_after))
        return fail
    text = _read_text(error).strip()
    message = f"{name}: {text.splitlines()[0]}" if text else f"the agent raised {name}"
    # What the runtime would refuse another time as well.
    return _to_fail(message, name, retryable=not isinstance(error, (InvalidValue, TooLarge)))


def _read_text(error: BaseException) -> str:
    """What an exception says; nothing if that cannot be made."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - whatever the agent's class does there
        return ""


def _to_fail(message: str, error_type: str, *, retryable: bool) -> worker_pb.Fail:
    text = message if len(message) <= _MOST_MESSAGE_CHARACTERS else f"{message[:_MOST_MESSAGE_CHARACTERS]}…"
    return worker_pb.Fail(
        message=_to_utf8(text), error_type=_to_utf8(error_type[:_MOST_TYPE_CHARACTERS]), retryable=retryable
    )


def _to_utf8(text: str) -> str:
    """`text` with what has no UTF-8 replaced."""
    return text.encode(errors="replace").decode()
