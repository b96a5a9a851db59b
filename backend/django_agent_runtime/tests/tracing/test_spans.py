"""What the spans of a worker say."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from django_agent_runtime._redaction import Redactor
from django_agent_runtime._spans import SpanSettings, span_attempt, span_step
from django_agent_runtime._trace_context import current_traceparent
from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from django_agent_runtime.grpc_client.agentruntime.v1 import worker_service_pb2 as worker_pb
from django_agent_runtime.runtime.errors import Parked
from django_agent_runtime.runtime.llm.client import LLMClient, LLMRequest, LLMResponse
from django_agent_runtime.runtime.tools import Tool, ToolRegistry

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = f"00-{TRACE_ID}-b7ad6b7169203331-01"
UNSAMPLED = f"00-{TRACE_ID}-b7ad6b7169203331-00"


def make_assignment(metadata: dict[str, Any] | None = None, **fields: Any) -> worker_pb.Assignment:
    run = agent_pb.Run(
        run_id="run-1",
        agent_id="helper",
        task_type="agent.run",
        attempt=2,
        input=b'{"question": "shown", "api_key": "S3CRET"}',
        metadata=json.dumps(metadata or {}).encode(),
    )
    return worker_pb.Assignment(run=run, **{"traceparent": SAMPLED, **fields})


class ScriptedClient(LLMClient):
    provider = "openai"

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__("gpt-5-mini")
        self._error = error

    async def _complete(self, request: LLMRequest) -> LLMResponse:
        if self._error is not None:
            raise self._error
        call = {"id": "call-1", "type": "function", "function": {"name": "search", "arguments": '{"token": "S3CRET"}'}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
        return LLMResponse(message, usage, "gpt-5-mini-2026", "tool_calls")

    async def _stream(self, request: LLMRequest) -> AsyncIterator[str | LLMResponse]:
        yield "Hel"
        yield "lo"
        if self._error is not None:
            raise self._error
        yield LLMResponse({"role": "assistant", "content": "Hello"}, {}, "gpt-5-mini-2026")


def by_name(exporter: InMemorySpanExporter) -> dict[str, Any]:
    return {span.name: span for span in exporter.get_finished_spans()}


MESSAGES: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "shown"}, {"type": "image_url", "image_url": {}}]},
    {"role": "tool", "tool_call_id": "call-0", "content": '{"token": "S3CRET"}'},
]


async def work(error: Exception | None = None) -> None:
    with span_step("look it up", "look it up#1"):
        await ScriptedClient(error).generate(MESSAGES, temperature=0.5, max_tokens=7)
        registry = ToolRegistry()
        registry.register(Tool("search", handler=lambda **_: {"found": "shown", "token": "S3CRET"}))
        await registry.execute("search", '{"token": "S3CRET"}', call_id="call-1")


async def test_names_of_attributes(exporter: InMemorySpanExporter) -> None:
    metadata = {"conversation_id": "c-1", "tags": ["a", "b"]}
    settings = SpanSettings(redactor=Redactor(["*_key", "token"]))
    with span_attempt(make_assignment(metadata, trace_asked=True, trace_project="p"), settings) as span:
        await work()
        span.output({"answer": "shown"})
    spans = by_name(exporter)
    common = {
        "langsmith.trace.session_name": "p",
        "langsmith.metadata.run_id": "run-1",
        "langsmith.metadata.thread_id": "c-1",
        "gen_ai.conversation.id": "c-1",
        "langsmith.span.tags": "a,b",
    }
    expected: dict[str, dict[str, Any]] = {
        "invoke_agent helper": {
            "langsmith.span.kind": "chain",
            "langsmith.trace.name": "helper",
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "helper",
            "agentruntime.attempt": 2,
            "input.value": '{"question":"shown","api_key":"[redacted]"}',
            "output.value": '{"answer":"shown"}',
        },
        "step look it up": {"langsmith.span.kind": "chain", "agentruntime.step": "look it up#1"},
        "chat gpt-5-mini": {
            "langsmith.span.kind": "llm",
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.system": "openai",
            "gen_ai.request.model": "gpt-5-mini",
            "gen_ai.request.temperature": 0.5,
            "gen_ai.request.max_tokens": 7,
            "gen_ai.response.model": "gpt-5-mini-2026",
            "gen_ai.response.finish_reasons": ("tool_calls",),
            "gen_ai.usage.input_tokens": 3,
            "gen_ai.usage.output_tokens": 2,
            "gen_ai.usage.total_tokens": 5,
            "gen_ai.input.messages": '[{"role":"system","parts":[{"type":"text","content":"Be brief."}]},'
            '{"role":"user","parts":[{"type":"text","content":"shown"},{"type":"image_url"}]},'
            '{"role":"tool","parts":[{"type":"tool_call_response","id":"call-0",'
            '"response":"{\\"token\\":\\"[redacted]\\"}"}]}]',
            "gen_ai.output.messages": '[{"role":"assistant","parts":[{"type":"tool_call","id":"call-1","name":"search",'
            '"arguments":{"token":"[redacted]"}}],"finish_reason":"tool_calls"}]',
        },
        "execute_tool search": {
            "langsmith.span.kind": "tool",
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "search",
            "gen_ai.tool.call.id": "call-1",
            "gen_ai.tool.call.arguments": '{"token":"[redacted]"}',
            "gen_ai.tool.call.result": '{"found":"shown","token":"[redacted]"}',
        },
    }
    assert spans.keys() == expected.keys()
    for name, attributes in expected.items():
        assert dict(spans[name].attributes) | common | attributes == dict(spans[name].attributes), name
    ids = {name: span.context.span_id for name, span in spans.items()}
    assert f"{spans['invoke_agent helper'].parent.span_id:016x}" == "b7ad6b7169203331"
    assert spans["step look it up"].parent.span_id == ids["invoke_agent helper"]
    for name in ("chat gpt-5-mini", "execute_tool search"):
        assert spans[name].parent.span_id == ids["step look it up"]
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {TRACE_ID}


@pytest.mark.parametrize(
    ("content", "asked", "captured"),
    [("never", True, False), ("asked", True, True), ("asked", False, False), ("always", False, True)],
)
async def test_content_is_captured_of_whom_it_is_to_be(
    exporter: InMemorySpanExporter, content: str, asked: bool, captured: bool
) -> None:
    error = ValueError("it is shown")
    with (
        pytest.raises(ValueError, match="shown"),
        span_attempt(make_assignment(trace_asked=asked), SpanSettings(content, Redactor(["api_key", "token"]))),
    ):
        await work(error)
    for span in exporter.get_finished_spans():
        assert "S3CRET" not in span.to_json()
        assert ("shown" in span.to_json()) is captured
        assert (span.attributes or {})["error.type"] == "ValueError"
        assert [event.name for event in span.events] == ["exception"]


def test_the_conventions_variable_asks_for_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    assert [SpanSettings.make(content, ()).content for content in ("asked", "never")] == ["always", "never"]


async def test_streams_are_traced_to_their_end(exporter: InMemorySpanExporter) -> None:
    with span_attempt(make_assignment(trace_asked=True), SpanSettings()):
        async for _ in ScriptedClient().stream(MESSAGES):
            # What is done between two pieces is no part of the call.
            with span_step("between", "between#1"):
                pass
        with pytest.raises(ConnectionError):
            await ScriptedClient(ConnectionError("cut")).stream(MESSAGES).get_response()
        left = ScriptedClient().stream(MESSAGES)
        await left.__anext__()
        await left.aclose()
    chats = [span for span in exporter.get_finished_spans() if span.name == "chat gpt-5-mini"]
    assert [span.status.is_ok or span.status.is_unset for span in chats] == [True, False, True]
    assert '"content":"Hello"' in str((chats[0].attributes or {})["gen_ai.output.messages"])
    attempt = by_name(exporter)["invoke_agent helper"].get_span_context()
    between = [span for span in exporter.get_finished_spans() if span.name == "step between"]
    assert attempt is not None
    assert {span.parent.span_id for span in between if span.parent} == {attempt.span_id}


async def test_what_is_active_and_sent_by_nobody_is_no_parent(exporter: InMemorySpanExporter) -> None:
    foreign = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(1)))
    with span_attempt(make_assignment(), SpanSettings()):
        with trace.use_span(foreign), span_step("inside", "inside#1"):
            within = current_traceparent()
        with trace.use_span(foreign):
            called = current_traceparent()
        with trace.get_tracer("mine").start_as_current_span("mine"), span_step("within mine", "within#1"):
            pass
    spans = by_name(exporter)
    attempt, step = spans["invoke_agent helper"].context, spans["step inside"]
    assert step.parent.span_id == attempt.span_id
    assert called == f"00-{TRACE_ID}-{attempt.span_id:016x}-01"
    assert within == f"00-{TRACE_ID}-{step.context.span_id:016x}-01"
    assert spans["step within mine"].parent.span_id == spans["mine"].context.span_id
    with trace.use_span(foreign):
        # Outside of any run it is the caller's own business.
        assert current_traceparent() == f"00-{1:032x}-{2:016x}-01"


async def test_waiting_is_no_failure(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(Parked), span_attempt(make_assignment(), SpanSettings()), span_step("ask", "ask#1"):
        raise Parked("the run waits")
    assert [span.status.is_unset for span in exporter.get_finished_spans()] == [True, True]


@pytest.mark.parametrize(
    ("fields", "count", "trace_id"),
    [
        ({"traceparent": UNSAMPLED}, 0, None),
        ({"traceparent": ""}, 1, None),
        ({"traceparent": "nonsense"}, 1, None),
        ({"traceparent": SAMPLED}, 1, TRACE_ID),
        # The runtime sends nothing, or it would have sampled it.
        ({"traceparent": UNSAMPLED, "trace_asked": True}, 1, None),
    ],
)
async def test_sampling(
    use_provider: Callable[..., TracerProvider], fields: dict[str, Any], count: int, trace_id: str | None
) -> None:
    memory = InMemorySpanExporter()
    use_provider(memory, sampler=ALWAYS_ON)
    with span_attempt(make_assignment(**fields), SpanSettings()):
        await asyncio.sleep(0)
    spans = memory.get_finished_spans()
    assert len(spans) == count
    if trace_id is not None:
        assert [f"{span.context.trace_id:032x}" for span in spans] == [trace_id]


def test_redactor() -> None:
    redactor = Redactor(["password", "*_key"])
    assert redactor.text({"Password": 1, "a_key": [2], "key": "x"}) == (
        '{"Password":"[redacted]","a_key":"[redacted]","key":"x"}'
    )
    assert redactor.text(["{password", '[{"password": 1}]']) == r'["{password","[{\"password\":\"[redacted]\"}]"]'
    long = redactor.text({"text": "é" * 200_000, "more": ["x" * 5000] * 100})
    assert len(long.encode()) <= 1 << 16
    assert json.loads(long)["text"].endswith("[200000 characters]")
    assert "more than the limit" in redactor.text(list(range(100_000)))
    assert redactor.text(object).startswith('"<class')


def test_nothing_imports_opentelemetry() -> None:
    code = (
        "import sys, django_agent_runtime.go_integration, django_agent_runtime.tracing, "
        "django_agent_runtime.runtime.worker.worker as w; "
        "from django_agent_runtime._spans import NOTHING, span_attempt, SpanSettings\n"
        "assert django_agent_runtime.tracing.configure() is False\n"
        "with span_attempt(None, SpanSettings()) as span: assert span is NOTHING\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], env={}, check=False).returncode == 0
