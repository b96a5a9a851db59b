"""A project in the shape that the package's users know: its settings, viewsets, addresses, agents and readers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from django_agent_runtime.testing.process import GoRuntimeProcess, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_SECONDS = 60.0
FILES = {
    "mysite/settings.py": """
import os

SECRET_KEY = "test"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "mysite.urls"
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3", "OPTIONS": {"timeout": 30}}}
INSTALLED_APPS = [
    'django.contrib.auth',
    'django.contrib.contenttypes',
    'rest_framework',
    'rest_framework.authtoken',
    'django_agent_runtime',
]
REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.TokenAuthentication"]}
GO_RUNTIME = {"host": "127.0.0.1", "port": int(os.environ["SITE_PORT"])}
DJANGO_AGENT_RUNTIME = {
    'QUEUE_BACKEND': 'postgres',
    'EVENT_BUS_BACKEND': 'db',
    'MODEL_PROVIDER': 'openai',
    'DEFAULT_MODEL': 'gpt-4o',
    'LEASE_TTL_SECONDS': 30,
    'RUN_TIMEOUT_SECONDS': 900,
    'MAX_RETRIES': 3,
    'RUNTIME_REGISTRY': ['myapp.agents:register_agents'],
    'EVENT_VISIBILITY': {'run.started': 'internal', 'tool.call': 'debug', 'error': 'user'},
    'DEBUG_MODE': False,
}
""",
    "mysite/urls.py": """
from django.urls import include, path

urlpatterns = [path('api/agents/', include('myapp.api.urls'))]
""",
    "myapp/api/views.py": """
from django_agent_runtime.api.views import BaseAgentRunViewSet, BaseAgentConversationViewSet
from rest_framework.permissions import IsAuthenticated

class AgentRunViewSet(BaseAgentRunViewSet):
    permission_classes = [IsAuthenticated]

class AgentConversationViewSet(BaseAgentConversationViewSet):
    permission_classes = [IsAuthenticated]
""",
    "myapp/api/urls.py": """
from django.urls import path, include
from rest_framework.routers import DefaultRouter
from django_agent_runtime.api.views import sync_event_stream, async_event_stream
from .views import AgentRunViewSet, AgentConversationViewSet

router = DefaultRouter()
router.register(r"conversations", AgentConversationViewSet, basename="conversation")
router.register(r"runs", AgentRunViewSet, basename="run")

urlpatterns = [
    path("", include(router.urls)),
    path("runs/<str:run_id>/events/", sync_event_stream, name="run-events"),
    path("runs/<str:run_id>/events/stream/", async_event_stream, name="run-stream"),
]
""",
    "myapp/agents.py": """
from django_agent_runtime.runtime.interfaces import (
    AgentRuntime, RunContext, RunResult, EventType, Tool, ToolRegistry,
)
from django_agent_runtime.runtime.registry import register_runtime
from django_agent_runtime.runtime.llm import get_llm_client


def get_weather(location: str) -> str:
    \"\"\"Say how the weather is.\"\"\"
    return "Rain"


def search_database(query: str) -> list:
    \"\"\"Look for rows.\"\"\"
    return [{"title": query}]


class ChatAgent(AgentRuntime):
    @property
    def key(self) -> str:
        return "chat-agent"

    async def run(self, ctx: RunContext) -> RunResult:
        response = await get_llm_client().generate(ctx.input_messages)
        content = response.message["content"]
        await ctx.emit(EventType.ASSISTANT_MESSAGE, {"content": content})
        return RunResult(final_output={"response": content}, final_messages=[response.message])


class ToolAgent(AgentRuntime):
    @property
    def key(self) -> str:
        return "tool-agent"

    def __init__(self):
        self.tools = ToolRegistry()
        for function in (get_weather, search_database):
            self.tools.register(Tool.from_function(function))

    async def run(self, ctx: RunContext) -> RunResult:
        llm = get_llm_client()
        messages = list(ctx.input_messages)
        while True:
            response = await llm.generate(messages, tools=self.tools.to_openai_format())
            messages.append(response.message)
            if not response.tool_calls:
                break
            for tool_call in response.tool_calls:
                name, arguments = tool_call["function"]["name"], tool_call["function"]["arguments"]
                await ctx.emit(EventType.TOOL_CALL, {"tool": name, "arguments": arguments})
                result = await self.tools.execute(name, arguments)
                await ctx.emit(EventType.TOOL_RESULT, {"tool_call_id": tool_call["id"], "result": result})
                messages.append({"role": "tool", "tool_call_id": tool_call["id"], "content": str(result)})
        return RunResult(final_output={"response": response.message["content"]}, final_messages=messages)


def register_agents():
    register_runtime(ChatAgent())
    register_runtime(ToolAgent())
""",
}
MAKE_TOKEN = """
from django.contrib.auth.models import User
from rest_framework.authtoken.models import Token
print(Token.objects.create(user=User.objects.create_user("ada")).key)
"""
MAKE_ROWS = """
from django.contrib.auth.models import User
from django_agent_runtime.models import AgentConversation, AgentRun
conversation = AgentConversation.objects.create(
    user=User.objects.get(), agent_key="chat-agent", title="My chat", metadata={"source": "web"}
)
messages = [{"role": "user", "content": "Hello"}]
print(AgentRun.objects.create(conversation=conversation, agent_key="chat-agent", input={"messages": messages}).pk)
"""
READ_ROWS = """
import json
from django_agent_runtime.models import AgentEvent, AgentRun
run = AgentRun.objects.get(pk="{run_id}")
print(json.dumps({
    "final": run.output.get("final_messages", []),
    "history": run.conversation.get_message_history(),
    "last": run.conversation.get_last_assistant_message(),
    "types": [event.event_type for event in AgentEvent.objects.filter(run=run).order_by('seq')],
}))
"""


@dataclass
class Project:
    """The project in its folder, and its processes."""

    folder: Path
    environment: dict[str, str]
    address: str
    token: str = ""
    stack: ExitStack = field(default_factory=ExitStack)

    def manage(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "django", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def start(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "django", *arguments]
        process = subprocess.Popen(command, cwd=self.folder, env=self.environment)
        self.stack.callback(process.wait, PATIENCE_SECONDS)
        self.stack.callback(process.terminate)

    def open(self, path: str, body: Any = None, accept: str = "application/json") -> Any:
        headers = {"Authorization": f"Token {self.token}", "Content-Type": "application/json", "Accept": accept}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}/api/agents/{path}", data, headers)
        return urllib.request.urlopen(request, timeout=PATIENCE_SECONDS)

    def call(self, path: str, body: Any = None) -> Any:
        with self.open(path, body) as response:
            return json.load(response)

    def listen(self, path: str) -> list[tuple[str, dict[str, Any]]]:
        """What an EventSource would hand to its listeners, by the name of each."""
        with self.open(path, accept="text/event-stream") as response:
            blocks = [line.split("\n") for line in response.read().decode().split("\n\n")]
        found = []
        for block in blocks:
            fields = dict(line.split(": ", 1) for line in block if ": " in line and not line.startswith(":"))
            if "data" in fields:
                found.append((fields.get("event", "message"), json.loads(fields["data"])))
        return found


def wait_for(condition: Any) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with suppress(urllib.error.URLError):
            if value := condition():
                return value
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("project")
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for package in ("mysite", "myapp", "myapp/api"):
        (folder / package / "__init__.py").touch()
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    with GoRuntimeProcess(folder) as runtime, ExitStack() as stack:
        [port] = free_ports(1)
        environment = kept | {
            "DJANGO_SETTINGS_MODULE": "mysite.settings",
            "SITE_PORT": str(runtime.port),
            "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)]),
        }
        made = Project(folder, environment, f"http://127.0.0.1:{port}", stack=stack)
        made.manage("migrate", "--verbosity=0")
        made.token = made.manage("shell", "--verbosity=0", "--command", MAKE_TOKEN)
        made.start("runserver", "--noreload", f"127.0.0.1:{port}")
        made.start("runagent", "--processes", "1", "--concurrency", "20", "--queue-poll-interval", "1.0", "--noreload")
        wait_for(lambda: made.call("runs/"))
        yield made


def test_run_is_created_and_its_listeners_hear_of_it(project: Project) -> None:
    messages = [{"role": "user", "content": "Hello! How are you?"}]
    created = project.call("runs/", {"agent_key": "chat-agent", "messages": messages})
    assert (created["agent_key"], created["status"]) == ("chat-agent", "queued")
    assert created["created_at"]
    path = f"runs/{created['id']}/events/"
    for address in (path, f"{path}stream/"):
        events = project.listen(address)
        assert [name for name, _ in events][-2:] == ["assistant.message", "run.succeeded"]
        assert events[-2][1]["content"]
        assert (events[-1][1]["run_id"], bool(events[-1][1]["output"])) == (created["id"], True)
    unnamed = project.listen(f"{path}?unnamed=1")
    assert [(name, data["type"]) for name, data in unnamed][-1] == ("message", "run.succeeded")
    assert project.call(f"runs/{created['id']}/")["status"] == "succeeded"


def test_tools_are_called_in_a_loop_and_shown_to_who_debugs(project: Project) -> None:
    messages = [{"role": "user", "content": "Call get_weather for Berlin"}]
    created = project.call("runs/", {"agent_key": "tool-agent", "messages": messages})
    path = f"runs/{created['id']}/events/"
    shown = project.listen(f"{path}?include_debug=true")
    called, returned = [data for name, data in shown if name.startswith("tool.")]
    assert (called["tool"], returned["result"]) == ("get_weather", "Rain")
    assert not [name for name, _ in project.listen(path) if name.startswith("tool.")]
    output = project.call(f"runs/{created['id']}/")["output"]
    assert [message["role"] for message in output["final_messages"]] == ["user", "assistant", "tool", "assistant"]


def test_rows_that_were_made_by_hand_are_done_and_read(project: Project) -> None:
    run_id = project.manage("shell", "--verbosity=0", "--command", MAKE_ROWS)

    def find() -> Any:
        return [run for run in project.call("runs/?status=succeeded")["results"] if run["id"] == run_id]

    wait_for(find)
    rows = json.loads(project.manage("shell", "--verbosity=0", "--command", READ_ROWS.replace("{run_id}", run_id)))
    assert rows["final"] == [rows["last"]]
    assert rows["history"] == [{"role": "user", "content": "Hello"}, rows["last"]]
    assert rows["types"][-2:] == ["assistant.message", "run.succeeded"]
    assert [one["title"] for one in project.call("conversations/")["results"]] == ["My chat"]
