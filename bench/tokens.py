"""How fast tokens get from an agent's code to the bytes that a reader holds, and how many of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from django_agent_runtime.go_integration import GoRuntimeIntegration

from bench.api import post_json
from bench.child import ChildFailed
from bench.measurement import Measurement, rank
from bench.project import Project, start_web, start_workers
from bench.readers import Readers, Seen, Stream, most_readers, open_readers
from bench.runs import make_task
from bench.site.agents import TOKENS
from bench.sizes import Sizes
from bench.stand import EchoClient, Stand, open_runtime

# Between the moment at which the readers are there and the first token: agents look for it ten times a second.
_LEAD_SECONDS = 0.5
# What readers wait beyond the time at which everything should be over.
_PATIENCE_SECONDS = 60.0
# Longer than text is joined for, so that each token is one that nothing came before.
_FIRST_TOKEN_INTERVAL = 0.03
# A rate is held if no token is lost, and hardly any is later than this, nor any run.
_MOST_LAG_SECONDS = 1.0
# So that no run waits for another one of a worker process.
_LOAD_CONCURRENCY = 1000
_LOAD_READERS = 2

_gates = count()


@dataclass(frozen=True, slots=True)
class LoadPoint:
    """Some number of runs that each emit at some pace, every one of them read."""

    runs: int
    tokens_per_second: float
    """Of each run."""
    seconds: float
    tokens: int
    """In all."""
    lost: int
    """Tokens that did not come, or not once and in their place."""
    lag_p50: float
    """Microseconds from emitting to having the bytes."""
    lag_p99: float
    lag_max: float
    late_seconds: float
    """By how much the last run fell behind its pace: its tokens were emitted late, whatever their way took."""

    @property
    def held(self) -> bool:
        """Whether nothing was lost and hardly anything late."""
        return not self.lost and max(self.lag_p99 / 1e6, self.late_seconds) <= _MOST_LAG_SECONDS

    @property
    def rate(self) -> float:
        """Tokens a second of all runs."""
        return self.runs * self.tokens_per_second


@dataclass(frozen=True, slots=True)
class ReadersPoint:
    """Many readers of the same run."""

    server: str
    readers: int
    wanted: int
    """How many there were to be; fewer where this machine lets a process open fewer files."""
    bytes_per_reader: float
    """By which the resident memory of the server grew."""
    tokens: int
    """Of the run."""
    incomplete: int
    """Readers that did not see every token once and in its place."""
    lag_p50: float
    lag_p99: float


class _Emission:
    """Tokens that runs are to emit at a steady pace, once they are let go."""

    def __init__(self, folder: Path, *, tokens: int, interval: float) -> None:
        self.tokens = tokens
        """Of each run."""
        self._interval = interval
        self._folder = folder
        self._gate = folder / f"gate-{next(_gates)}"

    def describe(self, offset: float = 0.0) -> dict[str, object]:
        """The parameters of a run that begins `offset` seconds after the others."""
        return {"gate": str(self._gate), "tokens": self.tokens, "interval": self._interval, "offset": offset}

    def submit(self, client: GoRuntimeIntegration, runs: int = 1) -> list[str]:
        """Hand over runs, none of which speaks at the same time as another; their ids."""
        tasks = [make_task(TOKENS, self.describe(self._interval * number / runs)) for number in range(runs)]
        return [run.run_id for run in client.submit_tasks(tasks)]

    def submit_through_django(self, project: Project, port: int) -> Stream:
        """Begin a run by a request to the site; its stream there."""
        body = {"agent_key": TOKENS, "messages": [], "params": self.describe()}
        run = post_json(port, "/api/agents/runs/", project.token, body)
        return Stream(f"/api/agents/runs/{run['id']}/events/", (f"Authorization: Token {project.token}",))

    @contextmanager
    def open(self, streams: Sequence[Stream], port: int, processes: int | None = None) -> Iterator[Readers]:
        """Readers of streams, all of which are open."""
        seconds = self.tokens * self._interval + _PATIENCE_SECONDS
        with open_readers(streams, port=port, folder=self._folder, seconds=seconds, processes=processes) as readers:
            yield readers

    def begin(self) -> None:
        """Let the tokens flow."""
        draft = self._gate.with_suffix(".draft")
        draft.write_text(str(time.monotonic() + _LEAD_SECONDS))
        draft.replace(self._gate)

    def read(self, streams: Sequence[Stream], port: int, processes: int | None = None) -> list[Seen]:
        """What readers see from before the first token to the end of the runs."""
        with self.open(streams, port, processes) as readers:
            self.begin()
            return readers.collect()


def _make_tickets(client: GoRuntimeIntegration, run_ids: Sequence[str]) -> list[Stream]:
    """The stream of each run at the runtime's own port."""
    return [Stream(client.create_stream_ticket(run_id, "bench").path) for run_id in run_ids]


def measure_first_token(stand: Stand, project: Project, sizes: Sizes) -> list[Measurement]:
    """Measure a token's way to a reader of either port, with one run and one reader, in turns with the floor.

    The floor is called back to back, and at the pace of the tokens: a machine with nothing to do in between has to wake
    up for each.
    """
    echoes = Measurement("token_echo", "gRPC echo, bytes, TCP, back to back")
    paced = Measurement("token_echo_paced", "gRPC echo, bytes, TCP, at the pace of the tokens")
    straight = Measurement("token_runtime", "token → reader of the runtime's stream")
    through = Measurement("token_django", "token → reader of Django's stream (uvicorn)")
    with (
        start_workers(project),
        start_web(project, "uvicorn") as (_, web_port),
        open_runtime(project.runtime) as client,
    ):
        echo = EchoClient(stand.echo.address)
        for _ in range(sizes.token_rounds):
            echoes.rounds.append([_time(echo.send_bytes) for _ in range(sizes.first_tokens)])
            paced.rounds.append([_time_paced(echo.send_bytes) for _ in range(sizes.first_tokens)])
            emission = _Emission(project.folder, tokens=sizes.first_tokens, interval=_FIRST_TOKEN_INTERVAL)
            tickets = _make_tickets(client, emission.submit(client))
            straight.rounds.append(_lags(emission.read(tickets, project.runtime.http_port), emission))
            emission = _Emission(project.folder, tokens=sizes.first_tokens, interval=_FIRST_TOKEN_INTERVAL)
            stream = emission.submit_through_django(project, web_port)
            through.rounds.append(_lags(emission.read([stream], web_port), emission))
        echo.close()
    return [echoes, paced, straight, through]


def measure_load(project: Project, sizes: Sizes, say: Callable[[str], None]) -> list[LoadPoint]:
    """Find the highest rate that is held, and hold it: the last point is that of the whole time."""
    points: list[LoadPoint] = []
    with (
        start_workers(project, concurrency=_LOAD_CONCURRENCY),
        open_runtime(project.runtime) as client,
    ):
        for pace in sizes.token_paces:
            say(f"{sizes.token_runs} runs × {pace} tokens/s")
            points.append(_load(client, project, sizes.token_runs, pace, sizes.probe_seconds))
            if not points[-1].held:
                break
        held = [point.tokens_per_second for point in points if point.held] or [sizes.token_paces[0]]
        for pace in sorted(held, reverse=True):
            say(f"{sizes.token_runs} runs × {pace:.0f} tokens/s for {sizes.hold_seconds:.0f} s")
            points.append(_load(client, project, sizes.token_runs, pace, sizes.hold_seconds))
            if points[-1].held:
                break
    return points


def measure_readers(project: Project, sizes: Sizes, say: Callable[[str], None]) -> list[ReadersPoint]:
    """Measure many readers of one run, at the runtime's port and at Django's."""
    points = []
    with (
        start_workers(project),
        open_runtime(project.runtime) as client,
    ):
        readers = min(sizes.runtime_readers, most_readers())
        say(f"{readers:,} readers of the runtime's stream")
        emission = _Emission(project.folder, tokens=sizes.reader_tokens, interval=sizes.reader_interval)
        (ticket,) = _make_tickets(client, emission.submit(client))
        before = project.runtime.child.resident_bytes()
        with emission.open([ticket] * readers, project.runtime.http_port) as opened:
            grown = project.runtime.child.resident_bytes() - before
            emission.begin()
            seen = opened.collect()
        points.append(_judge("runtime", readers, sizes.runtime_readers, grown, seen, emission.tokens))
        with start_web(project, "uvicorn") as (server, port):
            readers = min(sizes.django_readers, most_readers())
            say(f"{readers:,} readers of Django's stream")
            # What the first stream of a process makes is not another reader's.
            warm = _Emission(project.folder, tokens=1, interval=sizes.reader_interval)
            warm.read([warm.submit_through_django(project, port)], port)
            emission = _Emission(project.folder, tokens=sizes.reader_tokens, interval=sizes.reader_interval)
            stream = emission.submit_through_django(project, port)
            before = server.resident_bytes()
            with emission.open([stream] * readers, port) as opened:
                grown = server.resident_bytes() - before
                emission.begin()
                seen = opened.collect()
        points.append(_judge("Django (uvicorn)", readers, sizes.django_readers, grown, seen, emission.tokens))
    return points


def _load(client: GoRuntimeIntegration, project: Project, runs: int, pace: float, seconds: float) -> LoadPoint:
    emission = _Emission(project.folder, tokens=round(seconds * pace), interval=1 / pace)
    run_ids = emission.submit(client, runs)
    seen = emission.read(_make_tickets(client, run_ids), project.runtime.http_port, _LOAD_READERS)
    lags = sorted(lag for each in seen for lag in each.lags) or [float("inf")]
    lost = sum(_count_lost(each, emission.tokens) for each in seen)
    outputs = [run.output or {} for run in client.wait_runs(run_ids, timeout=_PATIENCE_SECONDS)]
    late = max(output.get("final_output", {}).get("late_seconds", float("inf")) for output in outputs)
    tokens = runs * emission.tokens
    return LoadPoint(runs, pace, seconds, tokens, lost, rank(lags, 50), rank(lags, 99), lags[-1], late)


def _count_lost(seen: Seen, tokens: int) -> int:
    if seen.has_all(tokens):
        return 0
    return max(tokens - len(set(seen.numbers)), 1)


def _judge(server: str, readers: int, wanted: int, grown: int, seen: Sequence[Seen], tokens: int) -> ReadersPoint:
    lags = [lag for each in seen for lag in each.lags] or [float("inf")]
    incomplete = sum(not each.has_all(tokens) for each in seen)
    return ReadersPoint(
        server, readers, wanted, max(grown, 0) / readers, tokens, incomplete, rank(lags, 50), rank(lags, 99)
    )


def _lags(seen: Sequence[Seen], emission: _Emission) -> list[float]:
    """Those of the only reader, who must have had everything."""
    (only,) = seen
    if not only.has_all(emission.tokens):
        raise ChildFailed(f"{len(only.numbers)} of {emission.tokens} tokens came; the answer was {only.status!r}")
    return only.lags


def _time_paced(call: Callable[[], object]) -> float:
    time.sleep(_FIRST_TOKEN_INTERVAL)
    return _time(call)


def _time(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e6
