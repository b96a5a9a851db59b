"""The bars: what the runtime promises of its speed, each as a ratio to something measured in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.growth import GrowthPoint
from bench.results import Results

_MIB = 1 << 20
# How far growth may be from linear before it counts: what the same process shows from one start to the next.
_LINEAR_TOLERANCE = 1.25


@dataclass(frozen=True, slots=True)
class Bar:
    """A promise and what was measured."""

    what: str
    bound: Literal["at most", "at least"]
    target: float
    unit: str
    """What target and measured are in: `× (echo + fsync)`, `events/s`."""
    rounds: tuple[float, ...]
    """The value in each round; empty if a peer that it takes is not on this machine."""

    @property
    def measured(self) -> float | None:
        """The median of the rounds."""
        return statistics.median(self.rounds) if self.rounds else None

    @property
    def met(self) -> bool | None:
        """Whether the promise was kept; None if it could not be measured."""
        if self.measured is None:
            return None
        return self.measured <= self.target if self.bound == "at most" else self.measured >= self.target

    @property
    def quartiles(self) -> tuple[float, float] | None:
        """Between which values the middle half of the rounds lies; None with fewer than two rounds."""
        if len(self.rounds) < 2:  # noqa: PLR2004 - what quantiles take
            return None
        low, _, high = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return low, high


def judge(results: Results) -> list[Bar]:
    """Hold a run against every bar."""

    def compare(function: Callable[..., float], *names: str) -> tuple[float, ...]:
        """The function of the named contenders' medians, round by round."""
        found = [results.find(name) for name in names]
        columns = [measurement.medians for measurement in found if measurement is not None]
        return tuple(function(*row) for row in zip(*columns, strict=True)) if len(columns) == len(names) else ()

    def over(value: float, floor: float) -> float:
        return value / floor

    def over_sum(value: float, echo: float, fsync: float) -> float:
        return value / (echo + fsync)

    bars = []
    for transport, label in (("tcp", "TCP"), ("unix", "Unix socket")):
        echo = f"echo/{transport}"
        bars += [
            Bar(f"get_state p50, {label}", "at most", 1.3, "× echo", compare(over, f"get_state/{transport}", echo)),
            Bar(
                f"set_state p50, durability os, {label}",
                "at most",
                1.5,
                "× echo",
                compare(over, f"set_state_os/{transport}", echo),
            ),
            Bar(
                f"set_state p50, durability fsync, {label}",
                "at most",
                1.5,
                "× (echo + fsync)",
                compare(over_sum, f"set_state_fsync/{transport}", echo, "fsync"),
            ),
            Bar(
                f"execute_task p50, durability fsync, {label}",
                "at most",
                2.0,
                "× (echo + fsync)",
                compare(over_sum, f"execute_task/{transport}", echo, "fsync"),
            ),
            Bar(
                f"publish_event → callback p50, durability os, {label}",
                "at most",
                3.0,
                "× echo",
                compare(over, f"publish_callback/{transport}", echo),
            ),
        ]
    threads = results.sizes.threads
    queued = results.sizes.queued_tasks
    return [
        *bars,
        Bar(
            f"set_state, durability fsync, {threads} threads",
            "at least",
            0.8,
            "× calls/s of echo",
            compare(over, "threads_set_state", "threads_echo"),
        ),
        Bar(
            "Celery delay().get() p50",
            "at least",
            2.0,
            "× execute_task, TCP",
            compare(over, "celery", "execute_task/tcp"),
        ),
        Bar(
            f"tasks/s with {queued:,} queued",
            "at least",
            6.0,
            "× Celery",
            compare(over, "queue_runtime", "queue_celery"),
        ),
        Bar("into one subscriber", "at least", 15_000, "events/s", compare(float, "subscriber")),
        Bar("publish_events", "at least", 20_000, "events/s", compare(float, "publish_events")),
        Bar("idle runtime", "at most", 60, "MiB resident", (results.idle_bytes / _MIB,)),
        *_growth_bars(results.growth),
    ]


def _growth_bars(points: Sequence[GrowthPoint]) -> list[Bar]:
    """Linear means: a record of the second half costs no more than one of the first."""

    def steepening(value: Callable[[GrowthPoint], float]) -> tuple[float, ...]:
        start, end = points[0], points[-1]
        middle = min(points[1:-1], key=lambda point: abs(point.records - end.records / 2))
        before = (value(middle) - value(start)) / (middle.records - start.records)
        after = (value(end) - value(middle)) / (end.records - middle.records)
        return (max(after, 0.0) / max(before, 1e-12),)

    curves: tuple[tuple[str, Callable[[GrowthPoint], float]], ...] = (
        ("memory when filled", lambda point: point.loaded_bytes),
        ("memory after a restart", lambda point: point.restarted_bytes),
        ("time to start", lambda point: point.start_seconds),
    )
    end = points[-1]
    return [
        *(
            Bar(f"{name}, per record", "at most", _LINEAR_TOLERANCE, "× that of the first half", steepening(value))
            for name, value in curves
        ),
        Bar(
            f"get_state p50 with {end.records:,} keys",
            "at most",
            _LINEAR_TOLERANCE,
            "× that of an empty store",
            (
                (end.get_microseconds / end.echo_microseconds)
                / (points[0].get_microseconds / points[0].echo_microseconds),
            ),
        ),
    ]
