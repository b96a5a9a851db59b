"""A `multiprocessing` pool of forked processes, each for one call, while the parent holds a subscription.

Prints one line of JSON: what the children returned, and how many events the parent saw.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading

from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.types import Event

client = GoRuntimeIntegration(
    host=os.environ["GO_RUNTIME_HOST"], port=int(os.environ["GO_RUNTIME_PORT"]), namespace="multiprocessing"
)


def work(number: int) -> int:
    client.set_state(f"child/{number}", number)
    client.publish_event("work", number)
    result: int = client.get_state(f"child/{number}")
    return result


def main() -> None:
    count = int(sys.argv[1])
    seen: list[int] = []
    complete = threading.Event()

    def see(event: Event) -> None:
        seen.append(event.data)
        if len(seen) == count:
            complete.set()

    client.subscribe_to_events("work", see)
    with multiprocessing.get_context("fork").Pool(4, maxtasksperchild=1) as pool:
        results = pool.map(work, range(count), chunksize=1)
    complete.wait(60)
    sys.stdout.write(json.dumps({"results": results, "seen": sorted(seen)}) + "\n")


if __name__ == "__main__":
    main()
