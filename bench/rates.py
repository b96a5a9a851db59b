"""How many calls, and how many queued tasks, are done in a second."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

from celery import group
from django_agent_runtime.types import NewTask

from bench.measurement import Contender, Measurement, compare_rate
from bench.sizes import Sizes
from bench.stand import VALUE, Stand, open_echo, open_runtime, open_stub

_TASK_SECONDS = 120.0


def measure_threads(stand: Stand, sizes: Sizes) -> list[Measurement]:
    """Measure calls a second from many threads of this process, each with keys of its own."""
    with ExitStack() as stack:
        echo = stack.enter_context(open_echo(stand))
        fsync = stack.enter_context(open_runtime(stand.fsync))
        weak = stack.enter_context(open_runtime(stand.os))
        bare = stack.enter_context(open_stub(stand))
        calls: list[tuple[str, str, Callable[[str], object]]] = [
            ("threads_echo", "gRPC echo", lambda _: echo.send_bytes()),
            ("threads_get_state", "get_state", fsync.get_state),
            ("threads_set_state", "set_state, durability fsync", lambda key: fsync.set_state(key, VALUE)),
            ("threads_set_state_os", "set_state, durability os", lambda key: weak.set_state(key, VALUE)),
            ("threads_stub", "SetState by the bare gRPC stub, durability fsync", bare.set_state),
            ("threads_execute_task", "execute_task, durability fsync", lambda _: fsync.execute_task("echo", VALUE)),
        ]
        if stand.peers:
            default, always = stand.peers.redis_default, stand.peers.redis_fsync
            calls += [
                ("threads_redis_set", "Redis SET", lambda key: default.set(key, json.dumps(VALUE))),
                (
                    "threads_redis_set_fsync",
                    "Redis SET, appendfsync always",
                    lambda key: always.set(key, json.dumps(VALUE)),
                ),
            ]
        return compare_rate(
            [
                Contender(name, label, partial(_calls_per_second, call, sizes.threads, sizes.thread_seconds))
                for name, label, call in calls
            ],
            rounds=sizes.thread_rounds,
        )


def _calls_per_second(call: Callable[[str], object], threads: int, seconds: float) -> float:
    start = threading.Barrier(threads + 1)
    counts = [0] * threads
    ends = [0.0] * threads

    def work(number: int) -> None:
        key = f"bench:thread:{number}"
        start.wait()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            call(key)
            counts[number] += 1
        ends[number] = time.perf_counter()

    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(work, number) for number in range(threads)]
        start.wait()
        begin = time.perf_counter()
        for future in futures:
            future.result()
    return sum(counts) / (max(ends) - begin)


def measure_queue(stand: Stand, sizes: Sizes) -> list[Measurement]:
    """Measure tasks a second from handing over the first of many until the result of the last is here.

    All of them are handed over before the first result is asked for. Both sides do both in two ways: one by one,
    from the same number of threads, and all at once, from one.
    """
    with ExitStack() as stack:
        client = stack.enter_context(open_runtime(stand.fsync))
        contenders = [
            Contender(
                "queue_runtime",
                "submit_task, wait_run; durability fsync",
                lambda: tasks_per_second(
                    lambda: client.submit_task("echo", VALUE),
                    lambda run: client.wait_run(run.run_id, timeout=_TASK_SECONDS).output,
                    sizes,
                ),
            ),
            Contender(
                "queue_runtime_batch",
                "submit_tasks, wait_runs; durability fsync",
                lambda: batch_per_second(
                    lambda: client.submit_tasks(NewTask("echo", VALUE) for _ in range(sizes.queued_tasks)),
                    lambda runs: [
                        run.output for run in client.wait_runs((run.run_id for run in runs), timeout=_TASK_SECONDS)
                    ],
                    sizes,
                ),
            ),
        ]
        if stand.peers:
            task = stand.peers.task
            contenders += [
                Contender(
                    "queue_celery",
                    "Celery delay(), get()",
                    lambda: tasks_per_second(
                        lambda: task.delay(VALUE), lambda result: result.get(timeout=_TASK_SECONDS), sizes
                    ),
                ),
                Contender(
                    "queue_celery_batch",
                    "Celery group(), get()",
                    lambda: batch_per_second(
                        lambda: group(task.s(VALUE) for _ in range(sizes.queued_tasks)).apply_async(),
                        lambda results: results.get(timeout=_TASK_SECONDS),
                        sizes,
                    ),
                ),
            ]
        return compare_rate(contenders, rounds=sizes.queue_rounds)


def tasks_per_second(submit: Callable[[], Any], collect: Callable[[Any], object], sizes: Sizes) -> float:
    """Each thread hands over its share and, once all have done so, collects the results of that share.

    A thread of its own for each share, because a Celery result belongs to the thread that asked for it.
    """
    handed_over = threading.Barrier(sizes.threads)

    def work(share: int) -> None:
        handles = [submit() for _ in range(share)]
        handed_over.wait()
        for handle in handles:
            assert collect(handle) == VALUE

    each, left_over = divmod(sizes.queued_tasks, sizes.threads)
    shares = [each + (number < left_over) for number in range(sizes.threads)]
    with ThreadPoolExecutor(sizes.threads) as pool:
        begin = time.perf_counter()
        for future in [pool.submit(work, share) for share in shares]:
            future.result()
        return sum(shares) / (time.perf_counter() - begin)


def batch_per_second(submit: Callable[[], Any], collect: Callable[[Any], list[Any]], sizes: Sizes) -> float:
    """All of them are handed over at once, and then collected."""
    begin = time.perf_counter()
    results = collect(submit())
    seconds = time.perf_counter() - begin
    assert results == [VALUE] * sizes.queued_tasks
    return sizes.queued_tasks / seconds
