"""What is measured, and how contenders take turns at it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of doing something, measured against the others of its comparison."""

    name: str
    """Unique in a run, such as `get_state/tcp`."""
    label: str
    """For people."""
    measure: Callable[[], float]
    """Does it once: the seconds a call took, or the number done in a second."""
    slow: bool = False
    """Whether one call takes several milliseconds, so that fewer are made."""


@dataclass(slots=True)
class Measurement:
    """What one contender showed: for each round, each of its values.

    Latencies are in microseconds, rates in whatever it is a second.
    """

    name: str
    label: str
    rounds: list[list[float]] = field(default_factory=list)

    @property
    def medians(self) -> list[float]:
        """The median of each round: what ratios are made of, round by round."""
        return [statistics.median(values) for values in self.rounds]

    @property
    def median(self) -> float:
        """The median of the rounds' medians."""
        return statistics.median(self.medians)

    @property
    def spread(self) -> tuple[float, float]:
        """Between which values the middle nine tenths of the rounds' medians lie; of few rounds, all of them."""
        return rank(self.medians, 5), rank(self.medians, 95)

    def percentile(self, percent: float) -> float:
        """A percentile over the values of all rounds."""
        return rank([value for values in self.rounds for value in values], percent)


def rank(values: Sequence[float], percent: float) -> float:
    """The value that is greater than so many percent of the values."""
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def timed(call: Callable[[], object]) -> Callable[[], float]:
    """Measure a call by the seconds until it returns."""

    def measure() -> float:
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin

    return measure


def compare_latency(
    contenders: Sequence[Contender], *, rounds: int, calls: int, slow_calls: int, warmup_calls: int
) -> list[Measurement]:
    """Let the contenders take turns, a batch of calls each, so that what disturbs the machine hits all alike."""
    for contender in contenders:
        for _ in range(warmup_calls if not contender.slow else min(warmup_calls, slow_calls)):
            contender.measure()

    def turn(contender: Contender) -> list[float]:
        return [contender.measure() * 1e6 for _ in range(slow_calls if contender.slow else calls)]

    return _take_turns(contenders, rounds, turn)


def compare_rate(contenders: Sequence[Contender], *, rounds: int) -> list[Measurement]:
    """Let the contenders take turns, one value each, after one turn each that does not count."""
    for contender in contenders:
        contender.measure()
    return _take_turns(contenders, rounds, lambda contender: [contender.measure()])


def _take_turns(
    contenders: Sequence[Contender], rounds: int, turn: Callable[[Contender], list[float]]
) -> list[Measurement]:
    measurements = {contender.name: Measurement(contender.name, contender.label) for contender in contenders}
    for number in range(rounds):
        # Each round begins with another one, so that nobody always follows the same neighbour.
        first = number % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            measurements[contender.name].rounds.append(turn(contender))
    return list(measurements.values())
