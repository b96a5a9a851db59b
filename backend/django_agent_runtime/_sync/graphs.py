"""Generated from `_async/graphs.py` by `scripts/unasync.py`: edit that file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from django_agent_runtime._arguments import check_stream_modes, check_whole
from django_agent_runtime._codec import check_text
from django_agent_runtime._graph_chunks import GraphChunks, check_told, graph_request
from django_agent_runtime._graph_streams import GraphStream
from django_agent_runtime.types import NewTask, Run, StreamMode

from .run_events import SyncRunEvents
from .runs import SyncRuns

__all__ = ["SyncGraphs"]


class SyncGraphs(SyncRuns, SyncRunEvents):
    """Runs of graphs, step by step."""

    def stream_graph(
        self,
        graph_id: str,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - what LangGraph calls it
        *,
        stream_mode: StreamMode | Iterable[StreamMode] = "updates",
        thread_id: str | None = None,
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        deadline: float | None = None,
        run_timeout: float | None = None,
        idempotency_key: str | None = None,
        run_id: str | None = None,
    ) -> GraphStream:
        """Run a graph and iterate over what it does, as LangGraph's `stream` does, until the run has ended.

        With one mode each item is that mode's chunk, with several it is `(mode, chunk)`. It goes on over lost
        connections, restarts and forks; what a step did that a crash of the runtime has done again comes again.

        A question of a node comes as `{"__interrupt__": [GraphInterrupt, …]}` in `updates` and `values`, and the
        stream goes on with its answer:

            for chunk in go_runtime.stream_graph("review", {"text": "Hello"}):
                for question in chunk.get("__interrupt__", ()):
                    go_runtime.resume_run(question.run_id, "yes", interrupt_id=question.interrupt_id)

        Args:
            graph_id: The graph, or a chain.
            input: Values of its channels.
            stream_mode: `updates`: `{node: what it wrote}` of each node that returns. `values`: the state before the
                first step and behind each one. `messages`: `(MessageChunk, {"langgraph_node": …, …})` for each piece
                of what a model says. `custom`: `{name: data}` of what nodes emit themselves. `debug`: tasks, their
                results and checkpoints. Or several of them.
            thread_id: The thread that the run is a turn of; None: one of its own.
            description: For people, at most 1000 bytes.
            metadata: A JSON object kept with the run, with the modes as its `stream_mode`.
            deadline: Seconds after which the run is cancelled if it has not ended; None: never.
            run_timeout: Seconds one attempt may take; None: the runtime's default.
            idempotency_key: Calls with the same key and payload are one run.
            run_id: The caller's own id for the run, a UUID.

        Raises:
            InvalidValue: There is no such stream mode.
            GraphNotFound: There is no such graph.
            InvalidRequest: The input does not fit; `.violations` names each field.
            RunFailed: While iterating, when all chunks have come: the run failed; RunTimedOut and RunCancelled are of
                this kind.
        """
        modes = check_stream_modes("stream_mode", stream_mode)
        task = NewTask(
            task_type="langgraph_task",
            input_data=input,
            description=description,
            metadata=metadata,
            deadline=deadline,
            run_timeout=run_timeout,
            idempotency_key=idempotency_key,
            run_id=run_id,
        )
        request = graph_request(task, graph_id, thread_id, modes)
        chunks = GraphChunks(modes, several=not isinstance(stream_mode, str))
        return GraphStream(chunks, partial(self._submit, request), self.watch_run, self.get_run)

    def stream_run(
        self,
        run_id: str,
        *,
        stream_mode: StreamMode | Iterable[StreamMode] = "updates",
        after_sequence: int = 0,
    ) -> GraphStream:
        """Iterate over what the run of a graph does and has done, as `stream_graph` does for one that it makes.

        So another process goes on where one has left off, such as with the answer to a question:

            stream = go_runtime.stream_graph("review", {"text": "Hello"})
            [question] = next(stream)["__interrupt__"]
            ...
            go_runtime.resume_run(question.run_id, "yes", interrupt_id=question.interrupt_id)
            for chunk in go_runtime.stream_run(stream.run_id, after_sequence=stream.position):
                ...

        Args:
            run_id: A run of a graph.
            stream_mode: As of `stream_graph`. `values`, `messages` and `debug` are there if the run was made with them.
            after_sequence: Only what follows it, the `position` of another stream. What a run that a node waits for
                has said may come again.

        Raises:
            InvalidValue: There is no such stream mode, or the run was made without it.
            RunNotFound: There is no such run.
            RunFailed: As of `stream_graph`.
        """
        modes = check_stream_modes("stream_mode", stream_mode)
        after = check_whole("after_sequence", after_sequence) or 0
        chunks = GraphChunks(modes, several=not isinstance(stream_mode, str), after_sequence=after)
        find = partial(self._find_told, check_text("run_id", run_id), modes)
        return GraphStream(chunks, find, self.watch_run, self.get_run)

    def _find_told(self, run_id: str, modes: Sequence[StreamMode]) -> Run:
        run = self.get_run(run_id)
        check_told(run, modes)
        return run
