"""One trace over processes: a Django view, the real runtime, and a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest, JsonResponse
from django.test import Client
from django.urls import path
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.testing.process import GoRuntimeProcess
from django_agent_runtime.types import Run, RunState, RunTarget

pytestmark = pytest.mark.faults

PATIENCE_SECONDS = 40.0

SETTINGS = """
import os
SECRET_KEY = "test"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django_agent_runtime"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
USE_TZ = True
GO_RUNTIME = {"host": "127.0.0.1", "port": int(os.environ["SITE_PORT"])}
DJANGO_AGENT_RUNTIME = {"RUNTIME_REGISTRY": ["site_agents:register_agents"], "LEASE_TTL_SECONDS": 2}
"""

AGENTS = """
import asyncio
from pathlib import Path
from langsmith import traceable
from django_agent_runtime.runtime.interfaces import AgentRuntime
from django_agent_runtime.runtime.llm.offline import OfflineClient
from django_agent_runtime.runtime.registry import register_runtime
from django_agent_runtime.runtime.tools import Tool

FOLDER = Path(__file__).parent

class Researcher(AgentRuntime):
    key = "researcher"
    def run(self, ctx):
        # A plain function, in a thread of its own.
        found = ctx.step("look up", self.look_up)
        helper = ctx.run_agent("helper", input={"question": "which?"})
        return {"found": found, "helper": helper["final_output"], "sure": ctx.interrupt({"sure": "?"})}
    async def look_up(self):
        answer = await OfflineClient().generate([{"role": "user", "content": "Where?"}])
        found = await Tool("search", handler=lambda: {"found": "here", "token": "S3CRET"}).execute({}, call_id="call-1")
        return [answer.content, found]

class Helper(AgentRuntime):
    key = "helper"
    async def run(self, ctx):
        return {"answer": "this one"}

class Slow(AgentRuntime):
    key = "slow"
    async def run(self, ctx):
        (FOLDER / f"begun-{ctx.attempt}").touch()
        while not (FOLDER / "go-on").exists():
            await asyncio.sleep(0.005)
        return {"attempt": ctx.attempt}

class LangSmith(AgentRuntime):
    key = "langsmith"
    async def run(self, ctx):
        @traceable(name="outer")
        async def outer(n):
            return await inner(n + 1)
        @traceable(name="inner", run_type="llm")
        async def inner(n):
            return await ctx.step("count", lambda: n)
        return {"n": await outer(1)}

def register_agents():
    for kind in (Researcher, Helper, Slow, LangSmith):
        register_runtime(kind())
"""


class Site:
    """The runtime, its workers and a view, all of which send their spans to one LangSmith."""

    def __init__(self, folder: Path, receiver: Any) -> None:
        self.folder = folder
        self.receiver = receiver
        self.langsmith = {
            "LANGSMITH_ENDPOINT": f"{receiver.url}/api/v1",
            "LANGSMITH_API_KEY": "lsv2_key",
            "LANGSMITH_PROJECT": "site",
            "OTEL_BSP_SCHEDULE_DELAY": "20",
        }
        arguments = ("--trace-url", "https://smith.example.com/{trace_id}")
        self.runtime = GoRuntimeProcess(folder, arguments=arguments, environment=self.langsmith)
        self.client = GoRuntimeIntegration(**self.runtime.settings)
        self.workers: list[subprocess.Popen[bytes]] = []
        self.log = folder / "worker.log"
        (folder / "site_settings.py").write_text(SETTINGS)
        (folder / "site_agents.py").write_text(AGENTS)

    def start_worker(self, **environment: str) -> subprocess.Popen[bytes]:
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("LANGSMITH_", "OTEL_"))}
        with self.log.open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "django", "runagent", "--no-projector", "--processes", "1"],
                cwd=self.folder,
                env={
                    **mine,
                    **self.langsmith,
                    "DJANGO_SETTINGS_MODULE": "site_settings",
                    "PYTHONPATH": str(self.folder),
                    "SITE_PORT": str(self.runtime.port),
                    **environment,
                },
                stdout=log,
                stderr=log,
            )
        self.workers.append(worker)
        return worker

    def stop_worker(self, worker: subprocess.Popen[bytes]) -> None:
        worker.send_signal(signal.SIGTERM)
        worker.wait(PATIENCE_SECONDS)

    def wait_for(self, run_id: str, *states: RunState) -> Run:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (run := self.client.get_run(run_id)).state not in states:
            assert time.monotonic() < deadline, f"{run}\n{self.log.read_text()}"
            assert not run.state.ended, f"{run}\n{self.log.read_text()}"
            time.sleep(0.01)
        return run

    def wait_for_file(self, name: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (self.folder / name).exists():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)


@pytest.fixture
def site(tmp_path: Path, receiver: Any) -> Iterator[Site]:
    made = Site(tmp_path, receiver)
    with made.runtime:
        yield made
        made.client.disconnect()
        for worker in made.workers:
            worker.kill()
            worker.wait()


@pytest.fixture
def make_browser(
    site: Site, use_provider: Callable[..., TracerProvider], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Client]]:
    """A client of a site whose views are instrumented, and give tasks to the runtime."""

    def explain(request: HttpRequest) -> JsonResponse:
        output = site.client.execute_task(
            "traced_task", {"query": "Explain recursion"}, metadata=dict(request.GET.items()) and {"trace": True}
        )
        return JsonResponse(output)

    def research(_request: HttpRequest) -> JsonResponse:
        run = site.client.create_run(
            "researcher",
            {"question": "Where?"},
            target=RunTarget.WORKER,
            metadata={"trace": True, "conversation_id": "c"},
        )
        return JsonResponse({"run_id": run.run_id, "trace_id": run.trace_id, "trace_url": run.trace_url})

    urls = types.ModuleType("traced_urls")
    urls.urlpatterns = [path("explain", explain), path("research", research)]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "traced_urls", urls)
    settings.ROOT_URLCONF = "traced_urls"
    settings.MIDDLEWARE = []
    instrumentor = DjangoInstrumentor()

    def make(**options: Any) -> Client:
        exporter = OTLPSpanExporter(endpoint=f"{site.receiver.url}/v1/traces")
        instrumentor.instrument(tracer_provider=use_provider(exporter, **options))
        return Client()

    yield make
    instrumentor.uninstrument()


def test_from_a_view_to_the_model(site: Site, make_browser: Callable[..., Client]) -> None:
    output = make_browser().get("/explain").json()
    site.receiver.wait_for("run traced_task", "GET explain", "agentruntime.v1.AgentService/CreateRun")
    assert site.receiver.path_of("chat offline") == [
        "chat offline",
        "attempt traced_task",
        "run traced_task",
        "agentruntime.v1.AgentService/CreateRun",
        "GET explain",
    ]
    assert {span.trace_id for span in site.receiver.spans} == {output["trace"]["trace_id"]}
    assert output["trace"]["url"] == f"https://smith.example.com/{output['trace']['trace_id']}"
    of_runtime = site.receiver.named("chat offline")
    assert (of_runtime.path, of_runtime.service) == ("/api/v1/otel/v1/traces", "agent-runtime")
    assert (of_runtime.headers["x-api-key"], of_runtime.headers["langsmith-project"]) == ("lsv2_key", "site")
    assert "gen_ai.input.messages" not in of_runtime.attributes
    assert "lsv2_key" not in site.runtime.log_path.read_text()


def test_a_view_that_is_not_sampled(site: Site, make_browser: Callable[..., Client]) -> None:
    browser = make_browser(sampler=ALWAYS_OFF)
    assert browser.get("/explain").json()["trace"]["trace_id"] == ""
    output = browser.get("/explain?trace=1").json()
    site.receiver.wait_for("run traced_task")
    # The first of its trace, since nobody sends what it is under.
    assert site.receiver.path_of("chat offline") == ["chat offline", "attempt traced_task", "run traced_task"]
    assert {span.trace_id for span in site.receiver.spans} == {output["trace"]["trace_id"]}


def test_from_a_view_to_the_tool_of_a_worker(site: Site, make_browser: Callable[..., Client]) -> None:
    receiver = site.receiver
    worker = site.start_worker()
    created = make_browser().get("/research").json()
    site.wait_for(created["run_id"], RunState.WAITING)
    # What was done by then is sent while the run waits for a person.
    receiver.wait_for("run agent.run", "execute_tool search")
    site.client.resume_run(created["run_id"], "yes")
    run = site.wait_for(created["run_id"], RunState.SUCCEEDED)
    site.stop_worker(worker)
    receiver.wait_for("invoke_agent helper")
    view = ["agentruntime.v1.AgentService/CreateRun", "GET research"]
    assert {span.trace_id for span in receiver.spans if "ResumeRun" not in span.name} == {created["trace_id"]}
    assert run.trace_id == created["trace_id"]
    assert run.trace_url == created["trace_url"] == f"https://smith.example.com/{run.trace_id}"
    own = [span for span in receiver.spans if span.attributes.get("agentruntime.run_id") == run.run_id]
    attempts = [span for span in own if span.name == "invoke_agent researcher"]
    runs = [span for span in own if span.name == "run agent.run"]
    # Once to the sub-run, once to the question, once to the answer; all under the run.
    assert len(attempts) == 3
    assert [span.span_id for span in runs] == list({span.parent_id for span in attempts})
    for name in ("chat offline", "execute_tool search"):
        assert receiver.named(name).attributes["langsmith.metadata.thread_id"] == "c"
    by_id = {span.span_id: span for span in receiver.spans}
    names = []
    at = receiver.named("execute_tool search")
    while at is not None:
        names.append(at.name)
        at = by_id.get(at.parent_id)
    assert names == ["execute_tool search", "step look up", "invoke_agent researcher", "run agent.run", *view]
    # The sub-run, which asks for nothing itself, is under the code that started it, with its content.
    helper = receiver.named("invoke_agent helper")
    sub_run = by_id[helper.parent_id]
    assert (sub_run.name, by_id[sub_run.parent_id].name) == ("run agent.run", "invoke_agent researcher")
    assert helper.attributes["input.value"] == '{"question":"which?"}'
    tool = receiver.named("execute_tool search")
    assert tool.attributes["gen_ai.tool.call.result"] == '{"found":"here","token":"[redacted]"}'
    assert (tool.service, tool.headers["x-api-key"]) == ("runagent", "lsv2_key")
    assert "S3CRET" not in str(receiver.spans)


def test_the_trace_survives_who_is_killed(site: Site) -> None:
    worker = site.start_worker()
    metadata = {"trace": True, "project": "other"}
    created = site.client.create_run("slow", target=RunTarget.WORKER, metadata=metadata)
    site.wait_for_file("begun-1")
    site.runtime.kill()
    worker.kill()
    site.runtime.start()
    worker = site.start_worker()
    site.wait_for_file("begun-2")
    (site.folder / "go-on").touch()
    run = site.wait_for(created.run_id, RunState.SUCCEEDED)
    assert (run.trace_id, run.attempt) == (created.trace_id, 2)
    site.stop_worker(worker)
    site.receiver.wait_for("invoke_agent slow", "run agent.run")
    assert site.receiver.path_of("invoke_agent slow") == ["invoke_agent slow", "run agent.run"]
    assert {(span.trace_id, span.attributes["langsmith.trace.session_name"]) for span in site.receiver.spans} == {
        (created.trace_id, "other")
    }


def test_traceable_functions_of_the_langsmith_sdk_nest(site: Site) -> None:
    worker = site.start_worker(LANGSMITH_TRACING="true", LANGSMITH_TRACING_MODE="otel")
    metadata = {"trace": True, "project": "other"}
    created = site.client.create_run("langsmith", target=RunTarget.WORKER, metadata=metadata)
    site.wait_for(created.run_id, RunState.SUCCEEDED)
    site.stop_worker(worker)
    site.receiver.wait_for("outer", "inner", "run agent.run")
    assert site.receiver.path_of("inner") == ["inner", "outer", "invoke_agent langsmith", "run agent.run"]
    # Nobody but the SDK knows the ids of its own spans: what else is done in its functions is beside them.
    assert site.receiver.path_of("step count") == ["step count", "invoke_agent langsmith", "run agent.run"]
    assert {(span.trace_id, span.attributes["langsmith.trace.session_name"]) for span in site.receiver.spans} == {
        (created.trace_id, "other")
    }
