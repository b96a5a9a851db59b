"""A stand-in for a provider of models: its answers are a function of what was said, and now and then it fails."""

from __future__ import annotations

import json
import random
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

TOKENS_OF_ANSWER = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}

# What comes after what was said: a text, or calls of tools as pairs of a name and arguments.
Answer = str | list[tuple[str, dict[str, Any]]]


class ModelServer:
    """Chat completions as OpenAI's endpoint streams them, on loopback.

    `script` gets the messages and gives the answer. Of a hundred requests, `failures` fail: as overloaded, with an
    error, or by a stream that breaks off.
    """

    def __init__(self, script: Callable[[list[dict[str, Any]]], Answer], *, seed: int, failures: int = 0) -> None:
        self._script = script
        self._dice = random.Random(seed)
        self._failures = failures
        self._lock = threading.Lock()

        class Handler(_Handler):
            server_of = self

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, messages: list[dict[str, Any]]) -> Answer:
        return self._script(messages)

    def fails_with(self) -> HTTPStatus | None:
        """The status of a request that is to fail, where OK is that of a stream that breaks off."""
        with self._lock:
            if self._dice.randrange(100) >= self._failures:
                return None
            return self._dice.choice([HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.OK])


class _Handler(BaseHTTPRequestHandler):
    server_of: ClassVar[ModelServer]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        failure = self.server_of.fails_with()
        answer = self.server_of.answer(request["messages"])
        if failure not in {None, HTTPStatus.OK}:
            assert failure
            self._send(failure, "application/json", json.dumps({"error": {"message": "not now"}}), {"retry-after": "0"})
        elif request.get("stream"):
            events = [f"data: {json.dumps(chunk)}\n\n" for chunk in _chunks(answer)] + ["data: [DONE]\n\n"]
            if failure is not None:
                events = events[:1]
            self._send(HTTPStatus.OK, "text/event-stream", "".join(events))
        elif failure is not None:
            self._send(HTTPStatus.OK, "application/json", "{")
        else:
            choice = {"index": 0, "message": _message(answer), "finish_reason": _reason(answer)}
            whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "scripted", "choices": [choice]}
            self._send(HTTPStatus.OK, "application/json", json.dumps(whole | {"usage": TOKENS_OF_ANSWER}))

    def _send(self, status: HTTPStatus, kind: str, text: str, headers: dict[str, str] | None = None) -> None:
        try:
            self.send_response(status)
            for name, value in {"content-type": kind, **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())
        except OSError:
            # The runtime was killed meanwhile.
            self.close_connection = True

    def log_message(self, *_: object) -> None: ...


def _reason(answer: Answer) -> str:
    return "stop" if isinstance(answer, str) else "tool_calls"


def _message(answer: Answer) -> dict[str, Any]:
    if isinstance(answer, str):
        return {"role": "assistant", "content": answer}
    calls = [
        {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": text}}
        for index, (name, text) in enumerate((name, json.dumps(arguments)) for name, arguments in answer)
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _chunks(answer: Answer) -> Iterator[dict[str, Any]]:
    about = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "scripted"}
    yield about | {"choices": [{"index": 0, "delta": _message(answer), "finish_reason": None}]}
    yield about | {"choices": [{"index": 0, "delta": {}, "finish_reason": _reason(answer)}]}
    yield about | {"choices": [], "usage": TOKENS_OF_ANSWER}
