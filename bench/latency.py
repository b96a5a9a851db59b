"""How long one call takes: every kind of call against its floor and its peers, in turns."""

from __future__ import annotations

import json
import os
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import redis
from django_agent_runtime.go_integration import GoRuntimeIntegration

from bench.measurement import Contender, Measurement, compare_latency, timed
from bench.sizes import Sizes
from bench.stand import PAYLOAD, VALUE, Peers, Stand, open_echo, open_runtime

_KEY = "bench:preferences"
_EVENT_TYPE = "bench.latency"
_DELIVERY_SECONDS = 10.0


def measure_latency(stand: Stand, sizes: Sizes) -> list[Measurement]:
    """Measure every call from one thread, over TCP and over the Unix socket."""
    with ExitStack() as stack:
        contenders = [Contender("fsync", "append 256 bytes and fsync", stack.enter_context(_open_fsync(stand.folder)))]
        for transport, label in (("tcp", "TCP"), ("unix", "Unix socket")):
            over_socket = transport == "unix"
            echo = stack.enter_context(open_echo(stand, over_socket=over_socket))
            fsync = stack.enter_context(open_runtime(stand.fsync, over_socket=over_socket))
            weak = stack.enter_context(open_runtime(stand.os, over_socket=over_socket))
            fsync.set_state(_KEY, VALUE)
            calls: list[tuple[str, str, Callable[[], object]]] = [
                ("echo", "gRPC echo, bytes", echo.send_bytes),
                ("echo_json", "gRPC echo, value as JSON bytes", echo.send_json),
                ("echo_struct", "gRPC echo, value as Struct", echo.send_struct),
                ("get_state", "get_state", partial(fsync.get_state, _KEY)),
                ("set_state_os", "set_state, durability os", partial(weak.set_state, _KEY, VALUE)),
                ("set_state_fsync", "set_state, durability fsync", partial(fsync.set_state, _KEY, VALUE)),
                ("execute_task", "execute_task, durability fsync", partial(fsync.execute_task, "echo", VALUE)),
            ]
            contenders += [
                Contender(f"{name}/{transport}", f"{text}, {label}", timed(call)) for name, text, call in calls
            ]
            delivery = stack.enter_context(_open_delivery(weak))
            text = f"publish_event → callback, durability os, {label}"
            contenders.append(Contender(f"publish_callback/{transport}", text, delivery))
        if stand.peers:
            contenders += _peer_contenders(stack, stand.peers)
        return compare_latency(
            contenders,
            rounds=sizes.rounds,
            calls=sizes.calls,
            slow_calls=sizes.slow_calls,
            warmup_calls=sizes.warmup_calls,
        )


def _peer_contenders(stack: ExitStack, peers: Peers) -> list[Contender]:
    def get_redis() -> Any:
        value = peers.redis_default.get(_KEY)
        assert isinstance(value, bytes)
        return json.loads(value)

    def set_in(client: redis.Redis) -> Callable[[], object]:
        return lambda: client.set(_KEY, json.dumps(VALUE))

    set_in(peers.redis_default)()
    return [
        Contender("redis_get", "Redis GET", timed(get_redis)),
        Contender("redis_set", "Redis SET", timed(set_in(peers.redis_default))),
        Contender("redis_set_fsync", "Redis SET, appendfsync always", timed(set_in(peers.redis_fsync))),
        Contender(
            "redis_pubsub", "Redis PUBLISH → callback", stack.enter_context(_open_redis_delivery(peers.redis_default))
        ),
        Contender("celery", "Celery delay().get()", timed(lambda: peers.task.delay(VALUE).get()), slow=True),
    ]


@contextmanager
def _open_fsync(folder: Path) -> Iterator[Callable[[], float]]:
    """What this disk takes to keep a record: the part of a durable write that no software can save."""
    descriptor = os.open(folder / "fsync-probe", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def keep() -> None:
        os.write(descriptor, PAYLOAD)
        os.fsync(descriptor)

    try:
        yield timed(keep)
    finally:
        os.close(descriptor)


class _Delivery:
    """Measures from the moment of publishing to the moment the callback is called."""

    def __init__(self, publish: Callable[[], object]) -> None:
        self._publish = publish
        self._arrivals: queue.SimpleQueue[float] = queue.SimpleQueue()

    def receive(self, _: object) -> None:
        """The callback."""
        self._arrivals.put(time.perf_counter())

    def __call__(self) -> float:
        begin = time.perf_counter()
        self._publish()
        return self._arrivals.get(timeout=_DELIVERY_SECONDS) - begin


@contextmanager
def _open_delivery(client: GoRuntimeIntegration) -> Iterator[Callable[[], float]]:
    event_type = f"{_EVENT_TYPE}.{id(client)}"
    delivery = _Delivery(lambda: client.publish_event(event_type, VALUE))
    subscription_id = client.subscribe_to_events(event_type, delivery.receive)
    yield delivery
    client.unsubscribe_from_events(subscription_id)


@contextmanager
def _open_redis_delivery(client: redis.Redis) -> Iterator[Callable[[], float]]:
    delivery = _Delivery(lambda: client.publish(_EVENT_TYPE, json.dumps(VALUE)))
    subscriber = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call] # redis-py's own gap
    subscriber.subscribe(**{_EVENT_TYPE: lambda message: delivery.receive(json.loads(message["data"]))})
    thread = subscriber.run_in_thread(sleep_time=_DELIVERY_SECONDS, daemon=True)
    yield delivery
    thread.stop()
    client.publish(_EVENT_TYPE, "null")
    thread.join()
    subscriber.close()
