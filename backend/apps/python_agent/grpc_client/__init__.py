"""The generated stubs under the name the integration guide gives them; the library has them."""

from django_agent_runtime.grpc_client.agentruntime.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    error_pb2,
    event_service_pb2,
    event_service_pb2_grpc,
    state_service_pb2,
    state_service_pb2_grpc,
)

__all__ = [
    "agent_service_pb2",
    "agent_service_pb2_grpc",
    "error_pb2",
    "event_service_pb2",
    "event_service_pb2_grpc",
    "state_service_pb2",
    "state_service_pb2_grpc",
]
