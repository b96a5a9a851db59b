"""A worker as a process: signals, the supervisor above it, and an end that comes."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable

from django_agent_runtime._fork import start_thread
from django_agent_runtime.runtime.worker.worker import Worker
from django_agent_runtime.tracing import flush

__all__ = ["LIFELINE_VARIABLE", "SLOT_VARIABLE", "end_within", "serve"]

# Set by a supervisor: which of its processes this is, and a pipe that ends when the supervisor does.
SLOT_VARIABLE = "DJANGO_AGENT_RUNTIME_WORKER_SLOT"
LIFELINE_VARIABLE = "DJANGO_AGENT_RUNTIME_WORKER_LIFELINE"

# What a collector of traces gets to take the last of them, in seconds.
_FLUSH_SECONDS = 3.0
# What threads of agents get to end by themselves before the process ends without them, in seconds.
_THREADS_SECONDS = 3.0


def serve(worker: Worker) -> None:
    """Run `worker` in the main thread until SIGTERM or SIGINT, or until the supervisor is gone.

    The first signal has it finish what it can within its grace; another one hurries it. When this returns the process
    ends within seconds, whatever threads agents have left behind.
    """

    def stop(*_: object) -> None:
        worker.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    _watch_lifeline(worker.stop)
    # What was loaded by now stays: the collector need not look at it again and again.
    gc.freeze()
    try:
        clean = worker.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    flush(_FLUSH_SECONDS)
    end_within(_THREADS_SECONDS if clean else 0, 0)


def end_within(seconds: float, code: int) -> None:
    """End the process after `seconds` with an exit code, if it has not ended by itself: at once for 0."""
    if not seconds:
        _end(code)
    timer = threading.Timer(seconds, _end, [code])
    timer.daemon = True
    timer.start()


def _end(code: int) -> None:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _watch_lifeline(stop: Callable[[], object]) -> None:
    """Stop when the supervisor has gone without a word: nobody would restart or stop this process any more."""
    lifeline = os.environ.get(LIFELINE_VARIABLE)
    if lifeline is None:
        return

    def watch() -> None:
        os.read(int(lifeline), 1)
        stop()

    start_thread(watch, "agent-runtime-worker-lifeline")
