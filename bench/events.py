"""How many events a second go into and out of one Python process."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import redis
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.types import Event, NewEvent

from bench.measurement import Contender, Measurement, compare_rate
from bench.sizes import Sizes
from bench.stand import VALUE, Stand, open_runtime

_BATCH = 1000
_DELIVERY_SECONDS = 120.0
_READ = "bench.read"
_WRITTEN = "bench.written"


def measure_events(stand: Stand, sizes: Sizes) -> list[Measurement]:
    """Measure publishing in batches from one thread, and one subscriber that reads as many events back."""
    with ExitStack() as stack:
        client = stack.enter_context(open_runtime(stand.fsync))
        first = client.publish_events(_new_events(_READ, sizes.events))[0].sequence
        contenders = [
            Contender(
                "publish_events",
                f"publish_events, batches of {_BATCH}, durability fsync",
                lambda: _rate(sizes.events, lambda: client.publish_events(_new_events(_WRITTEN, sizes.events))),
            ),
            Contender(
                "subscriber",
                "subscribe_to_events, one callback",
                lambda: _rate(sizes.events, lambda: _read_events(client, first, sizes.events)),
            ),
        ]
        if stand.peers:
            store = stand.peers.redis_default
            _add_to_redis(store, _READ, sizes.events)
            contenders += [
                Contender(
                    "redis_xadd",
                    f"Redis XADD, pipelines of {_BATCH}",
                    lambda: _rate(sizes.events, lambda: _add_to_redis(store, _WRITTEN, sizes.events)),
                ),
                Contender(
                    "redis_xread",
                    f"Redis XREAD, COUNT {_BATCH}",
                    lambda: _rate(sizes.events, lambda: _read_from_redis(store, sizes.events)),
                ),
            ]
        return compare_rate(contenders, rounds=sizes.event_rounds)


def _rate(count: int, work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return count / (time.perf_counter() - begin)


def _new_events(event_type: str, count: int) -> list[NewEvent]:
    return [NewEvent(event_type, VALUE, "bench") for _ in range(count)]


def _read_events(client: GoRuntimeIntegration, first: int, count: int) -> None:
    """Subscribe from a sequence and return when the callback has had `count` events."""
    seen = 0
    finished = threading.Event()

    def receive(event: Event) -> None:
        nonlocal seen
        assert event.data["active"]
        seen += 1
        if seen == count:
            finished.set()

    subscription_id = client.subscribe_to_events(_READ, receive, from_sequence=first)
    assert finished.wait(_DELIVERY_SECONDS)
    client.unsubscribe_from_events(subscription_id)
    assert seen == count


def _add_to_redis(store: redis.Redis, stream: str, count: int) -> None:
    for begin in range(0, count, _BATCH):
        with store.pipeline(transaction=False) as pipeline:
            for _ in range(min(_BATCH, count - begin)):
                pipeline.xadd(stream, {"source": "bench", "data": json.dumps(VALUE)})
            pipeline.execute()


def _read_from_redis(store: redis.Redis, count: int) -> None:
    position: Any = "0"
    seen = 0
    while seen < count:
        answer: Any = store.xread({_READ: position}, count=_BATCH)
        ((_, entries),) = answer
        for entry_id, fields in entries:
            assert json.loads(fields[b"data"])["active"]
            position = entry_id
        seen += len(entries)
    assert seen == count
