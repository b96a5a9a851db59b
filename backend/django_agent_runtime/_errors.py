"""From what gRPC reports to the exceptions of this package: the one place that knows status codes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from . import exceptions
from .types import Run, RunState

__all__ = ["CallFailure", "failure_error", "output_of", "reason_error"]

_DOMAIN = "agentruntime"

_BY_REASON: dict[str, type[exceptions.AgentRuntimeError]] = {
    "INTERNAL": exceptions.InternalError,
    "INVALID_ARGUMENT": exceptions.InvalidRequest,
    "UNAUTHENTICATED": exceptions.Unauthenticated,
    "PERMISSION_DENIED": exceptions.PermissionDenied,
    "RATE_LIMITED": exceptions.RateLimited,
    "QUEUE_FULL": exceptions.QueueFull,
    "STORAGE_FULL": exceptions.StorageFull,
    "TOO_LARGE": exceptions.TooLarge,
    "UNAVAILABLE": exceptions.RuntimeUnavailable,
    "REVISION_MISMATCH": exceptions.RevisionMismatch,
    "KEY_EXISTS": exceptions.KeyExists,
    "IDEMPOTENCY_CONFLICT": exceptions.IdempotencyConflict,
    "RUN_NOT_FOUND": exceptions.RunNotFound,
    "AGENT_NOT_FOUND": exceptions.AgentNotFound,
    "TASK_TYPE_NOT_FOUND": exceptions.TaskTypeNotFound,
    "GRAPH_NOT_FOUND": exceptions.GraphNotFound,
    "DEFINITIONS_FULL": exceptions.DefinitionsFull,
    "FILE_NOT_FOUND": exceptions.RunFileNotFound,
    "FILES_DAMAGED": exceptions.FilesDamaged,
    "THREAD_NOT_FOUND": exceptions.ThreadNotFound,
    "THREAD_BUSY": exceptions.ThreadBusy,
    "EVENTS_TRUNCATED": exceptions.EventsTruncated,
    "RUN_ENDED": exceptions.RunEnded,
    "SLOW_READER": exceptions.Overloaded,
    "CONCURRENCY_LIMIT": exceptions.ConcurrencyLimit,
    "RUN_NOT_WAITING": exceptions.RunNotWaiting,
    "RUN_NOT_ENDED": exceptions.RunNotEnded,
    "SCHEDULE_NOT_FOUND": exceptions.ScheduleNotFound,
    "SCHEDULE_EXISTS": exceptions.ScheduleExists,
    "LEASE_LOST": exceptions.LeaseLost,
}

# For what carries no reason: gRPC itself, a proxy, or a newer runtime with a reason not known here.
_BY_CODE: dict[grpc.StatusCode, type[exceptions.AgentRuntimeError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: exceptions.InvalidRequest,
    grpc.StatusCode.DEADLINE_EXCEEDED: exceptions.CallTimedOut,
    grpc.StatusCode.NOT_FOUND: exceptions.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: exceptions.Conflict,
    grpc.StatusCode.ABORTED: exceptions.Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: exceptions.Conflict,
    grpc.StatusCode.PERMISSION_DENIED: exceptions.PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: exceptions.Unauthenticated,
    grpc.StatusCode.RESOURCE_EXHAUSTED: exceptions.Overloaded,
    grpc.StatusCode.UNAVAILABLE: exceptions.RuntimeUnavailable,
    grpc.StatusCode.CANCELLED: exceptions.ClientClosed,
}


# What gRPC itself says of a message above the limit, on either side, with a code that means other things too.
_GRPC_TOO_LARGE = re.compile(r"(Sent|Received) message larger than max(?: \((\d+) vs\. (\d+)\))?")


class CallFailure(Exception):
    """How one attempt of a call failed, apart from gRPC's own objects.

    gRPC's errors keep the call and the channel alive through their attributes and traceback. A caller may hold
    an exception for as long as it likes, and a channel that lives at a fork breaks the child, so what is chained
    and raised is this.
    """

    def __init__(self, code: grpc.StatusCode, details: str, status: bytes = b"") -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details
        self.status = status
        """The serialized google.rpc.Status, or empty."""
        self.explanation = ""
        """Why nothing was reached, where more is known than gRPC said."""

    @classmethod
    def of(cls, error: Any) -> CallFailure:
        """The facts of a grpc.RpcError that is a grpc.Call too, as all that a channel raises are."""
        trailers = error.trailing_metadata() or ()
        status = next((value for key, value in trailers if key == "grpc-status-details-bin"), b"")
        return cls(error.code(), error.details() or "", status)


def failure_error(failure: CallFailure, *, address: str, request_id: str = "") -> exceptions.AgentRuntimeError:
    """The exception that `failure` stands for, to be raised from it.

    Args:
        address: Where the runtime was looked for, for the message.
        request_id: What the call was named.
    """
    status = _parse_status(failure.status)
    details: dict[str, Any] = {"request_id": request_id}
    kind = _BY_CODE.get(failure.code, exceptions.InternalError)
    for packed in status.details:
        info = error_details_pb2.ErrorInfo()
        violation = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if packed.Unpack(info) and info.domain == _DOMAIN:
            details["reason"] = info.reason
            details["metadata"] = info.metadata
            kind = _BY_REASON.get(info.reason, kind)
        elif packed.Unpack(violation):
            details["violations"] = [(field.field, field.description) for field in violation.field_violations]
        elif packed.Unpack(retry):
            details["retry_after"] = retry.retry_delay.ToTimedelta().total_seconds()
    if kind is exceptions.Overloaded and (found := _GRPC_TOO_LARGE.search(failure.details)):
        return _too_large(found, request_id)
    if not issubclass(kind, exceptions.InvalidRequest):
        details.pop("violations", None)
    return kind(_describe(kind, failure, address), **details)


def reason_error(reason: str, message: str, metadata: Mapping[str, str]) -> exceptions.AgentRuntimeError:
    """The exception for a reason that came inside a message instead of as a status."""
    kind = _BY_REASON.get(reason, exceptions.InternalError)
    details: dict[str, Any] = {}
    if issubclass(kind, exceptions.InvalidRequest) and (field := metadata.get("field")):
        details["violations"] = [(field, message.removeprefix(f"{field}: "))]
    return kind(message, reason=reason, metadata=metadata, **details)


def output_of(run: Run) -> dict[str, Any]:
    """The output of a run that succeeded.

    Raises:
        RunTimedOut: Its deadline or run timeout passed.
        RunCancelled: It was cancelled.
        RunFailed: It failed.
    """
    if run.state is RunState.SUCCEEDED:
        return run.output or {}
    reason = run.error.reason if run.error else ""
    message = run.error.message if run.error else f"the run is {run.state}"
    kind = exceptions.RunFailed
    if run.state is RunState.TIMED_OUT or reason == "RUN_DEADLINE_EXCEEDED":
        kind = exceptions.RunTimedOut
    elif run.state is RunState.CANCELLED:
        kind = exceptions.RunCancelled
    raise kind(f"run {run.run_id} of {run.task_type}: {message}", run=run, reason=reason)


def _too_large(found: re.Match[str], request_id: str) -> exceptions.TooLarge:
    """What stands for a message that gRPC refused, on the way out or back."""
    subject = "request" if found[1] == "Sent" else "answer"
    if found[2] is None:
        return exceptions.TooLarge(f"the {subject} is larger than a message may be", request_id=request_id)
    return exceptions.TooLarge(
        f"the {subject} is {found[2]} bytes long, the limit is {found[3]}; "
        "that of a single value is lower still: `get_server_info().max_value_bytes`",
        metadata={"field": subject, "size": found[2], "limit": found[3]},
        request_id=request_id,
    )


def _parse_status(serialized: bytes) -> status_pb2.Status:
    try:
        return status_pb2.Status.FromString(serialized)
    except DecodeError:
        return status_pb2.Status()


def _describe(kind: type[exceptions.AgentRuntimeError], failure: CallFailure, address: str) -> str:
    if kind is exceptions.RuntimeUnavailable:
        if failure.explanation:
            return f"the agent runtime at {address} cannot be reached: {failure.explanation}"
        return (
            f"the agent runtime at {address} cannot be reached: {failure.details}. "
            "Is it running (`manage.py goruntime`), and do host, port, socket and tls in GO_RUNTIME match it?"
        )
    if kind is exceptions.CallTimedOut:
        return f"the agent runtime at {address} did not answer in time"
    if kind is exceptions.ClientClosed:
        return f"the call was cancelled: {failure.details}"
    return failure.details or failure.code.name
