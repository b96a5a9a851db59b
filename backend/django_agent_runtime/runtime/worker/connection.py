"""The stream between this worker and the runtime: opened again for ever, watched for silence, on threads of its own.

Agents may block the event loop, or keep it busy; none of that reaches the threads here, so that the runtime hears of
this worker as long as the process lives. The other way round, the runtime answers each probe on the same stream: a
stream on which no answer comes is given up, however alive it looks.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from django_agent_runtime._channel import ChannelSession, Rpc, Transport, new_request_id
from django_agent_runtime._errors import CallFailure, failure_error
from django_agent_runtime._fork import start_thread
from django_agent_runtime._streams import REFUSALS, StreamReader
from django_agent_runtime.exceptions import AgentRuntimeError
from django_agent_runtime.grpc_client.agentruntime.v1 import worker_service_pb2 as worker_pb
from django_agent_runtime.runtime.context import from_duration
from django_agent_runtime.runtime.worker.ledger import LEASE_LOST, UNAVAILABLE, Lease, Ledger, read_clock

__all__ = ["Connection"]

logger = logging.getLogger(__name__)

_WORK = Rpc("agentruntime.v1.WorkerService", "Work", worker_pb.WorkRequest, worker_pb.WorkResponse)

# What is put into one message; a single report may be larger.
_BATCH_BYTES = 1 << 20
# What nobody waits for is sent that many seconds after what was sent before, at the earliest.
_REST_SECONDS = 0.005
# How long a stream that the runtime wants to end is kept for acknowledgements, in seconds.
_DRAIN_SECONDS = 1.0
_LONGEST_PROBE_INTERVAL = 5.0
_LONGEST_PAUSE = 5.0
# A runtime that cannot be reached because of the settings, such as a file of TLS that is away for a moment.
_REFUSED_PAUSE = 5.0
# While the runtime is away, that is said so often, in seconds.
_AWAY_SECONDS = 60.0


class Connection(StreamReader):
    """Keeps the stream `Work` open until it is closed, and hands on what comes.

    `receive` is called with each response in the stream's thread, after the ledger has followed it; `on_lost` with
    leases that are over, in any thread; neither may wait. `make_hello` gives a Hello but for what is held.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        make_hello: Callable[[], worker_pb.Hello],
        lease_ttl: float,
        probe_interval: float,
        receive: Callable[[worker_pb.WorkResponse], None],
        on_lost: Callable[[Sequence[Lease]], None],
    ) -> None:
        super().__init__(transport, "agent-runtime-worker")
        self.ledger = Ledger(on_lost)
        self._make_hello = make_hello
        self._deliver = receive
        self._ttl = lease_ttl
        self._longest_probe_interval = probe_interval
        self._changed = self.ledger.changed
        self._stop = threading.Event()
        self._draining = False
        self._report_away_at = 0.0
        self._forget_streams()
        transport.streams.add(self)

    def _forget_streams(self) -> None:
        self._stream = 0
        self._sent_at = 0.0
        self._open = False
        self._welcomed = False
        self._ends_at = 0.0
        self._said_draining = False
        self._said_ended = False
        self._opened_at = 0.0
        self._answered_at = 0.0
        self._probe = 0
        self._next_probe = 0.0
        self._probes: deque[tuple[int, float]] = deque()

    @property
    def connected(self) -> bool:
        """Whether the runtime has welcomed this worker on the present stream."""
        return self._welcomed

    def start(self) -> None:
        """Connect, and go on connecting."""
        self.start_thread()
        start_thread(self._watch, "agent-runtime-worker-watch")

    def drain(self) -> None:
        """Tell the runtime that this worker takes no more runs."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()

    def leave(self, seconds: float) -> None:
        """Tell the runtime that this worker ends, wait for `seconds` at most until it knows, and end the stream.

        What is on its way to this worker, and what it still holds, then goes to others without delay.
        """
        with self._changed:
            self.ending = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._open, seconds)
        self.close()

    def close(self) -> None:
        """End the stream for good."""
        self._stop.set()
        self.interrupt()

    def end(self, error: AgentRuntimeError) -> None:
        """See ResumableStream: the client was disconnected."""
        self.close()

    def restart_in_child(self) -> None:
        """See ResumableStream: a fork of a worker is not one."""
        self._stop = threading.Event()
        self._stop.set()
        self.forget_thread()

    # What StreamReader asks, in its thread.

    def wanted(self) -> bool:
        """Until it is closed, or the worker has ended."""
        self.longest_pause = min(_LONGEST_PAUSE, self._ttl / 6)
        return not (self._stop.is_set() or self.ending)

    def open(self, session: ChannelSession) -> Any:
        """Open the stream, naming what is held."""
        hello = self._make_hello()
        hello.held.extend(self.ledger.begin_stream())
        with self._changed:
            if self.ending:
                # Whoever waits for the last stream has seen none.
                raise CallFailure(grpc.StatusCode.CANCELLED, "the worker ends")
            stream = self._stream + 1
            self._forget_streams()
            self._stream = stream
            self._open = True
            self._opened_at = read_clock()
        return session.stream(_WORK, self._make_requests(stream, hello), self._transport.metadata(new_request_id()))

    def receive(self, response: worker_pb.WorkResponse) -> bool:
        """Follow one response."""
        if response.HasField("welcome"):
            self._welcome(response.welcome)
        elif not self._welcomed:
            logger.error("worker stream began without a welcome")
            return False
        if response.probe:
            self._note_answer(response.probe)
        if response.acks:
            self.ledger.acknowledge(response.acks)
        for assignment in response.assignments:
            self.ledger.open(assignment.run.run_id, assignment.lease)
        for cancellation in response.cancellations:
            self.ledger.cancel(cancellation)
        for child in response.child_runs:
            self.ledger.answer(child)
        for refusal in response.refusals:
            self._note_refusal(refusal)
        if response.draining:
            self._end_soon()
        self._deliver(response)
        return True

    def stopped_reading(self) -> None:
        """Let the thread go in which gRPC waits for requests, and keep what was not acknowledged."""
        with self._changed:
            self._stream += 1
            self._open = self._welcomed = False
            self.ledger.end_stream()
            self._changed.notify_all()

    def failed(self, failure: CallFailure) -> None:
        """Say why a stream is refused or cannot be opened; another attempt follows all the same."""
        if failure.code in REFUSALS:
            error = failure_error(failure, address=self._transport.address)
            logger.error("worker refused by the agent runtime", extra={"err": str(error), "reason": error.reason})
        elif read_clock() >= self._report_away_at:
            self._report_away_at = read_clock() + _AWAY_SECONDS
            error = failure_error(failure, address=self._transport.address)
            logger.warning("agent runtime cannot be reached, trying again", extra={"err": str(error)})

    def refused(self, error: AgentRuntimeError) -> None:
        """Wait for settings that can be used."""
        logger.error("agent runtime cannot be called", extra={"err": str(error)})
        self._stop.wait(_REFUSED_PAUSE)

    # In gRPC's thread.

    def _make_requests(self, stream: int, hello: worker_pb.Hello) -> Iterator[worker_pb.WorkRequest]:
        yield worker_pb.WorkRequest(hello=hello)
        while (request := self._next_request(stream)) is not None:
            yield request

    def _next_request(self, stream: int) -> worker_pb.WorkRequest | None:
        """What to send next, once there is something; None when the stream is over."""
        with self._changed:
            while self._stream == stream:
                now = read_clock()
                if self._said_ended or (self._ends_at and (now >= self._ends_at or not self.ledger.has_unacknowledged)):
                    return None
                if self._welcomed and self._rest(now):
                    continue
                request = self._gather(now) if self._welcomed else None
                if request is not None:
                    self._sent_at = now
                    return request
                wait = self._next_probe - now if self._welcomed else None
                if self._ends_at:
                    wait = min(wait or _DRAIN_SECONDS, self._ends_at - now)
                self._changed.wait(wait)
        return None

    def _rest(self, now: float) -> bool:
        """Wait for more to send, if a message has gone out just now and nobody waits for the next; whether it did.

        A message costs a process of Python as much as several events.
        """
        rest = self._sent_at + _REST_SECONDS - now
        if rest <= 0 or self.ledger.urgent or not self.ledger.has_unsent:
            return False
        self.ledger.resting = True
        self._changed.wait(rest)
        self.ledger.resting = False
        return True

    def _gather(self, now: float) -> worker_pb.WorkRequest | None:
        reports = self.ledger.take(_BATCH_BYTES)
        probe = 0
        if now >= self._next_probe:
            self._next_probe = now + min(self._longest_probe_interval, _LONGEST_PROBE_INTERVAL, self._ttl / 6)
            probe = self._probe = self._probe + 1
            self._probes.append((probe, now))
        draining = self._draining and not self._said_draining
        self._said_draining = self._draining
        self._said_ended = self.ending and not self.ledger.has_unsent
        if not (reports or probe or draining or self._said_ended):
            return None
        return worker_pb.WorkRequest(reports=reports, probe=probe, draining=draining, leaving=self._said_ended)

    # In the stream's thread.

    def _welcome(self, welcome: worker_pb.Welcome) -> None:
        ttl = from_duration(welcome.lease_ttl)
        with self._changed:
            self._ttl = ttl or self._ttl
            self._answered_at = self._opened_at
            self._welcomed = True
            self.ledger.most_payload_bytes = welcome.max_payload_bytes
            held = self.ledger.size
            # Of the loss of this stream itself there is a line of its own.
            self._report_away_at = read_clock() + _AWAY_SECONDS
        self.ledger.resume(welcome.held, self._opened_at + self._ttl)
        logger.info(
            "connected to the agent runtime",
            extra={
                "address": self._transport.address,
                "reconnects": self.reconnects,
                "held": len(welcome.held),
                "lost": held - len(welcome.held),
                "lease_ttl": self._ttl,
            },
        )

    def _note_answer(self, number: int) -> None:
        """An answer proves that the runtime heard of this worker after the probe was sent, if only just."""
        with self._changed:
            while self._probes and self._probes[0][0] <= number:
                self._answered_at = self._probes.popleft()[1]
            self.ledger.expires = self._answered_at + self._ttl

    def _end_soon(self) -> None:
        """End the stream soon: the runtime is about to stop."""
        with self._changed:
            if not self._ends_at:
                logger.info("agent runtime is draining", extra={"address": self._transport.address})
                self._ends_at = read_clock() + _DRAIN_SECONDS
                self._changed.notify_all()

    def _note_refusal(self, refusal: worker_pb.Refusal) -> None:
        lease = self.ledger.refuse(refusal)
        if lease is None or refusal.reason == LEASE_LOST:
            return
        if refusal.reason == UNAVAILABLE:
            self._end_soon()
            return
        logger.warning(
            "report refused by the agent runtime",
            extra={"run_id": refusal.run_id, "reason": refusal.reason, "err": refusal.message},
        )

    # In a thread of its own.

    def _watch(self) -> None:
        """Give up a stream that has fallen silent while there is time to open another, and leases that have lapsed."""
        while not self._stop.wait(min(1.0, self._ttl / 20)):
            lapsed = self.ledger.lapse()
            with self._changed:
                heard = max(self._answered_at, self._opened_at)
                silent = self._open and read_clock() - heard > self._ttl / 2
            if silent:
                logger.warning(
                    "agent runtime does not answer, reconnecting",
                    extra={"address": self._transport.address, "silent_seconds": round(read_clock() - heard, 1)},
                )
            # Leases that lapsed here may hold there: a new stream says that they are over.
            if silent or (lapsed and self._open):
                self.interrupt()
