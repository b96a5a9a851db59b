"""Serves agents in this process until it is asked to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from django_agent_runtime._channel import Transport
from django_agent_runtime._spans import SpanSettings
from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from django_agent_runtime.grpc_client.agentruntime.v1 import worker_service_pb2 as worker_pb
from django_agent_runtime.runtime.context import to_duration
from django_agent_runtime.runtime.interfaces import RetryPolicy
from django_agent_runtime.runtime.worker.attempt import Attempt
from django_agent_runtime.runtime.worker.connection import Connection
from django_agent_runtime.runtime.worker.ledger import LEASE_LOST, UNAVAILABLE, Lease, LeaseKey
from django_agent_runtime.runtime.worker.tidying import DatabaseTidying
from django_agent_runtime.runtime_conf import visibility_of

if TYPE_CHECKING:
    from django_agent_runtime.conf import RuntimeSettings
    from django_agent_runtime.runtime.interfaces import AgentRuntime
    from django_agent_runtime.runtime_conf import AgentRuntimeSettings

__all__ = ["DEFAULT_GRACE_SECONDS", "Worker"]

logger = logging.getLogger(__name__)

DEFAULT_GRACE_SECONDS = 30.0

# After the grace: what the code gets to end once it is cancelled, and the runtime to acknowledge, in seconds.
_CANCEL_SECONDS = 5.0
_ACKNOWLEDGE_SECONDS = 5.0
# What the runtime gets to take note that this worker has ended.
_LEAVE_SECONDS = 3.0
# Each of them, when the worker was told twice to stop.
_HURRIED_SECONDS = 1.0

_MOST_NAME_BYTES = 200


class Worker:
    """Executes runs of some agents: many at a time, on one event loop.

    `run` serves until `stop` was called, in any thread; a worker runs once.
    """

    def __init__(
        self,
        runtime: RuntimeSettings,
        agents: Mapping[str, AgentRuntime],
        *,
        settings: AgentRuntimeSettings,
        concurrency: int | None = None,
        name: str = "",
        grace: float = DEFAULT_GRACE_SECONDS,
    ) -> None:
        """Nothing is opened yet.

        Args:
            runtime: Where the runtime is.
            agents: Those to serve by their keys; at least one.
            settings: How they run.
            concurrency: How many runs to execute at a time, 1 to 10000; None: as the settings say.
            name: What the worker is called in lists.
            grace: Seconds that runs get to finish when the worker is asked to stop.
        """
        self.worker_id = str(uuid.uuid4())
        self.pid = os.getpid()
        self.grace = grace
        self._agents = dict(agents)
        self._settings = settings
        self._concurrency = settings.default_concurrency if concurrency is None else concurrency
        self._visibility_of = partial(visibility_of, settings=settings)
        self._name = name.encode()[:_MOST_NAME_BYTES].decode(errors="ignore")
        self._connection = Connection(
            Transport(runtime),
            make_hello=self._make_hello,
            lease_ttl=settings.lease_ttl_seconds,
            probe_interval=settings.heartbeat_seconds,
            receive=self._put,
            on_lost=self._put_lost,
        )
        self.ledger = self._connection.ledger
        self.tidying = DatabaseTidying()
        self.spans = SpanSettings.make(settings.trace_content, settings.trace_redact)
        self._attempts: dict[LeaseKey, Attempt] = {}
        self._inbox: deque[worker_pb.WorkResponse | Lease] = deque()
        self._told = False
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stops: list[float | None] = []
        self._stop_wanted = asyncio.Event()
        self._hurry = asyncio.Event()
        self._emptied = asyncio.Event()
        self.finished = threading.Event()
        """Set when `run` is about to return."""

    @property
    def connected(self) -> bool:
        """Whether the runtime has welcomed this worker."""
        return self._connection.connected

    @property
    def size(self) -> int:
        """How many runs are held."""
        return len(self._attempts)

    def run(self) -> bool:
        """Serve until stopped. False if code of an agent would not end: it goes on for as long as the process."""
        loop = asyncio.new_event_loop()
        try:
            asyncio.set_event_loop(loop)
            with self._lock:
                self._loop = loop
            if not self._stops:
                self._connection.start()
            serving = self._serve_on(loop)
            while not serving.done():
                try:
                    loop.run_forever()
                except (SystemExit, KeyboardInterrupt) as error:
                    # Of a task that an agent has made: it ends that task, which whoever awaits it gets to know.
                    logger.error("agent tried to end the worker", extra={"err": repr(error)})  # noqa: TRY400
                if serving.cancelled():
                    logger.error("agent cancelled tasks that are not its own")
                    serving = self._serve_on(loop)
            clean = serving.result()
            with self._lock:
                self._loop = None
            self._connection.leave(_HURRIED_SECONDS if self._hurry.is_set() else _LEAVE_SECONDS)
            if clean:
                loop.run_until_complete(_end_loop())
            return clean
        finally:
            self._connection.close()
            with self._lock:
                self._loop = None
            asyncio.set_event_loop(None)
            if not asyncio.all_tasks(loop):
                loop.close()
            self.finished.set()

    def stop(self, grace: float | None = None) -> None:
        """Take no more runs, let those finish that can within `grace` seconds, and give back the others.

        A second call hurries: nothing is waited for any more. Safe in any thread and in signal handlers.
        """
        self._stops.append(grace)
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._note_stop)
            except RuntimeError:
                # The loop has ended already.
                return

    # For attempts: see Host.

    def ended(self, attempt: Attempt) -> None:
        """See Host."""
        self._attempts.pop(attempt.lease.key, None)
        if not self._attempts:
            self._emptied.set()

    def abandon(self, attempt: Attempt) -> None:
        """See Host."""
        logger.error("run cannot be ended here", extra={"run_id": attempt.run_id})
        self.ledger.drop(attempt.lease)
        attempt.lose()
        self._connection.interrupt()

    # Called in other threads.

    def _make_hello(self) -> worker_pb.Hello:
        return worker_pb.Hello(
            worker_id=self.worker_id,
            name=self._name,
            agents=[_describe_agent(key, agent, self._settings) for key, agent in self._agents.items()],
            concurrency=self._concurrency,
            lease_ttl=to_duration(self._settings.lease_ttl_seconds),
        )

    def _put_lost(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            self._put(lease)

    def _put(self, item: worker_pb.WorkResponse | Lease) -> None:
        """Have the event loop follow what has come, at its next turn and all at once."""
        self._inbox.append(item)
        with self._lock:
            if self._told or self._loop is None:
                return
            self._told = True
            self._loop.call_soon_threadsafe(self._follow_inbox)

    # On the event loop.

    def _follow_inbox(self) -> None:
        self._told = False
        inbox = self._inbox
        while inbox:
            item = inbox.popleft()
            if isinstance(item, Lease):
                self._lose(item.key)
            else:
                self._follow(item)

    def _follow(self, response: worker_pb.WorkResponse) -> None:
        attempts = self._attempts
        # Before the acknowledgements: one of later reports must not pass for that of a refused one.
        for refusal in response.refusals:
            key = (refusal.run_id, refusal.lease)
            if refusal.reason == LEASE_LOST:
                self._lose(key)
            elif refusal.reason != UNAVAILABLE and (attempt := attempts.get(key)) is not None:
                attempt.refuse(refusal)
        for ack in (*response.welcome.held, *response.acks) if response.HasField("welcome") else response.acks:
            attempt = attempts.get((ack.run_id, ack.lease))
            if attempt is not None:
                attempt.acknowledge(ack.number)
        for child in response.child_runs:
            attempt = attempts.get((child.parent_run_id, child.lease))
            if attempt is not None:
                attempt.answer(child.number, child.run)
        for assignment in response.assignments:
            self._begin(assignment)
        for cancellation in response.cancellations:
            self._lose((cancellation.run_id, cancellation.lease))

    def _begin(self, assignment: worker_pb.Assignment) -> None:
        run = assignment.run
        key = (run.run_id, assignment.lease)
        lease = self.ledger.find(key)
        if lease is None:
            # It was over before it began.
            return
        agent = self._agents.get(run.agent_id)
        attempt = self._attempts[key] = Attempt(
            self,
            assignment,
            lease,
            agent,
            visibility_of=self._visibility_of,
            step_timeout=self._settings.step_timeout_seconds,
        )
        self._emptied.clear()
        if self._stops:
            attempt.leave_behind()
        else:
            attempt.start()

    def _lose(self, key: LeaseKey) -> None:
        attempt = self._attempts.get(key)
        if attempt is None:
            # It was over before it began, or has just ended.
            self.ledger.release(key)
            return
        if attempt.lease.lost == LEASE_LOST and attempt.is_executing:
            logger.warning(
                "lease lost", extra={"run_id": attempt.run_id, "agent": attempt.agent_key, "attempt": attempt.number}
            )
        attempt.lose()

    def _note_stop(self) -> None:
        self._stop_wanted.set()
        if len(self._stops) > 1:
            self._hurry.set()

    def _serve_on(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[bool]:
        serving = loop.create_task(self._serve())
        serving.add_done_callback(lambda _: loop.stop())
        return serving

    async def _serve(self) -> bool:
        if self._stops:
            self._note_stop()
        await self._stop_wanted.wait()
        return await self._drain()

    async def _drain(self) -> bool:
        """Finish or give back what is under way; whether all code is gone."""
        grace = self._stops[0] if self._stops[0] is not None else self.grace
        logger.info("worker stops", extra={"runs": len(self._attempts), "grace_seconds": grace})
        self._connection.drain()
        await self._wait_for_end(grace)
        attempts = list(self._attempts.values())
        for attempt in attempts:
            attempt.give_back()
        await self._wait_for_end(_CANCEL_SECONDS, until=lambda: not any(item.is_executing for item in attempts))
        left = [attempt for attempt in self._attempts.values() if attempt.is_executing]
        for attempt in left:
            logger.warning("agent does not end", extra={"run_id": attempt.run_id, "agent": attempt.agent_key})
            attempt.leave_behind()
        await self._wait_for_end(
            _ACKNOWLEDGE_SECONDS, until=lambda: not self.ledger.has_unacknowledged and not self.ledger.size
        )
        return not left

    async def _wait_for_end(self, seconds: float, until: Callable[[], bool] | None = None) -> None:
        """Wait until all runs are gone, or `until` says so; when in a hurry, for a moment at most."""
        hurried = self._hurry.is_set()
        deadline = self._now() + (min(seconds, _HURRIED_SECONDS) if hurried else seconds)
        while self._attempts and self._now() < deadline and not (until is not None and until()):
            waits = [asyncio.ensure_future(self._emptied.wait())]
            if not hurried:
                waits.append(asyncio.ensure_future(self._hurry.wait()))
            pause = deadline - self._now()
            await asyncio.wait(
                waits, timeout=pause if until is None else min(pause, 0.02), return_when=asyncio.FIRST_COMPLETED
            )
            for wait in waits:
                wait.cancel()
            if not hurried and self._hurry.is_set():
                return

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


async def _end_loop() -> None:
    """End what agents have left on the loop, such as the tasks of their clients."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_HURRIED_SECONDS)
    await asyncio.get_running_loop().shutdown_asyncgens()


def _describe_agent(key: str, agent: AgentRuntime, settings: AgentRuntimeSettings) -> worker_pb.WorkerAgent:
    """An agent as the runtime is told of it: what it does not say itself, the settings do."""
    policy = agent.retry or RetryPolicy()

    def choose(value: float | None, default: float) -> float:
        return default if value is None else value

    return worker_pb.WorkerAgent(
        agent_id=key,
        description=agent.description,
        retry=agent_pb.RetryPolicy(
            max_attempts=policy.max_attempts or agent.max_attempts or settings.max_retries,
            initial_backoff=to_duration(choose(policy.initial_backoff, settings.retry_backoff_base)),
            max_backoff=to_duration(choose(policy.max_backoff, settings.retry_backoff_max)),
            multiplier=choose(policy.multiplier, settings.retry_backoff_base),
        ),
        run_timeout=to_duration(choose(agent.run_timeout, settings.run_timeout_seconds)),
    )
