"""The fake's threads of graphs: there are none, because it runs no graph."""

from __future__ import annotations

from typing import NoReturn

import grpc

from django_agent_runtime.grpc_client.agentruntime.v1 import thread_service_pb2 as pb
from django_agent_runtime.grpc_client.agentruntime.v1 import thread_service_pb2_grpc
from django_agent_runtime.testing._wire import refuse


class FakeThreadService(thread_service_pb2_grpc.ThreadServiceServicer):
    """See the service definition."""

    def GetThreadState(self, request: pb.GetThreadStateRequest, context: grpc.ServicerContext) -> NoReturn:  # noqa: N802
        """Refuse."""
        _refuse_unknown(request.thread_id or request.run_id, context)

    def ListThreadHistory(self, request: pb.ListThreadHistoryRequest, context: grpc.ServicerContext) -> NoReturn:  # noqa: N802
        """Refuse."""
        _refuse_unknown(request.thread_id or request.run_id, context)

    def UpdateThreadState(self, request: pb.UpdateThreadStateRequest, context: grpc.ServicerContext) -> NoReturn:  # noqa: N802
        """Refuse, whether or not a graph is named."""
        _refuse_unknown(request.thread_id, context)

    def ForkThread(self, request: pb.ForkThreadRequest, context: grpc.ServicerContext) -> NoReturn:  # noqa: N802
        """Refuse."""
        _refuse_unknown(request.thread_id, context)

    def ListThreads(self, _request: pb.ListThreadsRequest, _context: grpc.ServicerContext) -> pb.ListThreadsResponse:  # noqa: N802
        """Always none."""
        return pb.ListThreadsResponse()

    def DeleteThread(self, _request: pb.DeleteThreadRequest, _context: grpc.ServicerContext) -> pb.DeleteThreadResponse:  # noqa: N802
        """One that there is not is no error."""
        return pb.DeleteThreadResponse()


def _refuse_unknown(thread_id: str, context: grpc.ServicerContext) -> NoReturn:
    refuse(
        context,
        grpc.StatusCode.NOT_FOUND,
        "THREAD_NOT_FOUND",
        f"there is no thread {thread_id!r}: the fake runtime does not run graphs",
        metadata={"thread_id": thread_id},
    )
