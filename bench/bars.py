"""Ratios between what was measured in the same run, and the bars: those that the runtime promises."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bench.backlog import BacklogPoint
from bench.graphs import MESSAGE_BYTES, WAITING_RUNS
from bench.growth import GrowthPoint
from bench.project import WEB_SERVERS
from bench.results import Results
from bench.tokens import LoadPoint, ReadersPoint

_MIB = 1 << 20
# How far growth may be from linear before it counts: what the same process shows from one start to the next.
_LINEAR_TOLERANCE = 1.25
# Tokens a second of each run that the runtime promises to pass on.
_LEAST_PACE = 20
_NO_REDIS = "no redis-server here"
_NOT_INSTALLED = "not on this machine"
_RUN_PEERS = (
    ("celery", "Celery", _NO_REDIS),
    ("procrastinate", "procrastinate", _NOT_INSTALLED),
    ("agno", "agno", _NOT_INSTALLED),
)
_TRANSPORTS = (("tcp", "TCP"), ("unix", "Unix socket"))


@dataclass(frozen=True, slots=True)
class Ratio:
    """Something measured in units of something else."""

    what: str
    unit: str
    """`× (echo + fsync)`, for one; a few are no ratios: `events/s`."""
    rounds: tuple[float, ...]
    """The value in each round; empty if a peer that it takes is not on this machine."""
    absent: str = field(default=_NO_REDIS, kw_only=True)
    """What to say if it is empty."""

    @property
    def median(self) -> float | None:
        """The median of the rounds."""
        return statistics.median(self.rounds) if self.rounds else None

    @property
    def quartiles(self) -> tuple[float, float] | None:
        """Between which values the middle half of the rounds lies; None with fewer than two rounds."""
        if len(self.rounds) < 2:  # noqa: PLR2004 - what quantiles take
            return None
        low, _, high = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return low, high


@dataclass(frozen=True, slots=True)
class Bar(Ratio):
    """A ratio that the runtime promises."""

    bound: Literal["at most", "at least"]
    target: float

    @property
    def met(self) -> bool | None:
        """Whether the promise was kept; None if it could not be measured."""
        if self.median is None:
            return None
        return self.median <= self.target if self.bound == "at most" else self.median >= self.target


def judge(results: Results) -> list[Bar]:
    """Hold a run against every bar."""
    bars = []
    for transport, label in _TRANSPORTS:
        echo = f"echo/{transport}"
        for call, what, floors, unit, target in (
            ("get_state", "get_state p50", (echo,), "× echo", 1.3),
            ("set_state_os", "set_state p50, durability os", (echo,), "× echo", 1.5),
            ("set_state_fsync", "set_state p50, durability fsync", (echo, "fsync"), "× (echo + fsync)", 1.5),
            ("execute_task", "execute_task p50, durability fsync", (echo, "fsync"), "× (echo + fsync)", 2.0),
            ("publish_callback", "publish_event → callback p50, durability os", (echo,), "× echo", 3.0),
        ):
            rounds = results.over(f"{call}/{transport}", *floors)
            bars.append(Bar(f"{what}, {label}", unit, rounds, "at most", target))
    threads, queued = results.sizes.threads, results.sizes.queued_tasks
    return [
        *bars,
        Bar(
            f"set_state, durability fsync, {threads} threads",
            "× calls/s of echo",
            results.over("threads_set_state", "threads_echo"),
            "at least",
            0.8,
        ),
        Bar(
            "Celery delay().get() p50",
            "× execute_task, TCP",
            results.over("celery", "execute_task/tcp"),
            "at least",
            2.0,
        ),
        Bar(
            f"tasks/s with {queued:,} queued, the better way of each",
            "× Celery",
            _better_over_better(
                results, ("queue_runtime", "queue_runtime_batch"), ("queue_celery", "queue_celery_batch")
            ),
            "at least",
            6.0,
        ),
        Bar("into one subscriber", "events/s", results.over("subscriber"), "at least", 15_000),
        Bar("publish_events", "events/s", results.over("publish_events"), "at least", 20_000),
        Bar("idle runtime", "MiB resident", (results.idle_bytes / _MIB,), "at most", 60),
        *_growth_bars(results.growth),
        *_run_bars(results),
        *_load_bars(results.load),
        *_readers_bars(results.readers),
        *_backlog_bars(results.backlog),
        *_graph_bars(results),
    ]


def compare_transports(results: Results) -> list[Ratio]:
    """What the Unix socket saves against TCP, and JSON bytes against google.protobuf.Struct."""
    calls = (
        ("echo", "gRPC echo"),
        ("get_state", "get_state"),
        ("set_state_os", "set_state, durability os"),
        ("set_state_fsync", "set_state, durability fsync"),
        ("execute_task", "execute_task, durability fsync"),
        ("publish_callback", "publish_event → callback, durability os"),
    )
    return [
        *(
            Ratio(f"{what} p50, Unix socket", "× TCP", results.over(f"{call}/unix", f"{call}/tcp"))
            for call, what in calls
        ),
        *(
            Ratio(
                f"gRPC echo p50 of a value as Struct, {label}",
                "× JSON bytes",
                results.over(f"echo_struct/{transport}", f"echo_json/{transport}"),
            )
            for transport, label in _TRANSPORTS
        ),
    ]


def compare_peers(results: Results) -> list[Ratio]:
    """The runtime against Redis and Celery, over TCP as they are."""
    return [
        Ratio(what, f"× {peer}", results.over(name, peer_name))
        for what, name, peer, peer_name in (
            ("get_state p50", "get_state/tcp", "Redis GET", "redis_get"),
            ("set_state p50, durability os", "set_state_os/tcp", "Redis SET", "redis_set"),
            (
                "set_state p50, durability fsync",
                "set_state_fsync/tcp",
                "Redis SET, appendfsync always",
                "redis_set_fsync",
            ),
            ("publish_event → callback p50, durability os", "publish_callback/tcp", "Redis pub/sub", "redis_pubsub"),
            ("execute_task p50, durability fsync", "execute_task/tcp", "Celery delay().get()", "celery"),
            ("events/s into one subscriber", "subscriber", "Redis XREAD", "redis_xread"),
            ("events/s of publish_events, durability fsync", "publish_events", "Redis XADD", "redis_xadd"),
        )
    ]


def compare_run_peers(results: Results) -> list[Ratio]:
    """Runs of a Python agent against what peers do with the same work, and requests against a plain insert."""
    return [
        *(
            Ratio(f"run of a Python agent, p50, {peer}", "× of it", results.over(f"run_{name}", "run"), absent=absent)
            for name, peer, absent in _RUN_PEERS
        ),
        *(
            Ratio(
                f"queued runs of a Python agent, runs/s, {peer}",
                "× of them",
                results.over("run_queue", f"run_queue_{name}"),
                absent=absent,
            )
            for name, peer, absent in _RUN_PEERS
        ),
    ]


def compare_rest(results: Results) -> list[Ratio]:
    """A request that has a run accepted against one that only inserts a row."""
    return [
        ratio
        for server in WEB_SERVERS
        for ratio in (
            Ratio(
                f"POST /runs/ p50, {server}",
                "× insert of a row",
                results.over(f"rest_run/{server}", f"rest_row/{server}"),
            ),
            Ratio(
                f"POST /runs/, requests/s, {server}",
                "× insert of a row",
                results.over(f"rest_rate_run/{server}", f"rest_rate_row/{server}"),
            ),
        )
    ]


def compare_graphs(results: Results) -> list[Ratio]:
    """LangGraph against graphs of the runtime, where nothing is promised."""
    tasks = results.sizes.graph_tasks
    messages = results.sizes.graph_messages * MESSAGE_BYTES
    return [
        *(
            Ratio(
                f"processor time of a node, LangGraph, {theirs}",
                f"× the runtime's, {ours}",
                _median_over_median(results.graphs.processor, f"graph_{saver}_langgraph", f"graph_{saver}"),
                absent=_NOT_INSTALLED,
            )
            for saver, theirs, ours in (
                ("none", "no checkpointer", "no checkpoints"),
                ("async", "InMemorySaver", "durability async"),
                ("sync", "SqliteSaver", "durability sync"),
            )
        ),
        Ratio(
            f"LangGraph, {tasks} tasks and a join, no checkpoints",
            "× the runtime's",
            results.over("fan_out_langgraph", "fan_out"),
            absent=_NOT_INSTALLED,
        ),
        Ratio(
            "bytes of a conversation, LangGraph with SQLite",
            "× the messages",
            tuple(size / messages for size in results.graphs.conversation.get("conversation_langgraph", ())),
            absent=_NOT_INSTALLED,
        ),
    ]


def _median_over_median(values: Mapping[str, Sequence[float]], name: str, floor: str) -> tuple[float, ...]:
    """One ratio, of runs that need not be as many on both sides; none if one of them did not take part."""
    if name not in values or floor not in values:
        return ()
    return (statistics.median(values[name]) / (statistics.median(values[floor]) or 1.0),)


def _graph_bars(results: Results) -> list[Bar]:
    graphs, sizes = results.graphs, results.sizes
    messages = sizes.graph_messages * MESSAGE_BYTES
    return [
        *(
            Bar(
                f"LangGraph node, {theirs}",
                f"× graph node, {ours}",
                results.over(f"graph_{saver}_langgraph", f"graph_{saver}"),
                "at least",
                target,
                absent=_NOT_INSTALLED,
            )
            for saver, theirs, ours, target in (
                ("none", "no checkpointer", "no checkpoints", 50.0),
                ("async", "InMemorySaver", "durability async", 50.0),
                ("sync", "SqliteSaver", "durability sync", 3.0),
            )
        ),
        *(
            Bar(
                f"bytes of a conversation of {sizes.graph_messages} messages, durability {saver}",
                "× the messages",
                tuple(size / messages for size in graphs.conversation[f"conversation_{saver}"]),
                "at most",
                3.0,
            )
            for saver in ("async", "sync")
        ),
        Bar(
            f"memory of each of {WAITING_RUNS:,} runs that wait for a person, beyond the journal's index",
            "bytes",
            tuple(graphs.waiting_bytes),
            "at most",
            1024,
        ),
        # What comes and goes by itself is a few.
        Bar(f"goroutines of {WAITING_RUNS:,} such runs", "in all", tuple(graphs.waiting_goroutines), "at most", 10),
    ]


def _run_bars(results: Results) -> list[Bar]:
    queued = results.sizes.queued_tasks
    return [
        Bar("Celery delay().get() p50", "× run of a Python agent", results.over("run_celery", "run"), "at least", 2.0),
        Bar(
            f"Python agent runs/s with {queued:,} queued, two workers each",
            "× Celery",
            _better_over_better(results, ("run_queue",), ("run_queue_celery", "run_queue_celery_group")),
            "at least",
            6.0,
        ),
        *(
            Bar(f"token → reader of {server}, p50", f"× echo, {pace}", results.over(name, echo), "at most", 5.0)
            for name, server in (("token_runtime", "the runtime's stream"), ("token_django", "Django's stream"))
            for echo, pace in (("token_echo", "back to back"), ("token_echo_paced", "at the tokens' pace"))
        ),
    ]


def _load_bars(points: Sequence[LoadPoint]) -> list[Bar]:
    last = points[-1]
    return [
        Bar(
            f"tokens/s of {last.runs} runs held for {last.seconds:.0f} s, none lost",
            "tokens/s",
            (last.rate if last.held else 0.0,),
            "at least",
            _LEAST_PACE * last.runs,
        )
    ]


def _readers_bars(points: Sequence[ReadersPoint]) -> list[Bar]:
    return [
        Bar(
            f"readers of a stream of {point.server} that saw every token",
            "readers",
            (float(point.readers - point.incomplete),),
            "at least",
            float(point.wanted),
        )
        for point in points
    ]


def _backlog_bars(points: Sequence[BacklogPoint]) -> list[Bar]:
    """A run of the second half costs no more than one of the first."""
    half = len(points) // 2

    def slowing(rate: Callable[[BacklogPoint], float]) -> tuple[float, ...]:
        first, second = (statistics.mean(1 / rate(point) for point in part) for part in (points[:half], points[half:]))
        return (second / first,)

    runs = points[-1].runs
    unit = "× that of the first half"
    rates: tuple[tuple[str, Callable[[BacklogPoint], float]], ...] = (
        ("submit", lambda point: point.submitted_per_second),
        ("do", lambda point: point.drained_per_second),
    )
    return [
        Bar(f"time to {verb} one of {runs:,} runs", unit, slowing(rate), "at most", _LINEAR_TOLERANCE)
        for verb, rate in rates
    ]


def _better_over_better(results: Results, ours: Sequence[str], theirs: Sequence[str]) -> tuple[float, ...]:
    """The greater rate of ours over the greater one of theirs, round by round; empty if they are not measured."""

    def better(names: Sequence[str]) -> list[float]:
        return [max(rates) for rates in zip(*(results.over(name) for name in names), strict=True)]

    return tuple(our / their for our, their in zip(better(ours), better(theirs), strict=False))


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
            Bar(f"{name}, per record", "× that of the first half", steepening(value), "at most", _LINEAR_TOLERANCE)
            for name, value in curves
        ),
        Bar(
            f"get_state p50 with {end.records:,} keys",
            "× that of an empty store",
            (_get_over_echo(end) / _get_over_echo(points[0]),),
            "at most",
            _LINEAR_TOLERANCE,
        ),
    ]


def _get_over_echo(point: GrowthPoint) -> float:
    return point.get_microseconds / point.echo_microseconds
