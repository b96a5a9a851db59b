"""Threads of graphs: the rpcs, and what goes through them."""

from __future__ import annotations

from datetime import timezone

from ._channel import Rpc
from ._codec import decode, decode_object
from .grpc_client.agentruntime.v1 import thread_service_pb2 as pb
from .types import Thread, ThreadInterrupt, ThreadSource, ThreadState, ThreadStatus

__all__ = [
    "DELETE_THREAD",
    "FORK_THREAD",
    "GET_THREAD_STATE",
    "LIST_THREADS",
    "LIST_THREAD_HISTORY",
    "UPDATE_THREAD_STATE",
    "to_state",
    "to_thread",
]

_SERVICE = "agentruntime.v1.ThreadService"

GET_THREAD_STATE = Rpc(_SERVICE, "GetThreadState", pb.GetThreadStateRequest, pb.GetThreadStateResponse)
LIST_THREAD_HISTORY = Rpc(_SERVICE, "ListThreadHistory", pb.ListThreadHistoryRequest, pb.ListThreadHistoryResponse)
UPDATE_THREAD_STATE = Rpc(_SERVICE, "UpdateThreadState", pb.UpdateThreadStateRequest, pb.UpdateThreadStateResponse)
FORK_THREAD = Rpc(_SERVICE, "ForkThread", pb.ForkThreadRequest, pb.ForkThreadResponse)
LIST_THREADS = Rpc(_SERVICE, "ListThreads", pb.ListThreadsRequest, pb.ListThreadsResponse)
DELETE_THREAD = Rpc(_SERVICE, "DeleteThread", pb.DeleteThreadRequest, pb.DeleteThreadResponse)

_STATUSES: dict[int, ThreadStatus] = {
    pb.THREAD_STATUS_RUNNING: ThreadStatus.RUNNING,
    pb.THREAD_STATUS_WAITING: ThreadStatus.WAITING,
    pb.THREAD_STATUS_DONE: ThreadStatus.DONE,
    pb.THREAD_STATUS_FAILED: ThreadStatus.FAILED,
}
_SOURCES: dict[int, ThreadSource] = {
    pb.THREAD_SOURCE_INPUT: ThreadSource.INPUT,
    pb.THREAD_SOURCE_RESUME: ThreadSource.RESUME,
    pb.THREAD_SOURCE_STEP: ThreadSource.STEP,
    pb.THREAD_SOURCE_UPDATE: ThreadSource.UPDATE,
    pb.THREAD_SOURCE_FORK: ThreadSource.FORK,
}


def to_state(wire: pb.ThreadState) -> ThreadState:
    """A checkpoint as callers get it."""
    return ThreadState(
        thread_id=wire.thread_id,
        graph_id=wire.graph_id,
        revision=wire.revision,
        parent=wire.parent,
        status=_STATUSES[wire.status],
        source=_SOURCES[wire.source],
        step=wire.step,
        time=wire.time.ToDatetime(timezone.utc) if wire.HasField("time") else None,
        values=decode_object(wire.values),
        next=tuple(wire.next),
        interrupts=tuple(
            ThreadInterrupt(interrupt.interrupt_id, interrupt.node, decode(interrupt.value), interrupt.run_id)
            for interrupt in wire.interrupts
        ),
        error=wire.error,
    )


def to_thread(wire: pb.Thread) -> Thread:
    """A thread as callers get it."""
    return Thread(
        thread_id=wire.thread_id,
        graph_id=wire.graph_id,
        revision=wire.revision,
        status=_STATUSES[wire.status],
        update_time=wire.update_time.ToDatetime(timezone.utc) if wire.HasField("update_time") else None,
        error=wire.error,
    )
