"""Forking with gRPC in the process.

grpcio 1.85 breaks a process that has used it and forks: children hang or fail, and now and then the parent does.
What holds is to have no gRPC at all while the fork happens. So before a fork, new calls are held back, what is in
flight is cut off, channels are closed and dropped, and the fork waits until gRPC's own threads are gone. Then:

- in the parent, calls go on: those that were cut off are made again under their request id, so that they join
  what they began, and streams resume behind the last thing they saw;
- in the child, every client starts afresh: no channel, no subscriptions, no locks of threads it does not have.

Under gevent a child has copies of its parent's greenlets, which go on in both: so the locks they hold and the forks
they are about to make count in the child too, and whoever waits in the client is woken there as in the parent. The
client's own greenlets see by the process id that they are copies, and end; those of the caller go on, and are the
caller's to stop.

`os.fork`, `multiprocessing`, gunicorn, Celery and gevent come through here, because Python calls the handlers
below. A fork in C does not (uWSGI without `lazy-apps`). `subprocess` needs none of this and does not call them.
"""

from __future__ import annotations

import _thread
import gc
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Protocol, TypeVar

__all__ = ["Forkable", "Session", "gate", "start_thread", "threads_are_greenlets"]

logger = logging.getLogger(__name__)

# How long a fork may be held up, in seconds. It takes 10 to 20 ms when nothing else in the process uses gRPC.
_PATIENCE = 2.0
_PROCESS = "/proc/self"
_GRPC_THREADS = ("event_engine", "lifeguard", "grpc_global_tim", "grpc_shutdown")
# gRPC's waiter needs microseconds once it is told; a task of somebody else may keep the pool busy for long.
_GEVENT_PATIENCE = 0.5
# Where threads cannot be listed (anything but Linux), gRPC gets this long to end, in seconds.
_BLIND_WAIT = 0.05


def threads_are_greenlets() -> bool:
    """Whether gevent has put its greenlets in the place of threads, so that a fork copies them."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def start_thread(target: Callable[[], object], name: str) -> None:
    """Run `target` in a daemon thread."""
    if threads_are_greenlets():
        # In a child, threading knows nothing of its parent's threads, and a copy that ends could not sign off.
        _thread.start_new_thread(target, ())
    else:
        threading.Thread(target=target, name=name, daemon=True).start()


class Session:
    """What is open in this process: something that uses gRPC, and how many calls are inside it."""

    def __init__(self) -> None:
        self.calls = 0
        self.closed = False
        self.suspended = False
        """Closed for a fork: what failed because of it is to be made again."""

    def close(self) -> None:
        """End every call and let go of everything that belongs to gRPC; called again when the last call has left."""
        raise NotImplementedError


S = TypeVar("S", bound=Session)


class Forkable(Protocol):
    """Something with a session, registered with the gate."""

    def detach_session(self) -> Session | None:
        """Give up the open session; the next call opens another. Called with the gate's lock held."""

    def restart_in_child(self) -> None:
        """Forget everything that belonged to the parent: this is a new process with one thread."""


class Gate:
    """What every call passes: open, but for the moments around a fork. One for the whole process."""

    def __init__(self) -> None:
        self._start_afresh()
        self._members: weakref.WeakSet[Forkable] = weakref.WeakSet()

    def _start_afresh(self) -> None:
        # Taken as it is on the way of every call, which is faster than through the condition.
        self._lock = threading.RLock()
        self.changed = threading.Condition(self._lock)
        self._forks = 0
        self._opened = False

    def register(self, member: Forkable) -> None:
        """Have `member` follow every fork for as long as it lives."""
        with self.changed:
            self._members.add(member)

    def enter(self, current: Callable[[], S]) -> S:
        """Begin a call: wait until no fork is under way, then count it in the session that `current` gives.

        `current` is called with the lock held, and may open a session.
        """
        with self._lock:
            while self._forks:
                self.changed.wait()
            self._opened = True
            session = current()
            session.calls += 1
            return session

    def leave(self, session: Session) -> None:
        """End a call begun with `enter`; no object of gRPC may be held any more."""
        with self._lock:
            session.calls -= 1
            if session.closed and not session.calls:
                self.changed.notify_all()

    def before_fork(self) -> None:
        """Leave this process without gRPC, as far as it is ours."""
        deadline = time.monotonic() + _PATIENCE
        with self.changed:
            self._forks += 1
            opened, self._opened = self._opened, False
            sessions = [session for member in list(self._members) if (session := member.detach_session())]
            for session in sessions:
                session.suspended = session.closed = True
        for session in sessions:
            session.close()
        with self.changed:
            self.changed.wait_for(lambda: not any(session.calls for session in sessions), timeout=_PATIENCE)
        for session in sessions:
            # A call that came late may have left something of the closed channel behind.
            session.close()
        if opened and not _wait_for_grpc_to_end(deadline):
            # Another thread's fork may still have to wait for the same threads.
            self._opened = True
            logger.warning("gRPC is still running at a fork; the child may fail or hang if it uses gRPC")

    def after_fork_in_parent(self) -> None:
        """Let the calls go on that waited."""
        with self.changed:
            self._forks -= 1
            if not self._forks:
                self.changed.notify_all()

    def after_fork_in_child(self) -> None:
        """Start afresh: a thread that does not exist here may have held the lock."""
        if threads_are_greenlets():
            # For a fork that gevent did not make itself; the second time it does nothing.
            sys.modules["gevent"].reinit()
            self._opened = False
            self.after_fork_in_parent()
        else:
            self._start_afresh()
        for member in list(self._members):
            member.restart_in_child()


def _wait_for_grpc_to_end(deadline: float) -> bool:
    """Whether gRPC's threads were gone by `deadline` (monotonic seconds)."""
    if not os.path.isdir(f"{_PROCESS}/task"):  # noqa: PTH112
        time.sleep(_BLIND_WAIT)
        return True
    collect_at = time.monotonic() + 0.1
    while _grpc_is_running():
        now = time.monotonic()
        if now > deadline:
            return False
        if now > collect_at:
            # Something of gRPC may be held by a reference cycle only. Rare, and slow in a large process: once.
            gc.collect()
            collect_at = deadline
        time.sleep(0.001)
    _wait_for_gevent_to_rest()
    return True


def _wait_for_gevent_to_rest() -> None:
    """Let gRPC's waiter in gevent's thread pool end too, where there is one.

    It takes a lock of gRPC's on its way out, and in a child that was forked just then nobody would let go of it.
    """
    hub = sys.modules.get("gevent.hub")
    if hub is None:
        return
    pool = hub.get_hub().threadpool
    until = time.monotonic() + _GEVENT_PATIENCE
    while len(pool) and time.monotonic() < until:
        time.sleep(0.001)


def _grpc_is_running() -> bool:
    """Whether gRPC has threads, or may have: while some come or go, Linux may leave out others of its list."""
    threads = os.listdir(f"{_PROCESS}/task")  # noqa: PTH208
    try:
        if any(_read(f"task/{thread}/comm").startswith(_GRPC_THREADS) or _is_new(thread) for thread in threads):
            return True
        # Behind the name, which may have blanks, the 18th field counts the threads.
        count = int(_read("stat").rpartition(")")[2].split()[17])
    except (FileNotFoundError, ProcessLookupError):
        return True
    return len(threads) != count


def _is_new(thread: str) -> bool:
    """Whether a thread has not run yet: it still has the name of the one that made it."""
    try:
        return _read(f"task/{thread}/schedstat").startswith("0 ")
    except FileNotFoundError:
        # The system does not count that.
        return False


def _read(name: str) -> str:
    # A third of the time that a Path takes.
    with open(f"{_PROCESS}/{name}", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        return file.read()


gate = Gate()

os.register_at_fork(
    before=gate.before_fork,
    after_in_parent=gate.after_fork_in_parent,
    after_in_child=gate.after_fork_in_child,
)
