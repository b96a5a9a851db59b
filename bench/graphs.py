"""Graphs: what a node costs beside LangGraph, what a conversation takes on the disk, and what runs that wait hold."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.child import ChildFailed
from bench.measurement import Contender, Measurement, compare_latency
from bench.peer import LANGGRAPH, Peer, PeerMissing, drive, start_peer
from bench.servers import HERE, build
from bench.sizes import Sizes

MESSAGE_BYTES = 1000
"""How long a message of the conversation is."""
WAITING_RUNS = 1000

_OURS = "graph"
# What is compared: the runtime's saver, LangGraph's, and what both are for people.
_SAVERS = (
    ("none", "none", "no checkpoints", "no checkpointer"),
    ("async", "memory", "durability async, on the disk", "InMemorySaver"),
    ("sync", "sqlite", "durability sync, on the disk with fsync", "SqliteSaver, durability sync"),
)
_WAITING = re.compile(r"^BenchmarkWaitingRuns\S*\s.*?([\d.-]+) B/run\s+([\d.-]+) goroutines/run", re.MULTILINE)


@dataclass(slots=True)
class GraphFigures:
    """What was measured of graphs."""

    nodes: list[Measurement] = field(default_factory=list)
    """Microseconds from the call of one node to that of the next."""
    processor: dict[str, list[float]] = field(default_factory=dict)
    """Microseconds of processor time of all of a run, by its nodes, for each run of a contender of these."""
    fan_out: list[Measurement] = field(default_factory=list)
    """Microseconds of a run with many tasks side by side, and a join."""
    conversation: dict[str, list[float]] = field(default_factory=dict)
    """Bytes that were written for a conversation, by saver, once a round."""
    waiting_bytes: list[float] = field(default_factory=list)
    """Of each run that waits for a person, beyond the journal's index, once a round."""
    waiting_goroutines: list[float] = field(default_factory=list)
    """Of all these runs."""
    skipped: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


def measure_graphs(folder: Path, sizes: Sizes, say: Callable[[str], None]) -> GraphFigures:
    """Run the same graphs on both sides, in turns, and park runs of the runtime."""
    figures = GraphFigures()
    folder = folder.resolve()
    with ExitStack() as stack:
        say("graphs, beside LangGraph")
        command: list[str | Path] = [build("benchmark", folder), "-data-dir", folder / "graphs"]
        ours = stack.enter_context(drive(_OURS, command, folder))
        theirs = None
        try:
            theirs = stack.enter_context(start_peer(LANGGRAPH, folder, install=sizes.install_peers))
            figures.versions |= theirs.versions
        except (PeerMissing, ChildFailed) as error:
            figures.skipped.append(f"{LANGGRAPH.name} is left out: {str(error).splitlines()[0]}")
        figures.nodes = _take_turns(list(_node_contenders(ours, theirs, sizes, figures.processor)), sizes)
        figures.fan_out = _take_turns(list(_fan_out_contenders(ours, theirs, sizes)), sizes)
        for name, peer, saver in _conversations(ours, theirs):
            order = {"graph": "conversation", "steps": sizes.graph_messages, "saver": saver}
            figures.conversation[name] = [peer.measure(order)["bytes"] for _ in range(sizes.graph_conversations)]
    say(f"{WAITING_RUNS:,} runs that wait for a person")
    figures.waiting_bytes, figures.waiting_goroutines = _measure_waiting(sizes)
    return figures


def _take_turns(contenders: list[Contender], sizes: Sizes) -> list[Measurement]:
    return compare_latency(
        contenders, rounds=sizes.graph_rounds, calls=sizes.graph_calls, slow_calls=1, warmup_calls=sizes.graph_calls
    )


def _node_contenders(
    ours: Peer, theirs: Peer | None, sizes: Sizes, processor: dict[str, list[float]]
) -> Iterator[Contender]:
    steps = sizes.graph_steps

    def measure(name: str, peer: Peer, saver: str) -> float:
        measured = peer.measure({"graph": "loop", "steps": steps, "saver": saver})
        processor.setdefault(name, []).append(measured["processor"] / steps * 1e6)
        return measured["between"] / (steps - 1)

    for saver, their_saver, label, their_label in _SAVERS:
        name, their_name = f"graph_{saver}", f"graph_{saver}_langgraph"
        yield Contender(name, f"graph node, {label}", partial(measure, name, ours, saver), slow=saver == "sync")
        if theirs is not None:
            their_measure = partial(measure, their_name, theirs, their_saver)
            yield Contender(their_name, f"LangGraph node, {their_label}", their_measure, slow=True)


def _fan_out_contenders(ours: Peer, theirs: Peer | None, sizes: Sizes) -> Iterator[Contender]:
    for peer, name, label in ((ours, "fan_out", "graph"), (theirs, "fan_out_langgraph", "LangGraph")):
        if peer is not None:
            order = {"graph": "fanout", "steps": sizes.graph_tasks, "saver": "none"}
            yield Contender(name, f"{label}, no checkpoints", partial(peer.call, order))


def _conversations(ours: Peer, theirs: Peer | None) -> Iterator[tuple[str, Peer, str]]:
    for saver in ("async", "sync"):
        yield f"conversation_{saver}", ours, saver
    if theirs is not None:
        yield "conversation_langgraph", theirs, "sqlite"


def _measure_waiting(sizes: Sizes) -> tuple[list[float], list[float]]:
    """The bytes of each run that waits, and the goroutines of all, once for each count of a benchmark of Go's."""
    command = ["go", "test", "-run", "^$", "-bench", "WaitingRuns", "-benchtime", "1x", "./internal/agent"]
    done = subprocess.run(  # noqa: S603 - a fixed command
        [*command, "-count", str(sizes.graph_waiting_rounds)],
        cwd=HERE.parent / "go-runtime",
        capture_output=True,
        text=True,
        check=False,
    )
    found = _WAITING.findall(done.stdout)
    if done.returncode or len(found) != sizes.graph_waiting_rounds:
        raise ChildFailed(f"the benchmark of waiting runs failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return [float(size) for size, _ in found], [WAITING_RUNS * float(goroutines) for _, goroutines in found]
