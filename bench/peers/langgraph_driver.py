"""Drives LangGraph: see `bench.peer` for what is said on stdin and stdout.

The graphs are those of go-runtime/internal/graph/thread/benchmark. As its documentation has them: a `StateGraph` of a
`TypedDict`, compiled once for each saver, invoked in a thread of its own. `saver` is `none`, `memory` for an
`InMemorySaver` with its default durability, or `sqlite` for a `SqliteSaver` whose every step is on the disk before the
next begins.
"""

from __future__ import annotations

import json
import operator
import os
import sqlite3
import sys
import time
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

_ANSWERS = ("look up the order", "the order is late", "write to the customer", "done")
_TEXT = "x" * 1000


class _Clock:
    """When the first node was called, and the last: for nodes that follow each other."""

    first = 0.0
    last = 0.0

    def tick(self) -> None:
        self.last = time.perf_counter()
        self.first = self.first or self.last


class _Loop(TypedDict):
    n: Annotated[int, operator.add]
    text: str


class _FanOut(TypedDict):
    n: Annotated[int, operator.add]
    results: Annotated[list[float], operator.add]


class _Conversation(TypedDict):
    n: Annotated[int, operator.add]
    messages: Annotated[list[str], operator.add]


def _loop(steps: int, clock: _Clock) -> Any:
    def model(state: _Loop) -> dict[str, Any]:
        clock.tick()
        return {"n": 1, "text": _ANSWERS[state["n"] % len(_ANSWERS)]}

    def tool(state: _Loop) -> dict[str, Any]:  # noqa: ARG001 - LangGraph goes by the name
        clock.tick()
        return {"n": 1}

    graph = StateGraph(_Loop)
    graph.add_node("model", model)
    graph.add_node("tool", tool)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", lambda state: END if state["n"] == steps else "tool", ["tool", END])
    graph.add_conditional_edges("tool", lambda state: END if state["n"] == steps else "model", ["model", END])
    return graph


def _fan_out(steps: int, _: _Clock) -> Any:
    graph = StateGraph(_FanOut)
    graph.add_node("work", lambda state: {"n": 1, "results": [state["item"]]})
    graph.add_node("join", lambda _: {})
    graph.add_conditional_edges(START, lambda _: [Send("work", {"item": float(i)}) for i in range(steps)], ["work"])
    graph.add_edge("work", "join")
    return graph


def _conversation(steps: int, clock: _Clock) -> Any:
    def say(state: _Conversation) -> dict[str, Any]:  # noqa: ARG001 - LangGraph goes by the name
        clock.tick()
        return {"n": 1, "messages": [_TEXT]}

    graph = StateGraph(_Conversation)
    graph.add_node("say", say)
    graph.add_edge(START, "say")
    graph.add_conditional_edges("say", lambda state: END if state["n"] == steps else "say", ["say", END])
    return graph


_GRAPHS = {"loop": _loop, "fanout": _fan_out, "conversation": _conversation}


class _Driver:
    """Compiles graphs as they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "langgraph.sqlite"
        # As `SqliteSaver.from_conn_string` opens it.
        self._sqlite = SqliteSaver(sqlite3.connect(self._file, check_same_thread=False))
        self._compiled: dict[tuple[str, int, str], tuple[Any, _Clock]] = {}

    def measure(self, value: dict[str, Any]) -> dict[str, float]:
        name, steps, saver = value["graph"], value["steps"], value["saver"]
        graph, clock = self._compile(name, steps, saver)
        clock.first = 0.0
        config = {"configurable": {"thread_id": str(uuid.uuid4())}, "recursion_limit": steps + 2}
        options: dict[str, Any] = {"durability": "sync"} if saver == "sqlite" else {}
        before = self._bytes()
        begin, processor = time.perf_counter(), time.process_time()
        state = graph.invoke({}, config, **options)
        seconds, processor = time.perf_counter() - begin, time.process_time() - processor
        assert state["n"] == steps
        return {
            "seconds": seconds,
            "between": clock.last - clock.first,
            "processor": processor,
            "bytes": self._bytes() - before,
        }

    def _compile(self, name: str, steps: int, saver: str) -> tuple[Any, _Clock]:
        key = (name, steps, saver)
        if key not in self._compiled:
            clock = _Clock()
            # A saver in memory keeps all that it was given, so that each graph gets its own.
            checkpointer = {"none": None, "memory": InMemorySaver(), "sqlite": self._sqlite}[saver]
            self._compiled[key] = (_GRAPHS[name](steps, clock).compile(checkpointer=checkpointer), clock)
        return self._compiled[key]

    def _bytes(self) -> int:
        """What the checkpoints in the file have; 0 before there are any."""
        cursor = self._sqlite.conn
        try:
            row = cursor.execute("SELECT sum(length(checkpoint) + length(metadata)) FROM checkpoints").fetchone()
            writes = cursor.execute("SELECT sum(length(value)) FROM writes").fetchone()
        except sqlite3.OperationalError:
            return 0
        return (row[0] or 0) + (writes[0] or 0)


def _serve() -> None:
    driver = _Driver(Path(os.environ["BENCH_FOLDER"]))
    names = ("langgraph", "langgraph-checkpoint-sqlite")
    _say({"versions": {name: version(name) for name in names}})
    for line in sys.stdin:
        _say(driver.measure(json.loads(line)["value"]))


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve()
