"""Rows for agents that the real runtime executes itself: its own four, and those behind HTTP."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from django_agent_runtime.exceptions import InvalidRequest
from django_agent_runtime.go_integration import get_go_runtime_integration
from django_agent_runtime.models import AgentConversation, AgentEvent, AgentRun
from django_agent_runtime.projector import Projector
from django_agent_runtime.services import cancel_run, create_run, reconcile_runs
from django_agent_runtime.testing import GoRuntimeProcess
from django_agent_runtime.tests.runs.support import MESSAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.contrib.auth.models import User
    from rest_framework.test import APIClient

    from django_agent_runtime.principals import Principal

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE_SECONDS = 20.0
IDLE_SECONDS = 0.3
RUNS = "/api/agents/runs/"
ANSWER = "Use a button element."


class Servers(ThreadingHTTPServer):
    """A provider's endpoint, which streams, and an agent's server."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.gone = threading.Event()
        """Set when the runtime has left the answer to a first message that says "wait"."""


class Handler(BaseHTTPRequestHandler):
    server: Servers

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        self.send_response(200)
        if self.path == "/support":
            text = asked["input"]["messages"][-1]["content"].upper()
            answer = {"final_output": {"response": text}, "final_messages": [{"role": "assistant", "content": text}]}
            body = json.dumps(answer).encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for word in ANSWER.split(" "):
            self._send({"choices": [{"index": 0, "delta": {"content": word if word == "Use" else f" {word}"}}]})
            if asked["messages"][-1]["content"] == "wait" and len(self.server.asked) == 1:
                # Nothing is sent any more: the end of the connection is all there is to read.
                self.connection.settimeout(PATIENCE_SECONDS)
                if not self.connection.recv(1):
                    self.server.gone.set()
                return
        self._send({"model": "m-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self._send({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}})

    def _send(self, chunk: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name for it
        pass


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Servers() as servers:
        thread = threading.Thread(target=servers.serve_forever)
        thread.start()
        yield servers
        servers.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def process(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoRuntimeProcess]:
    url = f"http://127.0.0.1:{servers.server_port}"
    model = ("--openai-base-url", f"{url}/v1", "--model", "m")
    folder = tmp_path_factory.mktemp("agents")
    with GoRuntimeProcess(folder, arguments=(*model, "--http-agents", f"support={url}/support")) as process:
        yield process


@pytest.fixture(autouse=True)
def runtime(process: GoRuntimeProcess, servers: Servers) -> Iterator[None]:
    servers.asked.clear()
    servers.gone.clear()
    with override_settings(GO_RUNTIME=process.settings):
        yield


def ask(actor: Principal, agent_key: str = "frontend_agent", text: str = "A button?", **options: Any) -> AgentRun:
    return create_run(actor=actor, agent_key=agent_key, messages=[{"role": "user", "content": text}], **options).run


def wait_for_end(run: AgentRun) -> AgentRun:
    """The row behind its end, with the rows of its events."""
    ended = get_go_runtime_integration().wait_run(str(run.pk), timeout=PATIENCE_SECONDS)
    assert ended.state.ended
    Projector().run_once(idle_seconds=IDLE_SECONDS)
    run.refresh_from_db()
    return run


def watch(run: AgentRun) -> list[tuple[str, str, dict[str, Any]]]:
    events = get_go_runtime_integration().watch_run(str(run.pk))
    return [(event.type, event.visibility.value, event.payload) for event in events]


def test_row_for_an_agent_of_the_runtime(ada: User, servers: Servers) -> None:
    conversation = AgentConversation.objects.create(user=ada)
    run = AgentRun.objects.create(
        conversation=conversation, agent_key="frontend_agent", input={"messages": MESSAGES, "params": {}}
    )
    assert reconcile_runs() == 1
    assert wait_for_end(run).status == "succeeded", run.error
    answered = {"role": "assistant", "content": ANSWER}
    assert run.output == {
        "final_output": {"response": ANSWER},
        "final_messages": [answered],
        "usage": {"input_tokens": 9, "output_tokens": 5, "total_tokens": 14},
        "metadata": {"model": "m-1", "offline": False, "cost_usd": None, "price_version": None},
    }
    assert conversation.get_message_history() == [*MESSAGES, answered]
    assert conversation.get_last_assistant_message() == answered
    [row] = AgentEvent.objects.filter(run=run, event_type="assistant.message")
    assert (row.payload, row.visibility) == ({"content": ANSWER}, "user")
    [asked] = servers.asked
    assert asked["messages"][0]["role"] == "system"
    assert "frontend agent" in asked["messages"][0]["content"]
    assert asked["messages"][1:] == MESSAGES


def test_answer_streams_before_it_is_whole(actor: Principal) -> None:
    events = watch(ask(actor))
    types = [kind for kind, _, _ in events]
    assert types[0] == "run.started"
    assert types[-2:] == ["assistant.message", "run.succeeded"]
    # What the answer took is told beside it, and kept.
    assert set(types[1:-2]) == {"assistant.delta", "usage", "step.completed"}
    deltas = [payload["content"] for kind, _, payload in events if kind == "assistant.delta"]
    assert "".join(deltas) == ANSWER
    assert {level for kind, level, _ in events if kind.startswith("assistant.")} == {"user"}


def test_settings_say_who_sees_the_answer(actor: Principal, settings: Any) -> None:
    settings.DJANGO_AGENT_RUNTIME = {"EVENT_VISIBILITY": {"assistant.delta": "debug"}}
    levels = {kind: level for kind, level, _ in watch(ask(actor))}
    assert (levels["assistant.delta"], levels["assistant.message"]) == ("debug", "user")


def test_agents_of_the_runtime_over_rest(api: APIClient) -> None:
    body = {"agent_key": "codegen_agent", "messages": MESSAGES}
    conversation = api.post("/api/agents/conversations/", {"agent_key": "codegen_agent"}, format="json").json()
    created = api.post(RUNS, body | {"conversation_id": conversation["id"]}, format="json")
    assert created.status_code == 201, created.json()
    url = f"{RUNS}{created.json()['id']}/"
    response = api.get(f"{url}events/", headers={"Accept": "text/event-stream"})
    stream = b"".join(response.streaming_content).decode()  # type: ignore[attr-defined]
    assert stream.index("event: assistant.delta") < stream.index("event: assistant.message")
    assert stream.index("event: assistant.message") < stream.index("event: run.succeeded")
    assert api.get(url).json()["output"]["final_output"] == {"response": ANSWER}


def test_what_cannot_be_answered_is_refused_when_it_is_created(actor: Principal, api: APIClient) -> None:
    bad = [{"role": "boss", "content": "Hello!"}]
    with pytest.raises(InvalidRequest) as refused:
        create_run(actor=actor, agent_key="frontend_agent", messages=bad)
    assert [field for field, _ in refused.value.violations] == ["input.messages[0].role"]
    assert not AgentRun.objects.exists()
    answer = api.post(RUNS, {"agent_key": "frontend_agent", "messages": [], "params": {}}, format="json")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "input.messages")


def test_cancel_ends_the_call_of_the_model(actor: Principal, servers: Servers) -> None:
    run = ask(actor, text="wait")
    events = get_go_runtime_integration().watch_run(str(run.pk))
    assert next(event for event in events if event.type == "assistant.delta").payload == {"content": "Use"}
    cancel_run(actor=actor, run=run)
    assert servers.gone.wait(PATIENCE_SECONDS)
    assert wait_for_end(run).status == "cancelled"


def test_run_is_begun_again_when_the_runtime_was_killed(
    actor: Principal, servers: Servers, process: GoRuntimeProcess
) -> None:
    run = ask(actor, text="wait")
    events = get_go_runtime_integration().watch_run(str(run.pk))
    assert next(event for event in events if event.type == "assistant.delta").attempt == 1
    process.kill()
    process.start()
    assert wait_for_end(run).status == "succeeded", run.error
    assert run.output["final_output"] == {"response": ANSWER}
    seen = watch(run)
    types = [kind for kind, _, _ in seen]
    assert types[:4] == ["run.started", "assistant.delta", "run.retrying", "run.started"]
    second = [payload["content"] for kind, _, payload in seen[4:] if kind == "assistant.delta"]
    assert "".join(second) == ANSWER
    assert types[-2:] == ["assistant.message", "run.succeeded"]


def test_message_stands_in_for_the_text_that_a_task_needs(actor: Principal, tmp_path: Any) -> None:
    with GoRuntimeProcess(tmp_path) as offline, override_settings(GO_RUNTIME=offline.settings):
        run = ask(actor, "app_builder_agent", "A shop", params={"task_type": "design_application"})
        output = wait_for_end(run).output
        assert output["metadata"] == {"model": "offline", "offline": True, "cost_usd": None, "price_version": None}
        assert output["final_output"]["files"][0]["path"] == "docs/architecture.md"
        text = output["final_output"]["response"]
        assert output["final_messages"] == [{"role": "assistant", "content": text}]
        assert "A shop" in text
        assert "offline" in text


def test_row_for_an_agent_behind_http(ada: User, servers: Servers) -> None:
    conversation = AgentConversation.objects.create(user=ada)
    run = AgentRun.objects.create(
        conversation=conversation, agent_key="support", input={"messages": MESSAGES, "params": {"tone": "kind"}}
    )
    assert reconcile_runs() == 1
    assert wait_for_end(run).status == "succeeded", run.error
    assert run.output["final_output"] == {"response": "HELLO!"}
    assert conversation.get_message_history() == [*MESSAGES, {"role": "assistant", "content": "HELLO!"}]
    [asked] = servers.asked
    assert asked == {
        "run_id": str(run.pk),
        "attempt": 1,
        "agent_id": "support",
        "task_type": "agent.run",
        "input": {"messages": MESSAGES, "params": {"tone": "kind"}},
        "metadata": {"conversation_id": str(conversation.pk)},
    }
