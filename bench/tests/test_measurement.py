from __future__ import annotations

from typing import Literal

import pytest

from bench.bars import Bar
from bench.measurement import Contender, Measurement, compare_latency, compare_rate


def test_contenders_take_turns_and_each_round_begins_with_another() -> None:
    order: list[str] = []

    def contender(name: str) -> Contender:
        def measure() -> float:
            order.append(name)
            return 1.0

        return Contender(name, name, measure)

    compare_latency([contender("a"), contender("b")], rounds=3, calls=2, slow_calls=1, warmup_calls=0)
    assert "".join(order) == "aabbbbaaaabb"


def test_slow_contenders_make_fewer_calls() -> None:
    quick, slow = compare_latency(
        [Contender("quick", "", lambda: 1e-6), Contender("slow", "", lambda: 1e-3, slow=True)],
        rounds=2,
        calls=5,
        slow_calls=3,
        warmup_calls=4,
    )
    assert quick.rounds == [[pytest.approx(1.0)] * 5] * 2
    assert slow.rounds == [[pytest.approx(1000.0)] * 3] * 2


def test_first_rate_does_not_count() -> None:
    values = iter([1.0, 7.0, 8.0])
    (measured,) = compare_rate([Contender("rate", "", lambda: next(values))], rounds=2)
    assert measured.rounds == [[7.0], [8.0]]


def test_median_is_that_of_the_rounds_and_percentiles_are_over_all() -> None:
    measured = Measurement("name", "label", [[1.0, 2.0, 9.0], [3.0, 4.0, 5.0], [100.0, 101.0, 102.0]])
    assert measured.medians == [2.0, 4.0, 101.0]
    assert measured.median == 4.0
    assert measured.spread == (2.0, 101.0)
    assert Measurement("name", "label", [[float(n)] for n in range(100)]).spread == (5.0, 95.0)
    assert measured.percentile(0) == 1.0
    assert measured.percentile(99) == 102.0


@pytest.mark.parametrize(
    ("bound", "rounds", "met"),
    [
        ("at most", (1.0, 2.0, 9.0), True),
        ("at most", (2.1,), False),
        ("at least", (1.0, 2.0, 9.0), True),
        ("at least", (1.9,), False),
        ("at least", (), None),
    ],
)
def test_bar_is_judged_by_the_median_of_its_rounds(
    bound: Literal["at most", "at least"], rounds: tuple[float, ...], met: bool | None
) -> None:
    assert Bar("what", "unit", rounds, bound, 2.0).met is met
