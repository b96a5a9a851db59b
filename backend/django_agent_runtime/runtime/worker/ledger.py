"""What this worker holds, and what it has said of it that the runtime has not acknowledged yet.

The event loop adds reports, gRPC's thread takes them, and the thread that reads the stream brings what became of them.
All of it happens under one lock, which is held for moments only.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from django_agent_runtime.grpc_client.agentruntime.v1 import worker_service_pb2 as worker_pb

__all__ = ["LEASE_LOST", "UNAVAILABLE", "Lease", "LeaseKey", "Ledger", "read_clock"]

LEASE_LOST = "LEASE_LOST"
UNAVAILABLE = "UNAVAILABLE"

LeaseKey = tuple[str, int]


def read_clock() -> float:
    """Seconds on a clock that nobody sets; it goes on while the machine sleeps, where the system has such a one."""
    return time.clock_gettime(_CLOCK)


_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Lease:
    """A run that was given to this worker. Its fields belong to the ledger; others may read them at any time."""

    __slots__ = ("asked", "closed", "key", "lost", "reported", "sent", "unacked", "unacked_bytes")

    def __init__(self, key: LeaseKey) -> None:
        self.key = key
        self.reported = 0
        """The number of the newest report."""
        self.sent = 0
        """All reports up to this number have been given to the stream."""
        self.unacked: deque[tuple[worker_pb.Report, int]] = deque()
        """Reports that may have to be sent again, each with its size in bytes."""
        self.unacked_bytes = 0
        self.asked: dict[int, worker_pb.Report] = {}
        """Reports that have an answer, until it comes; an acknowledgement of later ones says nothing of them."""
        self.closed = False
        """Whether the last report has been made."""
        self.lost = ""
        """Why the run is no longer this worker's; empty while it is."""


class Ledger:
    """The leases of a worker and their reports, over all its streams."""

    def __init__(self, on_lost: Callable[[Sequence[Lease]], None], clock: Callable[[], float] = read_clock) -> None:
        """`on_lost` is told of leases that ended without a word of the runtime, in the thread that noticed."""
        self.changed = threading.Condition()
        """Notified when there is something to send. Its lock is that of the ledger."""
        self.expires = 0.0
        """When the leases lapse, by this worker's clock, unless the runtime gives a sign of life that moves it."""
        self.most_payload_bytes = 0
        """How large the payload of a report may be; 0 while the runtime has not said it."""
        self.urgent = False
        """Whether somebody waits for what is to be sent."""
        self.resting = False
        """Whether what nobody waits for notifies nobody: it is about to be looked for."""
        self._on_lost = on_lost
        self._clock = clock
        self._leases: dict[LeaseKey, Lease] = {}
        self._owing: dict[LeaseKey, Lease] = {}
        self._unsent: deque[tuple[Lease, worker_pb.Report, int]] = deque()
        self._streaming = False

    @property
    def size(self) -> int:
        """How many leases there are."""
        return len(self._leases)

    @property
    def has_unsent(self) -> bool:
        """Whether there is something to send."""
        return bool(self._unsent)

    @property
    def has_unacknowledged(self) -> bool:
        """Whether the runtime may not know of a report yet."""
        with self.changed:
            return bool(self._unsent) or any(lease.unacked for lease in self._leases.values())

    def open(self, run_id: str, lease: int) -> Lease:
        """Hold a run from now on."""
        key = (run_id, lease)
        with self.changed:
            opened = self._leases[key] = Lease(key)
        return opened

    def find(self, key: LeaseKey) -> Lease | None:
        """A lease that is held."""
        return self._leases.get(key)

    def report(
        self, lease: Lease, report: worker_pb.Report, size: int, *, final: bool = False, urgent: bool = True
    ) -> int:
        """Give a report its number and have it sent; 0 if the lease is over, and nothing of it will be kept.

        `size` is about what it takes in bytes; after a `final` one there are no others. One that is not `urgent` may
        be sent a moment later, together with others.
        """
        with self.changed:
            if lease.lost or lease.closed:
                return 0
            lapsed = self._take_lapsed()
            if not lapsed:
                lease.reported += 1
                report.run_id, report.lease = lease.key
                report.number = lease.reported
                if report.HasField("start_run"):
                    lease.asked[report.number] = report
                else:
                    lease.unacked.append((report, size))
                    lease.unacked_bytes += size
                lease.closed = final
                if self._streaming:
                    self._unsent.append((lease, report, size))
                    self.urgent = self.urgent or urgent
                    if urgent or not self.resting:
                        self.changed.notify_all()
                return lease.reported
        self._on_lost(lapsed)
        return 0

    def release(self, key: LeaseKey) -> None:
        """Say that the code of a lost run is gone, if the runtime waits to hear it."""
        with self.changed:
            lease = self._owing.pop(key, None)
            if lease is None:
                return
            lease.reported += 1
            report = worker_pb.Report(number=lease.reported, release=worker_pb.Release())
            report.run_id, report.lease = key
            self._unsent.append((lease, report, 0))
            self.urgent = True
            self.changed.notify_all()

    def acknowledge(self, acks: Iterable[worker_pb.Ack]) -> None:
        """Let go of reports that are durable."""
        with self.changed:
            for ack in acks:
                lease = self._leases.get((ack.run_id, ack.lease))
                if lease is not None:
                    self._forget_reports(lease, ack.number)

    def answer(self, child: worker_pb.ChildRun) -> None:
        """Let go of a report that has been answered."""
        with self.changed:
            lease = self._leases.get((child.parent_run_id, child.lease))
            if lease is not None:
                lease.asked.pop(child.number, None)

    def refuse(self, refusal: worker_pb.Refusal) -> Lease | None:
        """Let go of a report that was not kept: its lease, if the run is still held or was until now.

        What was refused because the runtime is about to stop is kept for the next stream.
        """
        with self.changed:
            lease = self._leases.get((refusal.run_id, refusal.lease))
            if lease is None:
                return None
            if refusal.reason == LEASE_LOST:
                self._lose(lease, LEASE_LOST)
                return lease
            if refusal.reason == UNAVAILABLE:
                return lease
            lease.asked.pop(refusal.number, None)
            for entry in lease.unacked:
                if entry[0].number == refusal.number:
                    lease.unacked.remove(entry)
                    lease.unacked_bytes -= entry[1]
                    break
            if refusal.number == lease.reported:
                # It was not the last one after all.
                lease.closed = False
            return lease

    def cancel(self, cancellation: worker_pb.Cancellation) -> Lease | None:
        """End a lease that the runtime has ended; None if it was over."""
        with self.changed:
            lease = self._leases.get((cancellation.run_id, cancellation.lease))
            if lease is not None:
                self._lose(lease, cancellation.reason or LEASE_LOST)
            return lease

    def drop(self, lease: Lease) -> None:
        """Forget a lease without a word: the next stream does not name it."""
        with self.changed:
            lease.lost = lease.lost or LEASE_LOST
            self._leases.pop(lease.key, None)

    def begin_stream(self) -> list[worker_pb.HeldLease]:
        """What a new stream is to name as held. Nothing is sent on it before `resume`."""
        with self.changed:
            lapsed = self._take_lapsed()
            held = [worker_pb.HeldLease(run_id=run_id, lease=number) for run_id, number in self._leases]
        self._on_lost(lapsed)
        return held

    def resume(self, held: Iterable[worker_pb.Ack], expires: float) -> None:
        """Follow the runtime's word on what holds: send what it lacks of it, and lose the rest."""
        kept = {(ack.run_id, ack.lease): ack.number for ack in held}
        with self.changed:
            self.expires = expires
            lost = [lease for key, lease in self._leases.items() if key not in kept]
            for lease in lost:
                lease.lost = LEASE_LOST
                del self._leases[lease.key]
            for key, number in kept.items():
                lease_or_none = self._leases.get(key)
                if lease_or_none is not None:
                    self._forget_reports(lease_or_none, number)
            for lease in self._leases.values():
                again = [*lease.unacked, *((report, 0) for report in lease.asked.values())]
                again.sort(key=lambda entry: entry[0].number)
                self._unsent.extend((lease, report, size) for report, size in again)
            self._streaming = self.urgent = True
            self.changed.notify_all()
        self._on_lost(lost)

    def end_stream(self) -> None:
        """Keep reports until there is another stream."""
        with self.changed:
            self._streaming = False
            self._unsent.clear()
            # The next stream names only what is held, which says the same.
            self._owing.clear()

    def take(self, most_bytes: int) -> list[worker_pb.Report]:
        """Reports to send now, in order, together not much above `most_bytes`."""
        reports = []
        with self.changed:
            while self._unsent and most_bytes > 0:
                lease, report, size = self._unsent.popleft()
                lease.sent = report.number
                most_bytes -= size
                reports.append(report)
            self.urgent = bool(self._unsent)
        return reports

    def lapse(self) -> bool:
        """Lose every lease if their time is over; whether there were any."""
        with self.changed:
            lapsed = self._take_lapsed()
        self._on_lost(lapsed)
        return bool(lapsed)

    def _take_lapsed(self) -> list[Lease]:
        if not self._leases or self._clock() < self.expires:
            return []
        lapsed = list(self._leases.values())
        for lease in lapsed:
            lease.lost = LEASE_LOST
        self._leases.clear()
        self._unsent.clear()
        return lapsed

    def _lose(self, lease: Lease, reason: str) -> None:
        # What is on its way is sent all the same: reports of a lease have no gaps.
        lease.lost = reason
        del self._leases[lease.key]
        if self._streaming and not lease.closed:
            # The last report frees the place, kept or not.
            self._owing[lease.key] = lease

    def _forget_reports(self, lease: Lease, number: int) -> None:
        while lease.unacked and lease.unacked[0][0].number <= number:
            lease.unacked_bytes -= lease.unacked.popleft()[1]
        if lease.closed and not lease.unacked:
            self._leases.pop(lease.key, None)
