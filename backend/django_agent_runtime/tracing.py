"""Sends the spans of this process to LangSmith, or to an OpenTelemetry collector.

Workers (`manage.py runagent`) call `configure` themselves. A web process that is to be in the same traces calls it in
its settings or its `wsgi.py`, and has what makes spans of its requests, such as `opentelemetry-instrumentation-django`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django_agent_runtime._spans import PROJECT_ATTRIBUTE, current_project

__all__ = ["configure", "flush"]

logger = logging.getLogger(__name__)

_LANGSMITH_ENDPOINT = "https://api.smith.langchain.com"
_LANGSMITH_PATH = "/otel/v1/traces"
_OTLP_HEADERS = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
_MARK = "_django_agent_runtime"


def configure(service_name: str = "django") -> bool:
    """Send spans to where the environment says, both kinds to where both are set.

    `LANGSMITH_ENDPOINT` (one of one's own ends in `/api/v1`), `LANGSMITH_API_KEY` and `LANGSMITH_PROJECT` name a
    LangSmith; without an endpoint it is LangSmith's own where `LANGSMITH_TRACING` is true. `OTEL_EXPORTER_OTLP_*` name
    a collector that takes OTLP over HTTP. `OTEL_SDK_DISABLED=true` turns all off.

    A tracer provider that is there already keeps what it sends where; only LangSmith is added to it. Calling this twice
    does nothing more.

    Args:
        service_name: What the process is called where `OTEL_SERVICE_NAME` does not say.

    Returns:
        Whether spans are sent. False too where the packages of `django-agent-runtime[otel]` are missing, which is
        logged.
    """
    langsmith, otlp = _wants_langsmith(), _wants_otlp()
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or not (langsmith or otlp):
        return False
    try:
        from opentelemetry import trace  # noqa: PLC0415 - only who wants spans needs it
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        logger.warning(
            "traces are not sent: install django-agent-runtime[otel]", extra={"err": f"{type(error).__name__}: {error}"}
        )
        return False
    provider: Any = trace.get_tracer_provider()
    if getattr(provider, _MARK, False):
        return True
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(resource=_make_resource(service_name))
        if otlp:
            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
    provider.add_span_processor(_make_project_processor())
    if langsmith:
        provider.add_span_processor(BatchSpanProcessor(_make_langsmith_exporter()))
    setattr(provider, _MARK, True)
    return True


def flush(seconds: float) -> None:
    """Send what is left, for `seconds` at most."""
    import sys  # noqa: PLC0415

    trace: Any = sys.modules.get("opentelemetry.trace")
    send = getattr(trace.get_tracer_provider(), "force_flush", None) if trace is not None else None
    if send is None:
        return
    # It waits for a collector that hangs, whatever it is told.
    thread = threading.Thread(target=send, name="agent-runtime-flush", daemon=True)
    thread.start()
    thread.join(seconds)


def _wants_langsmith() -> bool:
    wanted = os.environ.get("LANGSMITH_TRACING", "").lower()
    if wanted == "false":
        return False
    return bool(os.environ.get("LANGSMITH_ENDPOINT")) or (
        wanted == "true" and bool(os.environ.get("LANGSMITH_API_KEY"))
    )


def _wants_otlp() -> bool:
    return os.environ.get("OTEL_TRACES_EXPORTER") != "none" and any(
        os.environ.get(name) for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    )


def _make_resource(service_name: str) -> Any:
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415

    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create(None if named else {"service.name": service_name})


def _make_langsmith_exporter() -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    endpoint = os.environ.get("LANGSMITH_ENDPOINT") or _LANGSMITH_ENDPOINT
    headers = {
        "x-api-key": os.environ.get("LANGSMITH_API_KEY"),
        "Langsmith-Project": os.environ.get("LANGSMITH_PROJECT"),
    }
    with _without(_OTLP_HEADERS):
        # They are another collector's, and would be added to these.
        return OTLPSpanExporter(
            endpoint=endpoint.rstrip("/") + _LANGSMITH_PATH,
            headers={name: value for name, value in headers.items() if value},
        )


def _make_project_processor() -> Any:
    from opentelemetry.sdk.trace import SpanProcessor  # noqa: PLC0415

    class ProjectProcessor(SpanProcessor):
        """Puts every span that begins in a run into the run's project, whoever makes it."""

        def on_start(self, span: Any, parent_context: Any = None) -> None:
            project = current_project()
            if project is not None:
                span.set_attribute(PROJECT_ATTRIBUTE, project)

    return ProjectProcessor()


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
