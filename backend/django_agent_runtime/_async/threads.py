"""Threads of graphs."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from django_agent_runtime import _threads
from django_agent_runtime._arguments import check_whole
from django_agent_runtime._channel import new_request_id
from django_agent_runtime._codec import check_text, encode_object
from django_agent_runtime.grpc_client.agentruntime.v1 import thread_service_pb2 as pb
from django_agent_runtime.types import Thread, ThreadState

from .calls import AsyncCalls

__all__ = ["AsyncThreads"]


class AsyncThreads(AsyncCalls):
    """Threads of graphs: states that outlive runs, each of which is a turn of its thread."""

    async def aget_thread_state(
        self, thread_id: str | None = None, revision: int | None = None, *, run_id: str | None = None
    ) -> ThreadState:
        """How a thread stands, or stood at a revision.

            go_runtime.execute_task("langgraph_task", {"graph_id": "talk", "thread_id": "ada", "said": ["hello"]})
            assert go_runtime.get_thread_state("ada").values["said"] == ["hello"]

        Args:
            thread_id: The thread.
            revision: One of its checkpoints; None: the latest.
            run_id: In place of `thread_id`, a run of a graph: the thread that it is a turn of, or its own one.

        Raises:
            ThreadNotFound: There is no such thread, or the revision is not kept.
            RunNotFound: There is no such run.
            GraphNotFound: Its graph was deleted.
        """
        request = pb.GetThreadStateRequest(
            thread_id=check_text("thread_id", thread_id or ""),
            revision=check_whole("revision", revision) or 0,
            run_id=check_text("run_id", run_id or ""),
        )
        response = await self._acall(_threads.GET_THREAD_STATE, request)
        return _threads.to_state(response.state)

    async def alist_thread_history(
        self,
        thread_id: str | None = None,
        before: int | None = None,
        limit: int | None = 20,
        *,
        run_id: str | None = None,
    ) -> list[ThreadState]:
        """How a thread stood after each step, the newest first.

        Args:
            thread_id: The thread.
            before: Only what comes before this revision; None: all.
            limit: At most this many; None: all that are kept, which are the latest 100 at least.
            run_id: In place of `thread_id`, a run of a graph: the thread that it is a turn of, or its own one.

        Raises:
            ThreadNotFound: There is no such thread.
            RunNotFound: There is no such run.
            GraphNotFound: Its graph was deleted.
        """
        left = check_whole("limit", limit)
        states: list[ThreadState] = []
        request = pb.ListThreadHistoryRequest(
            thread_id=check_text("thread_id", thread_id or ""),
            before=check_whole("before", before) or 0,
            run_id=check_text("run_id", run_id or ""),
        )
        while left is None or left > len(states):
            request.page_size = 100 if left is None else min(left - len(states), 100)
            page = await self._acall(_threads.LIST_THREAD_HISTORY, request)
            states.extend(_threads.to_state(state) for state in page.states)
            request.before = page.next_before
            if not request.before:
                break
        return states

    async def aupdate_thread_state(
        self,
        thread_id: str,
        values: Mapping[str, Any],
        as_node: str | None = None,
        graph_id: str | None = None,
    ) -> ThreadState:
        """Write to the channels of a thread as if a node had, and plan what follows that node.

        Nothing runs before the next turn, which without values of its own goes on with what was planned:

            go_runtime.update_thread_state("ada", {"said": ["in fact, bye"]}, as_node="START")
            go_runtime.execute_task("langgraph_task", {"graph_id": "talk", "thread_id": "ada"})

        What waits or failed in the thread's latest step is dropped. A turn that is under way fails at its next step.

        Args:
            values: What is written, by channel; the channels' reducers fold it in.
            as_node: The node that wrote. `START`: the values are an input; `END`: nothing follows. None: the node that
                has returned last, if it was one.
            graph_id: The graph of a thread that there is not yet, which begins.

        Raises:
            InvalidRequest: No such channel or node, or the thread is one of another graph.
            ThreadNotFound: There is no such thread, and no `graph_id`.
            GraphNotFound: There is no such graph.
            ThreadBusy: Something else changed the thread meanwhile.
        """
        request = pb.UpdateThreadStateRequest(
            thread_id=check_text("thread_id", thread_id),
            graph_id=check_text("graph_id", graph_id or ""),
            as_node=check_text("as_node", as_node or ""),
            values=encode_object(values, "values"),
            request_id=new_request_id(),
        )
        response = await self._acall(_threads.UPDATE_THREAD_STATE, request)
        return _threads.to_state(response.state)

    async def afork_thread(
        self, thread_id: str, revision: int | None = None, to_thread_id: str | None = None
    ) -> ThreadState:
        """Begin a thread with a checkpoint of another one, which stays as it is.

        Tasks of the checkpoint that have not returned are done by the next turn; what waited asks again.

        Args:
            revision: The checkpoint to begin with; None: the latest.
            to_thread_id: The new thread, or the same one, which then goes on from there; None: a new UUID.

        Raises:
            ThreadNotFound: There is no such thread, or the revision is not kept.
            GraphNotFound: Its graph was deleted.
            ThreadBusy: There is a thread `to_thread_id`, or something else changed it meanwhile.
        """
        request = pb.ForkThreadRequest(
            thread_id=check_text("thread_id", thread_id),
            revision=check_whole("revision", revision) or 0,
            to_thread_id=str(uuid.uuid4()) if to_thread_id is None else check_text("to_thread_id", to_thread_id),
            request_id=new_request_id(),
        )
        response = await self._acall(_threads.FORK_THREAD, request)
        return _threads.to_state(response.state)

    async def alist_threads(self) -> list[Thread]:
        """The threads of the namespace, those that changed last at the end."""
        threads: dict[str, Thread] = {}
        request = pb.ListThreadsRequest()
        while True:
            page = await self._acall(_threads.LIST_THREADS, request)
            for wire in page.threads:
                # One that changes meanwhile comes again.
                threads.pop(wire.thread_id, None)
                threads[wire.thread_id] = _threads.to_thread(wire)
            request.page_token = page.next_page_token
            if not request.page_token:
                return list(threads.values())

    async def adelete_thread(self, thread_id: str) -> None:
        """Remove a thread with all its history; one that there is not is no error.

        A turn that is under way fails at its next step.
        """
        await self._acall(_threads.DELETE_THREAD, pb.DeleteThreadRequest(thread_id=check_text("thread_id", thread_id)))
