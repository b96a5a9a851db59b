"""WorkerService as its contract has it, in this process: leases that lapse, fencing, late acks, cuts.

It keeps every breach of the contract by a worker in `breaches`, which the fixture checks to be empty.
"""

from __future__ import annotations

import heapq
import itertools
import json
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from django_agent_runtime.grpc_client.agentruntime.v1 import worker_service_pb2 as worker_pb

PATIENCE_SECONDS = 30.0
ENDS = {"succeeded", "failed", "cancelled", "timed_out"}
_STATES = {
    "queued": agent_pb.RUN_STATE_QUEUED,
    "running": agent_pb.RUN_STATE_RUNNING,
    "waiting": agent_pb.RUN_STATE_WAITING,
    "succeeded": agent_pb.RUN_STATE_SUCCEEDED,
    "failed": agent_pb.RUN_STATE_FAILED,
    "cancelled": agent_pb.RUN_STATE_CANCELLED,
    "timed_out": agent_pb.RUN_STATE_TIMED_OUT,
}


@dataclass
class Event:
    type: str
    visibility: int
    payload: dict[str, Any]
    attempt: int


@dataclass
class Run:
    run_id: str
    agent: str
    input: bytes
    metadata: bytes = b""
    max_attempts: int = 3
    run_timeout: float = 900
    state: str = "queued"
    attempt: int = 0
    lease: int = 0
    worker: Worker | None = None
    kept: int = 0
    events: list[Event] = field(default_factory=list)
    steps: dict[str, bytes] = field(default_factory=dict)
    answers: list[agent_pb.Interrupt] = field(default_factory=list)
    interrupt: agent_pb.Interrupt | None = None
    children: dict[str, str] = field(default_factory=dict)
    wait_for: list[str] = field(default_factory=list)
    output: dict[str, Any] | None = None
    fail: worker_pb.Fail | None = None
    reason: str = ""
    history: list[str] = field(default_factory=list)
    acks_held: bool = False

    def message(self, *, whole: bool = True) -> agent_pb.Run:
        run = agent_pb.Run(
            run_id=self.run_id,
            target=agent_pb.RUN_TARGET_WORKER,
            agent_id=self.agent,
            task_type="agent.run",
            state=_STATES[self.state],
            attempt=self.attempt,
            max_attempts=self.max_attempts,
            metadata=self.metadata,
        )
        if whole:
            run.input = self.input
        if self.output is not None:
            run.output = json.dumps(self.output).encode()
        if self.state in ENDS - {"succeeded"}:
            run.error.message = self.fail.message if self.fail else ""
            run.error.reason = self.reason
        return run

    def texts(self) -> str:
        """What was streamed, in one."""
        return "".join(event.payload["content"] for event in self.events if event.type == "assistant.delta")


class Worker:
    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id
        self.name = ""
        self.agents: set[str] = set()
        self.concurrency = 0
        self.heard = 0.0
        self.ttl = 0.0
        self.draining = False
        self.slots: set[tuple[str, int]] = set()
        self.stream: Stream | None = None
        self.streams = 0


class Stream:
    def __init__(self) -> None:
        self.outbox: queue.SimpleQueue[worker_pb.WorkResponse | None] = queue.SimpleQueue()
        self.deaf = False

    def take_more(self) -> worker_pb.WorkResponse | None:
        """What else there is to send; None: nothing, or the end, which is left there."""
        if self.outbox.empty():
            return None
        response = self.outbox.get()
        if response is None:
            self.outbox.put(None)
        return response

    def send(self, response: worker_pb.WorkResponse) -> None:
        if not self.deaf:
            self.outbox.put(response)


class FakeRuntime:
    """A runtime for workers alone. Public methods may be called in any thread."""

    def __init__(self, port: int, *, ack_delay: float = 0.002, lease_ttl: float | None = None) -> None:
        self.port = port
        self.ack_delay = ack_delay
        self.lease_ttl = lease_ttl
        self.breaches: list[str] = []
        self.refusals: list[worker_pb.Refusal] = []
        self.hellos: list[worker_pb.Hello] = []
        self.metadata: list[dict[str, Any]] = []
        self.runs: dict[str, Run] = {}
        self.workers: dict[str, Worker] = {}
        self.messages = 0
        self.responses = 0
        self.releases = 0
        self.refused_types: dict[str, str] = {}
        self.answers_lost = 0
        self.on_drain: Callable[[Worker], None] = lambda _: None
        self.changed = threading.Condition()
        self._queue: list[str] = []
        self._parents: list[Run] = []
        self._leases = itertools.count(1)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._stopped = False
        self._clock = threading.Thread(target=self._tick, daemon=True)
        self._server: grpc.Server | None = None

    @property
    def settings(self) -> dict[str, Any]:
        return {"host": "127.0.0.1", "port": self.port}

    # What a test does.

    def start(self) -> FakeRuntime:
        self.serve()
        self._clock.start()
        return self

    def serve(self) -> None:
        """Listen, at first or again."""
        server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
        handler = grpc.stream_stream_rpc_method_handler(
            self._work,
            request_deserializer=worker_pb.WorkRequest.FromString,
            response_serializer=worker_pb.WorkResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("agentruntime.v1.WorkerService", {"Work": handler}),)
        )
        assert server.add_insecure_port(f"127.0.0.1:{self.port}")
        server.start()
        self._server = server

    def stop_serving(self) -> None:
        """Be away: streams end, and none can be opened."""
        self.cut()
        server, self._server = self._server, None
        if server is not None:
            server.stop(None).wait()

    def stop(self) -> None:
        with self.changed:
            self._stopped = True
            self.changed.notify_all()
        self.stop_serving()

    def cut(self) -> None:
        """End all streams; they may be opened again at once."""
        with self.changed:
            for worker in self.workers.values():
                if worker.stream is not None:
                    worker.stream.outbox.put(None)

    def deafen(self) -> None:
        """Answer nothing more on the streams that are open now."""
        with self.changed:
            for worker in self.workers.values():
                if worker.stream is not None:
                    worker.stream.deaf = True

    def announce_drain(self) -> None:
        with self.changed:
            for worker in self.workers.values():
                if worker.stream is not None:
                    worker.stream.send(worker_pb.WorkResponse(draining=True))

    def submit(self, agent: str, content: str = "", **fields: Any) -> Run:
        whole = {"messages": [{"role": "user", "content": content}], "params": fields.pop("params", {})}
        run = Run(str(uuid.uuid4()), agent, json.dumps(whole).encode(), **fields)
        with self.changed:
            self.runs[run.run_id] = run
            self._enqueue(run)
        return run

    def forget_ended(self) -> None:
        """Keep nothing of runs that have ended, as after their retention."""
        with self.changed:
            self.runs = {run_id: run for run_id, run in self.runs.items() if run.state not in ENDS}

    def cancel(self, run: Run) -> None:
        with self.changed:
            if run.state not in ENDS:
                self._take_away(run, "RUN_CANCELLED")
                self._end(run, "cancelled", "RUN_CANCELLED")

    def resume(self, run: Run, value: Any) -> None:
        with self.changed:
            assert run.state == "waiting"
            assert run.interrupt is not None
            asked = run.interrupt
            answer = agent_pb.Interrupt(
                interrupt_id=asked.interrupt_id, question=asked.payload, payload=json.dumps(value).encode()
            )
            run.answers.append(answer)
            run.interrupt = None
            self._enqueue(run)

    def wait_until(self, condition: Callable[[], Any], what: str = "", timeout: float = PATIENCE_SECONDS) -> None:
        with self.changed:
            met = self.changed.wait_for(condition, timeout)
        assert met, f"not within {timeout} s: {what}"

    def wait_for(self, run: Run, *states: str, timeout: float = PATIENCE_SECONDS) -> Run:
        """Wait until a run is in one of the states; by default until it has ended."""
        wanted = set(states) or ENDS
        with self.changed:
            met = self.changed.wait_for(lambda: run.state in wanted, timeout)
        assert met, f"{run.agent} is {run.state}, not {wanted}: {run.history}; {self.breaches}"
        return run

    def wait_for_event(self, run: Run, event_type: str, timeout: float = PATIENCE_SECONDS) -> None:
        self.wait_until(lambda: any(event.type == event_type for event in run.events), event_type, timeout)

    # The service.

    def _work(self, requests: Iterator[worker_pb.WorkRequest], context: grpc.ServicerContext) -> Iterator[Any]:
        stream = Stream()
        with self.changed:
            self.metadata.append(dict(context.invocation_metadata()))
        threading.Thread(target=self._read, args=(requests, stream), daemon=True).start()
        context.add_callback(lambda: stream.outbox.put(None))
        while (response := stream.outbox.get()) is not None:
            # What has piled up goes in one message, but for what ends the stream.
            whole = worker_pb.WorkResponse()
            whole.MergeFrom(response)
            for more in iter(stream.take_more, None):
                whole.MergeFrom(more)
            self.responses += 1
            yield whole

    def _read(self, requests: Iterator[worker_pb.WorkRequest], stream: Stream) -> None:
        worker: Worker | None = None
        try:
            for request in requests:
                with self.changed:
                    if stream.deaf:
                        continue
                    self.messages += 1
                    if worker is None:
                        if not request.HasField("hello"):
                            self.breaches.append("the first message has no hello")
                            return
                        worker = self._greet(request.hello, stream)
                    elif worker.stream is not stream:
                        return
                    worker.heard = time.monotonic()
                    self._follow(worker, stream, request)
                    self._assign()
                    self.changed.notify_all()
        except grpc.RpcError:
            pass
        finally:
            with self.changed:
                if worker is not None and worker.stream is stream:
                    worker.stream = None
            stream.outbox.put(None)

    def _greet(self, hello: worker_pb.Hello, stream: Stream) -> Worker:
        self.hellos.append(hello)
        worker = self.workers.setdefault(hello.worker_id, Worker(hello.worker_id))
        if worker.stream is not None:
            worker.stream.outbox.put(None)
        now = time.monotonic()
        worker.stream = stream
        worker.streams += 1
        worker.name = hello.name
        worker.agents = {agent.agent_id for agent in hello.agents}
        worker.concurrency = hello.concurrency
        lapsed = worker.streams > 1 and now > worker.heard + worker.ttl
        worker.ttl = self.lease_ttl or hello.lease_ttl.ToTimedelta().total_seconds()
        worker.heard = now
        worker.slots.clear()
        welcome = worker_pb.Welcome(lease_ttl=Duration(nanos=int(worker.ttl * 1e9) % 10**9, seconds=int(worker.ttl)))
        named = {(held.run_id, held.lease) for held in hello.held}
        for run in self.runs.values():
            if run.worker is not worker or run.state != "running":
                continue
            if (run.run_id, run.lease) in named and not lapsed:
                welcome.held.append(worker_pb.Ack(run_id=run.run_id, lease=run.lease, number=run.kept))
                worker.slots.add((run.run_id, run.lease))
            else:
                self._lapse(run)
        stream.send(worker_pb.WorkResponse(welcome=welcome))
        return worker

    def _follow(self, worker: Worker, stream: Stream, request: worker_pb.WorkRequest) -> None:
        if request.draining and not worker.draining:
            self.on_drain(worker)
            worker.draining = True
        if request.probe:
            stream.send(worker_pb.WorkResponse(probe=request.probe))
        acks: dict[tuple[str, int], int] = {}
        for report in request.reports:
            self._follow_report(worker, stream, report, acks)
        if acks:
            response = worker_pb.WorkResponse(
                acks=[worker_pb.Ack(run_id=key[0], lease=key[1], number=number) for key, number in acks.items()]
            )
            self._later(self.ack_delay, lambda: stream.send(response))
        if request.leaving:
            for run in self.runs.values():
                if run.worker is worker and run.state == "running":
                    self._requeue_given_back(run)
            stream.outbox.put(None)

    def _follow_report(
        self, worker: Worker, stream: Stream, report: worker_pb.Report, acks: dict[tuple[str, int], int]
    ) -> None:
        key = (report.run_id, report.lease)
        kind = report.WhichOneof("report")
        run = self.runs.get(report.run_id) or Run(report.run_id, "", b"")
        if kind == "release":
            if key not in worker.slots:
                self.breaches.append("release of a lease that holds no place")
            worker.slots.discard(key)
            self.releases += 1
            return
        if run.lease != report.lease or run.state != "running" or run.worker is not worker:
            if kind in {"succeed", "fail", "park", "give_back"}:
                worker.slots.discard(key)
            self._refuse(stream, report, "LEASE_LOST")
            return
        if kind == "start_run" and report.number <= run.kept:
            # Asked again, until the answer has come.
            self._on_start_run(worker, stream, run, report)
            return
        if report.number <= run.kept:
            acks[key] = run.kept
            return
        if report.number != run.kept + 1:
            self.breaches.append(f"report {report.number} of a lease after {run.kept}")
        run.kept = report.number
        if kind in self.refused_types:
            self._refuse(stream, report, self.refused_types[kind])
            return
        if not run.acks_held and kind != "start_run":
            acks[key] = report.number
        getattr(self, f"_on_{kind}")(worker, stream, run, report)

    def _on_events(self, worker: Worker, stream: Stream, run: Run, report: worker_pb.Report) -> None:
        for event in report.events.events:
            if event.type.startswith("run."):
                self.breaches.append(f"event {event.type}")
            run.events.append(Event(event.type, event.visibility, json.loads(event.payload), run.attempt))

    def _on_step(self, worker: Worker, stream: Stream, run: Run, report: worker_pb.Report) -> None:
        if report.step.key in run.steps:
            self.breaches.append(f"step {report.step.key} recorded twice")
        run.steps[report.step.key] = report.step.result

    def _on_start_run(self, worker: Worker, stream: Stream, run: Run, report: worker_pb.Report) -> None:
        key = report.start_run.key
        if key not in run.children:
            request = report.start_run.run
            child = Run(str(uuid.uuid4()), request.agent_id, request.input, request.metadata)
            self.runs[child.run_id] = child
            run.children[key] = child.run_id
            self._enqueue(child)
        if self.answers_lost:
            self.answers_lost -= 1
            return
        answer = worker_pb.ChildRun(
            parent_run_id=run.run_id,
            lease=report.lease,
            number=report.number,
            run=self.runs[run.children[key]].message(),
        )
        self._later(self.ack_delay, lambda: stream.send(worker_pb.WorkResponse(child_runs=[answer])))

    def _on_succeed(self, worker: Worker, stream: Stream, run: Run, report: worker_pb.Report) -> None:
        worker.slots.discard((run.run_id, run.lease))
        run.output = json.loads(report.succeed.output)
        self._end(run, "succeeded", "")

    def _on_fail(self, worker: Worker, stream: Stream, run: Run, report: worker_pb.Report) -> None:
        worker.slots.discard((run.run_id, run.lease))
        run.fail = report.fail
        run.history.append(f"failed: {report.fail.message}")
        if report.fail.retryable and run.attempt < run.max_attempts:
            self._enqueue(run)
        else:
            self._end(run, "failed", "AGENT_FAILED")

    def _on_park(self, worker: Worker, stream: Stream, run: Run, report: worker_pb.Report) -> None:
        worker.slots.discard((run.run_id, run.lease))
        run.state = "waiting"
        run.history.append("waiting")
        if report.park.HasField("interrupt"):
            run.interrupt = report.park.interrupt
            return
        run.wait_for = list(report.park.wait_for)
        if not run.wait_for:
            self.breaches.append("a park for nothing")
        self._parents.append(run)
        self._wake(run)

    def _on_give_back(self, worker: Worker, stream: Stream, run: Run, report: worker_pb.Report) -> None:
        worker.slots.discard((run.run_id, run.lease))
        self._requeue_given_back(run)

    def _requeue_given_back(self, run: Run) -> None:
        run.history.append("given back")
        run.attempt -= 1
        self._enqueue(run)

    def _refuse(self, stream: Stream, report: worker_pb.Report, reason: str) -> None:
        refusal = worker_pb.Refusal(
            run_id=report.run_id, lease=report.lease, number=report.number, reason=reason, message="refused by the fake"
        )
        self.refusals.append(refusal)
        stream.send(worker_pb.WorkResponse(refusals=[refusal]))

    def _enqueue(self, run: Run) -> None:
        run.state = "queued"
        run.worker = None
        run.lease = 0
        self._queue.append(run.run_id)
        self._assign()
        self.changed.notify_all()

    def _assign(self) -> None:
        for run_id in list(self._queue):
            run = self.runs[run_id]
            if run.state != "queued":
                self._queue.remove(run_id)
                continue
            for worker in self.workers.values():
                stream = worker.stream
                if stream is None or worker.draining or run.agent not in worker.agents:
                    continue
                if time.monotonic() > worker.heard + worker.ttl:
                    # It may be gone, whatever its connection says.
                    continue
                if len(worker.slots) >= worker.concurrency:
                    continue
                self._queue.remove(run_id)
                self._give(run, worker, stream)
                break

    def _give(self, run: Run, worker: Worker, stream: Stream) -> None:
        run.lease = next(self._leases)
        run.worker = worker
        run.state = "running"
        run.attempt += 1
        run.kept = 0
        run.history.append(f"started {run.attempt}")
        worker.slots.add((run.run_id, run.lease))
        checkpoints = [event.payload for event in run.events if event.type == "state.checkpoint"]
        assignment = worker_pb.Assignment(
            run=run.message(),
            lease=run.lease,
            run_timeout=Duration(seconds=int(run.run_timeout), nanos=int(run.run_timeout % 1 * 1e9)),
            steps=[worker_pb.RecordStep(key=key, result=result) for key, result in run.steps.items()],
            answers=run.answers,
            checkpoint=json.dumps(checkpoints[-1]).encode() if checkpoints else b"",
        )
        stream.send(worker_pb.WorkResponse(assignments=[assignment]))
        lease = run.lease
        if run.run_timeout < PATIENCE_SECONDS:
            self._later(run.run_timeout, lambda: self._time_out(run, lease))

    def _time_out(self, run: Run, lease: int) -> None:
        if run.state == "running" and run.lease == lease:
            self._take_away(run, "RUN_TIMED_OUT")
            self._end(run, "timed_out", "RUN_TIMED_OUT")

    def _take_away(self, run: Run, reason: str) -> None:
        if run.worker is not None and run.state == "running" and run.worker.stream is not None:
            cancellation = worker_pb.Cancellation(run_id=run.run_id, lease=run.lease, reason=reason)
            run.worker.stream.send(worker_pb.WorkResponse(cancellations=[cancellation]))

    def _lapse(self, run: Run) -> None:
        run.history.append("lapsed")
        if run.attempt >= run.max_attempts:
            self._end(run, "failed", "ATTEMPTS_EXHAUSTED")
        else:
            self._enqueue(run)

    def _end(self, run: Run, state: str, reason: str) -> None:
        run.state = state
        run.reason = reason
        run.lease = 0
        run.history.append(state)
        for parent in list(self._parents):
            self._wake(parent)
        self.changed.notify_all()

    def _wake(self, parent: Run) -> None:
        if parent.state == "waiting" and all(self.runs[run_id].state in ENDS for run_id in parent.wait_for):
            self._parents.remove(parent)
            parent.wait_for = []
            self._enqueue(parent)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), action))
        self.changed.notify_all()

    def _tick(self) -> None:
        """Do what is due, and end leases of workers that were not heard of."""
        with self.changed:
            while not self._stopped:
                now = time.monotonic()
                while self._due and self._due[0][0] <= now:
                    heapq.heappop(self._due)[2]()
                for worker in self.workers.values():
                    if worker.slots and now > worker.heard + worker.ttl:
                        self._lapse_all(worker)
                wait = min(0.05, self._due[0][0] - now) if self._due else 0.05
                self.changed.wait(max(0.0005, wait))

    def _lapse_all(self, worker: Worker) -> None:
        for run in list(self.runs.values()):
            if run.worker is worker and run.state == "running":
                self._take_away(run, "LEASE_LOST")
                self._lapse(run)
