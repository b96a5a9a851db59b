from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from django_agent_runtime.runtime.llm import close_llm_clients
from django_agent_runtime.runtime.registry import clear_registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from django_agent_runtime.testing import LocalRun


@pytest.fixture(autouse=True)
def _empty_registry(settings: Any) -> Iterator[None]:
    # The site has agents of its own.
    settings.DJANGO_AGENT_RUNTIME = {}
    clear_registry()
    yield
    clear_registry()


@pytest.fixture(autouse=True)
def _no_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@dataclass
class Provider:
    """A model provider's server, which answers with what it was given, in order."""

    url: str = ""
    answers: list[tuple[int, dict[str, str], Any]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def answer(self, body: Any, status: int = 200, **headers: str) -> None:
        """A dict is JSON; a list is a stream of server-sent events, and None in it breaks the connection."""
        self.answers.append((status, {name.replace("_", "-"): value for name, value in headers.items()}, body))


@pytest.fixture
def provider() -> Iterator[Provider]:
    script = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            script.paths.append(self.path)
            script.headers.append({name.lower(): value for name, value in self.headers.items()})
            script.requests.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            status, headers, body = script.answers.pop(0)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("connection", "close")
            if isinstance(body, list):
                self.send_header("content-type", "text/event-stream")
                if None in body:
                    self.send_header("content-length", "1000000")
                self.end_headers()
                for event in body:
                    if event is not None:
                        self.wfile.write(event.encode())
                        self.wfile.flush()
            else:
                text = json.dumps(body).encode()
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield script
    server.shutdown()
    thread.join()
    server.server_close()


@pytest_asyncio.fixture
async def clients() -> AsyncIterator[None]:
    """Closes what a test's clients keep open."""
    yield
    await close_llm_clients()


CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"word": "sun"}'}}
EARLIER: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Look up moon."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{**CALL, "id": "c0", "function": {"name": "look_up", "arguments": '{"word": "moon"}'}}],
    },
    {"role": "tool", "tool_call_id": "c0", "content": "moon is bright"},
    {"role": "assistant", "content": "It is bright."},
    {"role": "user", "content": "And sun?"},
]
ADDED: list[dict[str, Any]] = [
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "sun is bright"},
    {"role": "assistant", "content": "It shines too."},
]


class Story:
    """A conversation whose next turn calls a tool, and what every adapter must tell of it, in the same words."""

    earlier = EARLIER

    def check(self, run: LocalRun) -> None:
        """Every adapter tells the same story in the same words."""
        assert run.state == "succeeded"
        assert run.result is not None
        assert run.output["response"] == "It shines too."
        added = [dict(message) for message in run.result.final_messages]
        for message in added:
            message.pop("name", None)
            for call in message.get("tool_calls", ()):
                call["function"]["arguments"] = json.dumps(json.loads(call["function"]["arguments"]))
        assert added == ADDED
        assert run.streamed_text == "It shines too."
        assert len(run.get_payloads("assistant.delta")) > 1
        assert run.get_payloads("assistant.message") == [{"content": "It shines too."}]
        [call] = run.get_payloads("tool.call")
        assert (call["tool"], call["tool_call_id"]) == ("look_up", "c1")
        assert json.loads(call["arguments"]) == {"word": "sun"}
        assert run.get_payloads("tool.result") == [{"tool_call_id": "c1", "result": "sun is bright"}]
        types = [event.type for event in run.events if event.type not in {"assistant.delta", "state.checkpoint"}]
        assert types == ["tool.call", "seen.by.the.tool", "tool.result", "assistant.message"]


@pytest.fixture
def story() -> Story:
    return Story()
