"""Run the benchmarks: see `python -m bench --help`."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.backlog import measure_backlog
from bench.bars import judge
from bench.child import ChildFailed
from bench.events import measure_events
from bench.graphs import measure_graphs
from bench.growth import measure_growth
from bench.latency import measure_latency
from bench.machine import describe_machine
from bench.page import summarize, write_page
from bench.plot import draw_plots
from bench.project import start_project
from bench.rates import measure_queue, measure_threads
from bench.rest import measure_rest
from bench.results import Results
from bench.runs import measure_runs
from bench.servers import start_runtime
from bench.sizes import FULL, QUICK, Sizes
from bench.stand import start_stand
from bench.tokens import measure_first_token, measure_load, measure_readers

_HERE = Path(__file__).resolve().parent
_DOCS = _HERE.parent / "docs"
_PICTURES = "benchmarks"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the figures down and say how they stand to the bars. A missed bar is no failure."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the runtime against its peers.")
    parser.add_argument("--quick", action="store_true", help="a minute's smoke test; its figures mean nothing")
    parser.add_argument("--write-docs", action="store_true", help="write docs/benchmarks.md and its pictures")
    parser.add_argument(
        "--out",
        type=Path,
        default=_HERE / "out",
        help="folder of results.json and, with the same pictures, benchmarks.md (default: bench/out)",
    )
    options = parser.parse_args(arguments)

    options.out.mkdir(parents=True, exist_ok=True)
    # On the disk of the checkout, which is where a runtime started here keeps its data: /tmp may be memory.
    with (
        tempfile.TemporaryDirectory(prefix="data-", dir=options.out) as data,
        # A Unix socket's path must be short, which a checkout's need not be.
        tempfile.TemporaryDirectory(prefix="bench-") as sockets,
    ):
        results = _run(Path(data), Path(sockets), QUICK if options.quick else FULL)
    (options.out / "results.json").write_text(json.dumps(results.as_dict()))
    _write_report(results, options.out)
    if options.write_docs:
        _write_report(results, _DOCS)
    _say(summarize(judge(results)))


def _run(data: Path, sockets: Path, sizes: Sizes) -> Results:
    begin = time.monotonic()

    def say(what: str) -> None:
        _say(f"{time.monotonic() - begin:5.0f} s  {what}")

    machine = describe_machine(data)
    say("idle runtime")
    with start_runtime(data, sockets, durability="fsync", name="idle") as runtime:
        idle_bytes = runtime.child.resident_bytes()
    say("starting everything")
    with start_stand(data, sockets) as stand:
        if stand.peers is None:
            say("no redis-server on the PATH: Redis and Celery are left out")
        say("latency of calls")
        latency = measure_latency(stand, sizes)
        say(f"calls from {sizes.threads} threads")
        threads = measure_threads(stand, sizes)
        say(f"{sizes.queued_tasks:,} queued tasks")
        queue = measure_queue(stand, sizes)
        say("events")
        events = measure_events(stand, sizes)
        say("starting a site with Python agents")
        with start_project(data, sockets, most_queued=sizes.backlog_runs) as project:
            runs = measure_runs(stand, project, sizes, say)
            for reason in runs.skipped:
                say(reason)
            machine.versions.update(runs.versions)
            say("first tokens")
            first_token = measure_first_token(stand, project, sizes)
            load = measure_load(project, sizes, say)
            readers = measure_readers(project, sizes, say)
            say("requests that have a run accepted")
            rest_latency, rest_rate = measure_rest(project, sizes)
            database = project.database
        backlog = measure_backlog(data, sockets, sizes, say)
        growth = measure_growth(stand, sockets, sizes, say)
    graphs = measure_graphs(data, sizes, say)
    for reason in graphs.skipped:
        say(reason)
    machine.versions.update(graphs.versions)
    say("done")
    return Results(
        machine=machine,
        sizes=sizes,
        idle_bytes=idle_bytes,
        latency=latency,
        threads=threads,
        queue=queue,
        events=events,
        growth=growth,
        runs=runs,
        first_token=first_token,
        load=load,
        readers=readers,
        backlog=backlog,
        database=database,
        rest_latency=rest_latency,
        rest_rate=rest_rate,
        graphs=graphs,
    )


def _write_report(results: Results, folder: Path) -> None:
    pictures = folder / _PICTURES
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir(parents=True)
    draw_plots(results, pictures)
    (folder / "benchmarks.md").write_text(write_page(results, judge(results), _PICTURES))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # As an exception, so that every server is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("bench: stopped")
    except (ChildFailed, FileNotFoundError) as error:
        sys.exit(f"bench: {error}")
