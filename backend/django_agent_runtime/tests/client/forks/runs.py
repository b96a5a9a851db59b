"""Forks while the parent watches a run and follows all of them.

Prints one line of JSON: what the children found, and the sequences that the parent saw, with those there are.
"""

from __future__ import annotations

import json
import os
import sys
import threading

from django_agent_runtime.exceptions import ClientClosed
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.types import RunEvent

client = GoRuntimeIntegration(
    host=os.environ["GO_RUNTIME_HOST"], port=int(os.environ["GO_RUNTIME_PORT"]), namespace="forked-runs"
)


def main() -> None:
    count = int(sys.argv[1])
    watched_run = client.create_run("nobody", target="worker")
    watching, following = client.watch_run(watched_run.run_id), client.follow_runs()
    watched = [next(watching).sequence]
    followed: list[RunEvent] = []
    complete = threading.Event()

    def follow() -> None:
        for batch in following:
            followed.extend(batch.events)
            # The run that is watched, and one of each child.
            if sum(event.ends_run for event in followed) == count + 1:
                complete.set()

    threading.Thread(target=follow, daemon=True).start()
    exits = []
    for number in range(count):
        child = os.fork()
        if not child:
            os._exit(work(number, watching))
        exits.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    client.cancel_run(watched_run.run_id)
    watched.extend(event.sequence for event in watching)
    complete.wait(60)
    of_run = [event.sequence for event in followed if event.run_id == watched_run.run_id]
    runs = len({event.run_id for event in followed})
    report = {"exits": exits, "watched": watched, "followed": of_run, "runs": runs, "events": len(followed)}
    report["different"] = len({event.sequence for event in followed})
    sys.stdout.write(json.dumps(report) + "\n")


def work(number: int, watching: object) -> int:
    """What a child does: its parent's streams are over, and a run and a stream of its own work."""
    try:
        next(watching)  # type: ignore[call-overload]
    except ClientClosed:
        run = client.submit_task("echo", {"n": number})
        *_, last = client.watch_run(run.run_id)
        return 0 if last.payload == {"output": {"n": number}} else 1
    return 2


if __name__ == "__main__":
    main()
