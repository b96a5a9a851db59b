"""What the three fake services share: namespaces, and refusals as the runtime words them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMESPACE_KEY = "agent-runtime-namespace"
DEFAULT_NAMESPACE = "default"
NAMESPACE = re.compile(r"[a-z0-9-]{1,63}")


def read_namespace(context: grpc.ServicerContext) -> str:
    """The namespace the caller named in the call's metadata."""
    namespace = dict(context.invocation_metadata()).get(NAMESPACE_KEY, DEFAULT_NAMESPACE)
    text = namespace.decode() if isinstance(namespace, bytes) else namespace
    if not NAMESPACE.fullmatch(text):
        refuse_field(context, "namespace", "must be 1 to 63 of a-z, 0-9 and -")
    return text


def refuse(
    context: grpc.ServicerContext,
    code: grpc.StatusCode,
    reason: str,
    message: str,
    *,
    metadata: Mapping[str, str] | None = None,
    violations: Mapping[str, str] | None = None,
) -> NoReturn:
    """End the call with an error that carries `google.rpc` details, as the runtime does."""
    status = status_pb2.Status(code=code.value[0], message=message)
    _pack(status, error_details_pb2.ErrorInfo(reason=reason, domain="agentruntime", metadata=dict(metadata or {})))
    if violations:
        bad_request = error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
                for field, description in violations.items()
            ]
        )
        _pack(status, bad_request)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


def refuse_field(context: grpc.ServicerContext, field: str, description: str) -> NoReturn:
    """Refuse a request because of one field."""
    refuse(
        context,
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_ARGUMENT",
        f"{field}: {description}",
        metadata={"field": field},
        violations={field: description},
    )


def _pack(status: status_pb2.Status, detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest) -> None:
    packed = AnyMessage()
    packed.Pack(detail)
    status.details.append(packed)
