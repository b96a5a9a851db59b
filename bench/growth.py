"""What a million state keys and a million events do to memory, start and reads."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from django_agent_runtime.go_integration import GoRuntimeIntegration

from bench.measurement import Contender, compare_latency, timed
from bench.servers import Runtime, build, start_runtime
from bench.sizes import Sizes
from bench.stand import EchoClient, Stand, open_runtime

_NAME = "growth"
_ROUNDS = 5
_STARTS = 3
# Any odd number that shares no factor with the sizes: its multiples visit the keys out of order.
_STRIDE = 7919


@dataclass(frozen=True, slots=True)
class GrowthPoint:
    """The runtime with some number of state keys and as many events."""

    records: int
    """Keys; there are as many events."""
    loaded_bytes: int
    """Resident memory after it was filled."""
    restarted_bytes: int
    """Resident memory after a restart."""
    start_seconds: float
    """From its start until /readyz answered 200, the median of a few."""
    get_microseconds: float
    """Median of get_state of keys all over the store, after the restart."""
    echo_microseconds: float
    """Median of the floor, measured in turns with it."""

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def measure_growth(stand: Stand, sockets: Path, sizes: Sizes, say: Callable[[str], None]) -> list[GrowthPoint]:
    """Fill a runtime of its own step by step, and look at it at each size before and after a restart."""
    loader = build("loader", stand.folder)
    points: list[GrowthPoint] = []
    held = 0
    for records in sizes.growth:
        say(f"growth: {records:,} keys and events")
        with start_runtime(stand.folder, sockets, durability="fsync", name=_NAME) as runtime:
            _load(loader, runtime, first=held, count=records - held)
            loaded_bytes = runtime.child.resident_bytes()
        held = records
        start_seconds = statistics.median(_start(stand, sockets) for _ in range(_STARTS))
        with start_runtime(stand.folder, sockets, durability="fsync", name=_NAME) as runtime:
            restarted_bytes = runtime.child.resident_bytes()
            get, echo = _read(stand, runtime, records, sizes)
        points.append(GrowthPoint(records, loaded_bytes, restarted_bytes, start_seconds, get, echo))
    return points


def _start(stand: Stand, sockets: Path) -> float:
    """The seconds that one start takes."""
    with start_runtime(stand.folder, sockets, durability="fsync", name=_NAME) as runtime:
        return runtime.start_seconds


def _load(loader: Path, runtime: Runtime, *, first: int, count: int) -> None:
    subprocess.run(  # noqa: S603 - this package's own program
        [loader, f"-address=127.0.0.1:{runtime.port}", f"-first={first}", f"-keys={count}", f"-events={count}"],
        check=True,
    )


def _read(stand: Stand, runtime: Runtime, records: int, sizes: Sizes) -> tuple[float, float]:
    """The medians of get_state and of the floor, in microseconds."""
    with open_runtime(runtime) as client:
        keys = _visit(records)
        _check_loaded(client, records)
        echo = EchoClient(stand.echo.address)
        measurements = compare_latency(
            [
                Contender("get_state", "get_state", timed(lambda: client.get_state(next(keys)))),
                Contender("echo", "echo", timed(echo.send_bytes)),
            ],
            rounds=_ROUNDS,
            calls=sizes.growth_calls // _ROUNDS,
            slow_calls=0,
            warmup_calls=sizes.warmup_calls,
        )
        echo.close()
    get, floor = (measurement.median for measurement in measurements)
    return get, floor


def _check_loaded(client: GoRuntimeIntegration, records: int) -> None:
    """The first key and the last are there, with what the loader wrote, and the one behind is not."""
    for number in {0, records - 1} if records else ():
        assert client.get_state(_key(number))["number"] == number
    assert client.get_state(_key(records)) is None


def _key(number: int) -> str:
    return f"load/{number:07d}"


def _visit(records: int) -> Iterator[str]:
    number = 0
    while True:
        yield _key(number)
        number = (number + _STRIDE) % max(records, 1)
