"""What LangGraph's stream modes make of the events of a graph's run."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ._codec import check_text, encode_object
from ._requests import create_request
from .exceptions import InvalidValue
from .grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from .types import GraphInterrupt, MessageChunk, NewTask, Run, RunEvent, StreamMode

__all__ = ["GraphChunks", "check_told", "graph_request"]

# Under which the runtime reads the stream modes in a run's metadata.
_MODES = "stream_mode"
_GRAPH_TASKS = frozenset({"langgraph_task", "langraph_task", "langchain_task"})
# The modes of which a run tells because of one of these; of all others it always does.
_TOLD_FOR: dict[StreamMode, frozenset[str]] = {
    "values": frozenset({"values", "debug"}),
    "messages": frozenset({"messages"}),
    "debug": frozenset({"debug"}),
}
# What agents and the runtime emit that is nobody's own event.
_STANDARD = ("run.", "step.", "state.", "assistant.", "tool.", "graph.")
_STANDARD_TYPES = frozenset({"error", "usage"})


def graph_request(
    task: NewTask, graph_id: str, thread_id: str | None, modes: Sequence[StreamMode]
) -> agent_pb.CreateRunRequest:
    """The request for a run of a graph that tells what the modes need.

    Raises:
        InvalidValue: A field cannot be sent.
    """
    names = {"graph_id": check_text("graph_id", graph_id)}
    if thread_id is not None:
        names["thread_id"] = check_text("thread_id", thread_id)
    asked = replace(
        task,
        input_data=_with(task.input_data, "input", names),
        metadata=_with(task.metadata, "metadata", {_MODES: list(modes)}),
    )
    return create_request(asked, input_name="input")


def _with(given: Any, name: str, members: dict[str, Any]) -> dict[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        # Refused, as it would be by itself.
        encode_object(given, name)
    return {**(given or {}), **members}


def check_told(run: Run, modes: Sequence[StreamMode]) -> None:
    """Refuse a run that does not tell what the modes need.

    Raises:
        InvalidValue: It is none of a graph, or was made without one of the modes.
    """
    if run.task_type not in _GRAPH_TASKS:
        raise InvalidValue.of("run_id", f"is that of {run.task_type}, which is no graph")
    asked = run.metadata.get(_MODES)
    told = frozenset(asked if isinstance(asked, list) else ())
    for mode in modes:
        if mode in _TOLD_FOR and not _TOLD_FOR[mode] & told:
            raise InvalidValue.of("stream_mode", f"{mode} is none that run {run.run_id} was made with")


class GraphChunks:
    """Makes chunks of the events of one run, and of the runs that its nodes have work for them."""

    def __init__(self, modes: Sequence[StreamMode], *, several: bool, after_sequence: int = 0) -> None:
        self._modes = frozenset(modes)
        self._after = after_sequence
        self._several = several
        self._values: dict[str, Any] = {}
        # The nodes that ask, by questions; and by runs that are awaited, the nodes that do, with their steps.
        self._asking: dict[str, str] = {}
        self._awaiting: dict[str, tuple[str, int]] = {}
        self._looked_at: set[str] = set()

    def sub_runs(self, event: RunEvent) -> list[str]:
        """The runs whose events are to be looked at before this one: each is named once."""
        payload = event.payload
        if event.type == "graph.awaits":
            self._awaiting.setdefault(payload["data"]["run"], (payload["node"], payload["step"]))
            return []
        if event.type == "run.waiting":
            found = list(payload["run_ids"])
        elif event.type in {"graph.node.finished", "graph.node.failed"}:
            found = [run_id for run_id, (node, _) in self._awaiting.items() if node == payload["node"]]
        else:
            return []
        found = [run_id for run_id in found if run_id not in self._looked_at]
        self._looked_at.update(found)
        if self._was_seen(event):
            return []
        above = self._awaiting.get(event.run_id, ("", 0))
        for run_id in found:
            self._awaiting.setdefault(run_id, above)
        return found

    def of(self, event: RunEvent) -> list[Any]:
        """The chunks of one event: with several modes each is with its mode."""
        awaiting = self._awaiting.get(event.run_id)
        made = self._of_graph(event) if awaiting is None else self._of_sub_run(event, *awaiting)
        if self._was_seen(event):
            return []
        wanted = [(mode, chunk) for mode, chunk in made if mode in self._modes]
        return wanted if self._several else [chunk for _, chunk in wanted]

    def _was_seen(self, event: RunEvent) -> bool:
        """Whether it is read only for the state that it leaves, as none of a sub-run is."""
        return event.run_id not in self._awaiting and event.sequence <= self._after

    def _of_graph(self, event: RunEvent) -> list[tuple[StreamMode, Any]]:
        payload: dict[str, Any] = event.payload
        node, data = payload.get("node", ""), payload.get("data")
        # The tasks of subgraphs are their nodes' own.
        made: list[tuple[StreamMode, Any]] = []
        match event.type:
            case "graph.node.started" if "/" not in node:
                made = [_debug(event, "task", {"id": payload["task"], "name": node})]
            case "graph.node.finished" if "/" not in node:
                made = [("updates", {node: data}), _debug(event, "task_result", _result(payload, data, None))]
            case "graph.node.failed" if "/" not in node:
                made = [_debug(event, "task_result", _result(payload, None, data))]
            case "graph.begin":
                self._values = payload["data"]
                made = self._values_now()
            case "graph.step":
                _change(self._values, payload["data"])
                made = self._values_now()
            case "graph.checkpoint":
                made = self._checkpoint(event)
            case "graph.message":
                made = [_message(payload["data"], node, payload["step"])]
            case "graph.custom":
                made = [("custom", {payload["name"]: data})]
            case "graph.interrupt":
                self._asking[payload["data"]["id"]] = payload["data"]["node"]
            case "run.interrupted":
                made = _asked(event, self._questions(event))
            case _:
                pass
        return made

    def _of_sub_run(self, event: RunEvent, node: str, step: int) -> list[tuple[StreamMode, Any]]:
        if event.type == "assistant.delta":
            return [_message(event.payload, node, step)]
        if event.type == "run.interrupted":
            question = GraphInterrupt(event.payload["interrupt_id"], node, event.payload["payload"], event.run_id)
            return _asked(event, [question])
        if event.type in _STANDARD_TYPES or event.type.startswith(_STANDARD):
            return []
        return [("custom", {event.type: event.payload})]

    def _values_now(self) -> list[tuple[StreamMode, Any]]:
        # The caller's own: what follows changes it in place.
        return [("values", copy.deepcopy(self._values))] if "values" in self._modes else []

    def _checkpoint(self, event: RunEvent) -> list[tuple[StreamMode, Any]]:
        if "debug" not in self._modes:
            return []
        saved = event.payload["data"]
        metadata = {"source": saved["source"], "step": event.payload["step"], "status": saved["status"]}
        checkpoint = {
            "revision": saved["revision"],
            "values": copy.deepcopy(self._values),
            "next": saved.get("next", []),
            "metadata": metadata,
        }
        return [_debug(event, "checkpoint", checkpoint)]

    def _questions(self, event: RunEvent) -> list[GraphInterrupt]:
        first, asked = event.payload["interrupt_id"], event.payload["payload"]
        several = asked.get("questions") if isinstance(asked, dict) else None
        # A single question may look like that as well, but has not its own id in it.
        if isinstance(several, list) and several and isinstance(several[0], dict) and several[0].get("id") == first:
            return [GraphInterrupt(each["id"], each["node"], each["value"], event.run_id) for each in several]
        return [GraphInterrupt(first, self._asking.get(first, ""), asked, event.run_id)]


def _asked(event: RunEvent, questions: list[GraphInterrupt]) -> list[tuple[StreamMode, Any]]:
    return [
        ("updates", {"__interrupt__": questions}),
        ("values", {"__interrupt__": questions}),
        _debug(event, "interrupt", {"interrupts": questions}),
    ]


def _debug(event: RunEvent, kind: str, payload: dict[str, Any]) -> tuple[StreamMode, Any]:
    step = event.payload.get("step")
    return "debug", {"type": kind, "step": step, "timestamp": event.time.isoformat(), "payload": payload}


def _result(payload: dict[str, Any], result: Any, error: str | None) -> dict[str, Any]:
    return {"id": payload["task"], "name": payload["node"], "result": result, "error": error}


def _message(piece: dict[str, Any], node: str, step: int) -> tuple[StreamMode, Any]:
    return "messages", (MessageChunk(piece["content"]), {"langgraph_node": node, "langgraph_step": step})


def _change(values: dict[str, Any], changes: list[dict[str, Any]]) -> None:
    """Apply a JSON Patch, as far as the runtime makes use of it: to lists it adds at their ends."""
    for change in changes:
        *parents, last = (token.replace("~1", "/").replace("~0", "~") for token in change["path"].split("/")[1:])
        target: Any = values
        for token in parents:
            target = target[token]
        if isinstance(target, list):
            target.append(change["value"])
        elif change["op"] == "remove":
            del target[last]
        else:
            target[last] = change["value"]
