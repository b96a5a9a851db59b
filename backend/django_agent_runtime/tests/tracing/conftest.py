"""A collector of traces, and spans of this process that go to it."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

PATIENCE_SECONDS = 40.0


@dataclass(frozen=True)
class Received:
    """A span as it came."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    service: str
    path: str
    headers: dict[str, str]


@dataclass
class Receiver:
    """What came, and where to send more."""

    url: str
    spans: list[Received] = field(default_factory=list)

    def named(self, name: str) -> Received:
        """The one span of a name."""
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, [span.name for span in self.spans]
        return found[0]

    def wait_for(self, *names: str) -> None:
        """Wait until a span of each name has come."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while missing := set(names) - {span.name for span in self.spans}:
            assert time.monotonic() < deadline, (missing, [span.name for span in self.spans])
            time.sleep(0.02)

    def path_of(self, name: str) -> list[str]:
        """The names from a span up to the first of its trace; the last is the id of a parent that did not come."""
        by_id = {span.span_id: span for span in self.spans}
        at = self.named(name)
        path = [at.name]
        while at.parent_id:
            if at.parent_id not in by_id:
                return [*path, at.parent_id]
            at = by_id[at.parent_id]
            path.append(at.name)
        return path


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    received = Receiver("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            _take(received, body, self.path, {key.lower(): value for key, value in self.headers.items()})
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    received.url = f"http://127.0.0.1:{server.server_port}"
    yield received
    server.shutdown()
    server.server_close()
    thread.join()


def _take(received: Receiver, body: bytes, path: str, headers: dict[str, str]) -> None:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = _read(resource.resource.attributes).get("service.name", "")
        for scope in resource.scope_spans:
            for span in scope.spans:
                ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                received.spans.append(Received(span.name, *ids, _read(span.attributes), service, path, headers))


def _read(pairs: Any) -> dict[str, Any]:
    attributes = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        value = getattr(pair.value, kind) if kind else None
        attributes[pair.key] = (
            [item.string_value for item in pair.value.array_value.values] if kind == "array_value" else value
        )
    return attributes


@pytest.fixture
def use_provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], TracerProvider]]:
    """Have an exporter get this process's spans, until the test ends."""
    providers: list[TracerProvider] = []

    def use(exporter: Any, **options: Any) -> TracerProvider:
        provider = TracerProvider(**options)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        # OpenTelemetry lets a process set it once.
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        providers.append(provider)
        return provider

    yield use
    for provider in providers:
        provider.shutdown()


@pytest.fixture
def exporter(use_provider: Callable[[Any], TracerProvider]) -> InMemorySpanExporter:
    """The spans of this process."""
    memory = InMemorySpanExporter()
    use_provider(memory)
    return memory
