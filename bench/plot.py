"""Pictures of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from bench.backlog import BacklogPoint
from bench.growth import GrowthPoint
from bench.measurement import Measurement
from bench.results import Results

_OURS, _PEER, _FLOOR = "#2a6f97", "#c1666b", "#8d99ae"
_MIB = 1 << 20


def draw_plots(results: Results, folder: Path) -> None:
    """Write latency.png, rates.png, runs.png, backlog.png, growth.png and graphs.png."""
    _draw_latency(results.latency, folder / "latency.png", "µs a call")
    _draw_latency(results.graphs.nodes, folder / "graphs.png", "µs a node")
    _draw_rates(results, folder / "rates.png")
    _draw_growth(results.growth, folder / "growth.png")
    _draw_bars(
        (
            ("µs a run, one at a time", results.runs.latency),
            ("runs/s, many queued", results.runs.queue),
        ),
        folder / "runs.png",
    )
    _draw_backlog(results.backlog, folder / "backlog.png")


def _draw_latency(measurements: Sequence[Measurement], path: Path, unit: str) -> None:
    """A row for each contender, with marks at p50, p95 and p99."""
    rows = sorted(measurements, key=lambda measurement: measurement.median, reverse=True)
    figure = Figure(figsize=(9, 0.32 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    colors = [_color(row.name) for row in rows]
    axes.hlines(places, [row.median for row in rows], [row.percentile(99) for row in rows], color=colors)
    axes.scatter([row.median for row in rows], places, marker="o", color=colors, label="p50", zorder=3)
    for percent, marker in ((95, "|"), (99, "x")):
        values = [row.percentile(percent) for row in rows]
        axes.scatter(values, places, marker=marker, color=colors, label=f"p{percent}")
    axes.set_yticks(places, [row.label for row in rows])
    axes.set_xscale("log")
    axes.grid(axis="x", which="both", alpha=0.3)
    axes.set_xlabel(unit)
    axes.legend(loc="upper right", labelcolor="black")
    figure.savefig(path, dpi=110)


def _draw_rates(results: Results, path: Path) -> None:
    groups = (
        (f"calls/s, {results.sizes.threads} threads", results.threads),
        (f"tasks/s, {results.sizes.queued_tasks:,} queued", results.queue),
        ("events/s", results.events),
    )
    _draw_bars(groups, path)


def _draw_bars(groups: Sequence[tuple[str, Sequence[Measurement]]], path: Path) -> None:
    """A picture for each group, in one file."""
    figure = Figure(figsize=(9, 0.36 * sum(len(rows) for _, rows in groups) + 3), layout="constrained")
    all_axes = figure.subplots(len(groups), 1, height_ratios=[len(rows) for _, rows in groups])
    for axes, (label, rows) in zip(all_axes, groups, strict=True):
        places = range(len(rows), 0, -1)
        medians = [row.median for row in rows]
        reach = [
            [median - row.spread[0] for median, row in zip(medians, rows, strict=True)],
            [row.spread[1] - median for median, row in zip(medians, rows, strict=True)],
        ]
        axes.barh(places, medians, xerr=reach, color=[_color(row.name) for row in rows], ecolor="black", capsize=3)
        axes.set_yticks(places, [row.label for row in rows])
        axes.set_xlabel(label)
        axes.locator_params(axis="x", nbins=6)
    figure.savefig(path, dpi=110)


def _draw_growth(points: Sequence[GrowthPoint], path: Path) -> None:
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    memory, start, get = figure.subplots(1, 3)
    records = [point.records / 1000 for point in points]
    memory.plot(records, [point.loaded_bytes / _MIB for point in points], "o-", color=_OURS, label="when filled")
    memory.plot(records, [point.restarted_bytes / _MIB for point in points], "s--", color=_OURS, label="restarted")
    memory.set_title("resident memory, MiB")
    memory.legend()
    start.plot(records, [point.start_seconds for point in points], "o-", color=_OURS)
    start.set_title("time to start, s")
    get.plot(records, [point.get_microseconds for point in points], "o-", color=_OURS, label="get_state")
    get.plot(records, [point.echo_microseconds for point in points], "o-", color=_FLOOR, label="gRPC echo")
    get.set_title("p50 of a read, µs")
    get.legend()
    for axes in (memory, start, get):
        axes.set_ylim(bottom=0)
        axes.set_xlabel("thousand keys, and as many events")
    figure.savefig(path, dpi=110)


def _draw_backlog(points: Sequence[BacklogPoint], path: Path) -> None:
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    rate, memory = figure.subplots(1, 2)
    runs = [point.runs / 1000 for point in points]
    rate.plot(runs, [point.submitted_per_second for point in points], "s--", color=_OURS, label="submitted")
    rate.plot(runs, [point.drained_per_second for point in points], "o-", color=_OURS, label="done")
    rate.set_title("runs a second")
    memory.plot(runs, [point.queued_bytes / _MIB for point in points], "s--", color=_OURS, label="while submitting")
    memory.plot(runs, [point.drained_bytes / _MIB for point in points], "o-", color=_OURS, label="while doing them")
    memory.set_title("resident memory, MiB")
    for axes in (rate, memory):
        axes.set_ylim(bottom=0)
        axes.set_xlabel("thousand runs")
        axes.legend()
    figure.savefig(path, dpi=110)


def _color(name: str) -> str:
    """Who a contender belongs to."""
    if any(peer in name for peer in ("redis", "celery", "procrastinate", "agno", "langgraph")):
        return _PEER
    return _FLOOR if "echo" in name or name == "fsync" else _OURS
