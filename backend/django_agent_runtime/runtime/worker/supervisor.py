"""Keeps a number of worker processes going."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence

from django_agent_runtime.runtime.worker.process import LIFELINE_VARIABLE, SLOT_VARIABLE

__all__ = ["Supervisor"]

logger = logging.getLogger(__name__)

# A process that ends sooner than this after its start has crashed at once, in seconds.
_SOON_SECONDS = 10.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
# What a worker needs at most to give back runs and end, in seconds: beyond its grace, and when it was hurried.
_END_SECONDS = 18.0
_HURRIED_SECONDS = 9.0


class _Slot:
    """The place of one process."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.start_at = 0.0
        self.pause = 0.0


class Supervisor:
    """Starts processes, starts those again that end, and passes on when to stop.

    Processes are spawned, not forked, so that each has its own connection from the beginning. They are in sessions of
    their own: what a terminal sends to this process reaches them through it, and once.
    """

    def __init__(self, command: Sequence[str], processes: int, *, grace: float) -> None:
        """`command` starts one process; `grace` is what its runs get to finish, in seconds."""
        self._command = list(command)
        self._grace = grace
        self._slots = [_Slot(number) for number in range(1, processes + 1)]
        self._signals = 0
        self._told = 0
        self._kill_at = 0.0
        self._killed = False

    def run(self) -> int:
        """Go on until SIGTERM or SIGINT, in the main thread: the exit code, 0 unless a process had to be killed."""
        wake_reader, wake_writer = os.pipe()
        os.set_blocking(wake_writer, False)
        lifeline, lifeline_writer = os.pipe()
        handlers = {number: signal.signal(number, self._count_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        wakeup = signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        try:
            while self._look(lifeline):
                if select.select([wake_reader], [], [], self._until_next())[0]:
                    os.read(wake_reader, 4096)
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for descriptor in (wake_reader, wake_writer, lifeline, lifeline_writer):
                os.close(descriptor)
        return 1 if self._killed else 0

    def _count_signal(self, *_: object) -> None:
        self._signals += 1

    def _look(self, lifeline: int) -> bool:
        """See to what is due; whether to go on."""
        for slot in self._slots:
            if slot.process is not None and slot.process.poll() is not None:
                self._note_end(slot)
        if self._signals:
            return self._stop()
        for slot in self._slots:
            if slot.process is None and time.monotonic() >= slot.start_at:
                self._start(slot, lifeline)
        return True

    def _stop(self) -> bool:
        alive = [slot.process for slot in self._slots if slot.process is not None]
        now = time.monotonic()
        if self._told < self._signals:
            self._told = self._signals
            self._kill_at = now + (self._grace + _END_SECONDS if self._signals == 1 else _HURRIED_SECONDS)
            for process in alive:
                process.send_signal(signal.SIGTERM)
        elif now >= self._kill_at:
            for process in alive:
                logger.error("worker process killed: it did not end", extra={"worker_pid": process.pid})
                self._killed = True
                process.kill()
                process.wait()
            return False
        return bool(alive)

    def _until_next(self) -> float | None:
        """Seconds until something is due without a signal; None: nothing is."""
        times = [slot.start_at for slot in self._slots if slot.process is None and not self._signals]
        if self._signals:
            times.append(self._kill_at)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _start(self, slot: _Slot, lifeline: int) -> None:
        environment = {**os.environ, SLOT_VARIABLE: str(slot.number), LIFELINE_VARIABLE: str(lifeline)}
        slot.process = subprocess.Popen(  # noqa: S603 - this program itself
            self._command, env=environment, pass_fds=(lifeline,), start_new_session=True
        )
        slot.started_at = time.monotonic()
        logger.info("worker process started", extra={"slot": slot.number, "worker_pid": slot.process.pid})

    def _note_end(self, slot: _Slot) -> None:
        process = slot.process
        assert process is not None
        slot.process = None
        lived = time.monotonic() - slot.started_at
        if lived >= _SOON_SECONDS:
            slot.pause = 0.0
        slot.start_at = time.monotonic() + slot.pause
        fields = {"slot": slot.number, "worker_pid": process.pid, "exit_code": process.returncode}
        if self._signals:
            logger.info("worker process ended", extra=fields)
            return
        logger.error("worker process ended, starting another", extra={**fields, "pause_seconds": round(slot.pause, 1)})
        # The first time at once; then ever later, while it keeps crashing soon after its start.
        slot.pause = min(_LONGEST_PAUSE, slot.pause * 2 or _FIRST_PAUSE)
