"""Spans of a worker: of attempts, steps, tools and calls of models.

They have the names of OpenTelemetry's conventions for generative AI, and beside them LangSmith's and OpenInference's.
Nothing here imports OpenTelemetry: where somebody wants spans, it has been imported. Where it has not, or the trace is
not sampled, a span does nothing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from django_agent_runtime._codec import decode_object
from django_agent_runtime._redaction import DEFAULT_REDACTED, Redactor
from django_agent_runtime._trace_context import active_span, attempt_span
from django_agent_runtime.runtime.errors import ControlFlow

if TYPE_CHECKING:
    from django_agent_runtime.grpc_client.agentruntime.v1 import worker_service_pb2 as worker_pb
    from django_agent_runtime.runtime.llm.client import LLMRequest, LLMResponse

__all__ = [
    "NOTHING",
    "PROJECT_ATTRIBUTE",
    "Span",
    "SpanSettings",
    "begin_model",
    "current_project",
    "is_traced",
    "span_attempt",
    "span_model",
    "span_step",
    "span_tool",
]

PROJECT_ATTRIBUTE = "langsmith.trace.session_name"

_CAPTURE_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

_MOST_NAME_CHARACTERS = 200
_MOST_MESSAGE_CHARACTERS = 1000
_MOST_TAGS = 20
_MOST_TAG_CHARACTERS = 100

Kind = Literal["chain", "llm", "tool"]


@dataclass(frozen=True)
class SpanSettings:
    """What goes into spans."""

    content: str = "asked"
    """`never`, `asked` or `always`: of which runs inputs and outputs do. `asked`: those with `{"trace": true}`."""
    redactor: Redactor = field(default_factory=lambda: Redactor(DEFAULT_REDACTED))

    @classmethod
    def make(cls, content: str, redact: Sequence[str]) -> SpanSettings:
        """As the project says. The conventions' own variable asks for all runs, where that is not `never`."""
        if content == "asked" and os.environ.get(_CAPTURE_VARIABLE, "").lower() == "true":
            content = "always"
        return cls(content, Redactor(redact))


@dataclass(frozen=True)
class _Scope:
    """What all spans of a run share."""

    attributes: Mapping[str, str]
    captures: bool
    redactor: Redactor
    silent: bool
    """Whether the run is in a trace that is not sampled."""


_OUTSIDE = _Scope({}, captures=False, redactor=Redactor(()), silent=False)
_scope: ContextVar[_Scope] = ContextVar("agent_run_spans", default=_OUTSIDE)


class Span:
    """A span that has begun, or nothing."""

    def __init__(self, span: Any = None, scope: _Scope = _OUTSIDE, kind: Kind = "chain") -> None:
        self._span = span
        self._scope = scope
        self._kind = kind

    @property
    def captures(self) -> bool:
        """Whether inputs and outputs go into it."""
        return self._span is not None and self._scope.captures

    def set(self, attributes: Mapping[str, Any]) -> None:
        """Add attributes."""
        if self._span is not None:
            self._span.set_attributes(attributes)

    def input(self, value: Any) -> None:
        """What the work was given."""
        self._carry("input", "gen_ai.tool.call.arguments", value)

    def output(self, value: Any) -> None:
        """What the work came to."""
        self._carry("output", "gen_ai.tool.call.result", value)

    def asked(self, request: LLMRequest) -> None:
        """What a model was asked."""
        if self.captures:
            messages = [_to_message(message) for message in request.messages]
            self.set({"gen_ai.input.messages": self._scope.redactor.text(messages)})

    def answered(self, response: LLMResponse) -> None:
        """What a model answered, and what that took."""
        if self._span is None:
            return
        attributes: dict[str, Any] = {"gen_ai.response.finish_reasons": [str(response.finish_reason)]}
        if response.model:
            attributes["gen_ai.response.model"] = response.model
        if any(response.usage.values()):
            for name in ("input_tokens", "output_tokens", "total_tokens"):
                attributes[f"gen_ai.usage.{name}"] = response.usage.get(name, 0)
        if self.captures:
            message = {**_to_message(response.message), "finish_reason": str(response.finish_reason)}
            attributes["gen_ai.output.messages"] = self._scope.redactor.text([message])
        self.set(attributes)

    def fail(self, error: BaseException) -> None:
        """Why the work failed. The error's text goes where inputs and outputs do, since it may quote them."""
        if self._span is None or isinstance(error, (ControlFlow, GeneratorExit)):
            return
        name = type(error).__name__
        message = name
        if self.captures:
            try:
                message = str(error)[:_MOST_MESSAGE_CHARACTERS] or name
            except Exception:  # noqa: BLE001 - whatever the error's class does there
                message = name
        trace: Any = sys.modules["opentelemetry.trace"]
        self._span.set_status(trace.Status(trace.StatusCode.ERROR, message))
        self._span.set_attribute("error.type", name)
        self._span.add_event("exception", {"exception.type": name, "exception.message": message})

    def activate(self) -> AbstractContextManager[Any]:
        """Have it be the active one within a block."""
        if self._span is None:
            return nullcontext()
        trace: Any = sys.modules["opentelemetry.trace"]
        active: AbstractContextManager[Any] = trace.use_span(
            self._span, record_exception=False, set_status_on_exception=False
        )
        return active

    @contextmanager
    def use_for_attempt(self) -> Iterator[None]:
        """Have it be the attempt's within a block."""
        token = attempt_span.set(self._span)
        try:
            yield
        finally:
            attempt_span.reset(token)

    def end(self) -> None:
        """It is over."""
        if self._span is not None:
            self._span.end()

    def _carry(self, side: str, of_tool: str, value: Any) -> None:
        if not self.captures:
            return
        text = self._scope.redactor.text(value)
        self.set({f"{side}.value": text, f"{side}.mime_type": "application/json"})
        if self._kind == "tool":
            self.set({of_tool: text})


NOTHING = Span()


def is_traced() -> bool:
    """Whether a span that begins here could do something."""
    return "opentelemetry.trace" in sys.modules and not _scope.get().silent


def current_project() -> str | None:
    """The LangSmith project of the run that is going on here, if it names one."""
    return _scope.get().attributes.get(PROJECT_ATTRIBUTE)


@contextmanager
def span_attempt(assignment: worker_pb.Assignment, settings: SpanSettings) -> Iterator[Span]:
    """Have the block be an attempt of a run, in the run's trace: spans that begin in it are the run's."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None:
        yield NOTHING
        return
    context_api: Any = sys.modules["opentelemetry.context"]
    parent = _read_parent(trace, assignment)
    silent = parent is not None and not parent.trace_flags.sampled
    run = assignment.run
    scope = _Scope(
        _read_attributes(assignment),
        captures=settings.content == "always" or (settings.content == "asked" and assignment.trace_asked),
        redactor=settings.redactor,
        silent=silent,
    )
    context = context_api.Context()
    if parent is not None:
        context = trace.set_span_in_context(trace.NonRecordingSpan(parent), context)
    tokens = context_api.attach(context), _scope.set(scope)
    try:
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": run.agent_id,
            "agentruntime.run_id": run.run_id,
            "agentruntime.agent_id": run.agent_id,
            "agentruntime.task_type": run.task_type,
            "agentruntime.attempt": run.attempt,
            "langsmith.metadata.agent_id": run.agent_id,
            "langsmith.metadata.attempt": str(run.attempt),
        }
        with _active(_begin(f"invoke_agent {run.agent_id}", "chain", run.agent_id, attributes)) as span:
            if span.captures:
                span.input(decode_object(run.input))
            with span.use_for_attempt(), _use_project(assignment.trace_project):
                yield span
    finally:
        _scope.reset(tokens[1])
        context_api.detach(tokens[0])


@contextmanager
def span_step(name: str, key: str) -> Iterator[Span]:
    """Have the block be a step."""
    with _active(_begin(f"step {name}", "chain", name, {"agentruntime.step": key})) as span:
        yield span


@contextmanager
def span_tool(name: str, call_id: str | None) -> Iterator[Span]:
    """Have the block be a call of a tool; `call_id` is the model's for it."""
    attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name}
    if call_id:
        attributes["gen_ai.tool.call.id"] = call_id
    with _active(_begin(f"execute_tool {name}", "tool", name, attributes)) as span:
        yield span


@contextmanager
def span_model(provider: str, request: LLMRequest) -> Iterator[Span]:
    """Have the block be a call of a model."""
    with _active(begin_model(provider, request)) as span:
        yield span


def begin_model(provider: str, request: LLMRequest) -> Span:
    """The span of a call of a model, which is for the caller to end and is not the active one."""
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        # The conventions' earlier name of the same, which LangSmith reads.
        "gen_ai.system": provider,
        "gen_ai.request.model": request.model,
    }
    if request.temperature is not None:
        attributes["gen_ai.request.temperature"] = request.temperature
    if request.max_tokens is not None:
        attributes["gen_ai.request.max_tokens"] = request.max_tokens
    span = _begin(f"chat {request.model}", "llm", f"chat {request.model}", attributes)
    span.asked(request)
    return span


@contextmanager
def _active(span: Span) -> Iterator[Span]:
    """Have a span be the active one, and end with the block."""
    try:
        with span.activate():
            yield span
    except BaseException as error:
        span.fail(error)
        raise
    finally:
        span.end()


def _begin(name: str, kind: Kind, title: str, attributes: Mapping[str, Any]) -> Span:
    if not is_traced():
        return NOTHING
    trace: Any = sys.modules["opentelemetry.trace"]
    made = trace.get_tracer("django_agent_runtime").start_span(
        name[:_MOST_NAME_CHARACTERS],
        context=trace.set_span_in_context(active_span()),
        kind=trace.SpanKind.CLIENT if kind == "llm" else trace.SpanKind.INTERNAL,
    )
    if not made.is_recording():
        return NOTHING
    scope = _scope.get()
    made.set_attributes(
        {
            "langsmith.span.kind": kind,
            "langsmith.trace.name": title[:_MOST_NAME_CHARACTERS],
            **scope.attributes,
            **attributes,
        }
    )
    return Span(made, scope, kind)


def _use_project(project: str) -> AbstractContextManager[Any]:
    """Have LangSmith's SDK put into a project what it makes within a block, if the process has it and there is one."""
    helpers: Any = sys.modules.get("langsmith.run_helpers")
    if not project or helpers is None:
        return nullcontext()
    used: AbstractContextManager[Any] = helpers.tracing_context(project_name=project)
    return used


def _read_parent(trace: Any, assignment: worker_pb.Assignment) -> Any:
    """The span context that the attempt is under; None: it begins a trace."""
    parts = assignment.traceparent.split("-")
    try:
        _, trace_id, span_id, flags = parts
        parent = trace.SpanContext(
            int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=trace.TraceFlags(int(flags, 16))
        )
    except ValueError:
        return None
    # Nobody sends a parent that is not sampled, and backends drop spans whose parent never arrives.
    begins = not parent.is_valid or (assignment.trace_asked and not parent.trace_flags.sampled)
    return None if begins else parent


def _read_attributes(assignment: worker_pb.Assignment) -> dict[str, str]:
    attributes = {
        "langsmith.metadata.run_id": assignment.run.run_id,
        "langsmith.metadata.task_type": assignment.run.task_type,
    }
    if assignment.trace_project:
        attributes[PROJECT_ATTRIBUTE] = assignment.trace_project
    metadata = decode_object(assignment.run.metadata)
    conversation = metadata.get("conversation_id")
    if isinstance(conversation, str) and 0 < len(conversation) <= _MOST_NAME_CHARACTERS:
        attributes["gen_ai.conversation.id"] = attributes["langsmith.metadata.thread_id"] = conversation
    tags = metadata.get("tags")
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
        fit = [tag for tag in tags[:_MOST_TAGS] if tag and len(tag) <= _MOST_TAG_CHARACTERS and "," not in tag]
        if fit:
            attributes["langsmith.span.tags"] = ",".join(fit)
    return attributes


def _to_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message of the framework-neutral format as the conventions write it. Pictures are named, not shown."""
    role, content = str(message.get("role", "")), message.get("content")
    parts: list[dict[str, Any]] = []
    if role == "tool":
        parts.append({"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content})
        return {"role": role, "parts": parts}
    if isinstance(content, str):
        if content:
            parts.append({"type": "text", "content": content})
    elif isinstance(content, Sequence):
        for part in content:
            kind = str(part.get("type", "")) if isinstance(part, Mapping) else ""
            parts.append(
                {"type": "text", "content": part.get("text", "")} if kind == "text" else {"type": kind or "other"}
            )
    for call in message.get("tool_calls") or ():
        function = call.get("function", {})
        parts.append(
            {
                "type": "tool_call",
                "id": call.get("id"),
                "name": function.get("name"),
                "arguments": _read_arguments(function.get("arguments")),
            }
        )
    return {"role": role, "parts": parts}


def _read_arguments(arguments: Any) -> Any:
    try:
        return json.loads(arguments)
    except (TypeError, ValueError):
        return arguments
