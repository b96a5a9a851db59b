from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from django_agent_runtime.runtime.current import use_context
from django_agent_runtime.runtime.interfaces import (
    AgentError,
    DoNotRetry,
    EventType,
    RetryAfter,
    RunContext,
    RunResult,
    Tool,
    ToolRegistry,
)
from django_agent_runtime.runtime.llm import LLMClient, ModelError, ModelUnavailable, get_llm_client
from django_agent_runtime.runtime.llm.anthropic import write_messages
from django_agent_runtime.runtime.local import LocalRunContext
from django_agent_runtime.testing import arun_agent_locally

HELLO = [{"role": "user", "content": "Hello"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Say the weather.",
            "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
        },
    }
]
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"town": "Rome"}'}}
TURN = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Rome?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "id": 7, "usage": {}},
    {"role": "tool", "tool_call_id": "call_1", "content": {"degrees": 20}},
]


def sse(*payloads: Any, named: bool = False) -> list[str]:
    return [
        (f"event: {payload['type']}\n" if named else "") + f"data: {json.dumps(payload)}\n\n" for payload in payloads
    ]


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-x-1"}
    return {**head, "choices": choices, **more}


def completion(message: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-x-1",
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


OPENAI_STREAM = [
    *sse(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk({}, "stop"),
        {**chunk({}), "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}},
    ),
    "data: [DONE]\n\n",
]


# Of each kind of block, what comes piece by piece: the member, the delta's type and member, and what it begins with.
DELTAS: dict[str, list[tuple[str, str, str, Any]]] = {
    "text": [("text", "text_delta", "text", "")],
    "tool_use": [("input", "input_json_delta", "partial_json", {})],
    "thinking": [("thinking", "thinking_delta", "thinking", ""), ("signature", "signature_delta", "signature", "")],
}


def claude(content: list[dict[str, Any]], stop: str = "end_turn") -> list[str]:
    """An answer of Anthropic's, whose client always asks for a stream."""
    head = {"id": "m", "type": "message", "role": "assistant", "model": "claude-x-1", "content": []}
    usage = {"input_tokens": 5, "output_tokens": 2}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**head, "stop_reason": None, "stop_sequence": None, "usage": usage}}
    ]
    for index, block in enumerate(content):
        deltas = DELTAS.get(block["type"], [])
        begun = {**block, **{member: start for member, _, _, start in deltas}}
        events.append({"type": "content_block_start", "index": index, "content_block": begun})
        for member, kind, name, _ in deltas:
            text = block[member] if isinstance(block[member], str) else json.dumps(block[member])
            # A signature comes whole.
            pieces = [text] if member == "signature" else [text[:3], text[3:]]
            events += [
                {"type": "content_block_delta", "index": index, "delta": {"type": kind, name: piece}}
                for piece in pieces
            ]
        events.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": stop, "stop_sequence": None}
    events += [{"type": "message_delta", "delta": end, "usage": {"output_tokens": 2}}, {"type": "message_stop"}]
    return sse(*events, named=True)


ANTHROPIC_STREAM = claude(
    [{"type": "text", "text": "Hello"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}], "tool_use"
)


# LiteLLM warns of its own doings.
@pytest.fixture(params=["openai", "anthropic", pytest.param("litellm", marks=pytest.mark.filterwarnings("ignore"))])
def llm(request: pytest.FixtureRequest, provider: Any, clients: None) -> LLMClient:
    """A client of each SDK, against the test's server."""
    return make_client(request.param, provider)


def make_client(name: str, provider: Any, **options: Any) -> LLMClient:
    pytest.importorskip(name, reason=f"{name} is not installed")
    if name == "anthropic":
        return get_llm_client(name, "claude-x", api_key="k", base_url=provider.url, max_retries=0, **options)
    model = "openai/gpt-x" if name == "litellm" else "gpt-x"
    return get_llm_client(name, model, api_key="k", base_url=f"{provider.url}/v1", max_retries=0, **options)


def answer_text(provider: Any, llm: LLMClient, text: str) -> None:
    block = {"type": "text", "text": text}
    provider.answer(claude([block]) if llm.provider == "anthropic" else completion({"content": text}))


async def test_answer(llm: LLMClient, provider: Any) -> None:
    answer_text(provider, llm, "Hello")
    response = await llm.generate(HELLO, temperature=0.5, max_tokens=9)
    assert response.message == {"role": "assistant", "content": "Hello"}
    assert (response.content, response.tool_calls, response.finish_reason) == ("Hello", [], "stop")
    assert response.usage == {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    assert response.model.endswith("-x-1")
    [request] = provider.requests
    assert (request["temperature"], request["max_tokens"]) == (0.5, 9)
    assert request["model"] in {"gpt-x", "claude-x"}


async def test_tool_call_and_its_result(llm: LLMClient, provider: Any) -> None:
    if llm.provider == "anthropic":
        block = {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"town": "Rome"}}
        provider.answer(claude([block], "tool_use"))
    else:
        provider.answer(completion({"content": None, "tool_calls": [CALL]}, "tool_calls"))
    response = await llm.generate(HELLO, tools=TOOLS)
    assert response.message == {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert (response.tool_calls, response.finish_reason) == ([CALL], "tool_calls")
    answer_text(provider, llm, "20 degrees")
    await llm.generate(TURN, tools=[Tool("get_weather", "Say.", TOOLS[0]["function"]["parameters"])])  # type: ignore[index,arg-type]
    first, second = provider.requests
    result = json.dumps({"degrees": 20})
    if llm.provider == "anthropic":
        assert first["tools"] == [
            {
                "name": "get_weather",
                "description": "Say the weather.",
                "input_schema": TOOLS[0]["function"]["parameters"],  # type: ignore[index]
            }
        ]
        assert second["system"] == "Be brief."
        assert second["messages"] == [
            {"role": "user", "content": [{"type": "text", "text": "Weather in Rome?"}]},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"town": "Rome"}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": result}]},
        ]
    else:
        assert first["tools"] == TOOLS
        # LiteLLM leaves out what is None.
        second["messages"][2].setdefault("content", None)
        assert second["messages"] == [
            *TURN[:2],
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": result},
        ]


async def test_text_streams_to_the_run(llm: LLMClient, provider: Any) -> None:
    stream = ANTHROPIC_STREAM if llm.provider == "anthropic" else OPENAI_STREAM
    for _ in range(3):
        provider.answer(stream)
    ctx = LocalRunContext("chat", {})
    response = await llm.generate(HELLO, ctx=ctx)
    assert response.content == "Hello"
    assert response.usage == {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    assert ctx.run.get_payloads(EventType.ASSISTANT_DELTA) == [{"content": "Hel"}, {"content": "lo"}]
    with use_context(ctx):
        await llm.generate(HELLO, stream=True)
        assert len(ctx.run.events) == 4
        deltas = [part.delta async for part in llm.stream(HELLO)]
    assert deltas == ["Hel", "lo", ""]
    assert len(ctx.run.events) == 4, "a stream emits only where it was given the run"
    assert all(request["stream"] for request in provider.requests)


async def test_nothing_streams_to_the_run_unasked(llm: LLMClient, provider: Any) -> None:
    answer_text(provider, llm, "Hello")
    ctx = LocalRunContext("chat", {})
    with use_context(ctx):
        await llm.generate(HELLO)
    assert ctx.run.events == []


async def test_tool_calls_in_a_stream(provider: Any, clients: None) -> None:
    provider.answer(ANTHROPIC_STREAM)
    response = await make_client("anthropic", provider).stream(HELLO).get_response()
    expected = {"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    assert response.message == {"role": "assistant", "content": "Hello", "tool_calls": [expected]}
    assert response.finish_reason == "tool_calls"
    first = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    provider.answer(
        sse(
            chunk({"role": "assistant", "content": None, "tool_calls": [first]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]}),
            chunk({"tool_calls": [{**first, "index": 1, "id": "b"}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}),
            chunk({}, "tool_calls"),
        )
    )
    response = await (await make_client("openai", provider).stream(HELLO)).get_response()
    assert [(call["id"], call["function"]["arguments"]) for call in response.tool_calls] == [
        ("a", '{"a": 1}'),
        ("b", "{}"),
    ]
    assert response.message["content"] is None


def call_piece(**given: Any) -> dict[str, Any]:
    function = {key: given.pop(key) for key in ("name", "arguments") if key in given}
    return chunk({"tool_calls": [{**given, "function": function}]})


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        pytest.param(
            [
                call_piece(index=0, id="a", name="weather", arguments='{"a": 1}'),
                call_piece(index=0, id="b", name="weather", arguments='{"a": 2}'),
            ],
            [("a", "weather", '{"a": 1}'), ("b", "weather", '{"a": 2}')],
            id="whole-calls-of-one-index",
        ),
        pytest.param(
            [
                call_piece(id="a", name="weather", arguments=""),
                call_piece(arguments='{"a"'),
                call_piece(arguments=": 1}"),
                call_piece(id="b", name="time", arguments=""),
                call_piece(id="b", arguments="{}"),
            ],
            [("a", "weather", '{"a": 1}'), ("b", "time", "{}")],
            id="pieces-without-index",
        ),
        pytest.param(
            [
                call_piece(name="weather", arguments='{"a": 1}'),
                call_piece(name="weather", arguments='{"a":'),
                call_piece(arguments=" 2}"),
            ],
            [("call_0", "weather", '{"a": 1}'), ("call_1", "weather", '{"a": 2}')],
            id="neither-index-nor-id",
        ),
        pytest.param(
            [call_piece(index=0, id="a", name="now"), call_piece(index=1, id="b", name="today", arguments="")],
            [("a", "now", "{}"), ("b", "today", "{}")],
            id="no-arguments",
        ),
        pytest.param(
            [
                call_piece(index=0, id="a1", name="f", arguments='{"x"'),
                call_piece(index=0, id="a2", arguments=": 1}"),
            ],
            [("a1", "f", '{"x": 1}')],
            id="an-id-for-each-piece",
        ),
    ],
)
@pytest.mark.parametrize("name", ["openai", pytest.param("litellm", marks=pytest.mark.filterwarnings("ignore"))])
async def test_tool_calls_in_a_stream_of_openais_kin(
    name: str, provider: Any, clients: None, pieces: list[Any], expected: list[tuple[str, str, str]]
) -> None:
    provider.answer([*sse(*pieces, chunk({}, "tool_calls")), "data: [DONE]\n\n"])
    response = await make_client(name, provider).stream(HELLO).get_response()
    called = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in response.tool_calls]
    assert called == expected


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "retryable"),
    [
        (400, {}, {"error": {"type": "invalid_request_error", "message": "secret prompt"}}, DoNotRetry, False),
        (401, {}, {"error": {"message": "no"}}, DoNotRetry, False),
        (404, {}, {"error": {"message": "no model"}}, DoNotRetry, False),
        (429, {"retry_after": "7"}, {"error": {"type": "rate_limit_error", "message": "slow"}}, RetryAfter, True),
        (429, {}, {"error": {"type": "rate_limit_error", "message": "slow"}}, ModelError, True),
        (500, {}, {"error": {"message": "oops"}}, ModelError, True),
        (529, {}, {"error": {"type": "overloaded_error", "message": "busy"}}, ModelError, True),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_refusals(
    llm: LLMClient,
    provider: Any,
    status: int,
    headers: dict[str, str],
    body: Any,
    kind: type[AgentError],
    retryable: bool,
    streamed: bool,
) -> None:
    provider.answer(body, status, **headers)
    with pytest.raises(ModelError) as error:
        await (llm.stream(HELLO).get_response() if streamed else llm.generate(HELLO))
    assert isinstance(error.value, kind)
    assert error.value.retryable is retryable
    assert error.value.retry_after == (7 if headers else None)
    assert error.value.status_code == status
    assert "secret prompt" not in str(error.value)


async def test_no_quota_is_not_tried_again(provider: Any, clients: None) -> None:
    body = {"error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "pay"}}
    provider.answer(body, 429, retry_after="1")
    with pytest.raises(DoNotRetry, match="quota"):
        await make_client("openai", provider).generate(HELLO)


async def test_stream_that_breaks_off(llm: LLMClient, provider: Any) -> None:
    stream = ANTHROPIC_STREAM if llm.provider == "anthropic" else OPENAI_STREAM
    provider.answer([*stream[:3], None])
    ctx = LocalRunContext("chat", {})
    with pytest.raises(ModelError) as error:
        await llm.generate(HELLO, ctx=ctx)
    assert error.value.retryable
    assert ctx.run.streamed_text == ("Hel" if llm.provider == "anthropic" else "Hello")


async def test_stream_that_ends_too_soon(llm: LLMClient, provider: Any) -> None:
    provider.answer(ANTHROPIC_STREAM[:4] if llm.provider == "anthropic" else OPENAI_STREAM[:3])
    with pytest.raises(ModelUnavailable) as error:
        await llm.stream(HELLO).get_response()
    assert error.value.retryable
    assert (error.value.provider, error.value.model) == (llm.provider, llm.model)


# LiteLLM makes an end up for a stream that never began.
@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_stream_of_nothing(name: str, provider: Any, clients: None) -> None:
    provider.answer([])
    with pytest.raises(ModelUnavailable, match="broke off its answer"):
        await make_client(name, provider).stream(HELLO).get_response()


async def test_usage_ends_a_stream_whose_server_gives_no_reason(provider: Any, clients: None) -> None:
    provider.answer([*OPENAI_STREAM[:3], *OPENAI_STREAM[4:]])
    response = await make_client("openai", provider).stream(HELLO).get_response()
    assert (response.content, response.finish_reason) == ("Hello", "stop")


async def test_error_inside_a_stream(provider: Any, clients: None) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    provider.answer([*ANTHROPIC_STREAM[:3], *sse(error, named=True)])
    with pytest.raises(ModelError) as raised:
        await make_client("anthropic", provider).stream(HELLO).get_response()
    assert (raised.value.retryable, raised.value.status_code) == (True, 529)


async def test_server_that_is_not_there(clients: None) -> None:
    with pytest.raises(ModelError, match="cannot be reached") as error:
        await get_llm_client("openai", base_url="http://127.0.0.1:1/v1", max_retries=0).generate(HELLO)
    assert error.value.retryable


async def test_leaving_a_stream_early_closes_it(provider: Any, clients: None) -> None:
    provider.answer(OPENAI_STREAM)
    stream = make_client("openai", provider).stream(HELLO)
    async for _ in stream:
        break
    await stream.aclose()
    assert [part async for part in stream] == []


def test_messages_for_anthropic() -> None:
    results = [{"role": "tool", "tool_call_id": str(n), "content": "r"} for n in range(2)]
    system, messages = write_messages(
        [
            {"role": "system", "content": "a"},
            {"role": "developer", "content": "b"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "t"},
                    {"type": "image_url", "image_url": {"url": "https://e.x/i.png"}},
                ],
            },
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}]},
            {"role": "assistant", "content": ""},
            *results,
        ]
    )
    assert system == "a\n\nb"
    assert [message["role"] for message in messages] == ["user"]
    kinds = [block["type"] for block in messages[0]["content"]]
    assert kinds == ["text", "image", "image", "tool_result", "tool_result"]
    assert messages[0]["content"][2]["source"] == {"type": "base64", "media_type": "image/png", "data": "QUJD"}


async def test_options_for_anthropic(provider: Any, clients: None) -> None:
    llm = make_client("anthropic", provider)
    for choice, expected in (
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
    ):
        answer_text(provider, llm, "x")
        await llm.generate(HELLO, tools=TOOLS, tool_choice=choice, stop="END")
        assert provider.requests[-1]["tool_choice"] == expected
        assert provider.requests[-1]["stop_sequences"] == ["END"]


async def test_long_answer_of_anthropic(provider: Any, clients: None) -> None:
    llm = make_client("anthropic", provider)
    answer_text(provider, llm, "Hello")
    response = await llm.generate(HELLO, max_tokens=32000)
    assert response.content == "Hello"
    assert provider.requests[0]["max_tokens"] == 32000


async def test_thinking_goes_back_to_anthropic_as_it_came(provider: Any, clients: None) -> None:
    thinking = [
        {"type": "thinking", "thinking": "Rome it is", "signature": "sig=="},
        {"type": "redacted_thinking", "data": "sealed"},
    ]
    use = {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"town": "Rome"}}
    llm = make_client("anthropic", provider)
    provider.answer(claude([*thinking, {"type": "text", "text": "I ask."}, use], "tool_use"))
    response = await llm.generate(HELLO, tools=TOOLS, thinking={"type": "enabled", "budget_tokens": 1024})
    assert response.message == {
        "role": "assistant",
        "content": "I ask.",
        "tool_calls": [CALL],
        "thinking_blocks": thinking,
    }
    # A run's history is stored as JSON.
    turn = [*HELLO, json.loads(json.dumps(response.message)), TURN[3]]
    answer_text(provider, llm, "20 degrees")
    await llm.generate(turn, tools=TOOLS)
    assert provider.requests[1]["messages"][1]["content"] == [*thinking, {"type": "text", "text": "I ask."}, use]
    other = make_client("openai", provider)
    answer_text(provider, other, "20 degrees")
    await other.generate(turn, tools=TOOLS)
    assert provider.requests[2]["messages"][1] == {"role": "assistant", "content": "I ask.", "tool_calls": [CALL]}


def test_thinking_alone_is_not_sent() -> None:
    # The API refuses a message that ends with it.
    thought = {"role": "assistant", "content": "", "thinking_blocks": [{"type": "redacted_thinking", "data": "x"}]}
    assert write_messages([thought]) == ("", [])


async def test_keys_and_addresses_come_from_settings_and_environment(
    provider: Any, clients: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DJANGO_AGENT_RUNTIME = {"OPENAI_API_KEY": "from-settings", "DEFAULT_MODEL": "gpt-5"}
    monkeypatch.setenv("OPENAI_BASE_URL", f"{provider.url}/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", provider.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "from-environment")
    provider.answer(completion({"content": "x"}))
    await get_llm_client().generate(HELLO)
    assert provider.headers[0]["authorization"] == "Bearer from-settings"
    assert provider.requests[0]["model"] == "gpt-5"
    provider.answer(claude([]))
    llm = get_llm_client("anthropic")
    await llm.generate(HELLO)
    sent = {provider.headers[1].get(name) for name in ("x-api-key", "authorization")}
    assert sent & {"from-environment", "Bearer from-environment"}
    assert llm.model.startswith("claude")


async def test_one_connection_pool_per_loop(provider: Any, clients: None) -> None:
    first, second = (make_client("openai", provider) for _ in range(2))
    assert first._get_sdk() is second._get_sdk()  # type: ignore[attr-defined]
    other = make_client("openai", provider, timeout=5)
    assert other._get_sdk() is not first._get_sdk()  # type: ignore[attr-defined]


def test_provider_that_is_none() -> None:
    with pytest.raises(ValueError, match="'gpt'; there are: openai"):
        get_llm_client("gpt")


@pytest.mark.parametrize("name", ["openai", "anthropic", "litellm"])
def test_missing_sdk_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f"pip install {name}$"):
        get_llm_client(name, api_key="k")


async def test_messages_must_be_a_list() -> None:
    with pytest.raises(TypeError, match="list of dicts"):
        await get_llm_client("offline").generate("Hello")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [None, "openai", "anthropic", "offline"])
async def test_without_a_key_the_answer_is_offline_and_says_so(name: str | None) -> None:
    llm = get_llm_client(name)
    ctx = LocalRunContext("chat", {})
    response = await llm.generate(HELLO, ctx=ctx)
    assert (llm.provider, llm.model, response.model) == ("offline", "offline", "offline")
    assert "offline stand-in" in response.content
    assert "Hello" in response.content
    assert (await llm.generate(HELLO)).message == response.message
    assert ctx.run.streamed_text == response.content
    assert len(ctx.run.events) > 5
    if name != "offline":
        assert f"{(name or 'openai').upper()}_API_KEY" in response.content


@pytest.mark.parametrize("text", ["Use get_weather 3 times", "please get weather!"])
async def test_offline_model_calls_the_tool_it_is_told_to_once(text: str) -> None:
    def get_weather(town: str, days: int, unit: str = "c") -> str:
        return f"{days} days in {town}"

    tools = ToolRegistry()
    tools.register(get_weather)
    llm = get_llm_client()
    messages: list[Any] = [{"role": "user", "content": text}]
    first = await llm.generate(messages, tools=tools.to_openai_format())
    assert (first.finish_reason, first.message["content"]) == ("tool_calls", None)
    [call] = first.tool_calls
    result = await tools.execute(call["function"]["name"], call["function"]["arguments"])
    messages += [first.message, {"role": "tool", "tool_call_id": call["id"], "content": result}]
    second = await llm.generate(messages, tools=tools.to_openai_format())
    assert second.tool_calls == []
    assert result in second.content


async def test_offline_model_leaves_tools_alone_that_nobody_named() -> None:
    assert (await get_llm_client().generate(HELLO, tools=TOOLS)).tool_calls == []


async def test_chat_agent_with_no_provider() -> None:
    async def chat(ctx: RunContext) -> RunResult:
        response = await get_llm_client().generate(ctx.input_messages, stream=True)
        return RunResult(final_output={"response": response.message["content"]}, final_messages=[response.message])

    run = await arun_agent_locally(chat, "Hello")
    assert run.streamed_text == run.output["response"]
