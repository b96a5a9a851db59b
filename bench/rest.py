"""What a request costs that has a run accepted, beside one that only inserts a row."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

from bench.api import Api
from bench.measurement import Contender, Measurement, compare_latency, compare_rate, timed
from bench.project import WEB_SERVERS, Project, start_web
from bench.site.agents import ECHO
from bench.sizes import Sizes
from bench.stand import VALUE

_REQUESTS: tuple[tuple[str, str, str, dict[str, object]], ...] = (
    ("run", "POST /runs/", "/api/agents/runs/", {"agent_key": ECHO, "messages": [], "params": VALUE}),
    ("row", "POST of a row", "/row/", {"agent_key": ECHO, "title": "bench", "metadata": VALUE}),
)


def measure_rest(project: Project, sizes: Sizes) -> tuple[list[Measurement], list[Measurement]]:
    """Measure both on each kind of server, with no worker there: microseconds of a request, and requests a second."""
    with ExitStack() as stack:
        single: list[Contender] = []
        many: list[Contender] = []
        for server in WEB_SERVERS:
            _, port = stack.enter_context(start_web(project, server))
            for kind, label, path, body in _REQUESTS:
                api = Api(port, project.token)
                stack.callback(api.close)
                text = f"{label}, {server}"
                single.append(Contender(f"rest_{kind}/{server}", text, timed(partial(api.post, path, body)), slow=True))
                rate = partial(_requests_per_second, project, port, path, body, sizes)
                many.append(Contender(f"rest_rate_{kind}/{server}", text, rate))
        latency = compare_latency(
            single, rounds=sizes.rest_rounds, calls=0, slow_calls=sizes.rest_calls, warmup_calls=sizes.warmup_calls
        )
        return latency, compare_rate(many, rounds=sizes.rest_rate_rounds)


def _requests_per_second(project: Project, port: int, path: str, body: object, sizes: Sizes) -> float:
    """From a few threads, each with a connection of its own."""
    start = threading.Barrier(sizes.rest_threads + 1)

    def work() -> tuple[int, float]:
        api = Api(port, project.token)
        api.post(path, body)
        start.wait()
        until = time.perf_counter() + sizes.rest_seconds
        count = 0
        while time.perf_counter() < until:
            api.post(path, body)
            count += 1
        end = time.perf_counter()
        api.close()
        return count, end

    with ThreadPoolExecutor(sizes.rest_threads) as pool:
        futures = [pool.submit(work) for _ in range(sizes.rest_threads)]
        start.wait()
        begin = time.perf_counter()
        done = [future.result() for future in futures]
    return sum(count for count, _ in done) / (max(end for _, end in done) - begin)
