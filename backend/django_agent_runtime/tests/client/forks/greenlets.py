"""Forks under gevent while greenlets are in the client, whose copies go on in the child.

    python greenlets.py FORKS

One callback waits, one calls without a pause, one is killed by the child, and a greenlet iterates over a stream.
Each child calls, then has the copies of all four end. Every other fork is one that gevent does not see, as after
`from os import fork` before it patched. One line of JSON at the end: what each child reported.
"""

# ruff: noqa: E402 - gevent patches first

from __future__ import annotations

from os import fork

from gevent import monkey

monkey.patch_all()

import json
import os
import sys
import traceback
from typing import Any

import gevent
from gevent.event import Event as Flag

from django_agent_runtime.exceptions import ClientClosed
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.types import Event

SECONDS = 20.0
EVENT_TYPE = "greenlets"

client = GoRuntimeIntegration(
    host=os.environ["GO_RUNTIME_HOST"], port=int(os.environ["GO_RUNTIME_PORT"]), timeout=SECONDS, namespace="greenlets"
)
go = Flag()
begun = {name: Flag() for name in ("wait", "call", "kill", "iterate")}
ended = {name: Flag() for name in begun}
doomed: list[Any] = []


def wait(_event: Event) -> None:
    begun["wait"].set()
    go.wait()
    client.set_state("waited", os.getpid())
    ended["wait"].set()


def call(_event: Event) -> None:
    while not go.is_set():
        client.get_state("called")
        begun["call"].set()
    ended["call"].set()


def be_killed(_event: Event) -> None:
    doomed.append(gevent.getcurrent())
    begun["kill"].set()
    try:
        go.wait()
    finally:
        ended["kill"].set()


def iterate() -> None:
    with client.stream_events("none") as events:
        begun["iterate"].set()
        try:
            next(events)
        except (ClientClosed, StopIteration):
            ended["iterate"].set()


def be_child(number: int) -> None:
    assert client.stats["subscriptions"] == 0
    client.set_state("child", number)
    got = Flag()
    client.subscribe_to_events(f"child.{number}", lambda _event: got.set())
    client.publish_event(f"child.{number}", number)
    assert got.wait(SECONDS), "a subscription of the child saw nothing"
    with gevent.Timeout(SECONDS / 10):
        # The worker would wait ten seconds for other work before it ends by itself.
        doomed[0].kill()
    go.set()
    for name, flag in ended.items():
        assert flag.wait(SECONDS), f"the copy of what was to {name} hangs"


def fork_once(number: int) -> str:
    read_end, write_end = os.pipe()
    pid = os.fork() if number % 2 else fork()
    if pid == 0:
        report = "fine"
        try:
            be_child(number)
        except BaseException:  # noqa: BLE001 - reported to the parent
            report = traceback.format_exc()
        finally:
            os.write(write_end, report.encode())
            os._exit(0)
    # Blocks every greenlet of the parent: the child must not need any of them. Not until the end of the file, which
    # would not come: gevent's os.close leaves the closing to its loop, which is blocked.
    report = os.read(read_end, 65536).decode()
    os.waitpid(pid, 0)
    os.close(read_end)
    os.close(write_end)
    return report


def main() -> None:
    for callback in (wait, call, be_killed):
        client.subscribe_to_events(EVENT_TYPE, callback)
    iterating = gevent.spawn(iterate)
    client.publish_event(EVENT_TYPE, 1)
    for flag in begun.values():
        assert flag.wait(SECONDS)
    reports = [fork_once(number) for number in range(int(sys.argv[1]))]
    go.set()
    for name in ("wait", "call", "kill"):
        assert ended[name].wait(SECONDS), f"what was to {name} in the parent hangs"
    client.disconnect()
    iterating.get()
    sys.stdout.write(json.dumps(reports) + "\n")


if __name__ == "__main__":
    main()
