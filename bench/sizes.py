"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """The dimensions of a run."""

    rounds: int
    """How often the contenders of a comparison take turns."""
    calls: int
    """Calls a contender makes in its turn, where latency is measured."""
    slow_calls: int
    """The same for contenders that take several milliseconds."""
    warmup_calls: int
    """Calls each contender makes before the first round."""
    threads: int
    thread_rounds: int
    thread_seconds: float
    """How long a turn is, where the throughput of threads is measured."""
    queue_rounds: int
    queued_tasks: int
    event_rounds: int
    events: int
    """Events published, and read, in a turn."""
    growth: tuple[int, ...]
    """Numbers of state keys, and as many events, at which the runtime is looked at; rising from 0."""
    growth_calls: int
    """Reads of random keys at each of them."""


FULL = Sizes(
    rounds=150,
    calls=25,
    slow_calls=4,
    warmup_calls=200,
    threads=32,
    thread_rounds=25,
    thread_seconds=0.5,
    queue_rounds=3,
    queued_tasks=2000,
    event_rounds=5,
    events=30_000,
    growth=(0, 100_000, 250_000, 500_000, 1_000_000),
    growth_calls=1000,
)

QUICK = Sizes(
    rounds=3,
    calls=20,
    slow_calls=5,
    warmup_calls=5,
    threads=8,
    thread_rounds=2,
    thread_seconds=0.2,
    queue_rounds=1,
    queued_tasks=50,
    event_rounds=2,
    events=2000,
    growth=(0, 500, 1000, 2000),
    growth_calls=50,
)
