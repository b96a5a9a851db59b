"""Everything a run measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from bench.backlog import BacklogPoint
from bench.graphs import GraphFigures
from bench.growth import GrowthPoint
from bench.machine import Machine
from bench.measurement import Measurement
from bench.runs import RunFigures
from bench.sizes import Sizes
from bench.tokens import LoadPoint, ReadersPoint


@dataclass(frozen=True, slots=True)
class Results:
    """The figures of one run, with what they were measured on."""

    machine: Machine
    sizes: Sizes
    idle_bytes: int
    """Resident memory of a runtime that has started and done nothing yet."""
    latency: list[Measurement]
    """Microseconds a call."""
    threads: list[Measurement]
    """Calls a second, from several threads."""
    queue: list[Measurement]
    """Tasks a second."""
    events: list[Measurement]
    """Events a second."""
    growth: list[GrowthPoint]
    runs: RunFigures
    first_token: list[Measurement]
    """Microseconds from emitting a token to having its bytes."""
    load: list[LoadPoint]
    """The last one is the rate that was to be held for the whole time."""
    readers: list[ReadersPoint]
    backlog: list[BacklogPoint]
    database: str
    """Which one keeps the rows of the measured site."""
    rest_latency: list[Measurement]
    """Microseconds a request."""
    rest_rate: list[Measurement]
    """Requests a second."""
    graphs: GraphFigures

    def find(self, name: str) -> Measurement | None:
        """The measurement of a contender; None if it did not take part, as peers that this machine does not have."""
        everything = (
            *(*self.latency, *self.threads, *self.queue, *self.events),
            *(*self.runs.latency, *self.runs.queue, *self.first_token, *self.rest_latency, *self.rest_rate),
            *(*self.graphs.nodes, *self.graphs.fan_out),
        )
        return next((measurement for measurement in everything if measurement.name == name), None)

    def over(self, name: str, *floors: str) -> tuple[float, ...]:
        """A contender's median over the sum of those of its floors, round by round; with none, the median itself.

        Empty if one of them did not take part.
        """
        found = [self.find(each) for each in (name, *floors)]
        columns = [measurement.medians for measurement in found if measurement is not None]
        if len(columns) < len(found):
            return ()
        return tuple(value / (sum(below) or 1.0) for value, *below in zip(*columns, strict=True))

    def as_dict(self) -> dict[str, object]:
        """For JSON, with every single value."""
        return asdict(self)
