"""Everything that is measured, running at the same time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import redis
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.grpc_client.agentruntime.v1.state_service_pb2 import SetStateRequest, SetStateResponse
from django_agent_runtime.grpc_client.agentruntime.v1.state_service_pb2_grpc import StateServiceStub
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import BytesValue

from bench.servers import Echo, Runtime, build, find_redis, start_celery, start_echo, start_redis, start_runtime

if TYPE_CHECKING:
    from celery import Task

VALUE: dict[str, Any] = {
    "theme": "dark",
    "language": "en",
    "limits": {"daily": 20, "monthly": 400, "ratio": 0.75},
    "recent": ["orders", "customers", "invoices", "reports"],
    "note": "The quick brown fox jumps over the lazy dog, and the lazy dog lets it pass.",
    "active": True,
}
"""What is written and read everywhere: about 256 bytes of JSON."""

PAYLOAD = json.dumps(VALUE, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Peers:
    """Redis and Celery, where this machine has a Redis server."""

    redis_default: redis.Redis
    """With its default configuration: a write is in memory when it is acknowledged."""
    redis_fsync: redis.Redis
    """With `appendfsync always`."""
    task: Task[[dict[str, Any]], dict[str, Any]]
    """A Celery task that returns its input."""


@dataclass(frozen=True, slots=True)
class Stand:
    """The floor, two runtimes and the peers."""

    echo: Echo
    fsync: Runtime
    os: Runtime
    """The runtime with `--durability os`."""
    peers: Peers | None
    folder: Path
    """Where all of them keep their data."""


@contextmanager
def start_stand(folder: Path, sockets: Path) -> Iterator[Stand]:
    """Start everything, on loopback, with data in `folder` and Unix sockets in `sockets`."""
    with ExitStack() as stack:
        echo = stack.enter_context(start_echo(build("echo", folder), folder, sockets))
        fsync = stack.enter_context(start_runtime(folder, sockets, durability="fsync"))
        os = stack.enter_context(start_runtime(folder, sockets, durability="os"))
        yield Stand(echo, fsync, os, _start_peers(stack, folder), folder)


def _start_peers(stack: ExitStack, folder: Path) -> Peers | None:
    binary = find_redis()
    if binary is None:
        return None
    default = stack.enter_context(start_redis(binary, folder, fsync=False))
    fsync = stack.enter_context(start_redis(binary, folder, fsync=True))
    broker_port: int = default.connection_pool.connection_kwargs["port"]
    return Peers(default, fsync, stack.enter_context(start_celery(broker_port, folder)))


class EchoClient:
    """Calls the floor with grpcio as it comes: no options, no metadata, no interceptors."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)
        self._bytes: Callable[[BytesValue], BytesValue] = self._channel.unary_unary(
            "/bench.v1.EchoService/Bytes",
            request_serializer=BytesValue.SerializeToString,
            response_deserializer=BytesValue.FromString,
        )
        self._struct: Callable[[Struct], Struct] = self._channel.unary_unary(
            "/bench.v1.EchoService/Struct",
            request_serializer=Struct.SerializeToString,
            response_deserializer=Struct.FromString,
        )

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def send_bytes(self) -> BytesValue:
        """The floor itself: bytes there and back."""
        return self._bytes(BytesValue(value=PAYLOAD))

    def send_json(self) -> Any:
        """A value there and back as JSON bytes, as the runtime's wire carries it."""
        return json.loads(self._bytes(BytesValue(value=json.dumps(VALUE).encode())).value)

    def send_struct(self) -> dict[str, Any]:
        """A value there and back as google.protobuf.Struct."""
        request = Struct()
        request.update(VALUE)
        response: dict[str, Any] = MessageToDict(self._struct(request))
        return response


@contextmanager
def open_echo(stand: Stand, *, over_socket: bool = False) -> Iterator[EchoClient]:
    """A client of the floor."""
    client = EchoClient(f"unix:{stand.echo.socket}" if over_socket else stand.echo.address)
    try:
        yield client
    finally:
        client.close()


class StubClient:
    """Calls the runtime with the generated stub and grpcio as it comes, as someone without the client would."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)
        self._stub = StateServiceStub(self._channel)  # type: ignore[no-untyped-call] # grpcio-tools' own gap

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def set_state(self, key: str) -> SetStateResponse:
        """Set a key to the value, of which the JSON is there already."""
        response: SetStateResponse = self._stub.SetState(SetStateRequest(key=key, value=PAYLOAD))
        return response


@contextmanager
def open_stub(stand: Stand) -> Iterator[StubClient]:
    """The bare stub of the runtime with durability fsync."""
    client = StubClient(f"127.0.0.1:{stand.fsync.port}")
    try:
        yield client
    finally:
        client.close()


@contextmanager
def open_runtime(runtime: Runtime, *, over_socket: bool = False) -> Iterator[GoRuntimeIntegration]:
    """A client of a runtime."""
    client = runtime.connect(over_socket=over_socket)
    try:
        yield client
    finally:
        client.disconnect()
