"""Forks a process that uses the client in every way at once, and counts what went wrong.

    python torture.py HOST PORT FORKS [--gevent]

The parent holds a subscription while threads call and publish without a pause; children call before anything else,
from several threads, and through asyncio. One line of JSON at the end: forks, failures (a sentence each), and how
many events were published and seen. A call that takes longer than its timeout is a failure.
"""

from __future__ import annotations

import sys

if "--gevent" in sys.argv:
    from gevent import monkey

    monkey.patch_all()

import asyncio
import itertools
import json
import os
import threading
import time
import traceback

from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.types import Event, NewTask

CALL_SECONDS = 20.0
CHILD_SECONDS = 60.0
CALLERS = 4
CHILD_CALLERS = 2


class Torture:
    """One parent with its threads, its subscription and its children."""

    def __init__(self, host: str, port: int, forks: int) -> None:
        self.client = GoRuntimeIntegration(host=host, port=port, timeout=CALL_SECONDS)
        self.event_type = f"torture.{os.getpid()}"
        self.forks = forks
        self.failures: list[str] = []
        self.published = 0
        self.last: int | None = None
        self.seen: list[int] = []
        self.sequences: list[int] = []
        self.all_seen = threading.Event()
        self.stop = threading.Event()
        self.calls = 0

    def run(self) -> None:
        """Fork, and wait for every child; then for every event."""
        self.client.subscribe_to_events(self.event_type, self.see)
        callers = [threading.Thread(target=self.keep_calling, args=(number,)) for number in range(CALLERS)]
        others = [threading.Thread(target=work) for work in (self.keep_publishing, self.keep_handing_over)]
        for thread in (*callers, *others):
            thread.start()
        for number in range(self.forks):
            self.fork_once(number)
        self.stop.set()
        for thread in (*callers, *others):
            thread.join(CALL_SECONDS * 2)
            if thread.is_alive():
                self.failures.append("a thread of the parent hangs")
        # Known only now: an event may be seen before its publisher has counted it.
        self.last = self.published
        self.client.publish_event(self.event_type, self.last)
        if not self.all_seen.wait(CALL_SECONDS):
            self.failures.append("the subscription did not see the last event")
        expected = list(range(self.last + 1))
        if self.seen != expected:
            with self.client.stream_events(self.event_type, from_beginning=True) as events:
                kept = [event.data for event in itertools.takewhile(lambda event: event.data != self.last, events)]
            missing = sorted(set(expected) - set(self.seen))
            self.failures.append(
                f"seen {len(self.seen)} events of {len(expected)}, {len(set(self.sequences))} of them different; the "
                f"runtime kept {len(kept) + 1}; not seen: {missing[:10]}; "
                f"in order: {self.sequences == sorted(self.sequences)}"
            )

    def see(self, event: Event) -> None:
        """The subscription's callback."""
        number: int = event.data
        self.seen.append(number)
        self.sequences.append(event.sequence)
        if number == self.last:
            self.all_seen.set()

    def keep_calling(self, number: int) -> None:
        """Write and read one key until told to stop."""
        key = f"torture/{os.getpid()}/{number}"
        turn = 0
        while not self.stop.is_set():
            turn += 1
            try:
                self.client.set_state(key, turn)
                found = self.client.get_state(key)
                if found != turn:
                    self.failures.append(f"{key} is {found}, not {turn}")
            except Exception as error:  # noqa: BLE001 - every failure counts
                self.failures.append(f"parent call: {error!r}")
            self.calls += 2

    def keep_handing_over(self) -> None:
        """Hand over some tasks at once and collect them, until told to stop."""
        while not self.stop.is_set():
            try:
                runs = self.client.submit_tasks(NewTask("echo", {"n": number}) for number in range(5))
                ended = self.client.wait_runs(run.run_id for run in runs)
                if [run.output for run in ended] != [{"n": number} for number in range(5)]:
                    self.failures.append(f"tasks ended as {ended}")
            except Exception as error:  # noqa: BLE001 - every failure counts
                self.failures.append(f"parent tasks: {error!r}")
            self.calls += 2

    def keep_publishing(self) -> None:
        """Publish a rising number until told to stop."""
        while not self.stop.is_set():
            try:
                self.client.publish_event(self.event_type, self.published)
                self.published += 1
            except Exception as error:  # noqa: BLE001 - every failure counts
                self.failures.append(f"parent publish: {error!r}")
                return

    def fork_once(self, number: int) -> None:
        """Fork one child, use the client at once in both processes, and see the child end well."""
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            status = 1
            try:
                self.be_child(number)
                status = 0
            except BaseException:  # noqa: BLE001 - reported to the parent
                os.write(write_end, traceback.format_exc()[-2000:].encode())
            finally:
                os._exit(status)
        os.close(write_end)
        try:
            self.client.get_state("torture/parent")
        except Exception as error:  # noqa: BLE001 - every failure counts
            self.failures.append(f"parent after fork {number}: {error!r}")
        self.wait_for_child(pid, number, read_end)

    def wait_for_child(self, pid: int, number: int, read_end: int) -> None:
        """Collect a child; one that hangs is killed and counted."""
        deadline = time.monotonic() + CHILD_SECONDS
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            if time.monotonic() > deadline:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                self.failures.append(f"child {number} hangs")
                break
            time.sleep(0.001)
        with os.fdopen(read_end) as report:
            text = report.read()
        if text or (done and status):
            self.failures.append(f"child {number} ended with {status}: {text}")

    def be_child(self, number: int) -> None:
        """What a forked worker does: call, from several threads, and through asyncio."""
        # gevent's threads are copied by a fork: those of the parent must not go on with its work here.
        self.stop.set()
        assert self.client.stats["subscriptions"] == 0
        key = f"torture/child/{os.getpid()}"
        self.client.set_state(key, number)
        assert self.client.get_state(key) == number
        wrong: list[BaseException] = []

        def call() -> None:
            try:
                assert self.client.get_state(key) == number
            except BaseException as error:  # noqa: BLE001 - raised below
                wrong.append(error)

        threads = [threading.Thread(target=call) for _ in range(CHILD_CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if "--gevent" not in sys.argv:
            assert asyncio.run(self.client.aget_state(key)) == number
        if number % 10 == 0:
            got = threading.Event()
            self.client.subscribe_to_events(key, lambda _event: got.set())
            self.client.publish_event(key, number)
            assert got.wait(CALL_SECONDS), "a subscription of the child saw nothing"
        self.client.delete_state(key)
        if wrong:
            raise wrong[0]


def main() -> int:
    """Run as the module says; the exit status is 0 if nothing went wrong."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--gevent"]
    torture = Torture(arguments[0], int(arguments[1]), int(arguments[2]))
    start = time.monotonic()
    torture.run()
    report = {
        "forks": torture.forks,
        "calls": torture.calls,
        "events": len(torture.seen),
        "failures": torture.failures[:20],
        "seconds": round(time.monotonic() - start, 1),
    }
    sys.stdout.write(json.dumps(report) + "\n")
    return 1 if torture.failures else 0


if __name__ == "__main__":
    sys.exit(main())
