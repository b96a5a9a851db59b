"""The page that a run writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.bars import Bar, Ratio, compare_graphs, compare_peers, compare_rest, compare_run_peers, compare_transports
from bench.machine import Machine
from bench.measurement import Measurement
from bench.results import Results

_MIB = 1 << 20
_VERDICTS = {True: "met", False: "**missed**", None: "not measured"}


def write_page(results: Results, bars: Sequence[Bar], pictures: str) -> str:
    """The page in Markdown; `pictures` is the folder of the plots, as the page links to it."""
    missed = [bar for bar in bars if bar.met is False]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "This page is written by `make bench` on Linux, in about three quarters of an hour; Redis and Celery are",
            "measured where there is a `redis-server` on the PATH (Debian: `apt install redis-server`), procrastinate",
            "and agno where there are PostgreSQL's programs (`apt install postgresql`) and a package index, LangGraph",
            "where there is one. The floor, the runtime and its peers all run at the same time on one machine and take",
            "turns of a few calls each, so that whatever else the machine does hits all of them alike. So read the",
            "ratios: the times belong to this machine.",
            "",
            *_machine(results.machine),
            "",
            "## Bars",
            "",
            "Ratios are taken round by round; shown are their median and, in brackets, their quartiles. *echo* is",
            "the floor: a gRPC server in Go that returns what it gets, called from Python with grpcio and nothing",
            "around it. *fsync* is an append of as many bytes to a file on the same disk, then `fsync`.",
            "",
            *_table(("what", "target", "measured", ""), (_bar_row(bar) for bar in bars)),
            "",
            *(_missed(missed) if missed else ["Every bar that could be measured was met."]),
            "",
            "## One call at a time",
            "",
            "Microseconds from one Python thread. p50 is the median of the rounds' medians, the spread the middle",
            "nine tenths of them; p95 and p99 are over all calls. The value is about 256 bytes of JSON. The runtime's",
            "and the Redis calls include turning it into JSON, and back.",
            "",
            f"![Latency of each call]({pictures}/latency.png)",
            "",
            *_table(("call", "p50", "spread", "p95", "p99"), map(_latency_row, results.latency)),
            "",
            "Redis by default acknowledges a write before it is on the disk; so does Celery on it. The runtime",
            "acknowledges with `durability=fsync`, its default, once the disk has it.",
            "",
            *_table(
                ("Unix socket against TCP, Struct against JSON bytes", "", "measured"),
                map(_ratio_row, compare_transports(results)),
            ),
            "",
            "## Rates",
            "",
            f"Calls a second are from {results.sizes.threads} threads of one Python process. Tasks a second are from",
            f"handing over the first of {results.sizes.queued_tasks:,} to holding the last result, one by one from as",
            "many threads on both sides, and all at once from one thread, as each side offers it; the bar is between",
            "the better way of each. Celery has two prefork processes and Redis as broker and result backend. The bare",
            "stub has nothing of the client around it: what it saves is what the client costs, and what durability os",
            f"saves is what the disk costs. Events a second are of {results.sizes.events:,} in one turn.",
            "",
            f"![Rates]({pictures}/rates.png)",
            "",
            *_table(
                ("what", "a second", "from", "to"),
                map(_rate_row, (*results.threads, *results.queue, *results.events)),
            ),
            "",
            "## Against Redis and Celery",
            "",
            *_table(("the runtime", "", "measured"), map(_ratio_row, compare_peers(results))),
            "",
            *_runs(results, pictures),
            *_tokens(results),
            *_backlog(results, pictures),
            *_rest(results),
            *_graphs(results, pictures),
            "## A full store",
            "",
            "One runtime, filled with state keys and as many events; `get_state` reads keys all over the store.",
            "",
            f"![Growth]({pictures}/growth.png)",
            "",
            *_table(
                ("keys and events", "memory when filled", "after a restart", "time to start", "get_state", "echo"),
                (
                    (
                        f"{point.records:,}",
                        f"{point.loaded_bytes / _MIB:,.0f} MiB",
                        f"{point.restarted_bytes / _MIB:,.0f} MiB",
                        f"{point.start_seconds:.2f} s",
                        f"{point.get_microseconds:,.0f} µs",
                        f"{point.echo_microseconds:,.0f} µs",
                    )
                    for point in results.growth
                ),
            ),
            "",
        ]
    )


def _runs(results: Results, pictures: str) -> list[str]:
    sizes = results.sizes
    return [
        "## Agents in Python",
        "",
        "An agent that returns its parameters at once, submitted and awaited by the client that Django uses, and",
        f"{sizes.queued_tasks:,} of its runs queued at once and waited for. The worker is",
        "`manage.py runagent --processes 2 --concurrency 20`; Celery has two prefork processes and its defaults,",
        "procrastinate two workers of 20 jobs at a time, agno two servers of 20 runs at a time. The last two keep",
        "their queue in a PostgreSQL of their own with its defaults, and tell nobody that a task is done: it is asked",
        "for until it is. Microseconds, then runs a second.",
        "",
        *(f"{reason[0].upper()}{reason[1:]}." + chr(10) for reason in results.runs.skipped),
        f"![Runs of Python agents]({pictures}/runs.png)",
        "",
        *_table(("one run at a time", "p50", "spread", "p95", "p99"), map(_latency_row, results.runs.latency)),
        "",
        *_table(("queued", "a second", "from", "to"), map(_rate_row, results.runs.queue)),
        "",
        *_table(("beside peers", "", "measured"), map(_ratio_row, compare_run_peers(results))),
        "",
    ]


def _tokens(results: Results) -> list[str]:
    return [
        "## Tokens",
        "",
        "Microseconds from the moment at which the agent's code emits a token to the moment at which a reader in",
        "another process has its bytes; the echo takes turns with it. Text of one run is joined for up to 10 ms, so",
        "tokens come one each 30 ms. The echo is called back to back, as everywhere on this page, and at that pace:",
        "processors that have gone to sleep in between are to be woken up, several times a call.",
        "",
        *_table(("first token", "p50", "spread", "p95", "p99"), map(_latency_row, results.first_token)),
        "",
        "Runs that all emit at a steady pace, each with a reader of its own at the runtime's port. A pace is held if",
        "no token is lost, the p99 of the lag is within a second, and so is what the last run fell behind its pace.",
        "Paces are tried from the slowest on, until one is not held; the last line is the highest that was held, for",
        "the whole time. Above 100 tokens a second, several tokens of a run come in one event.",
        "",
        *_table(
            ("runs", "tokens/s of each", "for", "tokens/s in all", "lost", "lag p50", "lag p99", "behind", "held"),
            (
                (
                    f"{point.runs:,}",
                    f"{point.tokens_per_second:g}",
                    f"{point.seconds:g} s",
                    f"{point.rate:,.0f}",
                    f"{point.lost:,}",
                    _milliseconds(point.lag_p50),
                    _milliseconds(point.lag_p99),
                    _milliseconds(point.late_seconds * 1e6),
                    "yes" if point.held else "no",
                )
                for point in results.load
            ),
        ),
        "",
        f"Many readers of one run that emits {results.sizes.reader_tokens} tokens, one each",
        f"{results.sizes.reader_interval:g} s: by how much the server's memory grew for each, and how late the tokens",
        "were at all of them.",
        "",
        *_table(
            ("server", "readers", "memory of each", "lag p50", "lag p99", "saw not all"),
            (
                (
                    point.server,
                    f"{point.readers:,}" if point.readers == point.wanted else f"{point.readers:,} (limit of files)",
                    f"{point.bytes_per_reader / 1024:,.1f} KiB",
                    _milliseconds(point.lag_p50),
                    _milliseconds(point.lag_p99),
                    f"{point.incomplete:,}",
                )
                for point in results.readers
            ),
        ),
        "",
    ]


def _backlog(results: Results, pictures: str) -> list[str]:
    return [
        "## Many queued runs",
        "",
        f"{results.sizes.backlog_runs:,} runs of the agent that returns at once are handed over while no worker is",
        "there, and then done by two worker processes, oldest first; a line for each step of both.",
        "",
        f"![Many queued runs]({pictures}/backlog.png)",
        "",
        *_table(
            ("runs", "submitted a second", "memory, queued", "done a second", "memory, done"),
            (
                (
                    f"{point.runs:,}",
                    f"{point.submitted_per_second:,.0f}",
                    f"{point.queued_bytes / _MIB:,.0f} MiB",
                    f"{point.drained_per_second:,.0f}",
                    f"{point.drained_bytes / _MIB:,.0f} MiB",
                )
                for point in results.backlog
            ),
        ),
        "",
    ]


def _rest(results: Results) -> list[str]:
    return [
        "## A request that has a run accepted",
        "",
        "`POST /runs/` keeps a row, commits, and has the runtime accept the run before it answers 201. Beside it a",
        "view of Django REST framework that keeps a row of another table, and nothing else: same process, same",
        f"database ({results.database}), same sign-in. One process of each server, gunicorn with threads; requests a",
        f"second are from {results.sizes.rest_threads} connections.",
        "",
        *_table(("request", "p50, µs", "spread", "p95", "p99"), map(_latency_row, results.rest_latency)),
        "",
        *_table(("request", "a second", "from", "to"), map(_rate_row, results.rest_rate)),
        "",
        *_table(("", "", "measured"), map(_ratio_row, compare_rest(results))),
        "",
    ]


def _graphs(results: Results, pictures: str) -> list[str]:
    sizes, graphs = results.sizes, results.graphs
    return [
        "## Graphs",
        "",
        "The same graph on both sides: a model that says what is in a script, and a tool, which follow each other",
        f"{sizes.graph_steps} times by a condition. Shown are the microseconds from the call of one node to that of",
        "the next: what the engine and its checkpoints take, as the nodes do nothing. LangGraph's SQLite file and the",
        "journal are on the same disk. Processor time is that of the whole process, the journal's too: other programs",
        "on the machine do to it the least.",
        "",
        *(f"{reason[0].upper()}{reason[1:]}." + chr(10) for reason in graphs.skipped),
        f"![Graphs]({pictures}/graphs.png)",
        "",
        *_table(("one node after the other", "p50", "spread", "p95", "p99"), map(_node_row, graphs.nodes)),
        "",
        f"A run whose one step has {sizes.graph_tasks} tasks, each with an input of its own, and a join behind them:",
        "",
        *_table(("a run", "p50", "spread", "p95", "p99"), map(_latency_row, graphs.fan_out)),
        "",
        *_table(("", "", "measured"), map(_ratio_row, compare_graphs(results))),
        "",
        "Runs that wait for a person are measured in a runtime that was started after they were parked, against one",
        "that has none: what its heap has beyond that of its journal alone.",
        "",
    ]


def _node_row(measurement: Measurement) -> tuple[str, ...]:
    low, high = measurement.spread
    values = (measurement.percentile(95), measurement.percentile(99))
    return measurement.label, f"{measurement.median:,.1f}", f"{low:,.1f} to {high:,.1f}", *(f"{v:,.1f}" for v in values)


def _milliseconds(microseconds: float) -> str:
    return f"{microseconds / 1000:,.1f} ms"


def summarize(bars: Sequence[Bar]) -> str:
    """The bars for a terminal, the missed ones again at the end."""
    lines = [
        f"{'-' if bar.met is None else 'met' if bar.met else 'MISSED':6}  {bar.what}: {_measured(bar)}, {_target(bar)}"
        for bar in bars
    ]
    missed = [f"  {bar.what}: {_measured(bar)}, {_target(bar)}" for bar in bars if bar.met is False]
    return "\n".join([*lines, "", "Missed:" if missed else "No bar was missed.", *missed])


def _machine(machine: Machine) -> list[str]:
    kind = "virtual machine" if machine.virtual else "machine"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return [
        f"- {kind}: {machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB",
        f"- {machine.system}, Linux {machine.kernel}; data on {machine.filesystem}",
        f"- load average before the run: {machine.load_average}",
        f"- {versions}",
    ]


def _missed(bars: Sequence[Bar]) -> list[str]:
    return [
        "Missed ([where the time goes](where-the-time-goes.md)):",
        "",
        *(f"- {bar.what}: {_measured(bar)}, {_target(bar)}" for bar in bars),
    ]


def _bar_row(bar: Bar) -> tuple[str, ...]:
    return bar.what, _target(bar), _measured(bar), _VERDICTS[bar.met]


def _target(bar: Bar) -> str:
    return f"{bar.bound} {_number(bar.target)} {bar.unit}"


def _ratio_row(ratio: Ratio) -> tuple[str, ...]:
    return ratio.what, ratio.unit, _measured(ratio)


def _measured(ratio: Ratio) -> str:
    if ratio.median is None:
        return ratio.absent
    if ratio.quartiles is None:
        return _number(ratio.median)
    low, high = ratio.quartiles
    return f"{_number(ratio.median)} ({_number(low)} to {_number(high)})"


def _latency_row(measurement: Measurement) -> tuple[str, ...]:
    low, high = measurement.spread
    values = (measurement.percentile(95), measurement.percentile(99))
    return measurement.label, f"{measurement.median:,.0f}", f"{low:,.0f} to {high:,.0f}", *(f"{v:,.0f}" for v in values)


def _rate_row(measurement: Measurement) -> tuple[str, ...]:
    return measurement.label, *(f"{value:,.0f}" for value in (measurement.median, *measurement.spread))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"  # noqa: PLR2004 - three digits say enough


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
