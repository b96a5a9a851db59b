"""Readers of event streams in processes of their own, and what they saw."""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.child import ChildFailed
from bench.servers import HERE

# A process reads that many; more would be late by their own work.
_STREAMS_OF_A_PROCESS = 2500
# Files that a process needs beside its connections.
_OTHER_FILES = 100
_STOP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Stream:
    """An event stream to read."""

    path: str
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What one reader saw."""

    status: str
    """The beginning of the answer: `HTTP/1.1 200`."""
    numbers: list[int]
    """Of the tokens, in the order in which they came."""
    lags: list[float]
    """Microseconds from emitting each token to having its bytes."""

    def has_all(self, tokens: int) -> bool:
        """Whether every token came, once and in its place."""
        return self.numbers == list(range(tokens))


class Readers:
    """Readers whose streams are open."""

    def __init__(self, processes: list[subprocess.Popen[str]], outs: list[Path]) -> None:
        self._processes = processes
        self._outs = outs

    def collect(self) -> list[Seen]:
        """Wait until all streams have ended.

        Raises:
            ChildFailed: A reader broke.
        """
        for process in self._processes:
            if process.wait():
                raise ChildFailed("a reader of streams broke")
        return [Seen(**seen) for out in self._outs for seen in json.loads(out.read_text())]


def most_readers() -> int:
    """How many streams a server of this machine can have open: each is a file, of which a process has a limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] - _OTHER_FILES


@contextmanager
def open_readers(
    streams: Sequence[Stream], *, port: int, folder: Path, seconds: float, processes: int | None = None
) -> Iterator[Readers]:
    """Open the streams of a server on loopback; `seconds` after that the readers give up."""
    count = processes or math.ceil(len(streams) / _STREAMS_OF_A_PROCESS)
    started: list[subprocess.Popen[str]] = []
    outs: list[Path] = []
    with ExitStack() as stack:
        for number in range(count):
            out = folder / f"reader-{number}.json"
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.reader"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=HERE.parent,
                start_new_session=True,
            )
            stack.callback(_stop, process)
            requests = [_format_request(stream) for stream in streams[number::count]]
            plan = {"host": "127.0.0.1", "port": port, "requests": requests, "seconds": seconds, "out": str(out)}
            assert process.stdin is not None
            json.dump(plan, process.stdin)
            process.stdin.close()
            started.append(process)
            outs.append(out)
        for process in started:
            assert process.stdout is not None
            if process.stdout.readline() != "connected\n":
                raise ChildFailed("a reader of streams could not connect")
        yield Readers(started, outs)


def _format_request(stream: Stream) -> str:
    # 1.0: a server that follows it sends the stream as it is, without chunks around it.
    lines = (f"GET {stream.path} HTTP/1.0", "Host: 127.0.0.1", "Accept: text/event-stream", *stream.headers)
    return "".join(f"{line}\r\n" for line in (*lines, ""))


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
